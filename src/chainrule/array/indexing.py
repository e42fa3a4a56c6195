"""Indexing: reading and assigning by integers, slices, `...`, `None`, index tensors and masks.

A key is read in two steps. Its slices and new axes become a `slice` and a `reshape`; its index
tensors become one `gather` over the axes that they index, merged into one. Assignment by slices
writes a slice; by index tensors it finds the flat places that the key reads and gives those other
values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.array._core import (
    SCALARS,
    as_tensor,
    broadcast_shape,
    concrete,
    distinct,
    filled,
    is_known,
    normalize_axis,
    to_dtype,
    to_shape,
)
from chainrule.array.manipulation import moveaxis, permute_dims, reshape
from chainrule.dtypes import DType
from chainrule.errors import ChainruleError, DTypeError, IndexingError, ShapeError
from chainrule.graph import Value, make
from chainrule.primitives import elementwise as e
from chainrule.primitives import indexing as p
from chainrule.primitives import movement

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


class _Mask(NamedTuple):
    """A mask of bools over `mask.ndim` axes at once."""

    mask: Any


class _NewAxisIndex(NamedTuple):
    """An index along a new axis, which a mask of shape () is."""

    index: Any


class _Plan(NamedTuple):
    """What a key asks for: a slice, flips, a shape, and then index tensors at some axes of it."""

    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    steps: tuple[int, ...]
    flips: tuple[int, ...]
    shape: tuple[int, ...]
    places: list[tuple[int, Any]]
    adjacent: bool | None  # whether the index tensors stand side by side in the key


def _entry(entry: Any) -> Any:
    """An entry of a key that is no plain integer, slice, None or `...`, in one of our forms."""
    if isinstance(entry, int | np.integer) and not isinstance(entry, bool):
        return int(entry)
    if isinstance(entry, Value | np.ndarray) and not entry.ndim and entry.dtype.kind in "ui":
        return int(np.asarray(entry)) if is_known(entry) else entry
    if isinstance(entry, list | tuple) and not len(entry):
        return make(np.zeros(0, dtype=np.int64))
    try:
        index = as_tensor(entry)
    except ChainruleError as error:
        raise IndexingError(f"{entry!r} is no index: {error}") from None
    if index.dtype.kind in "ui":
        return index
    if index.dtype != dtypes.bool_:
        raise IndexingError(
            f"an index is an integer, a slice, None, ... or a tensor of integers or bools; got "
            f"{index.dtype.name} of shape {index.shape}."
        )
    if index.ndim:
        return _Mask(index)
    # A mask without axes: a new axis of length 1 or 0.
    return _NewAxisIndex(make(np.zeros(int(concrete(index, "x[mask]")), dtype=np.int64)))


def _expanded(key: Any, shape: tuple[int, ...]) -> tuple[list[Any], bool | None]:
    """The key as a list with an entry for each axis of x, and one for each new axis.

    And whether its index tensors (with the integers, which are indices beside them) stand side by
    side, None if there are none. A `...` parts its neighbours even where it stands for no axes.
    """
    given = key if isinstance(key, tuple) else (key,)
    entries = [i if type(i) in _PLAIN else _entry(i) for i in given]
    consumed = [1 if type(i) in _ONE_AXIS else _consumed(i) for i in entries]
    dots = [place for place, i in enumerate(entries) if i is Ellipsis]
    if len(dots) > 1:
        raise IndexingError("an index may hold one '...' only.")
    used = sum(consumed)
    if used > len(shape):
        raise IndexingError(f"too many indices ({used}) for a tensor of shape {shape}.")
    adjacent = None
    if any([type(i) not in _PLAIN for i in entries]):
        parting = (type(None), type(Ellipsis), slice)
        indices = [place for place, i in enumerate(entries) if not isinstance(i, parting)]
        adjacent = indices[-1] - indices[0] == len(indices) - 1
    at = dots[0] if dots else len(entries)
    entries[at : at + 1] = [_WHOLE] * (len(shape) - used)
    return entries, adjacent


_PLAIN = {int, slice, type(None), type(Ellipsis)}
_ONE_AXIS = {int, slice}
_WHOLE = slice(None)


def _consumed(entry: Any) -> int:
    """How many axes of x an entry of a key is about."""
    if type(entry) is _Mask:
        return entry.mask.ndim
    return 1 if isinstance(entry, Value) else 0


def _plan(key: Any, shape: tuple[int, ...]) -> _Plan:
    """Read a key for a tensor of this shape."""
    entries, adjacent = _expanded(key, shape)
    starts, lengths, steps, flips, result = [], [], [], [], []
    places: list[tuple[int, Any]] = []  # (axis after the basic step, index)
    axis = 0
    for entry in entries:
        if entry is None:
            result.append(1)
            continue
        if type(entry) is _NewAxisIndex:
            places.append((len(result), entry.index))
            result.append(1)
            continue
        if type(entry) is _Mask:
            indices = _mask_indices(entry.mask, shape[axis : axis + entry.mask.ndim])
        else:
            indices = (entry,)
        for index in indices:
            n = shape[axis]
            start, length, step = 0, n, 1
            if index is _WHOLE:
                result.append(n)
            elif type(index) is slice:
                start, length, step = _slice_bounds(index, n)
                if step < 0:
                    start, step = start + (length - 1) * step, -step
                    flips.append(axis)
                result.append(length)
            elif type(index) is int and adjacent is None:
                start, length = _integer(index, n, axis), 1
            else:
                places.append((len(result), index))
                result.append(n)
            starts.append(start if length else 0)
            lengths.append(length)
            steps.append(step)
            axis += 1
    return _Plan(
        tuple(starts), tuple(lengths), tuple(steps), tuple(flips), tuple(result), places, adjacent
    )


def _mask_indices(mask: Any, covered: tuple[int, ...]) -> tuple[Any, ...]:
    """A mask as one index tensor for each axis that it covers."""
    if any(m not in (n, 0) for m, n in zip(mask.shape, covered, strict=True)):
        raise IndexingError(
            f"a mask of shape {mask.shape} cannot index axes of shape {covered}; they must be "
            "equal."
        )
    return tuple(map(make, np.nonzero(concrete(mask, "x[mask]"))))


def _slice_bounds(entry: slice, n: int) -> tuple[int, int, int]:
    """First element, number of elements and step of a slice of an axis of length n."""
    try:
        start, stop, step = entry.indices(n)
    except TypeError:
        raise IndexingError(f"a slice is made of integers or None, got {entry}.") from None
    except ValueError:
        raise IndexingError("a slice's step cannot be 0.") from None
    return start, len(range(start, stop, step)), step


def _integer(i: int, n: int, axis: int) -> int:
    if not -n <= i < n:
        raise IndexingError(f"index {i} is out of bounds for axis {axis} of length {n}.")
    return i % n


def getitem(x: Any, key: Any, /) -> Tensor:
    """x[key], by NumPy's rules."""
    z = source = as_tensor(x)
    plan = _plan(key, z._array.shape)
    if plan.lengths != z._array.shape or max(plan.steps, default=1) > 1:
        z = movement.slice_(z, starts=plan.starts, lengths=plan.lengths, steps=plan.steps)
    if plan.flips:
        z = movement.flip(z, axes=plan.flips)
    if plan.shape != z._array.shape:
        z = movement.reshape(z, shape=plan.shape)
    if plan.places:
        z = _gather_axes(z, plan.places, plan.adjacent)
    return distinct(z, source)


def _gather_axes(x: Any, places: list[tuple[int, Any]], adjacent: bool | None = True) -> Tensor:
    """Index several axes of x together by broadcast index tensors, after NumPy's rule of place.

    Where the indices stand side by side their axes take the place of those that they index;
    otherwise they come first.
    """
    axes = [axis for axis, _ in places]
    indices = [as_tensor(index) for _, index in places]
    try:
        shape = broadcast_shape(*(i.shape for i in indices))
    except ShapeError as error:
        raise IndexingError(f"the index tensors do not fit together: {error}") from None
    if 0 in shape:  # nothing will be read, but what is named must be there
        for axis, index in zip(axes, indices, strict=True):
            p.ravel_index(index, dims=(x.shape[axis],))
    indices = [to_shape(i, shape) for i in indices]
    rest = [a for a in range(x.ndim) if a not in axes]
    dims = tuple(x.shape[a] for a in axes)
    outer = tuple(x.shape[a] for a in rest)
    flat = p.ravel_index(*indices, dims=dims)
    rows = reshape(permute_dims(x, (*axes, *rest)), (math.prod(dims), *outer))
    z = p.gather(rows, flat)
    if adjacent and axes[0] > 0:
        m = len(shape)
        z = moveaxis(z, tuple(range(m)), tuple(range(axes[0], axes[0] + m)))
    return z


def setitem(x: Any, key: Any, value: Any, /) -> Tensor:
    """x with `value`, broadcast and cast to the dtype of x, at x[key]: a new tensor.

    Where a key names a place several times the last value stands.

    Raises:
        DTypeError: for a value of a higher kind, such as a float for a tensor of integers.
        RangeError: for a Python integer outside the range of the dtype.
    """
    x = as_tensor(x)
    value = _assigned(value, x.dtype)
    if isinstance(key, Value | np.ndarray) and key.dtype == dtypes.bool_ and not value.ndim:
        mask = as_tensor(key)
        if mask.ndim > 0 and mask.shape == x.shape[: mask.ndim]:
            line = reshape(mask, mask.shape + (1,) * (x.ndim - mask.ndim))
            return e.where(to_shape(line, x.shape), to_shape(value, x.shape), x)
    plan = _plan(key, x.shape)
    if not plan.places:
        updates = reshape(_fitted(value, plan.shape), plan.lengths)
        if plan.flips:
            updates = movement.flip(updates, axes=plan.flips)
        return p.slice_set(x, updates, starts=plan.starts, steps=plan.steps)
    places = getitem(p.make_range(x.size, x.shape), key)
    flat = p.scatter_set(
        reshape(x, (x.size,)),
        reshape(_fitted(value, places.shape), (places.size,)),
        reshape(places, (places.size,)),
    )
    return reshape(flat, x.shape)


def _assigned(value: Any, dtype: DType) -> Any:
    """A value to be assigned, in the dtype of what it is assigned to."""
    number = isinstance(value, SCALARS)
    value = value if number else as_tensor(value)
    kind = dtypes.scalar_dtype(value) if number else value.dtype
    if dtypes.rank(kind) > dtypes.rank(dtype):
        raise DTypeError(
            f"cannot assign {kind.name} values to a tensor of {dtype.name}; cast one of them with "
            ".astype() first."
        )
    return filled(value, (), dtype) if number else to_dtype(value, dtype)


def _fitted(value: Any, shape: tuple[int, ...]) -> Any:
    """A value broadcast to the shape of x[key]; leading axes of length 1 fall away."""
    lead = value.ndim - len(shape)
    if lead > 0 and all(n == 1 for n in value.shape[:lead]):
        value = reshape(value, value.shape[lead:])
    try:
        return to_shape(value, shape)
    except ShapeError:
        raise ShapeError(
            f"cannot assign a value of shape {value.shape} to x[key] of shape {shape}."
        ) from None


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
