"""Division with remainder, for integers and floating-point numbers, as Python and NumPy have it."""

from __future__ import annotations

import numpy as np

from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand

_DOUBLE = np.dtype("float64")


def _integers(m: Arithmetic, x: Operand, y: Operand) -> tuple[Operand, Operand]:
    """Quotient towards minus infinity, and a remainder with the divisor's sign."""
    quotient, rest = m.divide_integers(x, y)
    if x.dtype.kind == "u":
        return quotient, rest
    other = (rest != 0) & ((rest < 0) ^ (y < 0))
    return m.select(other, quotient - 1, quotient), m.select(other, rest + y, rest)


def fmod(m: Arithmetic, x: Operand, y: Operand) -> Operand:
    """x - y trunc(x / y) without any rounding, with the sign of x.

    Quotients below 2^50 need one subtraction; larger ones, which are rare, divide digit by digit.
    Numbers of float32 are taken as float64.
    """
    if x.dtype != _DOUBLE:
        return m.cast(fmod(m, m.cast(x, _DOUBLE), m.cast(y, _DOUBLE)), x.dtype)
    a, b = m.abs(x), m.abs(y)
    # The quotient's rounding may be one too large. Products must neither overflow (in the splitting
    # of `two_product`) nor lose digits below the smallest number.
    quotient = m.trunc(a / b)
    high, low = m.two_product(quotient, b)
    rest = (a - high) - low
    rest = m.select(rest < 0.0, rest + b, rest)
    usual = m.select(a < b, a, rest)
    hard = (a >= b) & ((quotient >= 2.0**50) | (a >= 2.0**900) | (b < 2.0**-900)) & (b > 0.0)
    hard = hard & (a < float("inf"))
    rest = m.rarely(hard, lambda: m.apart("divide", _long_division, a, b)[0], usual)
    defined = (a < float("inf")) & (b > 0.0)
    return m.select(defined, m.copysign(rest, x), m.select(y == y, float("nan"), y))


def _significand(m: Arithmetic, x: Operand) -> tuple[Operand, Operand]:
    """x = s 2^e of a positive x, s an integer of 53 bits."""
    small = x < 2.0**-1000
    bits = m.bits(m.select(small, x * 2.0**100, x))
    exponent = (bits >> 52) - m.select(small, m.number(bits, 1175), m.number(bits, 1075))
    return (bits & (2**52 - 1)) | 2**52, exponent


def _long_division(m: Arithmetic, a: Operand, b: Operand) -> tuple[Operand]:
    """The remainder of a / b for a >= b > 0: the digits of a's significand, ten bits at a time."""
    (rest, high), (divisor, low) = _significand(m, a), _significand(m, b)

    def step(rest: Operand, left: Operand) -> tuple[Operand, Operand]:
        bits = m.select(left < 10, m.select(left < 0, 0, left), 10)
        return m.divide_integers(rest << bits, divisor)[1], left - bits

    rest = m.divide_integers(rest, divisor)[1]
    rest, _ = m.repeat(lambda rest, left: left > 0, step, rest, high - low)
    # rest 2^low is a number: at most 53 bits, and a multiple of the smallest.
    half = m.clamp(low, -1000, 900)
    scaled = m.cast(rest, _DOUBLE) * m.power_of_two(half, _DOUBLE)
    return (scaled * m.power_of_two(m.clamp(low - half, -1000, 900), _DOUBLE),)


def remainder(m: Arithmetic, x: Operand, y: Operand) -> Operand:
    """x - y floor(x / y), with the sign of y."""
    if x.dtype.kind != "f":
        return _integers(m, x, y)[1]
    rest = fmod(m, x, y)
    other = (rest < 0.0) ^ (y < 0.0)
    return m.select(rest == 0.0, m.copysign(rest, y), m.select(other, rest + y, rest))


def floor_divide(m: Arithmetic, x: Operand, y: Operand) -> Operand:
    """floor(x / y), from the exact remainder; x / y where one is infinite or y is 0."""
    if x.dtype.kind != "f":
        return _integers(m, x, y)[0]
    rest = fmod(m, x, y)
    quotient = (x - rest) / y
    other = (rest != 0.0) & ((rest < 0.0) ^ (y < 0.0))
    quotient = m.select(other, quotient - 1.0, quotient)
    whole = m.floor(quotient)
    whole = m.select(quotient - whole > 0.5, whole + 1.0, whole)
    plain = x / y
    whole = m.select(quotient == 0.0, m.copysign(m.number(x, 0.0), plain), whole)
    infinity = float("inf")
    single = (m.abs(x) == infinity) ^ (m.abs(y) == infinity)
    return m.select(single | (y == 0.0), plain, whole)
