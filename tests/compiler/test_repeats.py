"""Parameters that are alike: what an optimiser does with one is written down again for the rest."""

from __future__ import annotations

import numpy as np
import pytest
from test_compile_optimizers import ROWS

import chainrule as cr
from chainrule import nn, optim
from chainrule.compiler.repeats import Updates

WIDTH, LAYERS, STEPS = 3, 4, 7


@pytest.fixture(autouse=True)
def repeated(monkeypatch):
    """Counts how often a pattern was used."""
    count = [0]
    plain = Updates._repeat

    def counting(*args):
        count[0] += 1
        plain(*args)

    monkeypatch.setattr(Updates, "_repeat", counting)
    return count


def network():
    cr.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())]).double()


def train(make_optimizer, backend, steps=STEPS, before=None, rounds=1):
    """Weights, biases and states after some steps; no backend: eager."""
    model = network()
    opt = make_optimizer(model)
    if before is not None:
        before(opt)

    def step(x, y):
        for _ in range(rounds):
            opt.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            opt.step()
        return loss

    if backend:
        step = cr.compile(step, backend=backend)
    generator = np.random.default_rng(1)
    for _ in range(steps):
        x, y = (cr.asarray(generator.standard_normal((5, WIDTH))) for _ in range(2))
        loss = step(x, y)
    found = {"loss": loss.detach()} | model.state_dict()
    for n, entries in enumerate(opt.state.values()):
        found |= {f"{n} {name}": cr.asarray(x) for name, x in entries.items()}
    return {name: x.numpy() for name, x in found.items()}


def check_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_allclose(actual[name], x, rtol=1e-8, atol=1e-11, err_msg=name)


@ROWS
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_equal_layers_are_trained_as_eagerly(repeated, name, arguments, versions, backend):
    def make_optimizer(model):
        return getattr(optim, name)(model.parameters(), **arguments)

    expected = train(make_optimizer, None)
    assert repeated[0] == 0
    check_equal(train(make_optimizer, backend), expected)
    assert repeated[0] >= 2 * (LAYERS - 1)


def test_groups_with_other_numbers_are_kinds_of_their_own(repeated):
    def make_optimizer(model):
        first, second = list(model.parameters())[:4], list(model.parameters())[4:]
        groups = [{"params": first, "lr": 0.1}, {"params": second, "lr": 0.03, "betas": (0.5, 0.9)}]
        return optim.Adam(groups)

    check_equal(train(make_optimizer, "numpy"), train(make_optimizer, None))
    assert repeated[0] == LAYERS


@pytest.mark.parametrize("steps", [[5, 5, 5, 5, 9, 9, 9, 9], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_parameters_of_other_ages_are_kinds_of_their_own(repeated, steps):
    """Numbers in the states that differ must not be taken for one another."""

    def before(opt):
        saved = opt.state_dict()
        generator = np.random.default_rng(2)
        for n, p in enumerate(opt.param_groups[0]["params"]):
            saved["state"][n] = {
                "step": steps[n],
                "exp_avg": cr.asarray(generator.standard_normal(p.shape)),
                "exp_avg_sq": cr.asarray(generator.random(p.shape)),
            }
        opt.load_state_dict(saved)

    def make_optimizer(model):
        return optim.Adam(model.parameters(), lr=0.05)

    expected = train(make_optimizer, None, before=before)
    check_equal(train(make_optimizer, "numpy", before=before), expected)
    assert (repeated[0] > 0) is (len(set(steps)) == 2)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_two_steps_in_one_function(repeated, name):
    def make_optimizer(model):
        return getattr(optim, name)(model.parameters(), lr=0.05)

    check_equal(train(make_optimizer, "numpy", rounds=2), train(make_optimizer, None, rounds=2))
    assert repeated[0] >= 2 * (LAYERS - 1)


def test_a_learning_rate_that_changes_between_two_steps(repeated):
    def run(compiled):
        model = network()
        opt = optim.SGD(model.parameters(), lr=0.1)

        def step(x):
            for _ in range(2):
                model.zero_grad()
                model(x).sum().backward()
                opt.step()
                opt.param_groups[0]["lr"] *= 0.5
            return x

        step = cr.compile(step, backend="numpy") if compiled else step
        step(cr.ones((2, WIDTH), dtype=cr.float64))
        return {k: v.numpy() for k, v in model.state_dict().items()}

    check_equal(run(True), run(False))
    assert repeated[0] == 2 * 2 * (LAYERS - 1)


def test_optimizers_of_the_users_are_called_for_each_parameter(repeated):
    seen = []

    class Counting(optim.SGD):
        def update(self, p, g, state, group):
            seen.append(p.shape)
            super().update(p, g, state, group)

    train(lambda model: Counting(model.parameters(), lr=0.1), "numpy")
    assert len(seen) == 2 * LAYERS
    assert repeated[0] == 0


def test_what_a_failed_step_would_have_made_is_not_there():
    model = network()
    opt = optim.Adam(model.parameters())

    @cr.compile(backend="numpy")
    def step(x):
        opt.zero_grad()
        loss = model(x).sum()
        loss.backward()
        opt.step()
        return float(loss)

    with pytest.raises(cr.errors.TraceError):
        step(cr.ones((2, WIDTH), dtype=cr.float64))
    assert not any(opt.state.values())


def test_a_gradient_that_is_the_parameter_itself(repeated):
    """Two roles of one value are no pattern."""

    def run(compiled):
        ps = [cr.asarray([1.0 + n, 2.0], requires_grad=True) for n in range(3)]
        opt = optim.SGD(ps, lr=0.25)

        def step():
            for p in ps:
                p.grad = p.detach()
            opt.step()

        (cr.compile(step, backend="numpy") if compiled else step)()
        return {str(n): p.detach().numpy() for n, p in enumerate(ps)}

    check_equal(run(True), run(False))
    assert repeated[0] == 0
