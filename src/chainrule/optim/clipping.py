"""Keeping gradients from exploding: by value, by norm, and to a fixed norm.

All take the parameters (or one tensor), replace their `.grad`, and leave out those that have none.
Call them between `backward` and the optimiser's `step`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from chainrule import array as xp
from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError, NonFiniteError
from chainrule.graph import Value
from chainrule.primitives.checks import check
from chainrule.tensor import Tensor

Tensors = Tensor | Iterable[Tensor]


def _listed(tensors: Tensors) -> list[Any]:
    return [tensors] if isinstance(tensors, Value) else list(tensors)


def _with_grad(parameters: Tensors) -> list[Any]:
    return [p for p in _listed(parameters) if p.grad is not None]


def _norm(x: Any, p: float) -> Any:
    """(sum |x|^p)^(1/p) over all elements; inf: the largest |x|, -inf: the smallest, 0: a count."""
    if p == 2.0:
        return xp.sqrt(xp.sum(x * x))
    if p == 1.0:
        return xp.sum(xp.abs(x))
    if math.isinf(p):
        return (xp.max if p > 0 else xp.min)(xp.abs(x))
    if p == 0.0:
        return xp.astype(xp.count_nonzero(x), x.dtype)
    return xp.sum(xp.abs(x) ** p) ** (1 / p)


def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """The norm of all tensors together, as if they were one vector.

    Arguments:
        tensors: the tensors.
        norm_type: p of the p-norm; may be inf.
        error_if_nonfinite: raise if the norm is NaN or infinite.
        foreach: PyTorch's; has no effect.

    Raises:
        NonFiniteError: see `error_if_nonfinite`.
    """
    tensors, p = _listed(tensors), float(norm_type)
    if not tensors:
        return xp.zeros(())
    with no_grad():
        norms = [_norm(x.detach(), p) for x in tensors]
        dtype = functools.reduce(lambda a, b: a if a.itemsize >= b.itemsize else b, (
            n.dtype for n in norms
        ))  # fmt: skip
        total = _norm(xp.stack([xp.astype(n, dtype, copy=False) for n in norms]), p)
    if error_if_nonfinite:
        largest = float(np.finfo(total.dtype).max)
        check(total, low=-largest, high=largest, ignore=None, nan=False, refuse=_not_finite)
    return total


def _not_finite(norm: Any) -> NonFiniteError:
    return NonFiniteError(
        f"the norm of the gradients is {norm}, so they cannot be clipped; look for the first NaN "
        "with autograd.detect_anomaly, or lower the learning rate."
    )


def _scale(parameters: list[Any], factor: Any) -> None:
    with no_grad():
        for p in parameters:
            p.grad = p.grad * xp.astype(factor, p.grad.dtype, copy=False)


def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """g <- g min(1, max_norm / (total_norm + 1e-6)), with a norm that is known already."""
    _scale(_with_grad(parameters), xp.clip(max_norm / (total_norm + 1e-6), max=1.0))


def clip_grad_norm_(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scale all gradients together so that their norm is at most `max_norm` (Pascanu et al., 2013).

        g <- g min(1, max_norm / (|g| + 1e-6))

    Arguments:
        parameters: the parameters, or one.
        max_norm: the largest norm.
        norm_type: p of the p-norm; may be inf.
        error_if_nonfinite: raise if the norm is NaN or infinite.
        foreach: PyTorch's; has no effect.

    Returns:
        The norm before.

    Raises:
        NonFiniteError: see `error_if_nonfinite`.
    """
    chosen = _with_grad(parameters)
    total = get_total_norm([p.grad for p in chosen], norm_type, error_if_nonfinite)
    clip_grads_with_norm_(chosen, max_norm, total)
    return total


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clip every derivative to [-clip_value, clip_value]. This can turn the gradient's direction.

    Arguments:
        parameters: the parameters, or one.
        clip_value: the largest size of a derivative.
        foreach: PyTorch's; has no effect.
    """
    bound = float(clip_value)
    if bound < 0:
        raise ArgumentError(f"clip_grad_value_ needs clip_value >= 0, but got {clip_value}.")
    with no_grad():
        for p in _with_grad(parameters):
            p.grad = xp.clip(p.grad, -bound, bound)


def rescale_grad_norm_(parameters: Tensors, norm: float, norm_type: float = 2.0) -> Tensor:
    """Scale all gradients together so that their norm is `norm`, be it larger or smaller before.

        g <- g norm / |g|

    Some lectures call this clipping. Every step then has the same length before the optimiser's own
    scaling, also close to a minimum, where clipping would leave it small. A gradient of zeros
    stays.

    Arguments:
        parameters: the parameters, or one.
        norm: the norm afterwards.
        norm_type: p of the p-norm; may be inf.

    Returns:
        The norm before.
    """
    chosen = _with_grad(parameters)
    total = get_total_norm([p.grad for p in chosen], norm_type)
    _scale(chosen, norm / xp.where(total == 0, xp.ones_like(total), total))
    return total
