"""NaN and infinity in a step: noticed before they do harm, traced to where they began."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.autograd.anomaly import detect_anomaly
from chainrule.errors import NonFiniteError
from chainrule.graph import state
from chainrule.primitives.checks import check
from chainrule.train.batches import numbers, sample_place


class NotFinite(Exception):
    """A step met NaN or infinity; `explain` finds out where it began."""


def is_finite(array: np.ndarray[Any, Any]) -> bool:
    """Whether every number is finite, in one pass where they are.

    The sum is NaN or infinite if a number is; a sum of finite numbers may overflow, so it is only
    then that each is looked at.
    """
    if array.dtype.kind not in "fc":
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array.sum(dtype=np.result_type(array, np.float64)))) or bool(
            np.isfinite(array).all()
        )


@dataclass(frozen=True)
class _Refusal:
    """Makes the `NotFinite` of a compiled step."""

    words: str

    def __call__(self, values: np.ndarray[Any, Any]) -> NotFinite:
        return NotFinite(self.words.replace("{}", str(values.reshape(-1)[0])))


def demand_finite(x: Any, words: str) -> None:
    """Stop if an element is not finite; inside a program, before it writes anything over.

    Arguments:
        words: what to say; `{}` in them becomes the first element.
    """
    if x.dtype.kind not in "f":
        return
    if state.tracer is not None:
        largest = float(np.finfo(x.dtype).max)
        refuse = _Refusal(words)
        check(x.detach(), low=-largest, high=largest, ignore=None, nan=False, refuse=refuse)
    elif not is_finite(x._array):
        raise _Refusal(words)(x._array)


def check_loss_and_gradients(model: Any, loss: Any) -> None:
    """Stop before the optimiser's step."""
    demand_finite(loss, "the loss is {}")
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            demand_finite(parameter.grad, f"the gradient of {name!r} is not finite")


def check_parameters(model: Any) -> None:
    """Stop after an optimiser's step that went too far."""
    for name, parameter in model.named_parameters():
        demand_finite(
            parameter, f"the optimiser's step made {name!r} infinite or NaN, from finite gradients"
        )


def explain(
    what: str, place: str, advice: str, again: Callable[[], Any], inputs: Any, targets: Any,
    loader: Any,
) -> NonFiniteError:  # fmt: skip
    """The error for a step that met NaN or infinity.

    Arguments:
        what: what was noticed.
        place: the epoch and the step.
        advice: what to do.
        again: runs the step's forward and backward pass again.
        inputs, targets, loader: the batch and where it is from.
    """
    for kind, values in (("input", inputs), ("target", targets)):
        bad = _bad_rows(values)
        if len(bad):
            more = f", and {len(bad) - 1} more of this batch," if len(bad) > 1 else ""
            where = f"{sample_place(loader, int(bad[0]))}{more}"
            return NonFiniteError(
                f"{what} in {place}: the {kind} in {where} held NaN or infinity. Correct the data "
                f"or leave such samples out. {advice}".rstrip()
            )
    try:
        with detect_anomaly():
            again()
    except NonFiniteError as found:
        return NonFiniteError(
            f"{what} in {place}: {found} Lower the learning rate, clip the gradients "
            f"(train.GradientClipping), or look at the inputs of that step. {advice}".rstrip()
        )
    cause = "Lower the learning rate, or clip the gradients (train.GradientClipping)."
    return NonFiniteError(f"{what} in {place}. {cause} {advice}".rstrip())


def _bad_rows(values: Any) -> np.ndarray[Any, Any]:
    array = numbers(values)
    if array.dtype.kind not in "fc" or not array.ndim or is_finite(array):
        return np.array([], np.int64)
    return np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
