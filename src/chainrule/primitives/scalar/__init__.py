"""Elementwise functions as the compiler writes them: a small arithmetic and functions in it."""

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand
from chainrule.primitives.scalar.division import floor_divide, fmod, remainder
from chainrule.primitives.scalar.errorfunction import erf, erfinv
from chainrule.primitives.scalar.exponential import exp, expm1, sigmoid, tanh
from chainrule.primitives.scalar.hyperbolic import acosh, asinh, atanh, cosh, sinh
from chainrule.primitives.scalar.inverse import acos, asin, atan, atan2
from chainrule.primitives.scalar.logarithm import log, log1p, log2, log10, logaddexp
from chainrule.primitives.scalar.power import hypot, pow
from chainrule.primitives.scalar.simple import (
    ceil,
    floor,
    integer_power,
    isfinite,
    isinf,
    left_shift,
    nextafter,
    relu,
    right_shift,
    round,
    sign,
    signbit,
    trunc,
)
from chainrule.primitives.scalar.trigonometric import cos, sin, tan

__all__ = [
    "Arithmetic", "Operand", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil",
    "cos", "cosh", "erf", "erfinv", "exp", "expm1", "floor", "floor_divide", "fmod", "hypot",
    "integer_power", "isfinite", "isinf", "left_shift", "log", "log1p", "log2", "log10",
    "logaddexp", "nextafter", "pow", "relu", "remainder", "right_shift", "round", "sigmoid",
    "sign", "signbit", "sin", "sinh", "tan", "tanh", "trunc",
]  # fmt: skip
