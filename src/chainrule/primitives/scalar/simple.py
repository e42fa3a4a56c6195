"""Elementwise functions of a few instructions: signs, steps, integers, neighbours."""

from __future__ import annotations

import numpy as np

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand


def sign(m: Arithmetic, x: Operand) -> Operand:
    """-1, 0 or 1; NaN stays, and -0 becomes 0."""
    rest = x + 0 if x.dtype.kind == "u" else m.select(x < 0, -1, x + 0)
    return m.select(x > 0, 1, rest)


def relu(m: Arithmetic, x: Operand) -> Operand:
    """x above 0 and 0 below; NaN stays."""
    return m.select(x <= 0, 0, x)


def floor(m: Arithmetic, x: Operand) -> Operand:
    """The largest whole number <= x."""
    return m.floor(x) if x.dtype.kind == "f" else x


def ceil(m: Arithmetic, x: Operand) -> Operand:
    """The smallest whole number >= x."""
    return m.ceil(x) if x.dtype.kind == "f" else x


def trunc(m: Arithmetic, x: Operand) -> Operand:
    """x without its fraction."""
    return m.trunc(x) if x.dtype.kind == "f" else x


def round(m: Arithmetic, x: Operand) -> Operand:
    """The nearest whole number, halves to even."""
    return m.round(x) if x.dtype.kind == "f" else x


def isinf(m: Arithmetic, x: Operand) -> Operand:
    """Whether x is infinite; integers never are."""
    return m.abs(x) == float("inf") if x.dtype.kind == "f" else x != x


def isfinite(m: Arithmetic, x: Operand) -> Operand:
    """Whether x is a finite number; integers are."""
    return m.abs(x) < float("inf") if x.dtype.kind == "f" else x == x


def signbit(m: Arithmetic, x: Operand) -> Operand:
    """Whether the sign bit is set, also of -0 and NaN."""
    return m.bits(x) < 0


def nextafter(m: Arithmetic, x: Operand, y: Operand) -> Operand:
    """The number next to x towards y; y if they are equal.

    Bits of numbers of one sign are in the order of their size, so one is added or taken away.
    """
    bits = m.bits(x)
    away = (y > x) ^ (x < 0.0)
    next = m.from_bits(m.select(away, bits + 1, bits - 1))
    smallest = m.copysign(m.number(x, float(np.finfo(x.dtype).smallest_subnormal)), y)
    next = m.select(x == 0.0, smallest, next)
    next = m.select(x == y, y, next)
    return m.select((x != x) | (y != y), x + y, next)


def left_shift(m: Arithmetic, x: Operand, n: Operand) -> Operand:
    """x 2^n; 0 where n is negative or at least the number of bits."""
    width = 8 * x.dtype.itemsize
    outside = (n < 0) | (n >= width)
    return m.select(outside, 0, x << m.select(outside, 0, n))


def right_shift(m: Arithmetic, x: Operand, n: Operand) -> Operand:
    """floor(x / 2^n); 0 or -1 where n is negative or at least the number of bits."""
    width = 8 * x.dtype.itemsize
    outside = (n < 0) | (n >= width)
    shifted = x >> m.select(outside, width - 1, n)
    return shifted if x.dtype.kind == "i" else m.select(outside, 0, shifted)


def integer_power(m: Arithmetic, x: Operand, n: Operand) -> Operand:
    """x^n for n >= 0, modulo the range: products of x^1, x^2, x^4, ... by the bits of n."""

    def step(power: Operand, base: Operand, left: Operand) -> tuple[Operand, ...]:
        return m.select((left & 1) != 0, power * base, power), base * base, left >> 1

    return m.repeat(lambda power, base, left: left != 0, step, m.number(x, 1), x, n)[0]
