"""Sliding windows for pooling: shapes, arg-max, sums, and the adjoint of the sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

Ints = Sequence[int]
Pairs = Sequence[tuple[int, int]]


def pool_output_shape(
    spatial: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, ceil_mode: bool
) -> tuple[int, ...]:
    """Output spatial shape of a pooling layer, following PyTorch.

    Per axis: ``floor((x + lo + hi - dilation (k - 1) - 1) / stride) + 1``; with ``ceil_mode`` the
    division rounds up, and the last window is dropped when it would start beyond the input and
    the padding on its left.
    """
    out = []
    for x, k, s, (lo, hi), d in zip(spatial, kernel, stride, padding, dilation, strict=True):
        free = x + lo + hi - d * (k - 1) - 1
        n = (-(-free // s) if ceil_mode else free // s) + 1
        if ceil_mode and (n - 1) * s >= x + lo:
            n -= 1
        out.append(n)
    return tuple(out)


def _taps(
    spatial: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, out: Ints
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """Each kernel tap with the output region that it serves and the input region that it reads.

    Output position i meets input position ``i stride + tap dilation - lo``; the regions hold the
    positions for which that lies inside the input. Taps that never do are left out.
    """
    for tap in product(*map(range, kernel)):
        to: list[slice] = []
        at: list[slice] = []
        for x, t, s, (lo, _), d, n in zip(
            spatial, tap, stride, padding, dilation, out, strict=True
        ):
            offset = t * d - lo
            first = max(0, -(offset // s))
            last = min(n, (x - 1 - offset) // s + 1)
            if first >= last:
                break
            start = first * s + offset
            to.append(slice(first, last))
            at.append(slice(start, start + (last - first - 1) * s + 1, s))
        else:
            yield tap, tuple(to), tuple(at)


def max_pool_argmax(
    x: np.ndarray,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    out_spatial: Ints,
) -> np.ndarray:
    """Flat index (int64) into the spatial axes of x of each window's maximum.

    x: (N, C, *spatial) -> (N, C, *out_spatial). The first of equal maxima wins, in row-major
    order; a NaN counts as larger than everything. Padding never wins.
    """
    spatial = x.shape[2:]
    flat = np.arange(np.prod(spatial, dtype=np.int64)).reshape(spatial)
    shape = (*x.shape[:2], *out_spatial)
    index = np.full(shape, -1, np.int64)
    best = np.zeros(shape, x.dtype)
    for _, to, at in _taps(spatial, kernel, stride, padding, dilation, out_spatial):
        value, so_far, where = x[(..., *at)], best[(..., *to)], index[(..., *to)]
        better = (value > so_far) | (where < 0)
        if x.dtype.kind == "f":
            better |= (value != value) & (so_far == so_far)
        np.copyto(so_far, value, where=better)
        np.copyto(where, flat[at], where=better)
    return index


def window_sum(
    x: np.ndarray,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    out_spatial: Ints,
) -> np.ndarray:
    """Sum of each window; positions outside x count as zero. (N, C, *spatial) -> (N, C, *out)."""
    y = np.zeros((*x.shape[:2], *out_spatial), x.dtype)
    for _, to, at in _taps(x.shape[2:], kernel, stride, padding, dilation, out_spatial):
        y[(..., *to)] += x[(..., *at)]
    return y


def window_spread(
    g: np.ndarray,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    in_spatial: Ints,
) -> np.ndarray:
    """Adjoint of :func:`window_sum`: adds each g to every position of its window."""
    dx = np.zeros((*g.shape[:2], *in_spatial), g.dtype)
    for _, to, at in _taps(in_spatial, kernel, stride, padding, dilation, g.shape[2:]):
        dx[(..., *at)] += g[(..., *to)]
    return dx
