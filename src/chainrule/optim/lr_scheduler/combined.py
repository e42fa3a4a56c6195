"""Schedules made of schedules: all at once, or one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from chainrule.errors import ArgumentError, CheckpointError
from chainrule.optim.lr_scheduler.base import LRScheduler
from chainrule.optim.lr_scheduler.plateau import ReduceLROnPlateau
from chainrule.optim.optimizer import Optimizer


class _Combined(LRScheduler):
    """What the two share: checks of the parts, and their states inside the whole's."""

    _unsaved = ("optimizer", "_is_initial", "_schedulers")

    def _take(self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler]) -> None:
        owner = type(self).__name__
        if not schedulers:
            raise ArgumentError(f"{owner} needs at least one schedule.")
        for i, part in enumerate(schedulers):
            if not isinstance(part, LRScheduler):
                raise ArgumentError(f"{owner} takes schedules; number {i} is {part!r}.")
            if isinstance(part, ReduceLROnPlateau):
                raise ArgumentError(
                    f"{owner} cannot take ReduceLROnPlateau (number {i}), whose step needs a "
                    "measure; call its step by itself."
                )
            if part.optimizer is not (optimizer or schedulers[0].optimizer):
                raise ArgumentError(
                    f"{owner} needs schedules of one optimiser; number {i} is of another."
                )
        self.optimizer = optimizer or schedulers[0].optimizer
        self._schedulers = schedulers

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        parts, states = self._schedulers, state_dict.get("_schedulers", ())
        if len(parts) != len(states):
            raise CheckpointError(
                f"the state is of {len(states)} schedules, but this {type(self).__name__} has "
                f"{len(parts)}."
            )
        super().load_state_dict(state_dict)
        self._schedulers = parts
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)


class ChainedScheduler(_Combined):
    """Several schedules at once: each multiplies what the one before has set.

    Arguments:
        schedulers: schedules of one optimiser.
        optimizer: that optimiser; may be left out.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        self._take(optimizer, schedulers)
        self._last_lr = self._present()

    def _initial_step(self) -> None:
        for part in self._schedulers:
            part._initial_step()
        self._last_lr = self._present()

    def step(self) -> None:  # type: ignore[override]
        """Go on by one epoch in every schedule."""
        for part in self._schedulers:
            part.step()
        self._last_lr = self._present()


class SequentialLR(_Combined):
    """One schedule after the other, each from its own epoch 0 on.

        warm_up = LinearLR(opt, 0.1, total_iters=5)
        SequentialLR(opt, [warm_up, CosineAnnealingLR(opt, 95)], milestones=[5])

    Arguments:
        optimizer: the optimiser of all the schedules.
        schedulers: the schedules in order.
        milestones: the epochs at which the second, third, ... begins.
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: list[int],
        last_epoch: int = -1,
    ):  # fmt: skip
        self._take(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ArgumentError(
                f"SequentialLR needs one milestone between each two of its {len(schedulers)} "
                f"schedules, but got {len(milestones)}."
            )
        for i, part in enumerate(schedulers):
            if i and isinstance(part, _Combined):
                raise ArgumentError(
                    f"a {type(part).__name__} can only come first in a SequentialLR, "
                    f"not as number {i}."
                )
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        # Every schedule has set its first rate when it was made. Take that back; begin with one.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        _take_back(self)
        self._initial_step()

    def _initial_step(self) -> None:
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Go on by one epoch in the schedule whose turn it is."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        part = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            part._update_lr(0)
        else:
            part.step()
        self._last_lr = part.get_last_lr()


def _take_back(scheduler: LRScheduler) -> None:
    if isinstance(scheduler, _Combined):
        for part in scheduler._schedulers:
            _take_back(part)
    else:
        scheduler.last_epoch -= 1
