"""Corners: where a function has no derivative, the value that its rule takes; infinities and NaN.

The values are the documented ones. Where PyTorch or JAX define the same point they agree with them,
unless a comment says otherwise.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.special

import chainrule as cr

inf, nan = math.inf, math.nan


def tensor(*values: float) -> cr.Tensor:
    return cr.asarray(np.array(values), requires_grad=True)


def derivative(function: Any, *values: float) -> list[float]:
    """The derivative of an elementwise function of one variable at some values."""
    x = tensor(*values)
    (g,) = cr.autograd.grad(cr.sum(function(x)), x)
    return g.tolist()


def derivatives(function: Any, x: float, y: float) -> list[float]:
    """The two derivatives of a function of two variables at a point."""
    inputs = tensor(x), tensor(y)
    return [g.item() for g in cr.autograd.grad(cr.sum(function(*inputs)), inputs)]


def second(function: Any, value: float) -> float:
    return cr.grad(cr.grad(function))(np.float64(value)).item()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("relu", (0.0, -0.0, 1.0, -1.0, inf, -inf), (0.0, 0.0, 1.0, 0.0, 1.0, 0.0)),
        ("abs", (0.0, -0.0, 2.0, -2.0, inf, -inf), (0.0, 0.0, 1.0, -1.0, 1.0, -1.0)),
        ("sign", (0.0, 3.0, -3.0), (0.0, 0.0, 0.0)),
        ("floor", (0.0, 1.0, 1.5), (0.0, 0.0, 0.0)),
        ("ceil", (0.0, 1.0, 1.5), (0.0, 0.0, 0.0)),
        ("round", (0.5, 1.0, 1.5), (0.0, 0.0, 0.0)),
        ("trunc", (0.0, -1.0, 1.5), (0.0, 0.0, 0.0)),
        ("sqrt", (0.0, 4.0, -1.0, inf), (inf, 0.25, nan, 0.0)),
        ("rsqrt", (inf,), (0.0,)),
        ("log", (0.0, inf), (inf, 0.0)),
        ("log1p", (-1.0, 0.0), (inf, 1.0)),
        ("exp", (-inf, 0.0, inf), (0.0, 1.0, inf)),
        ("tanh", (1000.0, -1000.0, inf), (0.0, 0.0, 0.0)),
        ("sigmoid", (1000.0, -1000.0, inf, -inf), (0.0, 0.0, 0.0, 0.0)),
        ("asin", (1.0, -1.0), (inf, inf)),
        ("acos", (1.0, -1.0), (-inf, -inf)),
        ("acosh", (1.0,), (inf,)),
        ("atanh", (1.0, -1.0), (inf, inf)),
        ("atan", (inf, -inf), (0.0, 0.0)),
        ("erf", (inf, -inf, 30.0), (0.0, 0.0, 0.0)),
        ("erfinv", (1.0, -1.0), (inf, inf)),
        ("reciprocal", (inf,), (0.0,)),
    ],
)
def test_first_derivative_at_corners(name: str, values: Any, expected: Any) -> None:
    got = derivative(getattr(cr, name), *values)
    np.testing.assert_array_equal(got, expected)


def test_second_derivative_at_corners() -> None:
    assert second(cr.relu, 0.0) == 0.0
    assert second(lambda x: x**2, 0.0) == 2.0
    assert second(lambda x: x**2.0, 0.0) == 2.0
    assert second(lambda x: x**3.0, 0.0) == 0.0
    assert second(lambda x: x**1.0, 0.0) == 0.0
    assert second(lambda x: x**0.0, 0.0) == 0.0
    assert second(cr.square, 0.0) == 2.0


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 5, 0.0, 1.0, 2.0, 3.0, 4.0, 2.5])
def test_powers_at_zero(exponent: float) -> None:
    expected = 1.0 if exponent == 1 else 0.0
    assert derivative(lambda x: x**exponent, 0.0) == [expected]
    assert (tensor(0.0) ** exponent).item() == (1.0 if exponent == 0 else 0.0)


def test_power_of_two_tensors() -> None:
    assert derivatives(cr.pow, 0.0, 0.0) == [0.0, 0.0]
    assert derivatives(cr.pow, 0.0, 1.0) == [1.0, 0.0]
    assert derivatives(cr.pow, 0.0, 2.0) == [0.0, 0.0]
    assert derivatives(cr.pow, 0.0, 0.5) == [inf, 0.0]
    assert derivatives(cr.pow, 0.0, -1.0) == [-inf, -inf]
    assert derivatives(cr.pow, 2.0, 0.0) == [0.0, math.log(2)]
    by_base, by_exponent = derivatives(cr.pow, -2.0, 3.0)
    assert by_base == 12.0
    assert math.isnan(by_exponent)  # x^y is no real number beside it
    # A constant exponent is not asked for its derivative, so a negative base is fine.
    assert derivative(lambda x: x**3.0, -2.0) == [12.0]


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_ties_share_the_gradient(name: str) -> None:
    function = getattr(cr, name)
    assert derivatives(function, 1.0, 1.0) == [0.5, 0.5]
    assert derivatives(function, 0.0, -0.0) == [0.5, 0.5]
    assert derivatives(function, inf, inf) == [0.5, 0.5]
    assert sorted(derivatives(function, 1.0, 2.0)) == [0.0, 1.0]


def test_tied_extrema_share_the_gradient() -> None:
    for function in (cr.max, lambda x: -cr.min(-x)):
        x = tensor(1.0, 3.0, 3.0, 0.0, 3.0)
        (g,) = cr.autograd.grad(function(x), x)
        np.testing.assert_allclose(g.numpy(), [0, 1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-15)
    x = cr.asarray(np.array([[1.0, 1.0], [2.0, 0.0]]), requires_grad=True)
    (g,) = cr.autograd.grad(cr.sum(cr.max(x, axis=1)), x)
    assert g.tolist() == [[0.5, 0.5], [1.0, 0.0]]


def test_sorted_ties_keep_their_own_gradients() -> None:
    x = tensor(2.0, 1.0, 2.0)
    (g,) = cr.autograd.grad(cr.sum(cr.sort(x) * cr.asarray(np.array([1.0, 10.0, 100.0]))), x)
    assert g.tolist() == [10.0, 1.0, 100.0]


def test_nan_passes_through() -> None:
    for function in (cr.relu, cr.abs, cr.sigmoid, cr.floor, cr.sign, cr.sqrt):
        assert math.isnan(function(tensor(nan)).item())
    for function in (cr.maximum, cr.minimum, cr.add, cr.multiply):
        assert math.isnan(function(tensor(nan), tensor(1.0)).item())
        assert math.isnan(function(tensor(1.0), tensor(nan)).item())
    for function in (cr.max, cr.min, cr.sum, cr.mean, cr.prod, cr.logsumexp):
        assert math.isnan(function(tensor(1.0, nan, 3.0)).item())
    assert cr.argmax(tensor(1.0, nan, 3.0)).item() == 1  # the NaN is found, not passed over


def test_hypot_and_atan2_at_the_origin() -> None:
    assert derivatives(cr.hypot, 0.0, 0.0) == [0.0, 0.0]
    assert derivatives(cr.hypot, 3.0, 0.0) == [1.0, 0.0]
    assert all(map(math.isnan, derivatives(cr.atan2, 0.0, 0.0)))  # the origin has no angle
    assert derivatives(cr.atan2, 0.0, 2.0) == [0.5, -0.0]
    # Squares would overflow and underflow here.
    np.testing.assert_allclose(derivatives(cr.hypot, 3e200, 4e200), [0.6, 0.8], rtol=1e-15)
    np.testing.assert_allclose(derivatives(cr.atan2, 3e200, 4e200), [1.6e-201, -1.2e-201])
    np.testing.assert_allclose(derivatives(cr.atan2, 3e-200, 4e-200), [1.6e199, -1.2e199])


def test_copysign_derivative_follows_both_signs() -> None:
    for x in (2.0, -2.0):
        for y in (1.0, -1.0, 0.0, -0.0):
            expected = math.copysign(1.0, x) * math.copysign(1.0, y)
            assert derivatives(cr.copysign, x, y) == [expected, 0.0]
    assert derivatives(cr.copysign, 0.0, 1.0) == [0.0, 0.0]


def test_logaddexp_of_infinities() -> None:
    z = cr.logaddexp(tensor(-inf, -inf, inf, 1.0), tensor(-inf, 1.0, 1.0, -inf))
    assert z.tolist() == [-inf, 1.0, inf, 1.0]
    assert derivatives(cr.logaddexp, -inf, -inf) == [0.0, 0.0]  # impossible paths stay silent
    assert derivatives(cr.logaddexp, -inf, 1.0) == [0.0, 1.0]
    assert derivatives(cr.logaddexp, inf, 1.0) == [1.0, 0.0]
    assert derivatives(cr.logaddexp, inf, inf) == [0.5, 0.5]
    assert derivatives(cr.logaddexp, 1000.0, 1000.0) == [0.5, 0.5]
    assert second(lambda x: cr.logaddexp(x, cr.zeros_like(x)), 0.0) == 0.25


def test_logsumexp_of_infinities() -> None:
    def value_and_gradient(*values: float) -> tuple[float, list[float]]:
        x = tensor(*values)
        z = cr.logsumexp(x)
        return z.item(), cr.autograd.grad(z, x)[0].tolist()

    assert value_and_gradient(-inf, 0.0) == (0.0, [0.0, 1.0])
    assert value_and_gradient(1000.0, 1000.0) == (1000.0 + math.log(2), [0.5, 0.5])
    assert cr.logsumexp(tensor(-inf, -inf)).item() == -inf
    assert cr.logsumexp(tensor(inf, 1.0)).item() == inf


def test_products_with_zeros() -> None:
    x = tensor(2.0, 0.0, 3.0)
    assert cr.autograd.grad(cr.prod(x), x)[0].tolist() == [0.0, 6.0, 0.0]
    x = tensor(2.0, 0.0, 0.0)
    assert cr.autograd.grad(cr.prod(x), x)[0].tolist() == [0.0, 0.0, 0.0]
    assert cr.hessian(cr.prod)(tensor(2.0, 0.0, 0.0)).tolist() == [
        [0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 2.0, 0.0],
    ]  # fmt: skip
    x = tensor(0.0, 2.0, 0.0, 3.0)
    (g,) = cr.autograd.grad(cr.sum(cr.cumulative_prod(x)), x)
    assert g.tolist() == [3.0, 0.0, 0.0, 0.0]


def test_sigmoid_and_erf_far_out() -> None:
    x = np.array([-1000.0, -700.0, -100.0, -40.0, 40.0, 1000.0])
    np.testing.assert_allclose(
        cr.sigmoid(cr.asarray(x)).numpy(), scipy.special.expit(x), rtol=1e-15, atol=0
    )
    x32 = x.astype(np.float32)
    expected = scipy.special.expit(x32.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(cr.sigmoid(cr.asarray(x32)).numpy(), expected, rtol=3e-7, atol=1e-45)
    assert cr.erf(tensor(-30.0, 30.0, inf, -inf)).tolist() == [-1.0, 1.0, 1.0, -1.0]
    tails = np.array([2.9, 3.5, 4.5, 5.5])
    np.testing.assert_allclose(
        derivative(cr.erf, *tails), 2 / math.sqrt(math.pi) * np.exp(-(tails**2)), rtol=1e-14
    )


def test_inverse_functions_near_their_ends() -> None:
    """1 - x^2 would lose most of its digits here."""
    for x in (1 - 1e-9, -1 + 1e-12):
        both = float(1 - Fraction(x) ** 2)
        assert derivative(cr.asin, x) == [pytest.approx(1 / math.sqrt(both), rel=1e-15)]
        assert derivative(cr.acos, x) == [pytest.approx(-1 / math.sqrt(both), rel=1e-15)]
        assert derivative(cr.atanh, x) == [pytest.approx(1 / both, rel=1e-15)]
    x = 1 + 1e-9
    exact = 1 / math.sqrt(Fraction(x) ** 2 - 1)
    assert derivative(cr.acosh, x) == [pytest.approx(exact, rel=1e-15)]


def test_clip_at_its_bounds_and_outside() -> None:
    got = derivative(lambda x: cr.clip(x, -1.0, 1.0), -2.0, -1.0, 0.0, 1.0, 2.0)
    assert got == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert math.isnan(cr.clip(tensor(nan), 0.0, 1.0).item())


def test_remainder_of_either_sign() -> None:
    for x, y in ((7.5, 2.0), (-7.5, 2.0), (7.5, -2.0), (-7.5, -2.0)):
        assert derivatives(cr.remainder, x, y) == [1.0, -math.floor(x / y)]


def test_masked_branch_of_where_sends_zero_back() -> None:
    """The branch not taken has gradient 0, and its own NaN stays there."""
    x = tensor(0.0, 4.0)
    safe = cr.where(x > 0, x, cr.ones_like(x))
    (g,) = cr.autograd.grad(cr.sum(cr.where(x > 0, cr.sqrt(safe), cr.zeros_like(x))), x)
    assert g.tolist() == [0.0, 0.25]


def test_variance_and_deviation_of_equal_numbers() -> None:
    x = tensor(2.0, 2.0)
    assert cr.autograd.grad(cr.var(x), x)[0].tolist() == [0.0, 0.0]
    assert cr.std(x).item() == 0.0
    assert cr.autograd.grad(cr.std(x), x)[0].tolist() == [0.0, 0.0]
    assert math.isnan(cr.std(tensor(1.0, nan)).item())
