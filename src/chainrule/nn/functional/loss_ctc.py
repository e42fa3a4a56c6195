"""Connectionist temporal classification: labels without their times."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule.array._core import as_float, as_tensor, concrete
from chainrule.errors import ArgumentError, IndexingError, ShapeError
from chainrule.graph import make
from chainrule.nn.functional._checks import check_integers, check_labels, check_reduction, lengths

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["ctc_loss"]

Ints = np.ndarray[Any, Any]


def _checked_lengths(name: str, x: Any, batch: int, longest: int | None, limit: str) -> Ints:
    """One length for each sample, from 0 to the longest there can be."""
    values = lengths("ctc_loss", name, x).reshape(-1)
    if values.shape != (batch,):
        raise ShapeError(
            f"ctc_loss takes one of {name} for each of the {batch} samples, got {len(values)}."
        )
    bad = values < 0 if longest is None else (values < 0) | (values > longest)
    if bad.any():
        i = int(np.argmax(bad))
        raise ArgumentError(
            f"ctc_loss got {values[i]} in {name} for sample {i}; " + limit.format(longest) + "."
        )
    return values


def _labels(targets: Any, target_lengths: Any, batch: int, single: bool, classes: int,
            blank: int) -> tuple[Ints, Ints]:  # fmt: skip
    """Labels (N, S), filled up with blanks, and how many each sample has."""
    check_integers("ctc_loss", "targets", targets)
    values = np.asarray(concrete(targets, "ctc_loss"), dtype=np.int64)
    if values.ndim not in (1, 2) or (values.ndim == 2 and len(values) != batch):
        raise ShapeError(
            "ctc_loss takes targets (N, S), or (S,) with all labels one after another; for "
            f"{batch} samples got shape {values.shape}."
        )
    width = values.shape[1] if values.ndim == 2 else (values.size if single else None)
    count = _checked_lengths(
        "target_lengths", target_lengths, batch, width, "the targets have room for 0 to {}"
    )
    labels = np.full((batch, int(count.max(initial=0))), blank)
    inside = np.arange(labels.shape[1]) < count[:, None]
    if values.ndim == 2 or single:
        labels[inside] = values.reshape(batch, -1)[:, : labels.shape[1]][inside]
    elif count.sum() == values.size:
        labels[inside] = values
    else:
        raise ShapeError(
            f"ctc_loss got {values.size} labels one after another, but target_lengths add up to "
            f"{count.sum()}."
        )
    check_labels("ctc_loss", make(labels), classes)
    if (inside & (labels == blank)).any():
        row, column = np.argwhere(inside & (labels == blank))[0]
        raise ArgumentError(
            f"ctc_loss got the blank, {blank}, as label {column} of sample {row}; blanks stand "
            "between labels and are none. Number the labels so that they leave it out, or name "
            "another blank."
        )
    return labels, count


def _shifted(x: Any, places: int) -> Any:
    """x (N, L) moved on by some places; log-probability -inf comes in."""
    kept = x[:, : max(x.shape[1] - places, 0)]
    return xp.pad(kept, ((0, 0), (x.shape[1] - kept.shape[1], 0)), value=-math.inf)


def _log_probability(log_probs: Any, labels: Ints, count: Ints, steps: Ints, blank: int) -> Any:
    """ln P(labels | log_probs) of each sample: the forward recursion over time.

    alpha[n, s] is the log-probability of all ways to have come to place s of sample n's labels with
    blanks between (blank, l1, blank, l2, ..., blank), which are 2 S + 1 places.
    """
    batch, most = labels.shape
    path = np.full((batch, 2 * most + 1), blank)
    path[:, 1::2] = labels
    # A label may follow another at once, without the blank between, if it differs.
    skips = np.zeros(path.shape, dtype=bool)
    skips[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    may_skip, places = make(skips), np.arange(path.shape[1])
    emitted = xp.take_along_axis(log_probs, make(path[None]), axis=2)
    never = xp.full(path.shape, -math.inf, dtype=log_probs.dtype)
    longest = int(steps.max(initial=0))
    starts = np.broadcast_to(places < 2, path.shape)
    alpha = xp.where(make(starts), emitted[0], never) if longest else never
    for t in range(1, longest):
        arrived = xp.logaddexp(alpha, _shifted(alpha, 1))
        skipped = xp.where(may_skip, _shifted(alpha, 2), never)
        new = xp.logaddexp(arrived, skipped) + emitted[t]
        running = t < steps
        alpha = new if running.all() else xp.where(make(running[:, None]), new, alpha)
    # The end is at the last blank or at the label before it, if there is one.
    last = xp.take_along_axis(alpha, make(2 * count[:, None]), axis=1)[:, 0]
    last_label = make(np.maximum(2 * count - 1, 0)[:, None])
    before = xp.take_along_axis(alpha, last_label, axis=1)[:, 0]
    before = xp.where(make(count > 0), before, -math.inf)
    ends = xp.logaddexp(last, before)
    # In no time at all, no labels are certain and any others impossible.
    in_no_time = make(np.where(count == 0, 0.0, -math.inf).astype(log_probs.dtype))
    return xp.where(make(steps == 0), in_no_time, ends)


def ctc_loss(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """-ln P(labels): the sum over all alignments of a sequence of labels with T steps of time.

    An alignment gives each step a label or the blank; striking out repetitions and then blanks must
    leave the labels. Graves et al. (2006). Composed of `logaddexp`, for all samples and places at
    once; the derivative is that by log_probs as they are. (PyTorch's, by contrast, presumes a
    log_softmax before it and is the same after that.) Where no alignment is possible the loss is
    inf and the gradient 0.

    Shapes: log_probs (T, N, C) or (T, C), after log_softmax; targets (N, S), or (sum of lengths,)
    with all labels one after another; lengths (N,), or () for (T, C). "none" gives (N,) or ().

    Arguments:
        input_lengths: how many steps of each sample count.
        target_lengths: how many labels each sample has.
        blank: the class of the blank.
        reduction: "mean" divides each loss by its number of labels (at least 1) before the mean.
        zero_infinity: 0 in place of infinite losses.
    """
    check_reduction(reduction)
    x = as_float(log_probs)
    if x.ndim not in (2, 3):
        raise ShapeError(f"ctc_loss takes log_probs (T, N, C) or (T, C), got shape {x.shape}.")
    single = x.ndim == 2
    if single:
        x = xp.expand_dims(x, axis=1)
    time, batch, classes = x.shape
    if not 0 <= blank < classes:
        raise IndexingError(f"ctc_loss got blank={blank}, which is not one of {classes} classes.")
    limit = "log_probs have 0 to {} steps"
    steps = _checked_lengths("input_lengths", input_lengths, batch, time, limit)
    labels, count = _labels(as_tensor(targets), target_lengths, batch, single, classes, blank)
    losses = -_log_probability(x, labels, count, steps, blank)
    if zero_infinity:
        losses = xp.where(losses == math.inf, 0, losses)
    if reduction == "sum":
        return xp.sum(losses)
    if reduction == "mean":
        return xp.mean(losses / make(np.maximum(count, 1).astype(x.dtype)))
    return losses[0] if single else losses
