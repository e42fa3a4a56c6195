"""Elementwise functions of the array API standard, and the few that networks add.

Each broadcasts and promotes its arguments and applies the primitive of the same name; formulas,
derivatives and corner cases stand with the primitives. Integers given to a function that is defined
on floats become float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array._core import (
    SCALARS,
    as_float,
    as_tensor,
    broadcast_shape,
    distinct,
    filled,
    operands,
    to_dtype,
    to_shape,
)
from chainrule.errors import DTypeError
from chainrule.graph import Primitive, constant
from chainrule.primitives import elementwise as p

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

Unary = Callable[..., "Tensor"]


def _named(function: Any, name: str, primitive: Primitive, arguments: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name}({arguments}) = {primitive.formula}, elementwise."
    function.__module__ = "chainrule"
    return function


def _float_unary(name: str, primitive: Primitive) -> Unary:
    def function(x: Any, /) -> Tensor:
        return primitive(as_float(x))

    return _named(function, name, primitive, "x")


def _unary(name: str, primitive: Primitive) -> Unary:
    def function(x: Any, /) -> Tensor:
        return primitive(as_tensor(x))

    return _named(function, name, primitive, "x")


def _binary(name: str, primitive: Primitive, float_only: bool = False) -> Callable[..., Tensor]:
    def function(x1: Any, x2: Any, /) -> Tensor:
        x, y = operands(x1, x2, float_only)
        return primitive(x, y)

    return _named(function, name, primitive, "x, y")


acos = _float_unary("acos", p.acos)
acosh = _float_unary("acosh", p.acosh)
asin = _float_unary("asin", p.asin)
asinh = _float_unary("asinh", p.asinh)
atan = _float_unary("atan", p.atan)
atanh = _float_unary("atanh", p.atanh)
cos = _float_unary("cos", p.cos)
cosh = _float_unary("cosh", p.cosh)
erf = _float_unary("erf", p.erf)
erfinv = _float_unary("erfinv", p.erfinv)
exp = _float_unary("exp", p.exp)
expm1 = _float_unary("expm1", p.expm1)
log = _float_unary("log", p.log)
log10 = _float_unary("log10", p.log10)
log1p = _float_unary("log1p", p.log1p)
log2 = _float_unary("log2", p.log2)
sigmoid = _float_unary("sigmoid", p.sigmoid)
sin = _float_unary("sin", p.sin)
sinh = _float_unary("sinh", p.sinh)
sqrt = _float_unary("sqrt", p.sqrt)
tan = _float_unary("tan", p.tan)
tanh = _float_unary("tanh", p.tanh)

bitwise_invert = _unary("bitwise_invert", p.bitwise_invert)
ceil = _unary("ceil", p.ceil)
floor = _unary("floor", p.floor)
isfinite = _unary("isfinite", p.isfinite)
isinf = _unary("isinf", p.isinf)
isnan = _unary("isnan", p.isnan)
negative = _unary("negative", p.neg)
relu = _unary("relu", p.relu)
round = _unary("round", p.round)
sign = _unary("sign", p.sign)
signbit = _unary("signbit", p.signbit)
trunc = _unary("trunc", p.trunc)

add = _binary("add", p.add)
atan2 = _binary("atan2", p.atan2, float_only=True)
bitwise_and = _binary("bitwise_and", p.bitwise_and)
bitwise_left_shift = _binary("bitwise_left_shift", p.bitwise_left_shift)
bitwise_or = _binary("bitwise_or", p.bitwise_or)
bitwise_right_shift = _binary("bitwise_right_shift", p.bitwise_right_shift)
bitwise_xor = _binary("bitwise_xor", p.bitwise_xor)
copysign = _binary("copysign", p.copysign, float_only=True)
divide = _binary("divide", p.div, float_only=True)
equal = _binary("equal", p.eq)
floor_divide = _binary("floor_divide", p.floor_divide)
greater = _binary("greater", p.gt)
greater_equal = _binary("greater_equal", p.ge)
hypot = _binary("hypot", p.hypot, float_only=True)
less = _binary("less", p.lt)
less_equal = _binary("less_equal", p.le)
logaddexp = _binary("logaddexp", p.logaddexp, float_only=True)
maximum = _binary("maximum", p.maximum)
minimum = _binary("minimum", p.minimum)
multiply = _binary("multiply", p.mul)
nextafter = _binary("nextafter", p.nextafter, float_only=True)
not_equal = _binary("not_equal", p.ne)
remainder = _binary("remainder", p.remainder)
subtract = _binary("subtract", p.sub)


def abs(x: Any, /) -> Tensor:
    """|x|, elementwise; the derivative at 0 is 0."""
    return p.abs(as_tensor(x))


def positive(x: Any, /) -> Tensor:
    """+x, elementwise: the same values."""
    return distinct(as_tensor(x), x)


def square(x: Any, /) -> Tensor:
    """x^2, elementwise."""
    x = as_tensor(x)
    return p.mul(x, x)


def reciprocal(x: Any, /) -> Tensor:
    """1 / x, elementwise."""
    x = as_float(x)
    return p.div(constant(1, x.shape, x.dtype), x)


def rsqrt(x: Any, /) -> Tensor:
    """x^(-1/2), elementwise."""
    return reciprocal(p.sqrt(as_float(x)))


def pow(x1: Any, x2: Any, /) -> Tensor:
    """x^y, elementwise. Small whole Python exponents are products, which are faster than powers.

    Raises:
        ArgumentError: for an integer raised to a negative integer.
    """
    if type(x2) is int and 1 <= x2 <= 4:
        x = as_tensor(x1)
        if x.dtype != dtypes.bool_:
            if x2 == 1:
                return distinct(x, x1)
            squared = p.mul(x, x)
            return squared if x2 == 2 else p.mul(squared, x if x2 == 3 else squared)
    x, y = operands(x1, x2)
    return p.pow(x, y)


def _logical(name: str, primitive: Primitive) -> Callable[..., Tensor]:
    def function(x1: Any, x2: Any, /) -> Tensor:
        x, y = operands(_truth(x1), _truth(x2))
        return primitive(x, y)

    return _named(function, name, primitive, "x, y")


def _truth(x: Any) -> Any:
    """Whether each element is other than 0."""
    return bool(x) if isinstance(x, SCALARS) else to_dtype(as_tensor(x), dtypes.bool_)


logical_and = _logical("logical_and", p.logical_and)
logical_or = _logical("logical_or", p.logical_or)
logical_xor = _logical("logical_xor", p.logical_xor)


def logical_not(x: Any, /) -> Tensor:
    """not x, elementwise."""
    return p.logical_not(to_dtype(as_tensor(x), dtypes.bool_))


def _complex_part(name: str, primitive: Primitive) -> Unary:
    def function(x: Any, /) -> Tensor:
        z = as_tensor(x)
        if z.dtype.kind == "c":
            return primitive(z)
        if primitive is p.imag:
            return constant(0, z.shape, z.dtype)
        return distinct(z, x)

    return _named(function, name, primitive, "x")


conj = _complex_part("conj", p.conj)
imag = _complex_part("imag", p.imag)
real = _complex_part("real", p.real)


def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """min(max(x, low), high), elementwise, in the dtype of x. Either bound may be None.

    The derivative is 1 inside and at the bounds, 0 outside.
    """
    z = as_tensor(x)
    for bound, outside in ((min, p.lt), (max, p.gt)):
        if bound is None:
            continue
        y = _bound(z, bound)
        shape = broadcast_shape(z.shape, y.shape)
        z, y = to_shape(z, shape), to_shape(y, shape)
        # A NaN bound gives NaN, and a NaN element stays one: the comparison with it is false.
        replace = outside(z, y)
        if y.dtype.kind == "f":
            replace = p.logical_or(replace, p.isnan(y))
        z = p.where(replace, y, z)
    return distinct(z, x)


def _bound(x: Any, bound: Any) -> Any:
    """A bound in the dtype of x; an integer beyond its range bounds nothing, as its end does."""
    if isinstance(bound, SCALARS):
        y, dtype = None, dtypes.scalar_dtype(bound)
    else:
        y = as_tensor(bound)
        dtype = y.dtype
    if dtypes.rank(dtype) > dtypes.rank(x.dtype):
        raise DTypeError(
            f"clip keeps the dtype of x, {x.dtype.name}, and cannot take a bound of {dtype.name};"
            " cast x or the bound."
        )
    if x.dtype.kind in "ui" and dtype.kind in "ui" and dtype != x.dtype:
        low, high = int(np.iinfo(x.dtype).min), int(np.iinfo(x.dtype).max)
        if isinstance(bound, int):
            bound = low if bound < low else high if bound > high else bound
        else:
            y = clip(y, low, high)
    return filled(bound, (), x.dtype) if y is None else to_dtype(y, x.dtype)


def where(condition: Any, x1: Any, x2: Any, /) -> Tensor:
    """x where the condition holds, y elsewhere."""
    c = to_dtype(as_tensor(condition), dtypes.bool_)
    x, y = operands(x1, x2)
    shape = broadcast_shape(c.shape, x.shape)
    return p.where(to_shape(c, shape), to_shape(x, shape), to_shape(y, shape))
