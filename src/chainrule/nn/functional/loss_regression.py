"""Losses of regression, and the likelihoods of counts and of normal variables.

`reduction` is "mean" (default), "sum" or "none"; `size_average` and `reduce` are PyTorch's older
flags for it. Input and target have one shape: nothing broadcasts in silence.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule.array._core import as_float, as_tensor
from chainrule.errors import ArgumentError, ShapeError
from chainrule.nn.functional._checks import (
    check_range,
    check_reduction,
    check_same_shape,
    legacy_reduction,
    reduced,
)

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "gaussian_nll_loss", "half_squared_error_loss", "huber_loss", "l1_loss", "mse_loss",
    "poisson_nll_loss", "smooth_l1_loss",
]  # fmt: skip

Flag = bool | None


def _error(name: str, input: Any, target: Any) -> Any:
    """x - y, of one shape."""
    x, y = as_float(input), as_float(target)
    check_same_shape(name, input=x, target=y)
    return x - y


def _weighted(name: str, losses: Any, weight: Any, reduction: str) -> Any:
    """The losses reduced; with a weight for each element the mean is `sum w l / sum w`."""
    if weight is None:
        return reduced(losses, reduction)
    weight = as_tensor(weight)
    check_same_shape(name, input=losses, weight=weight)
    if reduction == "mean":
        return xp.sum(losses * weight) / xp.sum(weight)
    return reduced(losses * weight, reduction)


def l1_loss(
    input: Any, target: Any, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean", weight: Any = None,
) -> Tensor:  # fmt: skip
    """|x - y|; its mean is the mean absolute error (MAE). The derivative at 0 is 0.

    weight: a weight for each element; the mean is then `sum w l / sum w`.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    return _weighted("l1_loss", xp.abs(_error("l1_loss", input, target)), weight, reduction)


def mse_loss(
    input: Any, target: Any, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean", weight: Any = None,
) -> Tensor:  # fmt: skip
    """(x - y)^2; its mean is the mean squared error, its sum the sum of squared errors.

    weight: a weight for each element; the mean is then `sum w l / sum w`.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    return _weighted("mse_loss", _error("mse_loss", input, target) ** 2, weight, reduction)


def half_squared_error_loss(input: Any, target: Any, reduction: str = "sum") -> Tensor:
    """1/2 (x - y)^2, whose derivative by x is the error x - y itself.

    reduction: "sum" (default) gives `1/2 sum (x - y)^2`; "batchmean" gives `1/(2N) sum (x - y)^2`,
        N the length of the first axis; "mean" divides by the number of elements; "none".
    """
    check_reduction(reduction, ("none", "batchmean", "sum", "mean"))
    losses = 0.5 * _error("half_squared_error_loss", input, target) ** 2
    if reduction != "batchmean":
        return reduced(losses, reduction)
    if losses.ndim == 0:
        raise ShapeError("reduction 'batchmean' needs a first axis, the batch.")
    return xp.sum(losses) / losses.shape[0]


def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Tensor:
    """1/2 d^2 where |d| <= delta, delta (|d| - delta/2) elsewhere; d = x - y. Huber (1964).

    weight: a factor for each element; the mean is `sum w l / n`, as in PyTorch.
    """
    if not delta > 0:
        raise ArgumentError(f"huber_loss needs delta > 0, got {delta}.")
    d = _error("huber_loss", input, target)
    size = xp.abs(d)
    losses = xp.where(size <= delta, 0.5 * d * d, delta * (size - 0.5 * delta))
    if weight is not None:
        weight = as_tensor(weight)
        check_same_shape("huber_loss", input=losses, weight=weight)
        losses = losses * weight
    return reduced(losses, reduction)


def smooth_l1_loss(
    input: Any, target: Any, size_average: Flag = None, reduce: Flag = None,
    reduction: str = "mean", beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """1/2 d^2 / beta where |d| < beta, |d| - beta/2 elsewhere; d = x - y. Girshick (2015).

    It is `huber_loss` divided by beta, and for beta = 0 `l1_loss`.
    """
    if beta < 0:
        raise ArgumentError(f"smooth_l1_loss needs beta >= 0, got {beta}.")
    if beta == 0:
        return l1_loss(input, target, size_average, reduce, reduction)
    d = _error("smooth_l1_loss", input, target)
    size = xp.abs(d)
    losses = xp.where(size < beta, 0.5 * d * d / beta, size - 0.5 * beta)
    return reduced(losses, reduction, size_average, reduce)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False,
    size_average: Flag = None, eps: float = 1e-8, reduce: Flag = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """e^x - y x, or x - y ln(x + eps): -ln P(y) of a Poisson count, less ln y!.

    Arguments:
        log_input: x is the logarithm of the rate; else the rate itself.
        full: add Stirling's y ln y - y + 1/2 ln(2 pi y) for ln y! where y > 1.
        eps: keeps the logarithm of a rate of 0 finite.
    """
    x, y = as_float(input), as_float(target)
    check_same_shape("poisson_nll_loss", input=x, target=y)
    losses = xp.exp(x) - y * x if log_input else x - y * xp.log(x + eps)
    if full:
        large = y > 1
        n = xp.where(large, y, 1)
        stirling = n * xp.log(n) - n + 0.5 * xp.log(2 * math.pi * n)
        losses = losses + xp.where(large, stirling, 0)
    return reduced(losses, reduction, size_average, reduce)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """1/2 (ln v + (x - y)^2 / v), v = max(var, eps): -ln density of y under N(x, var).

    The bound eps is not part of the derivative, as in PyTorch. Nix and Weigend (1994).

    Shapes: input and target (...); var of the same shape, without the last axis or with 1 in place
    of one axis (one variance for several elements), or a number.

    Arguments:
        full: add the constant 1/2 ln(2 pi).
    """
    name = "gaussian_nll_loss"
    check_reduction(reduction)
    x, y = as_float(input), as_float(target)
    check_same_shape(name, input=x, target=y)
    v = xp.full(x.shape, var, dtype=x.dtype) if isinstance(var, int | float) else as_float(var)
    check_range(name, "variances", v, 0)
    if v.shape != x.shape:
        if v.shape == x.shape[:-1]:
            v = xp.expand_dims(v, axis=-1)
        unlike = [n for n, m in zip(v.shape, x.shape, strict=False) if n != m]
        if v.ndim != x.ndim or unlike != [1]:
            raise ShapeError(
                f"{name} takes variances of the input's shape {x.shape}, without its last axis, or "
                f"with 1 in place of one axis, got {as_tensor(var).shape}."
            )
    v = v + (xp.clip(v, eps) - v).detach()
    losses = 0.5 * (xp.log(v) + (x - y) ** 2 / v)
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return reduced(losses, reduction)
