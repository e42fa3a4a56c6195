"""e^x and what is made of it: expm1, sinh, cosh, tanh, sigmoid.

x = n ln 2 + r with |r| <= ln 2 / 2, so that e^x = 2^n (1 + r + r^2 p(r)) with a minimax
polynomial p (`tools/fit_polynomials.py`). ln 2 has two parts, the first with so few digits
that n times it is exact (Cody and Waite, "Software manual for the elementary functions", 1980).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand


class Constants(NamedTuple):
    """What e^x needs in one dtype.

    Attributes:
        high, low: the parts of ln 2.
        polynomial: p, from the constant upward.
        least, most: e^x is 0 below and infinite above.
        one: e^-x is nothing beside 1 from here on.
    """

    high: float
    low: float
    polynomial: tuple[float, ...]
    least: float
    most: float
    one: float


LOG2_E = 1.4426950408889634
_CONSTANTS: dict[Any, Constants] = {
    np.dtype("float32"): Constants(
        0.693145751953125, 1.42860682030941723212e-6,
        (0.5, 0.166666672, 0.041666273, 0.00833326485, 0.00139458105, 0.000199181886),
        -104.0, 89.0, 18.0,
    ),
    np.dtype("float64"): Constants(
        float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33"),
        (0.50000000000000122, 0.16666666666666699, 0.041666666666521857, 0.0083333333333078918,
         0.0013888888945574032, 0.00019841269916108872, 2.4801491259973885e-05,
         2.7557217301623317e-06, 2.7630855476746974e-07, 2.5117577286361012e-08),
        -746.0, 710.0, 38.0,
    ),
}  # fmt: skip


def _reduce(m: Arithmetic, x: Operand) -> tuple[Operand, Operand, Operand]:
    """(n as float, n as integer, r)."""
    t = _CONSTANTS[x.dtype]
    whole, n = m.nearest(x, LOG2_E)
    r = m.fma(whole, m.number(x, -t.high), x)
    return whole, n, m.fma(whole, m.number(x, -t.low), r)


def _less_one(m: Arithmetic, r: Operand) -> Operand:
    """e^r - 1."""
    return m.fma(r * r, m.polynomial(r, _CONSTANTS[r.dtype].polynomial), r)


def _power(m: Arithmetic, r: Operand) -> Operand:
    """e^r."""
    return m.polynomial(r, (1.0, 1.0, *_CONSTANTS[r.dtype].polynomial))


def exp(m: Arithmetic, x: Operand) -> Operand:
    """e^x."""
    t = _CONSTANTS[x.dtype]
    whole, n, r = _reduce(m, m.clamp(x, t.least, t.most))
    return m.scale(_power(m, r), whole, n)


def exp_below_one(m: Arithmetic, x: Operand) -> Operand:
    """e^x for x <= 0."""
    x = m.select(x < _CONSTANTS[x.dtype].least, m.number(x, _CONSTANTS[x.dtype].least), x)
    whole, n, r = _reduce(m, x)
    return m.scale(_power(m, r), whole, n)


def exp_small(m: Arithmetic, x: Operand) -> Operand:
    """e^x where that is certainly a normal number, or x is NaN."""
    _, n, r = _reduce(m, x)
    return _power(m, r) * m.power_of_two(n, x.dtype)


def exp_of_sum(m: Arithmetic, x: Operand, low: Operand) -> Operand:
    """e^(x + low) of a sum whose second term is far smaller, rounded as if it were one number."""
    t = _CONSTANTS[x.dtype]
    x = m.clamp(x, t.least, t.most)
    whole, n = m.nearest(x, LOG2_E)
    first = m.fma(whole, m.number(x, -t.high), x)
    rest = m.fma(whole, m.number(x, t.low), -low)
    r, lost = m.two_sum(first, -rest)
    p, error = m.fast_two_sum(m.number(x, 1.0), r)
    more = m.fma(r * r, m.polynomial(r, t.polynomial), lost)
    return m.scale(p + (error + more), whole, n)


def expm1(m: Arithmetic, x: Operand) -> Operand:
    """e^x - 1 = 2^n ((e^r - 1) + (1 - 2^-n)); below -one it is -1."""
    t = _CONSTANTS[x.dtype]
    whole, n, r = _reduce(m, m.clamp(x, -t.one - 1, t.most))
    # 1 - 2^-n is 1 from n = 2 one on, where 2^-n might not exist.
    inverse = m.power_of_two(-m.select(n > 60, 60, n), x.dtype)
    return m.copysign(m.scale(_less_one(m, r) + (1.0 - inverse), whole, n), x)


def sigmoid(m: Arithmetic, x: Operand) -> Operand:
    """1 / (1 + e^-x) for x >= 0 and e^x / (1 + e^x) below: no power of e overflows."""
    small = exp_below_one(m, -m.abs(x))
    return m.select(x < 0.0, small, 1.0) / (small + 1.0)


def tanh(m: Arithmetic, x: Operand) -> Operand:
    """(e^2|x| - 1) / (e^2|x| + 1) with the sign of x."""
    t = _CONSTANTS[x.dtype]
    size = m.abs(x)
    size = size + size
    _, n, r = _reduce(m, m.select(size > t.one + 2, m.number(x, t.one + 2), size))
    power = m.power_of_two(n, x.dtype)
    e = m.fma(power, _less_one(m, r), power - 1.0)  # e^2|x| - 1
    return m.copysign(e / (e + 2.0), x)
