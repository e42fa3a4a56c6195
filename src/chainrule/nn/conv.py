"""Convolution and transposed convolution layers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from chainrule.errors import ArgumentError, unknown_name
from chainrule.nn import functional, init
from chainrule.nn.functional._common import Ints, ints
from chainrule.nn.functional.conv import convolve, convolve_transposed, pairs
from chainrule.nn.linear import check_sizes, empty_parameter
from chainrule.nn.module import Module

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """What all convolution layers share: their arguments, parameters and text."""

    spatial_axes: ClassVar[int]

    def _set_up(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any,
        dilation: Any, output_padding: Any, groups: int, bias: bool, padding_mode: str,
        weight_channels: tuple[int, int], device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        n = self.spatial_axes
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = ints(kernel_size, n, "kernel_size", 1)
        self.stride = ints(stride, n, "stride", 1)
        self.padding = padding if isinstance(padding, str) else ints(padding, n, "padding", 0)
        self.dilation = ints(dilation, n, "dilation", 1)
        self.output_padding = ints(output_padding, n, "output_padding", 0)
        self.groups = groups
        self.padding_mode = padding_mode
        self.weight = empty_parameter((*weight_channels, *self.kernel_size), dtype, device)
        if bias:
            self.bias = empty_parameter((out_channels,), dtype, device)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    @staticmethod
    def _check(in_channels: int, out_channels: int, groups: int, padding_mode: str) -> None:
        check_sizes(in_channels=in_channels, out_channels=out_channels)
        if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
            raise ArgumentError(f"groups is an integer of at least 1, got {groups!r}.")
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ArgumentError(f"{name}, {channels}, must be divisible by groups, {groups}.")
        if padding_mode not in PADDING_MODES:
            raise unknown_name("padding_mode", padding_mode, PADDING_MODES)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        # With a = sqrt(5) the bound sqrt(6 / ((1 + a^2) fan_in)) is 1 / sqrt(fan_in).
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.calculate_fan_in_and_fan_out(self.weight)
            bound = 1 / math.sqrt(fan_in) if fan_in else 0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        n = self.spatial_axes
        parts = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        ]
        if self.padding != (0,) * n:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * n:
            parts.append(f"dilation={self.dilation}")
        if self.output_padding != (0,) * n:
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _Conv(_ConvNd):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self._check(in_channels, out_channels, groups, padding_mode)
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias,
            padding_mode, (out_channels, in_channels // groups), device, dtype,
        )  # fmt: skip
        self._pairs = pairs(self.padding, self.kernel_size, self.stride, self.dilation)

    def forward(self, input: Any) -> Any:
        padding = self._pairs
        if self.padding_mode != "zeros":
            # functional.pad names the last axis first.
            widths = [width for pair in reversed(padding) for width in pair]
            input = functional.pad(input, widths, mode=self.padding_mode)
            padding = ((0, 0),) * self.spatial_axes
        return convolve(
            type(self).__name__, input, self.weight, self.bias, self.stride, padding,
            self.dilation, self.groups,
        )  # fmt: skip


class _ConvTranspose(_ConvNd):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self._check(in_channels, out_channels, groups, padding_mode)
        if padding_mode != "zeros" or isinstance(padding, str):
            raise ArgumentError(
                "a transposed convolution takes padding as numbers and padding_mode 'zeros' alone, "
                f"got padding {padding!r} and padding_mode {padding_mode!r}."
            )
        self._set_up(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding,
            groups, bias, padding_mode, (in_channels, out_channels // groups), device, dtype,
        )  # fmt: skip

    def forward(self, input: Any, output_size: Any = None) -> Any:
        extra = self.output_padding
        if output_size is not None:
            extra = self._output_padding(input, output_size)
        assert not isinstance(self.padding, str)
        return convolve_transposed(
            type(self).__name__, input, self.weight, self.bias, self.stride, self.padding, extra,
            self.groups, self.dilation,
        )  # fmt: skip

    def _output_padding(self, input: Any, output_size: Any) -> Ints:
        """The output padding that gives a requested output size."""
        n = self.spatial_axes
        wanted = tuple(int(m) for m in output_size)
        if len(wanted) == input.ndim:
            wanted = wanted[input.ndim - n :]
        if len(wanted) != n:
            raise ArgumentError(
                f"output_size {tuple(output_size)} needs {n} sizes (or {input.ndim}) for an input "
                f"of shape {tuple(input.shape)}."
            )
        assert not isinstance(self.padding, str)
        least = tuple(
            (m - 1) * s - 2 * p + d * (k - 1) + 1
            for m, s, p, d, k in zip(
                input.shape[-n:], self.stride, self.padding, self.dilation, self.kernel_size,
                strict=True,
            )
        )  # fmt: skip
        most = tuple(m + s - 1 for m, s in zip(least, self.stride, strict=True))
        if any(not low <= m <= high for m, low, high in zip(wanted, least, most, strict=True)):
            raise ArgumentError(
                f"output_size {wanted} cannot be had from an input of size {input.shape[-n:]}: "
                f"sizes from {least} to {most} can."
            )
        return tuple(m - low for m, low in zip(wanted, least, strict=True))


_CONV = """{n}-D convolution layer; see `nn.functional.conv{n}d` for the formula.

    Arguments:
        in_channels, out_channels: the number of channels of x and y.
        kernel_size: the size of the kernel.
        stride: the distance between neighbouring positions of the kernel.
        padding: zeros on both sides of each axis, or 'valid' (none) or 'same'.
        dilation: the distance between neighbouring elements under the kernel.
        groups: output channels see the input channels of their group alone.
        bias: whether one is added to each output channel.
        padding_mode: what padding is filled with: 'zeros', or from the input by 'reflect',
            'replicate' or 'circular'.
        dtype: of the parameters; float32 by default.

    Parameters: `weight` (out_channels, in_channels / groups, {kernel}) and `bias` (out_channels,),
    both initially uniform on [-1, 1] / sqrt(fan_in), fan_in being in_channels / groups times the
    kernel's elements.

    Shapes: (batch, in_channels, {axes}) to (batch, out_channels, ...), or both without batch.
    """

_CONV_TRANSPOSE = """{n}-D transposed convolution layer; see `nn.functional.conv_transpose{n}d`.

    Arguments:
        in_channels, out_channels: the number of channels of x and y.
        kernel_size, stride, padding, dilation, groups: those of the convolution that it is the
            adjoint of.
        output_padding: added to the output's size at the end of each axis.
        bias: whether one is added to each output channel.
        dtype: of the parameters; float32 by default.

    Parameters: `weight` (in_channels, out_channels / groups, {kernel}) and `bias` (out_channels,),
    both initially uniform on [-1, 1] / sqrt(fan), fan being out_channels / groups times the
    kernel's elements.

    Shapes: (batch, in_channels, {axes}) to (batch, out_channels, ...), or both without batch.
    `layer(x, output_size=...)` chooses among the sizes that a stride leaves open.
    """


class Conv1d(_Conv):
    __doc__ = _CONV.format(n=1, kernel="k", axes="length")
    spatial_axes = 1


class Conv2d(_Conv):
    __doc__ = _CONV.format(n=2, kernel="kh, kw", axes="height, width")
    spatial_axes = 2


class Conv3d(_Conv):
    __doc__ = _CONV.format(n=3, kernel="kd, kh, kw", axes="depth, height, width")
    spatial_axes = 3


class ConvTranspose1d(_ConvTranspose):
    __doc__ = _CONV_TRANSPOSE.format(n=1, kernel="k", axes="length")
    spatial_axes = 1


class ConvTranspose2d(_ConvTranspose):
    __doc__ = _CONV_TRANSPOSE.format(n=2, kernel="kh, kw", axes="height, width")
    spatial_axes = 2


class ConvTranspose3d(_ConvTranspose):
    __doc__ = _CONV_TRANSPOSE.format(n=3, kernel="kd, kh, kw", axes="depth, height, width")
    spatial_axes = 3
