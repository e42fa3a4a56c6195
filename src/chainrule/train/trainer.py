"""The Trainer: epochs of steps, measured, logged, resumable."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import chainrule as cr
from chainrule import random
from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError, CheckpointError, DataError
from chainrule.nn import BCELoss, CrossEntropyLoss
from chainrule.train import nonfinite
from chainrule.train.batches import check_loader, input_batches, numbers, pair, sample_count
from chainrule.train.callbacks import Callback, Checkpoint, read_checkpoint
from chainrule.train.history import History
from chainrule.train.interrupt import Interrupt
from chainrule.train.metrics import Metric, make_metrics
from chainrule.train.progress import Progress, make_progress
from chainrule.train.step import Step, make_evaluation


class Trainer:
    """Trains, evaluates and applies a model.

    Arguments:
        model: a module, called as `model(inputs)`.
        optimizer: an optimiser over its parameters; may be None for evaluation alone.
        loss: called as `loss(outputs, targets)`, gives a scalar. Default: cross entropy. Over an
            epoch the losses of the batches are averaged, weighted by their numbers of samples.
        metrics: names (`"accuracy"`, `"top5"`, `"f1"`, `"r2"`, `"mae"`, ...) or `Metric` objects.
        callbacks: see `chainrule.train.callbacks`; they are called in this order.
        compile: compile the step, and evaluation (`cr.compile`). A model, loss or callback that
            looks at numbers in Python (`if`, `float(x)`) cannot be compiled and needs False; of
            callbacks only those that say so (`compiled = True`) are part of the program.
        out: a folder for checkpoints (`last.ckpt`); the same as a last callback `Checkpoint(out)`.
        seed: seeds the default random generator when a new run begins (dropout draws from it).
        progress: None or True for a bar in a terminal and lines elsewhere, False for silence, or a
            `Progress`.

    Attributes:
        history: a record for each epoch done.
        epoch, step: how many are done.
        finished: whether the last `fit` came to its end, by its number of epochs or by `stop`.

    Batches are pairs `(inputs, targets)`, as `data.DataLoader` gives them. `fit` puts the model in
    training mode when it begins; a callback's `fit_start` may put parts of it back
    (`trainer.model.bn.eval()`). `evaluate` and `predict` put the model in evaluation mode, and each
    of its parts back afterwards; they record no graph and leave the random state as it was.
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
        # BCELoss takes probabilities, every other loss logits.
        self.metrics = make_metrics(metrics, 0.5 if isinstance(loss, BCELoss) else 0.0)
        self.callbacks = list(callbacks)
        if out is not None:
            self.callbacks.append(Checkpoint(out))
        self.seed, self._progress = seed, progress
        self.history = History()
        self.epoch, self.step, self.finished = 0, 0, False
        self.resumed_from: str | None = None
        self._loader: Any = None
        self._sums = _Sums()
        self._stop: str | None = None
        self.compile = compile
        self._step: Step | None = None
        self._measure, self._apply = make_evaluation(model, self.loss, compile)

    # --- the step ---------------------------------------------------------------------------------

    def _one_step(self, inputs: Any, targets: Any) -> None:
        if self._step is None:
            self._step = Step(self, self.compile)
        try:
            loss, outputs = self._step(inputs, targets)
        except nonfinite.NotFinite as found:
            raise self._explained(str(found), inputs, targets) from None
        self.step += 1
        self._sums.add(float(loss), sample_count(inputs, targets))
        _measure(self.metrics, outputs, targets)
        self._call("step_end")
        self._call("after_step")

    def _explained(self, what: str, inputs: Any, targets: Any) -> Exception:
        kept = [c.folder / c.LAST for c in self.callbacks if isinstance(c, Checkpoint)]
        advice = f"The last good checkpoint is {os.fspath(kept[0])!r}." if kept else ""
        assert self._step is not None
        again = functools.partial(self._step.again, inputs, targets)
        place = f"epoch {self.epoch + 1}, step {self.step + 1}"
        try:
            return nonfinite.explain(what, place, advice, again, inputs, targets, self._loader)
        finally:
            self.optimizer.zero_grad()

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

        Returns the history. Ctrl-C (or SIGTERM) finishes the step at hand, saves and returns
        (`history.interrupted`); a second one raises KeyboardInterrupt at once.

        Raises:
            NonFiniteError: if the loss, a gradient or a parameter becomes NaN or infinite; the
                message says where it began, and the model is as it was before that step.
            DataError: if the loader gives no batch, or something else than pairs.
            CheckpointError: if `resume` names no checkpoint, a damaged one, or that of another run.
        """
        check_loader(loader, "fit")
        if validation is not None:
            check_loader(validation, "validation")
        goal = self._begin(loader, epochs, resume)
        if self._step is not None and not self._step.fits(self):
            self._step = None
        self.finished, self.history.interrupted, self.history.stopped = False, False, None
        self.model.train()
        with Interrupt() as interrupt, contextlib.ExitStack() as leaving:
            progress = make_progress(self._progress)
            leaving.callback(progress.close)
            leaving.callback(self._call, "fit_end")
            self._call("fit_start")
            if self.resumed_from is not None and self.epoch < goal:
                progress.note(f"going on from {self.resumed_from} after step {self.step}")
            while self.epoch < goal and self._stop is None and not interrupt.requested:
                self._fit_epoch(loader, validation, goal, progress, interrupt)
            self.history.interrupted, self.history.stopped = interrupt.requested, self._stop
            self.finished = not interrupt.requested
            if interrupt.requested:
                progress.note(f"interrupted after step {self.step}")
            elif self._stop is not None:
                progress.note(f"stopped: {self._stop}")
        return self.history

    def _begin(self, loader: Any, epochs: int, resume: Any) -> int:
        """Make ready to train; returns the number of epochs after which the run is over."""
        if self.optimizer is None:
            raise ArgumentError("fit needs an optimiser: Trainer(model, optim.SGD(...)).")
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
            raise ArgumentError(f"epochs is a whole number from 1 on, got {epochs!r}.")
        self._stop = None
        if resume:
            self._loader = loader
            self._resume(resume)
            return epochs
        if self._sums.steps:  # an interrupted epoch goes on where it was left
            if loader is not self._loader:
                raise ArgumentError(
                    f"epoch {self.epoch + 1} was left after {self._sums.steps} steps and goes on "
                    "with the loader it was begun with; pass that one, or make a new Trainer."
                )
            self._place_loader(self._loader_state())
        elif self.seed is not None and self.epoch == 0:
            random.manual_seed(self.seed)
        self._loader = loader
        return self.epoch + epochs

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
        begun, earlier = time.monotonic(), sums.seconds
        for batch in () if sums.complete else loader:
            inputs, targets = pair(batch)
            self._one_step(inputs, targets)
            sums.seconds = earlier + time.monotonic() - begun
            progress.step(sample_count(inputs, targets), self._numbers)
            if interrupt.requested:
                return
        if sums.steps == 0:
            raise DataError("the loader gave no batch, so there is nothing to train on.")
        sums.complete = True
        record: dict[str, float] = {"epoch": self.epoch + 1, "steps": self.step, **self._numbers()}
        if validation is not None:
            progress.validation()
            measured = self._evaluate(validation, interrupt)
            if measured is None:
                return
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
        self._call("after_epoch")
        progress.record(record)

    def _numbers(self) -> dict[str, float]:
        return _results(self._sums, self.metrics)

    def _call(self, name: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, name)(self, *arguments)

    # --- evaluate and predict ---------------------------------------------------------------------

    def evaluate(self, loader: Any) -> dict[str, float]:
        """Loss and metrics over the batches of a loader, in evaluation mode."""
        check_loader(loader, "evaluate")
        measured = self._evaluate(loader, None)
        assert measured is not None
        return measured

    def _evaluate(self, loader: Any, interrupt: Interrupt | None) -> dict[str, float] | None:
        """The measures; None if Ctrl-C came before they were complete."""
        metrics, sums = copy.deepcopy(self.metrics), _Sums()
        for metric in metrics:
            metric.reset()
        with _evaluation_mode(self.model):
            for batch in loader:
                inputs, targets = pair(batch)
                loss, outputs = self._measure(inputs, targets)
                sums.add(float(loss), sample_count(inputs, targets))
                _measure(metrics, outputs, targets)
                if interrupt is not None and interrupt.requested:
                    return None
        if sums.steps == 0:
            raise DataError("the loader gave no batch, so there is nothing to evaluate.")
        return _results(sums, metrics)

    def predict(self, inputs: Any, batch_size: int = 256) -> Any:
        """The model's outputs, in evaluation mode, as one tensor.

        Arguments:
            inputs: an array of samples, a data set, or a loader; targets in it are passed over.
            batch_size: samples at a time, unless a loader decides.
        """
        with _evaluation_mode(self.model):
            parts = [self._apply(x) for x in input_batches(inputs, batch_size)]
        if not parts:
            raise DataError("there are no inputs to predict from.")
        return cr.concat(parts)

    # --- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on bit for bit."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "sums": vars(self._sums).copy(),
            "random": random.get_state(),
            "loader": self._loader_state(),
            "history": [dict(record) for record in self.history.records],
            "stopped": self._stop,
            "metrics": [[m.name, m.state_dict()] for m in self.metrics],
            "callbacks": [[type(c).__name__, c.state_dict()] for c in self.callbacks],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the model, optimiser, metrics and callbacks must be those of the run.

        Raises:
            CheckpointError: if they are not.
        """
        lacking = self.state_dict().keys() - (state.keys() if isinstance(state, dict) else ())
        if lacking:
            raise CheckpointError(
                f"this is not the state of a trainer: it has no {', '.join(sorted(lacking))}."
            )
        for what, mine in (
            ("metrics", [m.name for m in self.metrics]),
            ("callbacks", [type(c).__name__ for c in self.callbacks]),
        ):
            kept = [name for name, _ in state[what]]
            if kept != mine:
                raise CheckpointError(
                    f"the checkpoint is of a run with the {what} {kept}, but this trainer has "
                    f"{mine}; make the trainer as it was."
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self._sums = _Sums(**state["sums"])
        for metric, (_, kept) in zip(self.metrics, state["metrics"], strict=True):
            metric.load_state_dict(kept)
        for callback, (_, kept) in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(kept)
        random.set_state(state["random"])
        self._place_loader(state["loader"])
        self.history.records = list(state["history"])
        self._stop = state["stopped"]

    def _loader_state(self) -> Any:
        return self._loader.state_dict() if hasattr(self._loader, "state_dict") else None

    def _place_loader(self, place: Any) -> None:
        """Let the loader go on where it was."""
        if place is not None and hasattr(self._loader, "load_state_dict"):
            self._loader.load_state_dict(place)
        elif self._sums.steps and not self._sums.complete:
            raise CheckpointError(
                "the run was left in the middle of an epoch and this loader cannot continue there; "
                "use data.DataLoader, or a loader with state_dict and load_state_dict."
            )

    def _resume(self, resume: str | os.PathLike[str] | bool) -> None:
        if isinstance(resume, bool):
            folders = [c.folder for c in self.callbacks if isinstance(c, Checkpoint)]
            if not folders:
                raise ArgumentError("resume=True needs a trainer with out= or a Checkpoint.")
            resume = folders[0]
        self.load_state_dict(read_checkpoint(resume))
        self.resumed_from = os.fspath(resume)


class _Sums:
    """What an epoch has come to so far.

    Attributes:
        total: the sum of the losses, each times the samples of its batch.
        samples, steps, seconds: how many.
        complete: whether all batches are done, and only the epoch's end is left.
    """

    def __init__(
        self, total: float = 0.0, samples: int = 0, steps: int = 0, seconds: float = 0.0,
        complete: bool = False,
    ):  # fmt: skip
        self.total, self.samples, self.steps, self.seconds = total, samples, steps, seconds
        self.complete = complete

    def add(self, loss: float, samples: int) -> None:
        self.total += loss * samples
        self.samples += samples
        self.steps += 1

    @property
    def loss(self) -> float:
        return self.total / self.samples if self.samples else float("nan")


def _results(sums: _Sums, metrics: Sequence[Metric]) -> dict[str, float]:
    return {"loss": sums.loss, **{metric.name: float(metric.compute()) for metric in metrics}}


def _measure(metrics: Sequence[Metric], outputs: Any, targets: Any) -> None:
    if metrics:
        scores, truth = numbers(outputs), numbers(targets)
        for metric in metrics:
            metric.update(scores, truth)


@contextlib.contextmanager
def _evaluation_mode(model: Any) -> Iterator[None]:
    """Evaluation mode without graphs; then all modules' modes and the random state are put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad(), random.preserved():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
