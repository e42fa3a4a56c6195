"""Layers that rearrange or resize: flatten, patches, pixels, upsampling."""

from __future__ import annotations

from typing import Any

from chainrule import array as xp
from chainrule.errors import ArgumentError, ArgumentTypeError, IndexingError
from chainrule.nn import functional
from chainrule.nn.functional._common import as_input
from chainrule.nn.module import Module

__all__ = [
    "Flatten",
    "Fold",
    "PixelShuffle",
    "PixelUnshuffle",
    "Unflatten",
    "Unfold",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
]


class Flatten(Module):
    """The axes from `start_dim` to `end_dim` (both included) merged into one.

    By default all but the first, the batch: (batch, channels, height, width) becomes
    (batch, channels * height * width).
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Any) -> Any:
        x = as_input(input)
        for name, dim in (("start_dim", self.start_dim), ("end_dim", self.end_dim)):
            if not -x.ndim <= dim < max(x.ndim, 1):
                raise IndexingError(
                    f"Flatten from {self.start_dim} to {self.end_dim} got an input of shape "
                    f"{x.shape}, which has no axis {dim} ({name})."
                    + (" Is the batch axis missing? x[None] adds it." if x.ndim == 1 else "")
                )
        return xp.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One axis split into several.

    Arguments:
        dim: the axis.
        unflattened_size: the lengths that it is split into, one of which may be -1.
    """

    def __init__(self, dim: int, unflattened_size: Any):
        super().__init__()
        if isinstance(dim, bool) or not isinstance(dim, int):
            raise ArgumentTypeError(f"Unflatten splits an axis by its number, got {dim!r}.")
        if not isinstance(unflattened_size, tuple | list) or not all(
            isinstance(n, int) for n in unflattened_size
        ):
            raise ArgumentTypeError(
                f"unflattened_size is a tuple of integers, got {unflattened_size!r}."
            )
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Any) -> Any:
        x = as_input(input)
        if not -x.ndim <= self.dim < x.ndim:
            raise IndexingError(f"Unflatten: an input of shape {x.shape} has no axis {self.dim}.")
        return xp.unflatten(x, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Unfold(Module):
    """Every window of the input as a column (im2col).

    Arguments:
        kernel_size, dilation, padding, stride: of the windows, as in `Conv2d`.

    Shapes: (batch, channels, height, width) to (batch, channels * kh * kw, windows), or both
    without batch.
    """

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1):
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Any) -> Any:
        return functional.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Fold(Module):
    """Columns back to an image, overlapping elements added up (col2im): the adjoint of `Unfold`.

    Arguments:
        output_size: (height, width) of the image.
        kernel_size, dilation, padding, stride: of the windows, as in `Unfold`.

    Shapes: (batch, channels * kh * kw, windows) to (batch, channels, height, width), or both
    without batch.
    """

    def __init__(
        self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
        stride: Any = 1,
    ):  # fmt: skip
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Any) -> Any:
        return functional.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        )


class PixelShuffle(Module):
    """Channels to pixels: (..., c r^2, h, w) to (..., c, h r, w r), with r = `upscale_factor`.

    Source: Shi et al., 2016 (sub-pixel convolution).
    """

    def __init__(self, upscale_factor: int):
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Any) -> Any:
        return functional.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Pixels to channels: (..., c, h r, w r) to (..., c r^2, h, w), with r = `downscale_factor`."""

    def __init__(self, downscale_factor: int):
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Any) -> Any:
        return functional.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class Upsample(Module):
    """The input in another size; see `nn.functional.interpolate` for the formulas.

    Arguments:
        size: the output's spatial size: a number, or one for each axis.
        scale_factor: or a factor instead; or one for each axis.
        mode: "nearest", "linear" (1 axis), "bilinear", "bicubic" (2 axes) or "trilinear" (3 axes).
        align_corners: let the centres of the outermost elements meet.
        recompute_scale_factor: take positions from the rounded sizes and not from `scale_factor`.

    Shapes: (batch, channels, ...) to the same with other spatial sizes.
    """

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
        align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ):  # fmt: skip
        super().__init__()
        if (size is None) == (scale_factor is None):
            raise ArgumentError("Upsample needs either size or scale_factor, and not both.")
        self.size = size
        if isinstance(scale_factor, tuple | list):
            self.scale_factor: Any = tuple(float(f) for f in scale_factor)
        else:
            self.scale_factor = None if scale_factor is None else float(scale_factor)
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Any) -> Any:
        return functional.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners,
            self.recompute_scale_factor,
        )  # fmt: skip

    def extra_repr(self) -> str:
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor!r}, mode={self.mode!r}"
        return f"size={self.size!r}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` of images with mode "nearest"."""

    def __init__(self, size: Any = None, scale_factor: Any = None):
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` of images with mode "bilinear" and `align_corners=True`."""

    def __init__(self, size: Any = None, scale_factor: Any = None):
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
