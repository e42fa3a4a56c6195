"""Losses of margins: scores are to differ by so much, and beyond that nothing is gained.

`reduction` is "mean" (default), "sum" or "none"; `size_average` and `reduce` are PyTorch's older
flags for it. Shapes must fit exactly: nothing broadcasts in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule.array._core import as_float, as_tensor
from chainrule.errors import ArgumentError, ShapeError
from chainrule.graph import make
from chainrule.nn.functional._checks import (
    check_labels,
    check_reduction,
    check_same_shape,
    check_signs,
    reduced,
)
from chainrule.nn.functional.activation import logsigmoid
from chainrule.nn.functional.distance import pairwise_distance

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "cosine_embedding_loss", "hinge_embedding_loss", "hinge_loss", "margin_ranking_loss",
    "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss",
    "soft_margin_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip

Flag = bool | None


def _positive_part(x: Any) -> Any:
    """max(x, 0) with derivative 1 at 0, as PyTorch's clamp_min; relu has 0 there."""
    return xp.clip(x, 0)


# --- one score ------------------------------------------------------------------------------------


def hinge_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """max(0, margin - y x) for a score x and y = -1 or +1. Cortes and Vapnik (1995).

    Shapes: input and target of one shape (...).
    """
    x, y = as_float(input), as_tensor(target)
    check_same_shape("hinge_loss", input=x, target=y)
    check_signs("hinge_loss", y)
    return reduced(xp.relu(margin - x * y), reduction)


def soft_margin_loss(
    input: Any, target: Any, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """ln(1 + e^(-y x)) for a score x and y = -1 or +1: the logistic loss, without overflow.

    Shapes: input and target of one shape (...).
    """
    x, y = as_float(input), as_tensor(target)
    check_same_shape("soft_margin_loss", input=x, target=y)
    return reduced(xp.logaddexp(-y * x, 0), reduction, size_average, reduce)


def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """x where y = +1 and max(0, margin - x) where y = -1, x being a distance.

    Shapes: input and target of one shape (...).
    """
    x, y = as_float(input), as_tensor(target)
    check_same_shape("hinge_embedding_loss", input=x, target=y)
    check_signs("hinge_embedding_loss", y)
    losses = xp.where(y == 1, x, _positive_part(margin - x))
    return reduced(losses, reduction, size_average, reduce)


def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: Flag = None,
    reduce: Flag = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, -y (x1 - x2) + margin): x1 is to rank above x2 where y = +1, below where y = -1.

    Shapes: all three of one shape (...).
    """
    x1, x2, y = as_float(input1), as_float(input2), as_tensor(target)
    check_same_shape("margin_ranking_loss", input1=x1, input2=x2, target=y)
    losses = _positive_part(-y * (x1 - x2) + margin)
    return reduced(losses, reduction, size_average, reduce)


# --- a score for each class -----------------------------------------------------------------------


def _rows(name: str, x: Any, target: Any, one_each: bool) -> tuple[Any, Any]:
    """Scores (N, C) and targets (N,) (or (N, C)), from these or from (C,) and () (or (C,))."""
    wanted = x.shape[:-1] if one_each else x.shape
    if x.ndim not in (1, 2) or target.shape != wanted:
        labels = "(N,), or (C,) and ()" if one_each else "(N, C), or (C,) and (C,)"
        raise ShapeError(
            f"{name} takes scores and targets of shapes (N, C) and {labels}, got {x.shape} and "
            f"{target.shape}."
        )
    if x.ndim == 1:
        return xp.expand_dims(x, axis=0), xp.expand_dims(target, axis=0)
    return x, target


def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None,
    size_average: Flag = None, reduce: Flag = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """w_y sum over c != y of max(0, margin - x_y + x_c)^p / C. Crammer and Singer (2001).

    Shapes: input (N, C) or (C,); target, labels (N,) or (); weight (C,).

    Arguments:
        p: 1 or 2.
    """
    name = "multi_margin_loss"
    if p not in (1, 2):
        raise ArgumentError(f"{name} takes p = 1 or 2, got {p}.")
    scores, single = as_float(input), as_tensor(input).ndim == 1
    x, y = _rows(name, scores, as_tensor(target), one_each=True)
    classes = x.shape[1]
    check_labels(name, y, classes)
    label = xp.expand_dims(y, axis=1)
    excess = xp.relu(margin - xp.take_along_axis(x, label, axis=1) + x)
    excess = excess if p == 1 else excess * excess
    others = make(np.arange(classes)) != label
    losses = xp.sum(xp.where(others, excess, 0), axis=1) / classes
    if weight is not None:
        weight = as_tensor(weight)
        if weight.shape != (classes,):
            raise ShapeError(f"{name} takes a weight of shape ({classes},), got {weight.shape}.")
        losses = losses * xp.take(weight, y, axis=0)
    return reduced(losses[0] if single else losses, reduction, size_average, reduce)


def multilabel_margin_loss(
    input: Any, target: Any, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """sum over labels y and classes c that are none of max(0, 1 - x_y + x_c) / C.

    Shapes: input (N, C) or (C,); target, integers of the same shape: the labels of each row, then
    -1. What follows the first -1 does not count.
    """
    name = "multilabel_margin_loss"
    scores, single = as_float(input), as_tensor(input).ndim == 1
    x, y = _rows(name, scores, as_tensor(target), one_each=False)
    classes = x.shape[1]
    check_labels(name, y, classes, ignore_index=-1)
    ended = xp.cumulative_sum(xp.astype(y < 0, "int64"), axis=1) > 0
    label = xp.where(ended, 0, y)
    # hit[n, j, c]: the j-th label of row n is c.
    no_label = xp.expand_dims(ended, axis=2)
    hit = (xp.expand_dims(label, axis=2) == make(np.arange(classes))) & ~no_label
    is_label = xp.any(hit, axis=1, keepdims=True)
    at_label = xp.expand_dims(xp.take_along_axis(x, label, axis=1), axis=2)
    excess = xp.relu(1 - at_label + xp.expand_dims(x, axis=1))
    counts = ~(no_label | is_label)
    losses = xp.sum(xp.where(counts, excess, 0), axis=(1, 2)) / classes
    return reduced(losses[0] if single else losses, reduction, size_average, reduce)


def multilabel_soft_margin_loss(
    input: Any, target: Any, weight: Any = None, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-(1/C) sum over c of w_c (y_c ln s(x_c) + (1 - y_c) ln s(-x_c)), s the sigmoid.

    Shapes: input and target (N, C) or (C,), more leading axes allowed; targets from 0 to 1; weight
    (C,) or of the input's shape.
    """
    name = "multilabel_soft_margin_loss"
    x, y = as_float(input), as_tensor(target)
    check_same_shape(name, input=x, target=y)
    if x.ndim == 0:
        raise ShapeError(f"{name} takes scores (..., C), got one number.")
    losses = -(y * logsigmoid(x) + (1 - y) * logsigmoid(-x))
    if weight is not None:
        weight = as_tensor(weight)
        if weight.shape not in (x.shape, x.shape[-1:], ()):
            raise ShapeError(f"{name} takes a weight of shape {x.shape[-1:]}, got {weight.shape}.")
        losses = losses * weight
    return reduced(xp.sum(losses, axis=-1) / x.shape[-1], reduction, size_average, reduce)


# --- vectors --------------------------------------------------------------------------------------

COSINE_EPS = 1e-12  # PyTorch adds it to both squared lengths


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: Flag = None,
    reduce: Flag = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """1 - cos(x1, x2) where y = +1, max(0, cos(x1, x2) - margin) where y = -1.

    Shapes: inputs (N, D) with target (N,), or (D,) with ().
    """
    name = "cosine_embedding_loss"
    x1, x2, y = as_float(input1), as_float(input2), as_tensor(target)
    check_same_shape(name, input1=x1, input2=x2)
    if x1.ndim not in (1, 2) or y.shape != x1.shape[:-1]:
        raise ShapeError(
            f"{name} takes inputs (N, D) with a target (N,), or (D,) with (), got {x1.shape} and "
            f"{y.shape}."
        )
    check_signs(name, y)
    lengths = (xp.sum(x1 * x1, axis=-1) + COSINE_EPS) * (xp.sum(x2 * x2, axis=-1) + COSINE_EPS)
    cosine = xp.sum(x1 * x2, axis=-1) / xp.sqrt(lengths)
    losses = xp.where(y == 1, 1 - cosine, _positive_part(cosine - margin))
    return reduced(losses, reduction, size_average, reduce)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2,
    eps: float = 1e-6, swap: bool = False, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(0, d(a, positive) - d(a, negative) + margin), d = |x - y + eps|_p. Balntas et al. (2016).

    Shapes: all three (N, D) or (D,).

    Arguments:
        swap: take d(positive, negative) in place of d(a, negative) where it is smaller.
    """

    def distance(x: Any, y: Any) -> Tensor:
        return pairwise_distance(x, y, p, eps)

    losses = _triplets("triplet_margin_loss", anchor, positive, negative, distance, margin, swap)
    return reduced(losses, reduction, size_average, reduce)


def triplet_margin_with_distance_loss(
    anchor: Any, positive: Any, negative: Any, *,
    distance_function: Callable[[Any, Any], Any] | None = None, margin: float = 1.0,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """`triplet_margin_loss` with a distance of one's own; default: `pairwise_distance`.

    distance_function: takes two tensors of the inputs' shape and gives one distance for each pair.
    """
    name = "triplet_margin_with_distance_loss"
    check_reduction(reduction)
    distance = pairwise_distance if distance_function is None else distance_function
    losses = _triplets(name, anchor, positive, negative, distance, margin, swap)
    return reduced(losses, reduction)


def _triplets(
    name: str, anchor: Any, positive: Any, negative: Any, distance: Callable[[Any, Any], Any],
    margin: float, swap: bool,
) -> Any:  # fmt: skip
    if not margin > 0:
        raise ArgumentError(f"{name} needs margin > 0, got {margin}.")
    a, near, far = as_float(anchor), as_float(positive), as_float(negative)
    check_same_shape(name, anchor=a, positive=near, negative=far)
    to_near, to_far = distance(a, near), distance(a, far)
    if swap:
        to_far = xp.minimum(to_far, distance(near, far))
    return _positive_part(to_near - to_far + margin)
