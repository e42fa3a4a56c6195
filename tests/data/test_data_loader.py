"""The loader: order, threads, exceptions, and exact resumption."""

from __future__ import annotations

import gc
import itertools
import json
import threading
import time
import traceback

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import data
from chainrule.data import transforms
from chainrule.errors import ArgumentError, ChainruleWarning, CheckpointError, DataError


def make(n=10):
    x = np.arange(n * 2, dtype=np.float32).reshape(n, 2)
    return data.TensorDataset(x, np.arange(n))


class Own(data.Dataset):
    """Samples one by one, in a time that differs from sample to sample."""

    def __init__(self, n=10, delay=0.0):
        self.n, self.delay = n, delay

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        time.sleep(self.delay * ((index * 7) % 5))
        return np.full(2, index, np.float32), index


def labels(batches):
    return [batch[1].tolist() for batch in batches]


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("chainrule-loader")]


def wait_for_no_threads():
    for _ in range(500):
        if not loader_threads():
            return
        time.sleep(0.01)
    raise AssertionError(f"threads still run: {loader_threads()}")


def test_batches_are_tuples_of_tensors():
    batches = list(data.DataLoader(make(5), batch_size=2))
    assert [b[0].shape for b in batches] == [(2, 2), (2, 2), (1, 2)]
    x, y = batches[0]
    assert isinstance(x, cr.Tensor) and x.dtype == cr.float32 and y.dtype == cr.int64
    assert labels(batches) == [[0, 1], [2, 3], [4]]
    assert labels(data.DataLoader(make(5), batch_size=2, drop_last=True)) == [[0, 1], [2, 3]]
    assert labels(data.DataLoader(make(3))) == [[0], [1], [2]]


@pytest.mark.parametrize("dataset", [make(), Own()], ids=["arrays", "own"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_shuffling_depends_on_seed_and_epoch_alone(dataset, workers):
    def run(seed, workers=workers):
        loader = data.DataLoader(
            dataset, batch_size=3, shuffle=True, seed=seed, num_workers=workers
        )
        return [labels(loader) for _ in range(3)]

    epochs = run(1)
    assert epochs == run(1, workers=0)
    assert all(sorted(i for b in e for i in b) == list(range(10)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and run(2) != epochs
    # The values belong to the labels.
    for x, y in data.DataLoader(dataset, batch_size=4, shuffle=True, num_workers=workers):
        expected = np.stack([dataset[i][0] for i in y.tolist()])
        np.testing.assert_array_equal(x.numpy(), expected)


def test_the_global_generators_are_left_alone():
    cr.random.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before, numpy_before = cr.random.get_state().copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    augmented = data.TensorDataset(np.ones((4, 1, 3, 3), np.float32), np.arange(4)).with_transform(
        transforms.GaussianNoise()
    )
    list(data.DataLoader(augmented, shuffle=True, num_workers=2))
    np.testing.assert_array_equal(cr.random.get_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_len_and_single_samples():
    assert len(data.DataLoader(make(10), batch_size=3)) == 4
    assert len(data.DataLoader(make(10), batch_size=3, drop_last=True)) == 3
    single = data.DataLoader(make(3), batch_size=None)
    assert len(single) == 3
    x, y = next(iter(single))
    assert isinstance(x, cr.Tensor) and x.shape == (2,) and int(y) == 0


def test_custom_collate_gets_samples_and_gives_what_it_likes():
    def collate(samples):
        return [label for _, label in samples]

    loader = data.DataLoader(make(5), batch_size=2, collate_fn=collate, num_workers=2)
    assert [list(map(int, b)) for b in loader] == [[0, 1], [2, 3], [4]]


def test_plain_lists_and_getitems():
    assert [b.tolist() for b in data.DataLoader([3, 4, 5], batch_size=2)] == [[3, 4], [5]]

    class Several:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            raise AssertionError("asked for one sample")

        def __getitems__(self, indices):
            return [i * 10 for i in indices]

    assert [b.tolist() for b in data.DataLoader(Several(), batch_size=3)] == [[0, 10, 20], [30]]


def test_samplers_and_batch_samplers():
    loader = data.DataLoader(make(), batch_size=2, sampler=[5, 1, 1])
    assert labels(loader) == [[5, 1], [1]] and len(loader) == 2
    loader = data.DataLoader(make(), batch_sampler=[[1, 2, 3], [9]])
    assert labels(loader) == [[1, 2, 3], [9]] and loader.batch_size is None
    lengths = np.arange(10)
    buckets = data.BucketBatchSampler(lengths, 3, seed=1)
    assert labels(data.DataLoader(make(), batch_sampler=buckets)) == list(
        data.BucketBatchSampler(lengths, 3, seed=1)
    )


def test_endless_sampler():
    loader = data.DataLoader(make(), batch_size=2, sampler=Endless(), num_workers=2)
    assert labels(itertools.islice(loader, 6))[-1] == [0, 1]


class Endless:
    def __iter__(self):
        return itertools.cycle(range(10))


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": [0], "shuffle": True},
        {"batch_sampler": [[0]], "batch_size": 2},
        {"batch_sampler": [[0]], "shuffle": True},
        {"batch_sampler": [[0]], "drop_last": True},
        {"batch_size": None, "drop_last": True},
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"num_workers": -1},
        {"num_workers": 1.5},
        {"prefetch_factor": 0},
        {"timeout": -1},
        {"seed": -1},
        {"seed": 1.5},
        {"generator": "x"},
        {"multiprocessing_context": "fork"},
    ],
)
def test_arguments_are_checked(options):
    with pytest.raises(ArgumentError):
        data.DataLoader(make(), **options)


def test_empty_data_and_no_data():
    empty = data.TensorDataset(np.zeros((0, 2)), name="nothing")
    with pytest.raises(DataError, match="'nothing' has no samples"):
        data.DataLoader(empty)
    with pytest.raises(ArgumentError, match="TensorDataset"):
        data.DataLoader(3)


def test_batch_larger_than_the_data():
    assert labels(data.DataLoader(make(3), batch_size=100)) == [[0, 1, 2]]
    with pytest.warns(ChainruleWarning, match="batch_size 100 is larger than the 3 samples"):
        loader = data.DataLoader(make(3), batch_size=100, drop_last=True)
    assert len(loader) == 0 and list(loader) == []


# --- resuming -------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 20),
    size=st.integers(1, 6),
    drop=st.booleans(),
    workers=st.sampled_from([0, 2]),
    stop=st.integers(0, 25),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=60)
def test_resume_at_any_batch(n, size, drop, workers, stop, seed):
    if drop and size > n:
        return

    def build():
        return data.DataLoader(make(n), size, True, drop_last=drop, num_workers=workers, seed=seed)

    whole = build()
    expected = [batch for _ in range(35) for batch in labels(whole)]
    loader, got = build(), []
    while len(got) < stop:
        for _, y in loader:
            got.append(y.tolist())
            if len(got) == stop:
                break
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = build()
    resumed.load_state_dict(state)
    while len(got) < stop + 7:
        got += labels(resumed)
    assert got == expected[: len(got)]


def test_state_counts_what_was_delivered_not_what_was_fetched():
    loader = data.DataLoader(make(20), 2, shuffle=True, num_workers=3, prefetch_factor=4)
    iterator = iter(loader)
    for delivered in range(4):
        state = loader.state_dict()
        assert (state["epoch"], state["batch"]) == (0, delivered) and loader.epoch == 0
        next(iterator)
    assert len(iterator) == 6
    list(iterator)
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (1, 0) and loader.epoch == 1


def test_after_the_last_batch_the_epoch_is_not_over_until_it_is_asked():
    loader = data.DataLoader(make(4), 2, shuffle=True)
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 2)
    resumed = data.DataLoader(make(4), 2, shuffle=True)
    resumed.load_state_dict(state)
    assert labels(resumed) == []
    list(iterator)
    assert labels(resumed) == labels(loader)


def test_seed_comes_back_with_the_state():
    loader = data.DataLoader(make(), 3, shuffle=True, generator=np.random.default_rng())
    first = next(iter(loader))
    resumed = data.DataLoader(make(), 3, shuffle=True)
    resumed.load_state_dict(loader.state_dict() | {"batch": 0})
    assert next(iter(resumed))[1].tolist() == first[1].tolist()


def test_set_epoch():
    loader, other = (data.DataLoader(make(), 3, shuffle=True) for _ in range(2))
    epochs = [labels(loader) for _ in range(4)]
    other.set_epoch(3)
    assert labels(other) == epochs[3]


def test_an_abandoned_epoch_is_followed_by_the_next():
    loader = data.DataLoader(make(), 3, shuffle=True)
    next(iter(loader))
    assert loader.state_dict()["batch"] == 1
    next(iter(loader))
    assert loader.state_dict()["epoch"] == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_the_samples_of_the_last_batch_are_known(workers):
    loader = data.DataLoader(make(), 3, shuffle=True, num_workers=workers)
    assert loader.last_indices is None
    for _, y in loader:
        assert loader.last_indices == y.tolist()


def test_two_iterators_do_not_disturb_each_other():
    loader = data.DataLoader(make(), 3, shuffle=True, num_workers=2)
    reference = data.DataLoader(make(), 3, shuffle=True)
    first, second = labels(reference), labels(reference)
    one, two = iter(loader), iter(loader)
    got = [(a[1].tolist(), b[1].tolist()) for a, b in zip(one, two, strict=True)]
    assert got == list(zip(first, second, strict=True))


def test_resume_refuses_another_loader():
    loader = data.DataLoader(make(), 3)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(CheckpointError, match="samples 10, and this DataLoader has samples 9"):
        data.DataLoader(make(9), 3).load_state_dict(state)
    with pytest.raises(CheckpointError, match="batch_size 3"):
        data.DataLoader(make(), 4).load_state_dict(state)
    for wrong in ({}, {"epoch": 0}, state | {"batch": -1}, state | {"seed": "x"}, None):
        with pytest.raises(CheckpointError):
            data.DataLoader(make(), 3).load_state_dict(wrong)
    # At the start of an epoch nothing is lost.
    data.DataLoader(make(9), 3).load_state_dict(state | {"batch": 0})


@pytest.mark.parametrize(
    "sampler",
    [
        lambda: data.WeightedRandomSampler(np.arange(10), 9, seed=4),
        lambda: data.RandomSampler(range(10), True, 9, seed=4),
        lambda: data.SubsetRandomSampler([1, 5, 6, 2, 3, 4, 9, 8, 7], seed=4),
    ],
)
def test_resume_with_samplers(sampler):
    def build():
        return data.DataLoader(make(), 2, sampler=sampler())

    whole = build()
    expected = labels(whole) + labels(whole)
    loader = build()
    got = labels(itertools.islice(loader, 2))
    resumed = build()
    resumed.load_state_dict(loader.state_dict())
    assert got + labels(resumed) + labels(resumed) == expected


def test_resume_with_bucket_batches():
    def build():
        sampler = data.BucketBatchSampler(np.arange(10), 2, bucket_size=4, seed=4)
        return data.DataLoader(make(), batch_sampler=sampler, num_workers=2)

    whole = build()
    expected = labels(whole) + labels(whole)
    loader = build()
    got = labels(itertools.islice(loader, 3))
    resumed = build()
    resumed.load_state_dict(loader.state_dict())
    assert got + labels(resumed) + labels(resumed) == expected


class Stateful:
    """A user's sampler that only its own state describes."""

    def __init__(self):
        self.calls = 0

    def __len__(self):
        return 10

    def __iter__(self):
        self.calls += 1
        return iter(np.random.default_rng(self.calls).permutation(10).tolist())

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def test_resume_with_a_users_stateful_sampler():
    whole = data.DataLoader(make(), 3, sampler=Stateful())
    expected = [labels(whole) for _ in range(3)]
    loader = data.DataLoader(make(), 3, sampler=Stateful())
    assert labels(loader) == expected[0]
    got = labels(itertools.islice(loader, 2))
    resumed = data.DataLoader(make(), 3, sampler=Stateful())
    resumed.load_state_dict(loader.state_dict())
    assert got + labels(resumed) == expected[1]
    assert labels(resumed) == expected[2]


# --- threads --------------------------------------------------------------------------------------


def test_threads_keep_the_order_when_samples_take_different_times():
    loader = data.DataLoader(Own(30, delay=0.002), 2, num_workers=4)
    assert labels(loader) == [[i, i + 1] for i in range(0, 30, 2)]


class Faulty(Own):
    def __getitem__(self, index):
        if index == 5:
            raise KeyError("sample five is broken")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_exceptions_arrive_with_their_traceback(workers):
    loader = data.DataLoader(Faulty(), 2, num_workers=workers)
    iterator = iter(loader)
    assert [next(iterator)[1].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(KeyError, match="sample five") as caught:
        next(iterator)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert (frames[-1].name, frames[-1].filename) == ("__getitem__", __file__)
    # What failed is not counted: a run that is resumed meets the same batch again.
    assert loader.state_dict()["batch"] == 2 and loader.state_dict()["epoch"] == 0
    assert list(iterator) == [] and loader.state_dict()["batch"] == 2
    del caught
    wait_for_no_threads()


def test_stop_iteration_in_a_data_set_is_an_error():
    class Stops(Own):
        def __getitem__(self, index):
            raise StopIteration

    for workers in (0, 1):
        with pytest.raises(DataError, match="StopIteration"):
            list(data.DataLoader(Stops(), num_workers=workers))


def test_exceptions_of_samplers_arrive():
    def broken():
        yield 0
        raise OSError("sampler")

    class Broken:
        def __iter__(self):
            return broken()

        def __len__(self):
            return 2

    for workers in (0, 2):
        with pytest.raises(OSError, match="sampler"):
            list(data.DataLoader(make(), 1, sampler=Broken(), num_workers=workers))


def test_threads_end_with_the_iterator():
    wait_for_no_threads()
    loader = data.DataLoader(Own(50), 2, num_workers=3)
    iterator = iter(loader)
    next(iterator)
    assert 1 <= len(loader_threads()) <= 3
    del iterator
    gc.collect()
    wait_for_no_threads()
    for _ in loader:  # an epoch to its end, and one that is broken off
        pass
    for _ in loader:
        break
    gc.collect()
    wait_for_no_threads()


def test_prefetching_is_bounded():
    asked = []

    class Asked(Own):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    iterator = iter(data.DataLoader(Asked(50), 1, num_workers=2, prefetch_factor=3))
    next(iterator)
    for _ in range(100):
        if len(asked) == 6:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert sorted(asked) == list(range(6))


def test_timeout():
    loader = data.DataLoader(Own(3, delay=0.5), 3, num_workers=1, timeout=0.05)
    with pytest.raises(DataError, match=r"timeout=0\.05"):
        list(loader)


def test_worker_init():
    seen = []
    loader = data.DataLoader(Own(8, delay=0.005), 1, num_workers=2, worker_init_fn=seen.append)
    list(loader)
    assert sorted(seen) == [0, 1]
