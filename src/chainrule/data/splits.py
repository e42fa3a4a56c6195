"""Splitting data sets: fixed, repeatable, stratified where there are classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.data.dataset import TensorDataset
from chainrule.data.derived import Subset
from chainrule.data.draws import random_order, seed_from
from chainrule.errors import ArgumentError, ChainruleWarning, DataError, ShapeError


def _test_count(n: int, test: float | int) -> int:
    """How many of n samples are for testing: a share of them (rounded) or a number."""
    if isinstance(test, bool) or not isinstance(test, (int, float, np.integer, np.floating)):
        raise ArgumentError(
            f"test must be a share such as 0.2, or a number of samples, but got {test!r}."
        )
    if isinstance(test, (float, np.floating)):
        if not 0 < test < 1:
            raise ArgumentError(
                f"test as a share must lie between 0 and 1, but got {test}; for a number of "
                "samples give a whole number."
            )
        count = math.floor(n * float(test) + 0.5)
    else:
        count = int(test)
    if not 0 < count < n:
        raise DataError(
            f"cannot split {n} samples with test={test}: that leaves {max(n - count, 0)} samples "
            f"for training and {max(count, 0)} for testing, and both need at least one."
        )
    return count


def split_indices(
    n: int, test: float | int = 0.2, seed: int = 0, labels: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """The indices of a training and of a test set, each in ascending order.

    Arguments:
        n: the number of samples.
        test: the share of the test set (the count is n times that, rounded), or its count.
        seed: which split; the same seed always gives the same one.
        labels: classes (n,) to stratify by. Each class gives `count_c test / n` samples, rounded so
            that the counts add up (largest remainders first); a class never gives all that it has,
            so a class with one sample stays in the training set.

    Raises:
        DataError: if either part would be empty.
    """
    count = _test_count(n, test)
    order = random_order(seed_from(seed), 0, n)
    if labels is None:
        chosen = order[:count]
    else:
        values = np.asarray(labels)
        if values.shape != (n,):
            raise ShapeError(
                f"to stratify, each of the {n} samples needs one label, but the labels have shape "
                f"{values.shape}; pass stratify=False for a plain random split."
            )
        classes, codes = np.unique(values, return_inverse=True)
        sizes = np.bincount(codes, minlength=len(classes))
        takes = _apportion(sizes, count)
        shuffled = codes[order]
        chosen = np.concatenate(
            [order[shuffled == c][:take] for c, take in enumerate(takes.tolist())]
        )
    mask = np.zeros(n, np.bool_)
    mask[chosen] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _apportion(sizes: np.ndarray, count: int) -> np.ndarray:
    """Share out `count` test samples over classes of these sizes, by largest remainder."""
    most = sizes - 1
    if most.sum() < count:
        raise DataError(
            f"cannot put {count} of {sizes.sum()} samples into a stratified test set: each of the "
            f"{len(sizes)} classes must keep one for training. Make the test set smaller, or pass "
            "stratify=False."
        )
    exact = sizes * (count / sizes.sum())
    takes = np.minimum(np.floor(exact).astype(np.int64), most)
    while takes.sum() < count:
        remainder = np.where(takes < most, exact - takes, -np.inf)
        takes[np.argmax(remainder)] += 1
    return takes


def random_split(
    dataset: Any, lengths: Sequence[float | int], generator: Any = None, *, seed: int = 0
) -> list[Subset]:
    """Split a data set at random into parts of the given lengths, as PyTorch's function does.

    Arguments:
        dataset: what to split.
        lengths: numbers of samples that add up to the whole, or shares that add up to 1. With
            shares, part i gets floor(n share_i) samples, and what is left goes to the first parts,
            one each.
        generator: see `DataLoader`.
        seed: which split, if there is no generator.
    """
    n = len(dataset)
    shares = list(lengths)
    if math.isclose(sum(shares), 1) and sum(shares) <= 1 + 1e-9 and n != 1:
        for number, share in enumerate(shares):
            if not 0 <= share <= 1:
                raise ArgumentError(f"share {number} must lie between 0 and 1, but is {share}.")
        counts = [math.floor(n * share) for share in shares]
        for extra in range(n - sum(counts)):
            counts[extra % len(counts)] += 1
        for number, count in enumerate(counts):
            if count == 0:
                warnings.warn(
                    f"part {number} of the random split has no samples: {shares[number]} of {n}.",
                    ChainruleWarning,
                    stacklevel=2,
                )
    else:
        counts = [int(length) for length in shares]
    if any(count < 0 for count in counts) or sum(counts) != n:
        raise ArgumentError(
            f"the lengths {shares} add up to {sum(shares)}, but the data set has {n} samples: they "
            "must add up to that number, or be shares that add up to 1."
        )
    order = random_order(seed_from(generator, seed), 0, n)
    ends = np.cumsum(counts)[:-1]
    return [Subset(dataset, part) for part in np.split(order, ends)]


def standardize(train: Any, *others: Any) -> tuple[TensorDataset, ...]:
    """Give each input column mean 0 and standard deviation 1: `(x - mean) / std`.

    The mean and the standard deviation (that of NumPy: divided by n) are those of `train`, so that
    nothing of the other sets is used; a column that is constant there is only shifted.

    Arguments:
        train: a data set of arrays with inputs (N, features).
        others: data sets to be treated in the same way, such as the test set.
    """
    inputs = _arrays(train)[0].astype(np.float64)
    mean, std = inputs.mean(0), inputs.std(0)
    # A constant column has a standard deviation of rounding errors, not of 0.
    std = np.where(std > 10 * np.finfo(np.float64).eps * np.abs(mean), std, 1.0)
    result = []
    for dataset in (train, *others):
        x, *rest = _arrays(dataset)
        if x.shape[1:] != mean.shape:
            raise ShapeError(
                f"the training set has inputs of shape {mean.shape}, another one {x.shape[1:]}."
            )
        scaled = ((x - mean) / std).astype(np.float32)
        result.append(
            TensorDataset(
                scaled, *rest, name=dataset.name, classes=dataset.classes, task=dataset.task
            )
        )
    return tuple(result)


def _arrays(dataset: Any) -> tuple[np.ndarray, ...]:
    if len(dataset) == 0:
        raise DataError("cannot standardize an empty data set.")
    return dataset.batch(np.arange(len(dataset)))
