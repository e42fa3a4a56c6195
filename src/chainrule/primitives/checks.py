"""Checks of values: what an operation demands of numbers that are not known while it is traced.

Eagerly the functions that demand something look at once. In a compiled function a `check` stands in
the graph, and the program looks before it writes over any state.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.errors import ChainruleError
from chainrule.graph import Array, Primitive, Spec

Refusal = Callable[[Array], Exception]
"""Makes the error for values that do not pass."""


def placed(refuse: Refusal, line: str | None, layers: Sequence[Any]) -> Refusal:
    """The same error, and it names the user's line and the innermost of the layers around it."""
    found = [weakref.ref(layers[-1]), weakref.ref(layers[0])] if layers else []

    def told(x: Array) -> Exception:
        error = refuse(x)
        if isinstance(error, ChainruleError):
            error.line = error.line or line
            if found and error.layer is None:
                error.layer, error.root = [layer() for layer in found]
        return error

    return told


def passing(x: Array, low: float, high: float, ignore: float | None, nan: bool) -> Any:
    """For each element whether low <= x <= high, or it is `ignore`, or a NaN that may be one."""
    good = ~((x < low) | (x > high)) if nan else (x >= low) & (x <= high)
    return good if ignore is None else good | (x == ignore)


def _check(
    x: Array, low: float, high: float, ignore: float | None, nan: bool, refuse: Refusal
) -> Array:
    if not np.all(passing(x, low, high, ignore, nan)):
        raise refuse(x)
    return np.asarray(True)


check = Primitive(
    "check", "low <= x <= high (or x = ignore, or x is NaN and nan) everywhere; else an error",
    ("x",),
    lambda x, low, high, ignore, nan, refuse: Spec((), dtypes.bool_),
    _check,
    flops=0,
)  # fmt: skip
