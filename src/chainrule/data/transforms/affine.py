"""Rotation, scaling, shearing: images sampled at places between their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.data.draws import Draws
from chainrule.data.transforms.base import RandomTransform, as_float, check_range, like
from chainrule.data.transforms.geometry import channel_values
from chainrule.errors import ArgumentError

INTERPOLATIONS = ("bilinear", "nearest")


def inverse_matrices(
    angle: np.ndarray, translate: np.ndarray, scale: np.ndarray, shear: np.ndarray
) -> np.ndarray:
    """(N, 2, 3) matrices that take an output pixel to where it comes from, about the centre.

    The forward map is M = T R(angle) Sh(shear) scale, in pixels with x to the right and y down,
    where R Sh = [[a, b], [c, d]] with
        a = cos(r - q) / cos q,  b = -cos(r - q) tan(p) / cos q - sin r,
        c = sin(r - q) / cos q,  d = -sin(r - q) tan(p) / cos q + cos r,
    r the angle, p and q the shears in x and y; its determinant is 1. This is torchvision's
    `affine`.

    Arguments:
        angle: degrees (N,), clockwise.
        translate: pixels (N, 2), right and down.
        scale: factors (N,).
        shear: degrees (N, 2), in x and in y.
    """
    r, p, q = np.radians(angle), np.radians(shear[:, 0]), np.radians(shear[:, 1])
    a = np.cos(r - q) / np.cos(q)
    b = -np.cos(r - q) * np.tan(p) / np.cos(q) - np.sin(r)
    c = np.sin(r - q) / np.cos(q)
    d = -np.sin(r - q) * np.tan(p) / np.cos(q) + np.cos(r)
    linear = np.stack([d, -b, -c, a], 1).reshape(-1, 2, 2) / scale[:, None, None]
    offset = -(linear @ translate[:, :, None])
    return np.concatenate([linear, offset], 2)


def affine(
    images: np.ndarray,
    inverse: np.ndarray,
    fill: Any = 0,
    interpolation: str = "bilinear",
    center: tuple[float, float] | None = None,
) -> np.ndarray:
    """Map each image (N, C, H, W) by its inverse matrix (N, 2, 3).

    The pixel at (x, y), measured from the centre, becomes the image's value at inverse @ (x, y, 1).
    Outside the image everything is `fill`, and bilinear interpolation goes over into it.

    Arguments:
        center: the point (x, y) in pixels about which to turn; the image's middle if None.
    """
    n, channels, height, width = images.shape
    # Pixel centres, measured from the turning point.
    cx, cy = ((width - 1) / 2, (height - 1) / 2)
    if center is not None:
        cx, cy = center[0] - 0.5, center[1] - 0.5
    x = np.arange(width)[None, None, :] - cx
    y = np.arange(height)[None, :, None] - cy
    m = inverse[:, :, :, None, None]
    # One pixel of `fill` around the image makes all that is outside alike.
    from_x = np.clip(m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2] + cx + 1, 0, width + 1)
    from_y = np.clip(m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2] + cy + 1, 0, height + 1)
    padded = np.empty((n, channels, height + 2, width + 2), as_float(images[:0]).dtype)
    padded[...] = channel_values(fill, channels)
    padded[:, :, 1:-1, 1:-1] = images
    values = _sample(padded, from_y, from_x, interpolation)
    return like(values, images)


def _sample(images: np.ndarray, y: np.ndarray, x: np.ndarray, interpolation: str) -> np.ndarray:
    """The values of (N, C, H, W) at the places (y, x), (N, h, w) each, all within the image."""
    n, channels, height, width = images.shape
    flat = images.reshape(n, channels, height * width)

    def at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        places = (rows * width + columns).reshape(n, 1, -1)
        return np.take_along_axis(flat, places, 2).reshape(n, channels, *y.shape[1:])

    if interpolation == "nearest":
        return at(np.rint(y).astype(np.int64), np.rint(x).astype(np.int64))
    top = np.minimum(y.astype(np.int64), height - 2)
    left = np.minimum(x.astype(np.int64), width - 2)
    down = (y - top).astype(images.dtype)[:, None]
    right = (x - left).astype(images.dtype)[:, None]
    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def _symmetric(name: str, value: Any) -> tuple[float, float]:
    """A number d as the range (-d, d), or a range as it is."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < 0:
            raise ArgumentError(f"{name} as one number must not be negative, but is {value}.")
        return -float(value), float(value)
    return check_range(name, value)


class RandomAffine(RandomTransform):
    """Turn, shift, scale and shear about the centre, by random amounts.

    Arguments:
        degrees: the range (low, high) of the angle, clockwise; one number d means (-d, d).
        translate: the largest shifts, as shares of width and height; shifts are whole pixels.
        scale: the range of the factor.
        shear: degrees: a number or (low, high) along x, or (low, high, low, high) along x and y.
        interpolation: "bilinear" or "nearest" (torchvision's default).
        fill: the value outside the image, one number or one for each channel.
        center: the point (x, y) in pixels from the upper left corner to turn about; the middle if
            None.
        seed: see `RandomTransform`.
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: float | Sequence[float] | None = None,
        interpolation: str = "bilinear",
        fill: Any = 0,
        center: tuple[float, float] | None = None,
        *,
        seed: int = 0,
    ):
        super().__init__(seed=seed)
        self.degrees = _symmetric("degrees", degrees)
        if translate is not None and (
            len(translate) != 2 or not all(0 <= share <= 1 for share in translate)
        ):
            raise ArgumentError(
                f"translate must be two shares between 0 and 1, but got {translate!r}."
            )
        self.translate = (0.0, 0.0) if translate is None else tuple(translate)
        self.scale = (1.0, 1.0) if scale is None else check_range("scale", scale)
        if self.scale[0] <= 0:
            raise ArgumentError(f"scale must be positive, but is {scale!r}.")
        self.shear_x, self.shear_y = _shears(shear)
        if interpolation not in INTERPOLATIONS:
            raise ArgumentError(
                f"interpolation must be one of {INTERPOLATIONS}, but got {interpolation!r}."
            )
        self.interpolation, self.fill, self.center = interpolation, fill, center

    def matrices(self, draws: Draws, height: int, width: int) -> np.ndarray:
        """The inverse matrices (N, 2, 3) of one batch."""
        largest = np.array([self.translate[0] * width, self.translate[1] * height])
        ranges = [self.degrees, self.scale, self.shear_x, self.shear_y]
        low = np.array([-largest[0], -largest[1], *(r[0] for r in ranges)])
        high = np.array([*largest, *(r[1] for r in ranges)])
        drawn = draws.uniform(6, low, high)
        return inverse_matrices(drawn[:, 2], np.rint(drawn[:, :2]), drawn[:, 3], drawn[:, 4:])

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        inverse = self.matrices(draws, *images.shape[2:])
        return affine(images, inverse, self.fill, self.interpolation, self.center)

    def _arguments(self) -> str:
        return (
            f"degrees={self.degrees}, translate={self.translate}, scale={self.scale}, "
            f"shear={(*self.shear_x, *self.shear_y)}, interpolation={self.interpolation!r}"
        )


def _shears(shear: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    if shear is None:
        return (0.0, 0.0), (0.0, 0.0)
    if isinstance(shear, (list, tuple)) and len(shear) == 4:
        return check_range("shear", shear[:2]), check_range("shear", shear[2:])
    return _symmetric("shear", shear), (0.0, 0.0)


class RandomRotation(RandomAffine):
    """Turn by a random angle.

    Arguments:
        degrees: the range (low, high) of the angle, counter-clockwise; one number d means (-d, d).
        interpolation, fill, center, seed: see `RandomAffine`. The image keeps its size.
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: str = "bilinear",
        center: tuple[float, float] | None = None,
        fill: Any = 0,
        *,
        seed: int = 0,
    ):
        low, high = _symmetric("degrees", degrees)
        super().__init__(
            (-high, -low), interpolation=interpolation, fill=fill, center=center, seed=seed
        )

    def _arguments(self) -> str:
        low, high = self.degrees
        return f"degrees={(-high, -low)}, interpolation={self.interpolation!r}, fill={self.fill}"


class RandomScale(RandomAffine):
    """Enlarge or shrink about the centre by a random factor.

    Arguments:
        scale: the range of the factor.
        interpolation, fill, seed: see `RandomAffine`. The image keeps its size.
    """

    def __init__(
        self,
        scale: Sequence[float],
        interpolation: str = "bilinear",
        fill: Any = 0,
        *,
        seed: int = 0,
    ):
        super().__init__(0, scale=scale, interpolation=interpolation, fill=fill, seed=seed)

    def _arguments(self) -> str:
        return f"scale={self.scale}, interpolation={self.interpolation!r}, fill={self.fill}"
