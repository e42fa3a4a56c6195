"""One step of training, compiled or eager, that leaves the model as it was where it fails.

| | eagerly | compiled |
| --- | --- | --- |
| forward, backward, checks, callbacks' `gradients`, update | one after the other | one program |
| with callbacks that look at gradients in Python | the same | a program, Python, a program |
| LBFGS | the same | eagerly: it chooses its next evaluation by the numbers of the last |

A program looks for NaN and infinity before it writes anything over. Eagerly, and between two
programs, the model's values before the step are kept and put back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chainrule as cr
from chainrule import random
from chainrule.errors import ShapeError
from chainrule.optim import LBFGS
from chainrule.train import nonfinite
from chainrule.train.callbacks import Callback


class Step:
    """The step of a trainer: `step(inputs, targets) -> (loss, outputs)`.

    Arguments:
        trainer: whose model, optimiser, loss and callbacks.
        compile: whether to compile it.

    Raises:
        NotFinite: if the loss, a gradient or a parameter becomes NaN or infinite; the model is as
            it was before the step.
    """

    def __init__(self, trainer: Any, compile: bool):
        self.trainer = trainer
        self.model, self.optimizer, self.loss = trainer.model, trainer.optimizer, trainer.loss
        looking = [c for c in trainer.callbacks if looks_at_gradients(c)]
        self.callbacks: list[Callback] = looking
        self.random_before = random.get_state()
        compiled = compile and not isinstance(self.optimizer, LBFGS)
        self._whole = compiled and all(c.compiled for c in looking)
        wrap: Callable[..., Any] = cr.compile if compiled else _as_it_is
        self._forward_backward = wrap(self._make_forward_backward())
        self._update = wrap(self._make_update())
        self._program = self._make_whole() if self._whole else None
        self._settings = self._current_settings()

    # --- the parts, as functions of what they need ------------------------------------------------

    def _make_forward_backward(self) -> Callable[[Any, Any], tuple[Any, Any]]:
        model, optimizer, loss_of = self.model, self.optimizer, self.loss

        def forward_backward(inputs: Any, targets: Any) -> tuple[Any, Any]:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = loss_of(outputs, targets)
            if loss.size != 1:
                raise ShapeError(
                    f"the loss must be a scalar, but has shape {loss.shape}; use reduction='mean'."
                )
            loss.backward()
            return loss, outputs

        return forward_backward

    def _make_update(self) -> Callable[[], None]:
        optimizer = self.optimizer

        def update() -> None:
            optimizer.step()

        return update

    def _make_whole(self) -> Callable[..., tuple[Any, Any]]:
        forward_backward, trainer = self._make_forward_backward(), self.trainer
        model, optimizer, callbacks = self.model, self.optimizer, self.callbacks

        def step(inputs: Any, targets: Any) -> tuple[Any, Any]:
            loss, outputs = forward_backward(inputs, targets)
            nonfinite.check_loss_and_gradients(model, loss)
            for callback in callbacks:
                callback.gradients(trainer)
            optimizer.step()
            nonfinite.check_parameters(model)
            return loss, outputs

        return cr.compile(step)

    # --- running ----------------------------------------------------------------------------------

    def __call__(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        self.random_before = random.get_state()
        if self._program is not None:
            if self._settings != (settings := self._current_settings()):
                self._settings, self._program = settings, self._make_whole()
            try:
                return self._program(inputs, targets)
            except nonfinite.NotFinite as found:
                raise self._first_cause(inputs, targets) or found from None
        before = self.model.state_dict()  # tensors are values: this keeps what they were
        try:
            result = self._in_parts(inputs, targets)
            nonfinite.check_parameters(self.model)
            return result
        except nonfinite.NotFinite:
            self.model.load_state_dict(before)
            raise

    def _in_parts(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        if not isinstance(self.optimizer, LBFGS):
            result = self._checked(inputs, targets)
            self._update()
            return result
        # LBFGS evaluates the loss as often as its line search asks for, and that must be one
        # function: dropout draws the same masks each time.
        evaluations: list[tuple[Any, Any]] = []
        state = self.random_before

        def closure() -> Any:
            random.set_state(state)
            evaluations.append(self._checked(inputs, targets))
            return evaluations[-1][0]

        self.optimizer.step(closure)
        return evaluations[0]

    def _checked(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """Loss and gradients that the optimiser may use."""
        loss, outputs = self._forward_backward(inputs, targets)
        nonfinite.check_loss_and_gradients(self.model, loss)
        for callback in self.callbacks:
            callback.gradients(self.trainer)
        return loss, outputs

    def _current_settings(self) -> list[Any]:
        """What the callbacks' part of the program is compiled for."""
        return [list(vars(c).items()) for c in self.callbacks]

    def _first_cause(self, inputs: Any, targets: Any) -> nonfinite.NotFinite | None:
        """What was not finite first: of several checks a program may tell of any."""
        try:
            self._run_again(inputs, targets, nonfinite.check_loss_and_gradients)
        except nonfinite.NotFinite as found:
            return found
        return None

    def fits(self, trainer: Any) -> bool:
        """Whether the trainer's step still has these parts."""
        looking = [c for c in trainer.callbacks if looks_at_gradients(c)]
        parts = (self.model, self.optimizer, self.loss, *self.callbacks)
        now = (trainer.model, trainer.optimizer, trainer.loss, *looking)
        return len(parts) == len(now) and all(a is b for a, b in zip(parts, now, strict=True))

    def again(self, inputs: Any, targets: Any) -> None:
        """The forward and backward pass of the last step again, eagerly; then all as it was."""
        self._run_again(inputs, targets, lambda model, loss: None)

    def _run_again(self, inputs: Any, targets: Any, look: Callable[[Any, Any], None]) -> None:
        before = self.model.state_dict()
        random.set_state(self.random_before)
        try:
            loss, _ = self._make_forward_backward()(inputs, targets)
            look(self.model, loss)
        finally:
            self.model.load_state_dict(before)
            self.optimizer.zero_grad()


def looks_at_gradients(callback: Callback) -> bool:
    """Whether a callback does something between `backward` and the optimiser's step."""
    own = getattr(callback.gradients, "__func__", callback.gradients)
    return own is not Callback.gradients


def make_evaluation(
    model: Any, loss_of: Callable[..., Any], compile: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`measure(inputs, targets) -> (loss, outputs)` and `apply(inputs) -> outputs`."""

    def measure(inputs: Any, targets: Any) -> tuple[Any, Any]:
        outputs = model(inputs)
        return loss_of(outputs, targets), outputs

    def apply(inputs: Any) -> Any:
        return model(inputs)

    return (cr.compile(measure), cr.compile(apply)) if compile else (measure, apply)


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
