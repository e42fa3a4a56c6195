"""Normalisation layers; the formulas stand in `functional/normalization.py`."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from chainrule import array as xp
from chainrule import dtypes
from chainrule.array._core import check_device
from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError, ChainruleWarning, ShapeError
from chainrule.nn import functional, init
from chainrule.nn.functional._checks import warn_of_training_mode
from chainrule.nn.functional._common import as_input, batched, unbatched
from chainrule.nn.linear import check_sizes, empty_parameter
from chainrule.nn.module import Module

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]


class _Affine(Module):
    """Layers that end in gamma and beta, either or both of which may be left out."""

    weight: Any
    bias: Any

    def _register_affine(
        self, shape: tuple[int, ...], affine: bool, bias: bool, device: Any, dtype: Any
    ) -> None:
        check_device(device)
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, empty_parameter(shape, dtype, device) if wanted else None)

    def reset_parameters(self) -> None:
        """gamma = 1 and beta = 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _RunningNorm(_Affine):
    """What batch norm and instance norm share: running averages beside gamma and beta."""

    spatial_axes: ClassVar[int]

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ):  # fmt: skip
        super().__init__()
        check_sizes(num_features=num_features)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self._register_affine((num_features,), affine, bias, device, dtype)
        mean = var = count = None
        if track_running_stats:
            mean = xp.zeros((num_features,), dtype=dtype)
            var = xp.ones((num_features,), dtype=dtype)
            count = xp.zeros((), dtype=dtypes.int64)
        self.register_buffer("running_mean", mean)
        self.register_buffer("running_var", var)
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget the running averages: mean 0, variance 1."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """gamma = 1, beta = 0, and no running averages yet."""
        self.reset_running_stats()
        super().reset_parameters()

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_RunningNorm):
    def forward(self, input: Any) -> Any:
        x = as_input(input)
        self._check_axes(x.shape)
        warn_of_training_mode(self, "it uses the batch's statistics and moves the running ones")
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        tracked = self.training and self.track_running_stats
        if tracked and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked.copy_(self.num_batches_tracked + 1)
                if self.momentum is None:  # the plain average of all batches
                    momentum = 1.0 / xp.astype(self.num_batches_tracked, x.dtype)
        use_running = tracked or not self.training
        return functional.batch_norm(
            x,
            self.running_mean if use_running else None,
            self.running_var if use_running else None,
            self.weight,
            self.bias,
            self.training or (self.running_mean is None and self.running_var is None),
            momentum,
            self.eps,
        )

    def _check_axes(self, shape: tuple[int, ...]) -> None:
        n = self.spatial_axes
        if len(shape) == n + 2 or (n == 1 and len(shape) == 2):
            return
        axes = "(batch, channels) or (batch, channels, length)" if n == 1 else (
            "(batch, channels, " + ", ".join(("depth", "height", "width")[3 - n :]) + ")"
        )  # fmt: skip
        other = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}
        hint = (
            f" For {len(shape)} axes there is {other[len(shape)]}." if len(shape) in other else ""
        )
        raise ShapeError(
            f"{type(self).__name__} got an input of shape {shape}; it expects {axes}.{hint}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation: y = (x - mean) / sqrt(var + eps) gamma + beta, for each channel.

    In training mean and variance (divided by n) are those of the batch, and running averages of
    them (the variance divided by n - 1) are kept; in evaluation the running ones are used, and the
    layer is a linear map that `nn.utils.fuse_linear_bn_eval` folds into the layer before it.
    Source: Ioffe and Szegedy, "Batch normalization", ICML 2015.

    Arguments:
        num_features: the number of channels.
        eps: keeps the root away from 0.
        momentum: running = (1 - momentum) running + momentum batch; None is the plain average of
            all batches.
        affine: whether gamma and beta are there.
        track_running_stats: whether running averages are kept; without them the batch's are used in
            evaluation too.
        dtype: of parameters and averages; float32 by default.
        bias: whether beta is there.

    Parameters: `weight` gamma (ones) and `bias` beta (zeros), of shape (num_features,).
    Buffers: `running_mean` (zeros), `running_var` (ones), `num_batches_tracked`.

    Shapes: (batch, channels) or (batch, channels, length), to the same.

    Raises:
        ShapeError: for another number of axes or channels; in training with one value for each
            channel.
    """

    spatial_axes = 1


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images; formula, arguments and state as `BatchNorm1d`.

    Shapes: (batch, channels, height, width) to the same.
    """

    spatial_axes = 2


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of volumes; formula, arguments and state as `BatchNorm1d`.

    Shapes: (batch, channels, depth, height, width) to the same.
    """

    spatial_axes = 3


class _InstanceNorm(_RunningNorm):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = False, track_running_stats: bool = False, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ):  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )

    def forward(self, input: Any) -> Any:
        x, added = batched(type(self).__name__, as_input(input), self.spatial_axes)
        if x.shape[1] != self.num_features:
            message = (
                f"{type(self).__name__} of {self.num_features} features got an input of shape "
                f"{x.shape[added:]} with {x.shape[1]} channel(s)"
            )
            if self.affine or self.track_running_stats:
                raise ShapeError(message + "; they must be equal.")
            warnings.warn(message + ", which it normalises alike.", ChainruleWarning, stacklevel=3)
        y = functional.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum, self.eps,
        )  # fmt: skip
        return unbatched(y, added)


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation: y = (x - mean) / sqrt(var + eps) gamma + beta, over the positions.

    Each example and channel has a mean and variance of its own, in evaluation too unless running
    averages are kept. Source: Ulyanov et al., "Instance normalization", 2016.

    Arguments:
        num_features: the number of channels.
        eps: keeps the root away from 0.
        momentum: running = (1 - momentum) running + momentum batch.
        affine: whether gamma and beta are there. Default: False.
        track_running_stats: keep running averages, and use them in evaluation. Default: False.
        dtype: of parameters and averages; float32 by default.
        bias: whether beta is there, if affine.

    Shapes: (batch, channels, length), or the same without batch, to the same.
    """

    spatial_axes = 1


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of images; formula, arguments and state as `InstanceNorm1d`.

    Shapes: (batch, channels, height, width), or the same without batch, to the same.
    """

    spatial_axes = 2


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of volumes; formula, arguments and state as `InstanceNorm1d`.

    Shapes: (batch, channels, depth, height, width), or the same without batch, to the same.
    """

    spatial_axes = 3


def _as_tuple(normalized_shape: Any) -> tuple[int, ...]:
    several = isinstance(normalized_shape, tuple | list)
    shape = tuple(normalized_shape) if several else (normalized_shape,)
    if not shape or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ArgumentError(
            f"normalized_shape is a number or a tuple of numbers, got {normalized_shape!r}."
        )
    return shape


class LayerNorm(_Affine):
    """Layer normalisation: y = (x - mean) / sqrt(var + eps) gamma + beta, over the last axes.

    Source: Ba, Kiros and Hinton, "Layer normalization", 2016.

    Arguments:
        normalized_shape: the lengths of the last axes; a number for one.
        eps: keeps the root away from 0.
        elementwise_affine: whether gamma and beta are there.
        bias: whether beta is there.
        dtype: of the parameters; float32 by default.

    Parameters: `weight` gamma (ones) and `bias` beta (zeros), of shape `normalized_shape`.

    Shapes: (..., *normalized_shape) to the same.
    """

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.normalized_shape = _as_tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._register_affine(self.normalized_shape, elementwise_affine, bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Any) -> Any:
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(_Affine):
    """Root mean square normalisation: y = x / sqrt(mean(x^2) + eps) gamma, over the last axes.

    Source: Zhang and Sennrich, "Root mean square layer normalization", NeurIPS 2019.

    Arguments:
        normalized_shape: the lengths of the last axes; a number for one.
        eps: keeps the root away from 0; None takes the spacing of floats at 1.
        elementwise_affine: whether gamma is there.
        dtype: of the parameter; float32 by default.

    Parameters: `weight` gamma (ones), of shape `normalized_shape`.

    Shapes: (..., *normalized_shape) to the same.
    """

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.normalized_shape = _as_tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", None)
        if elementwise_affine:
            self.weight = empty_parameter(self.normalized_shape, dtype, device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """gamma = 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Any) -> Any:
        return functional.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(_Affine):
    """Group normalisation: y = (x - mean) / sqrt(var + eps) gamma + beta, for each group.

    Mean and variance are over the positions and the channels of a group, for each example.
    Source: Wu and He, "Group normalization", ECCV 2018.

    Arguments:
        num_groups: into how many groups of neighbouring channels the channels are divided.
        num_channels: the number of channels.
        eps: keeps the root away from 0.
        affine: whether gamma and beta are there.
        dtype: of the parameters; float32 by default.
        bias: whether beta is there.

    Parameters: `weight` gamma (ones) and `bias` beta (zeros), of shape (num_channels,).

    Shapes: (batch, num_channels, ...) to the same.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ):  # fmt: skip
        super().__init__()
        check_sizes(num_channels=num_channels)
        if num_groups < 1 or num_channels % num_groups:
            raise ArgumentError(
                f"num_channels, {num_channels}, must be divisible by num_groups, {num_groups}."
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self._register_affine((num_channels,), affine, bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Any) -> Any:
        x = as_input(input)
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(
                f"GroupNorm of {self.num_channels} channels got an input of shape {x.shape}; axis "
                f"1 must have length {self.num_channels}."
            )
        return functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """y_c = x_c / (k + alpha / size * sum of x_j^2)^beta over the `size` channels j around c.

    Source: Krizhevsky, Sutskever and Hinton, 2012 (there alpha is not divided by size).

    Arguments:
        size: how many channels; those that are not there count as 0.
        alpha, beta, k: of the formula.

    Shapes: (batch, channels, ...) to the same.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Any) -> Any:
        return functional.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
