"""Gather and scatter, over the first axis.

All advanced indexing is composed from these: the indexed axes are moved to the front and merged,
the indices are merged alongside by `ravel_index`, and one gather of rows does the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.errors import DTypeError, IndexingError, ShapeError
from chainrule.graph import Array, Primitive, Spec, constant
from chainrule.primitives._rules import check_kind
from chainrule.primitives.elementwise import eq, where
from chainrule.primitives.kernels import scatter as kernels
from chainrule.primitives.movement import broadcast_to, region, reshape, slice_


def _infer_ravel_index(*indices: Any, dims: tuple[int, ...]) -> Spec:
    check_kind("indexing", "integer", *indices)
    for index in indices[1:]:
        if index.shape != indices[0].shape:
            raise ShapeError(f"indices of shapes {indices[0].shape} and {index.shape} differ.")
    return Spec(indices[0].shape, dtypes.int64)


def _ravel_index(*indices: Array, dims: tuple[int, ...]) -> Array:
    flat = np.zeros(indices[0].shape, dtype=np.int64)
    for index, n in zip(indices, dims, strict=True):
        if index.size:
            low, high = index.min(), index.max()
            if low < -n or high >= n:
                bad = int(low if low < -n else high)
                raise IndexingError(f"index {bad} is out of bounds for an axis of length {n}.")
        wrapped = index.astype(np.int64)
        flat = flat * n + np.where(wrapped < 0, wrapped + n, wrapped)
    return flat


ravel_index = Primitive(
    "ravel_index", "one index into the merged axes for several into each; negative ones wrap",
    ("*indices",), _infer_ravel_index, _ravel_index, flops=0,
)  # fmt: skip


def _infer_gather(x: Any, index: Any) -> Spec:
    check_kind("gather's index", "integer", index)
    return Spec(index.shape + x.shape[1:], x.dtype)


gather = Primitive(
    "gather", "z[i, ...] = x[index[i], ...]; 0 <= index < len(x)", ("x", "index"),
    _infer_gather,
    lambda x, index: x[index],
    (lambda g, z, x, index: scatter_add(g, index, length=x.shape[0]), None),
    reads="index", flops=0,
)  # fmt: skip


def _infer_scatter_add(updates: Any, index: Any, length: int) -> Spec:
    check_kind("scatter_add's index", "integer", index)
    check_kind("scatter_add", "numeric", updates)
    if updates.shape[: index.ndim] != index.shape:
        raise ShapeError(
            f"scatter_add got updates of shape {updates.shape} for an index of shape "
            f"{index.shape}; the updates' shape must begin with the index's."
        )
    return Spec((length, *updates.shape[index.ndim :]), updates.dtype)


def _scatter_add(updates: Array, index: Array, length: int) -> Array:
    inner = updates.shape[index.ndim :]
    rows = updates.reshape(index.size, *inner)
    return kernels.scatter_add((length, *inner), index.reshape(-1), rows)


scatter_add = Primitive(
    "scatter_add", "z[j, ...] = sum of updates[i, ...] over i with index[i] = j",
    ("updates", "index"), _infer_scatter_add, _scatter_add,
    (lambda g, z, updates, index, length: gather(g, index), None),
    reads="index", flops=lambda outputs, updates, *rest, **params: updates.size,
)  # fmt: skip


def _infer_scatter_set(x: Any, updates: Any, index: Any) -> Spec:
    check_kind("scatter_set's index", "integer", index)
    if x.dtype != updates.dtype:
        raise DTypeError(f"scatter_set got dtypes {x.dtype.name} and {updates.dtype.name}.")
    if updates.shape != index.shape + x.shape[1:]:
        raise ShapeError(
            f"scatter_set got updates of shape {updates.shape}, expected "
            f"{index.shape + x.shape[1:]}."
        )
    return Spec(x.shape, x.dtype)


def _scatter_set(x: Array, updates: Array, index: Array) -> Array:
    out = x.copy()
    out[index.reshape(-1)] = updates.reshape(index.size, *x.shape[1:])
    return out


def _scatter_set_dx(g: Any, z: Any, x: Any, updates: Any, index: Any) -> Any:
    return scatter_set(g, constant(0, updates.shape, g.dtype), index)


def _scatter_set_dupdates(g: Any, z: Any, x: Any, updates: Any, index: Any) -> Any:
    # Where an index occurs twice the later update stands, and only that one has a gradient.
    order = make_range(index.size, index.shape)
    writer = scatter_set(constant(-1, x.shape[:1], order.dtype), order, index)
    stands = eq(gather(writer, index), order)
    rows = gather(g, index)
    lead = stands.shape + (1,) * (rows.ndim - stands.ndim)
    mask = broadcast_to(reshape(stands, shape=lead), shape=rows.shape)
    return where(mask, rows, constant(0, rows.shape, rows.dtype))


def _infer_slice_set(x: Any, updates: Any, starts: tuple[int, ...], steps: tuple[int, ...]) -> Spec:
    if x.dtype != updates.dtype:
        raise DTypeError(f"slice_set got dtypes {x.dtype.name} and {updates.dtype.name}.")
    return Spec(x.shape, x.dtype)


def _slice_set(x: Array, updates: Array, starts: tuple[int, ...], steps: tuple[int, ...]) -> Array:
    out = x.copy()
    out[region(starts, updates.shape, steps)] = updates
    return out


slice_set = Primitive(
    "slice_set", "x with `updates` as its slice from `starts`, every `steps`-th", ("x", "updates"),
    _infer_slice_set, _slice_set,
    (
        lambda g, z, x, u, starts, steps: slice_set(
            g, constant(0, u.shape, g.dtype), starts=starts, steps=steps
        ),
        lambda g, z, x, u, starts, steps: slice_(g, starts=starts, lengths=u.shape, steps=steps),
    ),
    flops=0,
)  # fmt: skip


def make_range(n: int, shape: tuple[int, ...]) -> Any:
    """0, 1, ..., n - 1 as a constant of `shape`."""
    from chainrule.graph import make

    return make(np.arange(n, dtype=np.int64).reshape(shape))


scatter_set = Primitive(
    "scatter_set", "x with z[index[i], ...] = updates[i, ...]; of equal indices the last stands",
    ("x", "updates", "index"), _infer_scatter_set, _scatter_set,
    (_scatter_set_dx, _scatter_set_dupdates, None),
    reads="index", flops=0,
)  # fmt: skip
