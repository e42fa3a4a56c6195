"""Padding layers, and the shuffling of channels. `nn.functional.pad` does the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.errors import ArgumentTypeError, ShapeError
from chainrule.nn import functional as F
from chainrule.nn.module import Module
from chainrule.tensor import Tensor

__all__ = [
    "ChannelShuffle", "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d",
    "ConstantPad2d", "ConstantPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d",
    "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d",
    "ZeroPad3d",
]  # fmt: skip

Widths = int | Sequence[int]


class _Pad(Module):
    """Padding of the last `axes` axes.

    Arguments:
        padding: one width for all sides, or (before, after) of the last axis, then of the one
            before it, and so on. Negative widths cut.
    """

    axes: int
    mode: str
    value: float | None = None

    def __init__(self, padding: Widths):
        super().__init__()
        sides = 2 * self.axes
        widths = (padding,) * sides if isinstance(padding, int) else tuple(padding)
        if len(widths) != sides or not all(isinstance(n, int) for n in widths):
            raise ArgumentTypeError(
                f"{type(self).__name__} takes one integer or {sides}, a pair for each axis from "
                f"the last on, got {padding!r}."
            )
        self.padding: tuple[int, ...] = widths

    def forward(self, input: Any) -> Tensor:
        # Filling with a constant is defined for any number of leading axes.
        if self.mode != "constant" and input.ndim not in (self.axes + 1, self.axes + 2):
            raise ShapeError(
                f"{type(self).__name__} takes inputs of {self.axes + 1} or {self.axes + 2} axes, "
                f"(C, ...) or (N, C, ...), got shape {input.shape}."
            )
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return str(self.padding)


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: Widths, value: float):
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_Pad):
    mode, value = "constant", 0.0


class ConstantPad1d(_ConstantPad):
    """`value` around the last axis. Shapes: (..., L) to (..., before + L + after)."""

    axes = 1


class ConstantPad2d(_ConstantPad):
    """`value` around the last two axes; padding (left, right, top, bottom)."""

    axes = 2


class ConstantPad3d(_ConstantPad):
    """`value` around the last three axes; padding (left, right, top, bottom, front, back)."""

    axes = 3


class ZeroPad1d(_ZeroPad):
    """Zeros around the last axis. Shapes: (..., L) to (..., before + L + after)."""

    axes = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around the last two axes; padding (left, right, top, bottom)."""

    axes = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around the last three axes; padding (left, right, top, bottom, front, back)."""

    axes = 3


class ReflectionPad1d(_Pad):
    """Mirrors about the first and last element, abcd to cb|abcd|cb. Shapes: (C, L) or (N, C, L)."""

    axes, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """Mirrors about the edges. Shapes: (C, H, W) or (N, C, H, W)."""

    axes, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """Mirrors about the faces. Shapes: (C, D, H, W) or (N, C, D, H, W)."""

    axes, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """Repeats the first and last element, abcd to aa|abcd|dd. Shapes: (C, L) or (N, C, L)."""

    axes, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """Repeats the edges. Shapes: (C, H, W) or (N, C, H, W)."""

    axes, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """Repeats the faces. Shapes: (C, D, H, W) or (N, C, D, H, W)."""

    axes, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """Goes on at the other end, abcd to cd|abcd|ab. Shapes: (C, L) or (N, C, L)."""

    axes, mode = 1, "circular"


class CircularPad2d(_Pad):
    """Goes on at the opposite edge. Shapes: (C, H, W) or (N, C, H, W)."""

    axes, mode = 2, "circular"


class CircularPad3d(_Pad):
    """Goes on at the opposite face. Shapes: (C, D, H, W) or (N, C, D, H, W)."""

    axes, mode = 3, "circular"


class ChannelShuffle(Module):
    """Channels dealt out in turn from `groups` equal groups. Shapes: (N, C, ...), kept.

    Zhang et al., ShuffleNet (2018).
    """

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, input: Any) -> Tensor:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
