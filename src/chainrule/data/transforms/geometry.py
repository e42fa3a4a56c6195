"""Padding, cropping, flipping and shifting: pixels change place and keep their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.data.draws import Draws
from chainrule.data.transforms.base import (
    RandomTransform,
    Transform,
    check_pair,
    check_probability,
)
from chainrule.errors import ArgumentError, ShapeError

PADDING_MODES = ("constant", "edge", "reflect", "symmetric")


def _check_padding(padding: Any) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) from one number, (left and right, top and bottom), or all four."""
    values = tuple(padding) if np.iterable(padding) else (padding,)
    if len(values) not in (1, 2, 4) or any(
        isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < 0 for v in values
    ):
        raise ArgumentError(
            "padding must be a whole number, (left and right, top and bottom) or (left, top, "
            f"right, bottom), none of them negative, but got {padding!r}."
        )
    left, top, right, bottom = (tuple(values) * 4)[:4]
    return int(left), int(top), int(right), int(bottom)


def pad(
    images: np.ndarray, padding: tuple[int, int, int, int], fill: Any = 0, mode: str = "constant"
) -> np.ndarray:
    """Pad (N, C, H, W) by (left, top, right, bottom) pixels with one number, or one a channel."""
    left, top, right, bottom = padding
    if not any(padding):
        return images
    if mode != "constant":
        widths = ((0, 0), (0, 0), (top, bottom), (left, right))
        height, width = images.shape[2:]
        if mode == "reflect" and (max(top, bottom) >= height or max(left, right) >= width):
            raise ShapeError(
                f"reflect padding {padding} must be smaller than the image of {height} x {width} "
                "pixels."
            )
        return np.pad(images, widths, mode=mode)  # type: ignore[call-overload]
    n, channels, height, width = images.shape
    padded = np.empty((n, channels, height + top + bottom, width + left + right), images.dtype)
    padded[...] = channel_values(fill, channels)
    padded[:, :, top : top + height, left : left + width] = images
    return padded


def channel_values(fill: Any, channels: int) -> np.ndarray:
    """One number, or one a channel, in a shape that broadcasts against (N, C, H, W)."""
    values = np.asarray(fill, np.float64)
    if values.ndim > 1 or (values.ndim and len(values) not in (1, channels)):
        raise ShapeError(
            f"the value must be one number, or one for each of the {channels} channels, but got "
            f"{fill!r}."
        )
    return values.reshape(-1, 1, 1) if values.ndim else values


def crop_each(
    images: np.ndarray, top: np.ndarray, left: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """From each image its own window of `size`, whose upper left corner is (top[n], left[n])."""
    windows = np.lib.stride_tricks.sliding_window_view(images, size, axis=(2, 3))  # type: ignore
    return windows[np.arange(len(images)), :, top, left]


class Pad(Transform):
    """Pad on all sides.

    Arguments:
        padding: pixels: one number, (left and right, top and bottom) or (left, top, right, bottom).
        fill: the value of the new pixels, one number or one for each channel.
        padding_mode: "constant", "edge", "reflect" or "symmetric", as `numpy.pad`.
    """

    def __init__(self, padding: int | Sequence[int], fill: Any = 0, padding_mode: str = "constant"):
        self.padding, self.fill = _check_padding(padding), fill
        self.padding_mode = check_mode(padding_mode)

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        return pad(images, self.padding, self.fill, self.padding_mode)

    def _arguments(self) -> str:
        return f"{self.padding}, fill={self.fill}, padding_mode={self.padding_mode!r}"


def check_mode(mode: str) -> str:
    if mode not in PADDING_MODES:
        raise ArgumentError(f"padding_mode must be one of {PADDING_MODES}, but got {mode!r}.")
    return mode


class CenterCrop(Transform):
    """Crop the middle, of `size` (one number or (height, width)); pad with 0 what is smaller.

    The upper left corner is at ((H - h) / 2, (W - w) / 2), rounded half to even.
    """

    def __init__(self, size: int | Sequence[int]):
        self.size = check_pair("size", size)

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        height, width = self.size
        more_y, more_x = max(height - images.shape[2], 0), max(width - images.shape[3], 0)
        images = pad(images, (more_x // 2, more_y // 2, (more_x + 1) // 2, (more_y + 1) // 2))
        top = round((images.shape[2] - height) / 2)
        left = round((images.shape[3] - width) / 2)
        return images[:, :, top : top + height, left : left + width]

    def _arguments(self) -> str:
        return f"{self.size}"


class RandomCrop(RandomTransform):
    """Crop a window of `size` at a random place.

    Arguments:
        size: one number or (height, width).
        padding: pad first, see `Pad`; None pads nothing.
        pad_if_needed: pad on both sides what is smaller than `size`.
        fill, padding_mode: see `Pad`.
        seed: see `RandomTransform`.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: Any = 0,
        padding_mode: str = "constant",
        *,
        seed: int = 0,
    ):
        super().__init__(seed=seed)
        self.size = check_pair("size", size)
        self.padding = None if padding is None else _check_padding(padding)
        self.pad_if_needed, self.fill = pad_if_needed, fill
        self.padding_mode = check_mode(padding_mode)

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        if self.padding is not None:
            images = pad(images, self.padding, self.fill, self.padding_mode)
        height, width = self.size
        if self.pad_if_needed:
            more_y, more_x = max(height - images.shape[2], 0), max(width - images.shape[3], 0)
            images = pad(images, (more_x, more_y, more_x, more_y), self.fill, self.padding_mode)
        room_y, room_x = images.shape[2] - height, images.shape[3] - width
        if room_y < 0 or room_x < 0:
            raise ShapeError(
                f"cannot crop {height} x {width} pixels from an image of {images.shape[2]} x "
                f"{images.shape[3]} (after padding): crop less, pad more, or set "
                "pad_if_needed=True."
            )
        corners = draws.integers([room_y + 1, room_x + 1], 2)
        return crop_each(images, corners[:, 0], corners[:, 1], self.size)

    def _arguments(self) -> str:
        return f"{self.size}, padding={self.padding}"


class RandomShift(RandomTransform):
    """Shift by a whole number of pixels from -shift to shift, in each direction alike.

    Arguments:
        shift: the largest shift: one number, or (down or up, right or left).
        fill: the value of the pixels that come in, one number or one for each channel.
        seed: see `RandomTransform`.
    """

    def __init__(self, shift: int | Sequence[int], fill: Any = 0, *, seed: int = 0):
        super().__init__(seed=seed)
        pair = tuple(shift) if isinstance(shift, Sequence) else (shift, shift)
        if len(pair) != 2 or any(not isinstance(v, (int, np.integer)) or v < 0 for v in pair):
            raise ArgumentError(
                f"shift must be a number of pixels, or one for each direction, but got {shift!r}."
            )
        self.shift, self.fill = (int(pair[0]), int(pair[1])), fill

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        y, x = self.shift
        corners = draws.integers([2 * y + 1, 2 * x + 1], 2)
        padded = pad(images, (x, y, x, y), self.fill)
        return crop_each(padded, corners[:, 0], corners[:, 1], images.shape[2:])

    def _arguments(self) -> str:
        return f"{self.shift}, fill={self.fill}"


class _RandomFlip(RandomTransform):
    axis: int

    def __init__(self, p: float = 0.5, *, seed: int = 0):
        super().__init__(seed=seed)
        self.p = check_probability(p)

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        flipped = draws.uniform()[:, 0] < self.p
        return np.where(flipped[:, None, None, None], np.flip(images, self.axis), images)

    def _arguments(self) -> str:
        return f"p={self.p}"


class RandomHorizontalFlip(_RandomFlip):
    """Exchange left and right with probability `p`."""

    axis = 3


class RandomVerticalFlip(_RandomFlip):
    """Exchange top and bottom with probability `p`."""

    axis = 2
