"""The loader: batches of tensors, in an order that is a function of seed and epoch."""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.data.collate import default_convert, stack
from chainrule.data.dataset import fetch, fetch_samples
from chainrule.data.draws import Draws, check_seed, fetching, seed_from
from chainrule.data.samplers import (
    BatchSampler,
    RandomSampler,
    Resumable,
    SequentialSampler,
    check_count,
)
from chainrule.errors import (
    ArgumentError,
    ChainruleWarning,
    CheckpointError,
    DataError,
)


@dataclass(frozen=True)
class _Task:
    """One batch to be fetched: its number in the epoch and its samples."""

    number: int
    indices: Any  # a list of sample indices; one index where there are no batches
    repeats: np.ndarray | None


@dataclass(frozen=True)
class _Fetcher:
    """Fetches the batches of one epoch. Holds no reference to the loader or to an iterator."""

    dataset: Any
    collate_fn: Callable[[Any], Any] | None
    batch_transform: Any
    batched: bool
    seed: int
    epoch: int

    def __call__(self, task: _Task) -> Any:
        try:
            with fetching(self.seed, self.epoch, task.repeats):
                batch = self._transformed(self._samples(task), task)
        except StopIteration as error:
            raise DataError(
                "the data set raised StopIteration while a sample was fetched, which would have "
                "ended the epoch early; raise IndexError or another error there."
            ) from error
        return default_convert(batch) if self.collate_fn is None else batch

    def _transformed(self, batch: Any, task: _Task) -> Any:
        if self.batch_transform is None:
            return batch
        if hasattr(self.batch_transform, "batch"):
            # The numbers belong to the batch's place in the epoch, not to a sample.
            return self.batch_transform.batch(batch, Draws(self.seed, self.epoch, [task.number]))
        return self.batch_transform(batch)

    def _samples(self, task: _Task) -> Any:
        if not self.batched:
            (sample,) = fetch_samples(self.dataset, np.array([task.indices]))
            return sample if self.collate_fn is None else self.collate_fn(sample)
        indices = np.asarray(task.indices, np.int64)
        if self.collate_fn is not None:
            return self.collate_fn(fetch_samples(self.dataset, indices))
        if hasattr(self.dataset, "__getitems__"):
            return stack(fetch_samples(self.dataset, indices))
        return fetch(self.dataset, indices)


@dataclass
class _Cursor:
    """Where an iterator stands: its epoch, how many batches it gave, and the last one's samples."""

    epoch: int
    delivered: int = 0
    sampler_state: Any = None
    finished: bool = False
    indices: Any = None


class DataLoader:
    """Batches of a data set, as tuples of tensors.

    The order of an epoch depends only on the seed and the number of the epoch, whatever the number
    of threads; each `iter` goes through the next epoch. `state_dict` in the middle of an epoch,
    given to `load_state_dict` of an equal loader, continues with the very next batch.

    Arguments:
        dataset: anything with `__len__` and `__getitem__`. One with a method `batch(indices)`, as
            all of ours have, is asked for whole batches.
        batch_size: samples in a batch; None hands out single samples without a batch axis.
        shuffle: visit the samples in a new random order in each epoch.
        sampler: gives the order, in place of `shuffle`: any iterable of indices.
        batch_sampler: gives lists of indices, in place of `batch_size`, `shuffle`, `sampler` and
            `drop_last`.
        num_workers: threads that fetch batches ahead; 0 fetches each when it is asked for.
        collate_fn: makes a batch of a list of samples; `default_collate` if None.
        pin_memory, persistent_workers: taken for PyTorch's sake; without meaning for threads on a
            CPU.
        drop_last: leave out a last batch that is not full.
        timeout: seconds to wait for a batch from the threads; 0 waits for ever.
        worker_init_fn: called with its number in each thread before it begins.
        generator: where the seed comes from: a `cr.random.Generator` or `numpy.random.Generator`,
            from which one number is drawn now, or a whole number.
        prefetch_factor: batches that are fetched ahead, for each thread.
        seed: the seed, if there is no generator.
        batch_transform: applied to each batch before its arrays become tensors, for what mixes
            samples: `transforms.Mixup`, or any function from batch to batch.

    A last batch may be smaller. If `batch_size` is larger than the data set, there is one smaller
    batch; with `drop_last` there is then none, and a ChainruleWarning says so.

    Raises:
        DataError: if the data set is empty.
        ArgumentError: for arguments that exclude each other.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: None = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        seed: int = 0,
        batch_transform: Any = None,
    ):
        self.dataset, self.collate_fn, self.batch_transform = dataset, collate_fn, batch_transform
        self.num_workers = _check_workers(num_workers, multiprocessing_context)
        self.prefetch_factor = check_count(
            "prefetch_factor", 2 if prefetch_factor is None else prefetch_factor
        )
        if timeout < 0:
            raise ArgumentError(f"timeout must not be negative, but got {timeout!r}.")
        self.timeout, self.worker_init_fn = timeout, worker_init_fn
        self.pin_memory, self.persistent_workers = pin_memory, persistent_workers
        self.seed = seed_from(generator, seed)
        self._check_length()
        _check_combination(batch_size, shuffle, sampler, batch_sampler, drop_last)
        if batch_sampler is not None:
            batch_size = None
        self._shuffles = sampler is None and bool(shuffle)
        if self._shuffles:
            sampler = RandomSampler(dataset, seed=self.seed)
        self.sampler = SequentialSampler(dataset) if sampler is None else sampler
        if batch_sampler is None and batch_size is not None:
            batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)
        self.batch_size, self.drop_last, self.batch_sampler = batch_size, drop_last, batch_sampler
        self._next, self._skip, self._cursor = 0, 0, None
        self._warn_if_no_batch()

    def _check_length(self) -> None:
        if not hasattr(self.dataset, "__getitem__") or not hasattr(self.dataset, "__len__"):
            raise ArgumentError(
                "a DataLoader needs a data set with __len__ and __getitem__, but got "
                f"{type(self.dataset).__name__}; wrap arrays in data.TensorDataset(inputs, labels)."
            )
        if len(self.dataset) == 0:
            raise DataError(
                "the data set "
                f"{getattr(self.dataset, 'name', '') or type(self.dataset).__name__!r} has no "
                "samples, so there is nothing to load."
            )

    def _warn_if_no_batch(self) -> None:
        if self.drop_last and hasattr(self.sampler, "__len__") and len(self) == 0:
            warnings.warn(
                f"this DataLoader gives no batch at all: batch_size {self.batch_size} is larger "
                f"than the {len(self.sampler)} samples, and drop_last leaves the only batch out. "
                "Use a smaller batch_size or drop_last=False.",
                ChainruleWarning,
                stacklevel=3,
            )

    @property
    def _source(self) -> Any:
        """What is iterated: lists of indices, or single indices where there are no batches."""
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    @property
    def _stateful(self) -> Any:
        """The user's own sampler, if only its `state_dict` can say which order comes next."""
        source = self._source
        inner = source.sampler if isinstance(source, BatchSampler) else source
        knows_epochs = isinstance(inner, Resumable) or hasattr(inner, "set_epoch")
        return inner if hasattr(inner, "state_dict") and not knows_epochs else None

    def __len__(self) -> int:
        return len(self._source)

    @property
    def epoch(self) -> int:
        """The epoch that is being gone through, or the next one where none is."""
        cursor = self._cursor
        return self._next if cursor is None or cursor.finished else cursor.epoch

    @property
    def last_indices(self) -> Any:
        """Which samples are in the batch that was given last; None before the first."""
        return None if self._cursor is None else self._cursor.indices

    def set_epoch(self, epoch: int) -> None:
        """Let the next `iter` go through `epoch`, from its beginning."""
        self._next, self._skip, self._cursor = int(epoch), 0, None

    def __iter__(self) -> Iterator[Any]:
        cursor = _Cursor(self._next, self._skip)
        source = self._source
        if self._stateful is not None:
            cursor.sampler_state = self._stateful.state_dict()
        if hasattr(source, "set_epoch"):
            source.set_epoch(cursor.epoch)
        tasks = itertools.islice(self._tasks(iter(source)), cursor.delivered, None)
        fetcher = _Fetcher(
            self.dataset, self.collate_fn, self.batch_transform,
            self.batch_sampler is not None, self.seed, cursor.epoch,
        )  # fmt: skip
        iterator = _Batches(self, tasks, fetcher, cursor)
        self._cursor, self._next, self._skip = cursor, cursor.epoch + 1, 0
        return iterator

    def _tasks(self, source: Iterator[Any]) -> Iterator[_Task]:
        """Number the batches, and count for each sample how often it came before."""
        counts: dict[int, int] | None = {} if getattr(self._source, "repeats", True) else None
        for number, indices in enumerate(source):
            repeats = None
            if counts is not None:
                seen = []
                for index in [indices] if self.batch_sampler is None else indices:
                    seen.append(counts.get(index, 0))
                    counts[index] = seen[-1] + 1
                repeats = np.array(seen) if any(seen) else None
            yield _Task(number, indices, repeats)

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer stands, as plain numbers.

        `epoch` and `batch` count what the consumer was given, not what threads have fetched ahead:
        after k batches of epoch e it is (e, k), after the end of the epoch (e + 1, 0). The rest
        serves to recognise a loader that would go on differently.
        """
        cursor = self._cursor or _Cursor(self._next, self._skip)
        done = cursor.finished
        state: dict[str, Any] = {
            "epoch": cursor.epoch + 1 if done else cursor.epoch,
            "batch": 0 if done else cursor.delivered,
            "seed": self.seed,
            "samples": len(self.dataset),
            "batch_size": self.batch_size,
        }
        if self._stateful is not None:
            begun = cursor.sampler_state is not None and not done
            state["sampler"] = cursor.sampler_state if begun else self._stateful.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next `iter` continue where `state` was taken, in the middle of an epoch too.

        Raises:
            CheckpointError: if this loader has another number of samples or another size of
                batches, so that the rest of the epoch could not be the same.
        """
        try:
            epoch, batch, seed = int(state["epoch"]), int(state["batch"]), check_seed(state["seed"])
            if epoch < 0 or batch < 0:
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                "the state of a DataLoader has an epoch, a batch and a seed, none of them "
                f"negative, but got {state!r}."
            ) from error
        for key, mine in (("samples", len(self.dataset)), ("batch_size", self.batch_size)):
            if batch and state.get(key, mine) != mine:
                raise CheckpointError(
                    f"cannot continue after batch {batch} of epoch {epoch}: the state was taken "
                    f"with {key} {state[key]}, and this DataLoader has {key} {mine}. Resume with "
                    "the same data and batch size, or begin at an epoch's start with set_epoch()."
                )
        self.set_epoch(epoch)
        self._skip, self.seed = batch, seed
        if self._shuffles and isinstance(self.sampler, RandomSampler):
            self.sampler.seed = seed
        if "sampler" in state and self._stateful is not None:
            self._stateful.load_state_dict(state["sampler"])


def _check_combination(
    batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    """Raise for arguments that exclude each other."""
    own = batch_sampler is not None
    if own and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ArgumentError(
            "batch_sampler decides everything itself: it cannot be combined with batch_size, "
            "shuffle, sampler or drop_last."
        )
    if batch_size is None and drop_last:
        raise ArgumentError("batch_size=None hands out single samples: drop_last has no meaning.")
    if sampler is not None and shuffle:
        raise ArgumentError("a sampler gives the order: it cannot be combined with shuffle=True.")


def _check_workers(num_workers: int, context: None) -> int:
    if context is not None:
        raise ArgumentError(
            "multiprocessing_context must be None: the workers of a DataLoader are threads."
        )
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        raise ArgumentError(
            f"num_workers must be a whole number that is not negative, but got {num_workers!r}."
        )
    return num_workers


@dataclass
class _Batches:
    """The iterator of one epoch. Fetches ahead in threads, hands out in order.

    The threads hold the fetcher and the queue of tasks, never this object, so that dropping it ends
    them: `__del__` cancels what is waiting, and each thread ends after the batch at hand.
    """

    loader: DataLoader
    tasks: Iterator[_Task]
    fetcher: _Fetcher
    cursor: _Cursor
    pool: ThreadPoolExecutor | None = None
    failed: bool = False
    ahead: deque[tuple[_Task, Future[Any]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        loader = self.loader
        if loader.num_workers:
            numbers, initialise = itertools.count(), loader.worker_init_fn
            self.pool = ThreadPoolExecutor(
                loader.num_workers,
                "chainrule-loader",
                None if initialise is None else lambda: initialise(next(numbers)),
            )

    def __iter__(self) -> _Batches:
        return self

    def __len__(self) -> int:
        return len(self.loader) - self.cursor.delivered

    def __next__(self) -> Any:
        if self.cursor.finished or self.failed:
            raise StopIteration
        try:
            batch = self._fetch() if self.pool is None else self._wait()
        except StopIteration:
            self.cursor.finished = True
            self.close()
            raise
        except BaseException:
            self.failed = True
            self.close()
            raise
        self.cursor.delivered += 1
        return batch

    def _fetch(self) -> Any:
        task = next(self.tasks)
        batch = self.fetcher(task)
        self.cursor.indices = task.indices
        return batch

    def _wait(self) -> Any:
        assert self.pool is not None
        limit = self.loader.num_workers * self.loader.prefetch_factor
        for task in itertools.islice(self.tasks, limit - len(self.ahead)):
            self.ahead.append((task, self.pool.submit(self.fetcher, task)))
        if not self.ahead:
            raise StopIteration
        task, future = self.ahead.popleft()
        self.cursor.indices = task.indices
        try:
            # The exception of a thread is raised here with the thread's own traceback.
            return future.result(self.loader.timeout or None)
        except TimeoutError:
            if future.done():
                raise
            raise DataError(
                f"no batch came from the loader's threads within timeout={self.loader.timeout} "
                "seconds."
            ) from None

    def close(self) -> None:
        """Let the threads end, and forget what they have fetched ahead."""
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
        self.ahead.clear()

    def __del__(self) -> None:
        self.close()
