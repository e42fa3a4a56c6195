"""Statistical and utility reductions. `axis` is an axis, a tuple of axes, or None for all."""

from __future__ import annotations

import builtins
import math
from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.array._core import (
    alike,
    as_float,
    as_tensor,
    distinct,
    normalize_axes,
    normalize_axis,
    to_dtype,
    to_shape,
)
from chainrule.dtypes import as_dtype
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.graph import constant
from chainrule.primitives import elementwise as e
from chainrule.primitives import movement
from chainrule.primitives import reduction as p

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

Axis = int | tuple[int, ...] | None


def _finish(z: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if not keepdims:
        return z
    shape = tuple([1 if i in axes else n for i, n in enumerate(x.shape)])
    return movement.reshape(z, shape=shape)


def _reduce(primitive: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    axes = normalize_axes(axis, x.ndim)
    return _finish(primitive(x, axes=axes), x, axes, keepdims)


def _accumulator(x: Any, dtype: Any) -> Any:
    """x in the dtype of its sums: small integers and bools are added up in 64 bits."""
    if dtype is not None:
        return to_dtype(x, as_dtype(dtype))
    wide = {"b": dtypes.int64, "i": dtypes.int64, "u": dtypes.uint64}.get(x.dtype.kind)
    return to_dtype(x, wide) if wide is not None else x


def sum(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over `axis`. dtype: int64 or uint64 for integers, else that of x."""
    return _reduce(p.sum, _accumulator(as_tensor(x), dtype), axis, keepdims)


def prod(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The product over `axis`. dtype: int64 or uint64 for integers, else that of x.

    Halves are multiplied with halves until one is left, so derivatives are right at zeros too.
    """
    x = _accumulator(as_tensor(x), dtype)
    axes = normalize_axes(axis, x.ndim)
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    length = math.prod(x.shape[i] for i in axes)
    outer = tuple(x.shape[i] for i in kept)
    z = movement.reshape(movement.permute(x, axes=(*axes, *kept)), shape=(length, *outer))
    while z.shape[0] != 1:
        n = z.shape[0]
        padding = ((0, n % 2 if n else 1, 0),) + ((0, 0, 0),) * len(outer)
        z = movement.pad(z, widths=padding, value=1) if n % 2 or not n else z
        if z.shape[0] > 1:
            half = z.shape[0] // 2
            z = e.mul(_rows(z, 0, half), _rows(z, half, half))
    return _finish(movement.reshape(z, shape=outer), x, axes, keepdims)


def _rows(x: Any, start: int, length: int, axis: int = 0) -> Any:
    starts = tuple(start if i == axis else 0 for i in range(x.ndim))
    lengths = tuple(length if i == axis else n for i, n in enumerate(x.shape))
    return movement.slice_(x, starts=starts, lengths=lengths, steps=(1,) * x.ndim)


def max(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over `axis`. Elements that tie share the gradient equally."""
    return _reduce(p.max, as_tensor(x), axis, keepdims)


def min(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over `axis`. Elements that tie share the gradient equally."""
    return _reduce(p.min, as_tensor(x), axis, keepdims)


def all(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements over `axis` are true (not zero)."""
    return _reduce(p.all_, to_dtype(as_tensor(x), dtypes.bool_), axis, keepdims)


def any(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether any element over `axis` is true (not zero)."""
    return _reduce(p.any_, to_dtype(as_tensor(x), dtypes.bool_), axis, keepdims)


def count_nonzero(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements over `axis` are not zero."""
    return sum(to_dtype(as_tensor(x), dtypes.bool_), axis=axis, keepdims=keepdims)


def _count(x: Any, axis: Axis) -> int:
    return math.prod(x.shape[i] for i in normalize_axes(axis, x.ndim))


def mean(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """sum(x) / n over `axis`; NaN of no elements."""
    x = as_float(x)
    total = _reduce(p.sum, x, axis, keepdims)
    return e.div(total, constant(_count(x, axis), total.shape, total.dtype))


def var(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """sum((x - mean)^2) / (n - correction) over `axis`. correction=1 is Bessel's."""
    x = as_float(x)
    deviation = x - mean(x, axis=axis, keepdims=True)
    if x.dtype.kind == "c":
        raise DTypeError("var and std are defined for real dtypes, not complex ones.")
    total = _reduce(p.sum, e.mul(deviation, deviation), axis, keepdims)
    degrees = builtins.max(_count(x, axis) - correction, 0)
    return e.div(total, constant(degrees, total.shape, total.dtype))


def std(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The square root of `var`. Where that is 0 the derivative is 0."""
    variance = var(x, axis=axis, correction=correction, keepdims=keepdims)
    flat = e.eq(variance, constant(0, variance.shape, variance.dtype))
    root = e.sqrt(e.where(flat, constant(1, variance.shape, variance.dtype), variance))
    return e.where(flat, variance, root)


def logsumexp(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """ln(sum(e^x)) over `axis`, from the largest element down, so that nothing overflows."""
    x = as_float(x)
    axes = normalize_axes(axis, x.ndim)
    top = _finish(p.max(x.detach(), axes=axes), x, axes, True)
    # Where the largest is infinite, x - x would be NaN: subtract nothing there.
    top = e.where(e.isfinite(top), top, constant(0, top.shape, top.dtype))
    shifted = e.exp(e.sub(x, movement.broadcast_to(top, shape=x.shape)))
    z = e.add(e.log(_reduce(p.sum, shifted, axes, True)), top)
    return z if keepdims else movement.reshape(z, shape=p.reduced_shape(x.shape, axes))


def _arg(primitive: Any, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    if axis is None:
        flat = movement.reshape(x, shape=(x.size,))
        return _finish(primitive(flat, axis=0), x, tuple(range(x.ndim)), keepdims)
    n = normalize_axis(axis, x.ndim)
    return _finish(primitive(x, axis=n), x, (n,), keepdims)


def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the first largest element along `axis`, of the flattened x for None."""
    return _arg(p.argmax, x, axis, keepdims)


def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the first smallest element along `axis`, of the flattened x for None."""
    return _arg(p.argmin, x, axis, keepdims)


def _running(x: Any, axis: int | None, name: str) -> tuple[Any, int]:
    if axis is None:
        if x.ndim != 1:
            raise ArgumentError(f"{name} of shape {x.shape} needs an axis.")
        return x, 0
    return x, normalize_axis(axis, x.ndim)


def _with_initial(z: Any, axis: int, value: float, include_initial: bool) -> Any:
    if not include_initial:
        return z
    widths = tuple((1, 0, 0) if i == axis else (0, 0, 0) for i in range(z.ndim))
    return movement.pad(z, widths=widths, value=value)


def cumulative_sum(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """z_k = sum of x_i over i <= k, along `axis`; with `include_initial` a 0 in front."""
    x, n = _running(_accumulator(as_tensor(x), dtype), axis, "cumulative_sum")
    return _with_initial(p.cumulative_sum(x, axis=n), n, 0, include_initial)


def cumulative_prod(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """z_k = product of x_i over i <= k, along `axis`; with `include_initial` a 1 in front.

    By doubling (Hillis and Steele, 1986): after step s each element is the product of the last 2^s,
    so derivatives are right at zeros too.
    """
    z, n = _running(_accumulator(as_tensor(x), dtype), axis, "cumulative_prod")
    if z.ndim == 0:
        raise ShapeError("cumulative_prod needs at least one axis.")
    shift, length = 1, z.shape[n]
    while shift < length:
        widths = tuple((shift, 0, 0) if i == n else (0, 0, 0) for i in range(z.ndim))
        moved = movement.pad(_rows(z, 0, length - shift, n), widths=widths, value=1)
        z = e.mul(z, moved)
        shift *= 2
    return _with_initial(z, n, 1, include_initial)


def diff(
    x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None
) -> Tensor:
    """x_(k+1) - x_k along `axis`, `n` times over; shorter by n.

    prepend, append: put before and after x along the axis first.
    """
    z = as_tensor(x)
    if n < 0:
        raise ArgumentError(f"diff is taken 0 times or more, got n={n}.")
    if z.ndim == 0:
        raise ShapeError("diff needs at least one axis, got a tensor of shape ().")
    place = normalize_axis(axis, z.ndim)
    line = tuple(1 if i == place else m for i, m in enumerate(z.shape))
    parts = [as_tensor(part) for part in (prepend, x, append) if part is not None]
    if len(parts) > 1:
        # A number before or after stands for a whole slice of itself.
        parts = [to_shape(part, line) if part.ndim == 0 else part for part in parts]
        z = movement.concat(*alike(parts, "diff"), axis=place)
    for _ in range(n):
        length = builtins.max(z.shape[place] - 1, 0)
        rest = builtins.max(z.shape[place] - length, 0)
        z = e.sub(_rows(z, rest, length, place), _rows(z, 0, length, place))
    return distinct(z, x)
