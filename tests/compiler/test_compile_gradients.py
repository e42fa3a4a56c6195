"""Gradients through compiled calls: the derivative is compiled too, and is the eager one."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import GraphFreedError

compiled = cr.compile


@pytest.fixture(autouse=True, params=["numpy", "native"])
def backend(request, monkeypatch):
    monkeypatch.setattr(
        sys.modules[__name__], "compiled", functools.partial(cr.compile, backend=request.param)
    )


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def leaf(array):
    return cr.asarray(array, requires_grad=True)


def function(x, w):
    return cr.sum(cr.tanh(x @ w) ** 2, axis=1)


def test_backward_outside():
    f = compiled(function)
    for seed in range(3):
        grads = []
        for g in (f, function):
            x, w = leaf(normal(3, 4, seed=seed)), leaf(normal(4, 2, seed=9))
            y = g(x, w)
            assert y.requires_grad
            assert not y.is_leaf
            y.sum().backward()
            grads.append((x.grad.numpy(), w.grad.numpy()))
        for a, b in zip(*grads, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    assert f.traces == 1


def test_under_no_grad_nothing_is_saved():
    f = compiled(function)
    x, w = leaf(normal(3, 4)), leaf(normal(4, 2))
    with cr.no_grad():
        assert not f(x, w).requires_grad
    assert f(x, w).requires_grad
    assert f.traces == 2
    assert len(f.versions[0].graph.outputs) != len(f.versions[1].graph.outputs)


def test_the_chain_goes_on_on_both_sides():
    f = compiled(lambda h: cr.sin(h) * 2)
    for wrap in (f, f.function):
        x = leaf(normal(5))
        y = cr.exp(wrap(x * 3))
        y.sum().backward()
        result = x.grad.numpy()
        if wrap is f:
            got = result
    np.testing.assert_allclose(got, result, rtol=1e-12)


def test_several_outputs_of_which_some_are_used():
    f = compiled(lambda x, w: {"a": x * w, "b": [cr.sum(x), cr.asarray([1.0])], "n": cr.argmax(x)})
    x, w = leaf(normal(3)), leaf(normal(3, seed=1))
    out = f(x, w)
    assert not out["n"].requires_grad
    assert not out["b"][1].requires_grad
    (out["a"] * 2).sum().backward(retain_graph=True)
    np.testing.assert_allclose(x.grad.numpy(), 2 * w.detach().numpy())
    x.grad = None
    (out["a"].sum() + out["b"][0]).backward()
    np.testing.assert_allclose(x.grad.numpy(), w.detach().numpy() + 1)
    with pytest.raises(GraphFreedError):
        out["a"].sum().backward()


def test_only_one_input_needs_a_gradient():
    f = compiled(function)
    x, w = cr.asarray(normal(3, 4)), leaf(normal(4, 2))
    f(x, w).sum().backward()
    assert x.grad is None
    assert w.grad.shape == (4, 2)
    (g,) = cr.autograd.grad(f(leaf(normal(3, 4)), w).sum(), w)
    np.testing.assert_allclose(g.numpy(), w.grad.numpy(), rtol=1e-12)


def test_transforms_and_higher_derivatives():
    f = compiled(lambda x: cr.sum(cr.tanh(x) ** 3))
    x = cr.asarray(normal(4))
    np.testing.assert_allclose(cr.grad(f)(x).numpy(), cr.grad(f.function)(x).numpy(), rtol=1e-12)
    np.testing.assert_allclose(
        cr.hessian(f)(x).numpy(), cr.hessian(f.function)(x).numpy(), rtol=1e-11, atol=1e-13
    )
    third = lambda g: cr.grad(lambda x: cr.sum(cr.grad(lambda x: cr.sum(cr.grad(g)(x)))(x)))  # noqa: E731
    np.testing.assert_allclose(third(f)(x).numpy(), third(f.function)(x).numpy(), rtol=1e-10)
    assert cr.autograd.gradcheck(f, leaf(normal(4)))
    assert cr.autograd.gradgradcheck(f, leaf(normal(4)))


def test_transforms_inside():
    f = compiled(lambda x: cr.grad(lambda x: cr.sum(cr.sin(x) * cr.grad(lambda y: y**3)(2.0)))(x))
    x = cr.asarray(normal(4))
    np.testing.assert_allclose(f(x).numpy(), 12 * np.cos(x.numpy()), rtol=1e-12)
    g = compiled(lambda x: cr.jvp(cr.sin, (x,), (x,))[1])
    np.testing.assert_allclose(g(x).numpy(), np.cos(x.numpy()) * x.numpy(), rtol=1e-12)


def test_models_are_trained_with_the_step_outside():
    def build():
        cr.manual_seed(0)
        # No bias before the norm: its gradient is rounding alone, which Adam would magnify.
        model = nn.Sequential(
            nn.Linear(4, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.Dropout(0.3),
            nn.ReLU(),
            nn.Linear(8, 2),
        ).double()
        return model, optim.Adam(model.parameters(), lr=0.05)

    (model, opt), (twin, other) = build(), build()
    f = compiled(model)
    x, y = cr.asarray(normal(6, 4)), cr.asarray(np.array([0, 1, 1, 0, 1, 0]))
    for step in range(4):
        losses = []
        for forward, o in ((f, opt), (twin, other)):
            cr.manual_seed(step)
            o.zero_grad()
            loss = nn.functional.cross_entropy(forward(x), y)
            loss.backward()
            o.step()
            losses.append(float(loss))
        assert losses[0] == pytest.approx(losses[1], rel=1e-11)
    for p, q in zip(model.buffers(), twin.buffers(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-11)
    assert f.traces == 1


def test_what_backward_needs_stays_while_state_moves_on():
    w = leaf(normal(4, 2))
    f = compiled(function)

    @compiled
    def move():
        with cr.no_grad():
            w.copy_(w * 0)

    x = leaf(normal(3, 4))
    function(x, w).sum().backward()
    expected, x.grad = x.grad.numpy(), None
    move()
    with cr.no_grad():
        w.copy_(cr.asarray(normal(4, 2)))
    y = f(x, w).sum()
    move()
    move()
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12)


def test_a_state_that_the_call_itself_moves():
    w = leaf(normal(3))

    @compiled
    def f(x):
        y = cr.sum(w * w * x)
        with cr.no_grad():
            w.copy_(w * 2)
        return y

    before = np.array(w.detach().numpy())
    x = leaf(normal(3, seed=1))
    f(x).backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * before * x.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), before**2, rtol=1e-12)
    np.testing.assert_array_equal(w.detach().numpy(), before * 2)
    before = before * 2
    (first,) = cr.autograd.grad(f(x), [x], create_graph=True)
    f(x)  # moves it once more
    (second,) = cr.autograd.grad(first.sum(), [w])
    np.testing.assert_allclose(second.numpy(), 2 * before, rtol=1e-12)


def test_hooks_run_once_and_outside():
    seen = []
    w = leaf(normal(3))
    w.register_hook(lambda g: seen.append(g.numpy()) or g * 10)
    f = compiled(lambda x: cr.sum(w * x))
    x = leaf(normal(3, seed=1))
    f(x).backward()
    assert len(seen) == 1
    np.testing.assert_allclose(w.grad.numpy(), 10 * x.detach().numpy())


def test_a_compiled_loss_of_compiled_features():
    features, loss = compiled(lambda x: cr.tanh(x)), compiled(lambda h: cr.sum(h**2))
    x = leaf(normal(4))
    loss(features(x)).backward()
    t = np.tanh(x.detach().numpy())
    np.testing.assert_allclose(x.grad.numpy(), 2 * t * (1 - t**2), rtol=1e-12)


def test_backward_inside_with_the_graph_kept_and_again_outside():
    w = leaf(normal(3))

    @compiled
    def f(x):
        w.grad = None
        y = cr.sum(w**2 * x)
        y.backward(retain_graph=True)
        return y

    x = cr.asarray(normal(3, seed=1))
    y = f(x)
    once = w.grad.numpy()
    y.backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * once, rtol=1e-12)


def test_functions_of_ones_own():
    class Cube(cr.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x * x * 3

    f = compiled(lambda x: cr.sum(Cube.apply(x)))
    x = leaf(normal(4))
    f(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.detach().numpy() ** 2, rtol=1e-12)
    g = compiled(lambda x: cr.grad(lambda x: cr.sum(Cube.apply(x)))(x))
    np.testing.assert_allclose(g(x.detach()).numpy(), 3 * x.detach().numpy() ** 2, rtol=1e-12)
