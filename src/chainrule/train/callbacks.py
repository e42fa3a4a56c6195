"""Callbacks: what happens around the steps of a run. A user's own derives from `Callback`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from chainrule.errors import ArgumentError, CheckpointError, require, unknown_name
from chainrule.files import make_folder
from chainrule.optim import clip_grad_norm_, clip_grad_value_
from chainrule.optim.lr_scheduler import ReduceLROnPlateau
from chainrule.serialize import load_state, save_state
from chainrule.train.history import higher_is_better

if TYPE_CHECKING:
    from chainrule.train.trainer import Trainer

Record = dict[str, float]


class Callback:
    """Base of callbacks. Every method may be left out; each gets the trainer.

    A run is a row of

        fit_start,
            (epoch_start, (gradients, step_end, after_step)*, epoch_end, after_epoch)*,
        fit_end

    and callbacks are called in the order in which the trainer has them. A run that goes on in the
    middle of an epoch begins with `fit_start` and goes on with that epoch's next `gradients`. A
    callback with a memory gives it out by `state_dict` and takes it back by `load_state_dict`, so
    that such a run goes on as if nothing had happened.

    Attributes:
        compiled: whether `gradients` is made of tensor operations alone, so that it can be part of
            the compiled step. Other callbacks that have one are called between two programs.
    """

    compiled: ClassVar[bool] = False

    def fit_start(self, trainer: Trainer) -> None:
        """The run begins, or goes on."""

    def epoch_start(self, trainer: Trainer) -> None:
        """An epoch begins."""

    def gradients(self, trainer: Trainer) -> None:
        """`backward` is done, the optimiser's step is not: the place to clip or look."""

    def step_end(self, trainer: Trainer) -> None:
        """A step is done."""

    def after_step(self, trainer: Trainer) -> None:
        """Every callback has seen the step's end: the time to write."""

    def epoch_end(self, trainer: Trainer, record: Record) -> None:
        """An epoch is over; numbers added to `record` become part of the history."""

    def after_epoch(self, trainer: Trainer) -> None:
        """Every callback has seen the epoch's end, and the record is part of the history."""

    def fit_end(self, trainer: Trainer) -> None:
        """The run is over, in whatever way: done (`trainer.finished`), interrupted or failed."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""


METHODS = (
    "fit_start", "epoch_start", "gradients", "step_end", "after_step", "epoch_end", "after_epoch",
    "fit_end",
)  # fmt: skip


class Lambda(Callback):
    """Callbacks from functions: `Lambda(step_end=lambda trainer: ...)`."""

    def __init__(self, **functions: Callable[..., None]):
        for name, function in functions.items():
            if name not in METHODS:
                raise unknown_name("callback method", name, METHODS)
            setattr(self, name, function)


class _Monitor:
    """Watches a number of the records and knows when it is better than ever."""

    def __init__(self, key: str, mode: str = "auto", min_delta: float = 0.0):
        if mode not in ("auto", "min", "max"):
            raise unknown_name("mode", mode, ("auto", "min", "max"))
        self.key, self.mode, self.min_delta = key, mode, abs(min_delta)
        self.best: float | None = None

    def better(self, trainer: Trainer, record: Record) -> bool:
        value = measure(record, self.key)
        if math.isnan(value):
            return False
        gain = math.inf if self.best is None else value - self.best
        if self.best is not None and not self._higher_is_better(trainer):
            gain = -gain
        if gain > self.min_delta:
            self.best = value
            return True
        return False

    def _higher_is_better(self, trainer: Trainer) -> bool:
        """By the mode, else by what the metric itself says, else by its name."""
        if self.mode != "auto":
            return self.mode == "max"
        for metric in trainer.metrics:
            if metric.name == self.key.removeprefix("val_"):
                return metric.higher_is_better
        return higher_is_better(self.key)


def measure(record: Record, key: str) -> float:
    """A number of a record.

    Raises:
        UnknownNameError: if it is not there.
    """
    if key not in record:
        hint = "Measures that begin with val_ need fit(..., validation=loader)."
        raise unknown_name("measure", key, record, hint if key.startswith("val_") else "")
    return float(record[key])


class EarlyStopping(Callback):
    """Stop when a measure has not become better for `patience` epochs.

    Arguments:
        monitor: the measure, such as `"val_loss"` (default).
        patience: epochs to wait for something better.
        min_delta: how much better counts as better.
        mode: `"min"`, `"max"`, or `"auto"`: down for losses and errors, up for metrics.
        restore_best: leave the model with the best epoch's weights when the run is done.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0,
        mode: str = "auto", restore_best: bool = False,
    ):  # fmt: skip
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ArgumentError(
                f"patience is a whole number of epochs from 1 on, got {patience!r}."
            )
        self.watch = _Monitor(monitor, mode, min_delta)
        self.patience, self.restore_best = patience, restore_best
        self.waited = 0
        self.weights: dict[str, Any] | None = None

    def epoch_end(self, trainer: Trainer, record: Record) -> None:
        if self.watch.better(trainer, record):
            self.waited = 0
            if self.restore_best:
                # Tensors are values: a detached one stays what it is while training goes on.
                self.weights = {k: v.detach() for k, v in trainer.model.state_dict().items()}
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.stop(f"{self.watch.key} has not improved for {self.patience} epochs")

    def fit_end(self, trainer: Trainer) -> None:
        if self.weights is not None and trainer.finished:
            trainer.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.watch.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.watch.best, self.waited = state["best"], state["waited"]
        self.weights = state["weights"]


class Checkpoint(Callback):
    """Keep the state of the run in a folder: `last.ckpt`, and `best.ckpt` by a measure.

    A checkpoint is one file, written atomically: weights, optimiser, schedules, random state, the
    loader's place, history. `fit(resume=folder)` goes on from `last.ckpt`.

    Arguments:
        folder: where to.
        monitor: the measure of the best; None keeps the last alone.
        mode: as in `EarlyStopping`.
        every_seconds: how often to save within an epoch (0: after each step); besides, at the end
            of each, and on Ctrl-C.
    """

    LAST, BEST = "last.ckpt", "best.ckpt"

    def __init__(
        self, folder: str | os.PathLike[str], monitor: str | None = None, mode: str = "auto",
        every_seconds: float = 30.0,
    ):  # fmt: skip
        self.folder = Path(folder)
        self.watch = None if monitor is None else _Monitor(monitor, mode)
        self.every_seconds = every_seconds
        self.saved = time.monotonic()
        self.is_best = False

    def fit_start(self, trainer: Trainer) -> None:
        make_folder(self.folder)
        if trainer.resumed_from is None:
            self.save(trainer)

    def after_step(self, trainer: Trainer) -> None:
        if time.monotonic() - self.saved >= self.every_seconds:
            self.save(trainer)

    def epoch_end(self, trainer: Trainer, record: Record) -> None:
        self.is_best = self.watch is not None and self.watch.better(trainer, record)

    def after_epoch(self, trainer: Trainer) -> None:
        # The best first: a kill between the two leaves a last one that comes to this epoch again.
        if self.is_best:
            save_state(trainer.state_dict(), self.folder / self.BEST)
        self.save(trainer)

    def fit_end(self, trainer: Trainer) -> None:
        if trainer.history.interrupted:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt` now."""
        save_state(trainer.state_dict(), self.folder / self.LAST)
        self.saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"best": None if self.watch is None else self.watch.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.watch is not None:
            self.watch.best = state["best"]


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state in a checkpoint: a file, or the `last.ckpt` of a folder."""
    path = Path(path)
    file = path / Checkpoint.LAST if path.is_dir() else path
    if not file.exists():
        raise CheckpointError(
            f"there is no checkpoint at {os.fspath(file)!r}; give the folder of an earlier run, or "
            "start a new one without resume."
        )
    return load_state(file)


class Schedule(Callback):
    """Drive a learning-rate schedule of `chainrule.optim`.

    Arguments:
        scheduler: the schedule, made on the trainer's optimiser.
        interval: `"epoch"` or `"step"`.
        monitor: the measure to pass to `ReduceLROnPlateau`, such as `"val_loss"`.
    """

    def __init__(self, scheduler: Any, interval: str = "epoch", monitor: str | None = None):
        if interval not in ("epoch", "step"):
            raise unknown_name("interval", interval, ("epoch", "step"))
        plateau = isinstance(scheduler, ReduceLROnPlateau)
        if plateau != (monitor is not None):
            raise ArgumentError(
                "ReduceLROnPlateau watches a measure: name it, such as monitor='val_loss'."
                if plateau
                else f"{type(scheduler).__name__} watches no measure; leave monitor out."
            )
        if plateau and interval == "step":
            raise ArgumentError("a schedule that watches a measure has the interval 'epoch'.")
        self.scheduler, self.interval, self.monitor = scheduler, interval, monitor

    def step_end(self, trainer: Trainer) -> None:
        if self.interval == "step":
            self.scheduler.step()

    def epoch_end(self, trainer: Trainer, record: Record) -> None:
        if self.interval != "epoch":
            return
        if self.monitor is None:
            self.scheduler.step()
        else:
            self.scheduler.step(measure(record, self.monitor))

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state)


class GradientClipping(Callback):
    """Clip gradients before each step, by their global norm or by value.

    Arguments:
        norm: rescale all gradients together so that their norm is at most this.
        value: cut each element to [-value, value].
    """

    compiled = True

    def __init__(self, norm: float | None = None, value: float | None = None):
        if (norm is None) == (value is None):
            raise ArgumentError("give either norm= or value=.")
        bound = norm if value is None else value
        if bound is None or not 0 < bound < math.inf:
            raise ArgumentError(f"gradients are clipped to a positive number, got {bound}.")
        self.norm, self.value = norm, value

    def gradients(self, trainer: Trainer) -> None:
        parameters = [p for p in trainer.model.parameters() if p.grad is not None]
        if self.norm is not None:
            clip_grad_norm_(parameters, self.norm)
        elif self.value is not None:
            clip_grad_value_(parameters, self.value)


class CSVLogger(Callback):
    """Write the history to a CSV file after each epoch (atomically, and whole: it can resume)."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def after_epoch(self, trainer: Trainer) -> None:
        trainer.history.to_csv(self.path)


class TensorBoard(Callback):
    """Write scalars of each epoch for TensorBoard (extra `tensorboard`)."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.writer: Any = None

    def fit_start(self, trainer: Trainer) -> None:
        module = require(
            "tensorboard.summary", extra="tensorboard", purpose="write TensorBoard logs"
        )
        self.writer = module.Writer(os.fspath(make_folder(self.folder)))

    def epoch_end(self, trainer: Trainer, record: Record) -> None:
        for key, value in record.items():
            if key != "epoch":
                name = key.removeprefix("val_")
                group = "validation" if key.startswith("val_") else "training"
                self.writer.add_scalar(f"{name}/{group}", float(value), int(record["epoch"]))
        self.writer.flush()

    def fit_end(self, trainer: Trainer) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
