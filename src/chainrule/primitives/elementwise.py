"""Elementwise primitives: the derivatives of school, one line each.

In every rule `x` and `y` are the inputs, `z` is the output and `g` is dL/dz. A rule returns dL/dx
(or dL/dy). Rules are made of tensor operations, so the derivative of a derivative comes for
nothing. Where a function has a corner the rule takes the value named beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.dtypes import DType
from chainrule.errors import ArgumentError
from chainrule.graph import Primitive, Spec, constant
from chainrule.primitives import scalar as sc
from chainrule.primitives._rules import check_kind, elementwise_rule, to_bool, to_real
from chainrule.primitives.kernels import erf as erf_kernel
from chainrule.primitives.kernels import special

Rule = Callable[..., Any]


def unary(
    name: str,
    formula: str,
    evaluate: Callable[..., Any],
    dx: Rule | None = None,
    reads: str = "",
    kind: str = "numeric",
    result: Callable[[DType], DType] | None = None,
    scalar: Rule | None = None,
) -> Primitive:
    """A primitive of one input; `dx` is its rule."""
    rules = None if dx is None else (dx,)
    infer = elementwise_rule(name, kind, result)
    return Primitive(name, formula, ("x",), infer, evaluate, rules, reads, None, scalar)


def binary(
    name: str,
    formula: str,
    evaluate: Callable[..., Any],
    dx: Rule | None = None,
    dy: Rule | None = None,
    reads: str = "",
    kind: str = "numeric",
    result: Callable[[DType], DType] | None = None,
    scalar: Rule | None = None,
) -> Primitive:
    """A primitive of two inputs; `dx` and `dy` are its rules."""
    rules = None if dx is None else (dx, dy)
    infer = elementwise_rule(name, kind, result)
    return Primitive(name, formula, ("x", "y"), infer, evaluate, rules, reads, None, scalar)


def _zero(g: Any, *_: Any) -> Any:
    """The derivative of a function made of steps."""
    return constant(0, g.shape, g.dtype)


# --- arithmetic -----------------------------------------------------------------------------------

add = binary(
    "add", "x + y", np.add, lambda g, z, x, y: g, lambda g, z, x, y: g,
    scalar=lambda m, x, y: x + y,
)  # fmt: skip
sub = binary(
    "sub", "x - y", np.subtract, lambda g, z, x, y: g, lambda g, z, x, y: -g,
    scalar=lambda m, x, y: x - y,
)  # fmt: skip
mul = binary(
    "mul", "x y", np.multiply, lambda g, z, x, y: g * y, lambda g, z, x, y: g * x, reads="x y",
    scalar=lambda m, x, y: x * y,
)  # fmt: skip
div = binary(
    "div", "x / y", np.divide,
    lambda g, z, x, y: g / y,
    lambda g, z, x, y: -g * z / y,
    reads="y z", kind="float",
    scalar=lambda m, x, y: x / y,
)  # fmt: skip
neg = unary("neg", "-x", np.negative, lambda g, z, x: -g, scalar=lambda m, x: -x)


def _pow_dx(g: Any, z: Any, x: Any, y: Any) -> Any:
    # y x^(y-1), and 0 where y = 0 even at x = 0, where x^(y-1) is infinite.
    power = where(eq(y, constant(0, y.shape, y.dtype)), constant(1, x.shape, x.dtype), x)
    return g * y * pow(power, y - 1)


def _pow_dy(g: Any, z: Any, x: Any, y: Any) -> Any:
    # x^y log x, and 0 at x = 0 for y >= 0, where the product would be 0 times infinity.
    zero = constant(0, x.shape, x.dtype)
    flat = logical_and(eq(x, zero), ge(y, zero))
    return g * z * log(where(flat, constant(1, x.shape, x.dtype), x))


def negative_power(exponents: Any) -> Exception:
    """The error for an integer raised to a negative integer."""
    return ArgumentError(
        "an integer raised to a negative integer is no integer; cast the base to a float "
        "first, for example with .astype('float32')."
    )


def _pow(x: Any, y: Any) -> Any:
    try:
        return special.power(x, y)
    except ValueError:  # the one that NumPy raises here
        raise negative_power(y) from None


pow = binary("pow", "x^y", _pow, _pow_dx, _pow_dy, reads="x y z", scalar=sc.pow)

abs = unary(
    "abs", "|x|", np.abs, lambda g, z, x: g * sign(x), reads="x", result=to_real,
    scalar=lambda m, x: m.abs(x),
)  # fmt: skip


def _sign(x: Any) -> Any:
    # The standard's sign of a complex number is x / |x|, as in NumPy 2, but NaN + NaNj wherever a
    # part is NaN; NumPy lets an infinity of the other part win.
    if np.iscomplexobj(x):
        return np.where(np.isnan(x), x.dtype.type(complex(np.nan, np.nan)), np.sign(x))
    return np.sign(x)


sign = unary("sign", "-1, 0 or +1", _sign, _zero, scalar=sc.sign)  # sign(0) = 0
floor_divide = binary(
    "floor_divide", "floor(x / y)", special.floor_divide, _zero, _zero, kind="real",
    scalar=sc.floor_divide,
)  # fmt: skip
remainder = binary(
    "remainder", "x - y floor(x / y)", np.remainder,
    lambda g, z, x, y: g,
    lambda g, z, x, y: -g * floor_divide(x, y),
    reads="x y", kind="real",
    scalar=sc.remainder,
)  # fmt: skip


def _tie(g: Any, first: Any, second: Any) -> Any:
    """g where first > second, half of it where they are equal: the mean of the subgradients."""
    zero = constant(0, g.shape, g.dtype)
    return where(gt(first, second), g, where(eq(first, second), g * 0.5, zero))


maximum = binary(
    "maximum", "max(x, y)", np.maximum,
    lambda g, z, x, y: _tie(g, x, y),
    lambda g, z, x, y: _tie(g, y, x),
    reads="x y", kind="ordered",
    scalar=lambda m, x, y: m.maximum(x, y),
)  # fmt: skip
minimum = binary(
    "minimum", "min(x, y)", np.minimum,
    lambda g, z, x, y: _tie(g, y, x),
    lambda g, z, x, y: _tie(g, x, y),
    reads="x y", kind="ordered",
    scalar=lambda m, x, y: m.minimum(x, y),
)  # fmt: skip

# --- powers, exponentials and logarithms ----------------------------------------------------------

sqrt = unary(
    "sqrt", "x^(1/2)", np.sqrt, lambda g, z, x: g / (2 * z), reads="z", kind="float",
    scalar=lambda m, x: m.sqrt(x),
)  # fmt: skip
exp = unary("exp", "e^x", np.exp, lambda g, z, x: g * z, reads="z", kind="float", scalar=sc.exp)
expm1 = unary(
    "expm1", "e^x - 1", special.expm1, lambda g, z, x: g * (z + 1), reads="z", kind="float",
    scalar=sc.expm1,
)  # fmt: skip
log = unary("log", "ln x", np.log, lambda g, z, x: g / x, reads="x", kind="float", scalar=sc.log)
log1p = unary(
    "log1p", "ln(1 + x)", np.log1p, lambda g, z, x: g / (1 + x), reads="x", kind="float",
    scalar=sc.log1p,
)  # fmt: skip
log2 = unary(
    "log2", "ln x / ln 2", np.log2, lambda g, z, x: g / (x * math.log(2)), reads="x", kind="float",
    scalar=sc.log2,
)  # fmt: skip
log10 = unary(
    "log10", "ln x / ln 10", np.log10, lambda g, z, x: g / (x * math.log(10)), reads="x",
    kind="float",
    scalar=sc.log10,
)  # fmt: skip


def _logaddexp_share(g: Any, x: Any, y: Any) -> Any:
    # e^x / (e^x + e^y) = sigmoid(x - y). Two equal infinities have no distance: they share alike,
    # but two of -inf get 0, so that paths of probability zero stay silent.
    zero = constant(0, x.shape, x.dtype)
    same_infinity = logical_and(isinf(x), eq(x, y))
    share = g * sigmoid(where(same_infinity, zero, x - y))
    return where(logical_and(same_infinity, lt(x, zero)), zero, share)


def _logaddexp(x: Any, y: Any) -> Any:
    # np.logaddexp asks the C library for one element after another and takes ten times as long.
    distance = np.where(x == y, 0, np.abs(x - y))  # also of two equal infinities
    return np.maximum(x, y) + np.log1p(np.exp(-distance))


logaddexp = binary(
    "logaddexp", "ln(e^x + e^y)", _logaddexp,
    lambda g, z, x, y: _logaddexp_share(g, x, y),
    lambda g, z, x, y: _logaddexp_share(g, y, x),
    reads="x y", kind="real float",
    scalar=sc.logaddexp,
)  # fmt: skip

# --- trigonometric and hyperbolic -----------------------------------------------------------------

sin = unary(
    "sin", "sin x", np.sin, lambda g, z, x: g * cos(x), reads="x", kind="float", scalar=sc.sin,
)  # fmt: skip
cos = unary(
    "cos", "cos x", np.cos, lambda g, z, x: -g * sin(x), reads="x", kind="float", scalar=sc.cos,
)  # fmt: skip
tan = unary(
    "tan", "tan x", np.tan, lambda g, z, x: g * (1 + z * z), reads="z", kind="float", scalar=sc.tan,
)  # fmt: skip
asin = unary(
    "asin", "arcsin x", np.arcsin, lambda g, z, x: g / sqrt((1 - x) * (1 + x)), reads="x",
    kind="float",
    scalar=sc.asin,
)  # fmt: skip
acos = unary(
    "acos", "arccos x", np.arccos, lambda g, z, x: -g / sqrt((1 - x) * (1 + x)), reads="x",
    kind="float",
    scalar=sc.acos,
)  # fmt: skip
atan = unary(
    "atan", "arctan x", np.arctan, lambda g, z, x: g / (1 + x * x), reads="x", kind="float",
    scalar=sc.atan,
)  # fmt: skip
sinh = unary(
    "sinh", "sinh x", np.sinh, lambda g, z, x: g * cosh(x), reads="x", kind="float", scalar=sc.sinh,
)  # fmt: skip
cosh = unary(
    "cosh", "cosh x", np.cosh, lambda g, z, x: g * sinh(x), reads="x", kind="float", scalar=sc.cosh,
)  # fmt: skip
tanh = unary(
    "tanh", "tanh x", special.tanh, lambda g, z, x: g * (1 - z * z), reads="z", kind="float",
    scalar=sc.tanh,
)  # fmt: skip
asinh = unary(
    "asinh", "arsinh x", np.arcsinh, lambda g, z, x: g / sqrt(x * x + 1), reads="x", kind="float",
    scalar=sc.asinh,
)  # fmt: skip
acosh = unary(
    "acosh", "arcosh x", np.arccosh, lambda g, z, x: g / sqrt((x - 1) * (x + 1)), reads="x",
    kind="float",
    scalar=sc.acosh,
)  # fmt: skip
atanh = unary(
    "atanh", "artanh x", np.arctanh, lambda g, z, x: g / ((1 - x) * (1 + x)), reads="x",
    kind="float",
    scalar=sc.atanh,
)  # fmt: skip


def _angle_share(x: Any, y: Any) -> Any:
    # x / (x^2 + y^2) without squares, which overflow early; NaN at the origin, which has no angle.
    distance = hypot(x, y)
    return x / distance / distance


atan2 = binary(
    "atan2", "the angle of the point (y, x)", np.arctan2,
    lambda g, z, x, y: g * _angle_share(y, x),
    lambda g, z, x, y: -g * _angle_share(x, y),
    reads="x y", kind="real float",
    scalar=sc.atan2,
)  # fmt: skip


def _hypot_share(g: Any, z: Any, x: Any) -> Any:
    # x / z, and 0 at the origin: the subgradient of least norm.
    origin = eq(z, constant(0, z.shape, z.dtype))
    return g * (x / where(origin, constant(1, z.shape, z.dtype), z))


hypot = binary(
    "hypot", "(x^2 + y^2)^(1/2)", np.hypot,
    lambda g, z, x, y: _hypot_share(g, z, x),
    lambda g, z, x, y: _hypot_share(g, z, y),
    reads="x y z", kind="real float",
    scalar=sc.hypot,
)  # fmt: skip

# --- what networks add ----------------------------------------------------------------------------


def _sigmoid(x: Any) -> Any:
    # 1 / (1 + e^-x) for x >= 0 and e^x / (1 + e^x) for x < 0: no positive power of e overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


sigmoid = unary(
    "sigmoid", "1 / (1 + e^-x)", _sigmoid, lambda g, z, x: g * z * (1 - z), reads="z",
    kind="real float",
    scalar=sc.sigmoid,
)  # fmt: skip


def _relu_dx(g: Any, z: Any, x: Any) -> Any:
    zero = constant(0, z.shape, z.dtype)
    return where(gt(z, zero), g, zero)  # the derivative at 0 is 0


relu = unary(
    "relu", "max(0, x)", lambda x: np.maximum(x, x.dtype.type(0)), _relu_dx, reads="z", kind="real",
    scalar=sc.relu,
)  # fmt: skip
erf = unary(
    "erf", "2 / pi^(1/2) integral from 0 to x of e^(-t^2) dt", erf_kernel.erf,
    lambda g, z, x: g * (2 / math.sqrt(math.pi)) * exp(-x * x),
    reads="x", kind="real float",
    scalar=sc.erf,
)  # fmt: skip
erfinv = unary(
    "erfinv", "the y with erf(y) = x", erf_kernel.erfinv,
    lambda g, z, x: g * (math.sqrt(math.pi) / 2) * exp(z * z),
    reads="z", kind="real float",
    scalar=sc.erfinv,
)  # fmt: skip

# --- rounding: made of steps, derivative 0 --------------------------------------------------------


def _stepwise(ufunc: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy turns integers into floats in some of these; the standard keeps them as they are."""
    return lambda x: ufunc(x) if x.dtype.kind in "fc" else x.copy()


floor = unary(
    "floor", "the largest integer <= x", _stepwise(np.floor), _zero, kind="real", scalar=sc.floor,
)  # fmt: skip
ceil = unary(
    "ceil", "the smallest integer >= x", _stepwise(np.ceil), _zero, kind="real", scalar=sc.ceil,
)  # fmt: skip
trunc = unary(
    "trunc", "x without its fraction", _stepwise(np.trunc), _zero, kind="real", scalar=sc.trunc,
)  # fmt: skip
round = unary(
    "round", "the nearest integer, halves to even", _stepwise(np.round), _zero, scalar=sc.round,
)  # fmt: skip
copysign = binary(
    "copysign", "|x| with the sign of y", np.copysign,
    lambda g, z, x, y: g * sign(x) * sign(z),  # 0 at x = 0
    _zero, reads="x z", kind="real float",
    scalar=lambda m, x, y: m.copysign(x, y),
)  # fmt: skip
nextafter = binary(
    "nextafter", "the number next to x towards y", np.nextafter,
    lambda g, z, x, y: g, _zero, kind="real float",
    scalar=sc.nextafter,
)  # fmt: skip

# --- comparisons, logic and bits: no derivative ---------------------------------------------------

eq = binary("eq", "x = y", np.equal, kind="any", result=to_bool, scalar=lambda m, x, y: x == y)
ne = binary("ne", "x != y", np.not_equal, kind="any", result=to_bool, scalar=lambda m, x, y: x != y)
lt = binary("lt", "x < y", np.less, kind="ordered", result=to_bool, scalar=lambda m, x, y: x < y)
le = binary(
    "le", "x <= y", np.less_equal, kind="ordered", result=to_bool, scalar=lambda m, x, y: x <= y,
)  # fmt: skip
gt = binary("gt", "x > y", np.greater, kind="ordered", result=to_bool, scalar=lambda m, x, y: x > y)
ge = binary(
    "ge", "x >= y", np.greater_equal, kind="ordered", result=to_bool, scalar=lambda m, x, y: x >= y,
)  # fmt: skip
logical_and = binary(
    "logical_and", "x and y", np.logical_and, kind="bool", scalar=lambda m, x, y: x & y,
)  # fmt: skip
logical_or = binary(
    "logical_or", "x or y", np.logical_or, kind="bool", scalar=lambda m, x, y: x | y,
)  # fmt: skip
logical_xor = binary(
    "logical_xor", "either x or y", np.logical_xor, kind="bool", scalar=lambda m, x, y: x ^ y,
)  # fmt: skip
logical_not = unary("logical_not", "not x", np.logical_not, kind="bool", scalar=lambda m, x: ~x)
bitwise_and = binary(
    "bitwise_and", "x & y", np.bitwise_and, kind="discrete", scalar=lambda m, x, y: x & y,
)  # fmt: skip
bitwise_or = binary(
    "bitwise_or", "x | y", np.bitwise_or, kind="discrete", scalar=lambda m, x, y: x | y,
)  # fmt: skip
bitwise_xor = binary(
    "bitwise_xor", "x ^ y", np.bitwise_xor, kind="discrete", scalar=lambda m, x, y: x ^ y,
)  # fmt: skip
bitwise_invert = unary("bitwise_invert", "~x", np.invert, kind="discrete", scalar=lambda m, x: ~x)
bitwise_left_shift = binary(
    "bitwise_left_shift", "x 2^y", np.left_shift, kind="integer", scalar=sc.left_shift,
)  # fmt: skip
bitwise_right_shift = binary(
    "bitwise_right_shift", "floor(x / 2^y)", np.right_shift, kind="integer", scalar=sc.right_shift,
)  # fmt: skip
isnan = unary("isnan", "x is not a number", np.isnan, result=to_bool, scalar=lambda m, x: x != x)
isinf = unary("isinf", "x is infinite", np.isinf, result=to_bool, scalar=sc.isinf)
isfinite = unary(
    "isfinite", "x is a finite number", np.isfinite, result=to_bool, scalar=sc.isfinite,
)  # fmt: skip
signbit = unary(
    "signbit", "the sign bit of x", np.signbit, kind="real float", result=to_bool,
    scalar=sc.signbit,
)  # fmt: skip

# --- complex numbers: forward only ----------------------------------------------------------------

real = unary("real", "Re x", np.real, kind="complex", result=to_real)
imag = unary("imag", "Im x", np.imag, kind="complex", result=to_real)
conj = unary("conj", "Re x - i Im x", np.conj, kind="complex")

# --- choice and cast ------------------------------------------------------------------------------


def _infer_where(condition: Any, x: Any, y: Any) -> Spec:
    check_kind("where", "bool", condition)
    spec = elementwise_rule("where", "any", None)(x, y)
    elementwise_rule("where", "any", None)(condition, Spec(x.shape, dtypes.bool_))
    return spec


where = Primitive(
    "where", "x where the condition holds, y elsewhere", ("condition", "x", "y"),
    _infer_where, np.where,
    (
        None,
        lambda g, z, c, x, y: where(c, g, constant(0, g.shape, g.dtype)),
        lambda g, z, c, x, y: where(c, constant(0, g.shape, g.dtype), g),
    ),
    reads="condition",
    scalar=lambda m, c, x, y: m.select(c, x, y),
)  # fmt: skip


def _cast(x: Any, dtype: DType) -> Any:
    return x.astype(dtype)


cast = Primitive(
    "cast", "x in another dtype", ("x",),
    lambda x, dtype: Spec(x.shape, dtype),
    _cast,
    (lambda g, z, x, dtype: cast(g, dtype=x.dtype),),
    scalar=lambda m, x, dtype: m.cast(x, dtype),
)  # fmt: skip
