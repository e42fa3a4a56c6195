"""Initialisers: what the weights are before training.

Each assigns to a tensor, outside the graph, and returns it; random ones draw from `generator`, or
from the default generator. For a weight of shape (out, in, *kernel), fan_in = in * kernel elements
is how many terms each output sums up, and fan_out = out * kernel elements in how many sums each
input stands. A layer of variance-1 inputs has outputs of variance fan_in Var(w).
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from chainrule import array as xp
from chainrule import dtypes, random
from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError, ArgumentTypeError, ShapeError, unknown_name
from chainrule.graph import make
from chainrule.tensor import Tensor

T = TypeVar("T", bound=Tensor)
Generator = random.Generator | None


def _assign(tensor: T, value: Any) -> T:
    if not isinstance(tensor, Tensor):
        raise ArgumentTypeError(
            f"an initialiser assigns to a tensor, and got {type(tensor).__name__}."
        )
    with no_grad():
        tensor.copy_(xp.asarray(value, dtype=tensor.dtype, copy=True))
    return tensor


# --- constants ------------------------------------------------------------------------------------


def constant_(tensor: T, val: float) -> T:
    """Every element `val`."""
    return _assign(tensor, xp.full(tensor.shape, val, dtype=tensor.dtype))


def zeros_(tensor: T) -> T:
    """Zeros. As weights of a hidden layer they keep all its units equal for ever."""
    return constant_(tensor, 0)


def ones_(tensor: T) -> T:
    """Ones."""
    return constant_(tensor, 1)


def eye_(tensor: T) -> T:
    """Ones on the diagonal of a matrix, zeros elsewhere: the identity."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_ fills a matrix, but got shape {tensor.shape}.")
    return _assign(tensor, xp.eye(*tensor.shape, dtype=tensor.dtype))


def dirac_(tensor: T, groups: int = 1) -> T:
    """A convolution that passes its input channels on: a one in the middle of each kernel.

    Arguments:
        tensor: a weight of shape (out, in, *kernel) with one, two or three kernel axes.
        groups: each group of output channels passes on the first input channels.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError(f"dirac_ fills a weight with 3, 4 or 5 axes, but got {tensor.shape}.")
    out, channels = tensor.shape[:2]
    if groups < 1 or out % groups:
        raise ArgumentError(f"{groups} groups do not divide {out} output channels.")
    value = np.zeros(tensor.shape, dtype=tensor.dtype)
    middle = tuple(k // 2 for k in tensor.shape[2:])
    each = out // groups
    for g in range(groups):
        for c in range(min(each, channels)):
            value[(g * each + c, c, *middle)] = 1
    return _assign(tensor, value)


# --- distributions --------------------------------------------------------------------------------


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, generator: Generator = None) -> T:
    """Uniform on [a, b)."""
    drawn = random.uniform(tensor.shape, a, b, dtype=tensor.dtype, generator=generator)
    return _assign(tensor, drawn)


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0, generator: Generator = None) -> T:
    """Normal with a mean and a standard deviation."""
    drawn = random.normal(tensor.shape, mean, std, dtype=tensor.dtype, generator=generator)
    return _assign(tensor, drawn)


def trunc_normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Generator = None,
) -> T:  # fmt: skip
    """Normal, of the part between a and b alone (these are values, not multiples of `std`).

    By the inverse of the distribution function: u is uniform between its values at a and b, and
    x = mean + std sqrt(2) erfinv(2 u - 1).
    """
    if not a < b:
        raise ArgumentError(f"trunc_normal_ needs a < b, got {a} and {b}.")
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2.0))) for bound in (a, b))
    if not low < high:
        raise ArgumentError(
            f"a normal of mean {mean} and standard deviation {std} has no mass to speak of between "
            f"{a} and {b}."
        )
    drawn = random.uniform(tensor.shape, low, high, dtype=dtypes.float64, generator=generator)
    values = xp.erfinv(drawn) * (std * math.sqrt(2.0)) + mean
    return _assign(tensor, xp.clip(xp.astype(values, tensor.dtype), a, b))


# --- scaled by the shape of the layer -------------------------------------------------------------


def calculate_fan_in_and_fan_out(tensor: Any) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of shape (out, in, *kernel)."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"fan in and fan out are defined for weights of two axes or more, not {tensor.shape}."
        )
    area = math.prod(tensor.shape[2:])
    return tensor.shape[1] * area, tensor.shape[0] * area


_GAINS = {
    "linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0, "conv_transpose3d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0), "selu": 3.0 / 4,
}  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much weights are scaled up for what an activation takes away.

    1 for linear layers and the sigmoid, 5/3 for tanh, sqrt(2) for relu, 3/4 for selu, and
    sqrt(2 / (1 + s^2)) for leaky_relu with slope s = `param` (0.01 if None).
    """
    if nonlinearity == "leaky_relu":
        if isinstance(param, bool) or not isinstance(param, int | float | None):
            raise ArgumentError(f"leaky_relu's slope is a number, got {param!r}.")
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise unknown_name("nonlinearity", nonlinearity, (*_GAINS, "leaky_relu"))
    return _GAINS[nonlinearity]


def _scaled(tensor: T, variance: float, uniform: bool, generator: Generator) -> T:
    """Of mean 0 and a variance. A uniform distribution on [-b, b] has variance b^2 / 3."""
    if uniform:
        bound = math.sqrt(3.0 * variance)
        return uniform_(tensor, -bound, bound, generator)
    return normal_(tensor, 0.0, math.sqrt(variance), generator)


def _glorot(tensor: T, gain: float, uniform: bool, generator: Generator) -> T:
    fans = sum(calculate_fan_in_and_fan_out(tensor))
    return _scaled(tensor, gain**2 * 2.0 / max(fans, 1), uniform, generator)


def xavier_uniform_(tensor: T, gain: float = 1.0, generator: Generator = None) -> T:
    """Glorot's: uniform, variance gain^2 2 / (fan_in + fan_out).

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """
    return _glorot(tensor, gain, True, generator)


def xavier_normal_(tensor: T, gain: float = 1.0, generator: Generator = None) -> T:
    """Glorot's: normal, variance gain^2 2 / (fan_in + fan_out)."""
    return _glorot(tensor, gain, False, generator)


def _he(
    tensor: T, a: float, mode: str, nonlinearity: str, uniform: bool, generator: Generator
) -> T:
    fan_in, fan_out = calculate_fan_in_and_fan_out(tensor)
    fans: dict[str, int] = {"fan_in": fan_in, "fan_out": fan_out}
    if mode.lower() not in fans:
        raise unknown_name("mode", mode, fans)
    gain = calculate_gain(nonlinearity, a)
    return _scaled(tensor, gain**2 / max(fans[mode.lower()], 1), uniform, generator)


def kaiming_uniform_(
    tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> T:  # fmt: skip
    """He's: uniform, variance gain^2 / fan, which for relu is 2 / fan.

    Arguments:
        a: the slope of leaky_relu; 0 is relu.
        mode: "fan_in" keeps the variance of outputs, "fan_out" that of gradients.
        nonlinearity: names the gain; see `calculate_gain`.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    return _he(tensor, a, mode, nonlinearity, True, generator)


def kaiming_normal_(
    tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> T:  # fmt: skip
    """He's: normal, variance gain^2 / fan; arguments as `kaiming_uniform_`."""
    return _he(tensor, a, mode, nonlinearity, False, generator)


def lecun_uniform_(tensor: T, generator: Generator = None) -> T:
    """LeCun's: uniform, variance 1 / fan_in.

    Source: LeCun et al., "Efficient backprop", 1998. Some lectures call this Xavier.
    """
    fan_in, _ = calculate_fan_in_and_fan_out(tensor)
    return _scaled(tensor, 1.0 / max(fan_in, 1), True, generator)


def lecun_normal_(tensor: T, generator: Generator = None) -> T:
    """LeCun's: normal, variance 1 / fan_in."""
    fan_in, _ = calculate_fan_in_and_fan_out(tensor)
    return _scaled(tensor, 1.0 / max(fan_in, 1), False, generator)


def orthogonal_(tensor: T, gain: float = 1.0, generator: Generator = None) -> T:
    """A random matrix whose rows (or columns, if there are fewer) are orthonormal, times gain.

    Further axes are flattened into columns: w.reshape(w.shape[0], -1) is that matrix. It is uniform
    among all such. Source: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics
    of learning in deep linear neural networks", 2014.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_ needs two axes or more, got shape {tensor.shape}.")
    if tensor.size == 0:
        return tensor
    rows, columns = tensor.shape[0], tensor.size // tensor.shape[0]
    drawn = random.normal((rows, columns), dtype=dtypes.float64, generator=generator)
    matrix = np.asarray(drawn)
    q, r = np.linalg.qr(matrix if rows >= columns else matrix.T)
    # A QR decomposition is unique, and Q uniform, once the diagonal of R is positive.
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    q = q if rows >= columns else q.T
    return _assign(tensor, gain * q.reshape(tensor.shape))


def sparse_(tensor: T, sparsity: float, std: float = 0.01, generator: Generator = None) -> T:
    """A normal matrix with a share of each column set to zero.

    Arguments:
        tensor: a matrix.
        sparsity: the share of zeros in each column, rounded up to whole elements.
        std: the standard deviation of the others.

    Source: Martens, "Deep learning via Hessian-free optimization", ICML 2010.
    """
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_ fills a matrix, but got shape {tensor.shape}.")
    if not 0 <= sparsity <= 1:
        raise ArgumentError(f"sparsity is a share from 0 to 1, got {sparsity}.")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    drawn = random.normal(tensor.shape, 0.0, std, dtype=tensor.dtype, generator=generator)
    value = np.array(drawn)
    order = np.argsort(random.uniform((rows, columns), generator=generator).numpy(), axis=0)
    np.put_along_axis(value, order[:zeros], 0, axis=0)
    return _assign(tensor, make(value))
