"""Fractional max pooling: windows at random, nearly equal distances.

Along an axis of n elements with m windows of k, and with alpha = (n - k) / (m - 1), window i starts
at floor(alpha (i + u)) - floor(alpha u) with u uniform on [0, 1), and the last one at n - k: the
input shrinks by any factor, not by whole ones alone.
Source: Graham, "Fractional max-pooling", 2014 (pseudo-random, overlapping windows).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule import random
from chainrule.errors import ArgumentError, ShapeError
from chainrule.graph import make
from chainrule.nn.functional._common import Ints, as_input, batched, check_float, ints, unbatched
from chainrule.nn.functional.pooling import gather_planes

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["fractional_max_pool2d", "fractional_max_pool3d"]


def _output_size(name: str, spatial: Ints, output_size: Any, output_ratio: Any) -> Ints:
    n = len(spatial)
    if (output_size is None) == (output_ratio is None):
        raise ArgumentError(f"{name} needs either output_size or output_ratio, and not both.")
    if output_size is not None:
        return ints(output_size, n, "output_size", 1)
    several = isinstance(output_ratio, tuple | list)
    ratios = tuple(output_ratio) if several else (output_ratio,) * n
    if len(ratios) != n or not all(0 < r < 1 for r in ratios):
        raise ArgumentError(
            f"output_ratio is a number between 0 and 1, or {n} of them, got {output_ratio!r}."
        )
    return tuple(int(m * r) for m, r in zip(spatial, ratios, strict=True))


def _starts(u: Any, n: int, m: int, k: int) -> Any:
    """Where the m windows of k among n elements start, for each example and channel: (N, C, m)."""
    last = make(np.full((*u.shape, 1), n - k, dtype=np.int64))
    if m == 1:
        return last
    alpha = (n - k) / (m - 1)
    u = xp.expand_dims(u, axis=-1)
    i = xp.arange(m - 1, dtype=u.dtype)
    starts = xp.floor((u + i) * alpha) - xp.floor(u * alpha)
    return xp.concat([xp.astype(starts, "int64"), last], axis=-1)


def _fractional_max_pool(
    n: int, input: Any, kernel_size: Any, output_size: Any, output_ratio: Any,
    return_indices: bool, samples: Any,
) -> Any:  # fmt: skip
    name = f"fractional_max_pool{n}d"
    x, added = batched(name, as_input(input), n)
    check_float(name, x)
    spatial = x.shape[2:]
    kernel = ints(kernel_size, n, "kernel_size", 1)
    out = _output_size(name, spatial, output_size, output_ratio)
    if any(m < 1 or m + k - 1 > size for m, k, size in zip(out, kernel, spatial, strict=True)):
        raise ShapeError(
            f"{name} of an input of size {spatial}: {out} windows of {kernel} do not fit into it; "
            "size >= windows + kernel - 1 is needed."
        )
    lead = x.shape[:2]
    if samples is None:
        samples = random.uniform((*lead, n), dtype=x.dtype)
    samples = as_input(samples)
    if samples.shape != (*lead, n):
        raise ShapeError(f"{name} needs random samples of shape {(*lead, n)}, got {samples.shape}.")
    index: Any = 0
    for axis, (size, m, k) in enumerate(zip(spatial, out, kernel, strict=True)):
        # The samples of images are in the order (width, height), those of volumes (depth, ...).
        u = samples[..., n - 1 - axis if n == 2 else axis]
        at = xp.expand_dims(_starts(u, size, m, k), axis=-1) + xp.arange(k)  # (N, C, m, k)
        shape = [1] * (2 * n)
        shape[axis], shape[n + axis] = m, k
        index = index * size + xp.reshape(at, (*lead, *shape))
    places = xp.reshape(index, (*lead, math.prod(out), math.prod(kernel)))
    which = xp.argmax(gather_planes(x.detach(), places), axis=-1, keepdims=True)
    index = xp.reshape(xp.take_along_axis(places, which, axis=-1), (*lead, *out))
    y = unbatched(gather_planes(x, index), added)
    return (y, unbatched(index, added)) if return_indices else y


def fractional_max_pool2d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Tensor:  # fmt: skip
    return _fractional_max_pool(
        2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


def fractional_max_pool3d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Tensor:  # fmt: skip
    return _fractional_max_pool(
        3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


_TEXT = """The largest element of each of `output_size` windows at random distances, over {n} axes.

    Arguments:
        input: of shape (batch, channels, {axes}), or the same without batch.
        kernel_size: the size of a window.
        output_size: how many windows, for each axis; or
        output_ratio: their number as a share of the input's size, between 0 and 1.
        return_indices: return (values, indices), the indices flat over the spatial axes.
        _random_samples: numbers u of shape (batch, channels, {n}) to use instead of random ones.
    """

fractional_max_pool2d.__doc__ = _TEXT.format(n=2, axes="height, width")
fractional_max_pool3d.__doc__ = _TEXT.format(n=3, axes="depth, height, width")
