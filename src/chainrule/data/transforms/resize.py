"""Resizing as two matrix products: one for the rows, one for the columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from chainrule.data.draws import Draws
from chainrule.data.transforms.base import Transform, as_float, check_pair, like
from chainrule.errors import ArgumentError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """R. G. Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@lru_cache(64)
def weights(size: int, new: int, interpolation: str, antialias: bool) -> np.ndarray:
    """The matrix (new, size) that resamples a line of `size` pixels to `new` pixels.

    Pixel i of the new line has its centre at c = (i + 1/2) size / new of the old one. Each old
    pixel j weighs k((j + 1/2 - c) / s), where the kernel k is a triangle or Keys' cubic, and s =
    max(size / new, 1) with antialiasing, 1 without. With antialiasing the weights that fall outside
    are left out and the rest is scaled to add up to 1 (as Pillow does); without, they count for the
    pixel at the border.
    """
    ratio = size / new
    matrix = np.zeros((new, size))
    if interpolation == "nearest":
        matrix[np.arange(new), np.minimum(np.arange(new) * size // new, size - 1)] = 1
        return matrix
    stretch = max(ratio, 1.0) if antialias else 1.0
    reach = (1 if interpolation == "bilinear" else 2) * stretch
    center = (np.arange(new) + 0.5) * ratio
    first = np.floor(center - reach).astype(np.int64)
    taps = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)[None]
    distance = (taps + 0.5 - center[:, None]) / stretch
    if interpolation == "bilinear":
        values = _triangle(distance)
    else:
        values = _cubic(distance, -0.5 if antialias else -0.75)
    if antialias:
        values = np.where((taps >= 0) & (taps < size), values, 0.0)
        values /= values.sum(1, keepdims=True)
    rows = np.broadcast_to(np.arange(new)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, size - 1)), values)
    return matrix


def resize(
    images: np.ndarray,
    size: tuple[int, int],
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> np.ndarray:
    """Resize (..., H, W) to (..., *size): rows (h, H) @ image @ columns (W, w)."""
    if interpolation not in INTERPOLATIONS:
        raise ArgumentError(
            f"interpolation must be one of {INTERPOLATIONS}, but got {interpolation!r}."
        )
    height, width = images.shape[-2:]
    values = as_float(images)
    if (height, width) != tuple(size):
        rows = weights(height, size[0], interpolation, antialias).astype(values.dtype)
        columns = weights(width, size[1], interpolation, antialias).astype(values.dtype)
        values = rows @ values @ columns.T
    return like(values, images)


class Resize(Transform):
    """Resize images.

    Arguments:
        size: (height, width), or one number for the shorter side; the other follows.
        interpolation: "nearest", "bilinear" or "bicubic".
        antialias: widen the kernel when shrinking, so that every pixel counts.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        interpolation: str = "bilinear",
        antialias: bool = True,
    ):
        if isinstance(size, (int, np.integer)):
            self.size: int | tuple[int, int] = check_pair("size", size)[0]
        else:
            self.size = check_pair("size", size)
        if interpolation not in INTERPOLATIONS:
            raise ArgumentError(
                f"interpolation must be one of {INTERPOLATIONS}, but got {interpolation!r}."
            )
        self.interpolation, self.antialias = interpolation, antialias

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        size = self.size
        if isinstance(size, int):
            height, width = images.shape[2:]
            short, long = min(height, width), max(height, width)
            other = int(size * long / short)
            size = (size, other) if height <= width else (other, size)
        return resize(images, size, self.interpolation, self.antialias)

    def _arguments(self) -> str:
        return f"{self.size}, interpolation={self.interpolation!r}, antialias={self.antialias}"
