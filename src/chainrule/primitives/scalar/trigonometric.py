"""sin, cos and tan of any number.

x = n pi/2 + r with |r| <= pi/4 (a little more at most), and then a polynomial in r^2. Up to 2^20
pi/2 is split into parts of 33 digits, so that n times each is exact (Cody and Waite). Beyond,
x 2/pi modulo 4 is computed from the digits of 2/pi that matter (M. H. Payne and R. N. Hanek,
"Radian reduction for trigonometric functions", SIGNUM 18, 1983): with x = y 2^(32 k) and y whole
it is y times (2^(32 k) 2/pi modulo 4), of which a table holds 212 digits for each k. The remainder
is rounded once in the end, however close x is to a multiple of pi/2.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand

_SINGLE, _DOUBLE = np.dtype("float32"), np.dtype("float64")
_BLOCK = 32
_PIECES = 4
_DIGITS = 1400
_NEAR = 2.0**20

_SIN = {
    _SINGLE: (-0.166666552, 0.00833218079, -0.000195175351),
    _DOUBLE: (-0.16666666666666632, 0.0083333333333225536, -0.00019841269829899542,
              2.7557313719040723e-06, -2.5050761843715037e-08, 1.5896989370231817e-10),
}  # fmt: skip
_COS = {
    _SINGLE: (0.0416666456, -0.00138873688, 2.44386065e-05),
    _DOUBLE: (0.041666666666666602, -0.0013888888888874246, 2.4801587289549689e-05,
              -2.7557314369932866e-07, 2.0875725463718912e-09, -1.1359752791685658e-11),
}  # fmt: skip


@functools.cache
def _pi() -> int:
    """pi 2^_DIGITS: 16 atan(1/5) - 4 atan(1/239) (Machin)."""

    def atan_inverse(n: int) -> int:
        term = total = (1 << (_DIGITS + 32)) // n
        k = 1
        while term:
            term //= -n * n
            k += 2
            total += term // k
        return total

    return (16 * atan_inverse(5) - 4 * atan_inverse(239)) >> 32


def _parts(number: int, digits: int, widths: tuple[int, ...]) -> tuple[float, ...]:
    """number 2^-digits as a sum of floats of so many digits each."""
    found = []
    for width in widths:
        drop = max(number.bit_length() - width, 0)
        head = number >> drop << drop
        found.append(math.ldexp(head >> drop, drop - digits))
        number -= head
    return tuple(found)


@functools.cache
def _half_pi(*widths: int) -> tuple[float, ...]:
    return _parts(_pi(), _DIGITS + 1, widths)


@functools.cache
def _table() -> tuple[float, ...]:
    """2^(32 k) 2/pi modulo 4 in four pieces, for k = 0, 1, ..."""
    inverse = (2 << 2 * _DIGITS) // _pi()  # 2/pi 2^_DIGITS
    rows = range((1023 - 52) // _BLOCK + 1)
    pieces = [
        _parts((inverse << _BLOCK * k) % (4 << _DIGITS), _DIGITS, (53,) * _PIECES) for k in rows
    ]
    return tuple(x for row in pieces for x in row)


class Reduced(NamedTuple):
    """x = n pi/2 + (high + low); n as an integer, modulo 4."""

    quadrant: Operand
    high: Operand
    low: Operand


def _reduce_near(m: Arithmetic, x: Operand, precise: bool) -> Reduced:
    """For |x| < 2^20; not `precise`, the remainder has the digits of float32."""
    whole, n = m.nearest(x, 2 / math.pi)
    if not precise:
        first, second = _half_pi(33, 53)
        high = (x - whole * first) - whole * second
        return Reduced(n, high, m.number(x, 0.0))
    first, second, third, fourth = _half_pi(33, 33, 33, 53)
    high, low = m.two_sum(x - whole * first, -(whole * second))
    high, more = m.two_sum(high, -(whole * third))
    return Reduced(n, *m.fast_two_sum(high, (low + more) - whole * fourth))


def _reduce_far(m: Arithmetic, x: Operand) -> Reduced:
    """For |x| >= 2^20."""
    size = m.abs(x)
    exponent = (m.bits(size) >> 52) - 1023
    k = m.select(exponent < 52, 0, (exponent - 52) >> 5)
    y = size * m.power_of_two(-(k << 5), _DOUBLE)
    products = []
    for piece in range(_PIECES):
        t = m.lookup("two_over_pi", _table(), k * _PIECES + piece)
        products += m.two_product(y, t)
    # y is whole or k is 0, so that multiples of 4 may go: without rounding, from what can be so
    # large. The rest is a few units.
    terms = [p - 4.0 * m.round(p * 0.25) for p in products[:3]] + products[3:]
    terms = _distil(m, terms)
    whole, n = m.nearest(terms[0])
    terms = _distil(m, [terms[0] - whole, *terms[1:]])
    first, second = _half_pi(53, 53)
    high, low = m.two_product(terms[0], m.number(x, first))
    low = low + (terms[0] * second + terms[1] * first)
    negative = x < 0.0
    high, low = m.fast_two_sum(high, low)
    flip = [m.select(negative, -z, z) for z in (n, high, low)]
    return Reduced(*flip)


def _distil(m: Arithmetic, terms: list[Operand]) -> list[Operand]:
    """The same sum with its leading digits in the first terms (Ogita, Rump and Oishi, 2005)."""
    for _ in range(2):
        errors = []
        total = terms[-1]
        for term in reversed(terms[:-1]):
            total, error = m.two_sum(term, total)
            errors.append(error)
        terms = [total, *reversed(errors)]
    return terms


def _reduce(m: Arithmetic, x: Operand) -> Reduced:
    wide, precise = m.cast(x, _DOUBLE), x.dtype == _DOUBLE
    near = _reduce_near(m, wide, precise)
    far = m.abs(wide) >= _NEAR
    # One branch serves three results: the first computes them all, for the others to use.
    n, high, low = m.rarely_all(far, lambda: m.apart("reduce", _reduce_far, wide), near)
    if precise:
        return Reduced(n, high, low)
    high = m.cast(high, x.dtype)
    return Reduced(m.cast(n, "int32"), high, m.number(high, 0.0))


def _sin_kernel(m: Arithmetic, r: Reduced) -> Operand:
    """sin(high + low) for a small angle."""
    z = r.high * r.high
    p = m.polynomial(z, _SIN[z.dtype])
    if z.dtype == _SINGLE:
        return m.fma(z * r.high, p, r.high)
    return r.high + m.fma(z * r.high, p, r.low * (1.0 - z * 0.5))


def _cos_kernel(m: Arithmetic, r: Reduced) -> Operand:
    """cos(high + low); 1 - z/2 is rounded, and what it loses added with the rest."""
    z = r.high * r.high
    half = z * 0.5
    first = 1.0 - half
    rest = m.fma(z * z, m.polynomial(z, _COS[z.dtype]), (1.0 - first) - half)
    return first + (rest if z.dtype == _SINGLE else rest - r.high * r.low)


def _wave(m: Arithmetic, r: Reduced, shift: int) -> Operand:
    """The sine of the angle plus `shift` right angles."""
    quadrant = r.quadrant + shift
    size = m.select((quadrant & 1) != 0, _cos_kernel(m, r), _sin_kernel(m, r))
    return m.select((quadrant & 2) != 0, -size, size)


def sin(m: Arithmetic, x: Operand) -> Operand:
    """sin x; NaN of infinities."""
    y = _wave(m, _reduce(m, x), 0)
    return m.select(m.abs(x) < 1e-10, x, y)  # -0 keeps its sign


def cos(m: Arithmetic, x: Operand) -> Operand:
    """cos x; NaN of infinities."""
    return _wave(m, _reduce(m, x), 1)


def tan(m: Arithmetic, x: Operand) -> Operand:
    """sin x / cos x; float32 by way of float64."""
    if x.dtype == _SINGLE:
        return m.cast(tan(m, m.cast(x, _DOUBLE)), x.dtype)
    r = _reduce(m, x)
    s, c = _sin_kernel(m, r), _cos_kernel(m, r)
    odd = (r.quadrant & 1) != 0
    y = m.select(odd, -c, s) / m.select(odd, s, c)
    return m.select(m.abs(x) < 1e-10, x, y)
