"""Schedules of one formula: steps, lines, powers, exponentials, and functions of one's own.

Each is given twice. `get_lr` follows from the present rate, so that schedules can be chained and a
rate that was changed by hand stays changed; `_get_closed_form_lr` is the formula, for jumps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from chainrule.optim.lr_scheduler.base import LRScheduler, per_group, require, state_of_function
from chainrule.optim.optimizer import Optimizer

Function = Callable[[int], float]


class _OfFunctions(LRScheduler):
    """Schedules by functions of the epoch. Functions are not saved; objects' attributes are."""

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Function | list[Function], last_epoch: int = -1
    ):
        owner = type(self).__name__
        self.lr_lambdas: list[Function] = per_group(owner, "lr_lambda", lr_lambda, optimizer)
        for function in self.lr_lambdas:
            require(owner, callable(function), "a function of the epoch", function)
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        functions = [state_of_function(f) for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": functions}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        functions = self.lr_lambdas
        super().load_state_dict(state_dict)
        self.lr_lambdas = functions
        for function, kept in zip(functions, state_dict["lr_lambdas"], strict=True):
            if kept is not None:
                vars(function).update(kept)


class LambdaLR(_OfFunctions):
    """lr_t = base_lr f(t).

    Arguments:
        optimizer: whose rates to set.
        lr_lambda: the function of the epoch, or a list with one for each group.
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def get_lr(self) -> list[float]:
        return [
            lr * f(self.last_epoch) for f, lr in zip(self.lr_lambdas, self.base_lrs, strict=True)
        ]


class MultiplicativeLR(_OfFunctions):
    """lr_t = lr_(t-1) f(t), and lr_0 = base_lr. Arguments as LambdaLR's."""

    def get_lr(self) -> list[float]:
        if self._is_initial:
            return self._present()
        lrs = self._present()
        return [lr * f(self.last_epoch) for f, lr in zip(self.lr_lambdas, lrs, strict=True)]


class StepLR(LRScheduler):
    """lr_t = base_lr gamma^floor(t / step_size).

    Arguments:
        optimizer: whose rates to set.
        step_size: epochs between two falls.
        gamma: the factor of each.
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ):
        require("StepLR", step_size >= 1, "step_size >= 1", step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        falls = self.last_epoch != 0 and self.last_epoch % self.step_size == 0
        return self._scaled(self.gamma) if falls else self._present()

    def _get_closed_form_lr(self) -> list[float]:
        return [lr * self.gamma ** (self.last_epoch // self.step_size) for lr in self.base_lrs]


class MultiStepLR(LRScheduler):
    """lr_t = base_lr gamma^(number of milestones <= t).

    Arguments:
        optimizer: whose rates to set.
        milestones: the epochs at which the rate falls.
        gamma: the factor of each fall.
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
        last_epoch: int = -1,
    ):  # fmt: skip
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch not in self.milestones:
            return self._present()
        return self._scaled(self.gamma ** self.milestones[self.last_epoch])

    def _get_closed_form_lr(self) -> list[float]:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [lr * self.gamma**passed for lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "milestones": dict(self.milestones)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.milestones = Counter(self.milestones)


class ConstantLR(LRScheduler):
    """lr_t = base_lr factor for t < total_iters, then base_lr.

    Arguments:
        optimizer: whose rates to set.
        factor: in (0, 1].
        total_iters: how long it holds.
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5,
        last_epoch: int = -1,
    ):  # fmt: skip
        # At 0 there would be no way back: what has been multiplied by 0 cannot be divided by it.
        require("ConstantLR", 0 < factor <= 1, "0 < factor <= 1", factor)
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return self._scaled(self.factor)
        return self._scaled(1 / self.factor) if self.last_epoch == self.total_iters else (
            self._present()
        )  # fmt: skip

    def _get_closed_form_lr(self) -> list[float]:
        over = self.last_epoch >= self.total_iters
        return [lr * (self.factor + over * (1 - self.factor)) for lr in self.base_lrs]


class LinearLR(LRScheduler):
    """Linear warm-up: lr_t = base_lr (start + (end - start) min(t, total_iters) / total_iters).

    Arguments:
        optimizer: whose rates to set.
        start_factor: where the line begins, in (0, 1].
        end_factor: where it ends, in [0, 1].
        total_iters: how long it takes.
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
        total_iters: int = 5, last_epoch: int = -1,
    ):  # fmt: skip
        require("LinearLR", 0 < start_factor <= 1, "0 < start_factor <= 1", start_factor)
        require("LinearLR", 0 <= end_factor <= 1, "0 <= end_factor <= 1", end_factor)
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return self._scaled(self.start_factor)
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._present()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return self._scaled(1 + rise / before)

    def _get_closed_form_lr(self) -> list[float]:
        rise = self.end_factor - self.start_factor
        passed = min(self.total_iters, self.last_epoch)
        return [lr * (self.start_factor + rise * passed / self.total_iters) for lr in self.base_lrs]


class ExponentialLR(LRScheduler):
    """lr_t = base_lr gamma^t.

    Arguments:
        optimizer: whose rates to set.
        gamma: the factor of every epoch.
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._present() if self._is_initial else self._scaled(self.gamma)

    def _get_closed_form_lr(self) -> list[float]:
        return [lr * self.gamma**self.last_epoch for lr in self.base_lrs]


class PolynomialLR(LRScheduler):
    """lr_t = base_lr (1 - min(t, total_iters) / total_iters)^power.

    Arguments:
        optimizer: whose rates to set.
        total_iters: when the rate reaches 0.
        power: of the polynomial; 1 is a line.
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ):
        require("PolynomialLR", total_iters >= 1, "total_iters >= 1", total_iters)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, end = self.last_epoch, self.total_iters
        if self._is_initial or t > end:
            return self._present()
        return self._scaled(((1 - t / end) / (1 - (t - 1) / end)) ** self.power)

    def _get_closed_form_lr(self) -> list[float]:
        passed = min(self.total_iters, self.last_epoch) / self.total_iters
        return [lr * (1 - passed) ** self.power for lr in self.base_lrs]
