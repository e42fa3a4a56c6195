"""The engine: accumulation, leaves, freeing, hooks, memory, deep and wide graphs."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import ArgumentError, DTypeError, GradError, GraphFreedError, ShapeError


def leaf(*values: float) -> cr.Tensor:
    return cr.asarray(np.array(values, np.float64), requires_grad=True)


# --- leaves and accumulation ----------------------------------------------------------------------


def test_gradients_add_up_over_calls() -> None:
    x = leaf(1.0, 2.0)
    cr.sum(x * x).backward()
    first = x.grad
    cr.sum(3 * x).backward()
    assert x.grad.tolist() == [5.0, 7.0]
    assert first.tolist() == [2.0, 4.0]  # who held the old gradient keeps it
    x.grad = None
    cr.sum(x).backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_leaves_and_computed_tensors() -> None:
    x, c = leaf(1.0), cr.asarray(2.0)
    y = x * c
    assert x.is_leaf
    assert c.is_leaf
    assert not y.is_leaf
    assert (x.requires_grad, c.requires_grad, y.requires_grad) == (True, False, True)
    assert y.grad_fn.name == "mul"
    assert x.grad_fn is None
    y.backward()
    assert x.grad.tolist() == [2.0]
    assert y.grad is None
    assert c.grad is None


def test_gradient_of_a_leaf_itself() -> None:
    x = leaf(3.0)
    x.backward()
    assert x.grad.tolist() == [1.0]
    g = leaf(5.0).detach()
    x.backward(g)
    assert x.grad.tolist() == [6.0]


def test_gradients_of_two_leaves_are_two_tensors() -> None:
    """`z = x + y` sends one gradient to both; assigning to one of them must not reach the other."""
    x, y = leaf(1.0), leaf(2.0)
    (x + y).backward()
    x.grad *= 10.0
    assert y.grad.tolist() == [1.0]
    g = cr.asarray(np.array([2.0]))
    x.grad = None
    x.backward(g)
    x.grad += 1.0
    assert g.tolist() == [2.0]
    a, b = cr.autograd.grad(x + y, [x, y])
    a += 1.0
    assert b.tolist() == [1.0]


def test_diamonds_add_what_reaches_a_value_along_several_paths() -> None:
    x = leaf(2.0)
    y = x * x
    z = y * y + 3 * y + x  # x^4 + 3 x^2 + x
    z.backward()
    assert x.grad.tolist() == [4 * 8.0 + 6 * 2.0 + 1.0]


def test_a_tensor_used_twice_by_one_operation() -> None:
    x = leaf(3.0)
    (x * x).backward()
    assert x.grad.tolist() == [6.0]
    x = leaf(1.0, 2.0)
    cr.sum(cr.concat([x, x, 2 * x])).backward()
    assert x.grad.tolist() == [4.0, 4.0]


def test_several_outputs_at_once() -> None:
    x = leaf(2.0)
    a, b = x * x, 5 * x
    cr.autograd.backward([a, b], [None, cr.asarray(np.array([10.0]))])
    assert x.grad.tolist() == [4.0 + 50.0]
    a, b = x * x, 5 * x
    (g,) = cr.autograd.grad([a, b, a], x)
    assert g.tolist() == [4.0 + 5.0 + 4.0]


def test_backward_to_chosen_inputs_alone() -> None:
    x, w = leaf(2.0), leaf(3.0)
    h = x * w
    (h * h).backward(inputs=[w, h])
    assert x.grad is None
    assert w.grad.tolist() == [2 * 6.0 * 2.0]
    assert h.grad.tolist() == [12.0]
    with pytest.raises(GradError, match="does not require one"):
        (x * w).backward(inputs=[cr.asarray(1.0)])


def test_seed_of_the_walk() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(GradError, match=r"\(2,\).*reduce it to a scalar"):
        (2 * x).backward()
    with pytest.raises(ShapeError, match=r"\(3,\).*\(2,\)"):
        (2 * x).backward(cr.ones((3,)))
    (x + x).backward(cr.ones((2,)))  # float32 is cast
    assert x.grad.dtype == cr.float64
    (2 * x).backward(np.array([1.0, 10.0]))
    assert x.grad.tolist() == [4.0, 22.0]
    (x[:1] * 2).backward()  # one element is as good as none
    with pytest.raises(GradError, match="nothing to walk back"):
        cr.asarray(1.0).backward()
    with pytest.raises(ArgumentError, match="as many gradients"):
        cr.autograd.grad([2 * x, 3 * x], x, [cr.ones((2,))])
    (g,) = cr.autograd.grad(2 * x, x, np.array([1.0, 0.0]))
    assert g.tolist() == [2.0, 0.0]


def test_integers_have_no_gradients() -> None:
    with pytest.raises(DTypeError, match="int64"):
        cr.asarray(1, requires_grad=True)
    x = leaf(1.5, 2.5)
    assert not x.astype(cr.int64).requires_grad
    assert not (x > 2).requires_grad
    assert not cr.argmax(x).requires_grad
    rounded = x.astype(cr.int32).astype(cr.float64)
    assert not rounded.requires_grad
    cr.sum(x[cr.asarray([0, 0])]).backward()
    assert x.grad.tolist() == [2.0, 0.0]


def test_constants_and_unused_inputs() -> None:
    x, unused = leaf(2.0), leaf(1.0)
    y = x * x
    with pytest.raises(GradError, match=r"inputs\[1\]"):
        cr.autograd.grad(y, [x, unused], retain_graph=True)
    g, nothing = cr.autograd.grad(y, [x, unused], allow_unused=True)
    assert g.tolist() == [4.0]
    assert nothing is None
    with pytest.raises(GradError, match="does not require one"):
        cr.autograd.grad(x * x, cr.asarray(1.0))
    assert x.grad is None  # grad leaves .grad alone


def test_gradient_by_a_computed_tensor() -> None:
    x = leaf(2.0)
    y = x * x
    z = y * y
    (g,) = cr.autograd.grad(z, y)
    assert g.tolist() == [8.0]
    (same,) = cr.autograd.grad(y, y)
    assert same.tolist() == [1.0]


def test_steps_send_zeros() -> None:
    x = leaf(1.2)
    cr.floor(x).backward()
    assert x.grad.tolist() == [0.0]


# --- freeing and keeping --------------------------------------------------------------------------


def test_second_walk_of_a_freed_graph_is_an_error() -> None:
    x = leaf(2.0)
    y = x * x
    y.backward()
    for again in (y.backward, lambda: cr.autograd.grad(y, x), lambda: (y + 1).backward()):
        with pytest.raises(GraphFreedError, match="retain_graph=True"):
            again()
    assert x.grad.tolist() == [4.0]


def test_second_walk_after_autograd_grad_is_an_error() -> None:
    x = leaf(2.0)
    y = cr.exp(x)
    cr.autograd.grad(y, x)
    with pytest.raises(GraphFreedError):
        y.backward()


def test_a_shared_part_is_freed_by_the_first_walk() -> None:
    x = leaf(2.0)
    h = x * x
    first, second = 2 * h, 3 * h
    first.backward()
    with pytest.raises(GraphFreedError, match="mul"):
        second.backward()


def test_retained_graphs_can_be_walked_again() -> None:
    x = leaf(2.0)
    y = x * x * x
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [36.0]
    with pytest.raises(GraphFreedError):
        y.backward()


def test_create_graph_retains_by_itself() -> None:
    x = leaf(2.0)
    y = x * x * x
    (g,) = cr.autograd.grad(y, x, create_graph=True)
    assert g.requires_grad
    (h,) = cr.autograd.grad(g, x, create_graph=True)
    (third,) = cr.autograd.grad(h, x)
    assert (g.item(), h.item(), third.item()) == (12.0, 12.0, 6.0)
    y = x * x
    y.backward(create_graph=True)
    assert x.grad.requires_grad
    (second,) = cr.autograd.grad(x.grad, x)
    assert second.tolist() == [2.0]
    assert not cr.autograd.grad(x * x, x)[0].requires_grad


def test_gradient_penalty_reaches_the_parameters() -> None:
    """The derivative of |dy/dx|^2 by w, where y = tanh(w x)."""
    x, w = leaf(0.7), leaf(1.3)
    y = cr.tanh(w * x)
    (g,) = cr.autograd.grad(y, x, create_graph=True)
    cr.sum(g * g).backward()
    t = np.tanh(1.3 * 0.7)
    slope = 1 - t * t
    expected = 2 * (1.3 * slope) * (slope + 1.3 * (-2 * t * slope * 0.7))
    np.testing.assert_allclose(w.grad.numpy(), [expected], rtol=1e-14)


def test_what_was_saved_is_let_go_by_the_walk() -> None:
    x = leaf(*range(5))
    h = cr.exp(x)
    saved = weakref.ref(h._array)
    y = cr.sum(h)
    del h
    assert saved() is not None  # exp keeps its output for the derivative
    y.backward()
    assert saved() is None


def test_unread_values_are_not_kept() -> None:
    x = leaf(*range(5))
    h = x + 1.0
    array = weakref.ref(h._array)
    z = h - 2.0
    del h
    assert array() is None  # subtraction reads neither input
    assert z.requires_grad


def test_retain_grad_of_a_computed_tensor() -> None:
    x = leaf(3.0)
    y = x * x
    y.retain_grad()
    (2 * y).backward()
    assert y.grad.tolist() == [2.0]
    with pytest.raises(GradError):
        cr.asarray(1.0).retain_grad()
    x.retain_grad()  # a leaf has its gradient kept already
    (x * x).backward()


# --- hooks ----------------------------------------------------------------------------------------


def test_hooks_see_and_replace_gradients() -> None:
    x = leaf(2.0)
    seen: list[float] = []
    y = x * x
    y.register_hook(lambda g: seen.append(g.item()))
    y.register_hook(lambda g: 10 * g)
    y.register_hook(lambda g: seen.append(g.item()))
    (3 * y).backward()
    assert seen == [3.0, 30.0]
    assert x.grad.tolist() == [120.0]


def test_hooks_of_leaves_see_the_whole_gradient() -> None:
    x = leaf(2.0)
    seen: list[float] = []
    handle = x.register_hook(lambda g: seen.append(g.item()))
    (x * x + x).backward()
    assert seen == [5.0]
    handle.remove()
    handle.remove()
    (x * x).backward()
    assert seen == [5.0]
    with x.register_hook(lambda g: 0 * g):
        x.grad = None
        (x * x).backward()
    assert x.grad.tolist() == [0.0]
    x.grad = None
    (x * x).backward()
    assert x.grad.tolist() == [4.0]


def test_hook_may_remove_itself() -> None:
    x = leaf(2.0)
    y = x * x
    seen: list[str] = []
    first = y.register_hook(lambda g: (seen.append("first"), first.remove())[0])
    y.register_hook(lambda g: seen.append("second"))
    y.backward(retain_graph=True)
    y.backward()
    assert seen == ["first", "second", "second"]


def test_a_hook_cannot_spoil_the_gradient_of_another_path() -> None:
    x, w = leaf(1.0), leaf(1.0)
    y = x * 1.0

    def assign(g: Any) -> None:
        g *= 100.0

    y.register_hook(assign)
    (y + w).backward()
    assert w.grad.tolist() == [1.0]
    assert x.grad.tolist() == [1.0]


def test_hook_must_keep_the_shape() -> None:
    x = leaf(1.0, 2.0)
    x.register_hook(cr.sum)
    with pytest.raises(ShapeError, match="hook"):
        cr.sum(x).backward()
    with pytest.raises(GradError):
        cr.asarray(1.0).register_hook(print)


def test_hook_and_retained_gradient_meet() -> None:
    x = leaf(2.0)
    y = x * x
    y.retain_grad()
    y.register_hook(lambda g: 7 * g)
    y.backward()
    assert y.grad.tolist() == [7.0]
    assert x.grad.tolist() == [28.0]


# --- memory and depth -----------------------------------------------------------------------------

DEEP = 100_000


class Shift(cr.autograd.Function):
    """x + 1, saving input and output."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = x + 1.0
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, y = ctx.saved_tensors
        return g * (y - x)


def test_deep_graphs_are_walked_and_freed() -> None:
    x = cr.asarray(0.0, requires_grad=True)
    y = x
    for _ in range(DEEP):
        y = y + x
    y.backward()
    assert x.grad.item() == DEEP + 1
    del y
    y = x
    for _ in range(DEEP):
        y = y * 1.0
    del y  # freed without a walk: the chain of nodes must not be freed by recursion


def test_deep_graphs_of_functions_are_walked_and_freed() -> None:
    y = x = cr.asarray(0.0, requires_grad=True)
    for _ in range(DEEP // 4):
        y = Shift.apply(y)
    y.backward()
    assert x.grad.item() == 1.0
    del y
    y = x
    for _ in range(DEEP // 4):
        y = Shift.apply(y)
    del y


def test_deep_second_derivative() -> None:
    x = cr.asarray(1.0, requires_grad=True)
    y = x
    for _ in range(DEEP // 20):
        y = y * 1.0
    (g,) = cr.autograd.grad(y * y, x, create_graph=True)
    (h,) = cr.autograd.grad(g, x)
    assert h.item() == 2.0
    del y, g


def everything() -> list[weakref.ref[Any]]:
    """Graphs of every kind, walked and abandoned; returns weak references to their arrays."""
    x = cr.asarray(np.ones((3, 4)), requires_grad=True)
    y = Shift.apply(cr.exp(x) * x)
    z = cr.logsumexp(y) + cr.sum(x[0])
    z.register_hook(lambda g: None)
    y.retain_grad()
    arrays = [weakref.ref(t._array) for t in (y, z)]
    z.backward()
    abandoned = cr.tanh(Shift.apply(x))
    arrays.append(weakref.ref(abandoned._array))
    f = lambda t: cr.sum(t**3)  # noqa: E731
    cr.grad(f)(x)
    cr.hessian(f)(cr.asarray([1.0, 2.0]))
    cr.jvp(cr.grad(f), (x,), (x.detach(),))
    _, pull = cr.vjp(lambda t: t * t, x)
    pull(x.detach())
    (g,) = cr.autograd.grad(cr.sum(cr.exp(x)), x, create_graph=True)
    cr.sum(g).backward()
    with pytest.raises(GraphFreedError):
        z.backward()
    with pytest.raises(ShapeError):
        cr.matmul(x, x)
    return arrays


def test_reference_counting_alone_frees_everything() -> None:
    everything()
    gc.collect()
    gc.disable()
    try:
        arrays = everything()
        assert [a() for a in arrays] == [None, None, None]
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_leaf_that_is_gone_needs_no_gradient() -> None:
    x = leaf(1.0)
    y = x * 2
    del x
    y.backward()  # nobody is left to receive it


def test_wide_graphs() -> None:
    x = leaf(1.0)
    cr.sum(cr.concat([i * x for i in range(2000)])).backward()
    assert x.grad.tolist() == [sum(range(2000))]
