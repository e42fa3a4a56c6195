"""x^y, and the length of a vector.

In float64 ln|x| is computed to twice the digits and multiplied by y, so that e to this power is
right to the last place; float32 is computed in float64, where that is not needed.
"""

from __future__ import annotations

import math

import numpy as np

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand
from chainrule.primitives.scalar.exponential import exp, exp_of_sum
from chainrule.primitives.scalar.logarithm import log, log_parts
from chainrule.primitives.scalar.simple import integer_power

_DOUBLE = np.dtype("float64")
# ln((1 + s) / (1 - s)) = 2 s + 2/3 s^3 + s^5 p(s^2)
_LOG = (
    0.39999999999999986, 0.28571428571440172, 0.22222222218579046, 0.18181818757162746,
    0.15384563795979889, 0.13336075734478281, 0.11679309576054206, 0.11954515285695695,
)  # fmt: skip
_TWO_THIRDS = 2 / 3, 3.700743415417188e-17
_LN2 = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")


def pow(m: Arithmetic, x: Operand, y: Operand) -> Operand:
    """x^y; by multiplication, division or root where y is a constant 2, 3, 1, 0, -1 or 1/2."""
    if x.dtype.kind != "f":
        return integer_power(m, x, y)
    match m.known(y):
        case 0.0:
            return m.number(x, 1.0)
        case 1.0:
            return x
        case 2.0:
            return x * x
        case 3.0:
            return x * x * x
        case -1.0:
            return 1.0 / x
        case 0.5:  # -0 gives 0 and -inf inf, as even powers' roots would
            return m.select(x == -float("inf"), float("inf"), m.sqrt(x + 0.0))
    if x.dtype != _DOUBLE:
        return m.cast(_power(m, m.cast(x, _DOUBLE), m.cast(y, _DOUBLE), precise=False), x.dtype)
    return _power(m, x, y, precise=True)


def _power(m: Arithmetic, x: Operand, y: Operand, precise: bool) -> Operand:
    size = m.abs(x)
    bounded = m.clamp(y, -(2.0**70), 2.0**70)  # of any x but 1 it is 0 or infinite by then
    if precise:
        high, low = _log(m, size)
        p, error = m.two_product(bounded, high)
        inside = m.abs(p) < 800.0
        z = exp_of_sum(m, p, m.select(inside, m.fma(bounded, low, error), 0.0))
    else:
        z = exp(m, bounded * log(m, size))
    whole = m.floor(y) == y
    half = y * 0.5
    odd = whole & (m.floor(half) != half)
    z = m.select((m.bits(x) < 0) & odd, -z, z)
    z = m.select((x < 0.0) & (size < float("inf")) & ~whole, float("nan"), z)
    return m.select((x == 1.0) | (y == 0.0), 1.0, z)


def _log(m: Arithmetic, x: Operand) -> tuple[Operand, Operand]:
    """ln x as a sum, to about 2^-70 of it."""
    e, mantissa = log_parts(m, x)
    t = mantissa - 1.0
    u, u_low = m.fast_two_sum(m.number(t, 2.0), t)
    s = t / u
    p, p_low = m.two_product(s, u)
    s_low = (((t - p) - p_low) - s * u_low) / u
    z, z_low = m.two_product(s, s)
    z_low = m.fma(s + s, s_low, z_low)
    # 2/3 + z p(z), times z, times s: three products of sums of two.
    q, q_low = m.fast_two_sum(m.number(t, _TWO_THIRDS[0]), z * m.polynomial(z, _LOG))
    q_low = q_low + _TWO_THIRDS[1]
    r, r_low = m.two_product(z, q)
    r_low = r_low + (z * q_low + z_low * q)
    c, c_low = m.two_product(s, r)
    c_low = c_low + (s * r_low + s_low * r)
    high, low = m.fast_two_sum(s + s, c)
    low = low + (c_low + (s_low + s_low))
    first, more = m.two_sum(e * _LN2[0], high)
    high, low = m.fast_two_sum(first, more + (low + e * _LN2[1]))
    usual = (x > 0.0) & (x < float("inf"))
    edge = m.select(x == 0.0, -float("inf"), x)
    return m.select(usual, high, edge), m.select(usual, low, 0.0)


def hypot(m: Arithmetic, x: Operand, y: Operand) -> Operand:
    """sqrt(x^2 + y^2) without overflow; infinite if either is, even beside NaN."""
    if x.dtype != _DOUBLE:
        a, b = m.cast(x, _DOUBLE), m.cast(y, _DOUBLE)
        z = m.cast(m.sqrt(m.fma(a, a, b * b)), x.dtype)
    else:
        z = _hypot(m, m.abs(x), m.abs(y))
    infinite = (m.abs(x) == math.inf) | (m.abs(y) == math.inf)
    return m.select(infinite, math.inf, z)


def _hypot(m: Arithmetic, x: Operand, y: Operand) -> Operand:
    large = (x > 2.0**500) | (y > 2.0**500)
    small = (x < 2.0**-400) & (y < 2.0**-400)
    factor = m.select(large, 2.0**-600, m.select(small, m.number(x, 2.0**600), 1.0))
    back = m.select(large, 2.0**600, m.select(small, m.number(x, 2.0**-600), 1.0))
    a, b = x * factor, y * factor
    return m.sqrt(m.fma(a, a, b * b)) * back
