"""gradcheck and gradgradcheck catch rules that are wrong, and say where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.autograd import Function, gradcheck, gradgradcheck
from chainrule.errors import ArgumentError, GradError


def leaf(*values: float) -> cr.Tensor:
    return cr.asarray(np.array(values, np.float64), requires_grad=True)


def with_derivative(rule: Any, forward: Any = lambda x: x**3) -> Any:
    """x^3 with a derivative of one's own, a function of x."""

    class Custom(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * rule(ctx.saved_tensors[0])

    return Custom.apply


X = (0.5, -1.5, 2.0)


def test_right_rules_pass() -> None:
    right = with_derivative(lambda x: 3 * x * x)
    assert gradcheck(right, leaf(*X))
    assert gradgradcheck(right, leaf(*X))


@pytest.mark.parametrize(
    "rule",
    [
        lambda x: -3 * x * x,
        lambda x: 3 * x,
        lambda x: 3 * x * x + 0.01,
        lambda x: 3.01 * x * x,
        lambda x: cr.zeros_like(x),
        lambda x: x * cr.asarray(np.nan),
    ],
)
def test_wrong_first_derivatives_are_caught(rule: Any) -> None:
    wrong = with_derivative(rule)
    with pytest.raises(GradError, match="central difference"):
        gradcheck(wrong, leaf(*X))
    assert not gradcheck(wrong, leaf(*X), raise_exception=False)


def test_wrong_second_derivatives_are_caught() -> None:
    # The first derivative has the right value, but part of it is cut off from the graph.
    missing = with_derivative(lambda x: 3 * x * x.detach())
    assert gradcheck(missing, leaf(*X))
    with pytest.raises(GradError, match="central difference"):
        gradgradcheck(missing, leaf(*X))
    assert not gradgradcheck(missing, leaf(*X), raise_exception=False)


def test_a_derivative_by_the_upstream_gradient_that_is_wrong_is_caught() -> None:
    class Forgets(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return 2.0 * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 2.0 * g.detach()

    assert gradcheck(Forgets.apply, leaf(*X))
    with pytest.raises(GradError):
        gradgradcheck(Forgets.apply, leaf(*X))


def test_a_missing_cross_term_is_caught() -> None:
    class Product(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            x, _ = ctx.saved_tensors
            return None, g * x

    with pytest.raises(GradError, match="input 0"):
        gradcheck(Product.apply, (leaf(1.0, 2.0), leaf(3.0, 4.0)))


def test_one_wrong_output_of_two_is_caught() -> None:
    wrong = with_derivative(lambda x: 3 * x)
    with pytest.raises(GradError, match=r"output 1 by input 0.*element 2 by element 2"):
        gradcheck(lambda x: (x * x, wrong(x)), leaf(1.0, 1.0, 2.0))


def test_elements_that_should_not_mix_are_told_apart() -> None:
    swapped = with_derivative(lambda x: cr.flip(3 * x * x))
    with pytest.raises(GradError):
        gradcheck(swapped, leaf(*X))


def test_inputs_of_any_layout_are_moved() -> None:
    """A transposed input is moved element by element too."""
    x = cr.asarray(np.arange(6.0).reshape(2, 3).T, requires_grad=True)
    assert gradcheck(lambda x: x * x, x)
    wrong = with_derivative(lambda x: 3 * x)
    assert not gradcheck(wrong, x, raise_exception=False)


def test_inputs_without_gradients_are_left_alone() -> None:
    index = cr.asarray([2, 0, 0])
    assert gradcheck(lambda x, i, s: x[i] * s, (leaf(*X), index, 3.0))
    assert gradgradcheck(lambda x, i, s: x[i] ** 2 * s, (leaf(*X), index, 3.0))


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(ArgumentError, match="float64"):
        gradcheck(cr.exp, cr.asarray([1.0], requires_grad=True))
    with pytest.raises(ArgumentError, match="requires_grad=True"):
        gradcheck(cr.exp, cr.asarray(np.ones(1)))
    with pytest.raises(ArgumentError, match="floating-point"):
        gradcheck(lambda x: cr.argmax(x), leaf(*X))
    with pytest.raises(ArgumentError, match="floating-point"):
        gradcheck(lambda x: 1.0, leaf(*X))


def test_it_checks_inside_no_grad_too() -> None:
    with cr.no_grad():
        assert gradcheck(cr.exp, leaf(*X))
        assert gradgradcheck(cr.exp, leaf(*X))
        assert not gradcheck(with_derivative(lambda x: x), leaf(*X), raise_exception=False)


def test_it_leaves_its_inputs_as_they_were() -> None:
    x = leaf(*X)
    gradcheck(lambda x: x * x, x)
    gradgradcheck(lambda x: x * x, x)
    assert x.grad is None
    assert x.tolist() == list(X)


def test_zero_size_and_constant_functions() -> None:
    assert gradcheck(cr.exp, leaf())
    assert gradgradcheck(cr.exp, leaf())
    assert gradcheck(lambda x: cr.floor(x), leaf(0.5))
    assert gradcheck(lambda x: cr.ones((2,), dtype=cr.float64), leaf(0.5))


def test_given_upstream_gradients() -> None:
    x = leaf(*X)
    assert gradgradcheck(lambda x: x**3, x, cr.asarray(np.array([1.0, 2.0, 3.0])))
    assert gradgradcheck(lambda x: (x**3, x), x, [x.detach(), x.detach()])
