"""Pooling over sliding windows: maximum, average, power average, and the maximum's way back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.graph import constant, make
from chainrule.nn.functional._common import Ints, as_input, batched, check_float, ints, unbatched
from chainrule.primitives import elementwise, movement
from chainrule.primitives.indexing import gather, ravel_index, scatter_set
from chainrule.primitives.pooling import output_shape, window_argmax, window_sum, window_take

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]


class _Windows:
    """The arguments of one pooling in full, and the output's spatial shape."""

    def __init__(
        self, name: str, shape: Ints, kernel: Any, stride: Any, padding: Any, dilation: Any,
        ceil_mode: bool,
    ):  # fmt: skip
        n = len(shape)
        self.kernel = ints(kernel, n, "kernel_size", 1)
        # An empty list means the same as None, as in PyTorch.
        given = stride is not None and stride not in ((), [])
        self.stride = ints(stride, n, "stride", 1) if given else self.kernel
        self.padding = ints(padding, n, "padding", 0)
        self.dilation = ints(dilation, n, "dilation", 1)
        for k, p, d in zip(self.kernel, self.padding, self.dilation, strict=True):
            if p > (d * (k - 1) + 1) // 2:
                raise ArgumentError(
                    f"{name} got padding {self.padding}, which may be at most half of the kernel, "
                    f"{self.kernel} with dilation {self.dilation}: a window must meet the input."
                )
        self.pairs = tuple((p, p) for p in self.padding)
        self.out = output_shape(
            shape, self.kernel, self.stride, self.pairs, self.dilation, ceil_mode
        )
        if any(m < 1 for m in self.out):
            raise ShapeError(
                f"{name} of an input of size {shape} with kernel {self.kernel} has no output: its "
                f"size would be {self.out}; use a smaller kernel, or put fewer poolings before it."
            )

    @property
    def moves(self) -> dict[str, Any]:
        return {
            "kernel": self.kernel, "stride": self.stride, "padding": self.pairs,
            "dilation": self.dilation,
        }  # fmt: skip

    @property
    def arguments(self) -> dict[str, Any]:
        return {"out": self.out, **self.moves}


def gather_planes(x: Any, index: Any) -> Any:
    """x[n, c, index[n, c, ...]], the index flat over the spatial axes of x."""
    planes, area = x.shape[0] * x.shape[1], math.prod(x.shape[2:])
    starts = np.arange(0, planes * area, area or 1, dtype=np.int64)[:planes]
    starts = starts.reshape(*x.shape[:2], *(1,) * (index.ndim - 2))
    flat = elementwise.add(index, make(np.broadcast_to(starts, index.shape)))
    return gather(movement.reshape(x, shape=(x.size,)), flat)


def _max_pool(
    n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    name = f"max_pool{n}d"
    x, added = batched(name, as_input(input), n)
    windows = _Windows(name, x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    index = window_argmax(x, **windows.arguments)
    if _may_miss(windows, x.shape[2:]):
        missed = xp.less(index, 0)
        found = window_take(x, xp.where(missed, 0, index), **windows.moves)
        y = xp.where(missed, constant(-np.inf, found.shape, found.dtype), found)
    else:
        y = window_take(x, index, **windows.moves)
    y = unbatched(y, added)
    return (y, unbatched(index, added)) if return_indices else y


def _may_miss(windows: _Windows, spatial: Ints) -> bool:
    """Whether some window of a dilated kernel steps over the whole input."""
    if all(d == 1 for d in windows.dilation):
        return False
    for m, size, k, s, p, d in zip(
        windows.out, spatial, windows.kernel, windows.stride, windows.padding, windows.dilation,
        strict=True,
    ):  # fmt: skip
        at = np.arange(m)[:, None] * s - p + np.arange(k) * d
        if not ((at >= 0) & (at < size)).any(axis=1).all():
            return True
    return False


def _divisor(windows: _Windows, spatial: Ints, count_include_pad: bool) -> np.ndarray[Any, Any]:
    """How many elements each window has, without those beyond the padding (ceil mode)."""
    counts = np.ones((), dtype=np.float64)
    for m, size, k, s, p in zip(
        windows.out, spatial, windows.kernel, windows.stride, windows.padding, strict=True
    ):
        start = np.arange(m) * s - p
        stop = np.minimum(start + k, size + p)
        if not count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, size)
        counts = counts[..., None] * (stop - start)
    return counts


def _avg_pool(
    n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None,
) -> Any:  # fmt: skip
    name = f"avg_pool{n}d"
    x, added = batched(name, as_input(input), n)
    check_float(name, x)
    windows = _Windows(name, x.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    total = window_sum(x, **windows.arguments)
    if divisor_override is not None:
        if divisor_override == 0:
            raise ArgumentError(f"{name} cannot divide by divisor_override=0.")
        divisor = constant(divisor_override, total.shape, total.dtype)
    elif not ceil_mode and (count_include_pad or not any(windows.padding)):
        divisor = constant(math.prod(windows.kernel), total.shape, total.dtype)
    else:
        counts = _divisor(windows, x.shape[2:], count_include_pad).astype(total.dtype)
        divisor = make(np.broadcast_to(counts, total.shape))
    return unbatched(elementwise.div(total, divisor), added)


def max_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


_MAX_POOL = """The largest element of each window, over {n} axis/axes.

    Arguments:
        input: of shape (batch, channels, {axes}), or the same without batch.
        kernel_size: the size of a window.
        stride: the distance between neighbouring windows; kernel_size if None.
        padding: how far windows may reach over the edge; what is there never is the largest.
        dilation: the distance between neighbouring elements of a window.
        ceil_mode: also windows that fit only in part at the end.
        return_indices: return (values, indices), the indices flat over the spatial axes.

    The gradient goes to the largest element, the first if several are. A NaN is the largest.
    """

_AVG_POOL = """The mean of each window, over {n} axis/axes.

    Arguments:
        input: of shape (batch, channels, {axes}), or the same without batch.
        kernel_size: the size of a window.
        stride: the distance between neighbouring windows; kernel_size if None.
        padding: zeros around the input.
        ceil_mode: also windows that fit only in part at the end.
        count_include_pad: divide by the number of elements and zeros of padding, or of elements.
        divisor_override: divide by this number instead (2-D and 3-D).
    """

_LP_POOL = """(sum of x^p)^(1/p) over each window, over {n} axis/axes; p = 1 gives the sum.

    Arguments:
        input: of shape (batch, channels, {axes}), or the same without batch.
        norm_type: p.
        kernel_size: the size of a window.
        stride: the distance between neighbouring windows; kernel_size if None.
        ceil_mode: also windows that fit only in part at the end, scaled to the size of a whole one.

    The gradient of a window whose sum is 0 is 0.
    """

_MAX_UNPOOL = """The way back from max pooling with indices, over {n} axis/axes; zeros elsewhere.

    Arguments:
        input: the values, of shape (batch, channels, {axes}), or the same without batch.
        indices: where they stood, flat over the spatial axes, as `max_pool{n}d` returns them.
        kernel_size, stride, padding: those of the pooling.
        output_size: the size before pooling; (size - 1) stride - 2 padding + kernel if None.
    """


def avg_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    return _avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _lp_pool(
    n: int, input: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Any:
    if norm_type == 0:
        raise ArgumentError(f"lp_pool{n}d needs a norm_type other than 0.")
    x = as_input(input)
    check_float(f"lp_pool{n}d", x)
    p = int(norm_type) if float(norm_type).is_integer() else norm_type
    kernel = ints(kernel_size, n, "kernel_size", 1)
    mean = _avg_pool(n, xp.pow(x, p), kernel, stride, 0, ceil_mode, True, None)
    total = mean * math.prod(kernel)
    # The root has no finite derivative at 0; keep it out of the way there.
    zero = xp.equal(total, 0)
    return xp.where(zero, 0, xp.pow(xp.where(zero, 1, total), 1.0 / norm_type))


def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _max_unpool(
    n: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any,
    output_size: Any,
) -> Any:  # fmt: skip
    name = f"max_unpool{n}d"
    x, added = batched(name, as_input(input), n)
    index = as_input(indices)
    if index.dtype.kind != "i":
        raise DTypeError(f"{name} needs integer indices, got {index.dtype.name}.")
    if index.shape != x.shape[added:]:
        raise ShapeError(
            f"{name} got values of shape {x.shape[added:]} and indices of shape {index.shape}; "
            "they must be equal."
        )
    kernel = ints(kernel_size, n, "kernel_size", 1)
    strides = kernel if stride is None else ints(stride, n, "stride", 1)
    spatial = _unpooled_size(
        name, x.shape[2:], kernel, strides, ints(padding, n, "padding", 0), output_size
    )
    planes, area = x.shape[0] * x.shape[1], math.prod(spatial)
    rows = xp.reshape(index, (planes, math.prod(x.shape[2:])))
    plane = make(np.broadcast_to(np.arange(planes, dtype=np.int64)[:, None], rows.shape))
    flat = movement.reshape(ravel_index(plane, rows, dims=(planes, area)), shape=(x.size,))
    values = movement.reshape(x, shape=(x.size,))
    y = scatter_set(constant(0, (planes * area,), x.dtype), values, flat)
    return unbatched(movement.reshape(y, shape=(*x.shape[:2], *spatial)), added)


def _unpooled_size(
    name: str, size: Ints, kernel: Ints, stride: Ints, padding: Ints, output_size: Any
) -> Ints:
    default = tuple(
        (m - 1) * s - 2 * p + k for m, k, s, p in zip(size, kernel, stride, padding, strict=True)
    )
    if output_size is None:
        return default
    wanted = tuple(int(m) for m in output_size)
    wanted = wanted[-len(size) :] if len(wanted) in (len(size) + 1, len(size) + 2) else wanted
    if len(wanted) != len(size) or any(
        not d - s < m < d + s for m, d, s in zip(wanted, default, stride, strict=False)
    ):
        raise ArgumentError(
            f"{name} got output_size {tuple(output_size)}; its {len(size)} sizes must be less than "
            f"a stride {stride} away from {default}."
        )
    return wanted


def max_unpool1d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Tensor:  # fmt: skip
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


for _text, _functions in (
    (_MAX_POOL, (max_pool1d, max_pool2d, max_pool3d)),
    (_AVG_POOL, (avg_pool1d, avg_pool2d, avg_pool3d)),
    (_LP_POOL, (lp_pool1d, lp_pool2d, lp_pool3d)),
    (_MAX_UNPOOL, (max_unpool1d, max_unpool2d, max_unpool3d)),
):
    for _n, _function in enumerate(_functions, start=1):
        _axes = ("length", "height, width", "depth, height, width")[_n - 1]
        _function.__doc__ = _text.format(n=_n, axes=_axes)
