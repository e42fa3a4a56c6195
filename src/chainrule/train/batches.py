"""What a loader hands out, as the trainer takes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

import chainrule as cr
from chainrule.data import DataLoader, Dataset, Subset
from chainrule.errors import ArgumentError, DataError


def check_loader(loader: Any, what: str) -> None:
    """Refuse what would be gone through sample by sample, or not at all."""
    if isinstance(loader, Dataset):
        raise ArgumentError(
            f"{what} takes batches, but got a data set, which gives single samples; wrap it: "
            "data.DataLoader(dataset, batch_size=32)."
        )
    if not hasattr(loader, "__iter__") or isinstance(loader, cr.Tensor | np.ndarray | str):
        raise ArgumentError(
            f"{what} takes a loader of batches (inputs, targets), but got {_kind(loader)}; wrap "
            "arrays: data.DataLoader(data.TensorDataset(inputs, targets), batch_size=32)."
        )


def pair(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets of a batch.

    Raises:
        DataError: if it is something else than a pair.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    length = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
    raise DataError(
        f"the trainer expects batches (inputs, targets), but got {_kind(batch)}{length}; give the "
        "DataLoader a data set of such pairs, or a collate_fn that makes them."
    )


def input_batches(inputs: Any, batch_size: int) -> Iterator[Any]:
    """The inputs in an array, a data set or a loader, batch by batch, without targets."""
    if isinstance(inputs, list | tuple):
        inputs = cr.asarray(inputs)
    if isinstance(inputs, cr.Tensor | np.ndarray):
        tensor = cr.asarray(inputs)
        for start in range(0, len(tensor), batch_size):
            yield tensor[start : start + batch_size]
        return
    if isinstance(inputs, Dataset):
        inputs = DataLoader(inputs, batch_size=batch_size)
    check_loader(inputs, "predict")
    for batch in inputs:
        yield batch[0] if isinstance(batch, tuple | list) else batch


def numbers(x: Any) -> np.ndarray[Any, Any]:
    """The numbers behind a tensor or array, graph or not."""
    return x.detach().numpy() if isinstance(x, cr.Tensor) else np.asarray(x)


def sample_count(inputs: Any, targets: Any) -> int:
    """The number of samples in a batch, whose inputs may be several tensors."""
    return len(inputs if isinstance(inputs, cr.Tensor | np.ndarray) else targets)


def sample_place(loader: Any, row: int) -> str:
    """How to find the sample in row `row` of the batch that a loader gave last."""
    where = f"row {row} of the batch"
    indices = getattr(loader, "last_indices", None)
    if indices is None or not np.ndim(indices):
        return where
    index, dataset = int(indices[row]), cast(Any, loader.dataset)
    while hasattr(dataset, "dataset"):
        if isinstance(dataset, Subset):
            index = int(dataset.indices[index])
        dataset = dataset.dataset
    name = getattr(dataset, "name", "")
    return f"{where}, sample {index} of " + (repr(name) if name else "the data set")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "a NumPy array"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
