"""Sorting, searching, and sets: by an order found once, so that values keep their derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chainrule.array._core import alike, as_tensor, concrete, normalize_axis
from chainrule.array.indexing import take, take_along_axis
from chainrule.array.manipulation import reshape
from chainrule.dtypes import int64
from chainrule.errors import ArgumentError, ShapeError
from chainrule.graph import make
from chainrule.primitives import sorting as p

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices that sort x along an axis (int64). NaN counts as the largest.

    The sort is stable, whether asked for or not: equal elements stay in order, also descending.
    """
    x = as_tensor(x)
    return p.argsort(x, axis=_sort_axis(axis, x), descending=bool(descending))


def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """x sorted along an axis. The gradient goes back to the place that each element came from."""
    x = as_tensor(x)
    n = _sort_axis(axis, x)
    return take_along_axis(x, p.argsort(x, axis=n, descending=bool(descending)), axis=n)


def _sort_axis(axis: int, x: Any) -> int:
    if not x.ndim:
        raise ShapeError("a tensor of shape () has no axis to sort along.")
    return normalize_axis(axis, x.ndim)


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tensor:
    """For each element v of x2 the place in the sorted x1 at which it would be inserted (int64).

    Arguments:
        x1: one-dimensional and sorted upwards, unless `sorter` says how to sort it.
        x2: the values, of any shape.
        side: "left" gives the first place, x1[i-1] < v <= x1[i]; "right" the last,
            x1[i-1] <= v < x1[i].
        sorter: indices that sort x1, from `argsort`.
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"side is 'left' or 'right', not {side!r}.")
    x, values = alike((x1, x2), "searchsorted")
    if sorter is not None:
        x = take(x, sorter, axis=0)
    return p.searchsorted(x, values, side=side)


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """The indices of the elements that are not 0: one int64 tensor for each axis, in order."""
    array = concrete(x, "nonzero")
    if not array.ndim:
        raise ShapeError("nonzero needs at least one axis, got a tensor of shape ().")
    return tuple(map(make, np.nonzero(array)))


class UniqueAll(NamedTuple):
    """What `unique_all` returns."""

    values: Any
    indices: Any
    inverse_indices: Any
    counts: Any


class UniqueCounts(NamedTuple):
    """What `unique_counts` returns."""

    values: Any
    counts: Any


class UniqueInverse(NamedTuple):
    """What `unique_inverse` returns."""

    values: Any
    inverse_indices: Any


def unique_all(x: Any, /) -> UniqueAll:
    """The different elements, in order, with where each first stands and how often it occurs.

    Returns:
        values: one-dimensional, sorted; each NaN is different from every other. The gradient of a
            value goes to the element where it first stands.
        indices: where in the flattened x each value first stands.
        inverse_indices: of the shape of x, with x = values[inverse_indices].
        counts: how often each value occurs.
    """
    x = as_tensor(x)
    flat = reshape(x, (x.size,))
    _, first, inverse, counts = np.unique(
        concrete(flat, "unique_all"),
        return_index=True, return_inverse=True, return_counts=True, equal_nan=False,
    )  # fmt: skip
    first, inverse, counts = (make(a.astype(int64, copy=False)) for a in (first, inverse, counts))
    return UniqueAll(take(flat, first), first, reshape(inverse, x.shape), counts)


def unique_counts(x: Any, /) -> UniqueCounts:
    """The different elements and how often each occurs; see `unique_all`."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Any, /) -> UniqueInverse:
    """The different elements and which of them stands where in x; see `unique_all`."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Any, /) -> Tensor:
    """The different elements, in order; see `unique_all`."""
    return unique_all(x).values
