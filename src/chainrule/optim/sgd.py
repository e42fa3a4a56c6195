"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any, ClassVar

from chainrule import array as xp
from chainrule.errors import ArgumentError
from chainrule.optim.domains import FINITE, NON_NEGATIVE, Domains
from chainrule.optim.optimizer import Group, Optimizer, Parameters
from chainrule.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak, 1964) or Nesterov's (1983).

        g <- g + weight_decay p
        v <- momentum v + (1 - dampening) g            (the first step: v <- g)
        p <- p - lr v                                  Nesterov: p <- p - lr (g + momentum v)

    Lectures often write `V = beta V - eta g; W += V`. Then `V = -eta v`: the paths are equal as
    long as the learning rate is constant. When it changes, this form (PyTorch's) applies the new
    rate to the whole velocity, the lecture's only to gradients to come.

    Arguments:
        params: parameters, named parameters, or groups; see `Optimizer`.
        lr: learning rate.
        momentum: share of the velocity that is kept. 0: none is.
        dampening: share of the gradient that does not enter the velocity.
        weight_decay: L2 penalty, added to the gradient.
        nesterov: look ahead by one momentum step; needs momentum > 0 and no dampening.
        maximize: climb instead.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = {
        "lr": NON_NEGATIVE, "momentum": NON_NEGATIVE, "dampening": FINITE,
        "weight_decay": NON_NEGATIVE,
    }  # fmt: skip

    def __init__(
        self, params: Parameters, lr: float = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        defaults = dict(
            lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
            nesterov=nesterov, maximize=maximize,
        )  # fmt: skip
        super().__init__(params, defaults, **hints)

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ArgumentError(
                f"Nesterov's momentum needs momentum > 0 and dampening = 0, but got "
                f"momentum={group['momentum']} and dampening={group['dampening']}."
            )

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        momentum = group["momentum"]
        if group["weight_decay"] != 0:
            g = g + group["weight_decay"] * p
        if momentum != 0:
            v = state.get("momentum_buffer")
            if v is None and group["dampening"] == 0:  # what it begins with makes no difference
                v = state["momentum_buffer"] = xp.zeros_like(p)
            if v is None:
                v = state["momentum_buffer"] = g.detach()
            else:
                v.copy_(momentum * v + (1 - group["dampening"]) * g)
            g = g + momentum * v if group["nesterov"] else v
        p.copy_(p - group["lr"] * g)


class ASGD(Optimizer):
    """Averaged SGD (Polyak and Juditsky, 1992; PyTorch's form).

        g <- g + weight_decay p
        p <- p - eta (g + lambd p)
        a <- a + mu (p - a)
        eta <- lr / (1 + lambd lr t)^alpha
        mu <- 1 / max(1, t - t0)

    The average a stands in the state as `ax`; it equals p until step t0.

    Arguments:
        params: parameters, named parameters, or groups; see `Optimizer`.
        lr: the first learning rate.
        lambd: decay of the parameters, and of the learning rate.
        alpha: the power with which the learning rate falls.
        t0: the step at which averaging begins.
        weight_decay: L2 penalty, added to the gradient.
        maximize: climb instead.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = {
        "lr": NON_NEGATIVE, "lambd": FINITE, "alpha": FINITE, "t0": FINITE,
        "weight_decay": NON_NEGATIVE,
    }  # fmt: skip
    numbers: ClassVar[tuple[str, ...]] = ("step", "eta", "mu")

    def __init__(
        self, params: Parameters, lr: float = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
        t0: float = 1e6, weight_decay: float = 0, *, maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        defaults = dict(
            lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay, maximize=maximize
        )
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        lr, lambd = group["lr"], group["lambd"]
        if not state:
            state.update(step=0, eta=lr, mu=1.0, ax=xp.zeros_like(p))
        state["step"] += 1
        t, a = state["step"], state["ax"]
        if group["weight_decay"] != 0:
            g = g + group["weight_decay"] * p
        p.copy_(p - state["eta"] * (g + lambd * p))
        a.copy_(p if state["mu"] == 1 else a + state["mu"] * (p - a))
        state["eta"] = lr / (1 + lambd * lr * t) ** group["alpha"]
        state["mu"] = 1 / max(1, t - group["t0"])
