"""Order: no derivatives, since sorted values are gathered by the order found here."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.errors import ShapeError
from chainrule.graph import Array, Primitive, Spec
from chainrule.primitives._rules import check_kind


def _infer_argsort(x: Any, axis: int, descending: bool) -> Spec:
    check_kind("argsort", "ordered", x)
    return Spec(x.shape, dtypes.int64)


def _argsort(x: Array, axis: int, descending: bool) -> Array:
    if not descending:
        return np.argsort(x, axis=axis, kind="stable").astype(np.int64, copy=False)
    # Stable and descending: sort the reversed axis upwards, then read it backwards.
    order = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    return np.asarray(x.shape[axis] - 1 - order, dtype=np.int64)


argsort = Primitive(
    "argsort", "the indices that sort x along an axis, equal elements in order", ("x",),
    _infer_argsort, _argsort,
)  # fmt: skip


def _infer_searchsorted(x: Any, values: Any, side: str) -> Spec:
    check_kind("searchsorted", "ordered", x, values)
    if x.ndim != 1:
        raise ShapeError(f"searchsorted needs a one-dimensional sorted array, got {x.shape}.")
    return Spec(values.shape, dtypes.int64)


searchsorted = Primitive(
    "searchsorted", "where each value would be inserted to keep x sorted", ("x", "values"),
    _infer_searchsorted,
    lambda x, values, side: np.asarray(np.searchsorted(x, values, side=side), dtype=np.int64),
)  # fmt: skip
