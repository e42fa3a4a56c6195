"""Tracing: what cannot be traced says so at the user's line, and nothing has changed."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.compiler import ir
from chainrule.errors import ChainruleWarning, NonFiniteError, TraceError

compiled = cr.compile


@pytest.fixture(autouse=True, params=["numpy", "native"])
def backend(request, monkeypatch):
    """Each test runs on both: the graph operation by operation, and native code."""
    monkeypatch.setattr(
        sys.modules[__name__], "compiled", functools.partial(cr.compile, backend=request.param)
    )


def line_of(function, text):
    """`file:line` of the line of a function that holds a text."""
    lines, start = inspect.getsourcelines(function)
    (offset,) = [i for i, line in enumerate(lines) if text in line]
    return f"{inspect.getsourcefile(function)}:{start + offset}"


def snapshot(model, opt):
    """All that a step may change, as numbers."""
    parts = {k: np.array(v.numpy()) for k, v in model.state_dict().items()}
    parts |= {f"grad {n}": None if p.grad is None else np.array(p.grad.numpy())
              for n, p in model.named_parameters()}  # fmt: skip
    for i, entries in opt.state_dict()["state"].items():
        parts |= {f"{i}.{k}": np.array(v) for k, v in entries.items()}
    parts |= {f"group.{k}": v for k, v in opt.param_groups[0].items() if k != "params"}
    parts["random"] = cr.random.get_state()
    return parts


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


BRANCHES = {
    "if": lambda x: x if x.sum() > 0 else -x,
    "while": lambda x: [x := x + 1 for _ in iter(lambda: bool(x.sum() < 3), False)],
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.sum()),
    "item": lambda x: x[0].item(),
    "numpy": lambda x: np.exp(x.numpy()),
    "asarray": lambda x: np.asarray(x),
    "tolist": lambda x: x.tolist(),
    "range": lambda x: list(range(x.astype(cr.int64)[0])),
    "index": lambda x: [1, 2, 3][x.astype(cr.int64)[0]],
    "in": lambda x: 3.0 in x,
    "format": lambda x: f"{x[0]:.3f}",
    "shape": lambda x: cr.zeros((x.astype(cr.int64)[0], 2)),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: cr.nonzero(x),
    "unique": lambda x: cr.unique_values(x),
    "assert": lambda x: bool(cr.all(x > 0)),
    "memoryview": lambda x: np.add(x._array, 1),
    "dlpack": lambda x: np.from_dlpack(x),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_asking_for_numbers_is_an_error_at_that_line(name):
    function = BRANCHES[name]
    x = cr.ones((3,))
    with pytest.raises(TraceError) as caught:
        compiled(function)(x)
    message = str(caught.value)
    assert __file__ in message
    for advice in ("cr.where", "cr.cond", "CHAINRULE_COMPILE=0"):
        assert advice in message
    function(cr.ones((3,)))  # eagerly it is fine


def test_the_line_is_the_users():
    def f(x):
        y = cr.exp(x)
        if y.sum() > 3:  # here
            return y
        return x

    with pytest.raises(TraceError) as caught:
        compiled(f)(cr.ones((2,)))
    assert f"[{line_of(f, 'if y.sum')}]" in str(caught.value)


def test_the_layer_is_named():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    model = nn.Sequential(nn.Linear(2, 2), Branching())
    with pytest.raises(TraceError, match=r"in layer '1' \(Branching\)"):
        compiled(model)(cr.ones((1, 2)))


def test_printing_a_tensor_shows_that_it_is_traced(capsys):
    @compiled
    def f(x):
        print(x * 2)
        return x

    f(cr.ones((2, 3)))
    assert "float32[2, 3]" in capsys.readouterr().out


def test_where_and_masks_made_inside_are_fine():
    @compiled
    def f(x):
        mask = cr.asarray([True, False, True])
        index = cr.arange(3)[mask]
        if mask.any() and int(cr.sum(index)) == 2:
            return cr.where(x > 0, x, -x)[index]
        return x

    x = cr.asarray([-1.0, 2.0, -3.0])
    np.testing.assert_array_equal(f(x).numpy(), [1, 3])


# --- what is kept outside -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*changed kept while it was compiled")
def test_a_tensor_kept_outside_says_so_when_it_is_used():
    kept = []

    def f(x):
        kept.append(x * 2)  # here
        return x

    compiled(f)(cr.ones((2,)))
    for use in (
        lambda t: t + 1, lambda t: t.numpy(), lambda t: float(t[0]), lambda t: cr.sum(t),
        lambda t: t.reshape((2, 1)), lambda t: compiled(lambda: t * 2)(), lambda t: t == 1,
        lambda t: cr.save({"t": t}, "x"),
    ):  # fmt: skip
        with pytest.raises(TraceError) as caught:
            use(kept[0])
        assert "kept by a compiled function" in str(caught.value)
        assert line_of(f, "kept.append") in str(caught.value)
    assert "traced" in repr(kept[0])


def test_an_attribute_set_inside_says_so_too():
    class Layer(nn.Module):
        def forward(self, x):
            self.seen = x * 2
            return x

    layer = Layer()
    compiled(layer)(cr.ones((2,)))
    with pytest.raises(TraceError, match="kept by a compiled function"):
        print(layer.seen + 1)


COUNT = 0


def test_assigning_to_a_global_warns_at_that_line():
    def f(x):
        global COUNT
        COUNT += 1  # here
        return x

    with pytest.warns(ChainruleWarning, match="assigns to 'COUNT'") as caught:
        compiled(f)(cr.ones(()))
    assert f"{caught[0].filename}:{caught[0].lineno}" == line_of(f, "COUNT += 1")


def test_assigning_to_a_variable_around_warns():
    total = 0

    @compiled
    def f(x):
        nonlocal total
        total = total + 1
        return x

    with pytest.warns(ChainruleWarning, match="total"):
        f(cr.ones(()))


def test_changing_an_attribute_warns():
    class Settings:
        n = 0

    settings = Settings()
    settings.n = 1

    def f(x):
        settings.n = settings.n + 1
        return x * settings.n

    g = compiled(f)
    with pytest.warns(ChainruleWarning, match=r"changed settings\.n"):
        assert float(g(cr.ones(()))) == 2
    assert float(g(cr.ones(()))) == 2
    settings.n = 9
    with pytest.warns(ChainruleWarning, match=r"changed settings\.n"):
        assert float(g(cr.ones(()))) == 10


def test_counting_in_a_module_warns():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * 2

    layer = Counting()
    f = compiled(layer)
    with pytest.warns(ChainruleWarning, match=r"changed Counting\.calls"):
        f(cr.ones(()))
    assert [float(f(cr.ones(()))) for _ in range(3)] == [2, 2, 2]
    assert layer.calls == 1
    assert f.traces == 1


def test_modes_set_inside_are_set_at_each_call():
    model = nn.Sequential(nn.Dropout(0.5))
    x = cr.ones((100,))

    @compiled
    def f(x, mode):
        model.train(mode)
        return model(x)

    for mode in (True, False, False, True):
        model.train(not mode)
        cr.manual_seed(3)
        got = f(x, mode)
        assert model.training is mode
        assert model[0].training is mode
        cr.manual_seed(3)
        np.testing.assert_array_equal(got.numpy(), model(x).numpy())


def test_a_buffer_assigned_in_forward_is_updated():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("n", cr.zeros(()))

        def forward(self, x):
            self.n = self.n + 1
            return x * self.n

    layer = Counter()
    f = compiled(layer)
    assert [float(f(cr.ones(()))) for _ in range(3)] == [1, 2, 3]
    assert float(layer.n) == 3
    assert f.traces == 1


# --- failures change nothing ----------------------------------------------------------------------


def make_step(fail=None, compiled_=True):
    cr.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
    )
    opt = optim.AdamW(model.parameters(), lr=0.37)

    def step(x, y):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        if fail is not None:
            fail(loss)
        return loss

    return (compiled(step) if compiled_ else step), model, opt


def batch(labels=(0, 1, 2, 1)):
    x = np.random.default_rng(0).standard_normal((len(labels), 4)).astype(np.float32)
    return cr.asarray(x), cr.asarray(list(labels))


@pytest.mark.parametrize(
    "fail",
    [
        lambda loss: float(loss), lambda loss: 1 / 0, lambda loss: loss.reshape((7,)),
        lambda loss: loss.no_such_method(), lambda loss: (_ for _ in ()).throw(KeyboardInterrupt),
    ],
    ids=["number", "python", "shape", "attribute", "interrupt"],
)  # fmt: skip
def test_an_error_while_tracing_changes_nothing(fail):
    step, model, opt = make_step(fail)
    before = snapshot(model, opt)
    with pytest.raises(BaseException):  # noqa: B017
        step(*batch())
    assert_same(snapshot(model, opt), before)
    assert not any(opt.state.values())


@pytest.mark.parametrize("when", ["first", "later"])
def test_a_bad_label_is_the_eager_error_and_changes_nothing(when):
    step, model, opt = make_step()
    if when == "later":
        step(*batch())
    before = snapshot(model, opt)
    with pytest.raises(IndexError) as caught:
        step(*batch((0, 1, 5, 1)))
    assert "label 5 at position 2" in str(caught.value)
    assert_same(snapshot(model, opt), before)
    step(*batch())
    twin_step, twin, _ = make_step(compiled_=False)
    for _ in range(2 if when == "later" else 1):
        twin_step(*batch())
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("function", "good", "bad", "error"),
    [
        (lambda t, i: nn.functional.embedding(i, t), [0, 2], [0, 3], IndexError),
        (lambda t, i: t[i], [0, -3], [0, 3], IndexError),
        (lambda t, i: cr.take(t, i, axis=0), [0, 2], [0, 7], IndexError),
        (lambda t, i: nn.functional.one_hot(i, 3), [0, 2], [0, 3], IndexError),
        (lambda t, i: nn.functional.binary_cross_entropy(i / 2, i * 0), [0, 1], [0, 3], ValueError),
        (lambda t, i: nn.functional.hinge_embedding_loss(i * 1.0, i), [1, -1], [1, 0], ValueError),
    ],
)  # fmt: skip
def test_checks_of_values_are_in_the_program(function, good, bad, error):
    table = cr.asarray(np.arange(6.0).reshape(3, 2))
    f = compiled(lambda i: function(table, i))
    good, bad = cr.asarray(good), cr.asarray(bad)
    np.testing.assert_array_equal(f(good).numpy(), function(table, good).numpy())
    with pytest.raises(error) as eager:
        function(table, bad)
    with pytest.raises(error) as caught:
        f(bad)
    assert str(caught.value).split(" [")[0] == str(eager.value).split(" [")[0]
    np.testing.assert_array_equal(f(good).numpy(), function(table, good).numpy())
    assert f.traces == 1


def test_a_norm_that_is_not_finite_stops_before_anything_is_written():
    w = cr.ones((2,)).requires_grad_()
    opt = optim.SGD([w], lr=0.1)

    @compiled
    def step(x):
        opt.zero_grad()
        (w * x).sum().backward()
        optim.clip_grad_norm_([w], 1.0, error_if_nonfinite=True)
        opt.step()

    step(cr.ones((2,)))
    before = np.array(w.detach().numpy())
    with pytest.raises(NonFiniteError, match="norm of the gradients is"):
        step(cr.asarray([1.0, np.inf]))
    np.testing.assert_array_equal(w.detach().numpy(), before)


def test_probabilities_in_place_of_scores_warn_once_compiled_too():
    from chainrule.nn.functional import _checks

    _checks._warned.discard("cross_entropy")
    f = compiled(lambda x, y: nn.functional.cross_entropy(nn.functional.softmax(x, 1), y))
    x, y = batch()
    with pytest.warns(ChainruleWarning, match="softmax"):
        f(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f(x, y)


def test_backward_into_a_graph_outside_is_refused():
    w = cr.ones((2,)).requires_grad_()
    features = w * 2

    @compiled
    def step():
        (features * features).sum().backward()

    with pytest.raises(TraceError, match="computed outside"):
        step()
    assert w.grad is None


# --- the graph ------------------------------------------------------------------------------------


def test_the_graph_names_lines_layers_and_updates():
    step, model, _ = make_step()
    step(*batch())
    (version,) = step.versions
    graph = ir.verify(version.graph)
    assert {"Linear", "BatchNorm1d"} <= {op.where for op in graph.ops}
    assert any(op.line == line_of(step.function, "cross_entropy") for op in graph.ops)
    assert any(op.line == line_of(step.function, "loss.backward()") for op in graph.ops)
    # Eight parameters less one affine pair in two: weights, biases; Adam's two averages of each;
    # running mean, variance and count; the random state.
    parameters = len(list(model.parameters()))
    assert len(graph.updates) == 3 * parameters + 3 + 1
    assert "matmul" in str(graph)


def test_inputs_are_called_what_the_user_calls_them():
    step, _, _ = make_step()
    step(*batch())
    names = {x.name for x in step.versions[0].graph.inputs}
    assert {"x", "y", "0.weight", "1.running_mean", "3.bias", "random state"} <= names
    assert "0.weight exp_avg" in names
    assert "" not in {x.name for x in step.versions[0].graph.inputs if x.ndim}


def test_learning_rates_are_inputs_of_the_graph():
    step, _, _ = make_step()
    step(*batch())
    scalars = [x for x in step.versions[0].graph.inputs if x.shape == ()]
    assert scalars
    assert not any(
        np.isclose(float(array.flat[0]), 0.37)
        for array in step.versions[0].graph.constants.values() if array.size
    )  # fmt: skip


def test_constants_made_inside_are_computed_once():
    f = compiled(lambda x: x + cr.cumulative_sum(cr.ones((4,))) * 2)
    np.testing.assert_array_equal(f(cr.zeros((4,))).numpy(), [2, 4, 6, 8])
    assert [op.name for op in f.versions[0].graph.ops] == ["add"]


def test_numpy_arrays_from_outside_are_constants():
    outside = np.ones(3)
    f = compiled(lambda x: x + outside)
    x = cr.zeros((3,), dtype=cr.float64)
    np.testing.assert_array_equal(f(x).numpy(), 1)
    outside[:] = 7
    np.testing.assert_array_equal(f(x).numpy(), 1)
