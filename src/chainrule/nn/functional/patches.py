"""Patches as columns and back (unfold and fold), and channels as pixels and back."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule.errors import ArgumentError, ShapeError
from chainrule.nn.functional._common import Ints, as_input, batched, ints, unbatched
from chainrule.primitives import elementwise, movement

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["fold", "pixel_shuffle", "pixel_unshuffle", "unfold"]


def _windows(
    name: str, size: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> tuple[Ints, Ints]:
    """The size with padding, and how many windows stand along each axis."""
    padded = tuple(n + 2 * p for n, p in zip(size, padding, strict=True))
    counts = tuple(
        (n - d * (k - 1) - 1) // s + 1
        for n, k, d, s in zip(padded, kernel, dilation, stride, strict=True)
    )
    if any(m < 1 for m in counts):
        raise ShapeError(
            f"{name}: no window of {kernel} with dilation {dilation} fits into {size} with padding "
            f"{padding}."
        )
    return padded, counts


def _arguments(kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> tuple[Ints, ...]:
    return (
        ints(kernel_size, 2, "kernel_size", 1), ints(dilation, 2, "dilation", 1),
        ints(padding, 2, "padding", 0), ints(stride, 2, "stride", 1),
    )  # fmt: skip


def unfold(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Every window of the input as a column (im2col).

    A convolution is a product with these columns: y = w.reshape(out, -1) @ unfold(x, kernel).

    Arguments:
        input: of shape (batch, channels, height, width), or the same without batch.
        kernel_size, dilation, padding, stride: of the windows, as in `conv2d`.

    Returns:
        of shape (batch, channels * kh * kw, windows).
    """
    x, added = batched("unfold", as_input(input), 2)
    kernel, dilations, paddings, strides = _arguments(kernel_size, dilation, padding, stride)
    _, counts = _windows("unfold", x.shape[2:], kernel, dilations, paddings, strides)
    if any(paddings):
        x = xp.pad(x, ((0, 0), (0, 0), *((p, p) for p in paddings)))
    n, c = x.shape[:2]
    # One element of all windows at a time: a grid of elements, `stride` apart.
    columns = [
        movement.slice_(
            x,
            starts=(0, 0, *(i * d for i, d in zip(tap, dilations, strict=True))),
            lengths=(n, c, *counts),
            steps=(1, 1, *strides),
        )
        for tap in product(*map(range, kernel))
    ]
    return unbatched(
        xp.reshape(xp.stack(columns, axis=2), (n, c * math.prod(kernel), math.prod(counts))), added
    )


def fold(
    input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
    stride: Any = 1,
) -> Tensor:  # fmt: skip
    """Columns back to an image, overlapping elements added up (col2im): the adjoint of `unfold`.

    Arguments:
        input: of shape (batch, channels * kh * kw, windows), or the same without batch.
        output_size: (height, width) of the image.
        kernel_size, dilation, padding, stride: of the windows, as in `unfold`.

    Returns:
        of shape (batch, channels, height, width).
    """
    x, added = batched("fold", as_input(input), 1)
    size = ints(output_size, 2, "output_size", 1)
    kernel, dilations, paddings, strides = _arguments(kernel_size, dilation, padding, stride)
    padded, counts = _windows("fold", size, kernel, dilations, paddings, strides)
    taps, windows = math.prod(kernel), math.prod(counts)
    if x.shape[1] % taps or x.shape[2] != windows:
        raise ShapeError(
            f"fold got an input of shape {x.shape[added:]}; for output_size {size} and kernel "
            f"{kernel} it expects (batch, channels * {taps}, {windows})."
        )
    n, c = x.shape[0], x.shape[1] // taps
    columns = xp.split(xp.reshape(x, (n, c, taps, *counts)), taps, axis=2)
    image: Any = None
    for tap, column in zip(product(*map(range, kernel)), columns, strict=True):
        # The elements of one tap go `stride` apart, with zeros between and around them.
        widths = [(0, 0, 0), (0, 0, 0)]
        for i, d, s, m, total in zip(tap, dilations, strides, counts, padded, strict=True):
            widths.append((i * d, total - i * d - (m - 1) * s - 1, s - 1))
        grid = movement.reshape(column, shape=(n, c, *counts))
        spread = movement.pad(grid, widths=tuple(widths), value=0)
        image = spread if image is None else elementwise.add(image, spread)
    cut = tuple(slice(p, p + m) for p, m in zip(paddings, size, strict=True))
    return unbatched(image[(slice(None), slice(None), *cut)], added)


def _image(name: str, input: Any) -> Any:
    x = as_input(input)
    if x.ndim < 3:
        raise ShapeError(f"{name} needs an input (..., channels, height, width), got {x.shape}.")
    return x


def pixel_shuffle(input: Any, upscale_factor: int) -> Tensor:
    """Channels to pixels: (..., c r^2, h, w) to (..., c, h r, w r), with r = `upscale_factor`.

    y[c, h r + i, w r + j] = x[c r^2 + i r + j, h, w]. Source: Shi et al., "Real-time single image
    and video super-resolution using an efficient sub-pixel convolutional neural network", 2016.
    """
    x, r = _image("pixel_shuffle", input), int(upscale_factor)
    *lead, channels, height, width = x.shape
    if r < 1 or channels % (r * r):
        raise ArgumentError(
            f"pixel_shuffle by {upscale_factor} needs channels divisible by its square, but got an "
            f"input of shape {x.shape}."
        )
    k = len(lead)
    y = xp.reshape(x, (*lead, channels // (r * r), r, r, height, width))
    y = xp.permute_dims(y, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    return xp.reshape(y, (*lead, channels // (r * r), height * r, width * r))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Tensor:
    """Pixels to channels: (..., c, h r, w r) to (..., c r^2, h, w); undoes `pixel_shuffle`."""
    x, r = _image("pixel_unshuffle", input), int(downscale_factor)
    *lead, channels, height, width = x.shape
    if r < 1 or height % r or width % r:
        raise ArgumentError(
            f"pixel_unshuffle by {downscale_factor} needs height and width divisible by it, but "
            f"got an input of shape {x.shape}."
        )
    k = len(lead)
    y = xp.reshape(x, (*lead, channels, height // r, r, width // r, r))
    y = xp.permute_dims(y, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    return xp.reshape(y, (*lead, channels * r * r, height // r, width // r))
