"""`cr.compile`: tensors from outside, gradients, random state, modules and what changes of them."""

from __future__ import annotations

import numpy as np
import pytest
from drawing import normal

import chainrule as cr
from chainrule import nn, optim

compiled = cr.compile
pytestmark = pytest.mark.usefixtures("backend")


def test_tensors_from_outside_are_inputs_wherever_they_are():
    class Holder:
        def __init__(self):
            self.scale = cr.asarray(2.0)

    holder, listed, table = Holder(), [cr.asarray(3.0)], {"k": cr.asarray(4.0)}
    outside = cr.asarray(5.0)
    f = compiled(lambda x: x * holder.scale * listed[0] * table["k"] * outside)
    x = cr.asarray(1.0)
    assert float(f(x)) == 120
    with cr.no_grad():
        for tensor in (holder.scale, listed[0], table["k"], outside):
            tensor += 1
    assert float(f(x)) == 3 * 4 * 5 * 6
    assert f.traces == 1
    listed[0] = cr.asarray(10.0)
    table["k"] = cr.asarray(10.0)
    holder.scale = cr.asarray(10.0)
    assert float(f(x)) == 6000
    outside = cr.asarray(1.0)
    assert float(f(x)) == 1000


def test_assignment_in_every_form():
    kept = cr.zeros((2, 3), dtype=cr.float64)

    def f(x):
        kept[0] = x
        kept[1, :2] += x[:2]
        kept.copy_(kept * 2)
        kept[kept > 100] = 0.0
        return kept.sum()

    other = cr.zeros((2, 3), dtype=cr.float64)
    g = compiled(f)
    for seed in range(4):
        x = normal(3, seed=seed)
        got = g(x)
        values = np.array(kept.numpy())
        now, kept = kept, other
        expected = f(x)
        np.testing.assert_array_equal(values, kept.numpy())
        assert float(got) == pytest.approx(float(expected), rel=1e-14)
        other, kept = kept, now
    assert g.traces <= 2


def test_values_that_others_hold_stay_as_they_are():
    w = normal(4)

    @compiled
    def f():
        with cr.no_grad():
            w.copy_(w * 2)

    f()
    detached, window, part = w.detach(), w.numpy(), w[1:3]
    kept = np.array(window)
    f()
    np.testing.assert_array_equal(detached.numpy(), kept)
    np.testing.assert_array_equal(window, kept)
    np.testing.assert_array_equal(part.numpy(), kept[1:3])
    np.testing.assert_array_equal(w.numpy(), kept * 2)


def test_memory_shared_with_numpy_is_not_written_to():
    shared = np.ones(3)
    w = cr.asarray(shared)
    f = compiled(lambda: w.copy_(w + 1) and None if False else w.copy_(w + 1).sum())
    assert float(f()) == 6
    np.testing.assert_array_equal(shared, 1)


def test_running_statistics_and_modes():
    def build():
        cr.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).double()

    model, twin = build(), build()
    f = compiled(model)
    for mode in (True, False, True, False):
        model.train(mode), twin.train(mode)
        x = normal(6, 3)
        cr.manual_seed(5)
        got = f(x)
        cr.manual_seed(5)
        np.testing.assert_allclose(
            got.detach().numpy(), twin(x).detach().numpy(), rtol=1e-14, atol=1e-14
        )
    for a, b in zip(model.buffers(), twin.buffers(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-14, atol=1e-14)
    assert f.traces == 2


def test_random_state_is_found_and_can_be_set():
    own = cr.random.Generator(3)

    @compiled
    def draw():
        return cr.random.normal((3,)), cr.random.uniform((2,), generator=own)

    def eager():
        return cr.random.normal((3,)), cr.random.uniform((2,), generator=own)

    cr.manual_seed(1)
    expected = [tuple(t.numpy() for t in eager()) for _ in range(3)]
    own.manual_seed(3)
    cr.manual_seed(1)
    for value in expected:
        for t, v in zip(draw(), value, strict=True):
            np.testing.assert_allclose(t.numpy(), v, rtol=1e-5, atol=1e-6)
    state = cr.random.get_state()
    a = draw()[0].numpy()
    cr.random.set_state(state)
    np.testing.assert_array_equal(draw()[0].numpy(), a)
    assert draw.traces == 1


def test_seeding_inside_the_function():
    @compiled
    def draw():
        cr.manual_seed(7)
        return cr.random.uniform((2,))

    first = draw().numpy()
    np.testing.assert_array_equal(draw().numpy(), first)
    cr.manual_seed(7)
    np.testing.assert_array_equal(cr.random.uniform((2,)).numpy(), first)


def test_gradients_are_there_after_a_step_and_stay_what_they_were():
    w = normal(3).requires_grad_()

    @compiled
    def f(x):
        w.grad = None
        loss = (w * x).sum()
        loss.backward()
        return loss

    x, y = normal(3, seed=1), normal(3, seed=2)
    loss = f(x)
    assert loss.requires_grad
    kept = w.grad
    np.testing.assert_array_equal(kept.numpy(), x.numpy())
    assert w.grad is kept
    f(y)
    np.testing.assert_array_equal(kept.numpy(), x.numpy())
    np.testing.assert_array_equal(w.grad.numpy(), y.numpy())
    with pytest.raises(cr.errors.GraphFreedError):
        loss.backward()
    w.grad = None
    f(x)
    np.testing.assert_array_equal(w.grad.numpy(), x.numpy())
    assert f.traces == 1


def test_a_gradient_cleared_inside_is_none_after():
    w = normal(3).requires_grad_()

    @compiled
    def f():
        (w * w).sum().backward()
        g = w.grad
        w.grad = None
        return g

    np.testing.assert_array_equal(f().numpy(), 2 * w.detach().numpy())
    assert w.grad is None


def test_hooks_of_tensors_and_modules_run_and_are_compiled_for():
    w = normal(3).requires_grad_()

    @compiled
    def f():
        w.grad = None
        (w * 2).sum().backward()

    f()
    np.testing.assert_array_equal(w.grad.numpy(), 2)
    handle = w.register_hook(lambda g: g * 10)
    f()
    np.testing.assert_array_equal(w.grad.numpy(), 20)
    handle.remove()
    f()
    np.testing.assert_array_equal(w.grad.numpy(), 2)

    model = nn.Linear(2, 2)
    g = compiled(model)
    x = cr.ones((1, 2))
    plain = g(x).detach().numpy()
    handle = model.register_forward_hook(lambda module, args, output: output * 0)
    np.testing.assert_array_equal(g(x).detach().numpy(), 0)
    handle.remove()
    np.testing.assert_array_equal(g(x).detach().numpy(), plain)


def test_freezing_is_compiled_for():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    opt = optim.SGD(model.parameters(), lr=0.1)

    @compiled
    def step(x):
        opt.zero_grad()
        model(x).sum().backward()
        opt.step()

    x = cr.ones((1, 2))
    step(x)
    model[0].requires_grad_(False)
    before, other = model[0].weight.detach().numpy(), model[1].weight.detach().numpy()
    step(x)
    np.testing.assert_array_equal(model[0].weight.detach().numpy(), before)
    assert model[0].weight.grad is None
    assert not np.array_equal(model[1].weight.detach().numpy(), other)
    model[0].requires_grad_(True)
    step(x)
    assert not np.array_equal(model[0].weight.detach().numpy(), before)
    assert step.traces == 2


def test_freezing_inside_holds_after_the_call():
    w = normal(3).requires_grad_()

    @compiled
    def f(flag):
        w.requires_grad_(flag)
        return (w * 2).requires_grad

    for flag in (True, False, False, True):
        assert f(flag) is flag
        assert w.requires_grad is flag


def test_changes_of_the_structure_are_compiled_for():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    f = compiled(model)
    x = normal(3, 2).astype(cr.float32)
    f(x)
    model.append(nn.Linear(2, 1))
    assert f(x).shape == (3, 1)
    model[0] = nn.Linear(2, 2)
    np.testing.assert_array_equal(f(x).detach().numpy(), model(x).detach().numpy())
    model[0].weight = nn.Parameter(cr.zeros((2, 2)))
    np.testing.assert_array_equal(f(x).detach().numpy(), model(x).detach().numpy())
    model.double()
    assert f(x.astype(cr.float64)).dtype == cr.float64
    drop = nn.Dropout(0.0)
    g = compiled(drop)
    g(x)
    drop.p = 1.0
    np.testing.assert_array_equal(g(x).numpy(), 0)
