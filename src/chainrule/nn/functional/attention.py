"""Attention: averages of values, weighted by how well keys match queries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule.array._core import as_float, as_tensor
from chainrule.compiler.control import apply_segments
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.nn.functional.dropout import check_probability, dropout
from chainrule.nn.functional.softmax import softmax

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]

# From this many scores for a head on, queries go in blocks, and the scores are never all there.
WHOLE = 512 * 512
BLOCK = 128


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(Q K^T / sqrt(E)) V: for each query the mean of the values, weighted by the keys.

    Arguments:
        query: Q, (..., H, L, E).
        key: K, (..., H, S, E).
        value: V, (..., H, S, Ev).
        attn_mask: broadcasts with (..., H, L, S). Bool: which keys a query may look at; a query
            that may look at none gives 0. Floating-point: added to the scores.
        dropout_p: the probability of dropout on the weights; applied whenever it is not 0, so pass
            0 in evaluation.
        is_causal: query i looks at keys 0 to i alone. Not together with attn_mask.
        scale: in the place of 1 / sqrt(E).
        enable_gqa: K and V have fewer heads than Q, each for a group of Q's (grouped queries).

    Shapes: leading axes broadcast; returns (..., H, L, Ev).

    For long sequences the queries go through in blocks of 128, in a loop whose derivative computes
    the scores again: memory grows with L + S, and not with L S. Vaswani et al. (2017); the blocks
    are an idea of Rabe and Staats (2021).
    """
    q, k, v = as_float(query), as_float(key), as_float(value)
    check_probability(dropout_p)
    _check(q, k, v, enable_gqa)
    if enable_gqa:
        k, v = (xp.repeat(x, q.shape[-3] // x.shape[-3], axis=-3) for x in (k, v))
    mask = _checked_mask(attn_mask, q, k, is_causal)
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    length, keys = q.shape[-2], k.shape[-2]

    def attend(q: Any, mask: Any, row: Any) -> Any:
        if is_causal:
            mask = xp.arange(keys) <= row[:, None]
        scores = (q @ k.mT) * factor
        weights = _weights(scores, mask, sure=is_causal)
        return dropout(weights, dropout_p) @ v

    row = xp.arange(length) if is_causal else None
    if length * keys <= WHOLE:
        return attend(q, mask, row)
    by_row = mask is not None and mask.ndim > 1 and mask.shape[-2] != 1
    pieces = {"q": (q, -2), "mask": (mask if by_row else None, -2), "row": (row, 0)}
    return apply_segments(
        lambda x: attend(x["q"], x["mask"] if by_row else mask, x["row"]), pieces, BLOCK, -2
    )


def _weights(scores: Any, mask: Any, sure: bool) -> Any:
    """The softmax of the scores that the mask leaves; `sure`: there is one in every row."""
    if mask is None:
        return softmax(scores, -1)
    scores = xp.where(mask, scores, -math.inf) if mask.dtype.kind == "b" else scores + mask
    if sure or scores.shape[-1] == 0:
        return softmax(scores, -1)
    # A row without any key has a largest score of -infinity and a sum of 0; its weights are 0.
    top = xp.max(scores.detach(), axis=-1, keepdims=True)
    powers = xp.exp(scores - xp.where(top == -math.inf, 0.0, top))
    total = xp.sum(powers, axis=-1, keepdims=True)
    return powers / xp.where(total == 0, 1.0, total)


def _check(q: Any, k: Any, v: Any, grouped: bool) -> None:
    shapes = f"query {q.shape}, key {k.shape} and value {v.shape}"
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise ShapeError(f"attention takes (..., length, features), got {shapes}.")
    if q.shape[-1] != k.shape[-1]:
        raise ShapeError(f"attention compares queries with keys of equal length, got {shapes}.")
    if k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"attention needs a value for each key, got {shapes}.")
    if not q.dtype == k.dtype == v.dtype:
        names = f"{q.dtype.name}, {k.dtype.name} and {v.dtype.name}"
        raise DTypeError(f"attention got a query, key and value of {names}; cast them to one.")
    if grouped and (
        min(q.ndim, k.ndim, v.ndim) < 3
        or any(not n or q.shape[-3] % n for n in (k.shape[-3], v.shape[-3]))
    ):
        raise ShapeError(
            "with enable_gqa the query's heads (third axis from the end) must be a multiple of the "
            f"key's and the value's, got {shapes}."
        )


def _checked_mask(attn_mask: Any, q: Any, k: Any, is_causal: bool) -> Any:
    if attn_mask is None:
        return None
    if is_causal:
        raise ArgumentError(
            "attention takes an attn_mask or is_causal=True, not both; combine them in the mask."
        )
    mask = as_tensor(attn_mask)
    if mask.dtype.kind != "b" and mask.dtype != q.dtype:
        raise DTypeError(
            f"attn_mask must be bool, or {q.dtype.name} as the query is, got {mask.dtype.name}."
        )
    wanted = (q.shape[-2], k.shape[-2])
    given = (1, 1, *mask.shape)[-2:]
    if any(m not in (1, n) for m, n in zip(given, wanted, strict=True)):
        raise ShapeError(
            f"attn_mask must broadcast with (..., {wanted[0]}, {wanted[1]}), (queries, keys), got "
            f"{mask.shape}."
        )
    return mask
