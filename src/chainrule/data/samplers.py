"""Samplers: in which order samples are visited.

Every sampler's order depends only on its seed and the number of the epoch. Iterating over a sampler
goes through one epoch and then counts on; `state_dict` and `load_state_dict` continue in the
middle.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from chainrule.data.collate import to_numpy
from chainrule.data.draws import random_order, random_uniform, random_words, seed_from
from chainrule.errors import ArgumentError, CheckpointError, DataError


class Resumable:
    """An iterable over one epoch at a time, which knows where it stands.

    Subclasses define `_items(epoch)`, the sequence of an epoch.

    Attributes:
        epoch: the epoch that the next `iter` goes through.
    """

    epoch: int = 0
    _skip: int = 0
    _cursor: list[int] | None = None  # epoch and items handed out by the latest iterator

    def _items(self, epoch: int) -> Iterable[Any]:
        raise NotImplementedError(f"{type(self).__name__} must define _items.")

    def set_epoch(self, epoch: int) -> None:
        """Let the next `iter` go through `epoch`, from its beginning."""
        self.epoch, self._skip, self._cursor = int(epoch), 0, None

    def __iter__(self) -> Iterator[Any]:
        cursor = self._cursor = [self.epoch, self._skip]
        items = self._items(self.epoch)
        self.epoch, self._skip = self.epoch + 1, 0
        return self._walk(items, cursor)

    def _walk(self, items: Iterable[Any], cursor: list[int]) -> Iterator[Any]:
        for item in itertools.islice(items, cursor[1], None):
            cursor[1] += 1
            yield item
        cursor[:] = [cursor[0] + 1, 0]

    def state_dict(self) -> dict[str, int]:
        """Where the latest iterator stands: its epoch and how many items it has handed out."""
        epoch, position = self._cursor or (self.epoch, self._skip)
        return {"epoch": epoch, "position": position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next `iter` continue where `state` was taken."""
        try:
            epoch, position = int(state["epoch"]), int(state["position"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the state of a {type(self).__name__} has an epoch and a position, but got "
                f"{state!r}."
            ) from error
        self.set_epoch(epoch)
        self._skip = position


class Sampler(Resumable):
    """A resumable sequence of sample indices. Subclasses define `order(epoch)` and `__len__`.

    Attributes:
        repeats: whether an epoch may hold the same sample twice.
    """

    repeats: bool = False

    def order(self, epoch: int) -> np.ndarray:
        """The indices of one epoch, int64 (len(self),)."""
        raise NotImplementedError(f"{type(self).__name__} must define order.")

    def _items(self, epoch: int) -> list[int]:
        return self.order(epoch).tolist()

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__.")


class SequentialSampler(Sampler):
    """0, 1, 2, ...: the samples in order."""

    def __init__(self, data_source: Any):
        self.data_source = data_source

    def order(self, epoch: int) -> np.ndarray:
        return np.arange(len(self))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler):
    """The samples in random order.

    Arguments:
        data_source: anything that has a length.
        replacement: draw each index independently, so that samples may come twice or not at all.
        num_samples: how many to draw; as many as there are if None. Without replacement and beyond
            the number of samples, whole further permutations follow.
        generator: see `DataLoader`.
        seed: the seed, if there is no generator.
    """

    def __init__(
        self,
        data_source: Any,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Any = None,
        *,
        seed: int = 0,
    ):
        self.data_source, self.replacement = data_source, bool(replacement)
        self._num_samples = None if num_samples is None else check_count("num_samples", num_samples)
        self.seed = seed_from(generator, seed)
        self.repeats = self.replacement or len(self) > len(data_source)
        if len(data_source) == 0:
            raise DataError("RandomSampler cannot draw from an empty data set: it has no samples.")

    @property
    def num_samples(self) -> int:
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def order(self, epoch: int) -> np.ndarray:
        n, count = len(self.data_source), self.num_samples
        if self.replacement:
            return (random_uniform(self.seed, epoch, count) * n).astype(np.int64)
        if count <= n:
            return random_order(self.seed, epoch, n)[:count]
        words = random_words(self.seed, epoch, -(-count // n) * n).reshape(-1, n)
        return np.argsort(words, axis=1, kind="stable").reshape(-1)[:count]

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler):
    """The given indices in random order, without replacement."""

    def __init__(self, indices: Any, generator: Any = None, *, seed: int = 0):
        self.indices = to_numpy(indices).astype(np.int64).reshape(-1)
        self.seed = seed_from(generator, seed)

    def order(self, epoch: int) -> np.ndarray:
        return self.indices[random_order(self.seed, epoch, len(self.indices))]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler):
    """Indices 0 to len(weights) - 1, drawn with probability proportional to their weights.

    Arguments:
        weights: one for each sample, not negative; they need not add up to 1.
        num_samples: how many to draw in an epoch.
        replacement: with it, the inverse of the cumulative distribution is taken at uniform
            numbers. Without it, the samples with the `num_samples` largest keys u^(1 / w) are
            drawn, u uniform (P. S. Efraimidis, P. G. Spirakis, "Weighted random sampling with a
            reservoir", 2006).
        generator: see `DataLoader`.
        seed: the seed, if there is no generator.

    To draw all classes equally often: `weights = (1 / np.bincount(labels))[labels]`.
    """

    def __init__(
        self,
        weights: Any,
        num_samples: int,
        replacement: bool = True,
        generator: Any = None,
        *,
        seed: int = 0,
    ):
        self.weights = to_numpy(weights).astype(np.float64)
        if self.weights.ndim != 1 or not np.isfinite(self.weights).all() or self.weights.min() < 0:
            raise ArgumentError(
                "weights must be one finite number for each sample, and not negative, but have "
                f"shape {self.weights.shape}"
                + (f" and smallest value {self.weights.min()}." if self.weights.size else ".")
            )
        self.num_samples = check_count("num_samples", num_samples)
        self.replacement = self.repeats = bool(replacement)
        positive = int(np.count_nonzero(self.weights))
        if positive == 0 or (not replacement and positive < num_samples):
            raise ArgumentError(
                f"cannot draw {num_samples} "
                f"samples{'' if replacement else ' without replacement'}: only {positive} of "
                f"{len(self.weights)} weights are above 0."
            )
        self.seed = seed_from(generator, seed)

    def order(self, epoch: int) -> np.ndarray:
        if self.replacement:
            uniform = random_uniform(self.seed, epoch, self.num_samples)
            cumulative = np.cumsum(self.weights)
            # uniform * total can round up to the total itself, which lies after the last index.
            last = np.flatnonzero(self.weights)[-1]
            return np.minimum(
                np.searchsorted(cumulative, uniform * cumulative[-1], side="right"), last
            )
        uniform = random_uniform(self.seed, epoch, len(self.weights))
        with np.errstate(divide="ignore"):
            keys = np.where(self.weights > 0, np.log(1 - uniform) / self.weights, -np.inf)
        return np.argsort(-keys, kind="stable")[: self.num_samples]

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Resumable):
    """Batches of the indices that another sampler gives.

    Arguments:
        sampler: a sampler, or any iterable of indices with a length.
        batch_size: how many indices make a batch.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False):
        self.sampler = sampler
        self.batch_size = check_count("batch_size", batch_size)
        self.drop_last = bool(drop_last)

    @property
    def repeats(self) -> bool:
        return getattr(self.sampler, "repeats", True)

    def _items(self, epoch: int) -> Iterable[list[int]]:
        if isinstance(self.sampler, Sampler):
            return cut(self.sampler.order(epoch).tolist(), self.batch_size, self.drop_last)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
        return self._gather(iter(self.sampler))

    def _gather(self, indices: Iterator[Any]) -> Iterator[list[int]]:
        """Batches of a sampler that may have no end."""
        while batch := list(itertools.islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield [int(index) for index in batch]

    def __len__(self) -> int:
        n = len(self.sampler)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


class BucketBatchSampler(Resumable):
    """Batches of samples of similar length, so that little padding is needed.

    Each epoch shuffles all samples, cuts them into buckets, sorts each bucket by length, cuts it
    into batches, and shuffles the batches. Only the last batch may be smaller.

    Arguments:
        lengths: the length of each sample.
        batch_size: how many samples make a batch.
        shuffle: False sorts all samples by length once, and keeps that order.
        drop_last: leave out the batch that is not full.
        bucket_size: how many samples are sorted together, rounded up to whole batches: larger ones
            mean less padding and less chance. 100 batches if None.
        seed: which order; a `generator` goes before, see `DataLoader`.
    """

    repeats = False

    def __init__(
        self,
        lengths: Any,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = False,
        bucket_size: int | None = None,
        generator: Any = None,
        *,
        seed: int = 0,
    ):
        self.lengths = to_numpy(lengths)
        if self.lengths.ndim != 1 or self.lengths.dtype.kind not in "iuf" or not self.lengths.size:
            raise ArgumentError(
                "lengths must be one number for each sample, but have shape "
                f"{self.lengths.shape} and dtype {self.lengths.dtype}."
            )
        self.batch_size = check_count("batch_size", batch_size)
        bucket = (
            100 * batch_size if bucket_size is None else check_count("bucket_size", bucket_size)
        )
        self.bucket_size = -(-bucket // batch_size) * batch_size
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        self.seed = seed_from(generator, seed)

    def _items(self, epoch: int) -> list[list[int]]:
        n = len(self.lengths)
        if not self.shuffle:
            order = np.argsort(self.lengths, kind="stable").tolist()
            return cut(order, self.batch_size, self.drop_last)
        # Two epochs of the underlying stream for one of ours: one for the samples, one for the
        # batches.
        order = random_order(self.seed, 2 * epoch, n)
        batches: list[list[int]] = []
        for start in range(0, n, self.bucket_size):
            bucket = order[start : start + self.bucket_size]
            bucket = bucket[np.argsort(self.lengths[bucket], kind="stable")]
            batches += cut(bucket.tolist(), self.batch_size, self.drop_last)
        return [batches[i] for i in random_order(self.seed, 2 * epoch + 1, len(batches))]

    def __len__(self) -> int:
        n = len(self.lengths)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


def cut(items: list[Any], size: int, drop_last: bool) -> list[list[Any]]:
    """Cut a list into lists of `size`; the last one may be smaller, or is left out."""
    stop = len(items) - len(items) % size if drop_last else len(items)
    return [items[start : start + size] for start in range(0, stop, size)]


def check_count(name: str, value: Any) -> int:
    """`value` as a positive whole number, or an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(f"{name} must be a positive whole number, but got {value!r}.")
    return int(value)
