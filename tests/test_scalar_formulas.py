"""The formulas of elementwise functions in NumPy's arithmetic, without a compiler."""

from __future__ import annotations

import math
import operator
from fractions import Fraction

import numpy as np
import pytest

from chainrule.graph import Primitive
from chainrule.primitives import elementwise as p
from chainrule.primitives.scalar import fmod, trigonometric
from chainrule.primitives.scalar.reference import NumPyArithmetic

FUSED, SEPARATE = NumPyArithmetic(True), NumPyArithmetic(False)
BOTH = pytest.mark.parametrize("m", [FUSED, SEPARATE], ids=["fused", "separate"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
FUNCTIONS = [
    "exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid", "erf", "erfinv",
]  # fmt: skip


def primitive(name: str) -> Primitive:
    return getattr(p, name)


def sample(dtype: str, n: int = 4000) -> np.ndarray:
    """Numbers of all sizes."""
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), n, f"u{np.dtype(dtype).itemsize}")
    edges = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan], dtype)
    ordinary = np.concatenate([rng.uniform(-1, 1, n), rng.standard_normal(n) * 5]).astype(dtype)
    return np.concatenate([bits.view(dtype), ordinary, edges])


@BOTH
@DTYPES
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, dtype: str, m: NumPyArithmetic) -> None:
    x = sample(dtype)
    with np.errstate(all="ignore"):
        z, want = primitive(name).scalar(m, x), primitive(name).evaluate(x)
        tiny = float(np.finfo(dtype).smallest_subnormal)
        np.testing.assert_allclose(z, want, rtol=6 * np.finfo(dtype).eps, atol=2 * tiny)
    signs = np.signbit(z) == np.signbit(want)
    assert (signs | np.isnan(want)).all(), x[~signs]


@BOTH
@DTYPES
@pytest.mark.parametrize("name", ["pow", "hypot", "atan2", "floor_divide", "remainder"])
def test_functions_of_two(name: str, dtype: str, m: NumPyArithmetic) -> None:
    x, y = sample(dtype, 1500), np.random.default_rng(6).permutation(sample(dtype, 1500))
    with np.errstate(all="ignore"):
        z, want = primitive(name).scalar(m, x, y), primitive(name).evaluate(x, y)
        tiny = float(np.finfo(dtype).smallest_subnormal)
        np.testing.assert_allclose(z, want, rtol=3 * np.finfo(dtype).eps, atol=2 * tiny)


def exactly(x: np.ndarray) -> list[Fraction]:
    return [Fraction(float(a)) for a in x]


@BOTH
@DTYPES
def test_products_and_sums_lose_nothing(m: NumPyArithmetic, dtype: str) -> None:
    rng = np.random.default_rng(1)
    x, y = (
        np.ldexp(rng.standard_normal(200), rng.integers(-9, 9, 200)).astype(dtype) for _ in "xy"
    )
    for pair, operation in ((m.two_product(x, y), operator.mul), (m.two_sum(x, y), operator.add)):
        for a, b, high, low in zip(*map(exactly, (x, y, *pair)), strict=True):
            assert high + low == operation(a, b)


@BOTH
def test_remainders_are_exact(m: NumPyArithmetic) -> None:
    rng = np.random.default_rng(2)
    x = np.ldexp(rng.uniform(1, 2, 500), rng.integers(-1070, 1023, 500))
    y = np.ldexp(rng.uniform(1, 2, 500), rng.integers(-1070, 1023, 500))
    x = np.append(x, [1.7e308, 1.7e308, 5e-324, 3.0])
    y = np.append(y, [5e-324, 2.3e-308, 1.7e308, 5e-324])
    with np.errstate(all="ignore"):
        z = fmod(m, x, y)
    assert z.tolist() == [math.fmod(a, b) for a, b in zip(x, y, strict=True)]


def test_angles_close_to_a_multiple_of_half_pi() -> None:
    """The reduced angle against 1,400 digits of pi."""
    pi = Fraction(trigonometric._pi(), 1 << trigonometric._DIGITS)
    rng = np.random.default_rng(3)
    multiples = [float(pi / 2 * int(k)) for k in rng.integers(1, 2**62, 200)]
    x = np.array([*multiples, math.ldexp(6381956970095103, 797), 2.0**20, 2.0**52, 1.7e308])
    for m in (FUSED, SEPARATE):
        with np.errstate(all="ignore"):
            n, high, low = trigonometric._reduce(m, x)
        for i in range(x.size):
            exact = Fraction(x[i]) / (pi / 2)
            whole = round(exact)
            angle = (exact - whole) * (pi / 2)
            assert whole % 4 == int(n[i]) % 4
            assert abs(Fraction(high[i]) + Fraction(low[i]) - angle) <= abs(angle) * 2.0**-66


def test_pi() -> None:
    assert math.ldexp(trigonometric._pi() >> (trigonometric._DIGITS - 60), -60) == math.pi
    pi = Fraction(trigonometric._pi(), 1 << trigonometric._DIGITS)
    parts = trigonometric._half_pi(33, 33, 33, 53)
    assert abs(2 * sum(map(Fraction, parts)) - pi) < Fraction(2) ** -148
