"""What a hyperparameter may be, in words and as a test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from chainrule.errors import ArgumentError, DTypeError
from chainrule.graph import Value


class Domain(NamedTuple):
    """The values that a hyperparameter may take; `length` is a tuple's, None for one number."""

    words: str
    holds: Callable[..., bool]
    length: int | None = None


Domains = dict[str, Domain]

NON_NEGATIVE = Domain("a number >= 0", lambda x: x >= 0)
FINITE = Domain("a finite number", math.isfinite)
FRACTION = Domain("a number in [0, 1]", lambda x: 0 <= x <= 1)
POSITIVE_INTEGER = Domain("an integer >= 1", lambda x: isinstance(x, int) and x >= 1)
BETAS = Domain("two numbers in [0, 1)", lambda a, b: 0 <= a < 1 and 0 <= b < 1, 2)
ETAS = Domain("two numbers, 0 < etas[0] < 1 < etas[1]", lambda low, high: 0 < low < 1 < high, 2)
STEP_SIZES = Domain("two numbers, 0 < lowest <= highest", lambda low, high: 0 < low <= high, 2)


def plain(value: Any) -> Any:
    """A hyperparameter as a Python number or a tuple of them, out of tensors and NumPy numbers."""
    if isinstance(value, Value):
        value = value.detach()  # type: ignore[attr-defined]
    if isinstance(value, Value | np.ndarray | np.generic) and value.size == 1:
        return value.item()  # type: ignore[attr-defined]
    if isinstance(value, list | tuple):
        return tuple(plain(v) for v in value)
    return value


def check(owner: str, name: str, value: Any, domain: Domain) -> None:
    """Refuse a hyperparameter outside its domain."""
    numbers = value if domain.length is not None else (value,)
    wrong_kind = not isinstance(numbers, tuple) or not all(
        isinstance(x, int | float) for x in numbers
    )
    if wrong_kind or (domain.length is not None and len(numbers) != domain.length):
        raise DTypeError(f"{owner} needs {name} to be {domain.words}, but got {value!r}.")
    if not domain.holds(*numbers):
        raise ArgumentError(f"{owner} needs {name} to be {domain.words}, but got {value!r}.")
