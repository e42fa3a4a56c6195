"""erf and its inverse; the rational functions are those of the NumPy kernel."""

from __future__ import annotations

import math

import numpy as np

from chainrule.primitives.kernels import erf as kernel
from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand
from chainrule.primitives.scalar.exponential import exp_below_one, exp_small
from chainrule.primitives.scalar.logarithm import log

_SINGLE, _DOUBLE = np.dtype("float32"), np.dtype("float64")
# erf x = x p(x^2) up to 1, and 1 - e^-p(x) from there to 4.
_CENTRE = (
    1.12837911, -0.37612626, 0.112836003, -0.0268544443, 0.00518953521, -0.000802084163,
    7.8891193e-05,
)  # fmt: skip
_TAIL = (
    -0.000188032791, 1.12957835, 0.633219957, 0.108418509, -0.0252082162, 0.0042045475,
    -0.000441333599, 2.16866247e-05,
)  # fmt: skip


def _ratio(m: Arithmetic, t: Operand, ratio: kernel.Ratio) -> Operand:
    return m.polynomial(t, ratio.p) / m.polynomial(t, ratio.q)


def erf(m: Arithmetic, x: Operand) -> Operand:
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    end = kernel.ERF_END[x.dtype]
    size = m.abs(x)
    size = m.select(size > end, m.number(x, end), size)
    z = size * size
    if x.dtype == _SINGLE:
        near = size * m.polynomial(z, _CENTRE)
        far = 1.0 - exp_small(m, -m.polynomial(size, _TAIL))
    else:
        # Both ratios are one polynomial by another, so they can share the division.
        centre, tail = kernel.ERF_CENTRE[_DOUBLE], kernel.ERF_TAIL[_DOUBLE]
        near = size * _ratio(m, z, centre)
        far = 1.0 - exp_below_one(m, -z) * _ratio(m, size, tail)
    return m.copysign(m.select(size > 1.0, far, near), x)


def erfinv(m: Arithmetic, x: Operand) -> Operand:
    """The y with erf(y) = x: infinite at -1 and 1, NaN outside. float32 is computed in float64."""
    if x.dtype != _DOUBLE:
        return m.cast(erfinv(m, m.cast(x, _DOUBLE)), x.dtype)
    size = m.abs(x)
    split = kernel.INVERSE_SPLIT
    near = size * _ratio(m, split**2 - x * x, kernel.INVERSE_CENTRE[_DOUBLE])

    y = m.rarely(~(size <= split), lambda: _erfinv_tail(m, size), near)
    return m.copysign(y, x)


def _erfinv_tail(m: Arithmetic, size: Operand) -> Operand:
    r = m.sqrt(-log(m, 1.0 - size))
    value = m.number(size, 0.0)
    for start, ratio in kernel.INVERSE_TAILS[_DOUBLE]:
        value = m.select(r > start, _ratio(m, r - start, ratio), value)
    value = m.select(r == math.inf, math.inf, value)
    return m.select(size <= 1.0, value, float("nan"))
