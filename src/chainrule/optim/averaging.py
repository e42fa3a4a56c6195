"""Averages of the weights along a run, which often generalise better than the last weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from chainrule import array as xp
from chainrule.autograd.modes import no_grad
from chainrule.compiler.numbers import NumberDict
from chainrule.errors import ArgumentError, CheckpointError, DTypeError
from chainrule.optim.domains import FRACTION, check
from chainrule.tensor import Tensor


class ExponentialMovingAverage:
    """The exponential moving average of parameters (Polyak averaging with a fading memory).

        average <- decay average + (1 - decay) p

        ema = optim.ExponentialMovingAverage(model.parameters(), decay=0.999)
        for images, labels in loader:
            ...
            opt.step()
            ema.update()
        with ema.applied():
            evaluate(model)         # with the averages; afterwards with its own weights again

    It begins with the weights as they are when it is made.

    Arguments:
        parameters: parameters, named parameters, or a module.
        decay: the share of the average that is kept, in [0, 1]. The average looks back over about
            1 / (1 - decay) updates.
        warm_up: use min(decay, (1 + n) / (10 + n)) in update n, so that the first weights fade
            soon.

    Attributes:
        averages: the averages, in the order of the parameters.
        updates: the number of updates so far.
    """

    def __init__(self, parameters: Any, decay: float = 0.999, warm_up: bool = False):
        check("ExponentialMovingAverage", "decay", decay, FRACTION)
        self.warm_up = warm_up
        self._numbers = NumberDict(decay=decay, updates=0)
        self._params = _tensors(parameters)
        self.averages = [p.detach() for p in self._params]
        self._own: list[Tensor] | None = None

    @property
    def decay(self) -> float:
        return self._numbers["decay"]

    @decay.setter
    def decay(self, decay: float) -> None:
        self._numbers["decay"] = decay

    @property
    def updates(self) -> int:
        return self._numbers["updates"]

    @updates.setter
    def updates(self, updates: int) -> None:
        self._numbers["updates"] = updates

    def update(self) -> None:
        """Take the present weights into the average."""
        if self._own is not None:
            raise ArgumentError("inside applied() the weights are the averages; update() outside.")
        decay, n = self.decay, self.updates
        if self.warm_up:
            decay = min(decay, (1 + n) / (10 + n))
        with no_grad():
            for average, p in zip(self.averages, self._params, strict=True):
                average.copy_(decay * average + (1 - decay) * p)
        self.updates += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters have the values of the averages."""
        if self._own is not None:
            raise ArgumentError("applied() is active already; it cannot be nested in itself.")
        self._own = [p.detach() for p in self._params]
        try:
            _assign(self._params, self.averages)
            yield
        finally:
            _assign(self._params, self._own)
            self._own = None

    def copy_to(self, parameters: Any = None) -> None:
        """Give the averages to the parameters for good, or to those of another model."""
        target = self._params if parameters is None else _tensors(parameters)
        if [p.shape for p in target] != [a.shape for a in self.averages]:
            raise ArgumentError("copy_to() needs parameters of the same shapes, in the same order.")
        _assign(target, self.averages)

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of updates."""
        return {"averages": [a.detach() for a in self.averages], "updates": self.updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave.

        Raises:
            CheckpointError: if it is of other parameters.
        """
        saved = [xp.tensor(a) for a in state_dict["averages"]]
        if (given := [a.shape for a in saved]) != (own := [a.shape for a in self.averages]):
            raise CheckpointError(
                f"the state averages parameters of shapes {given}, but these have {own}."
            )
        _assign(self.averages, saved)
        self.updates = state_dict["updates"]


EMA = ExponentialMovingAverage


def _tensors(parameters: Any) -> list[Tensor]:
    """Parameters out of a module, pairs of names and parameters, or parameters."""
    if hasattr(parameters, "parameters"):
        parameters = parameters.parameters()
    if not isinstance(parameters, Iterable):
        raise DTypeError(f"expected a module or parameters, but got a {type(parameters).__name__}.")
    tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in parameters]
    if not tensors:
        raise ArgumentError("there are no parameters to average; was a generator used up before?")
    return tensors


def _assign(targets: list[Tensor], values: list[Tensor]) -> None:
    with no_grad():
        for target, value in zip(targets, values, strict=True):
            target.copy_(value)
