"""Data sets: a length, samples by index, and batches by many indices at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from chainrule.data.collate import stack, to_numpy
from chainrule.data.draws import one_by_one
from chainrule.errors import ArgumentError, DataError, IndexingError, ShapeError

if TYPE_CHECKING:
    from chainrule.data.derived import ConcatDataset, Subset, TransformedDataset


Sample = TypeVar("Sample")


class Dataset(Generic[Sample]):
    """A set of samples. Subclasses define `__len__` and `__getitem__`, as in PyTorch.

    A sample is usually a tuple `(input, label)` of NumPy arrays or numbers; anything that
    `default_collate` takes will do.

    Attributes:
        name: what the data set is called in messages and logs.
        classes: the names of the classes, in the order of the labels; None for a regression.
        task: "classification", "regression" or None where it is not known.
        feature_names: what the entries of an input vector are, or None.
        shape: the shape of one input.
        labels: the last entry of every sample, as one array.
        batched: whether `batch` indexes arrays, rather than calling `__getitem__` for each sample.
    """

    name: str = ""
    classes: list[str] | None = None
    task: str | None = None
    feature_names: list[str] | None = None

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__.")

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__.")

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    @property
    def batched(self) -> bool:
        return False

    def batch(self, indices: np.ndarray) -> Any:
        """The samples at `indices` (n,) stacked into one batch of NumPy arrays.

        This is what a `DataLoader` calls. Override it where many samples can be had at once.
        """
        return stack(fetch_samples(self, indices))

    @property
    def shape(self) -> tuple[int, ...]:
        if len(self) == 0:
            raise DataError(f"{self!r} is empty, so its inputs have no shape.")
        sample = self[0]
        return np.shape(to_numpy(sample[0] if isinstance(sample, (tuple, list)) else sample))

    @property
    def labels(self) -> np.ndarray:
        return np.array([to_numpy(sample[-1]) for sample in self])

    def split(
        self, test: float | int = 0.2, seed: int = 0, stratify: bool | None = None
    ) -> tuple[Subset, Subset]:
        """Split into `(train, test)`; the same arguments always give the same split.

        Arguments:
            test: the share of the test set, between 0 and 1, or its number of samples.
            seed: which split.
            stratify: give each class its share of the test set. None: do so for a classification.

        See `split_indices` for the counts.
        """
        from chainrule.data.derived import Subset
        from chainrule.data.splits import split_indices

        if stratify is None:
            stratify = self.task == "classification"
        labels = self.labels if stratify else None
        train_indices, test_indices = split_indices(len(self), test, seed, labels)
        return Subset(self, train_indices), Subset(self, test_indices)

    def with_transform(
        self,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        seed: int = 0,
    ) -> TransformedDataset:
        """The same samples, with `transform` applied to the input and `target_transform` to the
        rest.

        Transforms of `data.transforms` work on whole batches; any other function is called with one
        sample's input at a time, as in PyTorch.
        """
        from chainrule.data.derived import TransformedDataset

        return TransformedDataset(self, transform, target_transform, seed=seed)

    def __add__(self, other: Any) -> ConcatDataset:
        from chainrule.data.derived import ConcatDataset

        return ConcatDataset([self, other])

    def __repr__(self) -> str:
        parts = [f"{len(self):,} samples"]
        if len(self):
            parts.append(f"inputs {self.shape}")
        if self.classes is not None:
            parts.append(f"{len(self.classes)} classes")
        name = f"{self.name!r}, " if self.name else ""
        return f"{type(self).__name__}({name}{', '.join(parts)})"


def fetch_samples(dataset: Any, indices: np.ndarray) -> list[Any]:
    """The samples at `indices`, one by one, or through PyTorch's `__getitems__` if it is there."""
    several = getattr(dataset, "__getitems__", None)
    if callable(several):
        return list(several(indices.tolist()))  # type: ignore[arg-type]
    return [dataset[i] for i in one_by_one(indices.tolist())]


def fetch(dataset: Any, indices: np.ndarray) -> Any:
    """One batch of NumPy arrays from any object with `__getitem__`, ours or not."""
    batch = getattr(dataset, "batch", None)
    return batch(indices) if callable(batch) else stack(fetch_samples(dataset, indices))


def resolve_indices(index: Any, n: int, name: str) -> np.ndarray | int:
    """A number, slice, list, array or boolean mask as an index or indices from 0 to n - 1.

    Raises:
        IndexingError: for an index outside the data set, naming it, or of another kind.
    """
    if isinstance(index, slice):
        return np.arange(*index.indices(n))
    indices = to_numpy(index)
    if indices.dtype == np.bool_ and indices.shape == (n,):
        return np.flatnonzero(indices)
    if indices.ndim > 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise IndexingError(
            f"{name} is indexed by a whole number, a slice, or a list or array of whole numbers, "
            f"but got {index!r}."
        )
    indices = indices.astype(np.int64)
    outside = (indices < -n) | (indices >= n)
    if outside.any():
        raise IndexingError(
            f"index {np.atleast_1d(indices)[np.atleast_1d(outside)][0]} is outside {name}, which "
            f"has {n} samples (0 to {n - 1})."
        )
    indices = np.where(indices < 0, indices + n, indices)
    return indices if indices.ndim else int(indices)


class TensorDataset(Dataset):
    """Samples along the first axis of arrays: `dataset[i] == (arrays[0][i], arrays[1][i], ...)`.

    Arguments:
        tensors: NumPy arrays, tensors or lists that have the same length.
        name, classes, task: see `Dataset`. The task is guessed if it is None: classification where
            the last of several arrays is one-dimensional and holds integers.
    """

    def __init__(
        self,
        *tensors: Any,
        name: str = "",
        classes: Sequence[str] | None = None,
        task: str | None = None,
    ):
        if not tensors:
            raise ArgumentError("TensorDataset needs at least one array, but got none.")
        self.tensors = tuple(t if hasattr(t, "shape") else np.asarray(t) for t in tensors)
        shapes = [tuple(t.shape) for t in self.tensors]
        if any(not shape or shape[0] != shapes[0][0] for shape in shapes):
            raise ShapeError(
                "size mismatch between arrays: all arrays of a TensorDataset must have the same "
                f"length along the first axis, but their shapes are {', '.join(map(str, shapes))}."
            )
        self._arrays = tuple(to_numpy(t) for t in self.tensors)
        self.name = name
        self.classes = None if classes is None else [str(c) for c in classes]
        last = self._arrays[-1]
        if task is None and len(tensors) > 1 and last.ndim == 1 and last.dtype.kind in "iu":
            task = "classification"
        self.task = task

    @property
    def batched(self) -> bool:
        return True

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        at = resolve_indices(index, len(self), "the data set")
        if isinstance(at, int):
            return tuple(t[at] for t in self.tensors)
        return self.batch(at)

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(a[indices] for a in self._arrays)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors[0].shape[1:])

    @property
    def labels(self) -> np.ndarray:
        return self._arrays[-1]


class ImageDataset(Dataset):
    """Images kept as bytes and handed out as float32 in [0, 1]: a quarter of the memory.

    Arguments:
        images: uint8 array (N, C, H, W).
        labels: whole numbers (N,).
        flatten: hand out each image as a vector of C H W numbers.
        name, classes: see `Dataset`.

    `dataset[i]` is `(image (C, H, W) float32, label int64)`; `images / 255`, as torchvision's
    ToTensor.
    """

    task = "classification"

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        name: str = "",
        classes: Sequence[str] | None = None,
        flatten: bool = False,
    ):
        self.images, self._labels = np.asarray(images), np.asarray(labels, np.int64)
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ShapeError(
                "images must be uint8 of shape (N, C, H, W), but are "
                f"{self.images.dtype} of shape {self.images.shape}."
            )
        if self._labels.shape != self.images.shape[:1]:
            raise ShapeError(
                f"{len(self.images)} images need as many labels, but the labels have shape "
                f"{self._labels.shape}."
            )
        self.name, self.flatten = name, flatten
        self.classes = None if classes is None else [str(c) for c in classes]
        if self.classes is not None:
            check_labels(self._labels, len(self.classes), name or "the data set")

    @property
    def batched(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, Any]:
        at = resolve_indices(index, len(self), "the data set")
        if isinstance(at, int):
            return self._floats(self.images[at]).reshape(self.shape), self._labels[at]
        return self.batch(at)

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = self._floats(self.images[indices])
        return images.reshape(len(images), *self.shape), self._labels[indices]

    @staticmethod
    def _floats(images: np.ndarray) -> np.ndarray:
        return np.divide(images, np.float32(255), dtype=np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.images.shape[1:]
        return (int(np.prod(shape)),) if self.flatten else tuple(shape)

    @property
    def labels(self) -> np.ndarray:
        return self._labels


def check_labels(labels: Any, classes: int, name: str = "labels") -> None:
    """Check that labels are whole numbers from 0 to `classes` - 1.

    Raises:
        DataError: names the first label that is not, and where it stands.
    """
    values = to_numpy(labels)
    if values.dtype.kind not in "iu":
        raise DataError(
            f"the labels of {name} must be whole numbers, one for each class, but have dtype "
            f"{values.dtype}."
        )
    wrong = np.flatnonzero((values.reshape(-1) < 0) | (values.reshape(-1) >= classes))
    if len(wrong):
        raise DataError(
            f"label {values.reshape(-1)[wrong[0]]} of sample {wrong[0]} in {name} is out of range: "
            f"with {classes} classes labels go from 0 to {classes - 1}"
            + (f" ({len(wrong)} labels are outside)." if len(wrong) > 1 else ".")
        )
