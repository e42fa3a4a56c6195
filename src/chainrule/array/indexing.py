"""Indexing: reading and assigning by integers, slices, `...`, `None`, index tensors and masks.

A key is read in two steps. Its slices and new axes become a `slice` and a `reshape`; its index tensors
become one `gather` over the axes that they index, merged into one. Assignment finds the flat places
that the key reads and gives those other values.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array._core import as_tensor, broadcast_shape, normalize_axis, to_dtype, to_shape
from chainrule.array.manipulation import moveaxis, permute_dims, reshape
from chainrule.errors import DTypeError, IndexingError, ShapeError
from chainrule.graph import Value, make
from chainrule.primitives import indexing as p
from chainrule.primitives import movement

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def _is_integer(entry: Any) -> bool:
    return not isinstance(entry, bool | np.bool_) and (
        isinstance(entry, int | np.integer)
        or (isinstance(entry, Value) and entry.ndim == 0 and entry.dtype.kind in "ui")
        or (isinstance(entry, np.ndarray) and entry.ndim == 0 and entry.dtype.kind in "ui")
    )


def _is_basic(entry: Any) -> bool:
    return entry is None or entry is Ellipsis or isinstance(entry, slice) or _is_integer(entry)


def _as_index(entry: Any) -> Any:
    """An index tensor: of integers, or a mask of bools."""
    if isinstance(entry, list | tuple) and not len(entry):
        return make(np.zeros(0, dtype=np.int64))
    index = as_tensor(entry)
    if index.dtype.kind not in "bui":
        raise DTypeError(
            f"an index is an integer, a slice, None, ... or a tensor of integers or bools; got "
            f"{index.dtype.name} of shape {index.shape}."
        )
    return index


def _expand_key(key: Any, ndim: int, shape: tuple[int, ...]) -> list[Any]:
    """The key as a list without `...` and masks, one entry for each axis and new axis."""
    entries: list[Any] = []
    for entry in key if isinstance(key, tuple) else (key,):
        if _is_basic(entry):
            entries.append(entry)
            continue
        index = _as_index(entry)
        if index.dtype != dtypes.bool_:
            entries.append(index)
        elif index.ndim:
            entries.append(_Mask(index))
        else:
            # A mask without axes: one new axis of length 1 or 0, indexed along.
            entries.extend([None, make(np.zeros(int(bool(index)), dtype=np.int64))])
            entries[-2:] = [_NewAxisIndex(entries[-1])]
    used = sum(_consumed(e) for e in entries)
    if used > ndim:
        raise IndexingError(f"too many indices ({used}) for a tensor of shape {shape}.")
    if sum(1 for e in entries if e is Ellipsis) > 1:
        raise IndexingError("an index may hold one '...' only.")
    if not any(e is Ellipsis for e in entries):
        entries.append(Ellipsis)
    at = next(i for i, e in enumerate(entries) if e is Ellipsis)
    entries[at : at + 1] = [slice(None)] * (ndim - used)
    return _without_masks(entries, shape)


class _Mask:
    """A mask of bools over `mask.ndim` axes at once."""

    def __init__(self, mask: Any):
        self.mask = mask


class _NewAxisIndex:
    """An index along a new axis, which a mask of shape () is."""

    def __init__(self, index: Any):
        self.index = index


def _consumed(entry: Any) -> int:
    if isinstance(entry, _Mask):
        return entry.mask.ndim
    return 0 if entry is None or entry is Ellipsis or isinstance(entry, _NewAxisIndex) else 1


def _without_masks(entries: list[Any], shape: tuple[int, ...]) -> list[Any]:
    flat: list[Any] = []
    axis = 0
    for entry in entries:
        if isinstance(entry, _Mask):
            covered = shape[axis : axis + entry.mask.ndim]
            if entry.mask.shape != covered:
                raise IndexingError(
                    f"a mask of shape {entry.mask.shape} cannot index axes of shape {covered}; "
                    "they must be equal."
                )
            flat.extend(make(i) for i in np.nonzero(entry.mask._array))
        else:
            flat.append(entry)
        axis += _consumed(entry)
    return flat


def _slice_bounds(entry: slice, n: int) -> tuple[int, int, int]:
    if entry.step is not None and operator.index(entry.step) == 0:
        raise IndexingError("a slice's step cannot be 0.")
    try:
        start, stop, step = entry.indices(n)
    except TypeError:
        raise DTypeError(f"a slice is made of integers or None, got {entry}.") from None
    return start, len(range(start, stop, step)), step


def getitem(x: Any, key: Any, /) -> Tensor:
    """x[key], by NumPy's rules."""
    x = as_tensor(x)
    if _is_integer(key) and x.ndim:
        key = (key,)
    entries = _expand_key(key, x.ndim, x.shape)
    advanced = any(isinstance(e, Value | _NewAxisIndex) and not _is_integer(e) for e in entries)
    starts, lengths, steps, flips, result = [], [], [], [], []
    places: list[tuple[int, Any]] = []  # (axis after the basic step, index)
    axis = 0
    for entry in entries:
        if entry is None:
            result.append(1)
            continue
        if isinstance(entry, _NewAxisIndex):
            places.append((len(result), entry.index))
            result.append(1)
            continue
        n = x.shape[axis]
        start, length, step = 0, n, 1
        if isinstance(entry, slice):
            start, length, step = _slice_bounds(entry, n)
            if step < 0:
                start, step = start + (length - 1) * step, -step
                flips.append(axis)
            result.append(length)
        elif _is_integer(entry) and not advanced:
            start, length = _integer(entry, n, axis), 1
        else:
            places.append((len(result), entry))
            result.append(n)
        starts.append(start if length else 0)
        lengths.append(length)
        steps.append(step)
        axis += 1
    x = _basic(x, tuple(starts), tuple(lengths), tuple(steps), tuple(flips), tuple(result))
    return _gather_axes(x, places) if places else x


def _integer(entry: Any, n: int, axis: int) -> int:
    i = operator.index(entry)
    if not -n <= i < n:
        raise IndexingError(f"index {i} is out of bounds for axis {axis} of length {n}.")
    return i % n


def _basic(
    x: Any, starts: Any, lengths: Any, steps: Any, flips: Any, shape: tuple[int, ...]
) -> Any:
    if lengths != x.shape or any(s != 1 for s in steps):
        x = movement.slice_(x, starts=starts, lengths=lengths, steps=steps)
    if flips:
        x = movement.flip(x, axes=flips)
    return x if x.shape == shape else movement.reshape(x, shape=shape)


def _gather_axes(x: Any, places: list[tuple[int, Any]]) -> Tensor:
    """Index several axes of x together by broadcast index tensors, after NumPy's rule of place.

    Where the indexed axes stand side by side the index's axes take their place; otherwise they come
    first.
    """
    axes = [axis for axis, _ in places]
    indices = [as_tensor(index) for _, index in places]
    shape = broadcast_shape(*(i.shape for i in indices))
    indices = [to_shape(i, shape) for i in indices]
    rest = [a for a in range(x.ndim) if a not in axes]
    dims = tuple(x.shape[a] for a in axes)
    outer = tuple(x.shape[a] for a in rest)
    flat = p.ravel_index(*indices, dims=dims)
    rows = reshape(permute_dims(x, (*axes, *rest)), (math.prod(dims), *outer))
    z = p.gather(rows, flat)
    side_by_side = axes == list(range(axes[0], axes[0] + len(axes)))
    if side_by_side and axes[0] > 0:
        m = len(shape)
        z = moveaxis(z, tuple(range(m)), tuple(range(axes[0], axes[0] + m)))
    return z


def setitem(x: Any, key: Any, value: Any, /) -> Tensor:
    """x with `value`, broadcast and cast to the dtype of x, at x[key]: a new tensor.

    Where a key names a place several times the last value stands.
    """
    x = as_tensor(x)
    places = getitem(p.make_range(x.size, x.shape), key)
    value = as_tensor(value)
    if dtypes.rank(value.dtype) > dtypes.rank(x.dtype):
        raise DTypeError(
            f"cannot assign {value.dtype.name} values to a tensor of {x.dtype.name}; "
            "cast one of them with .astype() first."
        )
    if value.shape != places.shape:
        lead = value.ndim - places.ndim
        if lead > 0 and all(n == 1 for n in value.shape[:lead]):
            value = reshape(value, value.shape[lead:])
        try:
            value = to_shape(value, places.shape)
        except ShapeError:
            raise ShapeError(
                f"cannot assign a value of shape {value.shape} to x[key] of shape {places.shape}."
            ) from None
    flat = p.scatter_set(
        reshape(x, (x.size,)),
        reshape(to_dtype(value, x.dtype), (places.size,)),
        reshape(places, (places.size,)),
    )
    return reshape(flat, x.shape)


def _checked(index: Any, name: str) -> Any:
    index = as_tensor(index)
    if index.dtype.kind not in "ui":
        raise DTypeError(f"{name} needs integer indices, got {index.dtype.name}.")
    return index


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Tensor:
    """The slices of x at `indices` along an axis; the index's axes take that axis' place."""
    x, indices = as_tensor(x), _checked(indices, "take")
    if axis is None:
        if x.ndim != 1:
            raise ShapeError(f"take from shape {x.shape} needs an axis.")
        axis = 0
    return _gather_axes(x, [(normalize_axis(axis, x.ndim), indices)])


def _grid(shape: tuple[int, ...], axis: int, indices: Any, dims: tuple[int, ...]) -> Any:
    """Flat places in an array of shape `dims` for indices along one axis, the others staying."""
    grids = []
    for a in range(len(shape)):
        if a == axis:
            grids.append(indices)
        else:
            line = tuple(shape[a] if i == a else 1 for i in range(len(shape)))
            grids.append(to_shape(p.make_range(shape[a], line), shape))
    return p.ravel_index(*grids, dims=dims)


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Tensor:
    """z[..., i, ...] = x[..., indices[..., i, ...], ...]: indices along one axis, elementwise."""
    x, indices = as_tensor(x), _checked(indices, "take_along_axis")
    if x.ndim != indices.ndim:
        raise ShapeError(
            f"take_along_axis needs as many axes in both, got {x.shape} and {indices.shape}."
        )
    n = normalize_axis(axis, x.ndim)
    other = broadcast_shape(
        (*x.shape[:n], 1, *x.shape[n + 1 :]), (*indices.shape[:n], 1, *indices.shape[n + 1 :])
    )
    x = to_shape(x, (*other[:n], x.shape[n], *other[n + 1 :]))
    indices = to_shape(indices, (*other[:n], indices.shape[n], *other[n + 1 :]))
    flat = _grid(indices.shape, n, indices, x.shape)
    return p.gather(reshape(x, (x.size,)), flat)


def scatter_add(x: Any, indices: Any, updates: Any, /, *, axis: int = 0) -> Tensor:
    """x with `updates` added at `indices` along an axis, elementwise; equal places add up."""
    x, indices, updates = as_tensor(x), _checked(indices, "scatter_add"), as_tensor(updates)
    if indices.shape != updates.shape or x.ndim != indices.ndim:
        raise ShapeError(
            f"scatter_add needs indices and updates of one shape and as many axes as x; got "
            f"x {x.shape}, indices {indices.shape}, updates {updates.shape}."
        )
    n = normalize_axis(axis, x.ndim)
    flat = reshape(_grid(indices.shape, n, indices, x.shape), (indices.size,))
    rows = reshape(to_dtype(updates, x.dtype), (updates.size,))
    return x + reshape(p.scatter_add(rows, flat, length=x.size), x.shape)
