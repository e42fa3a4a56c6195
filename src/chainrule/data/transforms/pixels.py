"""Transforms of values: scaling, normalising, erasing, noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chainrule.data.draws import Draws
from chainrule.data.transforms.base import (
    RandomTransform,
    Transform,
    check_probability,
    check_range,
    like,
)
from chainrule.data.transforms.geometry import channel_values
from chainrule.errors import ArgumentError, DTypeError


class ToFloat(Transform):
    """Whole numbers to float32 in [0, 1]: `x / largest of the dtype`; floats become float32."""

    on_images = False

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        if images.dtype.kind in "iu":
            largest = np.float32(np.iinfo(images.dtype).max)
            return np.divide(images, largest, dtype=np.float32)
        return images.astype(np.float32, copy=False)


class Normalize(Transform):
    """`(x - mean) / std`, channel by channel.

    Arguments:
        mean, std: one number, or one for each channel, of images in float32.

    Over the training images: MNIST (0.1307) and (0.3081); Fashion-MNIST (0.2860) and (0.3530);
    CIFAR-10 (0.4914, 0.4822, 0.4465) and (0.2470, 0.2435, 0.2616).
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]):
        self.mean, self.std = mean, std
        if (np.asarray(std, np.float64) <= 0).any():
            raise ArgumentError(f"std must be positive in every channel, but is {std!r}.")

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        if images.dtype.kind != "f":
            raise DTypeError(
                f"Normalize needs floating-point images, but got {images.dtype}; put ToFloat() "
                "before it."
            )
        mean, std = (channel_values(v, images.shape[1]) for v in (self.mean, self.std))
        return (images - mean.astype(images.dtype)) / std.astype(images.dtype)

    def _arguments(self) -> str:
        return f"mean={self.mean}, std={self.std}"


class GaussianNoise(RandomTransform):
    """Add normal noise: `x + mean + sigma n`, n standard normal.

    Arguments:
        mean, sigma: of the noise, for float images in [0, 1].
        clip: keep the result within [0, 1].
        seed: see `RandomTransform`.
    """

    def __init__(self, mean: float = 0.0, sigma: float = 0.1, clip: bool = True, *, seed: int = 0):
        super().__init__(seed=seed)
        if sigma < 0:
            raise ArgumentError(f"sigma must not be negative, but is {sigma}.")
        self.mean, self.sigma, self.clip = mean, sigma, clip

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        if images.dtype.kind != "f":
            raise DTypeError(
                f"GaussianNoise needs floating-point images, but got {images.dtype}; put ToFloat() "
                "before it."
            )
        noise = draws.normal(int(np.prod(images.shape[1:]))).reshape(images.shape)
        noisy = images + (self.mean + self.sigma * noise).astype(images.dtype)
        return np.clip(noisy, 0, 1, out=noisy) if self.clip else noisy

    def _arguments(self) -> str:
        return f"mean={self.mean}, sigma={self.sigma}, clip={self.clip}"


class RandomErasing(RandomTransform):
    """Overwrite a random rectangle.

    Z. Zhong et al., "Random erasing data augmentation", 2017 (arXiv 1708.04896): with probability p
    draw an area (a share of the image, uniform) and an aspect ratio (height to width, log-uniform);
    the rectangle is sqrt(area ratio) high and sqrt(area / ratio) wide. If it does not fit, draw
    again, ten times at most; then the image stays whole.

    Arguments:
        p: the probability.
        scale: the range of the area, as a share of the image.
        ratio: the range of the aspect ratio.
        value: what is written: one number, one for each channel, or "random" for normal numbers.
        seed: see `RandomTransform`.
    """

    attempts = 10

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: float | Sequence[float] | str = 0,
        *,
        seed: int = 0,
    ):
        super().__init__(seed=seed)
        self.p = check_probability(p)
        self.scale, self.ratio = check_range("scale", scale, 0, 1), check_range("ratio", ratio)
        if self.ratio[0] <= 0:
            raise ArgumentError(f"ratio must be positive, but is {ratio!r}.")
        if isinstance(value, str) and value != "random":
            raise ArgumentError(f"value must be a number, numbers or 'random', but is {value!r}.")
        self.value = value

    def boxes(self, draws: Draws, height: int, width: int) -> np.ndarray:
        """(N, 4) top, left, height and width of each rectangle; 0 x 0 where nothing is erased."""
        tries = self.attempts
        drawn = draws.uniform(1 + 4 * tries)
        use = drawn[:, 0] < self.p
        share, aspect, y, x = np.moveaxis(drawn[:, 1:].reshape(-1, tries, 4), 2, 0)
        low, high = np.log(self.ratio[0]), np.log(self.ratio[1])
        area = height * width * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
        aspect = np.exp(low + aspect * (high - low))
        h = np.rint(np.sqrt(area * aspect)).astype(np.int64)
        w = np.rint(np.sqrt(area / aspect)).astype(np.int64)
        fits = (h < height) & (w < width)
        first = np.argmax(fits, axis=1)
        rows = np.arange(len(drawn))
        use &= fits[rows, first]
        h, w, y, x = (a[rows, first] for a in (h, w, y, x))
        top, left = np.floor(y * (height - h + 1)), np.floor(x * (width - w + 1))
        return np.where(use[:, None], np.stack([top, left, h, w], 1), 0).astype(np.int64)

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        n, channels, height, width = images.shape
        top, left, h, w = (v[:, None] for v in self.boxes(draws.child(0), height, width).T)
        rows, columns = np.arange(height)[None], np.arange(width)[None]
        inside = ((rows >= top) & (rows < top + h))[:, None, :, None]
        inside = inside & ((columns >= left) & (columns < left + w))[:, None, None, :]
        if isinstance(self.value, str):
            count = channels * height * width
            value = draws.child(1).normal(count).reshape(n, channels, height, width)
        else:
            value = channel_values(self.value, channels)
        return np.where(inside, like(np.asarray(value), images), images)

    def _arguments(self) -> str:
        return f"p={self.p}, scale={self.scale}, ratio={self.ratio}, value={self.value!r}"
