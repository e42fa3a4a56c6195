"""Manipulation functions: other shapes, orders and groupings of the same elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array._core import (
    alike,
    as_shape,
    as_tensor,
    broadcast_shape,
    check_device,
    concrete,
    distinct,
    is_known,
    normalize_axes,
    normalize_axis,
    normalize_each,
    to_dtype,
    to_shape,
)
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.graph import make
from chainrule.primitives import movement as p

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def reshape(x: Any, /, shape: Any, *, copy: bool | None = None) -> Tensor:
    """x with its elements, in order, in another shape. One length may be -1: what is left over.

    `copy=True` gives the result memory of its own; `copy=False` raises an ArgumentError where x
    does not lie in memory in such a way that it can be shared.
    """
    source, shape = as_tensor(x), as_shape(shape)
    if min(shape, default=0) < 0:
        shape = _fill_in(source, shape)
    if shape == source.shape:
        z = distinct(source, x)
    else:
        z = p.reshape(source, shape=shape)
    known = copy is False and z.size and is_known(z)  # else there is no memory to share yet
    if known and not np.may_share_memory(z._array, source._array):
        raise ArgumentError(
            f"reshape of {source.shape} to {shape} needs a copy, because x is not contiguous in "
            "memory; pass copy=None."
        )
    return p.identity_copy(z) if copy else z


def _fill_in(x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with its -1 replaced by what is left over."""
    if shape.count(-1) > 1:
        raise ShapeError(f"only one length of a shape may be -1, got {shape}.")
    if min(shape) < -1:
        raise ShapeError(f"lengths cannot be negative, got shape {shape}.")
    rest = math.prod(n for n in shape if n != -1)
    if rest == 0 or x.size % rest:
        raise ShapeError(f"cannot reshape {x.shape} ({x.size} elements) to {shape}.")
    return tuple(x.size // rest if n == -1 else n for n in shape)


def flatten(x: Any, /, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """x with the axes from `start_axis` to `end_axis` (both included) merged into one."""
    x = as_tensor(x)
    if x.ndim == 0:
        return reshape(x, (1,))
    start, end = normalize_axis(start_axis, x.ndim), normalize_axis(end_axis, x.ndim)
    if start > end:
        raise ArgumentError(f"flatten from axis {start_axis} to {end_axis}: the first comes later.")
    merged = math.prod(x.shape[start : end + 1])
    return reshape(x, (*x.shape[:start], merged, *x.shape[end + 1 :]))


def permute_dims(x: Any, /, axes: Any) -> Tensor:
    """x with axis i of the result being axis `axes[i]` of x."""
    source = as_tensor(x)
    ndim = source.ndim
    order = tuple([normalize_axis(a, ndim) for a in axes])
    still = tuple(range(ndim))
    if order == still:
        return distinct(source, x)
    if tuple(sorted(order)) != still:
        raise ArgumentError(
            f"permute_dims of shape {source.shape} needs each axis once, got {axes}."
        )
    return p.permute(source, axes=order)


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """x with two axes exchanged."""
    x = as_tensor(x)
    order = list(range(x.ndim))
    a, b = normalize_axis(axis1, x.ndim), normalize_axis(axis2, x.ndim)
    order[a], order[b] = order[b], order[a]
    return permute_dims(x, order)


def moveaxis(x: Any, source: Any, destination: Any, /) -> Tensor:
    """x with the axes at `source` moved to `destination`, the others in order."""
    x = as_tensor(x)
    sources, targets = normalize_each(source, x.ndim), normalize_each(destination, x.ndim)
    if len(sources) != len(targets):
        raise ArgumentError(f"moveaxis got {len(sources)} axes and {len(targets)} places.")
    order = [a for a in range(x.ndim) if a not in sources]
    for target, a in sorted(zip(targets, sources, strict=True)):
        order.insert(target, a)
    return permute_dims(x, order)


def _listed(axis: Any) -> Sequence[int]:
    return axis if isinstance(axis, tuple | list) else (axis,)


def matrix_transpose(x: Any, /) -> Tensor:
    """x with the last two axes exchanged."""
    x = as_tensor(x)
    n = x.ndim
    if n < 2:
        raise ShapeError(f"matrix_transpose needs at least two axes, got shape {x.shape}.")
    return p.permute(x, axes=(*range(n - 2), n - 1, n - 2))


def expand_dims(x: Any, /, axis: Any = 0) -> Tensor:
    """x with new axes of length 1 at `axis` (an integer or a tuple of places in the result)."""
    x = as_tensor(x)
    ndim = x.ndim + len(_listed(axis))
    places = normalize_each(axis, ndim)
    lengths = iter(x.shape)
    return p.reshape(x, shape=tuple(1 if i in places else next(lengths) for i in range(ndim)))


def squeeze(x: Any, /, axis: Any) -> Tensor:
    """x without the named axes, which must be of length 1."""
    x = as_tensor(x)
    axes = normalize_axes(axis, x.ndim)
    if any(x.shape[a] != 1 for a in axes):
        raise ShapeError(f"cannot squeeze axis {axis} of shape {x.shape}: its length is not 1.")
    return p.reshape(x, shape=tuple(n for i, n in enumerate(x.shape) if i not in axes))


def unflatten(x: Any, /, axis: int, shape: Any) -> Tensor:
    """x with one axis split into several; one length may be -1."""
    x = as_tensor(x)
    n, lengths = normalize_axis(axis, x.ndim), as_shape(shape)
    if -1 in lengths:
        rest = math.prod(m for m in lengths if m != -1)
        lengths = tuple(x.shape[n] // max(rest, 1) if m == -1 else m for m in lengths)
    if math.prod(lengths) != x.shape[n]:
        raise ShapeError(f"cannot split axis {axis} of shape {x.shape} into {shape}.")
    return reshape(x, (*x.shape[:n], *lengths, *x.shape[n + 1 :]))


def broadcast_to(x: Any, /, shape: Any) -> Tensor:
    """x repeated to a shape along axes of length 1 and new leading axes."""
    return distinct(to_shape(as_tensor(x), as_shape(shape)), x)


def broadcast_arrays(*arrays: Any) -> list[Tensor]:
    """The arguments broadcast to their common shape."""
    shape = broadcast_shape(*(as_tensor(a).shape for a in arrays))
    return [broadcast_to(a, shape) for a in arrays]


def flip(x: Any, /, *, axis: Any = None) -> Tensor:
    """x with the order along `axis` (an axis, a tuple, or None for all) reversed."""
    x = as_tensor(x)
    return p.flip(x, axes=normalize_axes(axis, x.ndim))


def concat(arrays: Any, /, *, axis: int | None = 0) -> Tensor:
    """The tensors one after another along an axis (all flattened first for None)."""
    xs = alike(arrays, "concat")
    if axis is None:
        xs, axis = [p.reshape(x, shape=(x.size,)) for x in xs], 0
    if xs[0].ndim == 0:
        raise ShapeError("tensors of shape () cannot be concatenated; use stack.")
    return p.concat(*xs, axis=normalize_axis(axis, xs[0].ndim))


def stack(arrays: Any, /, *, axis: int = 0) -> Tensor:
    """The tensors, all of one shape, side by side along a new axis."""
    xs = alike(arrays, "stack")
    for x in xs[1:]:
        if x.shape != xs[0].shape:
            raise ShapeError(f"stack needs equal shapes, got {xs[0].shape} and {x.shape}.")
    place = normalize_axis(axis, xs[0].ndim + 1)
    return p.concat(*(expand_dims(x, axis=place) for x in xs), axis=place)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices of x along an axis, which disappears."""
    x = as_tensor(x)
    n = normalize_axis(axis, x.ndim)
    shape = (*x.shape[:n], *x.shape[n + 1 :])
    return tuple(p.reshape(part, shape=shape) for part in split(x, (1,) * x.shape[n], axis=n))


def split(x: Any, /, sections: int | Sequence[int], *, axis: int = 0) -> tuple[Tensor, ...]:
    """x cut along an axis into `sections` equal parts, or into parts of the given lengths."""
    x = as_tensor(x)
    n = normalize_axis(axis, x.ndim)
    length = x.shape[n]
    if isinstance(sections, int):
        if sections < 1 or length % sections:
            raise ArgumentError(f"cannot split axis {axis} of length {length} into {sections}.")
        lengths: Sequence[int] = (length // sections,) * sections
    else:
        lengths = tuple(sections)
        if sum(lengths) != length or min(lengths, default=0) < 0:
            raise ArgumentError(f"the lengths {lengths} do not add up to {length}.")
    parts, start = [], 0
    for m in lengths:
        starts = tuple(start if i == n else 0 for i in range(x.ndim))
        shape = tuple(m if i == n else k for i, k in enumerate(x.shape))
        parts.append(p.slice_(x, starts=starts, lengths=shape, steps=(1,) * x.ndim))
        start += m
    return tuple(parts)


def pad(x: Any, /, widths: Any, *, value: float = 0) -> Tensor:
    """x with `value` around it; `widths` is ((before, after), ...), a pair for each axis.

    A negative width cuts elements off.
    """
    source = x = as_tensor(x)
    pairs = [tuple(w) for w in widths]
    if len(pairs) != x.ndim or any(len(w) != 2 for w in pairs):
        raise ShapeError(f"pad of shape {x.shape} needs {x.ndim} pairs of widths, got {widths}.")
    if any(w < 0 for pair in pairs for w in pair):
        starts = tuple(max(-low, 0) for low, _ in pairs)
        lengths = tuple(
            n - start - max(-high, 0)
            for n, start, (_, high) in zip(x.shape, starts, pairs, strict=True)
        )
        if any(n < 0 for n in lengths):
            raise ShapeError(f"pad of shape {x.shape} by {widths} cuts off more than there is.")
        x = p.slice_(x, starts=starts, lengths=lengths, steps=(1,) * x.ndim)
    zero_or_more = tuple((max(low, 0), max(high, 0), 0) for low, high in pairs)
    if any(map(any, zero_or_more)):
        return p.pad(x, widths=zero_or_more, value=value)
    return distinct(x, source)


def roll(x: Any, /, shift: Any, *, axis: Any = None) -> Tensor:
    """x moved on by `shift` places along `axis`; what falls off one end comes in at the other."""
    source = x = as_tensor(x)
    if axis is None:
        if isinstance(shift, tuple):
            raise ArgumentError("several shifts need as many axes.")
        return reshape(roll(reshape(x, (x.size,)), shift, axis=0), x.shape)
    axes, shifts = _listed(axis), _listed(shift)
    if len(shifts) == 1:
        shifts = tuple(shifts) * len(axes)
    if len(axes) != len(shifts):
        raise ArgumentError(f"roll got {len(shifts)} shifts for {len(axes)} axes.")
    for a, s in zip(axes, shifts, strict=True):
        n = normalize_axis(a, x.ndim)
        length = x.shape[n]
        if length and (cut := (length - s) % length):
            first, second = split(x, (cut, length - cut), axis=n)
            x = p.concat(second, first, axis=n)
    return distinct(x, source)


def tile(x: Any, repetitions: Any, /) -> Tensor:
    """x repeated as a whole, `repetitions[i]` times along axis i."""
    x = as_tensor(x)
    times = as_shape(repetitions)
    if any(t < 0 for t in times):
        raise ArgumentError(f"tile repeats 0 times or more, got {repetitions}.")
    ndim = max(x.ndim, len(times))
    shape = (1,) * (ndim - x.ndim) + x.shape
    times = (1,) * (ndim - len(times)) + times
    paired = p.reshape(x, shape=tuple(m for n in shape for m in (1, n)))
    wide = tuple(m for n, t in zip(shape, times, strict=True) for m in (t, n))
    return reshape(to_shape(paired, wide), tuple(t * n for n, t in zip(shape, times, strict=True)))


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """x with each element along `axis` repeated, `repeats` times or `repeats[i]` times."""
    from chainrule.array.indexing import take

    x = as_tensor(x)
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    n = normalize_axis(axis, x.ndim)
    length, counts = x.shape[n], concrete(repeats, "repeat")
    if counts.dtype.kind not in "ui" or (counts < 0).any():
        raise ArgumentError(f"repeats are integers of 0 or more, got {repeats!r}.")
    if counts.ndim > 1 or counts.size not in (1, length):
        raise ShapeError(
            f"repeats of shape {counts.shape} do not fit axis {axis} of shape {x.shape}: pass one "
            f"number, or {length} of them."
        )
    counts = np.broadcast_to(counts, (length,)).astype(np.int64)
    return take(x, make(np.repeat(np.arange(length), counts)), axis=n)


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """x in another dtype. `copy=False` gives x itself where the dtype is the same.

    Raises:
        DTypeError: for complex to real, where half of each number would be lost in silence.
    """
    check_device(device)
    x = as_tensor(x)
    target = dtypes.as_dtype(dtype)
    if target == x.dtype:
        return p.identity_copy(x) if copy else x
    if x.dtype.kind == "c" and target.kind in "iuf":
        raise DTypeError(
            f"{x.dtype.name} is not cast to {target.name}; take cr.real(x), cr.imag(x) or "
            "cr.abs(x)."
        )
    return to_dtype(x, target)
