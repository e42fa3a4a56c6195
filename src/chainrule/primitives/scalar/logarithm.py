"""ln x and what is made of it.

x = 2^e (1 + t) with sqrt(1/2) <= 1 + t < sqrt(2), so that ln x = e ln 2 + ln(1 + t). In float32
ln(1 + t) = t - t^2/2 + t^3 p(t); in float64, with s = t / (2 + t), it is the faster series
ln((1 + s) / (1 - s)) = 2s + s^3 p(s^2), written so that t, the largest term, is added last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand


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
        (0.66666666666666996, 0.39999999999610686, 0.28571428704203594, 0.22222202098817662,
         0.18183396557838216, 0.1531802902671402, 0.14758717179330635),
        0x3FE6A09E667F3BCD,
    ),
}  # fmt: skip


def _split(m: Arithmetic, x: Operand) -> tuple[Operand, Operand]:
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


def _log1p_small(m: Arithmetic, t: Operand) -> Operand:
    """What is to be taken from t for ln(1 + t): (t - ln(1 + t)) for 1 + t near 1."""
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
    e, mantissa = _split(m, x)
    t = mantissa - 1.0
    c = _CONSTANTS[x.dtype]
    taken = m.fma(e, m.number(x, -c.low), _log1p_small(m, t))
    return _edges(m, x, m.fma(e, m.number(x, c.high), t - taken))
