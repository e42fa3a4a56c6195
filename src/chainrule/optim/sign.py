"""Optimisers that look at the signs of the gradients and not at their sizes."""

from __future__ import annotations

from typing import Any, ClassVar

from chainrule import array as xp
from chainrule.optim.domains import BETAS, ETAS, NON_NEGATIVE, STEP_SIZES, Domains
from chainrule.optim.optimizer import Group, Optimizer, Parameters
from chainrule.tensor import Tensor


class Lion(Optimizer):
    """Lion, evolved sign momentum (Chen et al., arXiv 2302.06675, algorithm 2).

        c = beta1 m + (1 - beta1) g
        p <- p - lr (sign(c) + weight_decay p)
        m <- beta2 m + (1 - beta2) g

    Every weight moves by lr, so lr is three to ten times smaller than Adam's, and weight_decay as
    much larger.

    Arguments:
        params: parameters, named parameters, or groups; see `Optimizer`.
        lr: learning rate.
        betas: the share of m in the direction, and the share of m that is kept.
        weight_decay: decoupled weight decay.
        maximize: climb instead.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = {"lr": NON_NEGATIVE, "betas": BETAS, "weight_decay": NON_NEGATIVE}

    def __init__(
        self, params: Parameters, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0, *, maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        defaults = dict(lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        beta1, beta2 = group["betas"]
        if not state:
            state.update(exp_avg=xp.zeros_like(p))
        m = state["exp_avg"]
        direction = xp.sign(beta1 * m + (1 - beta1) * g)
        if group["weight_decay"] != 0:
            direction = direction + group["weight_decay"] * p
        p.copy_(p - group["lr"] * direction)
        m.copy_(beta2 * m + (1 - beta2) * g)


class Rprop(Optimizer):
    """Resilient backpropagation (Riedmiller and Braun, 1993; PyTorch's form), for full batches.

    Each weight has a step size of its own. It grows while the gradient keeps its sign; when the
    sign changes, the step shrinks and the weight rests for one step.

        g g_before > 0:   size <- min(size eta_plus, largest)
        g g_before < 0:   size <- max(size eta_minus, smallest),  g <- 0
        p <- p - sign(g) size

    Arguments:
        params: parameters, named parameters, or groups; see `Optimizer`.
        lr: the first step size.
        etas: (eta_minus, eta_plus), the factors of the step size.
        step_sizes: (smallest, largest) step size.
        maximize: climb instead.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = {"lr": NON_NEGATIVE, "etas": ETAS, "step_sizes": STEP_SIZES}

    def __init__(
        self, params: Parameters, lr: float = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50), *, maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        defaults = dict(lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize)
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        (eta_minus, eta_plus), (smallest, largest) = group["etas"], group["step_sizes"]
        if not state:
            state.update(step=0, prev=xp.zeros_like(p), step_size=xp.full_like(p, group["lr"]))
        state["step"] += 1
        before, size = state["prev"], state["step_size"]
        agreed, turned = g * before > 0, g * before < 0
        factor = xp.where(turned, eta_minus, xp.where(agreed, eta_plus, xp.ones_like(p)))
        size.copy_(xp.clip(size * factor, smallest, largest))
        g = xp.where(turned, 0.0, g)
        p.copy_(p - xp.sign(g) * size)
        before.copy_(g)
