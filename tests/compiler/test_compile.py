"""`cr.compile`: arguments, results, state, guards, and what is compiled anew."""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys
import threading
import warnings
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ChainruleError, ChainruleWarning, TraceError

compiled = cr.compile


@pytest.fixture(autouse=True, params=["numpy", "native"])
def backend(request, monkeypatch):
    """Each test runs on both: the graph operation by operation, and native code."""
    monkeypatch.setattr(
        sys.modules[__name__], "compiled", functools.partial(cr.compile, backend=request.param)
    )


def normal(*shape, seed=0):
    return cr.asarray(np.random.default_rng(seed).standard_normal(shape))


# --- arguments and results ------------------------------------------------------------------------

Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass
class Batch:
    x: Any
    extra: dict
    name: str = "a"


def test_nested_structures_go_in_and_come_out():
    @compiled
    def f(batch, pair, *, scale, tag):
        assert type(pair) is Pair
        assert isinstance(batch, Batch)
        return {
            "sum": batch.x + batch.extra["y"], "pair": Pair(pair.second * scale, [pair.first]),
            "batch": Batch(batch.x * 2, {}, batch.name), "tag": tag, "none": None,
        }  # fmt: skip

    x, y = normal(3), normal(3, seed=1)
    for scale in (2.0, 3.0):
        got = f(Batch(x, {"y": y}, "b"), Pair(x, y), scale=scale, tag=("t", 1.5))
        np.testing.assert_array_equal(got["sum"].numpy(), (x + y).numpy())
        assert type(got["pair"]) is Pair
        np.testing.assert_array_equal(got["pair"].first.numpy(), (y * scale).numpy())
        np.testing.assert_array_equal(got["pair"].second[0].numpy(), x.numpy())
        assert type(got["batch"]) is Batch
        assert got["batch"].name == "b"
        assert got["tag"] == ("t", 1.5)
        assert got["none"] is None
    assert f.traces == 1


def test_numpy_arrays_and_numbers_are_inputs():
    @compiled
    def f(a, n, s):
        return (a * s + n).sum(), n + 1, s / 2

    for k in range(3):
        a = np.full((2, 2), float(k))
        total, n, s = f(a, k, k + 0.5)
        assert float(total) == (a * (k + 0.5) + k).sum()
        assert (n, s) == (k + 1, (k + 0.5) / 2)
        assert type(n) is int
        assert type(s) is float
    assert f.traces == 1


def test_a_number_beside_a_tensor_is_weak():
    f = compiled(lambda x, s: x * s)
    x = cr.asarray([1.0, 2.0], dtype=cr.float32)
    assert f(x, 3.0).dtype == cr.float32
    assert f(cr.asarray([1, 2]), 3).dtype == cr.int64
    assert f(cr.asarray([1, 2]), 3.0).dtype == cr.float32
    assert f.traces == 3


def test_a_number_that_python_needs_is_compiled_for():
    @compiled
    def f(x, n):
        return x.reshape((n, -1)).sum(axis=0)

    x = normal(12)
    for n in (2, 3, 2, 3, 4):
        np.testing.assert_allclose(f(x, n).numpy(), x.numpy().reshape(n, -1).sum(0))
    assert f.traces == 3


def test_a_comparison_is_compiled_for_its_outcome():
    @compiled
    def f(x, epoch):
        return x * 2 if epoch > 3 else x

    x = cr.ones((2,))
    assert [float(f(x, n)[0]) for n in range(7)] == [1, 1, 1, 1, 2, 2, 2]
    assert f.traces == 2


@pytest.mark.parametrize(
    "expression",
    [
        lambda n: n + 1, lambda n: 2**n, lambda n: n % 3, lambda n: 7 // n, lambda n: -n / 3,
        lambda n: abs(1 - n), lambda n: (n * 0.5) ** 2, lambda n: round(n / 3, 1), lambda n: 5 - n,
        lambda n: 1 / n, lambda n: max(n, 3), lambda n: min(2, n), lambda n: int(n * 1.7),
        lambda n: float(n), lambda n: divmod(n, 2)[0] if False else n, lambda n: n.bit_length(),
    ],
)  # fmt: skip
def test_arithmetic_of_numbers_is_pythons(expression):
    f = compiled(lambda x, n: (x * expression(n), expression(n)))
    for n in (1, 2, 5):
        y, value = f(cr.ones((), dtype=cr.float64), n)
        assert float(y) == expression(n)
        assert value == expression(n)
        assert type(value) is type(expression(n))


def test_numbers_answer_to_isinstance_and_make_ranges():
    @compiled
    def f(x, n, s):
        assert isinstance(n, int)
        assert isinstance(s, float)
        assert not isinstance(n, bool)
        return cr.arange(n), cr.full((2,), s), x * (n if isinstance(n, float) else s)

    for n, s in ((3, 0.5), (3, 1.5), (4, 0.5)):
        a, b, c = f(cr.ones(()), n, s)
        assert a.dtype == cr.int64
        assert a.shape == (n,)
        np.testing.assert_array_equal(b.numpy(), s)
        assert float(c) == s
    assert f.traces == 2


def test_a_probability_as_an_argument():
    f = compiled(lambda x, p: nn.functional.dropout(x, p))
    x = cr.ones((2000,))
    for p in (0.1, 0.5, 0.9):
        share = float(cr.mean(cr.astype(f(x, p) == 0, cr.float32)))
        assert abs(share - p) < 0.05
    assert f.traces == 1
    with pytest.raises(ValueError, match="probability"):
        f(x, 1.5)


def test_numpy_arrays_that_come_back_are_the_callers():
    made = np.zeros(2)
    f = compiled(lambda: made)
    f()[:] = 7
    np.testing.assert_array_equal(f(), 0)


@pytest.mark.filterwarnings("ignore:.*changed traced while it was compiled")
def test_static_arguments():
    traced = []

    @compiled(static_argnums=1, static_argnames="mode")
    def f(x, n, mode="sum"):
        traced.append((n, mode))
        return getattr(x.reshape((n, -1)), mode)()

    x = normal(6)
    for n, mode in ((2, "sum"), (3, "sum"), (2, "mean"), (2, "sum")):
        np.testing.assert_allclose(f(x, n, mode=mode).numpy(), getattr(x, mode)().numpy())
    assert f.traces == 3
    assert traced == [(2, "sum"), (3, "sum"), (2, "mean")]


def test_other_constants_are_compiled_for_by_value():
    f = compiled(lambda x, how: x + 1 if how == "up" else x - 1)
    x = cr.zeros(())
    assert [float(f(x, how)) for how in ("up", "down", "up")] == [1, -1, 1]
    assert f.traces == 2


def test_what_comes_back_belongs_to_the_caller():
    w = normal(3)

    @compiled
    def f(x):
        with cr.no_grad():
            w.copy_(w + 1)
        return x * w, w.detach(), cr.ones((3,))

    first = f(normal(3))
    kept = [np.array(t.numpy()) for t in first]
    f(normal(3, seed=1))
    for t, value in zip(first, kept, strict=True):
        np.testing.assert_array_equal(t.numpy(), value)


def test_arguments_and_tensors_from_outside_come_back_as_themselves():
    w = normal(2).requires_grad_()
    x = normal(2)
    a, b, c = compiled(lambda x: (x, w, x * 1))(x)
    assert a is x
    assert b is w
    assert c is not x


def test_one_tensor_as_two_arguments():
    @compiled
    def f(x, y):
        with cr.no_grad():
            x += 1
        return x * y

    a, b = cr.ones((2,)), cr.ones((2,))
    np.testing.assert_array_equal(f(a, b).numpy(), [2, 2])
    np.testing.assert_array_equal(a.numpy(), [2, 2])
    np.testing.assert_array_equal(f(b, b).numpy(), [4, 4])
    np.testing.assert_array_equal(b.numpy(), [2, 2])
    np.testing.assert_array_equal(f(a, b).numpy(), [6, 6])


def test_an_argument_that_is_also_found_by_name():
    w, v = cr.ones((2,)), cr.ones((2,)) * 5

    @compiled
    def f(x):
        with cr.no_grad():
            w.copy_(w + 1)
        return x * w

    np.testing.assert_array_equal(f(w).numpy(), [4, 4])
    np.testing.assert_array_equal(f(v).numpy(), [15, 15])
    np.testing.assert_array_equal(f(w).numpy(), [16, 16])


@pytest.mark.parametrize("form", ["order", "stride", "reversed", "broadcast"])
def test_any_memory_layout_is_taken(form):
    x = np.arange(12.0).reshape(3, 4)
    given = {
        "order": np.asfortranarray(x), "stride": np.repeat(x, 2, axis=1)[:, ::2],
        "reversed": x[::-1].copy()[::-1], "broadcast": np.broadcast_to(x[:1], (3, 4)),
    }[form]  # fmt: skip
    f = compiled(lambda x: (x * 2).sum(axis=0))
    for value in (x, given, x):
        np.testing.assert_array_equal(f(cr.asarray(value)).numpy(), (value * 2).sum(axis=0))
    assert f.traces == 1


def test_shapes_and_dtypes_are_compiled_for_quietly():
    f = compiled(lambda x: x.sum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (3, 5, 3, 5):
            assert float(f(cr.ones((n,)))) == n
        f(cr.ones((3,), dtype=cr.float64))
    assert f.traces == 3


# --- state ----------------------------------------------------------------------------------------


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
        np.testing.assert_array_equal(got.detach().numpy(), twin(x).detach().numpy())
    for a, b in zip(model.buffers(), twin.buffers(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
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


# --- what a function finds by name ----------------------------------------------------------------

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


# --- limits and switches --------------------------------------------------------------------------


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
