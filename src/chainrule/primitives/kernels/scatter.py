"""Scatter-add: sum rows that share an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def scatter_add(shape: Sequence[int], flat_index: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """Zeros of ``shape`` with ``updates[i]`` added at row ``flat_index[i]``, for every i.

    flat_index: (n,) int64 in 0 .. shape[0] - 1. updates: (n, *shape[1:]). Repeated indices add up
    in the order of i, so the result is the same on every run.
    """
    shape = tuple(shape)
    out = np.zeros(shape, updates.dtype)
    if updates.size == 0:
        return out
    if out.size == shape[0] and updates.dtype.kind == "f":
        total = np.bincount(flat_index, updates.reshape(-1), minlength=shape[0])
        return total.astype(updates.dtype).reshape(shape)
    order = np.argsort(flat_index, kind="stable")
    ordered = flat_index[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    out[ordered[starts]] = np.add.reduceat(updates[order], starts, axis=0)
    return out
