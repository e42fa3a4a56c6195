"""Sliding windows for pooling: shapes, arg-max and sums, and the adjoints of what they lead to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from chainrule.primitives.kernels.scatter import scatter_add

Ints = Sequence[int]
Pairs = Sequence[tuple[int, int]]
Tap = tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]

CHUNK_BYTES = 1 << 19  # of the images worked on at a time, so that they stay in the cache
ALL = slice(None)


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
) -> Iterator[Tap]:
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


def _chunks(planes: int, plane_bytes: int) -> Iterator[slice]:
    """Parts of a stack of planes that fit in CHUNK_BYTES."""
    size = max(1, CHUNK_BYTES // max(1, plane_bytes))
    for start in range(0, planes, size):
        yield slice(start, start + size)


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
    order; a NaN counts as larger than everything, and the last of several wins, as in PyTorch.
    Padding never wins: a window that meets no element of x gives -1.
    """
    spatial, out = x.shape[2:], tuple(out_spatial)
    index = np.full((x.shape[0] * x.shape[1], *out), -1, np.int64)
    taps = list(_taps(spatial, kernel, stride, padding, dilation, out))
    if index.size == 0 or not taps:
        return index.reshape(*x.shape[:2], *out)
    steps = [math.prod(spatial[axis + 1 :]) for axis in range(len(spatial))]
    offsets = np.array([np.dot(np.multiply(tap, dilation), steps) for tap, _, _ in taps], np.int64)
    starts, met = np.zeros(out, np.int64), np.zeros(out, bool)
    for axis, (step, s, (lo, _)) in enumerate(zip(steps, stride, padding, strict=True)):
        place = (np.arange(out[axis]) * s - lo) * step
        starts += place.reshape(-1, *(1,) * (len(out) - axis - 1))
    for _, to, _ in taps:
        met[to] = True
    planes = x.reshape(-1, *spatial)
    for part in _chunks(len(planes), starts.nbytes):
        np.take(offsets, _first_maximum(planes[part], taps, out), out=index[part], mode="clip")
        index[part] += starts
    if not met.all():
        index[:, ~met] = -1
    return index.reshape(*x.shape[:2], *out)


def _first_maximum(planes: np.ndarray, taps: list[Tap], out: tuple[int, ...]) -> np.ndarray:
    """The position in ``taps`` of each window's first maximum: the number of taps before it."""
    lowest = -np.inf if planes.dtype.kind == "f" else np.iinfo(planes.dtype).min
    best = np.full((len(planes), *out), lowest, planes.dtype)
    for _, to, at in taps:
        so_far = best[(ALL, *to)]
        np.maximum(so_far, planes[(ALL, *at)], out=so_far)
    before = np.ones(best.shape, bool)  # still before the maximum
    count = np.zeros(best.shape, np.min_scalar_type(len(taps)))
    for _, to, at in taps[:-1]:
        before[(ALL, *to)] &= planes[(ALL, *at)] != best[(ALL, *to)]
        count += before
    if planes.dtype.kind == "f" and np.isnan(best).any():
        for position, (_, to, at) in enumerate(taps):
            np.copyto(count[(ALL, *to)], position, where=np.isnan(planes[(ALL, *at)]))
    return count


def window_sum(
    x: np.ndarray,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    out_spatial: Ints,
) -> np.ndarray:
    """Sum of each window; positions outside x count as zero. (N, C, *spatial) -> (N, C, *out)."""
    planes = x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    y = np.zeros((len(planes), *out_spatial), x.dtype)
    taps = list(_taps(x.shape[2:], kernel, stride, padding, dilation, out_spatial))
    for part in _chunks(len(planes), planes[:1].nbytes):
        source, target = planes[part], y[part]
        for _, to, at in taps:
            target[(ALL, *to)] += source[(ALL, *at)]
    return y.reshape(*x.shape[:2], *out_spatial)


def window_spread(
    g: np.ndarray,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    in_spatial: Ints,
) -> np.ndarray:
    """Adjoint of :func:`window_sum`: adds each g to every position of its window."""
    planes = g.reshape(g.shape[0] * g.shape[1], *g.shape[2:])
    dx = np.zeros((len(planes), *in_spatial), g.dtype)
    taps = list(_taps(in_spatial, kernel, stride, padding, dilation, g.shape[2:]))
    for part in _chunks(len(planes), dx[:1].nbytes):
        source, target = planes[part], dx[part]
        for _, to, at in taps:
            target[(ALL, *at)] += source[(ALL, *to)]
    return dx.reshape(*g.shape[:2], *in_spatial)


def window_take(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """y[n, c, p] = x[n, c] at the flat spatial index[n, c, p]."""
    planes = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    flat = index.reshape(*x.shape[:2], math.prod(index.shape[2:]))
    return np.take_along_axis(planes, flat, axis=2).reshape(index.shape)


def window_route(g: np.ndarray, index: np.ndarray, in_spatial: Ints) -> np.ndarray:
    """Adjoint of :func:`window_take`: adds each g where its index points."""
    area = math.prod(in_spatial)
    planes = g.shape[0] * g.shape[1]
    starts = np.arange(0, planes * area, area or 1)[:planes]
    flat = (index.reshape(planes, math.prod(index.shape[2:])) + starts[:, None]).reshape(-1)
    dx = scatter_add((planes * area,), flat, g.reshape(-1))
    return dx.reshape(*g.shape[:2], *in_spatial)
