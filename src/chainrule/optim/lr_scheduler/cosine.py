"""Cosine annealing (Loshchilov and Hutter, "SGDR", arXiv 1608.03983)."""

from __future__ import annotations

import math

from chainrule.optim.lr_scheduler.base import LRScheduler, refuse_while_tracing, require
from chainrule.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """lr_t = eta_min + (base_lr - eta_min) (1 + cos(pi t / T_max)) / 2.

    After T_max epochs the rate is eta_min; a run that goes on from there climbs back.

    Arguments:
        optimizer: whose rates to set.
        T_max: half a period.
        eta_min: the lowest rate.
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ):
        require("CosineAnnealingLR", T_max > 0, "T_max > 0", T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, end, low = self.last_epoch, self.T_max, self.eta_min
        if self._is_initial:
            return self._present()
        if self._step_count == 1 and t > 0:
            return self._get_closed_form_lr()
        if (t - 1 - end) % (2 * end) == 0:
            # The epoch before was at the bottom, where the quotient below would be 0 / 0.
            climb = (1 - math.cos(math.pi / end)) / 2
            return [
                lr + (base - low) * climb
                for lr, base in zip(self._present(), self.base_lrs, strict=True)
            ]
        fall = (1 + math.cos(math.pi * t / end)) / (1 + math.cos(math.pi * (t - 1) / end))
        return [fall * (lr - low) + low for lr in self._present()]

    def _get_closed_form_lr(self) -> list[float]:
        height = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (lr - self.eta_min) * height / 2 for lr in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2, with warm restarts.

    T_cur counts the epochs since the last restart, T_i is the length of the present period.

    Arguments:
        optimizer: whose rates to set.
        T_0: epochs until the first restart.
        T_mult: each period T_i is this many times longer than the one before.
        eta_min: the lowest rate.
        last_epoch: the last epoch that is behind; -1 begins.

    `step` takes parts of an epoch too: `scheduler.step(epoch + batch / batches)`.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
        last_epoch: int = -1,
    ):  # fmt: skip
        owner = "CosineAnnealingWarmRestarts"
        require(owner, isinstance(T_0, int) and T_0 > 0, "an integer T_0 > 0", T_0)
        require(owner, isinstance(T_mult, int) and T_mult >= 1, "an integer T_mult >= 1", T_mult)
        self.T_0, self.T_i, self.T_mult, self.eta_min = T_0, T_0, T_mult, eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        height = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (lr - self.eta_min) * height / 2 for lr in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go on by one epoch and set the rates; or jump to `epoch`, which may be a fraction."""
        refuse_while_tracing(self.optimizer)
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            require("step", epoch >= 0, "an epoch >= 0", epoch)
            self._jump(epoch)
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())

    def _jump(self, epoch: float) -> None:
        if epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            # n whole periods lie behind: T_0 (1 + T_mult + ... + T_mult^(n-1)) epochs.
            ratio = self.T_mult
            n = int(math.log(epoch / self.T_0 * (ratio - 1) + 1, ratio))
            self.T_cur = epoch - self.T_0 * (ratio**n - 1) / (ratio - 1)
            self.T_i = self.T_0 * ratio**n
