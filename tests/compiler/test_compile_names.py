"""`cr.compile`: globals, attributes, closures and other functions that a function finds by name."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
from drawing import normal

import chainrule as cr
from chainrule import nn, optim

compiled = cr.compile
pytestmark = pytest.mark.usefixtures("backend")


SCALE = 2.0
SETTINGS = {"shift": 1.0, "names": ["a"]}


def helper(x):
    return x * SCALE + SETTINGS["shift"]


def test_globals_and_settings_are_looked_at(monkeypatch):
    f = compiled(lambda x: helper(x))
    x = cr.ones(())
    assert float(f(x)) == 3
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    assert float(f(x)) == 6
    monkeypatch.setitem(SETTINGS, "shift", 2.0)
    assert float(f(x)) == 7
    assert f.traces == 3


def test_dictionaries_of_tensors_are_looked_at():
    weights = {"a": cr.asarray(2.0), "b": cr.asarray(3.0)}
    f = compiled(lambda x: x * sum(weights.values()))
    assert float(f(cr.asarray(1.0))) == 5
    weights["b"] = cr.asarray(10.0)
    assert float(f(cr.asarray(1.0))) == 12
    with cr.no_grad():
        weights["a"].fill_(1.0)
    assert float(f(cr.asarray(1.0))) == 11
    assert f.traces == 2


def test_attributes_of_objects_are_looked_at():
    class Agent:
        def __init__(self):
            self.gain, self.calls, self.w = 2.0, 0, cr.ones(())

        def amplify(self, x):
            return x * self.gain

        @compiled
        def act(self, x):
            with cr.no_grad():
                self.w += 1
            return self.amplify(x) * self.w

    one, two = Agent(), Agent()
    x = cr.ones(())
    assert [float(one.act(x)), float(one.act(x)), float(two.act(x))] == [4, 6, 4]
    one.gain = 10.0
    one.calls += 1
    assert float(one.act(x)) == 40
    assert one.act.traces == 2
    assert two.act.traces == 1
    assert isinstance(Agent.act, type(one.act))


def test_a_variable_of_the_function_around():
    factor = 2.0

    @compiled
    def f(x):
        return x * factor

    x = cr.ones(())
    assert float(f(x)) == 2
    factor = 3.0
    assert float(f(x)) == 3


def test_models_with_other_parameters_for_a_call():
    model = nn.Linear(3, 2).double()

    @compiled
    def inner_step(x, weight):
        w = weight
        for _ in range(2):
            loss = lambda w: (nn.utils.functional_call(model, {"weight": w}, (x,)) ** 2).sum()  # noqa: E731
            w = w - 0.1 * cr.grad(loss)(w)
        return w

    x, w = normal(4, 3), normal(2, 3, seed=1)
    before = np.array(model.weight.detach().numpy())
    for _ in range(2):
        got, expected = inner_step(x, w), inner_step.function(x, w)
        assert got.requires_grad is expected.requires_grad  # by the bias
        np.testing.assert_allclose(got.detach().numpy(), expected.detach().numpy(), rtol=1e-11)
    np.testing.assert_array_equal(model.weight.detach().numpy(), before)
    assert inner_step.traces == 1


def test_an_optimizer_made_inside_begins_anew_at_each_call():
    def fit(x):
        w = cr.zeros((3,), dtype=cr.float64, requires_grad=True)
        opt = optim.Adam([w], lr=0.1)
        for _ in range(3):
            opt.zero_grad()
            ((w - x) ** 2).sum().backward()
            opt.step()
        return w.detach()

    f = compiled(fit)
    for seed in range(3):
        x = normal(3, seed=seed)
        np.testing.assert_allclose(f(x).numpy(), fit(x).numpy(), rtol=1e-11)
    assert f.traces == 1


def test_partial_and_module_and_deepcopy():
    f = compiled(functools.partial(lambda a, x, k: a * x * k, cr.asarray(2.0), k=3.0))
    assert float(f(cr.asarray(1.0))) == 6
    model = nn.Linear(2, 2)
    g = compiled(model)
    assert list(g.parameters()) == list(model.parameters())
    assert g(cr.ones((1, 2))).shape == (1, 2)
    twin = copy.deepcopy(g)
    assert twin.function is not model
    assert twin(cr.ones((1, 2))).shape == (1, 2)


def test_compiled_inside_compiled_is_traced_through():
    inner = compiled(lambda x: cr.tanh(x))

    @compiled
    def outer(x):
        return inner(x) * 2

    x = normal(3)
    np.testing.assert_allclose(outer(x).numpy(), 2 * np.tanh(x.numpy()), rtol=1e-14)
    assert inner.traces == 0
    np.testing.assert_allclose(inner(x).numpy(), np.tanh(x.numpy()), rtol=1e-14)
