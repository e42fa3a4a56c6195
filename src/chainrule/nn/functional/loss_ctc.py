"""Connectionist temporal classification: labels without their times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule.array._core import as_float, as_tensor, is_known
from chainrule.compiler.control import scan
from chainrule.errors import ArgumentError, IndexingError, ShapeError
from chainrule.nn.functional._checks import check_integers, check_labels, check_reduction
from chainrule.primitives.checks import check

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["ctc_loss"]


@dataclass(frozen=True)
class _BadLength:
    """The error for lengths of which one is too long, or negative."""

    name: str
    longest: int | None
    limit: str

    def __call__(self, values: Any) -> Exception:
        i = int(np.argmax((values < 0) | (values > _bound(self.longest))))
        return ArgumentError(
            f"ctc_loss got {values[i]} in {self.name} for sample {i}; "
            + self.limit.format(self.longest)
            + "."
        )


def _bound(longest: int | None) -> int:
    return np.iinfo(np.int64).max if longest is None else longest


def _checked_lengths(name: str, x: Any, batch: int, longest: int | None, limit: str) -> Any:
    """One length for each sample, from 0 to the longest there can be: int64 of shape (N,)."""
    tensor = as_tensor(x)
    check_integers("ctc_loss", name, tensor)
    values = xp.reshape(xp.astype(tensor, np.int64, copy=False), (tensor.size,))
    if values.shape != (batch,):
        raise ShapeError(
            f"ctc_loss takes one of {name} for each of the {batch} samples, got {values.size}."
        )
    refuse = _BadLength(name, longest, limit)
    check(values, low=0, high=_bound(longest), ignore=None, nan=False, refuse=refuse)
    return values


@dataclass(frozen=True)
class _BadTotal:
    """The error for labels one after another that are not as many as the lengths say."""

    size: int

    def __call__(self, total: Any) -> Exception:
        return ShapeError(
            f"ctc_loss got {self.size} labels one after another, but target_lengths add up to "
            f"{total}."
        )


@dataclass(frozen=True)
class _BlankLabel:
    """The error for a blank among the labels; it sees where there are any."""

    blank: int

    def __call__(self, found: Any) -> Exception:
        row, column = np.argwhere(found)[0]
        return ArgumentError(
            f"ctc_loss got the blank, {self.blank}, as label {column} of sample {row}; blanks "
            "stand between labels and are none. Number the labels so that they leave it out, or "
            "name another blank."
        )


def _labels(targets: Any, target_lengths: Any, batch: int, single: bool, classes: int,
            blank: int) -> tuple[Any, Any]:  # fmt: skip
    """Labels (N, S), filled up with blanks, and how many each sample has."""
    check_integers("ctc_loss", "targets", targets)
    values = xp.astype(targets, np.int64, copy=False)
    if values.ndim not in (1, 2) or (values.ndim == 2 and len(values) != batch):
        raise ShapeError(
            "ctc_loss takes targets (N, S), or (S,) with all labels one after another; for "
            f"{batch} samples got shape {values.shape}."
        )
    rows = values.ndim == 2 or single
    width = values.size // max(batch, 1) if values.ndim == 2 else (values.size if single else None)
    count = _checked_lengths(
        "target_lengths", target_lengths, batch, width, "the targets have room for 0 to {}"
    )
    # Where the lengths are not known yet there is room for the longest that there can be.
    most = (
        int(xp.max(count)) if is_known(count) and batch else values.size if width is None else width
    )
    place = xp.arange(most)
    inside = place < xp.expand_dims(count, axis=1)
    if rows:
        taken = xp.reshape(values, (batch, -1) if values.size else (batch, 0))[:, :most]
    else:
        total = xp.sum(count)
        size = values.size
        check(total, low=size, high=size, ignore=None, nan=False, refuse=_BadTotal(size))
        start = xp.expand_dims(xp.cumulative_sum(count) - count, axis=1)
        taken = xp.take(values, xp.minimum(start + place, max(size - 1, 0)), axis=0) if size else (
            xp.zeros((batch, most), dtype=np.int64)
        )  # fmt: skip
    labels = xp.where(inside, taken, blank)
    check_labels("ctc_loss", labels, classes)
    refuse = _BlankLabel(blank)
    found = xp.astype(inside & (labels == blank), np.int64)
    check(found, low=0, high=0, ignore=None, nan=False, refuse=refuse)
    return labels, count


def _shifted(x: Any, places: int) -> Any:
    """x (N, L) moved on by some places; log-probability -inf comes in."""
    kept = x[:, : max(x.shape[1] - places, 0)]
    return xp.pad(kept, ((0, 0), (x.shape[1] - kept.shape[1], 0)), value=-math.inf)


def _between_blanks(x: Any, blank: Any) -> Any:
    """blank, x1, blank, x2, ..., blank: (N, S) to (N, 2 S + 1)."""
    fill = xp.full_like(x, blank)
    pairs = xp.reshape(xp.stack([fill, x], axis=2), (x.shape[0], 2 * x.shape[1]))
    return xp.concat([pairs, xp.full((x.shape[0], 1), blank, dtype=x.dtype)], axis=1)


def _log_probability(log_probs: Any, labels: Any, count: Any, steps: Any, blank: int) -> Any:
    """ln P(labels | log_probs) of each sample: the forward recursion over time.

    alpha[n, s] is the log-probability of all ways to have come to place s of sample n's labels with
    blanks between (blank, l1, blank, l2, ..., blank), which are 2 S + 1 places.
    """
    path = _between_blanks(labels, blank)
    # A label may follow another at once, without the blank between, if it differs.
    differs = xp.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (1, 0)), value=False)
    may_skip = _between_blanks(differs[:, : labels.shape[1]], False)
    emitted = xp.take_along_axis(log_probs, path[None], axis=2)
    never = xp.full(path.shape, -math.inf, dtype=log_probs.dtype)

    def advance(alpha: Any, now: tuple[Any, Any]) -> tuple[Any, None]:
        emission, t = now
        arrived = xp.logaddexp(alpha, _shifted(alpha, 1))
        skipped = xp.where(may_skip, _shifted(alpha, 2), never)
        new = xp.logaddexp(arrived, skipped) + emission
        return xp.where(xp.expand_dims(t < steps, axis=1), new, alpha), None

    longest = (int(xp.max(steps)) if steps.size else 0) if is_known(steps) else len(log_probs)
    alpha = xp.where(xp.arange(path.shape[1]) < 2, emitted[0], never) if longest else never
    times = xp.arange(1, max(longest, 1))
    if is_known(alpha) and is_known(steps):
        for t in range(1, longest):
            alpha, _ = advance(alpha, (emitted[t], t))
    elif longest > 1:
        alpha, _ = scan(advance, alpha, (emitted[1:longest], times))
    # The end is at the last blank or at the label before it, if there is one.
    last = xp.take_along_axis(alpha, xp.expand_dims(2 * count, axis=1), axis=1)[:, 0]
    place = xp.expand_dims(xp.maximum(2 * count - 1, 0), axis=1)
    before = xp.take_along_axis(alpha, place, axis=1)[:, 0]
    ends = xp.logaddexp(last, xp.where(count > 0, before, -math.inf))
    # In no time at all, no labels are certain and any others impossible.
    in_no_time = xp.where(count == 0, xp.zeros_like(ends), -math.inf)
    return xp.where(steps == 0, in_no_time, ends)


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
        return xp.mean(losses / xp.astype(xp.maximum(count, 1), x.dtype))
    return losses[0] if single else losses
