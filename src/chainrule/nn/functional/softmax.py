"""Softmax and its kin: scores into probabilities along one axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule import random
from chainrule.array._core import as_float, as_tensor, normalize_axis
from chainrule.array.indexing import scatter_add
from chainrule.errors import ShapeError
from chainrule.nn.functional._checks import warn_once

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["gumbel_softmax", "log_softmax", "softmax", "softmax2d", "softmin"]


def _prepared(name: str, input: Any, dim: int | None, dtype: Any) -> tuple[Any, int]:
    """The input in the dtype asked for, and the axis counted from the front."""
    x = as_tensor(input)
    x = as_float(x) if dtype is None else xp.astype(x, dtype, copy=False)
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warn_once(
            f"{name} dim", f"{name} without dim took axis {dim} of shape {x.shape}; pass dim={dim}."
        )
    if x.ndim == 0:
        x = xp.reshape(x, (1,))  # one score: PyTorch takes it as an axis of length 1
    return x, normalize_axis(dim, x.ndim)


def _from_the_top(x: Any, axis: int) -> Any:
    """x less its largest element along the axis, a constant: no e^x overflows."""
    if x.shape[axis] == 0:
        return x
    return x - xp.max(x.detach(), axis=axis, keepdims=True)


def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """e^(x_i) / sum_j e^(x_j) along `dim`, computed from the largest x_i down.

    dtype: cast the input first. Without `dim` the axis is 0 for 0, 1 and 3 axes and 1 otherwise,
    with a warning, as in PyTorch.
    """
    x, axis = _prepared("softmax", input, dim, dtype)
    powers = xp.exp(_from_the_top(x, axis))
    z = powers / xp.sum(powers, axis=axis, keepdims=True)
    return z if as_tensor(input).ndim else xp.reshape(z, ())


def log_softmax(
    input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """x_i - ln sum_j e^(x_j) along `dim`: the logarithm of the softmax, without its underflow."""
    x, axis = _prepared("log_softmax", input, dim, dtype)
    shifted = _from_the_top(x, axis)
    z = shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))
    return z if as_tensor(input).ndim else xp.reshape(z, ())


def softmin(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """softmax(-x) along `dim`."""
    return softmax(-as_tensor(input), dim, dtype=dtype)


def softmax2d(input: Any) -> Tensor:
    """The softmax over the channels at every pixel. Shapes: (N, C, H, W) or (C, H, W)."""
    x = as_float(input)
    if x.ndim not in (3, 4):
        raise ShapeError(f"softmax2d takes (N, C, H, W) or (C, H, W), got {x.shape}.")
    return softmax(x, -3)


def gumbel_softmax(
    logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """softmax((x + g) / tau) along `dim`, g = -ln(-ln u), u uniform. Jang, Gu and Poole (2017).

    Arguments:
        logits: unnormalised log-probabilities.
        tau: the temperature; towards 0 the result approaches a draw of one class.
        hard: give the draw itself, one-hot, with the derivative of the soft one.
        eps: without effect, as in PyTorch.
    """
    x = as_float(logits)
    waiting = random.exponential(x.shape, dtype=x.dtype)
    # An exponential variable is 0 with probability 2^-24; its logarithm must stay finite.
    gumbel = -xp.log(xp.maximum(waiting, 2.0**-25))
    soft = softmax((x + gumbel) / tau, dim)
    if not hard:
        return soft
    drawn = xp.argmax(soft.detach(), axis=dim, keepdims=True)
    ones = xp.ones(drawn.shape, dtype=x.dtype)
    one_hot = scatter_add(xp.zeros(x.shape, dtype=x.dtype), drawn, ones, axis=dim)
    return one_hot - soft.detach() + soft
