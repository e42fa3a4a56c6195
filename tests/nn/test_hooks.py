"""Hooks of modules: what they see, what they may change, in which order they run."""

import copy

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, ArgumentTypeError


class Double(nn.Module):
    def forward(self, x, factor=2.0):
        return x * factor


def test_forward_hooks_see_and_replace():
    layer, seen = Double(), []
    layer.register_forward_pre_hook(lambda m, args: seen.append(("pre", args[0].item())))
    layer.register_forward_hook(lambda m, args, y: seen.append(("post", args[0].item(), y.item())))
    assert layer(cr.asarray(3.0)).item() == 6
    assert seen == [("pre", 3.0), ("post", 3.0, 6.0)]
    with layer.register_forward_pre_hook(lambda m, args: args[0] + 1):
        assert layer(cr.asarray(3.0)).item() == 8
    with layer.register_forward_hook(lambda m, args, y: -y):
        assert layer(cr.asarray(3.0)).item() == -6
    assert layer(cr.asarray(3.0)).item() == 6


def test_hooks_run_in_order_and_may_be_put_first():
    layer, seen = Double(), []
    layer.register_forward_hook(lambda m, a, y: seen.append("a"))
    handle = layer.register_forward_hook(lambda m, a, y: seen.append("b"))
    layer.register_forward_hook(lambda m, a, y: seen.append("c"), prepend=True)
    layer.register_forward_pre_hook(lambda m, a: seen.append("x"))
    layer.register_forward_pre_hook(lambda m, a: seen.append("y"), prepend=True)
    layer(cr.asarray(1.0))
    assert seen == ["y", "x", "c", "a", "b"]
    handle.remove()
    handle.remove()
    seen.clear()
    layer(cr.asarray(1.0))
    assert seen == ["y", "x", "c", "a"]


def test_hooks_with_keywords():
    layer = Double()

    def pre(module, args, kwargs):
        return args, {**kwargs, "factor": kwargs["factor"] + 1}

    def post(module, args, kwargs, y):
        return y + kwargs["factor"]

    layer.register_forward_pre_hook(pre, with_kwargs=True)
    layer.register_forward_hook(post, with_kwargs=True)
    assert layer(cr.asarray(2.0), factor=3.0).item() == 2 * 4 + 4
    layer.register_forward_pre_hook(lambda m, a, k: 5, with_kwargs=True)
    with pytest.raises(ArgumentTypeError, match=r"\(args, kwargs\)"):
        layer(cr.asarray(2.0), factor=3.0)


def test_always_call():
    layer, seen = nn.Linear(2, 2), []
    layer.register_forward_hook(lambda m, a, y: seen.append("only after success"))
    layer.register_forward_hook(lambda m, a, y: seen.append(y), always_call=True)
    with pytest.raises(ValueError):
        layer(cr.ones((2, 3)))
    assert seen == [None]


def test_full_backward_hooks_see_the_gradients():
    cr.manual_seed(0)
    layer, seen = nn.Linear(3, 2), []
    x = cr.random.normal((4, 3)).requires_grad_()
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((m, gi, go)))
    y = layer(x)
    upstream = cr.random.normal((4, 2))
    y.backward(upstream)
    ((module, grad_input, grad_output),) = seen
    assert module is layer
    np.testing.assert_array_equal(grad_output[0], upstream)
    np.testing.assert_allclose(
        grad_input[0], np.asarray(upstream) @ np.asarray(layer.weight.detach())
    )
    np.testing.assert_array_equal(grad_input[0], x.grad)
    np.testing.assert_allclose(
        layer.weight.grad, np.asarray(upstream).T @ np.asarray(x.detach()), rtol=1e-5
    )


def test_full_backward_hooks_replace():
    layer = Double()
    x = cr.asarray([1.0, 2.0], requires_grad=True)
    with layer.register_full_backward_hook(lambda m, gi, go: (gi[0] * 10,)):
        layer(x).sum().backward()
    assert x.grad.tolist() == [20, 20]
    x.grad = None
    with layer.register_full_backward_pre_hook(lambda m, go: (go[0] * 5,)):
        layer(x).sum().backward()
    assert x.grad.tolist() == [10, 10]
    x.grad = None
    layer(x).sum().backward()
    assert x.grad.tolist() == [2, 2]
    layer.register_full_backward_hook(lambda m, gi, go: (None, None))
    with pytest.raises(ArgumentError, match=r"returned 2 gradient.*has 1"):
        layer(x).sum().backward()


def test_backward_hooks_of_several_inputs_and_outputs():
    class Two(nn.Module):
        def forward(self, x, y, flag, z):
            return x * y, flag, x + z

    layer, seen = Two(), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    x, y = cr.asarray(2.0, requires_grad=True), cr.asarray(3.0, requires_grad=True)
    product, flag, total = layer(x, y, "text", cr.asarray(1.0))
    assert flag == "text"
    (product * 2 + total * 5).backward()
    ((grad_input, grad_output),) = seen
    assert [None if g is None else g.item() for g in grad_input] == [2 * 3 + 5, 2 * 2, None, None]
    assert [None if g is None else g.item() for g in grad_output] == [2, None, 5]
    assert (x.grad.item(), y.grad.item()) == (11, 4)


def test_backward_hook_where_no_input_needs_a_gradient():
    layer, seen = nn.Linear(2, 1), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].tolist())))
    layer(cr.ones((1, 2))).sum().backward()
    assert seen == [((None,), [[1.0]])]
    assert layer.weight.grad is not None


def test_backward_hooks_leave_second_derivatives_right():
    layer, seen = nn.Module(), []
    layer.forward = lambda x: x**3
    layer.register_full_backward_hook(lambda m, gi, go: seen.append(gi[0].item()))
    x = cr.asarray(2.0, requires_grad=True)
    (first,) = cr.autograd.grad(layer(x), x, create_graph=True)
    assert first.item() == 12
    (second,) = cr.autograd.grad(first, x)
    assert second.item() == 12
    assert seen == [12]


def test_nothing_is_called_without_gradients_and_copies_have_hooks_of_their_own():
    layer, seen = Double(), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append("back"))
    with cr.no_grad():
        layer(cr.asarray(1.0, requires_grad=True))
    assert not seen
    handle = layer.register_forward_hook(lambda m, a, y: y + 1)
    twin = copy.deepcopy(layer)
    handle.remove()
    assert layer(cr.asarray(1.0)).item() == 2
    assert twin(cr.asarray(1.0)).item() == 3
