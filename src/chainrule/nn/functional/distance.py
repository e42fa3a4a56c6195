"""Lengths, distances and angles between vectors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule.array._core import as_float
from chainrule.errors import ArgumentError, ShapeError
from chainrule.graph import make

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["cosine_similarity", "normalize", "pairwise_distance", "pdist"]


def p_norm(x: Any, p: float, dim: int, keepdim: bool = False) -> Tensor:
    """(sum |x_i|^p)^(1/p) along `dim`; p = 0 counts elements, p = inf takes the largest.

    Where the norm has a corner (at x = 0, and for p <= 1 at each x_i = 0) the derivative is 0;
    largest elements that tie share it.
    """
    size = xp.abs(x)
    if p == math.inf:
        return xp.max(size, axis=dim, keepdims=keepdim)
    if p == -math.inf:
        return xp.min(size, axis=dim, keepdims=keepdim)
    if p == 0:
        return xp.sum(xp.astype(size != 0, x.dtype), axis=dim, keepdims=keepdim)
    if p == 1:
        return xp.sum(size, axis=dim, keepdims=keepdim)
    if p < 0:
        return xp.sum(size**p, axis=dim, keepdims=keepdim) ** (1 / p)
    if p == 2:
        total = xp.sum(x * x, axis=dim, keepdims=keepdim)
    else:
        # 0^p has no derivative for p < 1: such elements are left out of the power and of the sum.
        there = size != 0
        total = xp.sum(
            xp.where(there, xp.where(there, size, 1) ** p, 0), axis=dim, keepdims=keepdim
        )
    positive = total > 0
    root = xp.where(positive, total, 1)
    root = xp.sqrt(root) if p == 2 else root ** (1 / p)
    return xp.where(positive, root, total)


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(|x|_p, eps) along `dim`: vectors of length 1, and 0 for 0."""
    x = as_float(input)
    return x / xp.clip(p_norm(x, p, dim, keepdim=True), eps)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `dim`; shapes broadcast."""
    x, y = xp.broadcast_arrays(as_float(x1), as_float(x2))
    return xp.sum(normalize(x, 2, dim, eps) * normalize(y, 2, dim, eps), axis=dim)


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """|x1 - x2 + eps|_p over the last axis, row by row.

    Shapes: (N, D) or (D) both, broadcast; result (N) or (), with `keepdim` (N, 1) or (1). eps keeps
    the derivative of the root away from 0.
    """
    return p_norm(as_float(x1) - as_float(x2) + eps, p, -1, keepdim)


def pdist(input: Any, p: float = 2.0) -> Tensor:
    """|x_i - x_j|_p for all rows i < j, in the order (0, 1), (0, 2), ..., (1, 2), ...

    Shapes: (N, D) to (N (N - 1) / 2,).
    """
    x = as_float(input)
    if x.ndim != 2:
        raise ShapeError(f"pdist takes a matrix (N, D), got shape {x.shape}.")
    if p < 0:
        raise ArgumentError(f"pdist needs p >= 0, got {p}.")
    first, second = np.triu_indices(x.shape[0], k=1)
    return p_norm(xp.take(x, make(first), axis=0) - xp.take(x, make(second), axis=0), p, -1)
