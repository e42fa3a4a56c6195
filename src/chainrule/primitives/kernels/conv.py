"""N-dimensional cross-correlation and its two adjoints, by columns and matrix products.

Layout: images (N, C, *spatial), weights (O, C / groups, *kernel). With rows w of length
(C / groups) * taps, and a matrix of columns that holds, for each output position, the inputs under
the kernel there (im2col), each direction is one product for each group and chunk of the batch:

    forward  y = w @ columns(x)    weight  dw = g @ columns(x)^T    input  columns(dx) += w^T @ g

The columns are gathered with the batch inside the channels, (C, *kernel, N, *grid), so that the
product is one large one, and a chunk of the batch at a time, so that they stay in the cache.
Results depend on shapes and values alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

Ints = Sequence[int]
Pairs = Sequence[tuple[int, int]]

CHUNK_BYTES = 4 << 20  # columns of one chunk of the batch
BLOCK_BYTES = 8 << 20  # columns of one image, beyond which it is cut along its first axis
WASTE = 1.6  # columns on the padded grid may be this many times as many as on the output's

ALL = slice(None)


def output_shape(
    spatial: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> tuple[int, ...]:
    """Output spatial shape: floor((x + lo + hi - dilation (k - 1) - 1) / stride) + 1 per axis."""
    return tuple(
        (x + lo + hi - d * (k - 1) - 1) // s + 1
        for x, k, s, (lo, hi), d in zip(spatial, kernel, stride, padding, dilation, strict=True)
    )


def conv_forward(
    x: np.ndarray,
    w: np.ndarray,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> np.ndarray:
    """y[n, o, p] = sum over c, t of w[o, c, t] x[n, c, p stride + t dilation - lo].

    x: (N, C, *spatial), w: (O, C / groups, *kernel) -> (N, O, *out). Output channel o reads the
    input channels of its group alone. padding: (lo, hi) zeros per axis, not negative.
    """
    kernel, out = w.shape[2:], output_shape(x.shape[2:], w.shape[2:], stride, padding, dilation)
    shape = (x.shape[0], w.shape[0], *out)
    if 0 in (x.size, w.size, *shape):
        return np.zeros(shape, x.dtype)
    if _pointwise(kernel, padding):
        x = x[(..., *(slice(None, None, s) for s in stride))]
        return np.matmul(_rows(w, groups), _flat(x, groups)).reshape(shape)
    y = np.empty(shape, x.dtype)
    for rows, reads, pads in _blocks(x, kernel, stride, padding, dilation, out):
        _forward(x[:, :, reads], w, stride, (pads, *padding[1:]), dilation, groups, y[:, :, rows])
    return y


def conv_backward_input(
    g: np.ndarray,
    w: np.ndarray,
    input_spatial: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> np.ndarray:
    """Adjoint of :func:`conv_forward` in x: the dx with <conv(x, w), g> = <x, dx> for every x.

    g: (N, O, *out), w: (O, C / groups, *kernel) -> (N, C, *input_spatial). Also the forward pass of
    the transposed convolution.
    """
    kernel, channels = w.shape[2:], w.shape[1] * groups
    shape = (g.shape[0], channels, *input_spatial)
    if 0 in (g.size, w.size, *shape):
        return np.zeros(shape, g.dtype)
    if _pointwise(kernel, padding):
        product = np.matmul(_rows(w, groups).swapaxes(1, 2), _flat(g, groups))
        product = product.reshape(*shape[:2], *g.shape[2:])
        if g.shape[2:] == tuple(input_spatial):
            return product
        dx = np.zeros(shape, g.dtype)
        dx[(..., *(slice(None, None, s) for s in stride))] = product
        return dx
    if _by_gathering(w, input_spatial, g.shape[2:], stride, padding, dilation, groups):
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        mirrored = [(r - lo, r - hi) for r, (lo, hi) in zip(reach, padding, strict=True)]
        return conv_forward(g, _flipped(w, groups), stride, mirrored, dilation, groups)
    dx = np.zeros(shape, g.dtype)
    for rows, reads, pads in _blocks(dx, kernel, stride, padding, dilation, g.shape[2:]):
        block = dx[:, :, reads]
        _add_input(g[:, :, rows], w, stride, (pads, *padding[1:]), dilation, groups, block)
    return dx


def conv_backward_weight(
    x: np.ndarray,
    g: np.ndarray,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> np.ndarray:
    """Adjoint of :func:`conv_forward` in w: the dw with <conv(x, w), g> = <w, dw> for every w.

    x: (N, C, *spatial), g: (N, O, *out) -> (O, C / groups, *kernel).
    """
    shape = (g.shape[1], x.shape[1] // groups, *kernel)
    if 0 in (x.size, g.size, *shape):
        return np.zeros(shape, x.dtype)
    if _pointwise(kernel, padding):
        x = x[(..., *(slice(None, None, s) for s in stride))]
        return np.matmul(_long(g, groups), _long(x, groups).swapaxes(1, 2)).reshape(shape)
    arguments = stride, padding, dilation, groups
    # On the padded grid, positions outside the output meet a zero in g. That is harmless unless x
    # is infinite or NaN there; then the result shows it, and is computed again on the exact grid.
    with np.errstate(invalid="ignore", over="ignore"):
        dw = _weight(x, g, kernel, *arguments, exact=False)
    if not np.isfinite(dw).all():
        dw = _weight(x, g, kernel, *arguments, exact=True)
    return dw.reshape(shape)


def _by_gathering(
    w: np.ndarray,
    spatial: Ints,
    out: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> bool:
    """Whether dx is best had as a correlation of g with the flipped kernel (at stride 1).

    Then columns of g are gathered; otherwise columns of dx are computed and added up, at about
    twice the cost for each. Padding beyond the kernel's reach has no mirror image, and zeros around
    g would turn an infinite weight into NaN where it does not belong.
    """
    reach = [d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True)]
    gathered, added = w.shape[0] * math.prod(spatial), w.shape[1] * groups * math.prod(out)
    fits = all(max(pair) <= r for pair, r in zip(padding, reach, strict=True))
    cheap = all(s == 1 for s in stride) and gathered <= 2 * added
    return fits and cheap and bool(np.isfinite(w).all())


def _pointwise(kernel: Ints, padding: Pairs) -> bool:
    return all(k == 1 for k in kernel) and not any(lo or hi for lo, hi in padding)


def _rows(w: np.ndarray, groups: int) -> np.ndarray:
    """Weights as (groups, O / groups, C / groups * taps)."""
    return w.reshape(groups, w.shape[0] // groups, -1)


def _flat(x: np.ndarray, groups: int) -> np.ndarray:
    """Images as (N, groups, channels / groups, positions)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, -1)


def _long(x: np.ndarray, groups: int) -> np.ndarray:
    """Images as (groups, channels / groups, N * positions)."""
    return x.swapaxes(0, 1).reshape(groups, x.shape[1] // groups, -1)


def _flipped(w: np.ndarray, groups: int) -> np.ndarray:
    """The kernel of the adjoint: taps reversed, input and output channels of a group exchanged."""
    o, c, *kernel = w.shape
    taps = np.flip(w, axis=tuple(range(2, w.ndim))).reshape(groups, o // groups, c, *kernel)
    return taps.swapaxes(1, 2).reshape(groups * c, o // groups, *kernel)


def _blocks(
    x: np.ndarray, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, out: Ints
) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Cut large images: output rows, the input rows that they read, and the padding of those."""
    size, (lo, hi), s = x.shape[2], padding[0], stride[0]
    reach = dilation[0] * (kernel[0] - 1) + 1
    row_bytes = x.shape[1] * math.prod(kernel) * math.prod(out[1:]) * x.itemsize
    count = max(1, BLOCK_BYTES // row_bytes)
    if count >= out[0]:
        yield slice(0, out[0]), slice(0, size), (lo, hi)
        return
    for first in range(0, out[0], count):
        last = min(first + count, out[0])
        start, stop = first * s - lo, (last - 1) * s + reach - lo
        inside = slice(min(max(start, 0), size), min(max(stop, 0), size))
        yield slice(first, last), inside, _outside(start, stop, size)


def _outside(start: int, stop: int, size: int) -> tuple[int, int]:
    """How much of start .. stop lies before 0 and after size."""
    before = min(max(-start, 0), stop - start)
    after = min(max(stop - size, 0), stop - start - before)
    return before, after


class _Windows:
    """The windows of a kernel on padded images, as strided views of one flat buffer.

    The buffer holds (channels, images * area), area the size of a padded image. ``grid`` is the
    output's spatial shape, or with stride 1 the wider (out[0], *padded[1:]), on which all positions
    of an image follow each other without gaps: each tap is then one long run of memory. Positions
    beyond the output are cropped; those of the last rows run over the end by ``slack`` elements.
    """

    def __init__(self, channels, spatial, kernel, stride, padding, dilation, dtype, exact=False):
        self.channels, self.kernel, self.dtype = channels, tuple(kernel), dtype
        self.padded = [x + lo + hi for x, (lo, hi) in zip(spatial, padding, strict=True)]
        self.out = output_shape(spatial, kernel, stride, padding, dilation)
        wide = (self.out[0], *self.padded[1:])
        runs = all(s == 1 for s in stride) and math.prod(wide) <= WASTE * math.prod(self.out)
        self.grid = wide if runs and not exact else self.out
        self.area = math.prod(self.padded)
        steps = [math.prod(self.padded[axis + 1 :]) for axis in range(len(self.padded))]
        self.steps = steps
        self.tap_steps = [d * step for d, step in zip(dilation, steps, strict=True)]
        self.grid_steps = [s * step for s, step in zip(stride, steps, strict=True)]
        reach = [step * (k - 1) for step, k in zip(self.tap_steps, kernel, strict=True)]
        self.slack = sum(reach[1:])
        inside = (slice(lo, lo + x) for x, (lo, _) in zip(spatial, padding, strict=True))
        self.inside = (ALL, ALL, *inside)
        self.crop = (ALL, ALL, *map(slice, self.out))

    def chunks(self, n: int) -> Iterator[slice]:
        """Equal parts of a batch of n whose columns fit in CHUNK_BYTES."""
        each = self.channels * math.prod(self.kernel) * math.prod(self.grid) * self.dtype.itemsize
        parts = -(-n // max(1, CHUNK_BYTES // each))
        size = -(-n // parts)
        for start in range(0, n, size):
            yield slice(start, min(start + size, n))

    def buffer(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Zeros for n images: (flat, images (C, n, *padded), windows (C, *kernel, n, *grid))."""
        flat = np.zeros((self.channels, n * self.area + self.slack), self.dtype)
        e, channel = self.dtype.itemsize, flat.strides[0]
        image, window = [s * e for s in self.steps], [s * e for s in self.grid_steps]
        images = as_strided(
            flat, (self.channels, n, *self.padded), (channel, self.area * e, *image)
        )
        taps = [s * e for s in self.tap_steps]
        shape = (self.channels, *self.kernel, n, *self.grid)
        return flat, images, as_strided(flat, shape, (channel, *taps, self.area * e, *window))


def _columns(x: np.ndarray, windows: _Windows) -> Iterator[tuple[slice, np.ndarray]]:
    """Each chunk of the batch with its columns (C, *kernel, n, *grid), in a buffer used again."""
    columns = images = views = np.empty(0)
    held = -1
    for part in windows.chunks(len(x)):
        n = part.stop - part.start
        if n != held:
            _, images, views = windows.buffer(n)
            columns, held = np.empty(views.shape, x.dtype), n
        images[windows.inside] = x[part].swapaxes(0, 1)
        np.copyto(columns, views)
        yield part, columns


def _forward(x, w, stride, padding, dilation, groups, y) -> None:
    windows = _Windows(x.shape[1], x.shape[2:], w.shape[2:], stride, padding, dilation, x.dtype)
    rows = _rows(w, groups)
    for part, columns in _columns(x, windows):
        product = np.matmul(rows, columns.reshape(groups, rows.shape[2], -1))
        product = product.reshape(len(w), -1, *windows.grid)
        y[part] = product[windows.crop].swapaxes(0, 1)


def _weight(x, g, kernel, stride, padding, dilation, groups, exact) -> np.ndarray:
    """dw as (groups, O / groups, C / groups * taps)."""
    o, c = g.shape[1], x.shape[1]
    dw = np.zeros((groups, o // groups, c // groups * math.prod(kernel)), x.dtype)
    for rows, reads, pads in _blocks(x, kernel, stride, padding, dilation, g.shape[2:]):
        block, pads = x[:, :, reads], (pads, *padding[1:])
        windows = _Windows(c, block.shape[2:], kernel, stride, pads, dilation, x.dtype, exact)
        spread = np.empty(0)
        for part, columns in _columns(block, windows):
            n = part.stop - part.start
            if spread.size != o * n * math.prod(windows.grid):
                spread = np.zeros((o, n, *windows.grid), g.dtype)
            spread[windows.crop] = g[part, :, rows].swapaxes(0, 1)
            columns = columns.reshape(groups, dw.shape[2], -1)
            dw += np.matmul(spread.reshape(groups, o // groups, -1), columns.swapaxes(1, 2))
    return dw


def _add_input(g, w, stride, padding, dilation, groups, dx) -> None:
    """dx += the windows of w^T g, one tap after the other."""
    o, c, spatial = g.shape[1], dx.shape[1], dx.shape[2:]
    exact = not np.isfinite(w).all()  # see conv_backward_weight
    windows = _Windows(c, spatial, w.shape[2:], stride, padding, dilation, g.dtype, exact)
    rows = _rows(w, groups).swapaxes(1, 2)
    product = np.multiply if o == groups else np.matmul  # one row in a group: an outer product
    flat = images = views = spread = columns = np.empty(0)
    held = -1
    for part in windows.chunks(len(g)):
        n = part.stop - part.start
        if n != held:
            flat, images, views = windows.buffer(n)
            spread, columns = (
                np.zeros((o, n, *windows.grid), g.dtype),
                np.empty(views.shape, g.dtype),
            )
            held = n
        flat.fill(0)
        spread[windows.crop] = g[part].swapaxes(0, 1)
        target = columns.reshape(groups, rows.shape[1], -1)
        product(rows, spread.reshape(groups, o // groups, -1), out=target)
        for tap in np.ndindex(*w.shape[2:]):
            views[(ALL, *tap)] += columns[(ALL, *tap)]
        dx[part] += images[windows.inside].swapaxes(0, 1)
