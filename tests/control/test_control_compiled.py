"""Loops, choices and the layers on them inside compiled functions: as outside of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.nn import functional
from chainrule.nn.functional import attention
from chainrule.nn.utils import rnn


def rng(seed: int = 0) -> Any:
    return np.random.default_rng(seed)


def tensors(*shapes: tuple[int, ...], dtype: str = "f8") -> list[cr.Tensor]:
    return [cr.asarray(rng(i).standard_normal(s).astype(dtype)) for i, s in enumerate(shapes)]


def assert_same(ours: Any, theirs: Any, rtol: float = 1e-11) -> None:
    for x, y in zip(
        cr.autograd.tree.flatten(ours)[0], cr.autograd.tree.flatten(theirs)[0], strict=True
    ):
        np.testing.assert_allclose(
            np.asarray(x.detach()), np.asarray(y.detach()), rtol=rtol, atol=rtol
        )


def trained(make: Any, inputs: list[Any], compiled: bool, steps: int = 4) -> Any:
    """Losses, weights and random state after a few steps."""
    cr.manual_seed(7)
    model, loss_of = make()
    model.double()
    opt = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

    def step(*inputs: Any) -> Any:
        opt.zero_grad()
        loss = loss_of(model, *inputs)
        loss.backward()
        opt.step()
        return loss

    run = cr.compile(step) if compiled else step
    losses = [run(*inputs).detach() for _ in range(steps)]
    state = cr.asarray(cr.random.get_state().astype("i8"))
    return losses, [p.detach() for p in model.parameters()], state


def outputs(y: Any) -> Any:
    y = y[0] if isinstance(y, tuple) else y
    return (y**2).mean()


def attended(model: Any, x: Any) -> Any:
    mask = cr.triu(cr.ones((x.shape[0],) * 2, dtype=cr.bool), k=1)
    return outputs(model(x, x, x, attn_mask=mask, need_weights=False, is_causal=True))


MODELS = {
    "rnn": lambda: (nn.RNN(3, 4, 2, "relu"), lambda m, x: outputs(m(x))),
    "lstm": lambda: (nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), lambda m, x: outputs(m(x))),
    "gru with dropout": lambda: (nn.GRU(3, 4, 3, dropout=0.5), lambda m, x: outputs(m(x))),
    "cell": lambda: (nn.LSTMCell(3, 4), lambda m, x: outputs(m(x[0], m(x[1])))),
    "attention": lambda: (nn.MultiheadAttention(3, 3, dropout=0.2), attended),
    "packed": lambda: (
        nn.GRU(3, 4),
        lambda m, x: outputs(rnn.pad_packed_sequence(m(rnn.pack_padded_sequence(x, [6, 3]))[0])),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_training_steps_are_the_same(name: str) -> None:
    inputs = tensors((6, 2, 3))
    assert_same(trained(MODELS[name], inputs, True), trained(MODELS[name], inputs, False))


def both(function: Any, *inputs: Any) -> None:
    """A function, its gradient and the gradient of that, compiled and not."""
    argnums = tuple(range(len(inputs)))

    def scalar(*xs: Any) -> Any:
        leaves = cr.autograd.tree.flatten(function(*xs))[0]
        return sum((cr.sin(y) * (i + 1)).sum() for i, y in enumerate(leaves))

    def gradient(*xs: Any) -> Any:
        return cr.grad(scalar, argnums)(*xs)

    def second(*xs: Any) -> Any:
        return cr.grad(lambda *a: sum((g**3).sum() for g in gradient(*a)), argnums)(*xs)

    for f in (function, gradient, second):
        cr.manual_seed(3)
        expected, state = f(*inputs), cr.random.get_state()
        compiled = cr.compile(f)
        for _ in range(2):
            cr.manual_seed(3)
            assert_same(compiled(*inputs), expected)
            np.testing.assert_array_equal(cr.random.get_state(), state)
        assert compiled.traces == 1


@pytest.mark.parametrize("how", [{}, {"reverse": True}, {"checkpoint": 2}, {"truncate": 3}])
def test_scan(how: dict[str, Any]) -> None:
    def loop(w: Any, h: Any, xs: Any) -> Any:
        return cr.scan(lambda h, x: (cr.tanh(h @ w + x),) * 2, h, xs, **how)

    both(loop, *tensors((3, 3), (2, 3), (5, 2, 3)))


def test_scan_that_draws() -> None:
    def loop(xs: Any) -> Any:
        return cr.scan(lambda h, x: (h + functional.dropout(x * h, 0.5),) * 2, xs[0], xs)

    both(loop, *tensors((5, 2, 3)))


def test_cond_and_while_loop() -> None:
    def choose(x: Any, y: Any) -> Any:
        return cr.cond(cr.sum(x) > 0, lambda x: cr.sin(x) * y, lambda x: x * x, x)

    x, y = tensors((3,), (3,))
    both(choose, x, y)
    both(choose, -x, y)
    compiled = cr.compile(choose)
    assert_same([compiled(x, y), compiled(-x, y)], [choose(x, y), choose(-x, y)])
    assert compiled.traces == 1

    def halved(x: Any) -> Any:
        return cr.while_loop(lambda c: c[1] > 1.0, lambda c: (c[0] + 1, c[1] / 2), (0, x))

    compiled = cr.compile(halved)
    for start in (100.0, 3.0, 0.5):
        assert_same(compiled(cr.asarray(start)), halved(cr.asarray(start)))
    assert compiled.traces == 1


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_blocks(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "WHOLE", 0)
    monkeypatch.setattr(attention, "BLOCK", 2)
    both(
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=causal),
        *tensors((2, 5, 3), (2, 4, 3), (2, 4, 2)),
    )


def test_numbers_from_outside_may_change_between_calls() -> None:
    """A learning rate used inside a loop's body is no constant."""
    opt = optim.SGD([nn.Parameter(cr.ones(1))], lr=0.5)

    def descend(x: Any) -> Any:
        rate = opt.param_groups[0]["lr"]
        return cr.scan(lambda c, _: (c - rate * 2 * c, None), x, length=3)[0]

    compiled = cr.compile(descend)
    for rate in (0.5, 0.25, 0.1):
        opt.param_groups[0]["lr"] = rate
        assert_same([compiled(cr.asarray(1.0))], [cr.asarray((1 - 2 * rate) ** 3)], rtol=1e-6)
    assert compiled.traces == 1


def test_the_program_is_as_large_for_a_thousand_steps() -> None:
    sizes = []
    for n in (10, 1000):
        (x,) = tensors((n, 2, 3), dtype="f4")
        seen = []
        model = nn.LSTM(3, 4)

        @cr.compile
        def step(x: Any, model: Any = model) -> Any:
            loss = (model(x)[0] ** 2).mean()
            loss.backward()
            return loss

        step(x)
        versions = step.versions
        seen = [op.name for op in versions[0].graph.ops]
        assert seen.count("scan") == 2
        sizes.append(len(seen))
    assert sizes[0] == sizes[1]


def test_a_bad_step_inside_a_compiled_loop_names_the_line() -> None:
    @cr.compile
    def peeking(x: Any) -> Any:
        return cr.scan(lambda c, x: (c + float(c), None), x[0], x)

    with pytest.raises(cr.errors.TraceError, match="test_control_compiled"):
        peeking(cr.ones((3,)))
    assert float(cr.scan(lambda c, x: (c + x, None), 0.0, cr.ones(3))[0]) == 3
