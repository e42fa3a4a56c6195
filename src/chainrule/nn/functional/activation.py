"""Activation functions.

x is the input and z the output; all act element by element and keep the shape, where nothing else
is said. At a corner the derivative is the one named, which is PyTorch's. `inplace=True` gives the
result to the input's own tensor as well, as PyTorch does; it saves no memory here, since tensors
are values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule import random
from chainrule.array._core import as_float, as_tensor
from chainrule.errors import ArgumentError, ShapeError, unknown_name

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "celu", "celu_", "elu", "elu_", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish",
    "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "logsigmoid", "maxout", "mish",
    "prelu", "relu", "relu6", "relu_", "rrelu", "rrelu_", "selu", "selu_", "sigmoid", "sign",
    "silu", "softplus", "softshrink", "softsign", "step", "tanh", "tanhshrink", "threshold",
    "threshold_",
]  # fmt: skip

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def _given(x: Any, z: Any, inplace: bool) -> Tensor:
    """The result, which x becomes too if that was asked for."""
    return x._rebind(z) if inplace else z


def _negative_part(x: Any) -> Any:
    """min(0, x), with the derivative of x at 0: what e^x may be taken of without overflow."""
    return xp.where(x > 0, 0, x)


# --- sigmoid and its family -----------------------------------------------------------------------


def sigmoid(input: Any) -> Tensor:
    """s(x) = 1 / (1 + e^-x); s' = s (1 - s)."""
    return xp.sigmoid(input)


def tanh(input: Any) -> Tensor:
    """tanh(x) = 2 s(2x) - 1; the derivative is 1 - tanh(x)^2."""
    return xp.tanh(input)


def logsigmoid(input: Any) -> Tensor:
    """ln s(x) = -ln(1 + e^-x), without overflow."""
    return -xp.logaddexp(-as_float(input), 0)


def softsign(input: Any) -> Tensor:
    """x / (1 + |x|)."""
    x = as_float(input)
    return x / (1 + xp.abs(x))


def hardsigmoid(input: Any, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6; derivative 0 at both corners. Courbariaux et al. (2015)."""
    return _given(input, relu6(as_float(input) + 3) / 6, inplace)


def hardtanh(
    input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """min(max(x, min_val), max_val); derivative 0 at both corners."""
    if min_val > max_val:
        raise ArgumentError(f"hardtanh needs min_val <= max_val, got {min_val} and {max_val}.")
    x = as_tensor(input)
    z = xp.where(x <= min_val, min_val, xp.where(x >= max_val, max_val, x))
    return _given(input, z, inplace)


# --- rectifiers -----------------------------------------------------------------------------------


def relu(input: Any, inplace: bool = False) -> Tensor:
    """max(0, x); derivative 0 at 0. Nair and Hinton (2010)."""
    return _given(input, xp.relu(input), inplace)


def relu6(input: Any, inplace: bool = False) -> Tensor:
    """min(max(0, x), 6); derivative 0 at both corners."""
    return hardtanh(input, 0, 6, inplace)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, negative_slope x elsewhere. Maas, Hannun and Ng (2013)."""
    x = as_float(input)
    return _given(input, xp.where(x > 0, x, negative_slope * x), inplace)


def prelu(input: Any, weight: Any) -> Tensor:
    """x where x > 0, w x elsewhere, with a learned slope w. He et al. (2015).

    Shapes: input (N, C, ...); weight (1,) or (), one slope for all, or (C,), one for each channel.
    """
    x, w = as_float(input), as_float(weight)
    if w.ndim > 1:
        raise ShapeError(f"prelu takes a weight of shape (1,) or (C,), got {w.shape}.")
    if w.size != 1:
        channels = x.shape[1] if x.ndim > 1 else 1
        if w.size != channels:
            raise ShapeError(
                f"prelu got {w.size} slopes for {channels} channels (axis 1 of input {x.shape}); "
                "pass one slope, or one for each channel."
            )
        w = xp.reshape(w, (channels,) + (1,) * (x.ndim - 2))
    else:
        w = xp.reshape(w, ())
    return xp.where(x > 0, x, w * x)


def rrelu(
    input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> Tensor:  # fmt: skip
    """x where x > 0, a x elsewhere. Xu et al. (2015).

    a is drawn from [lower, upper) for each element in training, from the default generator, and is
    the mean (lower + upper) / 2 otherwise.
    """
    if lower > upper:
        raise ArgumentError(f"rrelu needs lower <= upper, got {lower} and {upper}.")
    x = as_float(input)
    slope = (lower + upper) / 2
    if training:
        slope = random.uniform(x.shape, lower, upper, dtype=x.dtype)
    return _given(input, xp.where(x > 0, x, slope * x), inplace)


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, `value` elsewhere."""
    x = as_tensor(input)
    return _given(input, xp.where(x <= threshold, value, x), inplace)


# --- smooth rectifiers ----------------------------------------------------------------------------


def softplus(input: Any, beta: float = 1, threshold: float = 20) -> Tensor:
    """ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold. Dugas et al. (2001)."""
    x = as_float(input)
    return xp.where(beta * x > threshold, x, xp.logaddexp(beta * x, 0) / beta)


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, alpha (e^x - 1) elsewhere. Clevert, Unterthiner and Hochreiter (2016)."""
    x = as_float(input)
    z = xp.where(x > 0, x, alpha * xp.expm1(_negative_part(x)))
    return _given(input, z, inplace)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, alpha (e^(x/alpha) - 1) elsewhere. Barron (2017)."""
    if alpha == 0:
        raise ArgumentError("celu needs an alpha other than 0.")
    x = as_float(input)
    z = xp.where(x > 0, x, alpha * xp.expm1(_negative_part(x) / alpha))
    return _given(input, z, inplace)


def selu(input: Any, inplace: bool = False) -> Tensor:
    """scale elu(x, alpha), alpha = 1.6733, scale = 1.0507. Klambauer et al. (2017).

    With these two constants mean 0 and variance 1 are a fixed point from layer to layer.
    """
    return _given(input, SELU_SCALE * elu(input, SELU_ALPHA), inplace)


def gelu(input: Any, approximate: str = "none") -> Tensor:
    """x Phi(x), Phi the normal distribution function. Hendrycks and Gimpel (2016).

    approximate: "none" takes Phi(x) = (1 + erf(x / sqrt 2)) / 2; "tanh" takes
        (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
    """
    x = as_float(input)
    if approximate == "none":
        return x * (0.5 * (1 + xp.erf(x * math.sqrt(0.5))))
    if approximate == "tanh":
        return 0.5 * x * (1 + xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    raise unknown_name("approximation of gelu", approximate, ("none", "tanh"))


def silu(input: Any, inplace: bool = False) -> Tensor:
    """x s(x), s the sigmoid; also called swish. Elfwing, Uchibe and Doya (2018)."""
    x = as_float(input)
    return _given(input, x * xp.sigmoid(x), inplace)


def hardswish(input: Any, inplace: bool = False) -> Tensor:
    """x hardsigmoid(x). Howard et al., MobileNetV3 (2019)."""
    x = as_float(input)
    return _given(input, x * hardsigmoid(x), inplace)


def mish(input: Any, inplace: bool = False) -> Tensor:
    """x tanh(ln(1 + e^x)). Misra (2020)."""
    x = as_float(input)
    return _given(input, x * xp.tanh(xp.logaddexp(x, 0)), inplace)


# --- shrinkage ------------------------------------------------------------------------------------


def hardshrink(input: Any, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, 0 elsewhere."""
    x = as_tensor(input)
    return xp.where(xp.abs(x) <= lambd, 0, x)


def softshrink(input: Any, lambd: float = 0.5) -> Tensor:
    """sign(x) max(|x| - lambd, 0), which is x less its part within [-lambd, lambd]."""
    if lambd < 0:
        raise ArgumentError(f"softshrink needs lambd >= 0, got {lambd}.")
    x = as_float(input)
    return x - xp.clip(x, -lambd, lambd)


def tanhshrink(input: Any) -> Tensor:
    """x - tanh(x)."""
    x = as_float(input)
    return x - xp.tanh(x)


# --- gates and pieces -----------------------------------------------------------------------------


def glu(input: Any, dim: int = -1) -> Tensor:
    """a s(b), a and b being the two halves of x along `dim`. Dauphin et al. (2017).

    Shapes: (..., 2n, ...) to (..., n, ...).
    """
    x = as_float(input)
    if not x.ndim or x.shape[dim] % 2:
        raise ShapeError(
            f"glu halves axis {dim}, whose length must be even, but the input has shape {x.shape}."
        )
    value, gate = xp.split(x, 2, axis=dim)
    return value * xp.sigmoid(gate)


def maxout(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """max_k (x . w_k + b_k), the largest of k affine pieces. Goodfellow et al. (2013).

    Shapes: input (..., in); weight (k, out, in); bias (k, out); result (..., out). Pieces that tie
    share the gradient equally.
    """
    x, w = as_float(input), as_float(weight)
    if w.ndim != 3 or not x.ndim or x.shape[-1] != w.shape[-1]:
        raise ShapeError(
            f"maxout takes an input (..., in) and a weight (pieces, out, in), got {x.shape} and "
            f"{w.shape}."
        )
    pieces, out, features = w.shape
    z = xp.matmul(x, xp.reshape(w, (pieces * out, features)).mT)
    z = xp.reshape(z, (*x.shape[:-1], pieces, out))
    return xp.max(z if bias is None else z + bias, axis=-2)


# --- steps ----------------------------------------------------------------------------------------


def sign(input: Any) -> Tensor:
    """+1 where x >= 0, -1 elsewhere: the perceptron's output. Rosenblatt (1958).

    `cr.sign` differs at 0, where it is 0. The derivative is 0 everywhere.
    """
    # sign(x) + 1/2 is never 0, so the outer sign decides for +1 at 0.
    return xp.sign(xp.sign(as_float(input)) + 0.5)


def step(input: Any) -> Tensor:
    """1 where x >= 0, 0 elsewhere: Heaviside's step. McCulloch and Pitts (1943).

    The derivative is 0 everywhere, so nothing below a step learns from gradients.
    """
    return (sign(input) + 1) / 2


# --- PyTorch's names with an underscore -----------------------------------------------------------


def _in_place(function: Any) -> Any:
    def variant(input: Any, *args: Any, **kwargs: Any) -> Tensor:
        return function(input, *args, **kwargs, inplace=True)

    variant.__name__ = variant.__qualname__ = f"{function.__name__}_"
    variant.__doc__ = f"`{function.__name__}` with inplace=True."
    return variant


celu_, elu_, hardtanh_ = _in_place(celu), _in_place(elu), _in_place(hardtanh)
leaky_relu_, relu_, rrelu_ = _in_place(leaky_relu), _in_place(relu), _in_place(rrelu)
selu_, threshold_ = _in_place(selu), _in_place(threshold)
