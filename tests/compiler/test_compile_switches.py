"""`cr.compile`: limits, switches, what happens on a defect, and several threads."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
import weakref

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


def test_a_shape_that_changes_at_every_call_warns_early_at_the_users_line():
    f = compiled(lambda images: images.sum())
    with pytest.warns(ChainruleWarning, match=r"8 times and is compiled anew .* float32\[8\] and"):
        for n in range(1, 10):
            f(cr.ones((n,)))
    with pytest.warns(ChainruleWarning) as caught:
        g = compiled(lambda images: images.mean(), limit=2)
        for n in range(1, 6):
            g(cr.ones((n,)))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "limit" in str(caught[0].message)


def test_many_versions_that_are_used_do_not_warn():
    f = compiled(lambda images: images.sum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(1, 12):
            for _ in range(4):
                f(cr.ones((n,)))
    assert f.traces == 11


@pytest.mark.filterwarnings("ignore::chainrule.errors.ChainruleWarning")
def test_versions_are_bounded_and_the_least_used_goes():
    f = compiled(lambda x: x * 2, limit=3)
    for n in (1, 2, 3):
        for _ in range(3):
            f(cr.ones((n,)))
    for _ in range(3):
        f(cr.ones((1,)))
    gone = weakref.ref(next(v for v in f.versions if v.key[2][0][0] == (2,)))
    for _ in range(200):  # ever new shapes are no reason to compile
        f(cr.ones((len(f.versions) + 7 + _,)))
    assert f.traces == 3
    for _ in range(20):
        assert f(cr.ones((5,))).tolist() == [2.0] * 5
    assert f.traces == 4
    assert {v.key[2][0][0] for v in f.versions} == {(1,), (3,), (5,)}
    gc.collect()
    assert gone() is None
    assert f(cr.ones((2,))).tolist() == [2.0] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_of_a_fork_calls_what_another_thread_was_calling():
    f = compiled(lambda x: x * 2)
    f(cr.ones((3,)))
    inside, on = threading.Event(), threading.Event()

    def hold() -> None:
        with f._lock:
            inside.set()
            on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # where the lock is not renewed
        os._exit(0 if f(cr.ones((3,))).tolist() == [2.0] * 3 else 1)
    on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_handler_that_calls_what_is_running_gets_an_error():
    n = 1200

    @cr.compile(backend="native")
    def long(x):
        for _ in range(12):
            x = cr.tanh(x @ x)
        return x

    x = cr.zeros((n, n))
    long(x)
    errors = []

    def handle(number, frame):
        try:
            long(x)
        except ChainruleError as error:
            errors.append(str(error))

    before = signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.06)
            long(x)
            if any(errors):
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert errors
    assert "signal handler" in errors[0]
    assert float(long(x).sum()) == 0.0
