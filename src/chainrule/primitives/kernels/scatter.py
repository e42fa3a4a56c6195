"""Scatter-add: sum the rows that share an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NARROW = 32  # rows of fewer elements are summed one element at a time


def scatter_add(shape: Sequence[int], flat_index: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """Zeros of ``shape`` with ``updates[i]`` added at row ``flat_index[i]``, for every i.

    flat_index: (n,) int64, each from 0 to shape[0] - 1. updates: (n, *shape[1:]). Narrow
    floating-point rows are summed in float64. The order of additions follows from the indices
    alone, so that the result is the same on every run.
    """
    shape = tuple(shape)
    if updates.size == 0:
        return np.zeros(shape, updates.dtype)
    width = updates.size // len(updates)
    if updates.dtype.kind == "f" and width < NARROW:
        return _by_element(shape, width, flat_index, updates)
    return _by_row(shape, flat_index, updates)


def _by_element(
    shape: tuple[int, ...], width: int, index: np.ndarray, updates: np.ndarray
) -> np.ndarray:
    if width > 1:
        index = (index[:, None] * width + np.arange(width)).reshape(-1)
    total = np.bincount(index, updates.reshape(-1), minlength=shape[0] * width)
    return total.astype(updates.dtype, copy=False).reshape(shape)


def _by_row(shape: tuple[int, ...], index: np.ndarray, updates: np.ndarray) -> np.ndarray:
    out = np.zeros(shape, updates.dtype)
    order = np.argsort(index, kind="stable")
    rows, starts, counts = np.unique(index[order], return_index=True, return_counts=True)
    # Rows met once are copied: reduceat costs as much for a segment as for hundreds of elements.
    once = counts == 1
    out[rows[once]] = updates[order[starts[once]]]
    order, counts = order[np.repeat(~once, counts)], counts[~once]
    if counts.size:
        starts = np.cumsum(counts) - counts
        out[rows[~once]] = np.add.reduceat(updates[order], starts, axis=0, dtype=updates.dtype)
    return out
