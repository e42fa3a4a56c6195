"""Folding batch norm into the layer before it.

In evaluation batch norm is y = (x - mean) s + beta with s = gamma / sqrt(var + eps): linear in x.
After a layer x = w u + b it is y = (s w) u + (b - mean) s + beta, one layer of the same kind.
"""

from __future__ import annotations

import copy
from typing import Any

from chainrule import array as xp
from chainrule.errors import ArgumentError, ShapeError
from chainrule.nn.parameter import Parameter


def _folded(
    weight: Any, bias: Any, running_mean: Any, running_var: Any, eps: float, gamma: Any,
    beta: Any, axis: int,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """s w and (b - mean) s + beta; the output channels of w stand along `axis`."""
    # In double precision: the folded layer is then exact to the rounding of its own weights.
    mean, var = (xp.astype(v.detach(), "float64") for v in (running_mean, running_var))
    scale = xp.rsqrt(var + eps)
    if gamma is not None:
        scale = scale * gamma.detach()
    shift = (0.0 if bias is None else bias.detach()) - mean
    shift = shift * scale
    if beta is not None:
        shift = shift + beta.detach()
    along = tuple(-1 if a == axis else 1 for a in range(weight.ndim))
    new_weight = xp.astype(weight.detach() * xp.reshape(scale, along), weight.dtype)
    new_bias = xp.astype(shift, weight.dtype)
    trained = weight.requires_grad if bias is None else bias.requires_grad
    return Parameter(new_weight, weight.requires_grad), Parameter(new_bias, trained)


def fuse_conv_bn_weights(
    conv_w: Any, conv_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """The weight and bias of a convolution with a batch norm folded in.

    Arguments:
        conv_w, conv_b: weight and bias (or None) of the convolution.
        bn_rm, bn_rv, bn_eps, bn_w, bn_b: running mean and variance, eps, gamma and beta (or None).
        transpose: whether it is a transposed convolution, whose weight has its outputs second.
    """
    return _folded(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 1 if transpose else 0)


def fuse_linear_bn_weights(
    linear_w: Any, linear_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any
) -> tuple[Parameter, Parameter]:
    """The weight and bias of a linear layer with a batch norm folded in; see above."""
    return _folded(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _check(layer: Any, bn: Any, channels: int) -> None:
    if layer.training or bn.training:
        raise ArgumentError(
            "batch norm folds into the layer before it in evaluation alone; call eval() on both."
        )
    if bn.running_mean is None or bn.running_var is None:
        raise ArgumentError(
            "a batch norm without running averages takes those of each batch and does not fold."
        )
    if bn.num_features != channels:
        raise ShapeError(
            f"a batch norm of {bn.num_features} features does not follow a layer with {channels} "
            "outputs."
        )


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of a convolution that does what the convolution and the batch norm after it do.

    Arguments:
        conv: a (transposed) convolution layer.
        bn: the batch norm after it.
        transpose: whether it is a transposed convolution.

    Raises:
        ArgumentError: if either is in training mode, or the batch norm has no running averages.
    """
    _check(conv, bn, conv.out_channels)
    if transpose and conv.groups != 1:
        raise ArgumentError("a transposed convolution in groups is not folded.")
    fused = copy.deepcopy(conv)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
        transpose,
    )  # fmt: skip
    return fused


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of a linear layer that does what the layer and the batch norm after it do.

    Raises:
        ArgumentError: if either is in training mode, or the batch norm has no running averages.
    """
    _check(linear, bn, linear.out_features)
    fused = copy.deepcopy(linear)
    fused.weight, fused.bias = fuse_linear_bn_weights(
        linear.weight, linear.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    return fused
