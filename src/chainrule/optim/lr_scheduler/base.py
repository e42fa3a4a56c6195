"""What every schedule shares."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

from chainrule.errors import ArgumentError, CheckpointError, DTypeError, TraceError
from chainrule.graph import program_tracer, state
from chainrule.optim.optimizer import Optimizer


class LRScheduler:
    """Base of the schedules: sets the learning rate of every group as training goes on.

        for epoch in range(100):
            train(...)          # calls opt.step()
            scheduler.step()

    `step` counts one epoch (or whatever unit the schedule is meant in) and sets the group's `lr`.
    The constructor sets it for epoch 0. A schedule of one's own defines `get_lr`, the rates for
    `last_epoch`, one for each group.

    Arguments:
        optimizer: whose rates to set. Each group's rate at this moment is kept in it as
            `initial_lr`.
        last_epoch: to go on in the middle, the last epoch that is behind; -1 begins.

    Attributes:
        last_epoch: the number of calls of `step`.
        base_lrs: each group's `initial_lr`.
    """

    _unsaved: tuple[str, ...] = ("optimizer", "_is_initial")

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        self.optimizer = check_optimizer(type(self).__name__, optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError(
                    f"last_epoch={last_epoch} goes on with an earlier schedule, but group {i} has "
                    "no 'initial_lr'; load the optimiser's state first, or begin with -1."
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._last_lr: list[float] = []
        self._step_count = 0
        self._is_initial = False
        self._initial_step()

    def _initial_step(self) -> None:
        """Set the rates of the first epoch."""
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def get_lr(self) -> list[float]:
        """The rates for `last_epoch`; most schedules compute them from the present ones."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr().")

    def _get_closed_form_lr(self) -> list[float]:
        """The rates for `last_epoch` from `base_lrs` alone."""
        return self.get_lr()

    def get_last_lr(self) -> list[float]:
        """The rates that were set last, one for each group."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Go on by one epoch and set the rates; or jump to `epoch`."""
        refuse_while_tracing(self.optimizer)
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        if epoch is None:
            self.last_epoch += 1
            self._set(self.get_lr())
        else:
            self.last_epoch = epoch
            self._set(self._get_closed_form_lr())

    def _set(self, lrs: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
        self._last_lr = self._present()

    def _present(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _scaled(self, factor: float) -> list[float]:
        """The present rates times a factor."""
        return [lr * factor for lr in self._present()]

    # --- checkpoints ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands, as numbers and lists. The optimiser's state is not in it."""
        return {
            name: list(value) if isinstance(value, list) else value
            for name, value in vars(self).items()
            if name not in self._unsaved
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave: one's own, or PyTorch's of the same schedule.

        Raises:
            CheckpointError: if it is the state of another schedule.
        """
        own = self.state_dict().keys()
        strange = [k for k in state_dict.keys() - own if not k.startswith("_")]
        if missing := sorted({*(own - state_dict.keys()), *strange}):
            raise CheckpointError(
                f"the state does not fit {type(self).__name__}: only one of them has "
                f"{', '.join(missing)}; is it the state of another schedule?"
            )
        for name in own:
            value = state_dict[name]
            setattr(self, name, list(value) if isinstance(value, list) else value)


def refuse_while_tracing(optimizer: Optimizer) -> None:
    """Refuse to go on inside a compiled function, where that would be done once for all calls."""
    tracer = None if state.tracer is None else program_tracer()
    if tracer is not None and tracer.watches(optimizer.param_groups[0]):
        raise TraceError(
            "a schedule counts its steps in Python, which a compiled function does once, while it "
            "is compiled. Call scheduler.step() outside, after the compiled step: learning rates "
            "are read at each call, and nothing is compiled again."
        )


def check_optimizer(owner: str, optimizer: Any) -> Optimizer:
    """Refuse what is no optimiser."""
    if not isinstance(optimizer, Optimizer):
        raise DTypeError(
            f"{owner} needs an optimiser as its first argument, but got "
            f"a {type(optimizer).__name__}."
        )
    return optimizer


def require(owner: str, holds: bool, words: str, value: object) -> None:
    """Refuse an argument outside its domain."""
    if not holds:
        raise ArgumentError(f"{owner} needs {words}, but got {value!r}.")


def per_group(owner: str, name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value for each group, from one for all or from a list."""
    groups = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * groups
    if len(value) != groups:
        raise ArgumentError(
            f"{owner} needs one {name} for each of the {groups} groups, but got {len(value)}."
        )
    return list(value)


def set_momentum(group: dict[str, Any], momentum: float) -> None:
    """Set what plays the part of momentum: beta1 in Adam's family, momentum in SGD's."""
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


def check_momentum(owner: str, optimizer: Optimizer) -> bool:
    """Whether beta1 is cycled, not `momentum`; refuses optimisers that have neither."""
    require(
        owner,
        "momentum" in optimizer.defaults or "betas" in optimizer.defaults,
        "an optimiser with momentum or betas (or cycle_momentum=False)",
        type(optimizer).__name__,
    )
    return "betas" in optimizer.defaults


def state_of_function(function: Callable[..., Any]) -> dict[str, Any] | None:
    """What is to be saved of a callable: nothing of a function, the attributes of an object."""
    plain = isinstance(function, types.FunctionType | types.BuiltinFunctionType)
    return None if plain else dict(getattr(function, "__dict__", {}))
