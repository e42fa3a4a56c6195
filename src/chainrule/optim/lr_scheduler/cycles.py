"""Schedules that raise the rate and lower it again, and move momentum the other way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from chainrule.errors import ArgumentError
from chainrule.optim.lr_scheduler.base import (
    LRScheduler,
    check_momentum,
    check_optimizer,
    per_group,
    require,
    set_momentum,
    state_of_function,
)
from chainrule.optim.optimizer import Optimizer

Rates = float | list[float]


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)


def _linear(start: float, end: float, share: float) -> float:
    return (end - start) * share + start


_ANNEALING = {"cos": _cosine, "linear": _linear}


class OneCycleLR(LRScheduler):
    """The one-cycle policy (Smith and Topin, "Super-convergence", arXiv 1708.07120).

    From max_lr / div_factor the rate rises to max_lr over the first `pct_start` of all steps, then
    falls to max_lr / div_factor / final_div_factor; momentum falls and rises again. With
    `three_phase` the rate first falls back to where it began, as long as it rose, and then to its
    end. `step` is called after every batch.

    Arguments:
        optimizer: whose rates to set.
        max_lr: the highest rate, one for all groups or a list.
        total_steps: the number of steps; or `epochs` times `steps_per_epoch`.
        pct_start: the share of the steps in which the rate rises.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: move momentum (beta1 in Adam's family) too.
        base_momentum: the lowest momentum, where the rate is highest.
        max_momentum: the highest momentum, where the rate is lowest.
        div_factor: max_lr over the first rate.
        final_div_factor: the first rate over the last one.
        three_phase: fall in two phases.
        last_epoch: the last step that is behind; -1 begins.

    Raises:
        ArgumentError: for bad arguments, and if `step` is called after the last step.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: Rates, total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: Rates = 0.85,
        max_momentum: Rates = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
        three_phase: bool = False, last_epoch: int = -1,
    ):  # fmt: skip
        check_optimizer("OneCycleLR", optimizer)
        self.total_steps = _total(total_steps, epochs, steps_per_epoch)
        require("OneCycleLR", 0 <= pct_start <= 1, "0 <= pct_start <= 1", pct_start)
        require(
            "OneCycleLR", anneal_strategy in _ANNEALING, "anneal_strategy 'cos' or 'linear'",
            anneal_strategy,
        )  # fmt: skip
        self._anneal_func_type = anneal_strategy
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        self.cycle_momentum = cycle_momentum
        lrs = per_group("OneCycleLR", "max_lr", max_lr, optimizer)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["initial_lr"] = lr / div_factor
                group["max_lr"] = lr
                group["min_lr"] = group["initial_lr"] / final_div_factor
        if cycle_momentum:
            self.use_beta1 = check_momentum("OneCycleLR", optimizer)
            if last_epoch == -1:
                _set_momenta("OneCycleLR", optimizer, base_momentum, max_momentum)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, anneal = self.last_epoch, _ANNEALING[self._anneal_func_type]
        if t > self.total_steps:
            raise ArgumentError(
                f"step() was called {t} times, but this OneCycleLR was made for "
                f"{self.total_steps} steps; pass it the number of batches of the whole run."
            )
        phases = self._schedule_phases
        i = next((i for i, p in enumerate(phases) if t <= p["end_step"]), len(phases) - 1)
        phase, start = phases[i], phases[i - 1]["end_step"] if i else 0.0
        share = (t - start) / (phase["end_step"] - start)
        groups = self.optimizer.param_groups
        if self.cycle_momentum:
            for group in groups:
                ends = group[phase["start_momentum"]], group[phase["end_momentum"]]
                set_momentum(group, anneal(*ends, share))
        return [anneal(g[phase["start_lr"]], g[phase["end_lr"]], share) for g in groups]


def _total(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is not None:
        numbers = {"total_steps": total_steps}
    elif epochs is not None and steps_per_epoch is not None:
        numbers = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    else:
        raise ArgumentError("OneCycleLR needs total_steps, or epochs and steps_per_epoch.")
    for name, n in numbers.items():
        require("OneCycleLR", isinstance(n, int) and n > 0, f"an integer {name} > 0", n)
    return math.prod(numbers.values())


def _phases(total: int, share: float, three: bool) -> list[dict[str, Any]]:
    """Each phase: its last step, and the group entries that rate and momentum lead from and to."""
    rates = ["initial_lr", "max_lr", "initial_lr", "min_lr"] if three else (
        ["initial_lr", "max_lr", "min_lr"]
    )  # fmt: skip
    momenta = ["max_momentum", "base_momentum", "max_momentum", "max_momentum"]
    ends = [share * total - 1, *([2 * share * total - 2] if three else []), total - 1]
    return [
        {
            "end_step": end,
            "start_lr": rates[i], "end_lr": rates[i + 1],
            "start_momentum": momenta[i], "end_momentum": momenta[i + 1],
        }
        for i, end in enumerate(ends)
    ]  # fmt: skip


def _set_momenta(owner: str, optimizer: Optimizer, base: Rates, top: Rates) -> None:
    bases = per_group(owner, "base_momentum", base, optimizer)
    tops = per_group(owner, "max_momentum", top, optimizer)
    for group, low, high in zip(optimizer.param_groups, bases, tops, strict=True):
        set_momentum(group, high)
        group["max_momentum"], group["base_momentum"] = high, low


class CyclicLR(LRScheduler):
    """Cyclical rates (Smith, arXiv 1506.01186): up and down between base_lr and max_lr, for ever.

    With c the number of the cycle and x in [0, 1] the height within it,

        lr_t = base_lr + (max_lr - base_lr) x scale,
        scale = 1 ("triangular"), 1 / 2^(c - 1) ("triangular2"), gamma^t ("exp_range")

    and momentum moves the other way. `step` is called after every batch.

    Arguments:
        optimizer: whose rates to set.
        base_lr: the lowest rate, one for all groups or a list.
        max_lr: the highest rate in the first cycle, one for all groups or a list.
        step_size_up: steps from base_lr to max_lr.
        step_size_down: steps back. Default: as many.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: of "exp_range".
        scale_fn: a scale of one's own, in place of `mode`'s.
        scale_mode: whether `scale_fn` is given the "cycle" or the number of "iterations".
        cycle_momentum: move momentum (beta1 in Adam's family) too.
        base_momentum: the lowest momentum, where the rate is highest.
        max_momentum: the highest momentum, where the rate is lowest.
        last_epoch: the last step that is behind; -1 begins.

    Raises:
        ArgumentError: for bad arguments.
    """

    def __init__(
        self, optimizer: Optimizer, base_lr: Rates, max_lr: Rates, step_size_up: int = 2000,
        step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
        cycle_momentum: bool = True, base_momentum: Rates = 0.8, max_momentum: Rates = 0.9,
        last_epoch: int = -1,
    ):  # fmt: skip
        check_optimizer("CyclicLR", optimizer)
        modes = ("triangular", "triangular2", "exp_range")
        require(
            "CyclicLR", mode in modes or scale_fn is not None,
            "mode 'triangular', 'triangular2' or 'exp_range', or a scale_fn", mode,
        )  # fmt: skip
        base_lrs = per_group("CyclicLR", "base_lr", base_lr, optimizer)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = lr
        self.max_lrs = per_group("CyclicLR", "max_lr", max_lr, optimizer)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        self.mode, self.gamma, self._scale_fn_custom = mode, gamma, scale_fn
        if scale_fn is None:
            scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.scale_mode = scale_mode
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = check_momentum("CyclicLR", optimizer)
            self.base_momentums = per_group("CyclicLR", "base_momentum", base_momentum, optimizer)
            self.max_momentums = per_group("CyclicLR", "max_momentum", max_momentum, optimizer)
            if last_epoch == -1:
                _set_momenta("CyclicLR", optimizer, base_momentum, max_momentum)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """The scale of the cycle or iteration x."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return 1 / 2.0 ** (x - 1) if self.mode == "triangular2" else self.gamma**x

    def get_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            momenta = zip(self.base_momentums, self.max_momentums, strict=True)
            for group, (low, high) in zip(self.optimizer.param_groups, momenta, strict=True):
                set_momentum(group, high - (high - low) * height * scale)
        ends = zip(self.base_lrs, self.max_lrs, strict=True)
        return [low + (high - low) * height * scale for low, high in ends]

    def state_dict(self) -> dict[str, Any]:
        scale = self._scale_fn_custom
        kept = None if scale is None else state_of_function(scale)
        return {**super().state_dict(), "_scale_fn_custom": kept}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        scale = self._scale_fn_custom
        super().load_state_dict(state_dict)
        kept, self._scale_fn_custom = state_dict["_scale_fn_custom"], scale
        if kept is not None:
            vars(scale).update(kept)
