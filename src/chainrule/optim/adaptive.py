"""Optimisers that divide by the size of the past gradients."""

from __future__ import annotations

from typing import Any, ClassVar

from chainrule import array as xp
from chainrule.optim.domains import FRACTION, NON_NEGATIVE, Domains
from chainrule.optim.optimizer import Group, Optimizer, Parameters
from chainrule.tensor import Tensor


class Adagrad(Optimizer):
    """Adagrad (Duchi et al., JMLR 12, 2011): a rate for each weight, falling as gradients add up.

        g <- g + weight_decay p
        s <- s + g^2
        p <- p - lr / (1 + (t - 1) lr_decay) g / (s^(1/2) + eps)

    Lectures often write `(s + eps)^(1/2)`, with eps inside the root. To first order that is
    `s^(1/2) + eps / (2 s^(1/2))`: the same with another eps. Where s is 0 so is g, and nothing
    moves.

    Arguments:
        params: parameters, named parameters, or groups; see `Optimizer`.
        lr: learning rate.
        lr_decay: how fast the learning rate falls with the steps.
        weight_decay: L2 penalty, added to the gradient.
        initial_accumulator_value: what s begins with.
        eps: keeps the quotient finite; outside the root, as in PyTorch.
        maximize: climb instead.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = dict.fromkeys(
        ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"), NON_NEGATIVE
    )

    def __init__(
        self, params: Parameters, lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, *, maximize: bool = False,
        **hints: Any,
    ):  # fmt: skip
        defaults = dict(
            lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps, maximize=maximize,
        )  # fmt: skip
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        if not state:
            state.update(step=0, sum=xp.full_like(p, float(group["initial_accumulator_value"])))
        state["step"] += 1
        s = state["sum"]
        if group["weight_decay"] != 0:
            g = g + group["weight_decay"] * p
        s.copy_(s + g * g)
        lr = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        p.copy_(p - lr * g / (xp.sqrt(s) + group["eps"]))


class RMSprop(Optimizer):
    """RMSprop (Hinton, lecture 6e of "Neural networks for machine learning", 2012).

        g <- g + weight_decay p
        s <- alpha s + (1 - alpha) g^2
        centered:       a <- alpha a + (1 - alpha) g;   d = (s - a^2)^(1/2) + eps
        else:           d = s^(1/2) + eps
        momentum > 0:   v <- momentum v + g / d;        p <- p - lr v
        else:           p <- p - lr g / d

    Lectures often take alpha = 0.9 and write `(s + eps)^(1/2)`, with eps inside the root. To first
    order that is `s^(1/2) + eps / (2 s^(1/2))`: the same with another eps.

    Arguments:
        params: parameters, named parameters, or groups; see `Optimizer`.
        lr: learning rate.
        alpha: the share of s that is kept.
        eps: keeps the quotient finite; outside the root, as in PyTorch.
        weight_decay: L2 penalty, added to the gradient.
        momentum: share of the velocity that is kept. 0: none is.
        centered: divide by the standard deviation of the gradient, not by its root mean square.
        maximize: climb instead.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = dict.fromkeys(
        ("lr", "alpha", "eps", "weight_decay", "momentum"), NON_NEGATIVE
    )

    def __init__(
        self, params: Parameters, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0, momentum: float = 0, centered: bool = False, *,
        maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        defaults = dict(
            lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum,
            centered=centered, maximize=maximize,
        )  # fmt: skip
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        lr, alpha, momentum = group["lr"], group["alpha"], group["momentum"]
        if not state:
            state.update(step=0, square_avg=xp.zeros_like(p))
            if momentum > 0:
                state["momentum_buffer"] = xp.zeros_like(p)
            if group["centered"]:
                state["grad_avg"] = xp.zeros_like(p)
        state["step"] += 1
        if group["weight_decay"] != 0:
            g = g + group["weight_decay"] * p
        s = state["square_avg"]
        s.copy_(alpha * s + (1 - alpha) * g * g)
        if group["centered"]:
            a = state["grad_avg"]
            a.copy_(alpha * a + (1 - alpha) * g)
            d = xp.sqrt(s - a * a) + group["eps"]
        else:
            d = xp.sqrt(s) + group["eps"]
        if momentum > 0:
            v = state["momentum_buffer"]
            v.copy_(momentum * v + g / d)
            p.copy_(p - lr * v)
        else:
            p.copy_(p - lr * g / d)


class Adadelta(Optimizer):
    """Adadelta (Zeiler, arXiv 1212.5701): steps in the units of the weights, and no rate to choose.

        g <- g + weight_decay p
        s <- rho s + (1 - rho) g^2
        d = (u + eps)^(1/2) / (s + eps)^(1/2) g
        u <- rho u + (1 - rho) d^2
        p <- p - lr d

    Arguments:
        params: parameters, named parameters, or groups; see `Optimizer`.
        lr: scales the step.
        rho: the share of s and of u that is kept.
        eps: where the first steps get their size from; inside the roots.
        weight_decay: L2 penalty, added to the gradient.
        maximize: climb instead.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = {
        "lr": NON_NEGATIVE, "rho": FRACTION, "eps": NON_NEGATIVE, "weight_decay": NON_NEGATIVE,
    }  # fmt: skip

    def __init__(
        self, params: Parameters, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0, *, maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        defaults = dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        rho, eps = group["rho"], group["eps"]
        if not state:
            state.update(step=0, square_avg=xp.zeros_like(p), acc_delta=xp.zeros_like(p))
        state["step"] += 1
        s, u = state["square_avg"], state["acc_delta"]
        if group["weight_decay"] != 0:
            g = g + group["weight_decay"] * p
        s.copy_(rho * s + (1 - rho) * g * g)
        d = xp.sqrt(u + eps) / xp.sqrt(s + eps) * g
        u.copy_(rho * u + (1 - rho) * d * d)
        p.copy_(p - group["lr"] * d)
