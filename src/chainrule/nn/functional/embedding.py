"""Embeddings: rows of a table looked up by index, alone or summed up in bags."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule.array._core import as_float, as_tensor, concrete, is_known
from chainrule.array.indexing import take
from chainrule.autograd.modes import no_grad
from chainrule.errors import (
    ArgumentError,
    GradError,
    IndexingError,
    ShapeError,
    unknown_name,
)
from chainrule.graph import make
from chainrule.nn.functional._checks import check_indices, check_integers, check_offsets
from chainrule.nn.functional.distance import p_norm
from chainrule.primitives.indexing import gather, scatter_add

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["embedding", "embedding_bag", "one_hot"]

BAG_MODES = ("sum", "mean", "max")


def one_hot(tensor: Any, num_classes: int = -1) -> Tensor:
    """1 at the index and 0 elsewhere, along a new last axis; int64.

    Arguments:
        tensor: indices of any shape (...).
        num_classes: the length of the new axis; -1 takes the largest index + 1.
    """
    index = as_tensor(tensor)
    check_integers("one_hot", "class labels", index)
    if num_classes == -1:
        if index.size == 0:
            raise ArgumentError("one_hot of no labels needs num_classes.")
        num_classes = int(xp.max(index)) + 1
    if num_classes < 1:
        raise ArgumentError(f"one_hot needs num_classes of at least 1, got {num_classes}.")
    check_indices("one_hot", index, num_classes, "classes", "num_classes")
    classes = make(np.arange(num_classes, dtype=np.int64))
    return xp.astype(xp.expand_dims(index, axis=-1) == classes, "int64")


def check_dense(name: str, sparse: bool) -> None:
    """Refuse `sparse=True`."""
    if sparse:
        raise ArgumentError(
            f"{name}: sparse gradients do not exist here; with sparse=False the gradient has the "
            "same values, with zeros for the rows that were not used."
        )


def _prepared(
    name: str, input: Any, weight: Any, padding_idx: int | None, sparse: bool
) -> tuple[Any, Any, int | None]:
    """Indices, table and padding index, checked; the padding index counted from the front."""
    index, table = as_tensor(input), as_float(weight)
    check_integers(name, "indices", index)
    if table.ndim != 2:
        raise ShapeError(
            f"{name} takes a weight (num_embeddings, embedding_dim), got {table.shape}."
        )
    check_dense(name, sparse)
    rows = table.shape[0]
    check_indices(name, index, rows, "embeddings", "num_embeddings (the size of the vocabulary)")
    if padding_idx is None:
        return index, table, None
    if not -rows <= padding_idx < rows:
        raise IndexingError(
            f"{name}: padding_idx {padding_idx} is not one of the {rows} embeddings."
        )
    return index, table, padding_idx % rows


def _renormalize(weight: Any, index: Any, max_norm: float, norm_type: float) -> None:
    """Shorten the rows in use whose norm exceeds `max_norm`, in the table itself."""
    if not weight.is_leaf:
        raise GradError(
            "max_norm assigns to the table, which must be a leaf such as a parameter; this weight "
            "was computed. Leave max_norm out and shorten the rows where the table is computed."
        )
    with no_grad():
        if not is_known(index):  # which rows are in use is not known yet: look at all
            used = scatter_add(xp.ones(index.shape), index, length=weight.shape[0]) > 0
            norm = p_norm(weight, norm_type, -1, keepdim=True)
            short = xp.where(norm > max_norm, weight * (max_norm / (norm + 1e-7)), weight)
            weight.copy_(xp.where(xp.expand_dims(used, axis=-1), short, weight))
            return
        used = np.unique(concrete(index, "embedding"))
        rows = take(weight, make(used), axis=0)
        norm = p_norm(rows, norm_type, -1, keepdim=True)
        # PyTorch's 1e-7 keeps the shortened rows from being found too long again.
        weight[make(used)] = xp.where(norm > max_norm, rows * (max_norm / (norm + 1e-7)), rows)


def _blocked(rows: Any, index: Any, padding_idx: int | None) -> Any:
    """The rows, those of the padding index without a gradient."""
    if padding_idx is None or not rows.requires_grad:
        return rows
    return xp.where(xp.expand_dims(index == padding_idx, axis=-1), rows.detach(), rows)


def _by_frequency(rows: Any, index: Any, length: int) -> Any:
    """The rows, each with its gradient divided by how often its index occurs."""
    if not rows.requires_grad:
        return rows
    counts = scatter_add(xp.ones(index.shape, dtype=rows.dtype), index, length=length)
    count = xp.expand_dims(take(counts, index, axis=0), axis=-1)
    return rows.detach() + (rows - rows.detach()) / count


def embedding(
    input: Any, weight: Any, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """z[i] = weight[input[i]]: rows of a table.

    Shapes: input (...), integers; weight (V, D); result (..., D).

    Arguments:
        padding_idx: rows looked up at this index have no gradient.
        max_norm: rows in use that are longer are first shortened to it, in `weight` itself, by the
            norm |.|_p with p = `norm_type`.
        scale_grad_by_freq: divide each row's gradient by how often its index occurs in the input.
        sparse: must be False: gradients are dense.

    Raises:
        IndexingError: for an index outside the table, naming it, its position and the table's size.
    """
    index, table, padding_idx = _prepared("embedding", input, weight, padding_idx, sparse)
    if max_norm is not None:
        _renormalize(table, index, max_norm, norm_type)
    rows = _blocked(take(table, index, axis=0), index, padding_idx)
    return _by_frequency(rows, index, table.shape[0]) if scale_grad_by_freq else rows


# --- bags -----------------------------------------------------------------------------------------


def _edges(index: Any, offsets: Any, include_last_offset: bool) -> Any:
    """Where each bag begins and the last one ends, of an input that is one line."""
    if index.ndim == 2:
        if offsets is not None:
            raise ArgumentError(
                "embedding_bag takes offsets for an input of one axis only; each row of an input "
                "of two axes is a bag."
            )
        bags, length = index.shape
        return xp.arange(bags + 1) * length
    if index.ndim != 1 or offsets is None:
        raise ShapeError(
            "embedding_bag takes an input (B, L), each row a bag, or an input (n,) with offsets "
            f"(B,), where each bag begins; got an input of shape {index.shape}"
            + (" without offsets." if offsets is None else ".")
        )
    starts = as_tensor(offsets)
    check_integers("embedding_bag", "offsets", starts)
    if starts.ndim != 1:
        raise ShapeError(f"embedding_bag takes offsets of one axis, got shape {starts.shape}.")
    if include_last_offset and not starts.size:
        raise ArgumentError("embedding_bag with include_last_offset needs at least one offset.")
    starts = xp.astype(starts, np.int64)
    edges = starts if include_last_offset else xp.concat([starts, xp.asarray([index.size])])
    check_offsets(edges, index.size)
    return edges


def embedding_bag(
    input: Any, weight: Any, offsets: Any = None, max_norm: float | None = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean",
    sparse: bool = False, per_sample_weights: Any = None, include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or maximum of the rows of each bag of indices; 0 for an empty bag.

    Shapes: input (B, L), or (n,) with `offsets` (B,); weight (V, D); result (B, D).

    Arguments:
        offsets: where each bag begins in an input of one axis.
        mode: "sum", "mean" or "max".
        per_sample_weights: factors of the rows, of the input's shape; for "sum" only.
        include_last_offset: the last offset is the end of the last bag.
        padding_idx: indices equal to it are left out of their bags.
        max_norm, norm_type, scale_grad_by_freq, sparse: as `embedding`.
    """
    index, table, padding_idx = _prepared("embedding_bag", input, weight, padding_idx, sparse)
    if mode not in BAG_MODES:
        raise unknown_name("mode of embedding_bag", mode, BAG_MODES)
    if mode == "max" and scale_grad_by_freq:
        raise ArgumentError("embedding_bag cannot scale gradients by frequency in mode 'max'.")
    if per_sample_weights is not None:
        per_sample_weights = as_float(per_sample_weights)
        if mode != "sum":
            raise ArgumentError(f"per_sample_weights need mode='sum', got mode={mode!r}.")
        if per_sample_weights.shape != index.shape:
            raise ShapeError(
                f"per_sample_weights must have the shape of the input, {index.shape}, got "
                f"{per_sample_weights.shape}."
            )
    if max_norm is not None:
        _renormalize(table, index, max_norm, norm_type)
    edges = _edges(index, offsets, include_last_offset)
    if not (is_known(index) and is_known(edges)):
        traced = _traced_rows if index.ndim == 2 else _traced_bags
        rows = take(table, index, axis=0)
        if scale_grad_by_freq:
            rows = _by_frequency(rows, index, table.shape[0])
        if per_sample_weights is not None:
            rows = rows * xp.expand_dims(per_sample_weights, axis=-1)
        kept = xp.ones(index.shape, dtype=bool) if padding_idx is None else index != padding_idx
        return traced(rows, kept, edges, mode)
    ends = concrete(edges, "embedding_bag")
    line = xp.reshape(index, (index.size,))[: int(ends[-1])]
    bag = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    if per_sample_weights is not None:
        per_sample_weights = xp.reshape(per_sample_weights, (index.size,))[: line.size]
    if padding_idx is not None:
        kept = np.nonzero(concrete(line, "embedding_bag") != padding_idx)[0]
        line, bag = line[make(kept)], bag[kept]
        if per_sample_weights is not None:
            per_sample_weights = per_sample_weights[make(kept)]
    rows = take(table, line, axis=0)
    if scale_grad_by_freq:
        rows = _by_frequency(rows, line, table.shape[0])
    if per_sample_weights is not None:
        rows = rows * xp.expand_dims(per_sample_weights, axis=-1)
    return _pooled(rows, bag, len(ends) - 1, mode)


def _traced_rows(rows: Any, kept: Any, edges: Any, mode: str) -> Any:
    """Bags of equal length whose numbers are not known yet: rows (B, L, D), kept (B, L)."""
    inside = xp.expand_dims(kept, axis=-1)
    count = xp.astype(xp.sum(xp.astype(inside, rows.dtype), axis=1), rows.dtype)
    if mode == "max":
        if not rows.shape[1]:
            return xp.zeros((rows.shape[0], rows.shape[2]), dtype=rows.dtype)
        first = xp.argmax(xp.where(inside, rows, -math.inf), axis=1, keepdims=True)
        largest = xp.take_along_axis(rows, first, axis=1)[:, 0]
        return xp.where(count > 0, largest, 0)
    total = xp.sum(xp.where(inside, rows, 0), axis=1)
    return total if mode == "sum" else total / xp.maximum(count, 1)


def _traced_bags(rows: Any, kept: Any, edges: Any, mode: str) -> Any:
    """Bags (B) in one line whose numbers are not known yet: rows (n, D), kept (n), edges (B+1)."""
    bags, n = edges.shape[0] - 1, rows.shape[0]
    bag = xp.searchsorted(edges, xp.arange(n), side="right") - 1
    bag = xp.where(kept, bag, bags)  # what is in no bag goes to one more, behind the last
    counts = scatter_add(xp.ones((n,), dtype=np.int64), bag, length=bags + 1)
    if mode != "max":
        total = scatter_add(rows, bag, length=bags + 1)[:bags]
        if mode == "sum":
            return total
        return total / xp.astype(xp.maximum(counts[:bags, None], 1), rows.dtype)
    if not (n and rows.shape[1]):
        return xp.zeros((bags, rows.shape[1]), dtype=rows.dtype)
    # Sorted by bag, in each bag and column by falling value: the first is the largest.
    order = xp.argsort(rows.detach(), axis=0, descending=True)
    order = xp.take_along_axis(order, xp.argsort(take(bag, order, axis=0), axis=0), axis=0)
    first = xp.minimum((xp.cumulative_sum(counts) - counts)[:bags], n - 1)
    largest = xp.take_along_axis(rows, take(order, first, axis=0), axis=0)
    return xp.where(counts[:bags, None] > 0, largest, 0)


def _pooled(rows: Any, bag: np.ndarray[Any, Any], bags: int, mode: str) -> Any:
    """Rows (n, D), each of the bag named in `bag` (ascending), to one row for each bag."""
    if mode == "max":
        return _largest(rows, bag, bags)
    total = scatter_add(rows, make(bag), length=bags)
    if mode == "sum":
        return total
    counts = np.maximum(np.bincount(bag, minlength=bags), 1)
    return total / make(counts[:, None].astype(rows.dtype))


def _largest(rows: Any, bag: np.ndarray[Any, Any], bags: int) -> Any:
    """The largest of each bag and column; of those that tie the first has the gradient."""
    n, width = rows.shape
    counts = np.bincount(bag, minlength=bags)
    if n == 0 or width == 0:
        return xp.zeros((bags, width), dtype=rows.dtype)
    # Bags side by side in one block, filled up with -inf, to find where the largest stand.
    slots = np.arange(n) - (np.cumsum(counts) - counts)[bag]
    block = np.full((bags, int(counts.max()), width), -math.inf, dtype=rows.dtype)
    block[bag, slots] = concrete(rows, "embedding_bag")
    first = (np.cumsum(counts) - counts)[:, None] + block.argmax(axis=1)
    places = np.minimum(first, n - 1) * width + np.arange(width)
    chosen = gather(xp.reshape(rows, (n * width,)), make(places))
    return xp.where(make(np.broadcast_to(counts[:, None] > 0, chosen.shape)), chosen, 0)
