"""Sequences of different lengths in one tensor: padded to the longest, or packed without padding.

Packed, the sequences lie sorted by falling length, and time runs first: all first elements, then
the second elements of those that have one, and so on. `batch_sizes` says how many are left at each
step; three sequences aaa, bb, c are the data abcaba with the batch sizes 3, 2, 1.

`chainrule.nn.utils.rnn` is the public place of all this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chainrule import array as xp
from chainrule.array._core import as_tensor, is_known
from chainrule.errors import (
    ArgumentError,
    ArgumentTypeError,
    ShapeError,
    TraceError,
    users_line,
)
from chainrule.nn.functional._checks import lengths as as_lengths

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence",
    "pad_packed_sequence", "pad_sequence", "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class _Fields(NamedTuple):
    data: Any
    batch_sizes: Any
    sorted_indices: Any
    unsorted_indices: Any


class PackedSequence(_Fields):
    """Sequences without padding; made by `pack_padded_sequence` or `pack_sequence`.

    Attributes:
        data: the elements, (sum of lengths, ...), step by step.
        batch_sizes: the number of sequences that reach each step, int64.
        sorted_indices: the order of falling length, as indices of the original sequences; None if
            they were sorted.
        unsorted_indices: the way back to the original order.
    """

    __slots__ = ()

    def __new__(
        cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None,
        unsorted_indices: Any = None,
    ) -> PackedSequence:  # fmt: skip
        if batch_sizes is None:
            if not isinstance(data, tuple | list) or len(data) != 2:
                raise ArgumentTypeError(
                    "PackedSequence takes data and batch_sizes; make one of padded sequences with "
                    "nn.utils.rnn.pack_padded_sequence."
                )
            data, batch_sizes = data
        if unsorted_indices is None and sorted_indices is not None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with its data in another dtype."""
        return self._replace(data=self.data.to(*args, **kwargs))

    def _static(self) -> int | None:
        """For a compiled function, which compiles for it: how many sequences there are, where
        that is a number and no shape."""
        if self.sorted_indices is not None or not is_known(self.batch_sizes):
            return None
        return sequences_in(self)

    def _with_static(self, count: int) -> PackedSequence:
        """The same, which knows how many sequences there are."""
        made: Any = _Counted(*self)
        made.sequences = count
        return made

    def float(self) -> PackedSequence:
        """The same with float32 data."""
        return self.to(np.float32)

    def double(self) -> PackedSequence:
        """The same with float64 data."""
        return self.to(np.float64)


class _Counted(PackedSequence):
    """Sorted sequences in a compiled function, where `batch_sizes` is not known."""

    sequences: int
    _plain = PackedSequence

    def _replace(self, **changes: Any) -> PackedSequence:  # pyright: ignore
        return super()._replace(**changes)._with_static(self.sequences)


def invert_permutation(permutation: Any) -> Any:
    """The permutation that undoes this one; None for None."""
    return None if permutation is None else xp.argsort(as_tensor(permutation))


def _time_first(x: Any, batch_first: bool) -> Any:
    return xp.swapaxes(x, 0, 1) if batch_first else x


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack padded sequences.

    Arguments:
        input: (T, N, ...), or (N, T, ...) if `batch_first`, padded behind each sequence's end.
        lengths: the N lengths, each at least 1.
        enforce_sorted: the sequences are sorted by falling length, and others are refused; if
            False they are sorted here, and put back in order by whoever unpacks them.
    """
    x = _time_first(as_tensor(input), batch_first)
    sizes = as_lengths("pack_padded_sequence", "lengths", lengths)
    if x.ndim < 2:
        raise ShapeError(f"pack_padded_sequence takes (T, N, ...), got shape {x.shape}.")
    if sizes.shape != (x.shape[1],):
        raise ShapeError(
            f"pack_padded_sequence got lengths of shape {sizes.shape} for {x.shape[1]} sequences "
            f"(an input of shape {as_tensor(input).shape}, batch_first={batch_first})."
        )
    if sizes.size and sizes.min() < 1:
        raise ArgumentError(f"every length must be at least 1, got {sizes.tolist()}.")
    if sizes.size and sizes.max() > x.shape[0]:
        raise ArgumentError(f"the longest length is {sizes.max()}, the input has {x.shape[0]}.")
    order = None
    if not enforce_sorted:
        order = np.argsort(-sizes, kind="stable")
        sizes = sizes[order]
    elif np.any(np.diff(sizes) > 0):
        raise ArgumentError(
            f"the lengths {sizes.tolist()} do not fall; sort the sequences, or pass "
            "enforce_sorted=False to have them sorted."
        )
    longest = int(sizes.max()) if sizes.size else 0
    reach = sizes[None, :] > np.arange(longest)[:, None]
    columns = np.arange(sizes.size) if order is None else order
    rows = (np.arange(longest)[:, None] * x.shape[1] + columns[None, :])[reach]
    data = xp.take(xp.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:])), as_tensor(rows), axis=0)
    batch_sizes = xp.asarray(reach.sum(axis=1))
    return PackedSequence(data, batch_sizes, None if order is None else xp.asarray(order))


def places(batch_sizes: Any, n: int) -> tuple[Any, Any]:
    """(T, n) positions in packed data of each step of each sequence, and whether it is there."""
    sizes = as_tensor(batch_sizes)
    column = xp.arange(n)
    there = column < sizes[:, None]
    first = xp.cumulative_sum(sizes) - sizes
    return xp.where(there, first[:, None] + column, 0), there


def padded(data: Any, batch_sizes: Any, n: int) -> tuple[Any, Any]:
    """Packed data as (T, n, ...), anything in the place of the padding, and the mask (T, n)."""
    index, there = places(batch_sizes, n)
    return xp.take(data, xp.reshape(index, (index.size,)), axis=0).reshape(
        (*index.shape, *data.shape[1:])
    ), there


def packed(x: Any, batch_sizes: Any, length: int) -> Any:
    """The `length` elements of (T, n, ...) that are no padding, in packed order."""
    sizes = as_tensor(batch_sizes)
    ends = xp.cumulative_sum(sizes)
    row = xp.arange(length)
    step = xp.searchsorted(ends, row, side="right")
    column = row - xp.take(ends - sizes, step, axis=0)
    flat = xp.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
    return xp.take(flat, step * x.shape[1] + column, axis=0)


def sequences_in(sequence: PackedSequence) -> int:
    """How many sequences are packed: all of them reach the first step."""
    if sequence.sorted_indices is not None:
        return sequence.sorted_indices.shape[0]
    if not sequence.batch_sizes.shape[0]:
        return 0
    if isinstance(sequence, _Counted):
        return sequence.sequences
    if not is_known(sequence.batch_sizes):
        error = TraceError(
            "how many sequences are packed stands in batch_sizes[0] alone, which is not known "
            "while a function is compiled; pack them with enforce_sorted=False, and their order "
            "says it too."
        )
        error.line = users_line()
        raise error
    return int(sequence.batch_sizes[0])


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Padded sequences (T, N, ...), or (N, T, ...) if `batch_first`, and their lengths.

    Arguments:
        padding_value: what stands behind each sequence's end.
        total_length: pad to this T instead of the longest length.
    """
    n = sequences_in(sequence)
    x, there = padded(sequence.data, sequence.batch_sizes, n)
    mask = xp.reshape(there, (*there.shape, *(1,) * (x.ndim - 2)))
    x = xp.where(mask, x, padding_value)
    lengths = xp.sum(xp.astype(there, np.int64), axis=0)
    if total_length is not None:
        if total_length < x.shape[0]:
            raise ArgumentError(
                f"total_length is {total_length}, and the longest sequence has {x.shape[0]} "
                "elements."
            )
        widths = ((0, total_length - x.shape[0]), *((0, 0),) * (x.ndim - 1))
        x = xp.pad(x, widths, value=padding_value)
    if sequence.unsorted_indices is not None:
        x = xp.take(x, sequence.unsorted_indices, axis=1)
        lengths = xp.take(lengths, sequence.unsorted_indices, axis=0)
    return _time_first(x, batch_first), lengths


def pad_sequence(
    sequences: Sequence[Any], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Sequences (length, ...) in one tensor (T, N, ...), or (N, T, ...) if `batch_first`.

    Arguments:
        padding_value: what fills up the shorter ones.
        padding_side: "right", behind them, or "left", in front.
    """
    if padding_side not in ("left", "right"):
        raise ArgumentError(f"padding_side is 'left' or 'right', got {padding_side!r}.")
    xs = [as_tensor(x) for x in sequences]
    if not xs:
        raise ArgumentError("pad_sequence needs at least one sequence.")
    for x in xs:
        if x.ndim == 0 or x.shape[1:] != xs[0].shape[1:]:
            raise ShapeError(
                f"pad_sequence takes sequences (length, ...) that are equal but for their lengths, "
                f"got {xs[0].shape} and {x.shape}."
            )
    longest = max(x.shape[0] for x in xs)
    filled = []
    for x in xs:
        gap = longest - x.shape[0]
        side = (gap, 0) if padding_side == "left" else (0, gap)
        filled.append(xp.pad(x, (side, *((0, 0),) * (x.ndim - 1)), value=padding_value))
    return xp.stack(filled, axis=0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Any, lengths: Any, batch_first: bool = False
) -> list[Tensor]:  # fmt: skip
    """The sequences that `pad_sequence` padded on the right, as a list."""
    x = as_tensor(padded_sequences)
    x = x if batch_first else xp.swapaxes(x, 0, 1)
    sizes = as_lengths("unpad_sequence", "lengths", lengths)
    return [x[i, : int(n)] for i, n in enumerate(sizes)]


def pack_sequence(sequences: Sequence[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (length, ...); see `pack_padded_sequence`."""
    lengths = xp.asarray([as_tensor(x).shape[0] for x in sequences])
    return pack_padded_sequence(
        pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted
    )  # fmt: skip


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences that were packed, as a list in their original order."""
    x, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(x, lengths, batch_first=True)
