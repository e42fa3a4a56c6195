"""ln x and what is made of it.

x = 2^e (1 + t) with sqrt(1/2) <= 1 + t < sqrt(2), so that ln x = e ln 2 + ln(1 + t). In float32
ln(1 + t) = t - t^2/2 + t^3 p(t); in float64, with s = t / (2 + t), it is the faster series
ln((1 + s) / (1 - s)) = 2s + s^3 p(s^2), written so that t, the largest term, is added last.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand
from chainrule.primitives.scalar.exponential import exp_below_one


class Constants(NamedTuple):
    """What ln x needs in one dtype.

    Attributes:
        high, low: the parts of ln 2: any exponent times the first is exact.
        polynomial: p, from the constant upward.
        root: the bits of sqrt(1/2).
    """

    high: float
    low: float
    polynomial: tuple[float, ...]
    root: int


_CONSTANTS: dict[Any, Constants] = {
    np.dtype("float32"): Constants(
        0.693359375, -2.12194440e-4,
        (0.333333105, -0.249999866, 0.200022265, -0.166692525, 0.142186657, -0.123843372,
         0.118729167, -0.117898479, 0.069155395),
        0x3F3504F3,
    ),
    np.dtype("float64"): Constants(
        float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33"),
        (0.66666666666666985, 0.39999999999613917, 0.28571428703297591, 0.22222202208156741,
         0.1818339012138987, 0.15318211241852131, 0.1475673164642291),
        0x3FE6A09E667F3BCD,
    ),
}  # fmt: skip

_SINGLE, _DOUBLE = np.dtype("float32"), np.dtype("float64")


def _two(dtype: Any, exact: str, drop: int = 0) -> tuple[float, float]:
    """A number as two of a dtype, the first with `drop` digits of 0 at its end."""
    number = Fraction(exact)
    step = Fraction(2) ** (math.frexp(float(number))[1] - np.finfo(dtype).nmant - 1 + drop)
    first = float(round(number / step) * step)
    return first, float(dtype.type(float(number - Fraction(first))))


_LN2_INVERSE = "1.44269504088896340735992468100189213742664595415299"
_LN10_INVERSE = "0.43429448190325182765112891891660508229439700580367"
_LOG_OF_TWO = "0.30102999566398119521373889472449302676818988146211"
_INVERSE_LN2 = {dtype: _two(dtype, _LN2_INVERSE) for dtype in (_SINGLE, _DOUBLE)}
_INVERSE_LN10 = {dtype: _two(dtype, _LN10_INVERSE) for dtype in (_SINGLE, _DOUBLE)}
_LOG10_2 = {_SINGLE: _two(_SINGLE, _LOG_OF_TWO, 8), _DOUBLE: _two(_DOUBLE, _LOG_OF_TWO, 11)}


def log_parts(m: Arithmetic, x: Operand) -> tuple[Operand, Operand]:
    """(e as a float, 1 + t) of a positive x."""
    info, t = np.finfo(x.dtype), _CONSTANTS[x.dtype]
    tiny = x < float(info.smallest_normal)
    bits = m.bits(m.select(tiny, x * 2.0**info.nmant, x))
    e = (bits - t.root) >> info.nmant
    mantissa = m.from_bits(bits - (e << info.nmant))
    e = m.cast(e, x.dtype)
    return m.select(tiny, e - float(info.nmant), e), mantissa


def _edges(m: Arithmetic, x: Operand, y: Operand) -> Operand:
    """ln x where x is infinite (itself), 0 (-inf), negative or NaN (NaN); y elsewhere."""
    y = m.select((x > 0.0) & (x < float("inf")), y, x + x)
    return m.select(x < 0.0, float("nan"), m.select(x == 0.0, float("-inf"), y))


def _taken(m: Arithmetic, t: Operand) -> Operand:
    """t - ln(1 + t), what is to be taken from t, for 1 + t near 1."""
    p = _CONSTANTS[t.dtype].polynomial
    square = t * t
    if t.dtype == np.dtype("float32"):
        return m.fma(square, m.number(t, 0.5), -(square * t * m.polynomial(t, p)))
    s = t / (t + 2.0)
    z = s * s
    # 2s = t - s t and s t = t^2/2 - s t^2/2, so t - ln(1 + t) = t^2/2 - s (t^2/2 + s^2 p).
    half = square * 0.5
    return half - s * m.fma(z, m.polynomial(z, p), half)


def log(m: Arithmetic, x: Operand) -> Operand:
    """ln x."""
    e, mantissa = log_parts(m, x)
    t = mantissa - 1.0
    c = _CONSTANTS[x.dtype]
    taken = m.fma(e, m.number(x, -c.low), _taken(m, t))
    return _edges(m, x, m.fma(e, m.number(x, c.high), t - taken))


def log1p(m: Arithmetic, x: Operand) -> Operand:
    """ln(1 + x) = ln u + c/u, where u is 1 + x rounded and c what it lost."""
    u, lost = m.two_sum(m.number(x, 1.0), x)
    e, mantissa = log_parts(m, u)
    t = mantissa - 1.0
    c = _CONSTANTS[x.dtype]
    # c/u to the digits that matter: 2^-e c (1 - t + ...), and nothing of large u.
    n = m.cast(m.select(e > 60.0, m.number(e, 60.0), e), f"int{8 * x.dtype.itemsize}")
    lost = m.select(e < 60.0, lost * m.power_of_two(-n, x.dtype), 0.0)
    lost = m.fma(-t, lost, lost)
    taken = m.fma(e, m.number(x, -c.low), _taken(m, t) - lost)
    y = m.fma(e, m.number(x, c.high), t - taken)
    return m.copysign(_edges(m, u, y), x)


def _in_base(
    m: Arithmetic, x: Operand, first: float, second: float
) -> tuple[Operand, Operand, Operand]:
    """(e, p, error): log x = e log 2 + p + error in the base whose 1 / ln is `first` + `second`."""
    e, mantissa = log_parts(m, x)
    t = mantissa - 1.0
    high, low = m.fast_two_sum(t, -_taken(m, t))
    p, error = m.two_product(high, m.number(x, first))
    error = error + m.fma(high, m.number(x, second), low * first)
    return e, p, error


def log2(m: Arithmetic, x: Operand) -> Operand:
    """ln x / ln 2; whole numbers of powers of 2."""
    e, p, error = _in_base(m, x, *_INVERSE_LN2[x.dtype])
    y, rest = m.fast_two_sum(e, p)
    return _edges(m, x, m.select(e == 0.0, p + error, y + (rest + error)))


def log10(m: Arithmetic, x: Operand) -> Operand:
    """ln x / ln 10; whole numbers of powers of 10."""
    e, p, error = _in_base(m, x, *_INVERSE_LN10[x.dtype])
    two, two_low = _LOG10_2[x.dtype]
    y, rest = m.two_sum(e * two, p)
    return _edges(m, x, y + (rest + (error + e * two_low)))


def logaddexp(m: Arithmetic, x: Operand, y: Operand) -> Operand:
    """ln(e^x + e^y) = max(x, y) + ln(1 + e^-|x - y|).

    The error is that of the larger of the two terms: relative to the result it is larger where they
    cancel, just below x = 0, as it is in NumPy.
    """
    distance = m.select(x == y, 0.0, m.abs(x - y))  # also of two equal infinities
    return m.maximum(x, y) + log1p(m, exp_below_one(m, -distance))
