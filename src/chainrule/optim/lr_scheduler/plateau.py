"""Lowering the rate when a measure stops getting better."""

from __future__ import annotations

import math
from typing import Any, SupportsFloat

from chainrule.errors import ArgumentError
from chainrule.optim.lr_scheduler.base import (
    LRScheduler,
    check_optimizer,
    refuse_while_tracing,
    require,
)
from chainrule.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """lr <- max(lr factor, min_lr) when a measure has not improved for more than `patience` epochs.

    `step` is given the measure: `scheduler.step(validation_loss)`. It is better than the best so
    far if it is below `best (1 - threshold)` (threshold_mode "rel") or `best - threshold` ("abs");
    with mode "max" above `best (1 + threshold)` or `best + threshold`. NaN is never better.

    Arguments:
        optimizer: whose rates to set.
        mode: "min" or "max": what is better.
        factor: of every reduction, below 1.
        patience: epochs without improvement that are put up with.
        threshold: how much better counts.
        threshold_mode: "rel" or "abs".
        cooldown: epochs after a reduction that do not count.
        min_lr: the lowest rate, one for all groups or a list.
        eps: smaller reductions are left out.

    Raises:
        ArgumentError: for bad arguments.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float | list[float] = 0, eps: float = 1e-8,
    ):  # fmt: skip
        self.optimizer = check_optimizer("ReduceLROnPlateau", optimizer)
        owner, groups = "ReduceLROnPlateau", len(optimizer.param_groups)
        require(owner, factor < 1, "factor < 1", factor)
        require(owner, mode in ("min", "max"), "mode 'min' or 'max'", mode)
        require(
            owner, threshold_mode in ("rel", "abs"), "threshold_mode 'rel' or 'abs'", threshold_mode
        )
        several = isinstance(min_lr, list | tuple)
        if several and len(min_lr) != groups:
            require(owner, False, f"one min_lr for each of the {groups} groups", min_lr)
        self.default_min_lr = None if several else min_lr
        self.min_lrs: list[float] = list(min_lr) if several else [min_lr] * groups
        self.factor, self.patience, self.cooldown, self.eps = factor, patience, cooldown, eps
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self.best = self.mode_worse = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = self.last_epoch = 0
        self._last_lr = self._present()

    @property
    def in_cooldown(self) -> bool:
        return self.cooldown_counter > 0

    def step(  # type: ignore[override]
        self, metrics: SupportsFloat, epoch: int | None = None
    ) -> None:
        """Take in the measure of one epoch, and lower the rates if it is time to."""
        refuse_while_tracing(self.optimizer)
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self._present()

    def _is_better(self, current: float) -> bool:
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "rel":
            bar = self.best * (1 + sign * self.threshold)
        else:
            bar = self.best + sign * self.threshold
        return current < bar if self.mode == "min" else current > bar

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        if len(self.min_lrs) != len(groups):
            if self.default_min_lr is None:
                raise ArgumentError(
                    f"the optimiser has {len(groups)} groups now, but min_lr was a list of "
                    f"{len(self.min_lrs)}; extend the schedule's `min_lrs` when adding a group."
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, lowest in zip(groups, self.min_lrs, strict=True):
            lr = max(group["lr"] * self.factor, lowest)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def get_lr(self) -> list[Any]:
        return self._present()
