"""Normalisation: y = (x - mean) / sqrt(variance + eps) gamma + beta, over one set of axes or other.

| function | mean and variance over | for each |
| --- | --- | --- |
| batch norm | batch and positions | channel |
| instance norm | positions | example and channel |
| group norm | positions and the channels of a group | example and group |
| layer norm | the last axes | all others |

RMS norm leaves the mean out; local response norm divides by a sum over neighbouring channels.
Variances are the mean of squares (divided by n), running variances Bessel's (by n - 1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError, ShapeError
from chainrule.nn.functional._common import Ints, as_input, check_float, same_dtype
from chainrule.primitives import movement
from chainrule.primitives.pooling import window_sum

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "rms_norm",
]


def _centred(x: Any, axes: Ints) -> tuple[Any, Any, Any]:
    """x - mean, the mean and the variance over some axes, which stay as axes of length 1."""
    mean = xp.mean(x, axis=axes, keepdims=True)
    deviation = x - mean
    return deviation, mean, xp.mean(deviation * deviation, axis=axes, keepdims=True)


def _affine(x: Any, weight: Any, bias: Any, name: str) -> Any:
    """x gamma + beta, either of which may be None."""
    for parameter in (weight, bias):
        if parameter is not None and parameter.dtype != x.dtype:
            same_dtype(name, x, parameter)
    y = x if weight is None else x * weight
    return y if bias is None else y + bias


def _check_channels(v: Any, x: Any, name: str, what: str) -> Any:
    """A vector of one value for each channel; None stays None."""
    if v is None:
        return None
    v = as_input(v)
    if v.shape != x.shape[1:2]:
        raise ShapeError(
            f"{name} got an input of shape {x.shape} with {x.shape[1]} channel(s) and {what} of "
            f"shape {v.shape}; one value for each channel (axis 1) is needed."
        )
    return v


def _by_channel(v: Any, x: Any, name: str, what: str) -> Any:
    """The same as (1, channels, 1, ...)."""
    v = _check_channels(v, x, name, what)
    return None if v is None else movement.reshape(v, shape=(1, v.shape[0], *(1,) * (x.ndim - 2)))


def _update(running: Any, value: Any, momentum: Any) -> None:
    """running = (1 - momentum) running + momentum value, outside the graph."""
    if running is not None:
        with no_grad():
            value = movement.reshape(value.detach(), shape=running.shape)
            running.copy_(running * (1 - momentum) + value * momentum)


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: Any = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """y = (x - mean) / sqrt(var + eps) gamma + beta, with mean and var for each channel.

    Source: Ioffe and Szegedy, "Batch normalization", ICML 2015.

    Arguments:
        input: x, of shape (batch, channels, ...).
        running_mean, running_var: of shape (channels,): used in evaluation, updated in training;
            None in training keeps no averages.
        weight, bias: gamma and beta, of shape (channels,), or None.
        training: take mean and variance from this batch, else from the running ones.
        momentum: the share of this batch in the running averages (the running variance is of
            Bessel's form, by n - 1).
        eps: keeps the root away from 0.

    Raises:
        ShapeError: in training with one value for each channel, which has no variance.
    """
    x = as_input(input)
    check_float("batch_norm", x)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm needs an input (batch, channels, ...), got shape {x.shape}.")
    gamma = _by_channel(weight, x, "batch_norm", "a weight")
    beta = _by_channel(bias, x, "batch_norm", "a bias")
    take = _check_channels if training else _by_channel
    mean = take(running_mean, x, "batch_norm", "a running mean")
    var = take(running_var, x, "batch_norm", "a running variance")
    if not training:
        if mean is None or var is None:
            raise ArgumentError("batch_norm in evaluation needs running_mean and running_var.")
        scale = _affine(xp.rsqrt(var + eps), gamma, None, "batch_norm")
        return x * scale + (-mean * scale if beta is None else beta - mean * scale)
    axes = (0, *range(2, x.ndim))
    n = math.prod(x.shape[a] for a in axes)
    if n == 1:
        raise ShapeError(
            f"batch_norm in training needs more than one value for each channel, but got an input "
            f"of shape {x.shape}; use a larger batch (drop_last=True in the loader drops a last "
            "batch of one), or eval()."
        )
    deviation, mean, var = _centred(x, axes)
    if n:
        _update(running_mean, mean, momentum)
        _update(running_var, var * (n / (n - 1)), momentum)
    scale = _affine(xp.rsqrt(var + eps), gamma, None, "batch_norm")
    return _affine(deviation * scale, None, beta, "batch_norm")


def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: Any = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """y = (x - mean) / sqrt(var + eps) gamma + beta, with both for each example and channel.

    Source: Ulyanov et al., "Instance normalization", 2016.

    Arguments:
        input: x, of shape (batch, channels, ...) with at least one spatial axis.
        running_mean, running_var: of shape (channels,), updated from the batch's averages, and used
            instead of this input's own if `use_input_stats` is False.
        weight, bias: gamma and beta, of shape (channels,), or None.
        momentum, eps: as in `batch_norm`.

    Raises:
        ShapeError: with one position, which has no variance.
    """
    x = as_input(input)
    check_float("instance_norm", x)
    if x.ndim < 3:
        raise ShapeError(
            f"instance_norm needs an input (batch, channels, spatial ...), got shape {x.shape}."
        )
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    axes = tuple(range(2, x.ndim))
    n = math.prod(x.shape[2:])
    if n == 1:
        raise ShapeError(
            "instance_norm needs more than one position for each channel, but got an input of "
            f"shape {x.shape}."
        )
    deviation, mean, var = _centred(x, axes)
    if n and x.shape[0]:
        _update(running_mean, xp.mean(mean, axis=0), momentum)
        _update(running_var, xp.mean(var, axis=0) * (n / (n - 1)), momentum)
    gamma = _by_channel(weight, x, "instance_norm", "a weight")
    beta = _by_channel(bias, x, "instance_norm", "a bias")
    scale = _affine(xp.rsqrt(var + eps), gamma, None, "instance_norm")
    return _affine(deviation * scale, None, beta, "instance_norm")


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """y = (x - mean) / sqrt(var + eps) gamma + beta, with mean and var for each example and group.

    Source: Wu and He, "Group normalization", ECCV 2018.

    Arguments:
        input: x, of shape (batch, channels, ...).
        num_groups: into how many groups of neighbouring channels the channels are divided.
        weight, bias: gamma and beta, of shape (channels,), or None.
        eps: keeps the root away from 0.
    """
    x = as_input(input)
    check_float("group_norm", x)
    if x.ndim < 2:
        raise ShapeError(f"group_norm needs an input (batch, channels, ...), got shape {x.shape}.")
    n, channels = x.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise ArgumentError(f"{num_groups} groups do not divide {channels} channels.")
    if n * channels // num_groups * math.prod(x.shape[2:]) == 1:
        raise ShapeError(
            f"group_norm needs more than one value for each channel, got shape {x.shape}."
        )
    inside = channels // num_groups * math.prod(x.shape[2:])
    deviation, _, var = _centred(movement.reshape(x, shape=(n, num_groups, inside)), (2,))
    y = movement.reshape(deviation * xp.rsqrt(var + eps), shape=x.shape)
    gamma = _by_channel(weight, x, "group_norm", "a weight")
    return _affine(y, gamma, _by_channel(bias, x, "group_norm", "a bias"), "group_norm")


def _last_axes(name: str, x: Any, normalized_shape: Any, weight: Any, bias: Any) -> Ints:
    """The axes that `normalized_shape` names, which are the last ones of x."""
    single = isinstance(normalized_shape, int | np.integer)
    shape = (normalized_shape,) if single else tuple(normalized_shape)
    if not shape:
        raise ArgumentError(f"{name} needs a normalized_shape with at least one axis.")
    if x.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"{name} of normalized_shape {shape} got an input of shape {x.shape}; its last axes "
            f"must be {shape}."
        )
    for what, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != shape:
            raise ShapeError(f"{name} got a {what} of shape {parameter.shape}, expected {shape}.")
    return tuple(range(x.ndim - len(shape), x.ndim))


def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """y = (x - mean) / sqrt(var + eps) gamma + beta, with mean and var over the last axes.

    Source: Ba, Kiros and Hinton, "Layer normalization", 2016.

    Arguments:
        input: x, of shape (..., *normalized_shape).
        normalized_shape: the lengths of the last axes; a number for one.
        weight, bias: gamma and beta, of shape `normalized_shape`, or None.
        eps: keeps the root away from 0. With eps = 0, y does not change if x is scaled.
    """
    x = as_input(input)
    check_float("layer_norm", x)
    axes = _last_axes("layer_norm", x, normalized_shape, weight, bias)
    deviation, _, var = _centred(x, axes)
    return _affine(deviation * xp.rsqrt(var + eps), weight, bias, "layer_norm")


def rms_norm(
    input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Tensor:
    """y = x / sqrt(mean(x^2) + eps) gamma, with the mean over the last axes.

    Source: Zhang and Sennrich, "Root mean square layer normalization", NeurIPS 2019.

    Arguments:
        input: x, of shape (..., *normalized_shape).
        normalized_shape: the lengths of the last axes; a number for one.
        weight: gamma, of shape `normalized_shape`, or None.
        eps: the spacing of floats at 1 (1.2e-7 in float32) if None.
    """
    x = as_input(input)
    check_float("rms_norm", x)
    axes = _last_axes("rms_norm", x, normalized_shape, weight, None)
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    mean_square = xp.mean(x * x, axis=axes, keepdims=True)
    return _affine(x * xp.rsqrt(mean_square + eps), weight, None, "rms_norm")


def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """y_c = x_c / (k + alpha / size * sum of x_j^2)^beta over the `size` channels j around c.

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
    neural networks", 2012 (there alpha is not divided by size).

    Arguments:
        input: x, of shape (batch, channels, ...) with at least one spatial axis.
        size: how many channels, from c - size // 2 on; channels that are not there count as 0.
        alpha, beta, k: of the formula.
    """
    x = as_input(input)
    check_float("local_response_norm", x)
    if x.ndim < 3:
        raise ShapeError(
            f"local_response_norm needs an input (batch, channels, spatial ...), got {x.shape}."
        )
    if size < 1:
        raise ArgumentError(f"local_response_norm needs size >= 1, got {size}.")
    n, channels, area = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    squares = movement.reshape(x * x, shape=(n, 1, channels, area))
    total = window_sum(
        squares, out=(channels, area), kernel=(size, 1), stride=(1, 1),
        padding=((size // 2, (size - 1) // 2), (0, 0)), dilation=(1, 1),
    )  # fmt: skip
    total = movement.reshape(total, shape=x.shape)
    return x / (total * (alpha / size) + k) ** beta
