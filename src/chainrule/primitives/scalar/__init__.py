"""Elementwise functions as the compiler writes them: a small arithmetic and functions in it.

Largest errors found, in units in the last place (0.5 is the best that rounding allows; the tests
hold float32 to 2.5 over its whole range and float64 to 3, erfinv to 4):

             float32  float64              float32  float64              float32  float64
    exp         1.1      1.2     sin          1.5      0.8     sinh         0.5      2.4
    expm1       1.4      2.1     cos          1.5      0.8     cosh         0.5      2.3
    log         0.8      0.9     tan          0.5      2.2     tanh         2.3      2.6
    log1p       0.9      1.0     asin         0.5      1.2     asinh        0.5      1.9
    log2        0.7      0.9     acos         0.5      0.8     acosh        0.5      2.5
    log10       0.7      0.8     atan         0.5      1.8     atanh        0.5      1.9
    sigmoid     2.3      2.2     atan2        0.5      1.8     pow          0.5      0.8
    erf         2.4      2.7     erfinv       0.5      4.0     hypot        0.5      1.2

Those of 0.5 are computed in float64 and rounded once; the others, which networks use most, in
float32 throughout, by more elements at a time.
"""

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
