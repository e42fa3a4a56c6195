"""Checks and conventions that the functions of this room share.

Every check that looks at elements, and not only at shapes and dtypes, stands here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule import array as xp
from chainrule.array._core import as_tensor, concrete
from chainrule.errors import (
    ArgumentError,
    DTypeError,
    IndexingError,
    ShapeError,
    unknown_name,
    warn_at_users_line,
)
from chainrule.graph import program_tracer, state, told
from chainrule.primitives.checks import check, passing

REDUCTIONS = ("none", "mean", "sum")

_warned: set[str] = set()


def warn_once(key: str, message: str) -> None:
    """Warn of something once in the life of the process, at the user's own line."""
    if key not in _warned:
        warn_at_users_line(message)
        _warned.add(key)


def warn_of_training_mode(layer: Any, what: str) -> None:
    """Warn of a layer that does `what` in training and is evaluated: no gradient is recorded."""
    if layer.training and not state.grad_enabled:
        warn_once(
            "training mode",
            f"{type(layer).__name__} is in training mode and no gradient is recorded, as in an "
            f"evaluation: {what}. Call model.eval() before evaluating, and model.train() before "
            "training goes on. (This warning comes once.)",
        )


# --- reductions -----------------------------------------------------------------------------------


def check_reduction(reduction: str, known: Sequence[str] = REDUCTIONS) -> None:
    """Refuse a reduction that is not `known`."""
    if reduction not in known:
        raise unknown_name("reduction", reduction, known)


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that PyTorch's two older flags ask for; `reduction` where both are None."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        chosen = "none"
    else:
        chosen = "sum" if size_average is False else "mean"
    warn_once(
        "size_average",
        "size_average and reduce are the older names for what reduction says; "
        f"write reduction={chosen!r}.",
    )
    return chosen


def reduced(
    loss: Any, reduction: str, size_average: bool | None = None, reduce: bool | None = None
) -> Any:
    """The losses themselves ("none"), their mean, or their sum."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(reduction)
    if reduction == "none":
        return loss
    return xp.mean(loss) if reduction == "mean" else xp.sum(loss)


# --- shapes ---------------------------------------------------------------------------------------


def check_same_shape(name: str, **operands: Any) -> None:
    """Refuse operands of different shapes, which would broadcast in silence."""
    (first, x), *others = operands.items()
    for other, y in others:
        if x.shape != y.shape:
            fix = (
                f"write {other}.reshape({x.shape})"
                if x.size == y.size
                else f"give {other} the shape {x.shape}"
            )
            raise ShapeError(
                f"{name} takes {first} and {other} element by element, but {first} has shape "
                f"{x.shape} and {other} has shape {y.shape}; broadcasting would pair elements that "
                f"do not belong together. To compare them one to one, {fix}."
            )


# --- values ---------------------------------------------------------------------------------------


def _first(bad: Any) -> tuple[int, ...]:
    """The position of the first true element."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))


def place(position: tuple[int, ...]) -> str:
    """A position in words."""
    if not position:
        return "the one place"
    return f"position {position[0] if len(position) == 1 else position}"


def check_integers(name: str, what: str, x: Any) -> None:
    """Refuse indices that are no integers."""
    if x.dtype.kind not in "ui":
        raise DTypeError(
            f"{name} takes {what} as integers, but got {x.dtype.name} of shape {x.shape}; "
            "cast with .astype(cr.int64)."
        )


@dataclass(frozen=True)
class _BadLabel:
    """The error for labels of which one is no class."""

    name: str
    classes: int
    ignore_index: int | None

    def __call__(self, values: Any) -> Exception:
        bad = ~passing(values, 0, self.classes - 1, self.ignore_index, True)
        at = _first(bad)
        ignored = "" if self.ignore_index in (None, -100) else f", nor {self.ignore_index}"
        return IndexingError(
            f"{self.name} got label {values[at]} at {place(at)} of the targets, which is not one "
            f"of the {self.classes} classes 0 to {self.classes - 1}{ignored}. Check the labels, or "
            "the number of outputs of the last layer."
        )


def check_labels(name: str, labels: Any, classes: int, ignore_index: int | None = None) -> None:
    """Refuse labels that are no integers from 0 to classes - 1 (or `ignore_index`)."""
    check_integers(name, "class labels", labels)
    refuse = _BadLabel(name, classes, ignore_index)
    check(labels, low=0, high=classes - 1, ignore=ignore_index, nan=True, refuse=refuse)


@dataclass(frozen=True)
class _BadIndex:
    """The error for indices of which one is out of bounds."""

    name: str
    n: int
    of: str
    fix: str

    def __call__(self, values: Any) -> Exception:
        at = _first((values < 0) | (values >= self.n))
        return IndexingError(
            f"{self.name} got index {values[at]} at {place(at)} of the input, but there are "
            f"{self.n} {self.of}, 0 to {self.n - 1}. Check the indices, or raise {self.fix}."
        )


def check_indices(name: str, index: Any, n: int, of: str, fix: str) -> None:
    """Refuse indices outside 0, ..., n - 1; `of` names what is indexed, `fix` what to raise."""
    refuse = _BadIndex(name, n, of, fix)
    check(index, low=0, high=n - 1, ignore=None, nan=True, refuse=refuse)


@dataclass(frozen=True)
class _BadOffsets:
    """The error for the ends of bags that do not follow each other."""

    n: int

    def __call__(self, steps: Any) -> Exception:
        edges = np.cumsum(steps[::-1])[::-1]
        return ArgumentError(
            f"embedding_bag takes offsets that begin with 0 and rise to at most the {self.n} "
            f"indices there are, got bags that begin and end at {(self.n - edges[1:]).tolist()}."
        )


def check_offsets(edges: Any, n: int) -> None:
    """Refuse edges of bags that do not begin with 0, fall, or go beyond the n indices."""
    steps = xp.concat([-xp.abs(edges[:1]), edges[1:] - edges[:-1], n - edges[-1:]])
    check(steps, low=0, high=np.inf, ignore=None, nan=True, refuse=_BadOffsets(n))


@dataclass(frozen=True)
class _OutOfRange:
    """The error for elements of which one is outside a range."""

    name: str
    what: str
    low: float
    high: float
    fix: str

    def __call__(self, values: Any) -> Exception:
        at = _first((values < self.low) | (values > self.high))
        bounded = self.high < np.inf
        wanted = f"from {self.low:g} to {self.high:g}" if bounded else f"of at least {self.low:g}"
        return ArgumentError(
            f"{self.name} takes {self.what} {wanted}, but got {values[at]:g} at {place(at)}."
            + (f" {self.fix}" if self.fix else "")
        )


def check_range(
    name: str, what: str, x: Any, low: float, high: float = np.inf, fix: str = ""
) -> None:
    """Refuse elements outside [low, high]; NaN passes, so that it can be traced to its source."""
    refuse = _OutOfRange(name, what, low, high, fix)
    check(x, low=low, high=high, ignore=None, nan=True, refuse=refuse)


@dataclass(frozen=True)
class _BadSign:
    """The error for targets of which one is neither -1 nor +1."""

    name: str

    def __call__(self, values: Any) -> Exception:
        at = _first((values != 1) & (values != -1))
        return ArgumentError(
            f"{self.name} takes targets -1 and +1, but got {values[at]:g} at {place(at)}; labels 0 "
            "and 1 become -1 and +1 by 2 * target - 1."
        )


def check_signs(name: str, target: Any) -> None:
    """Refuse targets other than -1 and +1."""
    check(target, low=1, high=1, ignore=-1, nan=False, refuse=_BadSign(name))


def rows_are_probabilities(values: Any, axis: int) -> bool:
    """Whether all elements are from 0 to 1 and sum to 1 along `axis`."""
    if values.size == 0 or values.shape[axis] < 2:
        return False
    rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
    return all(
        bool((some >= 0).all() and (np.abs(some.sum(axis=1) - 1) < 1e-4).all())
        for some in (rows[:1], rows)  # scores almost always fail in the first row already
    )


def warn_of_probabilities(name: str, x: Any, axis: int, wanted: str) -> None:
    """Warn once where a loss that takes scores was given probabilities."""
    if name not in _warned:
        look = functools.partial(_look_for_probabilities, name, axis, wanted)
        look_once(x, look, makers=frozenset({"div", "mul"}))


def _look_for_probabilities(name: str, axis: int, wanted: str, values: Any) -> None:
    if rows_are_probabilities(values, axis):
        warn_once(
            name,
            f"{name} takes {wanted}, but every row of its input lies in [0, 1] and sums to 1, as "
            "after a softmax. The loss of probabilities is another one, flat and with small "
            "gradients: leave the softmax out, or if these are probabilities take cr.log of them "
            "and functional.nll_loss. (This warning comes once; warnings.simplefilter('ignore', "
            "ChainruleWarning) turns it off.)",
        )


def look_once(x: Any, look: Callable[[Any], None], makers: frozenset[str]) -> None:
    """Call `look` with the array of x: at once, or when a compiled function is first called.

    Then only if x was given to the function, or made by one of the operations `makers`.
    """
    if state.tracer is None:
        look(as_tensor(x)._array)
    elif state.tracer is program_tracer():
        state.tracer.probe(as_tensor(x), look, makers)


def lengths(name: str, what: str, x: Any) -> np.ndarray[Any, Any]:
    """A tuple, list or tensor of lengths as a NumPy array of int64."""
    tensor = as_tensor(told(x))
    check_integers(name, what, tensor)
    return np.asarray(concrete(tensor, name), dtype=np.int64)
