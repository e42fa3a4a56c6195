"""`cr.compile`: limits, switches, what happens on a defect, and several threads."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from drawing import normal

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ChainruleError, ChainruleWarning, TraceError

compiled = cr.compile
pytestmark = pytest.mark.usefixtures("backend")


def test_after_the_limit_it_runs_eagerly_and_warns_once():
    f = compiled(lambda images: images.sum(), limit=3)
    for n in range(1, 4):
        f(cr.ones((n,)))
    with pytest.warns(ChainruleWarning, match=r"images was float32\[3\] and is float32\[4\]"):
        assert float(f(cr.ones((4,)))) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(f(cr.ones((9,)))) == 9
        assert float(f(cr.ones((2,)))) == 2
    assert f.traces == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m, o: m.eval(), "structure of a Sequential"),
        (lambda m, o: o.param_groups[0].update(nesterov=True), "nesterov"),
        (lambda m, o: o.param_groups[0].update(momentum=0.0), "momentum"),
        (lambda m, o: m.requires_grad_(False), "requires_grad"),
    ],
)
def test_the_reason_is_named(change, words):
    model = nn.Sequential(nn.Linear(2, 1))
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @compiled(limit=1)
    def step(x):
        opt.zero_grad()
        loss = (model(x) * x).sum()
        if loss.requires_grad:
            loss.backward()
        opt.step()

    x = cr.ones((1, 2))
    step(x)
    change(model, opt)
    with pytest.warns(ChainruleWarning, match=words):
        step(x)


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("CHAINRULE_COMPILE", "0")
    f = cr.compile(lambda x: x.item())
    assert f(cr.asarray(3.0)) == 3
    assert f.traces == 0


def test_observers_see_the_function_run_eagerly():
    f = compiled(lambda x: cr.log(x).sum())
    f(cr.ones((2,)))
    with cr.autograd.detect_anomaly(), pytest.raises(cr.errors.NonFiniteError, match="log"):
        f(cr.zeros((2,)))


def test_a_defect_of_the_compiler_warns_and_runs_in_numpy(monkeypatch):
    from chainrule.compiler import build

    def fails(graph, *options):
        raise KeyError("kernel")

    monkeypatch.setattr(build, "build", fails)
    f = cr.compile(lambda x: x * 2)
    with pytest.warns(ChainruleWarning, match=r"KeyError.*defect"):
        assert float(f(cr.ones(()))) == 2
    assert float(f(cr.ones(()))) == 2
    with pytest.raises(KeyError):
        cr.compile(lambda x: x * 2, backend="native")(cr.ones(()))


def test_unknown_backends_and_things_that_cannot_be_called():
    with pytest.raises(ChainruleError, match="native"):
        cr.compile(lambda x: x, backend="nativ")
    with pytest.raises(TypeError, match="function"):
        cr.compile(3)


# --- threads --------------------------------------------------------------------------------------


def test_threads_may_trace_and_run_at_the_same_time():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double().eval()
    x = normal(5, 4)
    with cr.no_grad():
        expected = model(x).numpy()
    shared, errors = compiled(model), []

    def work():
        try:
            own = compiled(model)
            for _ in range(5):
                with cr.no_grad():
                    for f in (model, shared, own):
                        np.testing.assert_allclose(f(x).numpy(), expected, rtol=1e-12)
                own = compiled(model)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert type(model[0].weight._array) is np.ndarray


def test_a_step_shared_by_threads_loses_no_update():
    count = cr.zeros((), dtype=cr.int64)

    @compiled
    def step():
        with cr.no_grad():
            count.copy_(count + 1)

    threads = [threading.Thread(target=lambda: [step() for _ in range(50)]) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert int(count) == 200


def test_traces_leave_no_trace():
    before = {name: cr.graph.Value.__dict__[name] for name in ("_array", "_node", "_slot", "_grad")}
    f = compiled(lambda x: x.item())
    with pytest.raises(TraceError):
        f(cr.ones(()))
    assert {name: cr.graph.Value.__dict__[name] for name in before} == before
    assert cr.graph.state.tracer is None
