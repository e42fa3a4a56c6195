"""The history of a run: a record for each epoch, that can plot itself."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator
from typing import Any

from chainrule.errors import ArgumentError, require, unknown_name
from chainrule.files import atomic_path, atomic_write

Record = dict[str, float]


class History:
    """What was measured, epoch by epoch.

    `history[-1]["val_accuracy"]` is a number of the last epoch, `history["loss"]` the list of all.

    Attributes:
        records: a dict for each epoch: epoch, steps, loss, the metrics, val_loss, ..., lr, seconds.
        interrupted: whether the run was stopped by Ctrl-C.
        stopped: why it ended before its last epoch, or None.
    """

    def __init__(self, records: list[Record] | None = None):
        self.records: list[Record] = list(records or [])
        self.interrupted = False
        self.stopped: str | None = None

    def append(self, record: Record) -> None:
        """Add the record of one more epoch."""
        self.records.append(record)

    @property
    def keys(self) -> list[str]:
        """All that was measured, in the order in which it first came."""
        return list(dict.fromkeys(key for record in self.records for key in record))

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, int):
            return self.records[key]
        if key not in self.keys:
            raise unknown_name("column of the history", key, self.keys)
        return [record.get(key, math.nan) for record in self.records]

    def __repr__(self) -> str:
        if not self.records:
            return "History(no epochs)"
        last = ", ".join(f"{k}={_short(v)}" for k, v in self.records[-1].items())
        return f"History({len(self.records)} epochs; last: {last})"

    def best(self, key: str, higher: bool | None = None) -> Record:
        """The record with the best `key`: the lowest for losses and errors, else the highest."""
        values = [(v, i) for i, v in enumerate(self[key]) if not math.isnan(v)]
        if not values:
            raise ArgumentError(f"the history has no number for {key!r}.")
        up = higher_is_better(key) if higher is None else higher
        pick = max(values, key=lambda p: (p[0], -p[1])) if up else min(values)
        return self.records[pick[1]]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a line for each epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records)
        atomic_write(path, text.getvalue())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the records as JSON (NaN as null)."""
        clean = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items()}
            for r in self.records
        ]
        atomic_write(path, json.dumps(clean, indent=1) + "\n")

    def plot(self, path: str | os.PathLike[str] | None = None, title: str | None = None) -> Any:
        """Draw losses and metrics over the epochs; save to `path`, or return the figure.

        Raises:
            MissingExtraError: without matplotlib (`pip install 'chainrule[plot]'`).
        """
        if not self.records:
            raise ArgumentError("there is no epoch to plot yet.")
        require("matplotlib", extra="plot", purpose="plot the history")
        from matplotlib.figure import Figure

        groups = self._groups()
        figure = Figure(figsize=(4.6 * len(groups), 3.4), layout="constrained")
        for axes, (name, keys) in zip(
            figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
        ):
            self._draw(axes, name, keys)
        if title:
            figure.suptitle(title, parse_math=False)
        if path is None:
            return figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=130)
        return None

    def _groups(self) -> dict[str, list[str]]:
        """What belongs into one picture: a measure on training and on held-out data."""
        groups: dict[str, list[str]] = {}
        for key in self.keys:
            if key not in ("epoch", "steps", "seconds", "lr", "samples_per_second"):
                groups.setdefault(key.removeprefix("val_"), []).append(key)
        return groups

    def _draw(self, axes: Any, name: str, keys: list[str]) -> None:
        from matplotlib.ticker import PercentFormatter

        epochs = [record["epoch"] for record in self.records]
        for key in keys:
            held_out = key.startswith("val_")
            axes.plot(
                epochs, self[key], marker="o" if len(epochs) < 40 else None, markersize=3,
                label="held out" if held_out else "training",
                color="tab:orange" if held_out else "tab:blue",
            )  # fmt: skip
        axes.set(xlabel="epoch")
        axes.set_title(name, parse_math=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if is_share(name):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.3)
        axes.legend()


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def is_share(key: str) -> bool:
    """Whether a measure is a share of samples, to be shown in percent."""
    name = key.removeprefix("val_")
    return "accuracy" in name or name.startswith("top")


def higher_is_better(key: str) -> bool:
    """Whether a measure grows as a model gets better: metrics do, losses and errors do not."""
    name = key.removeprefix("val_")
    return not ("loss" in name or "error" in name or name in ("mae", "mse", "perplexity"))
