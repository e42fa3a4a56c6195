"""sinh, cosh and the inverse hyperbolic functions. float32 is computed in float64."""

from __future__ import annotations

import math

import numpy as np

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand
from chainrule.primitives.scalar.exponential import exp, expm1
from chainrule.primitives.scalar.logarithm import log, log1p

_DOUBLE = np.dtype("float64")
_LARGE = 709.0
"""e^x overflows a little later, sinh and cosh later still: there they are (e^(x/2) / 2) e^(x/2)."""


def sinh(m: Arithmetic, x: Operand) -> Operand:
    """(e^x - e^-x) / 2, of |x| by e = e^|x| - 1: (e + e / (e + 1)) / 2."""
    if x.dtype != _DOUBLE:
        return m.cast(sinh(m, m.cast(x, _DOUBLE)), x.dtype)
    size = m.abs(x)
    e = expm1(m, size)
    usual = 0.5 * (e + e / (e + 1.0))
    return m.copysign(m.rarely(size > _LARGE, lambda: _half_exp(m, size), usual), x)


def cosh(m: Arithmetic, x: Operand) -> Operand:
    """(e^x + e^-x) / 2."""
    if x.dtype != _DOUBLE:
        return m.cast(cosh(m, m.cast(x, _DOUBLE)), x.dtype)
    size = m.abs(x)
    e = exp(m, size)
    usual = 0.5 * e + 0.5 / e
    return m.rarely(size > _LARGE, lambda: _half_exp(m, size), usual)


def _half_exp(m: Arithmetic, x: Operand) -> Operand:
    root = exp(m, 0.5 * x)
    return (0.5 * root) * root


def asinh(m: Arithmetic, x: Operand) -> Operand:
    """ln(x + sqrt(x^2 + 1)), of |x| as ln(1 + |x| + x^2 / (1 + sqrt(x^2 + 1)))."""
    if x.dtype != _DOUBLE:
        return m.cast(asinh(m, m.cast(x, _DOUBLE)), x.dtype)
    size = m.abs(x)
    square = size * size
    usual = log1p(m, size + square / (1.0 + m.sqrt(square + 1.0)))
    large = m.rarely(size > 2.0**28, lambda: log(m, size) + math.log(2), usual)
    return m.copysign(large, x)


def acosh(m: Arithmetic, x: Operand) -> Operand:
    """ln(x + sqrt(x^2 - 1)) = ln(1 + t + sqrt(2t + t^2)), t = x - 1; NaN below 1."""
    if x.dtype != _DOUBLE:
        return m.cast(acosh(m, m.cast(x, _DOUBLE)), x.dtype)
    t = x - 1.0
    usual = log1p(m, t + m.sqrt(t * (t + 2.0)))
    usual = m.rarely(x > 2.0**28, lambda: log(m, x) + math.log(2), usual)
    return m.select(x < 1.0, float("nan"), usual)


def atanh(m: Arithmetic, x: Operand) -> Operand:
    """ln((1 + x) / (1 - x)) / 2, of |x| as ln(1 + 2|x| / (1 - |x|)) / 2; NaN outside [-1, 1]."""
    if x.dtype != _DOUBLE:
        return m.cast(atanh(m, m.cast(x, _DOUBLE)), x.dtype)
    size = m.abs(x)
    return m.copysign(0.5 * log1p(m, (size + size) / (1.0 - size)), x)
