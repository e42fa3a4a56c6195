"""From a list of samples to one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.errors import DataError, ShapeError

_PYTHON_DTYPES = {bool: np.bool_, int: np.int64, float: np.float64, complex: np.complex128}


def is_tensor(value: Any) -> bool:
    """Whether `value` is one of chainrule's tensors."""
    from chainrule.tensor import Tensor

    return isinstance(value, Tensor)


def to_numpy(value: Any) -> np.ndarray:
    """An array or tensor as a NumPy array, without a copy where none is needed."""
    if isinstance(value, np.ndarray):
        return value
    return np.asarray(value.detach()) if is_tensor(value) else np.asarray(value)


def stack(samples: Sequence[Any], *, where: str = "sample") -> Any:
    """Stack samples into one batch of NumPy arrays, keeping their structure.

    Arrays, tensors and numbers are stacked along a new first axis (Python numbers become int64,
    float64, bool or complex128); tuples, named tuples, lists and mappings are stacked entry by
    entry; strings and bytes stay a list.

    Raises:
        ShapeError: if arrays differ in shape, or lists in length: names the two samples.
        DataError: for a kind of value that cannot be stacked.
    """
    if not samples:
        raise DataError("cannot make a batch of no samples: the list is empty.")
    first = samples[0]
    if isinstance(first, (str, bytes)):
        return list(samples)
    if isinstance(first, np.ndarray) or is_tensor(first):
        return _stack_arrays([to_numpy(sample) for sample in samples], where)
    if isinstance(first, np.generic):
        return _checked(np.asarray(samples), first, where)
    for kind, dtype in _PYTHON_DTYPES.items():
        if isinstance(first, kind):
            return _stack_numbers(samples, dtype, where)
    if isinstance(first, Mapping):
        return _stack_mappings(samples, where)
    if isinstance(first, (tuple, list)):
        return _stack_sequences(samples, where)
    raise DataError(
        f"cannot stack {where}s of type {type(first).__name__}: expected arrays, tensors, numbers, "
        "strings, or tuples, lists and dictionaries of them. Give the DataLoader a collate_fn that "
        "makes a batch of these."
    )


def _checked(array: np.ndarray, first: Any, where: str) -> np.ndarray:
    if array.dtype == object:
        raise DataError(f"cannot stack {where}s of type {type(first).__name__} with other types.")
    return array


def _stack_arrays(arrays: list[np.ndarray], where: str) -> Any:
    shape = arrays[0].shape
    for number, array in enumerate(arrays):
        if array.shape != shape:
            raise ShapeError(
                f"cannot stack {where}s of different shapes into one batch: number 0 has shape "
                f"{shape}, number {number} has shape {array.shape}. Bring them to one shape with a "
                "transform (Resize, CenterCrop, Pad), or give the DataLoader a collate_fn such as "
                "data.PadCollate()."
            )
    if arrays[0].dtype.kind in "USO":
        raise DataError(
            f"cannot stack {where}s of dtype {arrays[0].dtype}: expected numbers. Give the "
            "DataLoader a collate_fn that makes a batch of these."
        )
    return np.stack(arrays)


def _stack_numbers(samples: Sequence[Any], dtype: Any, where: str) -> np.ndarray:
    kinds = {np.asarray(sample).dtype for sample in samples if np.isscalar(sample)}
    if not all(np.isscalar(s) for s in samples) or any(k.kind not in "biufc" for k in kinds):
        raise DataError(
            f"cannot stack {where}s: number 0 is {samples[0]!r}, but not all others are numbers."
        )
    # A list of ints that goes on with a float is a list of floats.
    return np.asarray(samples, np.result_type(dtype, *kinds))


def _stack_mappings(samples: Sequence[Mapping[Any, Any]], where: str) -> dict[Any, Any]:
    keys = list(samples[0])
    for number, sample in enumerate(samples):
        if not isinstance(sample, Mapping) or set(sample) != set(keys):
            found = list(sample) if isinstance(sample, Mapping) else type(sample).__name__
            raise DataError(
                f"cannot stack {where}s: number 0 has the keys {keys}, number {number} has {found}."
            )
    return {key: stack([sample[key] for sample in samples], where=f"{key!r}") for key in keys}


def _stack_sequences(samples: Sequence[Sequence[Any]], where: str) -> Any:
    first = samples[0]
    for number, sample in enumerate(samples):
        if not isinstance(sample, (tuple, list)) or len(sample) != len(first):
            length = len(sample) if isinstance(sample, (tuple, list)) else "no"
            raise ShapeError(
                f"cannot stack {where}s: each must have the same number of entries, but number 0 "
                f"has {len(first)} and number {number} has {length}. For sequences of different "
                "lengths give the DataLoader collate_fn=data.PadCollate()."
            )
    columns = [stack(list(column), where="entry") for column in zip(*samples, strict=True)]
    return _like(first, columns)


def _like(sample: Any, entries: list[Any]) -> Any:
    """The entries in a container like the sample: list, tuple or named tuple."""
    if hasattr(sample, "_fields"):
        return type(sample)(*entries)
    return list(entries) if isinstance(sample, list) else tuple(entries)


def map_arrays(function: Callable[[np.ndarray], Any], batch: Any) -> Any:
    """Apply a function to each array of a nested batch, keeping its structure."""
    if isinstance(batch, (np.ndarray, np.generic)):
        return function(np.asarray(batch))
    if isinstance(batch, Mapping):
        return {key: map_arrays(function, value) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return _like(batch, [map_arrays(function, entry) for entry in batch])
    return batch


def default_convert(data: Any) -> Any:
    """Turn each NumPy array of a nested structure into a tensor; leave everything else as it is."""
    from chainrule import array

    def convert(values: np.ndarray) -> Any:
        return array.asarray(values) if values.dtype.kind in "biufc" else values

    return map_arrays(convert, data)


def default_collate(batch: Sequence[Any]) -> Any:
    """Stack a list of samples into one batch of tensors, as PyTorch's function of this name does.

    Arrays, tensors and numbers get a new first axis (Python ints become int64, Python floats
    float64); tuples, named tuples, lists and dictionaries are collated entry by entry (a tuple
    stays a tuple); strings stay a list.

    >>> default_collate([(0.0, "a"), (1.0, "b")])[1]
    ['a', 'b']
    """
    return default_convert(stack(batch))


class PadCollate:
    """Collate sequences of different lengths: pad each to the longest of its batch.

    A sample is a sequence `x` of shape (T, ...), or a tuple that begins with one. The batch is a
    tuple `(padded (N, T_max, ...), lengths (N,) int64, *the other entries collated)`.

    Arguments:
        padding_value: what fills the places after a sequence's end.
    """

    def __init__(self, padding_value: float = 0.0):
        self.padding_value = padding_value

    def __call__(self, samples: Sequence[Any]) -> tuple[Any, ...]:
        if not samples:
            raise DataError("cannot make a batch of no samples: the list is empty.")
        tuples = [s if isinstance(s, tuple) else (s,) for s in samples]
        sequences = [to_numpy(entries[0]) for entries in tuples]
        tail = sequences[0].shape[1:]
        for number, sequence in enumerate(sequences):
            if sequence.ndim < 1 or sequence.shape[1:] != tail:
                raise ShapeError(
                    "sequences may differ in their first axis only, but number 0 has shape "
                    f"{sequences[0].shape} and number {number} has shape {sequence.shape}."
                )
        lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        dtype = np.result_type(*sequences)
        padded = np.full((len(sequences), int(lengths.max()), *tail), self.padding_value, dtype)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = sequence
        rest = stack([entries[1:] for entries in tuples]) if len(tuples[0]) > 1 else ()
        return default_convert((padded, lengths, *rest))

    def __repr__(self) -> str:
        return f"PadCollate(padding_value={self.padding_value})"
