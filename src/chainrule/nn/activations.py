"""Activation layers. Formulas and sources stand with the functions of `nn.functional`, once.

All act element by element and keep the shape, where nothing else is said.
"""

from __future__ import annotations

import math
from typing import Any

from chainrule.errors import ArgumentError
from chainrule.nn import functional as F
from chainrule.nn import init
from chainrule.nn.linear import check_sizes, empty_parameter
from chainrule.nn.module import Module
from chainrule.tensor import Tensor

__all__ = [
    "CELU", "ELU", "GELU", "GLU", "SELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh",
    "LeakyReLU", "LogSigmoid", "LogSoftmax", "Maxout", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6",
    "SiLU", "Sigmoid", "Sign", "Softmax", "Softmax2d", "Softmin", "Softplus",
    "Softshrink", "Softsign", "Step", "Tanh", "Tanhshrink", "Threshold",
]  # fmt: skip


def _inplace(flag: bool) -> str:
    return "inplace=True" if flag else ""


class _Rectifier(Module):
    """An activation without arguments, but for `inplace`."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return _inplace(self.inplace)


# --- sigmoid and its family -----------------------------------------------------------------------


class Sigmoid(Module):
    """s(x) = 1 / (1 + e^-x)."""

    def forward(self, input: Any) -> Tensor:
        return F.sigmoid(input)


class Tanh(Module):
    """tanh(x) = (e^x - e^-x) / (e^x + e^-x)."""

    def forward(self, input: Any) -> Tensor:
        return F.tanh(input)


class LogSigmoid(Module):
    """ln(1 / (1 + e^-x)), without overflow."""

    def forward(self, input: Any) -> Tensor:
        return F.logsigmoid(input)


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: Any) -> Tensor:
        return F.softsign(input)


class Hardsigmoid(_Rectifier):
    """min(max(x + 3, 0), 6) / 6."""

    def forward(self, input: Any) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class Hardtanh(Module):
    """min(max(x, min_val), max_val).

    Arguments:
        min_val, max_val: the bounds. Default: -1 and 1.
        min_value, max_value: PyTorch's older names for them.
    """

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False,
        min_value: float | None = None, max_value: float | None = None,
    ):  # fmt: skip
        super().__init__()
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if not self.min_val < self.max_val:
            raise ArgumentError(
                f"Hardtanh needs min_val < max_val, got {self.min_val} and {self.max_val}."
            )

    def forward(self, input: Any) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        bounds = f"min_val={self.min_val}, max_val={self.max_val}"
        return f"{bounds}, inplace=True" if self.inplace else bounds


# --- rectifiers -----------------------------------------------------------------------------------


class ReLU(_Rectifier):
    """max(0, x); derivative 0 at 0."""

    def forward(self, input: Any) -> Tensor:
        return F.relu(input, self.inplace)


class ReLU6(Hardtanh):
    """min(max(0, x), 6)."""

    def __init__(self, inplace: bool = False):
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return _inplace(self.inplace)


class LeakyReLU(Module):
    """x where x > 0, negative_slope x elsewhere. Default: negative_slope=0.01."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Any) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """x where x > 0, w x elsewhere, with learned slopes w. He et al. (2015).

    Shapes: (N, C, ...) or any shape if there is one slope.

    Arguments:
        num_parameters: 1 slope for all, or C, one for each channel.
        init: their first value.

    Attributes:
        weight: w, of shape (num_parameters,).
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ):
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = empty_parameter((num_parameters,), dtype, device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set all slopes to `init` again."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Any) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(Module):
    """x where x > 0, a x elsewhere; a uniform in [lower, upper) in training, else its mean.

    Xu et al. (2015).
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False):
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Any) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        bounds = f"lower={self.lower}, upper={self.upper}"
        return f"{bounds}, inplace=True" if self.inplace else bounds


class Threshold(Module):
    """x where x > threshold, `value` elsewhere."""

    def __init__(self, threshold: float, value: float, inplace: bool = False):
        super().__init__()
        self.threshold, self.value, self.inplace = threshold, value, inplace

    def forward(self, input: Any) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}" + (
            ", inplace=True" if self.inplace else ""
        )


# --- smooth rectifiers ----------------------------------------------------------------------------


class Softplus(Module):
    """ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Any) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class _Exponential(Module):
    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class ELU(_Exponential):
    """x where x > 0, alpha (e^x - 1) elsewhere. Default: alpha=1."""

    def forward(self, input: Any) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class CELU(_Exponential):
    """x where x > 0, alpha (e^(x/alpha) - 1) elsewhere. Default: alpha=1."""

    def forward(self, input: Any) -> Tensor:
        return F.celu(input, self.alpha, self.inplace)


class SELU(_Rectifier):
    """1.0507 elu(x, 1.6733): keeps mean 0 and variance 1. Klambauer et al. (2017)."""

    def forward(self, input: Any) -> Tensor:
        return F.selu(input, self.inplace)


class GELU(Module):
    """x Phi(x), Phi the normal distribution function; approximate="tanh" for the older formula."""

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Any) -> Tensor:
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(_Rectifier):
    """x s(x), s the sigmoid; also called swish."""

    def forward(self, input: Any) -> Tensor:
        return F.silu(input, self.inplace)


class Hardswish(_Rectifier):
    """x min(max(x + 3, 0), 6) / 6."""

    def forward(self, input: Any) -> Tensor:
        return F.hardswish(input, self.inplace)


class Mish(_Rectifier):
    """x tanh(ln(1 + e^x))."""

    def forward(self, input: Any) -> Tensor:
        return F.mish(input, self.inplace)


# --- shrinkage ------------------------------------------------------------------------------------


class Hardshrink(Module):
    """x where |x| > lambd, 0 elsewhere. Default: lambd=0.5."""

    def __init__(self, lambd: float = 0.5):
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Any) -> Tensor:
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Softshrink(Hardshrink):
    """sign(x) max(|x| - lambd, 0). Default: lambd=0.5."""

    def forward(self, input: Any) -> Tensor:
        return F.softshrink(input, self.lambd)


class Tanhshrink(Module):
    """x - tanh(x)."""

    def forward(self, input: Any) -> Tensor:
        return F.tanhshrink(input)


# --- probabilities --------------------------------------------------------------------------------


class _AlongDim(Module):
    def __init__(self, dim: int | None = None):
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """e^(x_i) / sum_j e^(x_j) along `dim`."""

    def forward(self, input: Any) -> Tensor:
        return F.softmax(input, self.dim)


class LogSoftmax(_AlongDim):
    """x_i - ln sum_j e^(x_j) along `dim`."""

    def forward(self, input: Any) -> Tensor:
        return F.log_softmax(input, self.dim)


class Softmin(_AlongDim):
    """softmax(-x) along `dim`."""

    def forward(self, input: Any) -> Tensor:
        return F.softmin(input, self.dim)


class Softmax2d(Module):
    """The softmax over the channels at every pixel. Shapes: (N, C, H, W) or (C, H, W)."""

    def forward(self, input: Any) -> Tensor:
        return F.softmax2d(input)


# --- gates, pieces and steps ----------------------------------------------------------------------


class GLU(Module):
    """a s(b), a and b the halves of x along `dim`. Shapes: (..., 2n, ...) to (..., n, ...)."""

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Tensor:
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Maxout(Module):
    """max_k (x . w_k + b_k), the largest of `pieces` learned affine maps. Goodfellow et al. (2013).

    Shapes: (..., in_features) to (..., out_features).

    Arguments:
        in_features, out_features: lengths of the last axis.
        pieces: how many maps the largest is taken of. Default: 2.
        bias: add b. Default: True.

    Attributes:
        weight: (pieces, out_features, in_features), from U(-k, k) with k = in_features^(-1/2).
        bias: (pieces, out_features), from the same, or None.
    """

    def __init__(
        self, in_features: int, out_features: int, pieces: int = 2, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        check_sizes(in_features=in_features, out_features=out_features, pieces=pieces)
        if pieces < 1:
            raise ArgumentError("Maxout needs at least one piece.")
        self.in_features, self.out_features, self.pieces = in_features, out_features, pieces
        self.weight = empty_parameter((pieces, out_features, in_features), dtype, device)
        self.bias = empty_parameter((pieces, out_features), dtype, device) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from the default generator."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, input: Any) -> Tensor:
        return F.maxout(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"pieces={self.pieces}, bias={self.bias is not None}"
        )


class Step(Module):
    """1 where x >= 0, 0 elsewhere: Heaviside's step; derivative 0. McCulloch and Pitts (1943)."""

    def forward(self, input: Any) -> Tensor:
        return F.step(input)


class Sign(Module):
    """+1 where x >= 0, -1 elsewhere: the perceptron's output; derivative 0. Rosenblatt (1958)."""

    def forward(self, input: Any) -> Tensor:
        return F.sign(input)
