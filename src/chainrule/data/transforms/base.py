"""What all transforms share."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.data.collate import is_tensor, stack, to_numpy
from chainrule.data.draws import Draws, check_seed, draws_by_hand, fold
from chainrule.errors import ArgumentError, ShapeError


class Transform:
    """A function of images. Subclasses define `apply(images (N, C, H, W), draws)`.

    A transform that draws no random numbers ignores `draws`.
    """

    on_images: bool = True  # whether it needs height and width; others take inputs of any shape

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define apply.")

    def batch(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        """The transformed batch. `images` is left as it is."""
        if self.on_images and images.ndim != 4:
            raise ShapeError(
                f"{type(self).__name__} works on images of shape (C, H, W) or batches (N, C, H, "
                f"W), but got a batch of shape {images.shape}; transform before flattening "
                "(flatten=False)."
            )
        return self.apply(images, draws)

    def __call__(self, images: Any) -> Any:
        """The transformed image (C, H, W) or batch (N, C, H, W); a tensor gives a tensor."""
        array = to_numpy(images)
        single = array.ndim == 3 or not self.on_images
        batch = array[None] if single else array
        result = self.batch(batch, self._draws(len(batch)))
        result = result[0] if single else result
        if is_tensor(images):
            from chainrule import array as arrays

            return arrays.asarray(result)
        return result

    def _draws(self, n: int) -> Draws:
        return Draws(0, 0, np.zeros(n, np.int64))

    def _arguments(self) -> str:
        """What `repr` shows between the parentheses."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._arguments()})"


class RandomTransform(Transform):
    """A transform that draws random numbers.

    Arguments:
        seed: tells transforms of one kind apart where they are called by hand.
    """

    _lock = threading.Lock()

    def __init__(self, *, seed: int = 0):
        self.seed = check_seed(seed)
        self._used = 0

    def _draws(self, n: int) -> Draws:
        with self._lock:
            numbers = range(self._used, self._used + n)
            self._used += n
        kind = zlib.crc32(type(self).__name__.encode())
        return draws_by_hand(fold(self.seed, kind), numbers)


class Compose(RandomTransform):
    """Several transforms, one after the other.

    Arguments:
        transforms: transforms, or functions, each of which is called with one image at a time.
    """

    on_images = False

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], *, seed: int = 0):
        super().__init__(seed=seed)
        self.transforms = [as_transform(transform) for transform in transforms]
        self._plain = all(not t.on_images for t in self.transforms)

    def __call__(self, images: Any) -> Any:
        array = to_numpy(images)
        if array.ndim == 4 and not self._plain:
            result = self.batch(array, self._draws(len(array)))
            if is_tensor(images):
                from chainrule import array as arrays

                return arrays.asarray(result)
            return result
        return super().__call__(images)

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        for position, transform in enumerate(self.transforms):
            images = transform.batch(images, draws.child(position))
        return images

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


class Lambda(Transform):
    """Any function as a transform.

    Arguments:
        function: called with one sample's input, an array.
        batched: the function is called with a whole batch (N, ...) instead.
    """

    on_images = False

    def __init__(self, function: Callable[[np.ndarray], Any], batched: bool = False):
        if not callable(function):
            raise ArgumentError(f"Lambda needs a function, but got {type(function).__name__}.")
        self.function, self.batched = function, batched

    def apply(self, images: np.ndarray, draws: Draws) -> np.ndarray:
        if self.batched:
            return to_numpy(self.function(images))
        return stack(
            [to_numpy(self.function(image)) for image in images], where="transformed image"
        )

    def _arguments(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


def as_transform(function: Callable[[Any], Any]) -> Transform:
    """`function` itself if it is a transform; otherwise a `Lambda` of it."""
    return function if isinstance(function, Transform) else Lambda(function)


def check_range(name: str, value: Any, low: float = -np.inf, high: float = np.inf) -> tuple:
    """A pair of numbers (first <= second) within [low, high], or an error that names it."""
    try:
        first, second = (float(v) for v in value)
    except (TypeError, ValueError):
        first, second = np.nan, np.nan
    if not low <= first <= second <= high:
        bounds = "" if low == -np.inf else f", between {low:g} and {high:g}"
        raise ArgumentError(
            f"{name} must be two numbers, the smaller one first{bounds}, but got {value!r}."
        )
    return first, second


def check_probability(p: Any) -> float:
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
        raise ArgumentError(f"p must be a probability between 0 and 1, but got {p!r}.")
    return float(p)


def check_pair(name: str, value: Any) -> tuple[int, int]:
    """One whole number for both height and width, or one for each."""
    pair = tuple(value) if np.iterable(value) else (value, value)
    if len(pair) == 1:
        pair = pair * 2
    if len(pair) != 2 or any(
        isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < 1 for v in pair
    ):
        raise ArgumentError(
            f"{name} must be a positive whole number or a pair (height, width), but got {value!r}."
        )
    return int(pair[0]), int(pair[1])


def like(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Computed values in the images' dtype: rounded and clipped where that holds whole numbers."""
    if images.dtype.kind in "iu":
        limits = np.iinfo(images.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(images.dtype, copy=False)


def as_float(images: np.ndarray) -> np.ndarray:
    """Images for computing: float64 stays, everything else becomes float32."""
    return images if images.dtype == np.float64 else images.astype(np.float32, copy=False)
