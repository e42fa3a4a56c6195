"""Functions whose values at infinity the array API standard sets otherwise than NumPy does."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def floor_divide(x: Array, y: Array) -> Array:
    """floor(x / y); where one of the two is infinite, the quotient: an infinity or a zero."""
    z = np.floor_divide(x, y)
    if x.dtype.kind != "f":
        return z
    # NumPy follows Python there: inf // 1 is NaN, and 1 // -inf is -1.
    single = np.isinf(x) != np.isinf(y)
    return np.where(single, x / y, z) if single.any() else z


def power(x: Array, y: Array) -> Array:
    """x^y. The power 1/2 of -inf is inf and that of -0 is 0, as of all powers that are not odd."""
    z = np.power(x, y)
    # NumPy takes the square root instead, of which -inf has none and -0 gives itself.
    if y.dtype.kind == "f" and (half := y == 0.5).any():
        z = np.where(half & ((x == -np.inf) | (x == 0)), np.abs(x), z)
    return z


def expm1(x: Array) -> Array:
    """e^x - 1. Complex numbers with an infinite or undefined part are those of e^x, less 1."""
    z = np.expm1(x)
    if x.dtype.kind != "c":
        return z
    z: Array = np.where(np.isfinite(x), z, np.exp(x) - 1)
    z.real += 0  # -0 + 0 is +0: the real part of no result is -0
    return z


def tanh(x: Array) -> Array:
    """tanh x. A complex number with an infinite real part gives 1 or -1, with 0 of its own sign."""
    z = np.asarray(np.tanh(x))
    if x.dtype.kind != "c" or not (infinite := np.isinf(x.real)).any():
        return z
    limit = np.empty_like(z)
    limit.real, limit.imag = np.copysign(1, x.real), np.copysign(0, x.imag)
    return np.where(infinite, limit, z)
