"""Stochastic weight averaging (Izmailov et al., arXiv 1803.05407), with PyTorch's names.

A copy of the model holds the mean of the weights that the model had at the ends of the last epochs,
while the rate is held constant:

    averaged = AveragedModel(model)
    schedule = SWALR(opt, swa_lr=0.05)
    for epoch in range(100):
        train(...)
        if epoch >= 75:
            averaged.update_parameters(model)
            schedule.step()
    update_bn(loader, averaged)
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from chainrule import array as xp
from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError, ChainruleWarning
from chainrule.nn import Module
from chainrule.optim.domains import FRACTION, check
from chainrule.optim.lr_scheduler.base import LRScheduler, per_group, require
from chainrule.optim.optimizer import Optimizer
from chainrule.tensor import Tensor

Average = Callable[[Tensor, Tensor, int], Tensor]


def get_swa_avg_fn() -> Average:
    """average + (p - average) / (n + 1): the mean of all values."""
    return lambda average, p, n: average + (p - average) / (n + 1)


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """decay average + (1 - decay) p: the exponential moving average."""
    check("get_ema_avg_fn", "decay", decay, FRACTION)
    return lambda average, p, n: decay * average + (1 - decay) * p


class AveragedModel(Module):
    """A copy of a model whose weights are an average over what the model's have been.

    Arguments:
        model: the model; it is copied.
        device: "cpu" or None.
        avg_fn: `(average, value, number averaged so far) -> average`. Default: the mean.
        use_buffers: average the buffers (running statistics) too; else the copy takes the model's.
    """

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Average | None = None,
        use_buffers: bool = False,
    ):  # fmt: skip
        super().__init__()
        if device not in (None, "cpu"):
            raise ArgumentError(f"there is one device here, 'cpu', but got {device!r}.")
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", xp.asarray(0))
        self.avg_fn = avg_fn or get_swa_avg_fn()
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the present weights of the model into the average."""
        n = int(self.n_averaged)
        averaged, present = list(self.module.parameters()), list(model.parameters())
        copies = list(zip(self.module.buffers(), model.buffers(), strict=True))
        if self.use_buffers:
            averaged += [mine for mine, _ in copies]
            present += [theirs for _, theirs in copies]
            copies = []
        with no_grad():
            for mine, theirs in zip(averaged, present, strict=True):
                mine.copy_(self.avg_fn(mine.detach(), theirs.detach(), n) if n else theirs)
            for mine, theirs in copies:
                mine.copy_(theirs)
            self.n_averaged.copy_(n + 1)


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of the model's batch norms anew, in one pass over the data.

    Arguments:
        loader: batches of inputs, or tuples that begin with them.
        model: the model.
        device: "cpu" or None.
    """
    momenta = {
        module: module.momentum
        for module in model.modules()
        if hasattr(module, "reset_running_stats")
        and getattr(module, "running_mean", None) is not None
    }
    if not momenta:
        return
    training = model.training
    model.train()
    try:
        for module in momenta:
            module.reset_running_stats()
            module.momentum = None  # a cumulative mean over all batches
        with no_grad(), warnings.catch_warnings():
            # A forward pass in training mode and without gradients is what is meant here.
            warnings.simplefilter("ignore", ChainruleWarning)
            for batch in loader:
                model(batch[0] if isinstance(batch, list | tuple) else batch)
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum
        model.train(training)


class SWALR(LRScheduler):
    """Lead the rate to `swa_lr` within `anneal_epochs` steps, and hold it there.

    Arguments:
        optimizer: whose rates to set.
        swa_lr: the rate to end with, one for all groups or a list.
        anneal_epochs: steps to get there.
        anneal_strategy: "cos" or "linear".
        last_epoch: the last epoch that is behind; -1 begins.
    """

    def __init__(
        self, optimizer: Optimizer, swa_lr: float | list[float], anneal_epochs: int = 10,
        anneal_strategy: str = "cos", last_epoch: int = -1,
    ):  # fmt: skip
        require(
            "SWALR", anneal_strategy in ("cos", "linear"), "anneal_strategy 'cos' or 'linear'",
            anneal_strategy,
        )  # fmt: skip
        require("SWALR", anneal_epochs >= 0, "anneal_epochs >= 0", anneal_epochs)
        rates = per_group("SWALR", "swa_lr", swa_lr, optimizer)
        for group, lr in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = lr
        self.anneal_epochs, self._anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        """How much of the way lies behind."""
        t = max(0, min(1, step / max(1, self.anneal_epochs)))
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[float]:
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(step - 1), self._share(step)
        lrs = []
        for group in self.optimizer.param_groups:
            lr, end = group["lr"], group["swa_lr"]
            start = end if before == 1 else (lr - before * end) / (1 - before)
            lrs.append(end * now + start * (1 - now))
        return lrs
