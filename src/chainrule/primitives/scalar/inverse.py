"""Angles: asin, acos, atan, atan2. float32 is computed in float64."""

from __future__ import annotations

import math

import numpy as np

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand

_DOUBLE = np.dtype("float64")

# pi/4 and what its rounding lost.
_QUARTER = math.pi / 4
_QUARTER_LOW = 3.061616997868383e-17

_ATAN = (
    -0.33333333333333232, 0.19999999999961329, -0.14285714280843892, 0.11111110811375188,
    -0.090908984673543247, 0.07692071566456879, -0.066632215498241359, 0.058486753178060888,
    -0.050425853596214501, 0.038142244150620112, -0.017986899093345471,
)  # fmt: skip
_ASIN = (
    0.16666666666666738, 0.074999999999751779, 0.044642857171226603, 0.030381942845303659,
    0.022372211612133104, 0.017351665912268596, 0.01398023746572424, 0.011403268561815375,
    0.010757743504028049, 0.0037854094603274276, 0.02152765558342357, -0.020759723806607979,
    0.032487139360104347,
)  # fmt: skip
_TAN_EIGHTH = math.sqrt(2) - 1


def _angle(m: Arithmetic, y: Operand, x: Operand) -> Operand:
    """The angle of the point (x, y) in the first quadrant, y, x >= 0, not both 0 or infinite.

    With t the smaller by the larger it is atan t, or pi/2 less that; beyond tan(pi/8) atan t is
    pi/4 + atan((t - 1) / (t + 1)). So one division gives t = a / b, and the angle is a multiple of
    pi/4 plus or minus t + t^3 p(t^2).
    """
    steep = y > x
    a, b = m.select(steep, x, y), m.select(steep, y, x)
    wide = a > b * _TAN_EIGHTH
    t = m.select(wide, a - b, a) / m.select(wide, a + b, b)
    z = t * t
    core = m.fma(z * t, m.polynomial(z, _ATAN), m.select(wide, m.number(t, _QUARTER_LOW), t * 0.0))
    # The quarter turns that the angle starts from, and its small rest, are added largest last.
    angle = m.select(wide, m.number(t, _QUARTER), m.number(t, 0.0)) + (t + core)
    return m.select(steep, 2 * _QUARTER - (angle - 2 * _QUARTER_LOW), angle)


def atan(m: Arithmetic, x: Operand) -> Operand:
    """The angle in (-pi/2, pi/2) with this tangent."""
    if x.dtype != _DOUBLE:
        return m.cast(atan(m, m.cast(x, _DOUBLE)), x.dtype)
    return m.copysign(_angle(m, m.abs(x), m.number(x, 1.0)), x)


def atan2(m: Arithmetic, y: Operand, x: Operand) -> Operand:
    """The angle of the point (x, y) in [-pi, pi], by the signs of both, also of zeros."""
    if x.dtype != _DOUBLE:
        return m.cast(atan2(m, m.cast(y, _DOUBLE), m.cast(x, _DOUBLE)), x.dtype)
    a, b = m.abs(y), m.abs(x)
    same = (a == b) & ((a == 0.0) | (a == float("inf")))
    # Halves, so that sums do not overflow; two infinities are at 45 degrees, two zeros at 0.
    large = (a > 2.0**1000) | (b > 2.0**1000)
    p = m.select(same, m.select(a == 0.0, 0.0, m.number(a, 1.0)), m.select(large, a * 0.5, a))
    q = m.select(same, m.number(b, 1.0), m.select(large, b * 0.5, b))
    angle = _angle(m, p, q)
    angle = m.select(m.bits(x) < 0, 4 * _QUARTER - (angle - 4 * _QUARTER_LOW), angle)
    return m.select((x != x) | (y != y), x + y, m.copysign(angle, y))


def _asin_parts(m: Arithmetic, x: Operand) -> tuple[Operand, Operand, Operand, Operand]:
    """(whether |x| > 1/2, s, the error of s, s^3 p): asin(s) = s + error + s^3 p.

    s is |x| itself, or sqrt((1 - |x|) / 2) above 1/2: pi/2 - 2 asin(s) is then the angle of |x|.
    """
    size = m.abs(x)
    outer = size > 0.5
    half = 0.5 - size * 0.5
    root = m.sqrt(half)
    square, error = m.two_product(root, root)
    # One step of Newton's for the digits that the root lost.
    lost = ((half - square) - error) / (root + root + 1e-300)
    z = m.select(outer, half, size * size)
    s = m.select(outer, root, size)
    return outer, s, m.select(outer, lost, 0.0), s * z * m.polynomial(z, _ASIN)


def asin(m: Arithmetic, x: Operand) -> Operand:
    """The angle in [-pi/2, pi/2] with this sine; NaN outside [-1, 1]."""
    if x.dtype != _DOUBLE:
        return m.cast(asin(m, m.cast(x, _DOUBLE)), x.dtype)
    outer, s, lost, rest = _asin_parts(m, x)
    small = rest + lost
    far = 2 * _QUARTER - (2.0 * s - (2 * _QUARTER_LOW - 2.0 * small))
    return m.copysign(m.select(outer, far, s + small), x)


def acos(m: Arithmetic, x: Operand) -> Operand:
    """The angle in [0, pi] with this cosine; NaN outside [-1, 1]."""
    if x.dtype != _DOUBLE:
        return m.cast(acos(m, m.cast(x, _DOUBLE)), x.dtype)
    outer, s, lost, rest = _asin_parts(m, x)
    small = rest + lost
    double = 2.0 * (s + small)
    opposite = 4 * _QUARTER - (2.0 * s - (4 * _QUARTER_LOW - 2.0 * small))
    negative = x < 0.0
    s, small = m.select(negative, -s, s), m.select(negative, -small, small)
    inner = 2 * _QUARTER - (s - (2 * _QUARTER_LOW - small))
    return m.select(outer, m.select(negative, opposite, double), inner)
