"""Linear layers."""

from __future__ import annotations

import math
from typing import Any

from chainrule import array as xp
from chainrule.array._core import check_device
from chainrule.errors import ArgumentError
from chainrule.nn import functional, init
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter

__all__ = ["Bilinear", "Identity", "Linear"]


def empty_parameter(shape: tuple[int, ...], dtype: Any, device: Any) -> Parameter:
    """A parameter that an initialiser will fill."""
    check_device(device)
    return Parameter(xp.empty(shape, dtype=dtype))


def check_sizes(**sizes: int) -> None:
    """Refuse sizes of layers that are negative, or no integers."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ArgumentError(f"{name} is an integer of at least 0, got {size!r}.")


class Identity(Module):
    """y = x. Takes any arguments and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """y = x W^T + b.

    Arguments:
        in_features: the length of x's last axis.
        out_features: the length of y's last axis.
        bias: whether b is there.
        dtype: of the parameters; float32 by default.

    Parameters: `weight` W (out_features, in_features) and `bias` b (out_features,), both initially
    uniform on [-1, 1] / sqrt(in_features).

    Shapes: x (..., in_features) to y (..., out_features).
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        check_sizes(in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = empty_parameter((out_features, in_features), dtype, device)
        if bias:
            self.bias = empty_parameter((out_features,), dtype, device)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        # With a = sqrt(5) the bound sqrt(6 / ((1 + a^2) fan_in)) is 1 / sqrt(fan_in).
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Any:
        return functional.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Bilinear(Module):
    """y_k = x1^T W_k x2 + b_k.

    Arguments:
        in1_features, in2_features: the lengths of the last axes of x1 and x2.
        out_features: the length of y's last axis.
        bias: whether b is there.
        dtype: of the parameters; float32 by default.

    Parameters: `weight` W (out_features, in1_features, in2_features) and `bias` b (out_features,),
    both initially uniform on [-1, 1] / sqrt(in1_features).

    Shapes: x1 (..., in1_features) and x2 (..., in2_features) to y (..., out_features).
    """

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        check_sizes(in2_features=in2_features, out_features=out_features)
        if in1_features <= 0:
            raise ArgumentError(f"in1_features must be greater than 0, got {in1_features}.")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        shape = (out_features, in1_features, in2_features)
        self.weight = empty_parameter(shape, dtype, device)
        if bias:
            self.bias = empty_parameter((out_features,), dtype, device)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Any, input2: Any) -> Any:
        return functional.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
