"""Samplers: the order of an epoch is a function of seed and epoch, and can be resumed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chainrule import data
from chainrule.data.draws import random_order, random_uniform
from chainrule.errors import ArgumentError, CheckpointError, DataError

LENGTHS = np.random.default_rng(0).integers(1, 100, 57)
MAKERS = {
    "sequential": lambda: data.SequentialSampler(range(11)),
    "random": lambda: data.RandomSampler(range(11), seed=3),
    "replacement": lambda: data.RandomSampler(range(11), True, 15, seed=3),
    "more": lambda: data.RandomSampler(range(11), num_samples=25, seed=3),
    "subset": lambda: data.SubsetRandomSampler([4, 2, 9, 7], seed=3),
    "weighted": lambda: data.WeightedRandomSampler([0.1, 0.5, 2, 0], 12, seed=3),
    "unreplaced": lambda: data.WeightedRandomSampler([0.1, 0.5, 2, 0], 3, False, seed=3),
    "batches": lambda: data.BatchSampler(data.RandomSampler(range(11), seed=3), 3, False),
    "buckets": lambda: data.BucketBatchSampler(LENGTHS, 4, bucket_size=12, seed=3),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_order_is_a_function_of_the_epoch(kind):
    one, two = MAKERS[kind](), MAKERS[kind]()
    epochs = [list(one) for _ in range(3)]
    two.set_epoch(2)
    assert list(two) == epochs[2]
    assert len(epochs[0]) == len(one)
    if kind != "sequential":
        assert epochs[0] != epochs[1]


@pytest.mark.parametrize("kind", MAKERS)
def test_resume_in_the_middle(kind):
    whole = MAKERS[kind]()
    epochs = [list(whole) for _ in range(2)]
    for stop in range(len(epochs[0]) + 1):
        sampler = MAKERS[kind]()
        iterator = iter(sampler)
        begun = [next(iterator) for _ in range(stop)]
        resumed = MAKERS[kind]()
        resumed.load_state_dict(sampler.state_dict())
        assert begun + list(resumed) == epochs[0]
        assert list(resumed) == epochs[1]
    with pytest.raises(StopIteration):
        next(iterator)
    assert sampler.state_dict() == {"epoch": 1, "position": 0}


def test_state_must_be_a_state():
    with pytest.raises(CheckpointError, match="epoch and a position"):
        data.SequentialSampler(range(3)).load_state_dict({"epoch": 1})


def test_permutations_are_uniform():
    """Each of the 24 orders of 4 samples comes equally often (chi-squared over 4,800 epochs)."""
    counts: dict[tuple, int] = {}
    for epoch in range(4800):
        key = tuple(random_order(7, epoch, 4).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_streams_are_numpys_philox_words():
    """The order is that of the raw words of a stream NumPy promises to keep."""
    words = np.random.Philox(key=5, counter=[0, 2, 0, 0]).random_raw(10)
    np.testing.assert_array_equal(random_order(5, 2, 10), np.argsort(words))
    np.testing.assert_array_equal(random_uniform(5, 2, 10), (words >> np.uint64(11)) / 2**53)
    # Known answer: a change here would change every run that shuffles.
    assert random_order(0, 0, 8).tolist() == KNOWN_ORDER


KNOWN_ORDER = [0, 2, 1, 5, 4, 3, 6, 7]


def test_random_sampler_counts():
    order = list(data.RandomSampler(range(5), num_samples=12, seed=0))
    # Two whole permutations, then two different samples of a third.
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert len(set(order[10:])) == 2
    with_replacement = list(data.RandomSampler(range(5), True, 5000, seed=0))
    assert stats.chisquare(np.bincount(with_replacement)).pvalue > 1e-3
    assert data.RandomSampler(range(5), num_samples=12).repeats
    assert not data.RandomSampler(range(5)).repeats


def test_weighted_sampler_follows_its_weights():
    weights = np.array([1.0, 2.0, 0.0, 5.0])
    drawn = np.bincount(list(data.WeightedRandomSampler(weights, 8000, seed=1)), minlength=4)
    assert drawn[2] == 0
    kept = weights > 0
    assert stats.chisquare(drawn[kept], 8000 * weights[kept] / 8).pvalue > 1e-3


def test_weighted_sampler_without_replacement():
    """The first of two drawn has the weights' probabilities; the second those of what is left."""
    weights = np.array([1.0, 2.0, 5.0])
    sampler = data.WeightedRandomSampler(weights, 2, replacement=False, seed=1)
    pairs = [tuple(sampler) for _ in range(6000)]
    expected = {
        (i, j): weights[i] / 8 * weights[j] / (8 - weights[i])
        for i in range(3)
        for j in range(3)
        if i != j
    }
    counts = [sum(pair == key for pair in pairs) for key in expected]
    assert sum(counts) == 6000
    assert stats.chisquare(counts, [6000 * p for p in expected.values()]).pvalue > 1e-3


def test_balanced_classes_recipe():
    labels = np.array([0] * 90 + [1] * 10)
    weights = (1 / np.bincount(labels))[labels]
    drawn = labels[list(data.WeightedRandomSampler(weights, 4000, seed=2))]
    assert stats.binomtest(int(drawn.sum()), 4000, 0.5).pvalue > 1e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda: data.WeightedRandomSampler([1, -1], 2),
        lambda: data.WeightedRandomSampler([np.nan], 2),
        lambda: data.WeightedRandomSampler([0, 0], 2),
        lambda: data.WeightedRandomSampler([1, 0], 2, replacement=False),
        lambda: data.WeightedRandomSampler([1, 1], 0),
        lambda: data.RandomSampler(range(3), num_samples=0),
        lambda: data.RandomSampler(range(3), num_samples=1.5),
        lambda: data.BatchSampler(range(3), 0),
        lambda: data.BatchSampler(range(3), True),
        lambda: data.BucketBatchSampler([], 2),
        lambda: data.BucketBatchSampler([[1]], 2),
    ],
)
def test_arguments_are_checked(make):
    with pytest.raises(ArgumentError):
        make()


def test_random_sampler_needs_samples():
    with pytest.raises(DataError, match="empty"):
        data.RandomSampler([])


@given(n=st.integers(1, 30), size=st.integers(1, 8), drop=st.booleans())
def test_batch_sampler_lengths(n, size, drop):
    sampler = data.BatchSampler(data.SequentialSampler(range(n)), size, drop)
    batches = list(sampler)
    assert len(batches) == len(sampler) == (n // size if drop else -(-n // size))
    assert [i for batch in batches for i in batch] == list(range(n - n % size if drop else n))
    # Any iterable of indices gives the same.
    assert list(data.BatchSampler(range(n), size, drop)) == batches


@given(n=st.integers(1, 60), size=st.integers(1, 7), bucket=st.integers(1, 40), drop=st.booleans())
def test_bucket_batches_cover_everything_once(n, size, bucket, drop):
    lengths = np.random.default_rng(n).integers(1, 9, n)
    sampler = data.BucketBatchSampler(lengths, size, True, drop, bucket)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    flat = [i for batch in batches for i in batch]
    assert len(set(flat)) == len(flat) == (n - n % size if drop else n)
    assert sum(len(batch) < size for batch in batches) <= 1


def test_bucket_batches_hold_similar_lengths():
    lengths = np.random.default_rng(0).integers(1, 1000, 2000)

    def padding(batches):
        return sum(len(b) * lengths[b].max() - lengths[b].sum() for b in map(np.array, batches))

    plain = padding(data.BatchSampler(data.RandomSampler(range(2000)), 20, False))
    buckets = padding(data.BucketBatchSampler(lengths, 20, bucket_size=500))
    everything = padding(data.BucketBatchSampler(lengths, 20, shuffle=False))
    assert everything < buckets < plain / 5
    order = [i for b in data.BucketBatchSampler(lengths, 20, shuffle=False) for i in b]
    assert (np.diff(lengths[order]) >= 0).all()
