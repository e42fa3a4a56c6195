"""Native loops: values, threads, memory, and that they are native at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

import chainrule as cr
from chainrule import nn
from chainrule.compiler.looping import prepare
from chainrule.nn import functional
from chainrule.nn.functional import attention


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Built anew, with red zones; threads as before afterwards."""
    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    monkeypatch.setenv("CHAINRULE_REDZONES", "1")
    before = cr.get_num_threads()
    yield
    cr.set_num_threads(before)


def tensors(*shapes: tuple[int, ...], dtype: str = "f4") -> list[cr.Tensor]:
    rngs = [np.random.default_rng([i, *s]) for i, s in enumerate(shapes)]
    return [
        cr.asarray(r.standard_normal(s).astype(dtype)) for r, s in zip(rngs, shapes, strict=True)
    ]


def leaves(result: Any) -> list[Any]:
    return [x.detach() for x in cr.autograd.tree.flatten(result)[0]]


def gradients_of(function: Any, count: int) -> Any:
    """What a function returns, and the gradients of something in which all of it counts."""

    def scalar(*xs: Any) -> Any:
        result = function(*xs)
        parts = [y for y in cr.autograd.tree.flatten(result)[0] if y.dtype.kind == "f"]
        return sum((cr.sin(y) * (i + 1)).sum() for i, y in enumerate(parts)), result

    return lambda *xs: cr.value_and_grad(scalar, tuple(range(count)), has_aux=True)(*xs)


def families(compiled: Any) -> list[str]:
    """The families of the kernels of the version that was built last."""
    versions = compiled.versions
    return [k.family for k in versions[-1].launch.program.plan.schedule.kernels]


def check(function: Any, *inputs: Any, rtol: float, scans: int | None = None) -> None:
    """Native against eager, and bit for bit for one thread and for three."""
    cr.manual_seed(5)
    expected = leaves(function(*inputs))
    compiled = cr.compile(function, backend="native")
    found = []
    for threads in (1, 3, 1):
        cr.set_num_threads(threads)
        cr.manual_seed(5)
        found.append(leaves(compiled(*inputs)))
    for mine, other, third, wanted in zip(*found, expected, strict=True):
        np.testing.assert_array_equal(mine, other)
        np.testing.assert_array_equal(mine, third)
        scale = float(np.abs(np.asarray(wanted)).max()) if wanted.size else 0.0
        np.testing.assert_allclose(mine, wanted, rtol=rtol, atol=rtol * scale)
    names = families(compiled)
    assert "host" not in names
    if scans is not None:
        assert names.count("scan") == scans


TOLERANCE = {"f4": 2e-5, "f8": 1e-12}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("steps", "rows"), [(1, 16), (2, 3), (5, 24), (4, 31), (3, 1)])
def test_recurrence(steps: int, rows: int, reverse: bool, dtype: str) -> None:
    def loop(w: Any, h: Any, xs: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = cr.tanh(h @ w + x)
            return h, h * x

        return cr.scan(step, h, xs, reverse=reverse)

    inputs = tensors((5, 5), (rows, 5), (steps, rows, 5), dtype=dtype)
    check(gradients_of(loop, 3), *inputs, rtol=TOLERANCE[dtype], scans=2)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("rows", [16, 5])
def test_layers(name: str, rows: int) -> None:
    layer = getattr(nn, name)(6, 7)
    (x,) = tensors((9, rows, 6))
    check(gradients_of(lambda x: layer(x), 1), x, rtol=2e-5, scans=2)


def test_rows_are_cut_through_loops_in_loops() -> None:
    """Runs of steps that are computed again on the way back, for some sequences each."""

    def loop(w: Any, h: Any, xs: Any) -> Any:
        return cr.scan(lambda h, x: (cr.tanh(h @ w + x),) * 2, h, xs, checkpoint=3)

    inputs = tensors((5, 5), (16, 5), (8, 16, 5))
    check(gradients_of(loop, 3), *inputs, rtol=2e-5, scans=4)
    compiled = cr.compile(gradients_of(loop, 3), backend="native")
    compiled(*inputs)
    (version,) = compiled.versions
    kernels = version.launch.program.plan.schedule.kernels
    # The last adds up the weights' gradient over the runs, for all sequences together.
    assert [k.units for k in kernels if k.family == "scan"] == [2, 2, 2, 1]


def test_rows_are_cut() -> None:
    """Sequences of a batch go to different threads; the weights' gradient waits for the end."""
    layer = nn.LSTM(6, 7)
    (x,) = tensors((9, 32, 6))
    compiled = cr.compile(gradients_of(lambda x: layer(x), 1), backend="native")
    compiled(x)
    (version,) = compiled.versions
    loops = [
        k for k in version.launch.program.plan.schedule.kernels if k.family == "scan"
    ]  # fmt: skip
    assert [k.units for k in loops] == [4, 4]
    for k in loops:
        (part,) = k.parts
        assert [op.name for op in part.loop.body.ops].count("matmul") == 1


@pytest.mark.parametrize(("rows", "parts"), [(3, [3]), (7, [4, 3]), (33, [9, 8]), (37, [10, 9])])
def test_units_differ_by_one_row(rows, parts) -> None:
    """Whatever the number of sequences, there are as many units as for those near it."""
    layer = nn.GRU(5, 6)
    (x,) = tensors((4, rows, 5))
    check(gradients_of(lambda x: layer(x)[0], 1), x, rtol=2e-5, scans=2)
    compiled = cr.compile(gradients_of(lambda x: layer(x)[0], 1), backend="native")
    compiled(x)
    (version,) = compiled.versions
    for k in version.launch.program.plan.schedule.kernels:
        if k.family == "scan":
            assert [part.loop.carry[0].shape[0] for part in k.parts] == parts
            assert sum(p.units * p.loop.carry[0].shape[0] for p in k.parts) == rows


LOOPS = {
    "without xs": lambda a, b: cr.scan(lambda c, _: (c * 0.5 + b, c), a, length=4),
    "carries that stay": lambda a, b: cr.scan(
        lambda c, _: ((c[0] + c[1], c[1]), c[1]), (a, b), length=3
    ),
    "carries that change places": lambda a, b: cr.scan(
        lambda c, _: ((c[1], c[0]), None), (a, b), length=5
    ),
    "one value twice": lambda a, b: cr.scan(
        lambda c, _: ((c[0] + c[1],) * 2, (c[0] + c[1], c[0])), (a, b), length=3
    ),
    "a constant carry": lambda a, b: cr.scan(
        lambda c, x: (cr.ones_like(c), c + x), cr.zeros((8, 3)), cr.stack([a, b])
    ),
    "a counter": lambda a, b: cr.scan(
        lambda c, x: ((c[0] * x, c[1] + 1), c[1]), (a, 0), cr.stack([a, b])
    ),
    "no carry": lambda a, b: cr.scan(lambda c, x: (c, cr.exp(x) * b), (), cr.stack([a, b, a])),
    "sums over rows": lambda a, b: cr.scan(
        lambda c, x: (c + cr.sum(x * b, axis=0), cr.max(x, axis=1)), a[0], cr.stack([a, b])
    ),
    "a matrix that is carried": lambda a, b: cr.scan(
        lambda c, x: (c + cr.matmul(x.T, b), cr.matmul(b, c)), cr.eye(3, dtype=a.dtype),
        cr.stack([a, b]),
    ),
    "outer loop": lambda a, b: cr.scan(
        lambda c, x: cr.scan(lambda c, y: (c * y + b, c), c, cr.stack([x, x + 1])), a,
        cr.stack([a, b, b]),
    ),
    "checkpoints": lambda a, b: cr.scan(
        lambda c, x: (cr.tanh(c * x + b), c), a, cr.stack([a, b, b, a, a]), checkpoint=2
    ),
    "truncated": lambda a, b: cr.scan(
        lambda c, x: (cr.tanh(c * x + b), c), a, cr.stack([a, b, b, a, a]), truncate=2
    ),
    "draws": lambda a, b: cr.scan(
        lambda c, x: (c + functional.dropout(x, 0.5), None), a, cr.stack([a, b, a])
    ),
    "a choice": lambda a, b: cr.cond(
        cr.sum(a) > 0, lambda x: (cr.sin(x) * b, b), lambda x: (x * x, x), a
    ),
    "a choice at each step": lambda a, b: cr.scan(
        lambda c, x: cr.cond(
            cr.sum(x) > 0, lambda c: (cr.tanh(c * b), c), lambda c: (c + b @ b.T @ x, x), c
        ), a, cr.stack([a, b, -a, -b]),
    ),
    "a loop in a choice": lambda a, b: cr.cond(
        cr.sum(a) < 100, lambda: cr.scan(lambda c, x: (c * x + b, c), a, cr.stack([a, b]))[0],
        lambda: b,
    ),
    "lookups": lambda a, b: cr.scan(
        lambda c, i: (c + cr.take(b, i, axis=0), None), a, cr.asarray([[0, 3] * 4, [7, 1] * 4])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_loops_of_all_kinds(name: str) -> None:
    inputs = tensors((8, 3), (8, 3), dtype="f8")
    check(LOOPS[name], *inputs, rtol=1e-12)
    check(gradients_of(LOOPS[name], 2), *inputs, rtol=1e-11)


def test_convolutions_and_windows_inside() -> None:
    w, h, xs = tensors((4, 4, 3, 3), (2, 4, 6, 6), (3, 2, 4, 6, 6), dtype="f8")

    def loop(w: Any, h: Any, xs: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = cr.tanh(functional.conv2d(h, w, padding=1) + functional.conv2d(x, w.mT, padding=1))
            return h, functional.max_pool2d(h, 2)

        return cr.scan(step, h, xs)

    check(gradients_of(loop, 3), w, h, xs, rtol=1e-11, scans=2)


@pytest.mark.parametrize("steps", [1, 4])
def test_what_a_step_refuses_is_refused(steps: int) -> None:
    """Labels inside a loop, also in a loop in a loop; state stays as it was."""
    scores = cr.zeros((steps, 2, 3))
    seen = cr.zeros(())

    def loss(labels: Any) -> Any:
        def inner(c: Any, x: Any) -> Any:
            return c + functional.cross_entropy(*x), None

        def outer(c: Any, labels: Any) -> Any:
            return cr.scan(inner, c, (scores, labels))

        with cr.no_grad():
            seen.copy_(seen + 1)
        return cr.scan(outer, 0.0, labels)[0]

    compiled = cr.compile(loss, backend="native")
    good = np.zeros((2, steps, 2), "i8")
    wanted = 2 * steps * np.log(3)
    assert float(compiled(cr.asarray(good))) == pytest.approx(wanted, rel=1e-5)
    bad = good.copy()
    bad[1, steps - 1, 0] = 7
    with pytest.raises(IndexError, match="label 7"):
        compiled(cr.asarray(bad))
    assert float(seen) == 1
    assert float(compiled(cr.asarray(good))) == pytest.approx(wanted, rel=1e-5)
    assert "host" not in families(compiled)


WHILES = {
    "numbers": lambda a, b: cr.while_loop(
        lambda c: c[1] > 1.0, lambda c: (c[0] + 1, c[1] / 2), (0, cr.max(cr.abs(a)) * 100)
    ),
    "never": lambda a, b: cr.while_loop(lambda c: cr.sum(c) > 1e9, lambda c: c * 2, a),
    "matrices": lambda a, b: cr.while_loop(
        lambda c: cr.sum(c[0] ** 2) < 1e6, lambda c: (c[0] @ (b.T @ b) + c[1], c[0]), (a, b)
    ),
    "change places": lambda a, b: cr.while_loop(
        lambda c: c[2] < 5, lambda c: (c[1], c[0], c[2] + 1), (a, b, 0)
    ),
    "draws": lambda a, b: cr.while_loop(
        lambda c: c[1] < 3.0, lambda c: (c[0] + 1, c[1] + cr.random.uniform(())), (0, 0.0)
    ),
    "a loop inside": lambda a, b: cr.while_loop(
        lambda c: cr.sum(c) < 50.0,
        lambda c: cr.scan(lambda c, x: (c + x * x, None), c, cr.stack([a, b]))[0], a,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHILES)
def test_loops_of_unknown_length(name: str) -> None:
    check(WHILES[name], *tensors((8, 3), (8, 3), dtype="f8"), rtol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_blocks(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "WHOLE", 0)
    monkeypatch.setattr(attention, "BLOCK", 8)
    inputs = tensors((2, 3, 24, 4), (2, 3, 16, 4), (2, 3, 16, 5))
    check(
        gradients_of(
            lambda *a: functional.scaled_dot_product_attention(*a, is_causal=causal), 3
        ), *inputs, rtol=2e-5, scans=2,
    )  # fmt: skip


def test_a_loop_that_cannot_be_native_runs_in_numpy() -> None:
    def loop(x: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            z = cr.astype(c.detach(), cr.complex64) * (1 + 2j)
            return c + x, cr.real(z) + cr.imag(z)

        return cr.scan(step, x[0], x)

    (x,) = tensors((4, 3))
    compiled = cr.compile(loop, backend="native")
    for mine, other in zip(leaves(compiled(x)), leaves(loop(x)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6)
    assert "host" in families(compiled)


def test_code_does_not_grow_with_the_number_of_steps() -> None:
    from chainrule.compiler import build
    from chainrule.compiler.native.target import host

    sizes = []
    for n in (10, 1000):
        layer = nn.GRU(3, 4)
        (x,) = tensors((n, 8, 3))
        compiled = cr.compile(gradients_of(lambda x, f=layer: f(x)[0], 1), backend="native")
        compiled(x)
        (version,) = compiled.versions
        planned = version.launch.program.plan
        loops = [k for k in planned.schedule.kernels if k.family == "scan"]
        text = build.text(planned, host())
        sizes.append((len(loops), sum(line.startswith("define") for line in text.splitlines())))
    assert sizes[0][0] == 2
    assert abs(sizes[0][1] - sizes[1][1]) <= 4  # what lies outside may be cut otherwise


def test_axes_that_cannot_be_cut_are_not() -> None:
    """A running mean over the batch mixes rows."""

    def loop(h: Any, xs: Any) -> Any:
        return cr.scan(lambda h, x: (h + x - cr.mean(x, axis=0), None), h, xs)[0]

    h, xs = tensors((16, 300), (4, 16, 300))
    seen = []
    with cr.graph.observe(lambda p, i, o, params: seen.append((p, params, i, o))):
        loop(h, xs)
    from chainrule.compiler.ir import Op, Value
    from chainrule.graph import Spec

    (found,) = [s for s in seen if s[0].name == "scan"]
    op = Op(found[0], [Value(Spec(x.shape, x.dtype)) for x in found[2]], found[1])
    (prepared,) = prepare(op)
    assert prepared.count == 4  # columns, and not rows
    assert next(iter(prepared.axes.values())) == 1
