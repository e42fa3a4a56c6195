"""Training loops as people write them, compiled: the same as eagerly."""

from __future__ import annotations

import functools
import sys
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ChainruleWarning

compiled = cr.compile
F = nn.functional


@pytest.fixture(autouse=True, params=["numpy", "native"])
def backend(request, monkeypatch):
    """Each test runs on both: the graph operation by operation, and native code."""
    monkeypatch.setattr(
        sys.modules[__name__], "compiled", functools.partial(cr.compile, backend=request.param)
    )


def numbers(shape, seed=0):
    return cr.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def test_gradients_accumulate_over_calls():
    def train(wrap):
        cr.manual_seed(0)
        model = nn.Linear(5, 3)
        opt = optim.SGD(model.parameters(), lr=0.1)

        def accumulate(x, y):
            loss = F.mse_loss(model(x), y) / 3
            loss.backward()
            return loss

        def apply():
            opt.step()
            opt.zero_grad()

        accumulate, apply = wrap(accumulate), wrap(apply)
        losses = []
        for i in range(9):
            losses.append(float(accumulate(numbers((4, 5), i), numbers((4, 3), i + 100))))
            assert all(p.grad is not None for p in model.parameters())
            if i % 3 == 2:
                apply()
                assert all(p.grad is None for p in model.parameters())
        return losses, [p.detach().numpy() for p in model.parameters()]

    eager, ours = train(lambda f: f), train(compiled)
    np.testing.assert_allclose(ours[0], eager[0], rtol=1e-5)
    for a, b in zip(eager[1], ours[1], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def scanned(wrap, body, dtype="float32"):
    w = cr.asarray(np.random.default_rng(1).normal(size=(3, 3)).astype(dtype)).requires_grad_()
    xs = numbers((5, 3)).astype(dtype)
    last, ys = wrap(lambda xs, h: cr.scan(functools.partial(body, w), h, xs))(xs, xs[0] * 0)
    (cr.sum(last) + cr.sum(ys)).backward()
    return [last.detach(), ys.detach(), w.grad]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_body_of_a_loop_hands_out_another_view_of_what_it_goes_on_with(dtype):
    """The product reads z as a row of one; the output is such a row too, and written later."""

    def body(w, h, x):
        z = (h + 1) * (1 - x * x)
        return z @ w, z.reshape((1, 3))

    for a, b in zip(scanned(lambda f: f, body, dtype), scanned(compiled, body, dtype), strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-4)


def test_a_recurrence_of_a_single_vector():
    def body(w, h, x):
        h = cr.tanh(h @ w + x)
        return h, h * 2

    for a, b in zip(scanned(lambda f: f, body), scanned(compiled, body), strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-4, atol=1e-5)


FACTOR = 2.0


class Scaled(nn.Module):
    """What `forward` reads beside parameters: a global, a dictionary, an object, a plain tensor."""

    class Settings:
        shift = 1.0

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.table = {"scale": 2.0}
        self.settings = self.Settings()
        self.mask = cr.asarray([1.0, 0.0, 1.0])
        self.more = [nn.Linear(3, 3)]

    def forward(self, x):
        for layer in self.more:
            x = layer(x)
        return self.scaled(self.linear(x)) * self.mask * FACTOR

    def scaled(self, x):
        return x * self.table["scale"] + self.settings.shift


def test_what_a_module_reads_is_looked_at(monkeypatch):
    model, x = Scaled(), numbers((2, 3))
    module, function, method = compiled(model), compiled(lambda x: model(x)), compiled(model.scaled)

    def check():
        for ours, eager in ((module, model), (function, model), (method, model.scaled)):
            np.testing.assert_allclose(
                ours(x).detach().numpy(), eager(x).detach().numpy(), rtol=1e-5, atol=1e-6
            )

    check()
    model.table["scale"] = 3.0
    check()
    model.settings.shift = 5.0
    check()
    model.mask = cr.asarray([0.0, 1.0, 1.0])
    check()
    model.more.append(nn.Linear(3, 3))
    check()
    model.linear = nn.Linear(3, 3)
    check()
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 7.0)
    check()
    traces = module.traces, function.traces, method.traces
    check()
    assert (module.traces, function.traces, method.traces) == traces


@pytest.mark.parametrize("enter", ["_enter_keeping_lock", "_enter"])
@pytest.mark.parametrize("usual", [True, False])
def test_ctrl_c_while_state_is_written_leaves_a_whole_step(enter, usual):
    """The tensors are written by then; counters and gradients must not stay behind."""

    def make():
        cr.manual_seed(0)
        model = nn.Linear(4, 2)
        opt = optim.Adam(model.parameters(), lr=0.1)

        def step(x):
            opt.zero_grad()
            loss = cr.mean(model(x) ** 2)
            loss.backward()
            opt.step()
            return loss

        return model, opt, step

    x = numbers((3, 4))
    model, opt, step = make()
    twin, other, eager = make()
    compiled_step = cr.compile(step)
    step = compiled_step if usual else lambda x: compiled_step(x=x)
    for _ in range(3):
        step(x)
        eager(x)
    program = compiled_step.versions[0].launch.program
    program._prepare()
    (segment,) = program._parts
    segment.short = segment.settled = enter == "_enter_keeping_lock"
    plain = getattr(program, enter)

    def interrupted(*arguments):
        while plain(*arguments):
            pass
        setattr(program, enter, plain)
        raise KeyboardInterrupt

    setattr(program, enter, interrupted)
    with pytest.raises(KeyboardInterrupt):
        step(x)
    for _ in range(2):
        eager(x)
    step(x)
    assert compiled_step.traces == 1
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-4)
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-3, atol=1e-6)
        assert opt.state[p]["step"] == other.state[q]["step"] == 5


def test_refused_values_name_the_layer_and_the_users_line():
    model = nn.Sequential(nn.Sequential(nn.Embedding(5, 4), nn.Flatten()), nn.Linear(8, 3))
    loss = nn.CrossEntropyLoss()
    good = cr.asarray([[0, 1], [2, 3]]), cr.asarray([0, 2])
    step = compiled(lambda x, y: loss(model(x), y))
    step(*good)
    for bad in ((cr.asarray([[0, 1], [2, 5]]), good[1]), (good[0], cr.asarray([0, 3]))):
        said = []
        for function in (step.function, step):
            with pytest.raises(cr.errors.IndexingError) as caught:
                function(*bad)
            said.append(str(caught.value))
        assert said[0] == said[1]
        assert "in layer " in said[0]
        assert __file__ in said[0]
    trainer = cr.Trainer(model, optim.SGD(model.parameters(), lr=0.1), loss=loss)
    batches = cr.data.DataLoader(cr.data.TensorDataset(cr.asarray([[9, 9]]), good[1][:1]))
    with pytest.raises(cr.errors.IndexingError, match=f"in layer '0.0'.*{__file__}"):
        trainer.fit(batches, epochs=1)


def test_filling_a_container_outside_warns_at_the_users_line():
    kept, seen = [], {"n": set()}

    def step(x):
        kept.append(1.0)
        return x * 2

    def other(x):
        seen["n"].add(x.shape)
        kept.index(1.0)
        return x

    step = compiled(step)
    with pytest.warns(ChainruleWarning, match="step changed kept while it was compiled") as caught:
        step(cr.ones((2,)))
    assert [w.filename for w in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(cr.ones((2,)))
        compiled(lambda x: x * len(kept))(cr.ones((2,)))
        compiled(other)(cr.ones((2,)))
    assert len(kept) == 1


def test_writing_to_a_numpy_array_outside_warns_at_the_users_line():
    count, table = np.zeros(3), np.arange(3.0)

    def step(x):
        count[0] += 1
        return x * cr.asarray(table)

    step = compiled(step)
    with pytest.warns(ChainruleWarning, match="step changed count while it was compiled") as caught:
        step(cr.ones((3,)))
    assert [w.filename for w in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(cr.ones((3,)))
    assert count[0] == 1
