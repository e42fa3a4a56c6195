"""The Trainer: epochs of steps, measured, logged, resumable."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import random
from chainrule.autograd.anomaly import detect_anomaly
from chainrule.autograd.modes import no_grad
from chainrule.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    NonFiniteError,
    ShapeError,
)
from chainrule.nn import CrossEntropyLoss
from chainrule.optim import LBFGS
from chainrule.train.callbacks import Callback, Checkpoint, read_checkpoint
from chainrule.train.history import History
from chainrule.train.interrupt import Interrupt
from chainrule.train.metrics import Metric, make_metric
from chainrule.train.progress import Progress, make_progress


class Trainer:
    """Trains, evaluates and applies a model.

    Arguments:
        model: a module, called as `model(inputs)`.
        optimizer: an optimiser over its parameters; may be None for evaluation alone.
        loss: called as `loss(outputs, targets)`, gives a scalar. Default: cross entropy.
        metrics: names (`"accuracy"`, `"top5"`, `"f1"`, `"r2"`, `"mae"`, ...) or `Metric` objects.
        callbacks: see `chainrule.train.callbacks`.
        compile: compile the step (`cr.compile`).
        out: a folder for checkpoints (`last.ckpt`, `best.ckpt`); the same as a `Checkpoint` callback.
        seed: seeds the default random generator when a new run begins (dropout draws from it).
        progress: True for a bar or lines, False for silence, or a `Progress`.

    Batches are tuples `(inputs, targets)`, as `data.DataLoader` gives them.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any = None,
        loss: Callable[..., Any] | None = None,
        metrics: Sequence[str | Metric] = (),
        callbacks: Sequence[Callback] = (),
        *,
        compile: bool = True,
        out: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        progress: bool | Progress | None = None,
    ):
        self.model, self.optimizer = model, optimizer
        self.loss = CrossEntropyLoss() if loss is None else loss
        self.metrics = [make_metric(m) for m in ([metrics] if isinstance(metrics, str) else metrics)]
        self.callbacks = list(callbacks)
        if out is not None:
            self.callbacks.append(Checkpoint(out))
        self.seed, self._progress = seed, progress
        self.history = History()
        self.epoch, self.step = 0, 0
        self.resumed_from: str | None = None
        self._loader: Any = None
        self._sums = _Sums()
        self._stop: str | None = None
        run = self._train_step
        self._run_step = cr.compile(run) if compile else run

    # --- the step ---------------------------------------------------------------------------------

    def _forward_backward(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        self.optimizer.zero_grad()
        outputs = self.model(inputs)
        loss = self.loss(outputs, targets)
        if loss.size != 1:
            raise ShapeError(
                f"the loss must be a scalar, but has shape {loss.shape}; use reduction='mean'."
            )
        loss.backward()
        return loss, outputs

    def _train_step(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        if isinstance(self.optimizer, LBFGS):
            return self._closure_step(inputs, targets)
        loss, outputs = self._forward_backward(inputs, targets)
        self._check_finite(loss)
        self._call("gradients")
        self.optimizer.step()
        return loss, outputs

    def _closure_step(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """LBFGS evaluates the loss as often as its line search asks for."""
        first: list[Any] = []

        def closure() -> Any:
            loss, outputs = self._forward_backward(inputs, targets)
            self._check_finite(loss)
            self._call("gradients")
            first.append((loss, outputs))
            return loss

        self.optimizer.step(closure)
        return first[0]

    def _check_finite(self, loss: Any) -> None:
        """Stop before the optimiser's step if the loss or a gradient is NaN or infinite."""
        if not np.isfinite(loss._array).all():
            raise _NotFinite(f"the loss is {loss.item()}")
        for name, parameter in self.model.named_parameters():
            g = parameter.grad
            # One pass of sums finds every NaN and infinity; a finite sum of finite numbers may
            # overflow, so look closely before complaining.
            if g is not None and not np.isfinite(g._array.sum(dtype=np.float64)):
                if not np.isfinite(g._array).all():
                    raise _NotFinite(f"the gradient of {name!r} is not finite")

    def _explain_non_finite(self, inputs: Any, targets: Any, before: Any, what: str) -> None:
        """Run the step again, looking at every number, and say where it went wrong."""
        place = f"epoch {self.epoch + 1}, step {self.step + 1}"
        kept = next((c.folder / c.LAST for c in self.callbacks if isinstance(c, Checkpoint)), None)
        advice = "Lower the learning rate, clip the gradients, or look at the inputs of that step."
        if kept is not None:
            advice += f" The last good checkpoint is {os.fspath(kept)!r}."
        random.set_state(before)
        try:
            with detect_anomaly():
                self._forward_backward(inputs, targets)
        except NonFiniteError as found:
            raise NonFiniteError(f"{what} in {place}: {found} {advice}") from None
        finally:
            self.optimizer.zero_grad()
        source = "the inputs" if not np.isfinite(_array(inputs)).all() else "the parameters"
        raise NonFiniteError(
            f"{what} in {place}: {source} held NaN or infinity before the step began. {advice}"
        )

    # --- fit --------------------------------------------------------------------------------------

    def fit(
        self,
        loader: Any,
        validation: Any = None,
        epochs: int = 1,
        resume: str | os.PathLike[str] | bool | None = None,
    ) -> History:
        """Train until `epochs` epochs are done.

        Arguments:
            loader: batches `(inputs, targets)`, iterable once for each epoch.
            validation: batches to measure after each epoch (`val_loss`, ...), never trained on.
            epochs: the number of epochs of the whole run; a second `fit` goes on for as many again.
            resume: a checkpoint or its folder (True: that of `out`) to go on from; the run
                continues bit for bit, in the middle of an epoch too.

        Returns the history. Ctrl-C finishes the step at hand, saves and returns
        (`history.interrupted`).

        Raises:
            NonFiniteError: if the loss or a gradient becomes NaN or infinite; the message says
                where, and the weights are those before that step.
        """
        if self.optimizer is None:
            raise ArgumentError("fit needs an optimiser: Trainer(model, optim.SGD(...)).")
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
            raise ArgumentError(f"epochs is a whole number from 1 on, got {epochs!r}.")
        self._loader, self._stop = loader, None
        self.history.interrupted, self.history.stopped = False, None
        goal = self.epoch + epochs
        if resume:
            self._resume(resume)
            goal = epochs
        elif self._sums.steps:
            # An interrupted epoch goes on where it was left, in the same process too.
            self.load_state_dict(self.state_dict())
        elif self.seed is not None and self.epoch == 0:
            random.manual_seed(self.seed)
        progress = make_progress(self._progress)
        try:
            with Interrupt() as interrupt:
                self._call("fit_start")
                if self.resumed_from is not None and self.epoch < goal:
                    progress.note(f"resuming {self.resumed_from} at step {self.step}")
                while self.epoch < goal and self._stop is None and not interrupt.requested:
                    self._fit_epoch(loader, validation, goal, progress, interrupt)
                self.history.interrupted = interrupt.requested
                self.history.stopped = self._stop
                self._call("fit_end")
                if interrupt.requested:
                    progress.note("interrupted; the state of the last step is kept")
                elif self._stop is not None:
                    progress.note(f"stopped: {self._stop}")
        finally:
            progress.close()
        return self.history

    def stop(self, reason: str) -> None:
        """End the run after this epoch; for callbacks."""
        self._stop = reason

    def _fit_epoch(
        self, loader: Any, validation: Any, goal: int, progress: Progress, interrupt: Interrupt
    ) -> None:
        sums = self._sums
        steps = len(loader) if hasattr(loader, "__len__") else None
        progress.epoch(self.epoch + 1, goal, steps, sums.steps)
        if sums.steps == 0:
            self._call("epoch_start")
        self.model.train()
        begun, earlier = time.monotonic(), sums.seconds
        for batch in loader:
            inputs, targets = _pair(batch)
            self._one_step(inputs, targets)
            sums.seconds = earlier + time.monotonic() - begun
            progress.step(len(inputs), self._numbers())
            if interrupt.requested:
                return
        if sums.steps == 0:
            raise DataError("the loader gave no batch, so there is nothing to train on.")
        record = {"epoch": self.epoch + 1, "steps": self.step, **self._numbers()}
        if validation is not None:
            measured = self.evaluate(validation)
            record.update({f"val_{key}": value for key, value in measured.items()})
        record["lr"] = float(self.optimizer.param_groups[0]["lr"])
        record["seconds"] = earlier + time.monotonic() - begun
        record["samples_per_second"] = sums.samples / max(sums.seconds, 1e-9)
        self._call("epoch_end", record)
        self.history.append(record)
        self.epoch += 1
        self._sums = _Sums()
        for metric in self.metrics:
            metric.reset()
        self._call("epoch_saved")
        progress.record(record)

    def _one_step(self, inputs: Any, targets: Any) -> None:
        before = random.get_state()
        try:
            loss, outputs = self._run_step(inputs, targets)
        except _NotFinite as found:
            self._explain_non_finite(inputs, targets, before, str(found))
            raise
        self.step += 1
        self._sums.add(float(loss), len(inputs))
        self._measure(outputs, targets)
        self._call("step_end")

    def _measure(self, outputs: Any, targets: Any) -> None:
        scores, truth = _array(outputs), _array(targets)
        for metric in self.metrics:
            metric.update(scores, truth)

    def _numbers(self) -> dict[str, float]:
        return {"loss": self._sums.loss, **{m.name: m.compute() for m in self.metrics}}

    def _call(self, name: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, name)(self, *arguments)

    # --- evaluate and predict ---------------------------------------------------------------------

    def evaluate(self, loader: Any) -> dict[str, float]:
        """Loss and metrics over the batches of a loader, in evaluation mode."""
        kept = [m.state_dict() for m in self.metrics]
        for metric in self.metrics:
            metric.reset()
        sums = _Sums()
        training = self.model.training
        self.model.eval()
        try:
            with no_grad():
                for batch in loader:
                    inputs, targets = _pair(batch)
                    outputs = self.model(inputs)
                    sums.add(float(self.loss(outputs, targets)), len(inputs))
                    self._measure(outputs, targets)
            if sums.steps == 0:
                raise DataError("the loader gave no batch, so there is nothing to evaluate.")
            return {"loss": sums.loss, **{m.name: m.compute() for m in self.metrics}}
        finally:
            self.model.train(training)
            for metric, state in zip(self.metrics, kept, strict=True):
                metric.load_state_dict(state)

    def predict(self, inputs: Any, batch_size: int = 256) -> Any:
        """The model's outputs, in evaluation mode, as one tensor.

        `inputs` is a loader (of batches, with or without targets) or an array of samples.
        """
        training = self.model.training
        self.model.eval()
        try:
            with no_grad():
                parts = [self.model(x) for x in _batches(inputs, batch_size)]
        finally:
            self.model.train(training)
        if not parts:
            raise DataError("there are no inputs to predict from.")
        return cr.concat(parts)

    # --- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on bit for bit."""
        loader = self._loader
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "sums": vars(self._sums).copy(),
            "metrics": [m.state_dict() for m in self.metrics],
            "random": random.get_state(),
            "loader": loader.state_dict() if hasattr(loader, "state_dict") else None,
            "history": [dict(r) for r in self.history.records],
            "callbacks": [c.state_dict() for c in self.callbacks],
            "stopped": self._stop,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the model, optimiser and callbacks must be those of the run."""
        callbacks, metrics = state["callbacks"], state["metrics"]
        if len(callbacks) != len(self.callbacks) or len(metrics) != len(self.metrics):
            raise CheckpointError(
                f"the checkpoint is of a run with {len(callbacks)} callbacks and {len(metrics)} "
                f"metrics, but this trainer has {len(self.callbacks)} and {len(self.metrics)}; "
                "make the trainer as it was."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self._sums = _Sums(**state["sums"])
        for metric, kept in zip(self.metrics, metrics, strict=True):
            metric.load_state_dict(kept)
        for callback, kept in zip(self.callbacks, callbacks, strict=True):
            callback.load_state_dict(kept)
        random.set_state(state["random"])
        if state["loader"] is not None and hasattr(self._loader, "load_state_dict"):
            self._loader.load_state_dict(state["loader"])
        elif self._sums.steps:
            raise CheckpointError(
                "the checkpoint lies in the middle of an epoch and this loader cannot continue "
                "there; use data.DataLoader, or a loader with state_dict and load_state_dict."
            )
        self.history.records = list(state["history"])
        self._stop = state["stopped"]

    def _resume(self, resume: str | os.PathLike[str] | bool) -> None:
        if resume is True:
            folders = [c.folder for c in self.callbacks if isinstance(c, Checkpoint)]
            if not folders:
                raise ArgumentError("resume=True needs a trainer with out= or a Checkpoint.")
            resume = folders[0]
        self.load_state_dict(read_checkpoint(resume))
        self.resumed_from = os.fspath(resume)


class _NotFinite(Exception):
    """A step met NaN or infinity; `_explain_non_finite` turns it into an error for the user."""


class _Sums:
    """The running loss of an epoch."""

    def __init__(
        self, total: float = 0.0, samples: int = 0, steps: int = 0, seconds: float = 0.0
    ):
        self.total, self.samples, self.steps, self.seconds = total, samples, steps, seconds

    def add(self, loss: float, samples: int) -> None:
        self.total += loss * samples
        self.samples += samples
        self.steps += 1

    @property
    def loss(self) -> float:
        return self.total / self.samples if self.samples else float("nan")


def _array(x: Any) -> np.ndarray[Any, Any]:
    """The numbers behind a tensor (or array), graph or not."""
    return x.detach().numpy() if isinstance(x, cr.Tensor) else np.asarray(x)


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        kind = f"{type(batch).__name__}"
        raise DataError(
            f"the trainer expects batches (inputs, targets), but the loader gave a {kind}"
            + (f" of {len(batch)}." if isinstance(batch, tuple | list) else ".")
        )
    return batch[0], batch[1]


def _batches(inputs: Any, batch_size: int) -> Iterable[Any]:
    if isinstance(inputs, cr.Tensor | np.ndarray):
        tensor = cr.asarray(inputs)
        for start in range(0, len(tensor), batch_size):
            yield tensor[start : start + batch_size]
    else:
        for batch in inputs:
            yield batch[0] if isinstance(batch, tuple | list) else batch
