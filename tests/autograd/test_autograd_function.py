"""Functions of one's own: what forward leaves, what backward gets and may return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.autograd import Function, gradcheck, gradgradcheck
from chainrule.errors import GradError, GraphFreedError, ShapeError


def leaf(*values: float) -> cr.Tensor:
    return cr.asarray(np.array(values, np.float64), requires_grad=True)


class Multiply(Function):
    """x y"""

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any) -> Any:
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, y = ctx.saved_tensors
        return y * g, x * g


class Exp(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        z = cr.exp(x)
        ctx.save_for_backward(z)
        return z

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (z,) = ctx.saved_tensors
        return g * z


class SinCos(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        s, c = cr.sin(x), cr.cos(x)
        ctx.save_for_backward(s, c)
        return s, c

    @staticmethod
    def backward(ctx: Any, gs: Any, gc: Any) -> Any:
        s, c = ctx.saved_tensors
        return gs * c - gc * s


def test_derivatives_of_all_orders() -> None:
    x, y = leaf(1.5, -2.0), leaf(0.5, 3.0)
    assert gradcheck(Multiply.apply, (x, y))
    assert gradgradcheck(Multiply.apply, (x, y))
    for function in (Exp.apply, SinCos.apply, lambda x: Multiply.apply(x, x)):
        assert gradcheck(function, x)
        assert gradgradcheck(function, x)
    third = cr.grad(cr.grad(cr.grad(lambda x: Exp.apply(2.0 * x))))
    np.testing.assert_allclose(third(np.float64(0.3)).item(), 8 * np.exp(0.6), rtol=1e-14)
    third = cr.grad(cr.grad(cr.grad(lambda x: SinCos.apply(x)[0] * SinCos.apply(x)[1])))
    np.testing.assert_allclose(third(np.float64(0.3)).item(), -4 * np.cos(0.6), rtol=1e-14)


def test_an_output_that_was_saved_leads_back_to_the_input() -> None:
    """e^x is its own derivative only if the saved output knows where it came from."""
    x = leaf(0.5)
    (g,) = cr.autograd.grad(Exp.apply(x), x, create_graph=True)
    (h,) = cr.autograd.grad(g, x)
    np.testing.assert_allclose(h.numpy(), np.exp([0.5]), rtol=1e-15)


def test_one_used_output_of_two() -> None:
    x = leaf(0.5)
    s, _ = SinCos.apply(x)
    s.backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos([0.5]), rtol=1e-15)


def test_second_use_of_a_freed_function() -> None:
    x = leaf(2.0)
    z = Multiply.apply(x, x)
    z.backward()
    with pytest.raises(GraphFreedError, match=r"Multiply.*retain_graph=True"):
        z.backward()


def test_saved_tensors_of_a_kept_context_after_freeing() -> None:
    kept = []

    class Keep(Exp):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            kept.append(ctx)
            return Exp.forward(ctx, x)

    x = leaf(1.0)
    Keep.apply(x).backward()
    with pytest.raises(GraphFreedError, match="freed"):
        _ = kept[0].saved_tensors


def test_saved_values_are_those_at_the_time_of_saving() -> None:
    class Spoiled(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = 1.0 * x
            ctx.save_for_backward(y)
            y += 100.0
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (y,) = ctx.saved_tensors
            y *= 1.0  # what backward assigns to is its own
            return g * y

    x = leaf(3.0)
    z = Spoiled.apply(x)
    with cr.no_grad():
        x += 50.0
    z.backward(retain_graph=True)
    z.backward()
    assert x.grad.tolist() == [6.0]


def test_backward_cannot_spoil_the_gradient_of_another_path() -> None:
    class Scale(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return 2.0 * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            g *= 2.0
            return g

    x, w = leaf(1.0), leaf(1.0)
    (Scale.apply(x) + w).backward()
    assert (x.grad.item(), w.grad.item()) == (2.0, 1.0)


def test_needs_input_grad_and_arguments_that_are_no_tensors() -> None:
    seen: list[Any] = []

    class Power(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, n: int, c: Any, *, shift: float = 0.0) -> Any:
            ctx.n = n
            ctx.save_for_backward(x, None, c)
            return x**n + c + shift

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            x, nothing, _ = ctx.saved_tensors
            seen.append((ctx.needs_input_grad, nothing))
            return g * ctx.n * x ** (ctx.n - 1), None, None

    x = leaf(3.0)
    z = Power.apply(x, 2, cr.asarray(1.0), shift=10.0)
    assert z.item() == 20.0
    z.backward()
    assert x.grad.tolist() == [6.0]
    assert seen == [((True, False, False), None)]


def test_none_is_no_gradient() -> None:
    class First(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            return x + y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g, None, None  # more of nothing is nothing

    x, y = leaf(1.0), leaf(2.0)
    First.apply(x, y).backward()
    assert x.grad.tolist() == [1.0]
    assert y.grad is None


def function_returning(*gradients: Any) -> type[Function]:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return 2.0 * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return tuple(gradients)

    return Wrong


@pytest.mark.parametrize(
    ("gradients", "error", "words"),
    [
        ((), GradError, r"0 gradient\(s\).*takes 1"),
        ((cr.ones((2,)), cr.ones((2,))), GradError, r"2 gradient\(s\).*takes 1"),
        ((cr.ones((3,)),), ShapeError, r"\(3,\).*\(2,\)"),
        ((cr.ones(()),), ShapeError, r"\(\).*\(2,\)"),
        ((1.0,), GradError, "float"),
        ((np.ones(2),), GradError, "ndarray"),
    ],
)
def test_wrong_gradients_are_refused(gradients: Any, error: Any, words: str) -> None:
    z = function_returning(*gradients).apply(leaf(1.0, 2.0))
    with pytest.raises(error, match=words):
        cr.sum(z).backward()


def test_gradients_are_cast_to_the_inputs_dtype() -> None:
    x = cr.asarray([1.0, 2.0], requires_grad=True)
    z = function_returning(cr.ones((2,), dtype=cr.float64)).apply(x)
    cr.sum(z).backward()
    assert x.grad.dtype == cr.float32


def test_non_differentiable_outputs() -> None:
    class TopTwo(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            order = cr.argsort(x, descending=True)[:2]
            ranks = order.astype(cr.float64)
            ctx.mark_non_differentiable(ranks)
            ctx.save_for_backward(order, ranks)
            ctx.n = x.size
            return cr.take(x, order), order, ranks

        @staticmethod
        def backward(ctx: Any, g: Any, g_order: Any, g_ranks: Any) -> Any:
            order, ranks = ctx.saved_tensors
            assert not ranks.requires_grad
            assert g_order.dtype == order.dtype
            return cr.scatter_add(cr.zeros((ctx.n,), dtype=cr.float64), order, g)

    x = leaf(1.0, 5.0, 3.0)
    values, order, ranks = TopTwo.apply(x)
    assert (values.requires_grad, order.requires_grad, ranks.requires_grad) == (True, False, False)
    cr.sum(values * cr.asarray(np.array([1.0, 10.0]))).backward()
    assert x.grad.tolist() == [0.0, 1.0, 10.0]


def test_input_handed_on_as_output() -> None:
    """The output is a value of its own, and the saved input stays an input."""

    class Reverse(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return -g * x * x

    x = leaf(3.0)
    z = Reverse.apply(x)
    assert z is not x
    (g,) = cr.autograd.grad(z, x, create_graph=True)
    assert g.tolist() == [-9.0]
    assert cr.autograd.grad(g, x)[0].tolist() == [-6.0]


def test_setup_context_beside_forward() -> None:
    class Square(Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return x * x

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs, output)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            x, z = ctx.saved_tensors
            return g * 2.0 * z / x

    assert gradcheck(Square.apply, leaf(1.5, -2.0))
    assert gradgradcheck(Square.apply, leaf(1.5, -2.0))


def test_nothing_is_recorded_without_need() -> None:
    x, c = leaf(1.0), cr.asarray(2.0)
    assert not Exp.apply(c).requires_grad
    with cr.no_grad():
        assert not Exp.apply(x).requires_grad
    assert Exp.apply(x).requires_grad


def test_forward_runs_without_recording() -> None:
    class Peek(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            assert not cr.is_grad_enabled()
            assert not (x * 2).requires_grad
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * g

    Peek.apply(leaf(1.0)).backward()


def test_tensors_that_need_gradients_do_not_hide_among_keywords() -> None:
    with pytest.raises(GradError, match=r"y=.*by position"):
        Multiply.apply(leaf(1.0), y=leaf(2.0))


def test_what_save_and_forward_take() -> None:
    class SavesNumber(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x, 3.0)
            return x

    class ReturnsNumber(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return 3.0

    with pytest.raises(GradError, match=r"float.*ctx\.name"):
        SavesNumber.apply(leaf(1.0))
    with pytest.raises(GradError, match="float"):
        ReturnsNumber.apply(leaf(1.0))
    with pytest.raises(NotImplementedError):
        Function.apply(leaf(1.0))


def test_functions_work_inside_transforms() -> None:
    f = lambda x: cr.sum(Multiply.apply(x, cr.sin(x)))  # noqa: E731
    plain = lambda x: cr.sum(x * cr.sin(x))  # noqa: E731
    x = np.array([0.3, 1.2])
    for transform in (cr.grad, cr.hessian):
        np.testing.assert_allclose(transform(f)(x).numpy(), transform(plain)(x).numpy(), rtol=1e-14)
    v = np.array([1.0, -2.0])
    for got, expected in zip(cr.jvp(f, (x,), (v,)), cr.jvp(plain, (x,), (v,)), strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-14)
