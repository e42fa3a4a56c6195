"""The random numbers of data: keyed, so that they depend on nothing but what they are for.

A number drawn for an augmentation is Philox4x32-10 of (loader's seed, transform, epoch, sample). So
it does not matter how many threads fetch, in which order batches are asked for, or whether the run
was
stopped and resumed: sample 17 of epoch 3 looks the same.

Orders of samples come from the raw 64-bit words of NumPy's Philox, whose stream NumPy keeps for
ever, and not from `Generator.permutation`, whose stream it may change.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from chainrule.errors import ArgumentError
from chainrule.primitives.kernels import philox
from chainrule.primitives.kernels.philox import MASK32, MASK64

REPEAT_SHIFT = 20  # an epoch has 20 bits of its counter word, the repetition of a sample 12


fold = functools.lru_cache(4096)(philox.fold)
"""A new key from a key and an integer; remembered, because each batch asks for the same few."""


def check_seed(seed: Any, name: str = "seed") -> int:
    """`seed` as a whole number of 64 bits, or an error that says what a seed is."""
    try:
        number = int(seed)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or number != seed or isinstance(seed, bool):
        raise ArgumentError(
            f"{name} must be a whole number that is not negative, but got {seed!r}."
        )
    return number & MASK64


def seed_from(generator: Any, seed: int = 0) -> int:
    """The seed that a `generator` argument stands for; `seed` where it is None.

    Arguments:
        generator: None, a whole number, a `numpy.random.Generator`, or a `cr.random.Generator`.
            From a generator one number is drawn, so that two loaders that share it differ.
    """
    if generator is None:
        return check_seed(seed)
    if isinstance(generator, (int, np.integer)):
        return check_seed(generator, "generator")
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(2**63))
    from chainrule import random

    if isinstance(generator, random.Generator):
        low, high = random.integers(0, 2**31, (2,), generator=generator).tolist()
        return low | high << 31
    raise ArgumentError(
        "generator must be a chainrule.random.Generator, a numpy.random.Generator or a whole "
        f"number, but got {type(generator).__name__}."
    )


def random_words(seed: int, epoch: int, n: int) -> np.ndarray:
    """n random 64-bit words (uint64) that depend only on the seed and the epoch."""
    return np.random.Philox(key=seed, counter=epoch << 64).random_raw(n)


def random_uniform(seed: int, epoch: int, n: int) -> np.ndarray:
    """n numbers (float64) in [0, 1): the upper 53 bits of `random_words`, over 2^53."""
    return (random_words(seed, epoch, n) >> np.uint64(11)) * 2.0**-53


def random_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """A random permutation of range(n): the order of n random 64-bit words."""
    return np.argsort(random_words(seed, epoch, n), kind="stable")


class Draws:
    """The random numbers of one batch: row i belongs to the i-th sample, whatever its company.

    Arguments:
        key: 64 bits: the loader's seed and the transform's place, mixed.
        epoch: the number of the pass over the data.
        indices: the samples' indices in their data set.
        repeats: how often each sample was drawn before in this epoch (sampling with replacement),
            so that a sample seen twice is augmented in two ways. None: each for the first time.
    """

    def __init__(self, key: int, epoch: int, indices: Any, repeats: Any = None):
        self.key, self.epoch = key & MASK64, epoch
        self.indices = np.asarray(indices, np.int64).reshape(-1)
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.indices)

    def child(self, position: int) -> Draws:
        """Independent numbers for the `position`-th part of a composition, for the same samples."""
        return Draws(fold(self.key, position), self.epoch, self.indices, self.repeats)

    def words(self, count: int) -> np.ndarray:
        """(N, count) random 32-bit words, as uint64."""
        blocks = -(-count // 4)
        index = self.indices.astype(np.uint64)
        period = np.uint64(self.epoch & MASK32)
        if self.repeats is not None:
            period = period + (np.asarray(self.repeats, np.uint64) << np.uint64(REPEAT_SHIFT))
        period = np.broadcast_to(period & np.uint64(MASK32), index.shape)
        shape = (len(index), blocks)
        words = (
            (index & np.uint64(MASK32))[:, None],
            period[:, None],
            np.arange(blocks, dtype=np.uint64)[None, :],
            (index >> np.uint64(32))[:, None],
        )
        a, b, c, d = (np.array(np.broadcast_to(word, shape)) for word in words)
        philox.philox_rounds((a, b, c, d), self.key)
        return np.stack([a, b, c, d], axis=-1).reshape(len(index), 4 * blocks)[:, :count]

    def uniform(self, count: int = 1, low: Any = 0.0, high: Any = 1.0) -> np.ndarray:
        """(N, count) numbers (float64) in the open interval (low, high)."""
        return low + (self.words(count) + 0.5) * 2.0**-32 * (np.asarray(high) - low)

    def integers(self, high: Any, count: int = 1) -> np.ndarray:
        """(N, count) whole numbers from 0 to high - 1; `high` broadcasts against (N, count)."""
        return np.floor(self.uniform(count) * high).astype(np.int64)

    def normal(self, count: int = 1) -> np.ndarray:
        """(N, count) standard normal numbers (float64).

        Box and Muller, "A note on the generation of random normal deviates", 1958:
        sqrt(-2 ln u) cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v).
        """
        half = -(-count // 2)
        u = self.uniform(2 * half)
        radius, angle = np.sqrt(-2 * np.log(u[:, :half])), 2 * np.pi * u[:, half:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :count]

    def generator(self) -> np.random.Generator:
        """A NumPy generator for numbers that belong to the whole batch (mixup's lambda)."""
        first = int(self.indices[0]) if len(self.indices) else 0
        return np.random.Generator(np.random.Philox(key=fold(fold(self.key, self.epoch), first)))


class Scope:
    """What is being fetched at the moment: known to the loader, needed by transforms."""

    __slots__ = ("calls", "epoch", "index", "repeat", "repeats", "seed")

    def __init__(self, seed: int, epoch: int, repeats: np.ndarray | None = None):
        self.seed, self.epoch, self.repeats = seed, epoch, repeats
        self.index: int | None = None
        self.repeat = 0
        self.calls = 0


_scope: ContextVar[Scope | None] = ContextVar("chainrule_data_scope", default=None)


@contextlib.contextmanager
def fetching(seed: int, epoch: int, repeats: np.ndarray | None = None) -> Iterator[Scope]:
    """Within it, transforms draw for this seed and epoch."""
    scope = Scope(seed, epoch, repeats)
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


@contextlib.contextmanager
def selecting(positions: np.ndarray) -> Iterator[None]:
    """Within it, a batch consists of those positions of the batch that is being fetched."""
    scope = _scope.get()
    if scope is None or scope.repeats is None:
        yield
        return
    with fetching(scope.seed, scope.epoch, scope.repeats[positions]):
        yield


def one_by_one(indices: Iterable[int]) -> Iterator[int]:
    """Yield the indices, noting each as the sample that is being fetched."""
    scope = _scope.get()
    if scope is None:
        yield from indices
        return
    for position, index in enumerate(indices):
        scope.index, scope.calls = index, 0
        scope.repeat = 0 if scope.repeats is None else int(scope.repeats[position])
        yield index
    scope.index = None


def draws_for(seed: int, level: int, indices: np.ndarray) -> Draws:
    """The draws of a transform with `seed`, over `level` others, for samples of its data set."""
    scope = _scope.get()
    if scope is None:
        return Draws(fold(fold(0, seed), level), 0, indices)
    repeats = scope.repeats
    if scope.index is not None:
        repeats = scope.repeat
    elif repeats is not None and len(repeats) != len(indices):
        repeats = None
    return Draws(fold(fold(scope.seed, seed), level), scope.epoch, indices, repeats)


def draws_by_hand(seed: int, numbers: range) -> Draws:
    """The draws of a transform that is called by hand on as many images as there are `numbers`.

    Inside the `__getitem__` of a data set that a loader fetches from, they are keyed by the sample,
    and each further call within it has its own. Anywhere else image i has the i-th of the numbers.
    """
    scope = _scope.get()
    if scope is None or scope.index is None:
        return Draws(fold(0, seed), 0, numbers)
    scope.calls += 1
    key = fold(fold(scope.seed, seed), scope.calls)
    if len(numbers) == 1:
        return Draws(key, scope.epoch, [scope.index], scope.repeat)
    return Draws(fold(key, scope.index), scope.epoch, np.arange(len(numbers)), scope.repeat)
