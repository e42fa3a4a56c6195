"""Adam and the optimisers made from it.

All keep two averages over the past gradients: m of the gradient (`exp_avg`) and v of its square
(`exp_avg_sq`). Both start at 0; after t steps the weights in them add up to 1 - beta^t, and
dividing by that corrects the bias.
"""

from __future__ import annotations

from typing import Any, ClassVar

from chainrule import array as xp
from chainrule.optim.domains import BETAS, NON_NEGATIVE, Domains
from chainrule.optim.optimizer import Group, Optimizer, Parameters
from chainrule.tensor import Tensor

Betas = tuple[float, float]
_DOMAINS = {
    "lr": NON_NEGATIVE, "betas": BETAS, "eps": NON_NEGATIVE, "weight_decay": NON_NEGATIVE,
}  # fmt: skip


def _with_decay(p: Tensor, g: Tensor, group: Group) -> Tensor:
    """Apply weight decay: to the parameter itself if decoupled, else as a part of the gradient."""
    decay = group["weight_decay"]
    if decay != 0 and group.get("decoupled_weight_decay"):
        p.copy_(p * (1 - group["lr"] * decay))
    elif decay != 0:
        g = g + decay * p
    return g


def _count(p: Tensor, state: dict[str, Any], *averages: str) -> int:
    """The number of this step; the first makes the averages."""
    if not state:
        state["step"] = 0
        for name in averages:
            state[name] = xp.zeros_like(p)
    state["step"] += 1
    return state["step"]


def _moments(g: Tensor, state: dict[str, Any], betas: Betas) -> tuple[Tensor, Tensor]:
    """Take the gradient into the two averages."""
    beta1, beta2 = betas
    m, v = state["exp_avg"], state["exp_avg_sq"]
    m.copy_(beta1 * m + (1 - beta1) * g)
    v.copy_(beta2 * v + (1 - beta2) * g * g)
    return m, v


class Adam(Optimizer):
    """Adam (Kingma and Ba, arXiv 1412.6980).

        g <- g + weight_decay p
        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        p <- p - lr / (1 - beta1^t) m / ((v / (1 - beta2^t))^(1/2) + eps)

    AMSGrad (Reddi et al., arXiv 1904.09237) divides by the largest v so far; decoupled weight decay
    (AdamW) is `p <- p - lr weight_decay p` in place of the first line.

    Arguments:
        params: parameters, named parameters, or groups; see `Optimizer`.
        lr: learning rate.
        betas: the shares of m and of v that are kept.
        eps: keeps the quotient finite; outside the root, as in the paper and PyTorch.
        weight_decay: L2 penalty, added to the gradient.
        amsgrad: divide by the largest v so far.
        maximize: climb instead.
        decoupled_weight_decay: decay the parameters themselves, as AdamW does.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = _DOMAINS

    def __init__(
        self, params: Parameters, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, amsgrad: bool = False, *, maximize: bool = False,
        decoupled_weight_decay: bool = False, **hints: Any,
    ):  # fmt: skip
        defaults = dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
            maximize=maximize, decoupled_weight_decay=decoupled_weight_decay,
        )  # fmt: skip
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        beta1, beta2 = group["betas"]
        largest = ("max_exp_avg_sq",) if group["amsgrad"] else ()
        t = _count(p, state, "exp_avg", "exp_avg_sq", *largest)
        g = _with_decay(p, g, group)
        m, v = _moments(g, state, group["betas"])
        if group["amsgrad"]:
            v = state["max_exp_avg_sq"].copy_(xp.maximum(state["max_exp_avg_sq"], v))
        root = xp.sqrt(v) / (1 - beta2**t) ** 0.5
        p.copy_(p - (group["lr"] / (1 - beta1**t)) * m / (root + group["eps"]))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).

        p <- p - lr weight_decay p

    and then Adam's step without a penalty in the gradient. Arguments as Adam's.
    """

    def __init__(
        self, params: Parameters, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize,
            decoupled_weight_decay=True, **hints,
        )  # fmt: skip


class AMSGrad(Adam):
    """Adam that divides by the largest v so far (Reddi et al., arXiv 1904.09237).

    The same as `Adam(..., amsgrad=True)`, which is PyTorch's name for it.
    """

    def __init__(
        self, params: Parameters, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, *, maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, True, maximize=maximize, **hints)


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat, 2016).

        mu_t <- beta1 (1 - 0.96^(t momentum_decay) / 2)
        m, v as in Adam
        p <- p - lr ((1 - mu_t) / (1 - mu_1 ... mu_t) g + mu_(t+1) / (1 - mu_1 ... mu_(t+1)) m)
                 / ((v / (1 - beta2^t))^(1/2) + eps)

    Arguments:
        params: parameters, named parameters, or groups; see `Optimizer`.
        lr: learning rate.
        betas: the shares of m and of v that are kept.
        eps: keeps the quotient finite; outside the root.
        weight_decay: L2 penalty, added to the gradient.
        momentum_decay: how fast the momentum approaches beta1.
        decoupled_weight_decay: decay the parameters themselves, as AdamW does.
        maximize: climb instead.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = {**_DOMAINS, "momentum_decay": NON_NEGATIVE}
    numbers: ClassVar[tuple[str, ...]] = ("step", "mu_product")

    def __init__(
        self, params: Parameters, lr: float = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False,
        *, maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        defaults = dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
        )  # fmt: skip
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["momentum_decay"]
        t = _count(p, state, "exp_avg", "exp_avg_sq")
        mu = beta1 * (1 - 0.5 * 0.96 ** (t * decay))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * decay))
        product = state["mu_product"] = state.setdefault("mu_product", 1.0) * mu
        g = _with_decay(p, g, group)
        m, v = _moments(g, state, group["betas"])
        ahead = (1 - mu) / (1 - product) * g + mu_next / (1 - product * mu_next) * m
        p.copy_(p - lr * ahead / (xp.sqrt(v / (1 - beta2**t)) + group["eps"]))


class RAdam(Optimizer):
    """Rectified Adam (Liu et al., arXiv 1908.03265): no division by v while v is not to be trusted.

        rho_inf = 2 / (1 - beta2) - 1
        rho_t = rho_inf - 2 t beta2^t / (1 - beta2^t)
        rho_t > 5:  r = ((rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t))^(1/2)
                    p <- p - lr r m / (1 - beta1^t) (1 - beta2^t)^(1/2) / (v^(1/2) + eps)
        else:       p <- p - lr m / (1 - beta1^t)

    with m and v as in Adam. Arguments as NAdam's, without `momentum_decay`; lr is 0.001 by default.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = _DOMAINS

    def __init__(
        self, params: Parameters, lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, decoupled_weight_decay: bool = False, *, maximize: bool = False,
        **hints: Any,
    ):  # fmt: skip
        defaults = dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
        )  # fmt: skip
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        t = _count(p, state, "exp_avg", "exp_avg_sq")
        g = _with_decay(p, g, group)
        m, v = _moments(g, state, group["betas"])
        step = lr / (1 - beta1**t)
        unbias = 1 - beta2**t
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / unbias
        if rho > 5:
            rectified = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            p.copy_(p - step * (rectified * unbias) ** 0.5 * m / (xp.sqrt(v) + group["eps"]))
        else:
            p.copy_(p - step * m)


class Adamax(Optimizer):
    """Adam in the infinity norm (Kingma and Ba, arXiv 1412.6980, section 7).

        m <- beta1 m + (1 - beta1) g
        u <- max(beta2 u, |g| + eps)
        p <- p - lr / (1 - beta1^t) m / u

    Arguments as Adam's, without `amsgrad`; lr is 0.002 by default.

    Raises:
        ArgumentError: if a hyperparameter is outside its domain.
    """

    domains: ClassVar[Domains] = _DOMAINS

    def __init__(
        self, params: Parameters, lr: float = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, *, maximize: bool = False, **hints: Any,
    ):  # fmt: skip
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults, **hints)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        beta1, beta2 = group["betas"]
        t = _count(p, state, "exp_avg", "exp_inf")
        g = _with_decay(p, g, group)
        m, u = state["exp_avg"], state["exp_inf"]
        m.copy_(beta1 * m + (1 - beta1) * g)
        u.copy_(xp.maximum(beta2 * u, xp.abs(g) + group["eps"]))
        p.copy_(p - (group["lr"] / (1 - beta1**t)) * m / u)
