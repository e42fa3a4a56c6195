"""Elementwise functions as the compiler writes them: a small arithmetic and functions in it."""

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand
from chainrule.primitives.scalar.division import floor_divide, fmod, remainder
from chainrule.primitives.scalar.exponential import exp, expm1, sigmoid, tanh
from chainrule.primitives.scalar.logarithm import log
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

__all__ = [
    "Arithmetic", "Operand", "ceil", "exp", "expm1", "floor", "floor_divide", "fmod",
    "integer_power", "isfinite", "isinf", "left_shift", "log", "nextafter", "relu", "remainder",
    "right_shift", "round", "sigmoid", "sign", "signbit", "tanh", "trunc",
]  # fmt: skip
