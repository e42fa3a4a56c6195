"""Dates in tables: from text to days, and from days to inputs of a network."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

import numpy as np

_SHAPE = re.compile(r"\d{4}[-/]\d{2}[-/]\d{2}([T ]\d{2}:\d{2}.*)?")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_DAY, _YEAR, _WEEK = 86_400.0, 365.2425, 7


def parse_date(text: str) -> float | None:
    """Days since 1970-01-01 of `2016-05-09`, `2016/05/09`, `2016-05-09 12:30`; None for other text.

    A time with an offset, such as `+02:00` or `Z`, is taken to UTC; one without is taken as it is.
    """
    if not _SHAPE.fullmatch(text):
        return None
    try:
        moment = datetime.datetime.fromisoformat(text.replace("/", "-"))
    except ValueError:  # there is no 30th of February
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - _EPOCH).total_seconds() / _DAY


@dataclass(frozen=True)
class DateFeature:
    """A date as what is long-term, seasonal, weekly and daily in it.

    Inputs of t days: `(t - mean) / scale`; sine and cosine of the time of year; one place for each
    day of the week; with `timed`, sine and cosine of the time of day.
    """

    name: str
    mean: float
    scale: float
    timed: bool = False
    fill: float | None = None

    @property
    def input_names(self) -> list[str]:
        days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
        parts = ["time", "sin(year)", "cos(year)", *days]
        parts += ["sin(day)", "cos(day)"] * self.timed
        return [f"{self.name}:{part}" for part in parts]

    @property
    def width(self) -> int:
        return len(self.input_names)

    def encode(self, days: np.ndarray) -> np.ndarray:
        """The inputs (n, width) of days (n,)."""
        year, day = (2 * np.pi * days / period for period in (_YEAR, 1.0))
        weekday = (np.floor(days).astype(np.int64) + 3) % _WEEK  # 1970-01-01 was a Thursday
        parts = [((days - self.mean) / self.scale)[:, None], np.sin(year)[:, None]]
        parts += [np.cos(year)[:, None], np.eye(_WEEK)[weekday]]
        if self.timed:
            parts += [np.sin(day)[:, None], np.cos(day)[:, None]]
        return np.concatenate(parts, axis=1)


def fit_date(name: str, days: np.ndarray, policy: str) -> DateFeature:
    """The feature of a column of days, NaN where there is none, filled in by the policy."""
    present = days[~np.isnan(days)]
    fill = None
    if policy in ("mean", "median"):
        fill = float(np.mean(present) if policy == "mean" else np.median(present))
    elif policy == "most_frequent":
        values, counts = np.unique(present, return_counts=True)
        fill = float(values[counts.argmax()])
    timed = bool((present != np.floor(present)).any())
    return DateFeature(name, float(present.mean()), float(present.std()) or 1.0, timed, fill)
