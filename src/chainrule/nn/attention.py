"""Attention layers."""

from __future__ import annotations

import math
from typing import Any

from chainrule import array as xp
from chainrule.array._core import as_float, as_tensor
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.nn import functional, init
from chainrule.nn.linear import Linear, empty_parameter
from chainrule.nn.module import Module

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """concat(head_1, ..., head_h) W_O, where head_i is the attention of Q W_i, K W_i' and V W_i''.

    Each head has features of its own, embed_dim / num_heads of them, and attends by itself:
    softmax(q k^T / sqrt(embed_dim / num_heads)) v.

    Arguments:
        embed_dim: the features of queries and of the result; a multiple of num_heads.
        num_heads: the number of heads.
        dropout: the probability of dropout on the weights, in training.
        bias: whether the projections have biases.
        add_bias_kv: append a learned key and value to those given.
        add_zero_attn: append a key and a value of zeros.
        kdim, vdim: the features of keys and of values; embed_dim if None.
        batch_first: inputs and outputs are (N, length, features) instead of (length, N, features).

    Parameters: `in_proj_weight` (3 embed_dim, embed_dim), the rows for queries, keys and values, or
    if kdim or vdim differ `q_proj_weight` (embed_dim, embed_dim), `k_proj_weight` (embed_dim, kdim)
    and `v_proj_weight` (embed_dim, vdim), initially Glorot's; `in_proj_bias` (3 embed_dim,),
    initially 0; `bias_k` and `bias_v` (1, 1, embed_dim), initially Glorot's; and `out_proj`, an
    `nn.Linear` whose bias is initially 0.

    Shapes: query (L, N, embed_dim), key (S, N, kdim), value (S, N, vdim), or all without N. Returns
    the result, in the shape of the query, and the weights. Vaswani et al. (2017).
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ArgumentError(
                "embed_dim is a multiple of num_heads, and both are at least 1; got "
                f"embed_dim={embed_dim} and num_heads={num_heads}."
            )
        functional.dropout(0.0, dropout, training=False)  # which checks the probability
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        joint = self.kdim == self.vdim == embed_dim
        shapes: dict[str, tuple[int, ...] | None] = {
            "q_proj_weight": None if joint else (embed_dim, embed_dim),
            "k_proj_weight": None if joint else (embed_dim, self.kdim),
            "v_proj_weight": None if joint else (embed_dim, self.vdim),
            "in_proj_weight": (3 * embed_dim, embed_dim) if joint else None,
            "in_proj_bias": (3 * embed_dim,) if bias else None,
            "bias_k": (1, 1, embed_dim) if add_bias_kv else None,
            "bias_v": (1, 1, embed_dim) if add_bias_kv else None,
        }
        for name, shape in shapes.items():
            parameter = None if shape is None else empty_parameter(shape, dtype, device)
            self.register_parameter(name, parameter)
        self.out_proj = Linear(embed_dim, embed_dim, bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if (weight := getattr(self, name)) is not None:
                init.xavier_uniform_(weight)
        self.out_proj.reset_parameters()
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self, query: Any, key: Any, value: Any, key_padding_mask: Any = None,
        need_weights: bool = True, attn_mask: Any = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Any, Any]:  # fmt: skip
        """The result and, if asked for, the weights.

        Arguments:
            key_padding_mask: (N, S), or (S,) without N. Bool: True where a key is padding and not
                to be looked at; floating-point: added to the scores.
            need_weights: return the weights too; without them long sequences take less memory.
            attn_mask: (L, S) or (N num_heads, L, S). Bool: True where a query may not look at a
                key; floating-point: added to the scores.
            average_attn_weights: return the mean of the heads' weights (N, L, S), instead of
                (N, num_heads, L, S).
            is_causal: attn_mask is the causal one, given too.
        """
        q, k, v = as_float(query), as_float(key), as_float(value)
        alone = q.ndim == 2
        self._check(q, k, v, is_causal, attn_mask)
        same_kv = key is value
        same_qk = query is key
        if alone:
            q, k, v = q[None], k[None], v[None]
        elif not self.batch_first:
            q, k, v = (xp.swapaxes(x, 0, 1) for x in (q, k, v))
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = self._mask(q, k, key_padding_mask, None if causal else attn_mask, alone)
        q, k, v = self._projected(q, k, v, same_qk and same_kv, same_kv)
        k, v, mask = self._extended(k, v, mask)
        q, k, v = (self._heads(x) for x in (q, k, v))
        if self.add_zero_attn:
            zeros = xp.zeros((*k.shape[:2], 1, k.shape[3]), dtype=k.dtype)
            k, v = xp.concat([k, zeros], axis=2), xp.concat([v, zeros], axis=2)
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q / math.sqrt(self.head_dim)) @ k.mT
            weights = functional.softmax(scores if mask is None else scores + mask, -1)
            weights = functional.dropout(weights, p)
            y = weights @ v
            weights = xp.mean(weights, axis=1) if average_attn_weights else weights
        else:
            y = functional.scaled_dot_product_attention(q, k, v, mask, p, causal)
        y = xp.swapaxes(y, 1, 2)
        y = self.out_proj(xp.reshape(y, (*y.shape[:2], self.embed_dim)))
        if alone:
            return y[0], None if weights is None else weights[0]
        return y if self.batch_first else xp.swapaxes(y, 0, 1), weights

    def _projected(self, q: Any, k: Any, v: Any, all_same: bool, same_kv: bool) -> Any:
        """Q W_q, K W_k and V W_v; one product for those that are of the same input."""
        n, b = self.embed_dim, self.in_proj_bias
        biases = (None,) * 3 if b is None else (b[:n], b[n : 2 * n], b[2 * n :])
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        else:
            w = self.in_proj_weight
            if all_same:
                return xp.split(functional.linear(q, w, b), 3, axis=-1)
            if same_kv:
                both = functional.linear(k, w[n:], None if b is None else b[n:])
                return functional.linear(q, w[:n], biases[0]), *xp.split(both, 2, axis=-1)
            weights = (w[:n], w[n : 2 * n], w[2 * n :])
        pairs = zip((q, k, v), weights, biases, strict=True)
        return tuple(functional.linear(x, w, b) for x, w, b in pairs)

    def _heads(self, x: Any) -> Any:
        """(N, length, embed_dim) as (N, num_heads, length, head_dim)."""
        split = xp.reshape(x, (*x.shape[:2], self.num_heads, self.head_dim))
        return xp.swapaxes(split, 1, 2)

    def _extended(self, k: Any, v: Any, mask: Any) -> tuple[Any, Any, Any]:
        """Keys and values with the learned ones behind them, and a mask that shows those to all."""
        more = (self.bias_k is not None) + self.add_zero_attn
        if self.bias_k is not None:
            shape = (k.shape[0], 1, self.embed_dim)
            k = xp.concat([k, xp.broadcast_to(self.bias_k, shape)], axis=1)
            v = xp.concat([v, xp.broadcast_to(self.bias_v, shape)], axis=1)
        if mask is not None and more:
            mask = xp.pad(mask, ((0, 0),) * (mask.ndim - 1) + ((0, more),), value=0.0)
        return k, v, mask

    # --- arguments --------------------------------------------------------------------------------

    def _mask(self, q: Any, k: Any, padding: Any, attn_mask: Any, alone: bool) -> Any:
        """Both masks in one, to be added to the scores (N, num_heads, L, S)."""
        n, rows, columns = q.shape[0], q.shape[1], k.shape[1]
        mask = None
        if attn_mask is not None:
            mask = _added("attn_mask", attn_mask, q.dtype)
            if mask.shape not in ((rows, columns), (n * self.num_heads, rows, columns)):
                raise ShapeError(
                    f"attn_mask must have shape {(rows, columns)} or "
                    f"{(n * self.num_heads, rows, columns)}, got {mask.shape}."
                )
            if mask.ndim == 3:
                mask = xp.reshape(mask, (n, self.num_heads, rows, columns))
        if padding is not None:
            padding = _added("key_padding_mask", padding, q.dtype)
            expected = (columns,) if alone else (n, columns)
            if padding.shape != expected:
                raise ShapeError(
                    f"key_padding_mask must have shape {expected}, got {padding.shape}."
                )
            padding = xp.reshape(padding, (n, 1, 1, columns))
            mask = padding if mask is None else mask + padding
        return mask

    def _check(self, q: Any, k: Any, v: Any, is_causal: bool, attn_mask: Any) -> None:
        shapes = f"query {q.shape}, key {k.shape} and value {v.shape}"
        if q.ndim not in (2, 3) or k.ndim != q.ndim or v.ndim != q.ndim:
            axes = "(N, length, features)" if self.batch_first else "(length, N, features)"
            raise ShapeError(
                f"MultiheadAttention takes {axes} or, for one sequence, (length, features), the "
                f"same of all three; got {shapes}."
            )
        features = (q.shape[-1], k.shape[-1], v.shape[-1])
        if features != (self.embed_dim, self.kdim, self.vdim):
            raise ShapeError(
                f"MultiheadAttention takes queries, keys and values of {self.embed_dim}, "
                f"{self.kdim} and {self.vdim} features; got {shapes}."
            )
        batch = 0 if self.batch_first else 1
        if k.shape[:-1] != v.shape[:-1] or (q.ndim == 3 and q.shape[batch] != k.shape[batch]):
            raise ShapeError(
                f"MultiheadAttention needs a value for each key, and as many sequences of keys as "
                f"of queries; got {shapes}."
            )
        if is_causal and attn_mask is None:
            raise ArgumentError(
                "is_causal=True says that attn_mask is the causal mask, which must be given too: "
                "attn_mask=cr.triu(cr.ones((L, S), dtype=cr.bool), k=1)."
            )


def _added(name: str, given: Any, dtype: Any) -> Any:
    """A mask as numbers to be added to the scores."""
    mask = as_tensor(given)
    if mask.dtype.kind == "b":
        return xp.where(mask, xp.asarray(-math.inf, dtype=dtype), xp.asarray(0.0, dtype=dtype))
    if mask.dtype.kind != "f":
        raise DTypeError(f"{name} must be bool or floating-point, got {mask.dtype.name}.")
    return xp.astype(mask, dtype, copy=False)
