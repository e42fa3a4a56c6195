"""N-dimensional cross-correlation and its two adjoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

Ints = Sequence[int]
Pairs = Sequence[tuple[int, int]]


def output_shape(
    spatial: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> tuple[int, ...]:
    """Output spatial shape: floor((x + lo + hi - dilation (k - 1) - 1) / stride) + 1 per axis."""
    return tuple(
        (x + lo + hi - d * (k - 1) - 1) // s + 1
        for x, k, s, (lo, hi), d in zip(spatial, kernel, stride, padding, dilation, strict=True)
    )


def _padded(x, padding):
    if not any(lo or hi for lo, hi in padding):
        return x
    return np.pad(x, ((0, 0), (0, 0), *padding))


def _taps(kernel, stride, dilation, out):
    for tap in product(*map(range, kernel)):
        yield tap, tuple(
            slice(t * d, t * d + s * (o - 1) + 1, s)
            for t, d, s, o in zip(tap, dilation, stride, out, strict=True)
        )


def _columns(x, kernel, stride, padding, dilation, groups, out):
    xp = _padded(x, padding)
    n, c = x.shape[:2]
    columns = np.empty((n, c, *kernel, *out), x.dtype)
    for tap, where in _taps(kernel, stride, dilation, out):
        columns[(slice(None), slice(None), *tap)] = xp[(..., *where)]
    return columns.reshape(n, groups, c // groups * math.prod(kernel), math.prod(out))


def conv_forward(x, w, stride, padding, dilation, groups):
    kernel = w.shape[2:]
    out = output_shape(x.shape[2:], kernel, stride, padding, dilation)
    columns = _columns(x, kernel, stride, padding, dilation, groups, out)
    rows = w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))
    return np.matmul(rows, columns).reshape(x.shape[0], w.shape[0], *out)


def conv_backward_input(g, w, input_spatial, stride, padding, dilation, groups):
    kernel, out, n = w.shape[2:], g.shape[2:], g.shape[0]
    c = w.shape[1] * groups
    rows = w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))
    gs = g.reshape(n, groups, w.shape[0] // groups, math.prod(out))
    columns = np.matmul(rows.swapaxes(-1, -2), gs).reshape(n, c, *kernel, *out)
    padded = [x + lo + hi for x, (lo, hi) in zip(input_spatial, padding, strict=True)]
    dx = np.zeros((n, c, *padded), g.dtype)
    for tap, where in _taps(kernel, stride, dilation, out):
        dx[(..., *where)] += columns[(slice(None), slice(None), *tap)]
    crop = tuple(slice(lo, lo + x) for x, (lo, _) in zip(input_spatial, padding, strict=True))
    return dx[(..., *crop)]


def conv_backward_weight(x, g, kernel, stride, padding, dilation, groups):
    n, c, o, out = x.shape[0], x.shape[1], g.shape[1], g.shape[2:]
    columns = _columns(x, kernel, stride, padding, dilation, groups, out)
    gs = g.reshape(n, groups, o // groups, math.prod(out))
    dw = np.matmul(gs, columns.swapaxes(-1, -2)).sum(0)
    return dw.reshape(o, c // groups, *kernel)
