"""Data sets made from other data sets: parts, chains, and transformed ones."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.data.collate import map_arrays, stack, to_numpy
from chainrule.data.dataset import Dataset, fetch, resolve_indices
from chainrule.data.draws import check_seed, draws_for, selecting
from chainrule.data.transforms.base import as_transform
from chainrule.errors import ArgumentError, ShapeError


class _Derived(Dataset):
    """A data set made from another one, `dataset`, whose name, classes and task it keeps."""

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self.name = getattr(dataset, "name", "")
        self.classes = getattr(dataset, "classes", None)
        self.task = getattr(dataset, "task", None)
        self.feature_names = getattr(dataset, "feature_names", None)

    @property
    def batched(self) -> bool:
        return bool(getattr(self.dataset, "batched", False))


class Subset(_Derived):
    """The samples of `dataset` at `indices`, in that order.

    Raises:
        IndexingError: if an index is outside the data set.
    """

    def __init__(self, dataset: Any, indices: Any):
        super().__init__(dataset)
        if isinstance(indices, range):
            indices = np.arange(indices.start, indices.stop, indices.step)
        indices = indices if isinstance(indices, (np.ndarray, list, tuple)) else list(indices)
        name = self.name or "the data set"
        self.indices = np.atleast_1d(resolve_indices(indices, len(dataset), name))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        at = resolve_indices(index, len(self), "the subset")
        if isinstance(at, int):
            return self.dataset[int(self.indices[at])]
        return self.batch(at)

    def batch(self, indices: np.ndarray) -> Any:
        return fetch(self.dataset, self.indices[indices])

    @property
    def shape(self) -> tuple[int, ...]:
        return self.dataset.shape if isinstance(self.dataset, Dataset) else super().shape

    @property
    def labels(self) -> np.ndarray:
        if isinstance(self.dataset, Dataset) and self.batched:
            return self.dataset.labels[self.indices]
        return super().labels


class ConcatDataset(Dataset):
    """Several data sets, one after the other."""

    def __init__(self, datasets: Sequence[Any]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise ArgumentError("ConcatDataset needs at least one data set, but the list is empty.")
        self.cumulative_sizes = np.cumsum([len(d) for d in self.datasets]).tolist()
        for attribute in ("name", "classes", "task"):
            values = [getattr(d, attribute, None) for d in self.datasets]
            if all(value == values[0] for value in values) and values[0] is not None:
                setattr(self, attribute, values[0])

    @property
    def batched(self) -> bool:
        return all(getattr(d, "batched", False) for d in self.datasets)

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: Any) -> Any:
        at = resolve_indices(index, len(self), "the data set")
        if not isinstance(at, int):
            return self.batch(at)
        part = bisect.bisect_right(self.cumulative_sizes, at)
        return self.datasets[part][at - self._start(part)]

    def _start(self, part: int) -> int:
        return self.cumulative_sizes[part - 1] if part else 0

    def batch(self, indices: np.ndarray) -> Any:
        if not self.batched:
            return super().batch(indices)
        parts = np.searchsorted(self.cumulative_sizes, indices, side="right")
        pieces, positions = [], []
        for part in np.unique(parts).tolist():
            chosen = np.flatnonzero(parts == part)
            with selecting(chosen):
                pieces.append(fetch(self.datasets[part], indices[chosen] - self._start(part)))
            positions.append(chosen)
        order = np.argsort(np.concatenate(positions), kind="stable")
        return _join(pieces, order)

    @property
    def labels(self) -> np.ndarray:
        if all(isinstance(d, Dataset) for d in self.datasets):
            return np.concatenate([d.labels for d in self.datasets])
        return super().labels


def _join(pieces: list[Any], order: np.ndarray) -> Any:
    """Concatenate batches of one structure, entry by entry, and put the samples in order."""
    first = pieces[0]
    if isinstance(first, dict):
        return {key: _join([piece[key] for piece in pieces], order) for key in first}
    if isinstance(first, tuple):
        return tuple(_join(list(column), order) for column in zip(*pieces, strict=True))
    if isinstance(first, list):
        together = [entry for piece in pieces for entry in piece]
        return [together[i] for i in order]
    shapes = {piece.shape[1:] for piece in pieces}
    if len(shapes) > 1:
        raise ShapeError(
            "the concatenated data sets have samples of different shapes, "
            f"{', '.join(map(str, sorted(shapes)))}, which cannot be in one batch."
        )
    return np.concatenate(pieces)[order]


class TransformedDataset(_Derived):
    """A data set seen through a transform; made by `Dataset.with_transform`."""

    def __init__(
        self,
        dataset: Any,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        seed: int = 0,
    ):
        super().__init__(dataset)
        self.transform = None if transform is None else as_transform(transform)
        self.target_transform = target_transform
        # Of two transforms, one over the other, each draws its own numbers.
        below = dataset
        while isinstance(below, _Derived) and not isinstance(below, TransformedDataset):
            below = below.dataset
        level = below.level + 1 if isinstance(below, TransformedDataset) else 0
        self.seed, self.level = check_seed(seed), level

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        at = resolve_indices(index, len(self), "the data set")
        if not isinstance(at, int):
            return self.batch(at)
        sample = self.dataset[at]
        return self._apply(sample, np.array([at]), single=True)

    def batch(self, indices: np.ndarray) -> Any:
        if not self.batched:
            return super().batch(indices)
        return self._apply(fetch(self.dataset, indices), indices, single=False)

    def _apply(self, sample: Any, indices: np.ndarray, *, single: bool) -> Any:
        """Transform a sample, or a batch of samples with a first axis more."""
        entries = list(sample) if isinstance(sample, (tuple, list)) else [sample]
        if self.transform is not None:
            draws = draws_for(self.seed, self.level, indices)
            first = to_numpy(entries[0])
            if single:
                entries[0] = self.transform.batch(first[None], draws)[0]
            else:
                entries[0] = self.transform.batch(first, draws)
        if self.target_transform is not None and len(entries) > 1:
            function = self.target_transform
            if single:
                entries[-1] = function(entries[-1])
            else:
                entries[-1] = map_arrays(lambda a: stack([function(v) for v in a]), entries[-1])
        return tuple(entries) if isinstance(sample, (tuple, list)) else entries[0]

    @property
    def labels(self) -> np.ndarray:
        if self.target_transform is None and isinstance(self.dataset, Dataset):
            return self.dataset.labels
        return super().labels
