"""Adaptive pooling: as many windows as the output has places, however large the input is.

Along an axis of n elements with m places, window i runs from floor(i n / m) to
ceil((i + 1) n / m), so that windows have nearly one size and overlap where m does not divide n.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule.errors import ShapeError
from chainrule.graph import make
from chainrule.nn.functional._common import Ints, as_input, batched, check_float, ints, unbatched
from chainrule.nn.functional.pooling import gather_planes
from chainrule.primitives import elementwise, movement
from chainrule.primitives.pooling import window_argmax, window_sum, window_take

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
]


def _sizes(name: str, output_size: Any, spatial: Ints) -> Ints:
    """The output's spatial shape; None keeps the input's size along an axis."""
    n = len(spatial)
    if output_size is None or (isinstance(output_size, tuple | list) and None in output_size):
        wanted = [None] * n if output_size is None else list(output_size)
        output_size = tuple(
            size if m is None else m for m, size in zip(wanted, spatial, strict=True)
        )
    sizes = ints(output_size, n, "output_size", 0)
    if any(size == 0 for size in spatial):
        raise ShapeError(f"{name} of an input of size {spatial} has nothing to pool.")
    return sizes


def _bounds(n: int, m: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where the m windows over n elements start and stop."""
    i = np.arange(m)
    return i * n // m, -(-(i + 1) * n // m)


def _equal_windows(spatial: Ints, out: Ints) -> dict[str, Any] | None:
    """The arguments of a pooling with windows side by side, if that is what the sizes come to."""
    if any(m == 0 or n % m for n, m in zip(spatial, out, strict=True)):
        return None
    kernel = tuple(n // m for n, m in zip(spatial, out, strict=True))
    return {
        "out": out, "kernel": kernel, "stride": kernel, "padding": ((0, 0),) * len(out),
        "dilation": (1,) * len(out),
    }  # fmt: skip


def _adaptive_avg_pool(n: int, input: Any, output_size: Any) -> Any:
    name = f"adaptive_avg_pool{n}d"
    x, added = batched(name, as_input(input), n)
    check_float(name, x)
    spatial = x.shape[2:]
    out = _sizes(name, output_size, spatial)
    equal = _equal_windows(spatial, out)
    if equal is not None:
        total = window_sum(x, **equal)
        return unbatched(total / math.prod(equal["kernel"]), added)
    # The mean over a box is the mean of the means along each axis: one small matrix for each.
    for axis, (size, m) in enumerate(zip(spatial, out, strict=True), start=2):
        if size == m:
            continue
        start, stop = _bounds(size, m)
        place = np.arange(size)
        inside = (place >= start[:, None]) & (place < stop[:, None])
        means = (inside / (stop - start)[:, None]).astype(x.dtype)
        x = xp.moveaxis(xp.matmul(xp.moveaxis(x, axis, -1), make(means.T)), -1, axis)
    return unbatched(x, added)


def _adaptive_max_pool(n: int, input: Any, output_size: Any, return_indices: bool) -> Any:
    name = f"adaptive_max_pool{n}d"
    x, added = batched(name, as_input(input), n)
    out = _sizes(name, output_size, x.shape[2:])
    equal = _equal_windows(x.shape[2:], out)
    if equal is None:
        index = _argmax_of_boxes(x, out)
        y = unbatched(gather_planes(x, index), added)
    else:
        index = window_argmax(x, **equal)
        moves = {key: value for key, value in equal.items() if key != "out"}
        y = unbatched(window_take(x, index, **moves), added)
    return (y, unbatched(index, added)) if return_indices else y


def _argmax_of_boxes(x: Any, out: Ints) -> Any:
    """The flat spatial index of the maximum of each window, the windows being of unequal sizes."""
    spatial = x.shape[2:]
    flat = np.zeros((1,) * (2 * len(out)), dtype=np.int64)
    for axis, (n, m) in enumerate(zip(spatial, out, strict=True)):
        start, stop = _bounds(n, m)
        longest = int((stop - start).max(initial=0))
        # A shorter window names its last element again, which changes no maximum.
        at = np.minimum(start[:, None] + np.arange(longest), stop[:, None] - 1)
        shape = [1] * (2 * len(out))
        shape[axis], shape[len(out) + axis] = at.shape
        flat = flat * n + at.reshape(shape)
    elements = flat.reshape(math.prod(out), -1)  # (places, elements of a window)
    every = np.broadcast_to(elements, (*x.shape[:2], *elements.shape))
    windows = gather_planes(x.detach(), make(every))
    which = xp.argmax(windows, axis=-1) if windows.size else make(np.zeros(every.shape[:-1], int))
    # Which element of its window, as a place in the table of elements, as a place in the input.
    starts = np.arange(len(elements), dtype=np.int64) * elements.shape[1]
    places = elementwise.add(which, make(np.broadcast_to(starts, which.shape)))
    index = xp.take(make(elements.reshape(-1)), xp.reshape(places, (places.size,)), axis=0)
    return movement.reshape(index, shape=(*x.shape[:2], *out))


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Tensor:
    return _adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Tensor:
    return _adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Tensor:
    return _adaptive_avg_pool(3, input, output_size)


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_max_pool(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_max_pool(3, input, output_size, return_indices)


_AVG = """The mean of each of `output_size` nearly equal windows, over {n} axis/axes.

    Arguments:
        input: of shape (batch, channels, {axes}), or the same without batch.
        output_size: a number, or one for each axis; None keeps the input's size.
    """

_MAX = """The largest element of each of `output_size` nearly equal windows, over {n} axis/axes.

    Arguments:
        input: of shape (batch, channels, {axes}), or the same without batch.
        output_size: a number, or one for each axis; None keeps the input's size.
        return_indices: return (values, indices), the indices flat over the spatial axes.
    """

for _text, _functions in (
    (_AVG, (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)),
    (_MAX, (adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d)),
):
    for _n, _function in enumerate(_functions, start=1):
        _axes = ("length", "height, width", "depth, height, width")[_n - 1]
        _function.__doc__ = _text.format(n=_n, axes=_axes)
