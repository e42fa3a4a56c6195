"""Losses of classification: cross entropy and its kin.

`reduction` is "mean" (default), "sum" or "none"; `size_average` and `reduce` are PyTorch's older
flags for it. Shapes must fit exactly: nothing broadcasts in silence.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule.array._core import as_float, as_tensor, broadcast_shape
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.nn.functional._checks import (
    check_labels,
    check_range,
    check_reduction,
    check_same_shape,
    check_signs,
    legacy_reduction,
    reduced,
    warn_of_probabilities,
    warn_once,
)
from chainrule.nn.functional.affine import linear
from chainrule.nn.functional.softmax import log_softmax
from chainrule.primitives import elementwise as p

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "kl_div",
    "linear_cross_entropy", "nll_loss", "zero_one_loss",
]  # fmt: skip

Flag = bool | None


# --- class labels ---------------------------------------------------------------------------------


def _batched(name: str, x: Any, target: Any) -> tuple[Any, Any]:
    """Scores (N, C, ...) and labels (N, ...), from these or from (C,) and ()."""
    wanted = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if x.ndim == 0 or target.shape != wanted:
        fix = ""
        if x.ndim > 1 and target.size == math.prod(wanted):
            fix = f" Write target.reshape({wanted})."
        elif target.shape == x.shape:
            fix = " One-hot targets become labels by cr.argmax(target, axis=1)."
        raise ShapeError(
            f"{name} takes scores (N, C, ...) with labels (N, ...), or scores (C,) with one label "
            f"(); scores of shape {x.shape} need labels of shape {wanted}, got {target.shape}.{fix}"
        )
    if x.ndim == 1:
        return xp.expand_dims(x, axis=0), xp.expand_dims(target, axis=0)
    return x, target


def _class_weight(name: str, weight: Any, classes: int, dtype: Any) -> Any:
    weight = xp.astype(as_tensor(weight), dtype, copy=False)
    if weight.shape != (classes,):
        raise ShapeError(
            f"{name} takes one weight for each of the {classes} classes, shape ({classes},), got "
            f"shape {weight.shape}."
        )
    return weight


def _across(weight: Any, ndim: int) -> Any:
    """A vector over the classes, which are axis 1, ready to broadcast."""
    return xp.reshape(weight, (1, weight.size) + (1,) * (ndim - 2))


def _labelled(
    name: str, log_p: Any, target: Any, weight: Any, ignore_index: int, smoothing: float,
    reduction: str,
) -> Tensor:  # fmt: skip
    """(1 - s) (-w_y ln p_y) + s/C (-sum_c w_c ln p_c); the mean is weighted with w_y."""
    single = log_p.ndim == 1
    log_p, target = _batched(name, log_p, target)
    classes = log_p.shape[1]
    check_labels(name, target, classes, ignore_index)
    target = xp.astype(target, "int64", copy=False)  # -100 is no uint8
    ignored = target == ignore_index
    label = xp.where(ignored, 0, target)
    at_label = xp.take_along_axis(log_p, xp.expand_dims(label, axis=1), axis=1)
    losses = -xp.squeeze(at_label, axis=1)
    if weight is None:
        share = xp.astype(xp.logical_not(ignored), log_p.dtype)
    else:
        weight = _class_weight(name, weight, classes, log_p.dtype)
        share = xp.where(ignored, 0, xp.take(weight, label, axis=0))
        losses = losses * share
    if smoothing:
        scaled = log_p if weight is None else log_p * _across(weight, log_p.ndim)
        losses = (1 - smoothing) * losses - (smoothing / classes) * xp.sum(scaled, axis=1)
    losses = xp.where(ignored, 0, losses)
    if reduction == "none":
        return losses[0] if single else losses
    total = xp.sum(losses)
    return total / xp.sum(share) if reduction == "mean" else total


def _mixed(
    name: str, log_p: Any, target: Any, weight: Any, smoothing: float, reduction: str
) -> Tensor:
    """-sum_c w_c t_c ln p_c for probabilities t of the classes, smoothed to (1 - s) t + s/C."""
    single = log_p.ndim == 1
    if single:
        log_p, target = xp.expand_dims(log_p, axis=0), xp.expand_dims(target, axis=0)
    classes = log_p.shape[1]
    if smoothing:
        target = (1 - smoothing) * target + smoothing / classes
    terms = log_p * target
    if weight is not None:
        weight = _class_weight(name, weight, classes, log_p.dtype)
        terms = terms * _across(weight, terms.ndim)
    losses = -xp.sum(terms, axis=1)
    return losses[0] if single and reduction == "none" else reduced(losses, reduction)


def cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Flag = None,
    ignore_index: int = -100, reduce: Flag = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """-ln softmax(x)_y: the log loss of scores (logits) x for the class y, or for a mixture of
    classes.

    With labels: `-w_y ln p_y`, p = softmax(x); the mean is `sum w_y l / sum w_y`. With
    probabilities t: `-sum_c w_c t_c ln p_c`; the mean is over all places. `label_smoothing` s
    replaces the target t (one-hot for labels) by `(1 - s) t + s/C` (Szegedy et al., 2016).

    Shapes: input (N, C), (N, C, d1, ...) or (C,); target: integers (N,), (N, d1, ...) or (), or
    floats of the input's shape; "none" gives the shape of the labels.

    Arguments:
        weight: (C,), a weight for each class.
        ignore_index: places with this label count neither in the loss nor in the mean.
        label_smoothing: s, from 0 to 1.

    Raises:
        IndexingError: for a label that is not one of the classes, naming it and where it stands.
        DTypeError: for labels that are no integers, or one-hot targets that are.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"label_smoothing must be from 0 to 1, got {label_smoothing}.")
    x, target = as_float(input), as_tensor(target)
    if x.ndim == 0:
        raise ShapeError("cross_entropy takes scores (N, C, ...) or (C,), got one number.")
    axis = min(x.ndim - 1, 1)
    warn_of_probabilities("cross_entropy", x, axis, "scores (logits)")
    log_p = log_softmax(x, axis)
    if target.shape != x.shape:
        return _labelled(
            "cross_entropy", log_p, target, weight, ignore_index, label_smoothing, reduction
        )
    if target.dtype.kind != "f":
        raise DTypeError(
            f"cross_entropy got a target of the input's shape, {x.shape}, which are probabilities, "
            f"as {target.dtype.name}; cast one-hot targets with .astype(cr.float32), or give "
            "labels."
        )
    if ignore_index >= 0:
        raise ArgumentError("ignore_index is for labels, and the targets here are probabilities.")
    return _mixed("cross_entropy", log_p, target, weight, label_smoothing, reduction)


def linear_cross_entropy(
    input: Any, linear_weight: Any, target: Any, *, linear_bias: Any = None, weight: Any = None,
    reduction: str = "mean", ignore_index: int | None = None, label_smoothing: float = 0.0,
    options: None = None,
) -> Tensor:  # fmt: skip
    """`cross_entropy` of the scores x W^T + b.

    Shapes: input (N, in) or (in,); linear_weight (C, d1, ..., in); linear_bias (C, d1, ...);
    target as `cross_entropy` for scores (N, C, d1, ...).

    Arguments:
        ignore_index: None for -100, and for targets that are probabilities.
        options: PyTorch's way to cut the batch to pieces, which does not exist here: None.
    """
    if options is not None:
        raise ArgumentError("linear_cross_entropy takes options=None: it does not cut the batch.")
    x, w = as_float(input), as_float(linear_weight)
    b = None if linear_bias is None else as_float(linear_bias)
    if x.ndim not in (1, 2) or w.ndim < 2 or (x.ndim == 1 and w.ndim > 2):
        raise ShapeError(
            "linear_cross_entropy takes an input (N, in) and a linear_weight (C, ..., in), or "
            f"(in,) and (C, in), got {x.shape} and {w.shape}."
        )
    scores = w.shape[:-1]
    if b is not None and b.shape != scores:
        raise ShapeError(f"linear_bias must have shape {scores}, got {b.shape}.")
    rows = xp.reshape(w, (math.prod(scores), w.shape[-1]))
    logits = linear(x, rows, None if b is None else xp.reshape(b, (rows.shape[0],)))
    return cross_entropy(
        xp.reshape(logits, x.shape[:-1] + scores), target, weight,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction, label_smoothing=label_smoothing,
    )  # fmt: skip


def nll_loss(
    input: Any, target: Any, weight: Any = None, size_average: Flag = None,
    ignore_index: int = -100, reduce: Flag = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-w_y x_y for log-probabilities x; the mean is `sum w_y l / sum w_y`.

    Shapes and arguments as `cross_entropy` with labels, of which this is the second half.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    x, target = as_float(input), as_tensor(target)
    if x.ndim:
        wanted = "log-probabilities (log_softmax)"
        warn_of_probabilities("nll_loss", x, min(x.ndim - 1, 1), wanted)
    return _labelled("nll_loss", x, target, weight, ignore_index, 0.0, reduction)


def zero_one_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """1 where the prediction is wrong, 0 where it is right; the mean is the error rate.

    Shapes: scores (N, C, ...) with labels (N, ...) predict the class with the largest score;
    integers of the target's shape are predicted labels; floats of the target's shape are decision
    values for targets -1 and +1 and predict their sign (+1 at 0).

    The loss is made of steps and has no gradient: train with a smooth one and report this one.
    """
    x, target = as_tensor(input), as_tensor(target)
    if x.shape != target.shape:
        x, target = _batched("zero_one_loss", as_float(x), target)
        check_labels("zero_one_loss", target, x.shape[1])
        wrong = xp.argmax(x, axis=1) != target
    elif x.dtype.kind == "f":
        check_signs("zero_one_loss", target)
        wrong = (x >= 0) != (target > 0)
    else:
        wrong = x != target
    return reduced(xp.astype(wrong, "float32"), reduction)


# --- yes or no ------------------------------------------------------------------------------------


def _rescaled(name: str, losses: Any, weight: Any) -> Any:
    """Losses times a weight that broadcasts to their shape."""
    if weight is None:
        return losses
    weight = as_tensor(weight)
    if broadcast_shape(weight.shape, losses.shape) != losses.shape:
        raise ShapeError(
            f"{name} takes a weight that broadcasts to the losses' shape {losses.shape}, got "
            f"{weight.shape}."
        )
    return losses * weight


LOWEST_LOG = -100.0  # PyTorch's bound on ln x, so that a certain wrong answer costs 100 and not inf
LEAST_SPREAD = 1e-12  # PyTorch's bound on x (1 - x) where the derivative divides by it


def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-w (y ln x + (1 - y) ln(1 - x)) for probabilities x, with logarithms of at least -100.

    The derivative by x is w (x - y) / max(x (1 - x), 1e-12).

    Shapes: input and target of one shape (...); weight broadcasts to it.

    Raises:
        ArgumentError: for probabilities or targets outside [0, 1].
    """
    name = "binary_cross_entropy"
    x, y = as_float(input), as_float(target)
    check_same_shape(name, input=x, target=y)
    fix = "Scores become probabilities by sigmoid; better, keep them and take "
    check_range(name, "probabilities", x, 0, 1, fix + "binary_cross_entropy_with_logits.")
    check_range(name, "targets", y, 0, 1)
    certain = x * (1 - x) < LEAST_SPREAD
    inside = xp.where(certain, 0.5, x)
    uncertain = y * xp.log(inside) + (1 - y) * xp.log1p(-inside)
    # At 0 and 1 the logarithms are bounded, and so is the derivative, which is written out.
    fixed = x.detach()
    yes, no = xp.clip(xp.log(fixed), LOWEST_LOG), xp.clip(xp.log1p(-fixed), LOWEST_LOG)
    slope = (y.detach() - fixed) / LEAST_SPREAD
    bounded = y * yes + (1 - y) * no + (x - fixed) * slope
    losses = -xp.where(certain, bounded, uncertain)
    return reduced(_rescaled(name, losses, weight), reduction, size_average, reduce)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean", pos_weight: Any = None,
) -> Tensor:  # fmt: skip
    """-w (c y ln s(x) + (1 - y) ln(1 - s(x))) for scores x, s the sigmoid, without overflow.

    Shapes: input and target of one shape (...); weight broadcasts to it.

    Arguments:
        pos_weight: c, a factor of the positive part, such as one for each class; broadcasts.
    """
    name = "binary_cross_entropy_with_logits"
    x, y = as_float(input), as_float(target)
    check_same_shape(name, input=x, target=y)
    if x.grad_fn is p.sigmoid:
        warn_once(
            name,
            f"{name} takes scores and applies the sigmoid itself, but its input is the output of a "
            "sigmoid; leave that out, or take binary_cross_entropy.",
        )
    # -ln s(x) = ln(1 + e^-x), and -ln(1 - s(x)) is x more.
    minus_log = xp.logaddexp(-x, 0)
    if pos_weight is not None:
        minus_log = minus_log * (1 + _rescaled(name, y, as_float(pos_weight) - 1))
    losses = (1 - y) * x + minus_log
    return reduced(_rescaled(name, losses, weight), reduction, size_average, reduce)


# --- distributions --------------------------------------------------------------------------------


def kl_div(
    input: Any, target: Any, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """t (ln t - x) element by element, for log-probabilities x of the model and probabilities t.

    Summed over the classes this is the Kullback-Leibler divergence of the model from the target.

    Arguments:
        reduction: also "batchmean", the sum divided by the length of the first axis: the divergence
            as it is defined. "mean" divides by the number of elements, as in PyTorch.
        log_target: the target is ln t as well.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction, ("none", "batchmean", "sum", "mean"))
    x, t = as_float(input), as_float(target)
    check_same_shape("kl_div", input=x, target=t)
    if log_target:
        losses = xp.exp(t) * (t - x)
    else:
        losses = t * (xp.log(xp.where(t == 0, 1, t)) - x)  # 0 ln 0 = 0
    if reduction != "batchmean":
        return reduced(losses, reduction)
    if x.ndim == 0:
        raise ShapeError("kl_div with reduction 'batchmean' needs a first axis, the batch.")
    return xp.sum(losses) / x.shape[0]
