"""Special cases that the standard lists for NaN, infinities and signed zeros.

The real ones are tabulated here from the standard's text; complex functions are held against
Python's `cmath`, which follows C99's annex G as the standard does, and against the few cases that
the standard sets itself.
"""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest

import chainrule as cr

inf, nan, pi = math.inf, math.nan, math.pi
ZEROS = (0.0, -0.0)

# (x, value) and (x, y, value): lists, because 0 and -0 are one key of a dictionary.
UNARY = {
    "abs": [(nan, nan), (-0.0, 0.0), (-inf, inf)],
    "acos": [(nan, nan), (1.5, nan), (-1.5, nan), (1.0, 0.0)],
    "acosh": [(nan, nan), (0.5, nan), (1.0, 0.0), (inf, inf)],
    "asin": [(nan, nan), (1.5, nan), (-1.5, nan), (0.0, 0.0), (-0.0, -0.0)],
    "asinh": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf)],
    "atan": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, pi / 2), (-inf, -pi / 2)],
    "atanh": [
        (nan, nan),
        (-1.5, nan),
        (1.5, nan),
        (-1.0, -inf),
        (1.0, inf),
        (0.0, 0.0),
        (-0.0, -0.0),
    ],
    "ceil": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf), (-0.5, -0.0)],
    "cos": [(nan, nan), (0.0, 1.0), (-0.0, 1.0), (inf, nan), (-inf, nan)],
    "cosh": [(nan, nan), (0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, inf)],
    "exp": [(nan, nan), (0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0)],
    "expm1": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -1.0)],
    "floor": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf)],
    "log": [(nan, nan), (-1.0, nan), (0.0, -inf), (-0.0, -inf), (1.0, 0.0), (inf, inf)],
    "log1p": [(nan, nan), (-2.0, nan), (-1.0, -inf), (-0.0, -0.0), (0.0, 0.0), (inf, inf)],
    "log2": [(nan, nan), (-1.0, nan), (0.0, -inf), (-0.0, -inf), (1.0, 0.0), (inf, inf)],
    "log10": [(nan, nan), (-1.0, nan), (0.0, -inf), (-0.0, -inf), (1.0, 0.0), (inf, inf)],
    "reciprocal": [(nan, nan), (inf, 0.0), (-inf, -0.0), (0.0, inf), (-0.0, -inf)],
    "round": [
        (nan, nan),
        (0.0, 0.0),
        (-0.0, -0.0),
        (inf, inf),
        (0.5, 0.0),
        (-0.5, -0.0),
        (1.5, 2.0),
        (2.5, 2.0),
    ],
    "sign": [(nan, nan), (-3.0, -1.0), (0.0, 0.0), (-0.0, 0.0), (2.0, 1.0), (inf, 1.0)],
    "signbit": [(0.0, False), (-0.0, True), (inf, False), (-inf, True), (1.0, False), (-1.0, True)],
    "sin": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan)],
    "sinh": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf)],
    "sqrt": [(nan, nan), (-1.0, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf)],
    "tan": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan)],
    "tanh": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0)],
    "trunc": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf), (-0.9, -0.0)],
}
BINARY = {
    "add": [
        (inf, -inf, nan),
        (-inf, inf, nan),
        (inf, 1.0, inf),
        (-0.0, -0.0, -0.0),
        (-0.0, 0.0, 0.0),
        (0.0, -0.0, 0.0),
        (2.0, -2.0, 0.0),
        (nan, 1.0, nan),
    ],
    "atan2": [
        (nan, 1.0, nan),
        (1.0, 0.0, pi / 2),
        (0.0, 0.0, 0.0),
        (0.0, -0.0, pi),
        (-0.0, 0.0, -0.0),
        (-0.0, -0.0, -pi),
        (0.0, -1.0, pi),
        (-0.0, -1.0, -pi),
        (1.0, inf, 0.0),
        (1.0, -inf, pi),
        (-1.0, inf, -0.0),
        (inf, 1.0, pi / 2),
        (inf, inf, pi / 4),
        (inf, -inf, 3 * pi / 4),
        (-inf, inf, -pi / 4),
        (-inf, -inf, -3 * pi / 4),
    ],
    "copysign": [(1.0, -0.0, -1.0), (-1.0, 0.0, 1.0), (nan, -1.0, nan), (-inf, 2.0, inf)],
    "divide": [
        (inf, inf, nan),
        (0.0, 0.0, nan),
        (0.0, -0.0, nan),
        (0.0, 2.0, 0.0),
        (0.0, -2.0, -0.0),
        (-0.0, 2.0, -0.0),
        (2.0, 0.0, inf),
        (2.0, -0.0, -inf),
        (-2.0, 0.0, -inf),
        (inf, -2.0, -inf),
        (2.0, -inf, -0.0),
        (-2.0, -inf, 0.0),
    ],
    "floor_divide": [
        (inf, inf, nan),
        (0.0, 0.0, nan),
        (0.0, 2.0, 0.0),
        (0.0, -2.0, -0.0),
        (2.0, 0.0, inf),
        (2.0, -0.0, -inf),
        (inf, 2.0, inf),
        (inf, -2.0, -inf),
        (-inf, 2.0, -inf),
        (-inf, -2.0, inf),
        (2.0, inf, 0.0),
        (2.0, -inf, -0.0),
        (-2.0, inf, -0.0),
        (-2.0, -inf, 0.0),
        (nan, 1.0, nan),
        (7.0, -2.0, -4.0),
    ],
    "hypot": [(inf, nan, inf), (nan, -inf, inf), (nan, 1.0, nan), (-0.0, -3.0, 3.0)],
    "logaddexp": [(nan, 1.0, nan), (inf, 1.0, inf), (-inf, -inf, -inf), (-inf, 2.0, 2.0)],
    "maximum": [(nan, 1.0, nan), (1.0, nan, nan), (-inf, inf, inf)],
    "minimum": [(nan, 1.0, nan), (1.0, nan, nan), (-inf, inf, -inf)],
    "multiply": [(inf, 0.0, nan), (-inf, -0.0, nan), (inf, -2.0, -inf), (-0.0, 2.0, -0.0)],
    "nextafter": [(nan, 1.0, nan), (0.0, -0.0, -0.0), (1.0, 1.0, 1.0), (inf, inf, inf)],
    "pow": [
        (nan, 0.0, 1.0),
        (2.0, -0.0, 1.0),
        (1.0, nan, 1.0),
        (2.0, nan, nan),
        (2.0, inf, inf),
        (2.0, -inf, 0.0),
        (1.0, inf, 1.0),
        (-1.0, -inf, 1.0),
        (0.5, inf, 0.0),
        (0.5, -inf, inf),
        (inf, 2.0, inf),
        (inf, -2.0, 0.0),
        (-inf, 3.0, -inf),
        (-inf, 2.0, inf),
        (-inf, 0.5, inf),
        (-inf, -3.0, -0.0),
        (-inf, -2.0, 0.0),
        (0.0, 2.0, 0.0),
        (0.0, -2.0, inf),
        (-0.0, 3.0, -0.0),
        (-0.0, 0.5, 0.0),
        (-0.0, -3.0, -inf),
        (-0.0, -2.0, inf),
        (-2.0, 0.5, nan),
    ],
    "remainder": [
        (inf, 1.0, nan),
        (1.0, 0.0, nan),
        (0.0, 3.0, 0.0),
        (-0.0, 3.0, 0.0),
        (0.0, -3.0, -0.0),
        (2.0, inf, 2.0),
        (2.0, -inf, -inf),
        (-2.0, inf, inf),
        (-2.0, -inf, -2.0),
    ],
}


def assert_value(actual, expected):
    actual = actual.item()
    if isinstance(expected, float) and math.isnan(expected):
        assert math.isnan(actual)
    else:
        assert actual == pytest.approx(expected, rel=1e-6)
        assert math.copysign(1, actual) == math.copysign(1, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, dtype):
    for x, expected in UNARY[name]:
        assert_value(getattr(cr, name)(cr.asarray(x, dtype=dtype)), expected)
        # In the middle of an array too, where NumPy computes several elements at a time.
        many = getattr(cr, name)(cr.full((9,), x, dtype=dtype))
        assert_value(many[5], expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BINARY)
def test_binary(name, dtype):
    for x, y, expected in BINARY[name]:
        a, b = cr.asarray(x, dtype=dtype), cr.asarray(y, dtype=dtype)
        assert_value(getattr(cr, name)(a, b), expected)
        assert_value(getattr(cr, name)(a, y), expected)
        assert_value(getattr(cr, name)(cr.full((9,), x, dtype=dtype), b)[5], expected)


def test_small_whole_exponents_follow_the_same_rules():
    assert_value(cr.asarray(-inf) ** 3, -inf)
    assert_value(cr.asarray(-0.0) ** 3, -0.0)
    assert_value(cr.asarray(-0.0) ** 2, 0.0)
    assert_value(cr.asarray(nan) ** 0, 1.0)


PARTS = (0.0, -0.0, 1.5, -1.5, inf, -inf, nan)
UNSPECIFIED_SIGNS = ("cosh", "exp", "sinh", "tanh")
"""Where a part is infinite or NaN, C99 and the standard leave some signs of these open."""


@pytest.mark.parametrize(
    "name",
    [
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "cosh",
        "exp",
        "log",
        "sinh",
        "sqrt",
        "tanh",
    ],
)
def test_complex_functions_follow_annex_g(name):
    for a in PARTS:
        for b in PARTS:
            try:
                expected = getattr(cmath, name)(complex(a, b))
            except ValueError:
                continue  # Python raises where C99 gives an infinity or NaN and a flag
            found = complex(getattr(cr, name)(cr.asarray(complex(a, b), dtype=cr.complex128)))
            if a == 0 and not math.isfinite(b) and name in ("acosh", "tanh"):
                continue  # the standard follows C23 here, and has a test of its own below
            loose = (name in UNSPECIFIED_SIGNS and not cmath.isfinite(complex(a, b))) or (
                math.isnan(a) or math.isnan(b)
            )
            for x, y in ((found.real, expected.real), (found.imag, expected.imag)):
                if loose:
                    x, y = abs(x), abs(y)
                np.testing.assert_allclose(x, y, rtol=1e-14, err_msg=f"{name}({a}, {b})")
                if not math.isnan(y):
                    assert math.copysign(1, x) == math.copysign(1, y), (name, a, b, found, expected)


@pytest.mark.parametrize(
    "x, real, imag",
    [
        ((0.0, 0.0), 0.0, 0.0), ((-0.0, 0.0), 0.0, 0.0), ((-0.0, -0.0), 0.0, -0.0),
        ((1.0, inf), nan, nan), ((1.0, nan), nan, nan), ((inf, 0.0), inf, 0.0),
        ((-inf, 2.0), -1.0, 0.0), ((-inf, -2.0), -1.0, -0.0), ((-inf, inf), -1.0, None),
        ((-inf, nan), -1.0, None), ((nan, 0.0), nan, 0.0), ((nan, 1.0), nan, nan),
    ],
)  # fmt: skip
def test_complex_expm1(x, real, imag):
    z = cr.expm1(cr.asarray(complex(*x), dtype=cr.complex128))
    assert_value(cr.real(z), real)
    if imag is not None:
        assert_value(cr.imag(z), imag)
    else:
        assert cr.imag(z).item() == 0.0


def test_complex_expm1_at_positive_infinity():
    for b in (inf, nan):
        z = complex(cr.expm1(cr.asarray(complex(inf, b), dtype=cr.complex128)))
        assert math.isinf(z.real)
        assert math.isnan(z.imag)
    z = complex(cr.expm1(cr.asarray(complex(inf, 2.0), dtype=cr.complex128)))
    assert (z.real, z.imag) == (-inf, inf)  # infinity times cos 2 + i sin 2


def test_complex_tanh_at_infinity_has_a_zero_of_the_sign_of_the_imaginary_part():
    for a, b in ((inf, 2.0), (inf, -2.0), (-inf, 2.0), (inf, inf)):
        z = cr.tanh(cr.asarray(complex(a, b), dtype=cr.complex128))
        assert_value(cr.real(z), math.copysign(1, a))
        assert_value(cr.imag(z), math.copysign(0, b))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_sign_of_a_nan_in_either_part(dtype):
    for a in PARTS:
        for x in (complex(a, nan), complex(nan, a)):
            z = cr.sign(cr.asarray([x, 3 - 4j], dtype=dtype))
            assert z.dtype == getattr(cr, dtype)
            assert_value(cr.real(z)[0], nan)
            assert_value(cr.imag(z)[0], nan)
            assert complex(z[1]) == pytest.approx(0.6 - 0.8j)


def test_complex_functions_on_the_imaginary_axis():
    for a in ZEROS:
        for b in (nan, inf):
            z = cr.tanh(cr.asarray(complex(a, b), dtype=cr.complex128))
            assert_value(cr.real(z), a)
            assert_value(cr.imag(z), nan)
    z = cr.acosh(cr.asarray(complex(0.0, nan), dtype=cr.complex128))
    assert_value(cr.real(z), nan)
    assert abs(cr.imag(z).item()) == pytest.approx(pi / 2)


def test_reductions_of_nothing_and_of_nan():
    nothing = cr.asarray([], dtype=cr.float32)
    assert math.isnan(cr.mean(nothing).item())
    assert math.isnan(cr.var(nothing).item())
    assert math.isnan(cr.std(nothing).item())
    assert cr.sum(nothing).item() == 0.0
    assert cr.prod(nothing).item() == 1.0
    assert cr.all(nothing).item() is True
    assert cr.any(nothing).item() is False
    x = cr.asarray([1.0, nan, 3.0, -inf])
    for name in ("max", "mean", "min", "prod", "std", "sum", "var"):
        assert math.isnan(getattr(cr, name)(x).item()), name
