"""Each rule does what it says, and no more than what holds for all numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from passing import B, D, F, G, N, assert_same, names, simplified

from chainrule.compiler.ir import Graph, Value, evaluate, verify
from chainrule.compiler.passes import PASSES, cleaning, rewrite, run
from chainrule.compiler.passes.rewrite import RULES, made_by
from chainrule.compiler.passes.rewrite import rewrite as apply
from chainrule.errors import IndexingError
from chainrule.primitives import elementwise as e
from chainrule.primitives import indexing, linalg, reduction
from chainrule.primitives import movement as m
from chainrule.primitives.checks import check

Z = (11, 11)  # every pair of special numbers occurs, with high probability

RULES_IN_WORDS: dict[str, tuple[Callable[[G], Value], list[str], float]] = {
    "x - 0": (lambda g: g.add(e.sub, x := g.x(*Z), g.full(0, x)), [], 0),
    "x + -0": (lambda g: g.add(e.add, g.full(-0.0, x := g.x(*Z)), x), [], 0),
    "x + 0 stays": (lambda g: g.add(e.add, x := g.x(*Z), g.full(0, x)), ["add"], 0),
    "n + 0": (lambda g: g.add(e.add, x := g.x(5, dtype=N), g.full(0, x)), [], 0),
    "1 x": (lambda g: g.add(e.mul, g.full(1, x := g.x(*Z)), x), [], 0),
    "-1 x": (lambda g: g.add(e.mul, g.full(-1, x := g.x(*Z)), x), ["neg"], 0),
    "0 x stays": (lambda g: g.add(e.mul, g.full(0, x := g.x(*Z)), x), ["mul"], 0),
    "x - x stays": (lambda g: g.add(e.sub, x := g.x(*Z), x), ["sub"], 0),
    "n - n": (lambda g: g.add(e.sub, x := g.x(5, dtype=N), x), [], 0),
    "-(-x)": (lambda g: g.add(e.neg, g.add(e.neg, g.x(*Z))), [], 0),
    "x + -y": (lambda g: g.add(e.add, g.x(*Z), g.add(e.neg, g.x(*Z))), ["sub"], 0),
    "x - -y": (lambda g: g.add(e.sub, g.x(*Z), g.add(e.neg, g.x(*Z))), ["add"], 0),
    "-x -y": (
        lambda g: g.add(e.mul, g.add(e.neg, g.x(*Z)), g.add(e.neg, g.x(*Z))), ["mul"], 0
    ),
    "x / 4": (lambda g: g.add(e.div, x := g.x(*Z), g.full(4, x)), ["mul"], 0),
    "x / 3 stays": (lambda g: g.add(e.div, x := g.x(*Z), g.full(3, x)), ["div"], 0),
    "x^0": (lambda g: g.add(e.pow, x := g.x(*Z), g.full(0, x)), [], 0),
    "x^1": (lambda g: g.add(e.pow, x := g.x(*Z), g.full(1, x)), [], 0),
    "x^2": (lambda g: g.add(e.pow, x := g.x(*Z), g.full(2, x)), ["mul"], 0),
    "x^3": (lambda g: g.add(e.pow, x := g.x(*Z), g.full(3, x)), ["mul", "mul"], 3e-7),
    "x^-1": (lambda g: g.add(e.pow, x := g.x(*Z), g.full(-1, x)), ["div"], 3e-7),
    "x^0.5": (
        lambda g: g.add(e.pow, x := g.x(*Z), g.full(0.5, x)), ["add", "eq", "where", "sqrt"], 3e-7
    ),
    "x^-0.5": (
        lambda g: g.add(e.pow, x := g.x(*Z), g.full(-0.5, x)),
        ["add", "eq", "where", "sqrt", "div"], 3e-7,
    ),
    "where true": (
        lambda g: g.add(e.where, g.constant(np.ones(Z, bool)), g.x(*Z), g.x(*Z)), [], 0
    ),
    "where c x x": (lambda g: g.add(e.where, g.x(*Z, dtype=B), x := g.x(*Z), x), [], 0),
    "where not c": (
        lambda g: g.add(e.where, g.add(e.logical_not, g.x(*Z, dtype=B)), g.x(*Z), g.x(*Z)),
        ["where"], 0,
    ),
    "max(x, x)": (lambda g: g.add(e.maximum, x := g.x(*Z), x), [], 0),
    "c and true": (
        lambda g: g.add(e.logical_and, c := g.x(*Z, dtype=B), g.full(True, c)), [], 0
    ),
    "c or true": (lambda g: g.add(e.logical_or, c := g.x(*Z, dtype=B), g.full(True, c)), [], 0),
    "cast to itself": (lambda g: g.add(e.cast, g.x(*Z), dtype=F), [], 0),
    "wide and back": (
        lambda g: g.add(e.cast, g.add(e.cast, g.x(*Z), dtype=D), dtype=F), [], 0
    ),
    "narrow and back stays": (
        lambda g: g.add(e.cast, g.add(e.cast, g.x(*Z, dtype=D), dtype=F), dtype=D),
        ["cast", "cast"], 0,
    ),
    "bool by way of float": (
        lambda g: g.add(e.cast, g.add(e.cast, g.x(*Z, dtype=B), dtype=F), dtype=N), ["cast"], 0
    ),
    "permute and back": (
        lambda g: g.add(m.permute, g.add(m.permute, g.x(2, 3, 4), axes=(1, 2, 0)), axes=(2, 0, 1)),
        [], 0,
    ),
    "permute of ones": (
        lambda g: g.add(m.permute, g.x(3, 1, 4), axes=(1, 0, 2)), ["reshape"], 0
    ),
    "reshapes": (
        lambda g: g.add(m.reshape, g.add(m.reshape, g.x(4, 6), shape=(24,)), shape=(2, 12)),
        ["reshape"], 0,
    ),
    "broadcasts": (
        lambda g: g.add(
            m.broadcast_to, g.add(m.broadcast_to, g.x(3, 1), shape=(3, 4)), shape=(2, 3, 4)
        ),
        ["broadcast_to"], 0,
    ),
    "compute, then repeat": (
        lambda g: g.add(e.mul, y := g.add(m.broadcast_to, g.x(3, 1), shape=(3, 9)), g.full(3, y)),
        ["mul", "broadcast_to"], 0,
    ),
    "slices": (
        lambda g: g.add(
            m.slice_, g.add(m.slice_, g.x(20), starts=(2,), lengths=(8,), steps=(2,)),
            starts=(1,), lengths=(3,), steps=(2,),
        ),
        ["slice"], 0,
    ),
    "slice out of padding": (
        lambda g: g.add(
            m.slice_, g.add(m.pad, g.x(4), widths=((2, 1, 1),), value=0),
            starts=(2,), lengths=(4,), steps=(2,),
        ),
        [], 0,
    ),
    "slice into padding stays": (
        lambda g: g.add(
            m.slice_, g.add(m.pad, g.x(4), widths=((2, 1, 0),), value=0),
            starts=(1,), lengths=(4,), steps=(1,),
        ),
        ["pad", "slice"], 0,
    ),
    "slice of a part": (
        lambda g: g.add(
            m.slice_, g.add(m.concat, g.x(3, 2), g.x(4, 2), axis=0),
            starts=(4, 0), lengths=(2, 2), steps=(1, 1),
        ),
        ["slice"], 0,
    ),
    "flip twice": (
        lambda g: g.add(m.flip, g.add(m.flip, g.x(3, 4), axes=(0, 1)), axes=(1,)), ["flip"], 0
    ),
    "pad by nothing": (lambda g: g.add(m.pad, g.x(3), widths=((0, 0, 0),), value=0), [], 0),
    "sum of sums": (
        lambda g: g.add(reduction.max, g.add(reduction.max, g.x(3, 4, 5), axes=(1,)), axes=(0,)),
        ["max"], 0,
    ),
    "sum over ones": (lambda g: g.add(reduction.sum, g.x(3, 1), axes=(1,)), ["reshape"], 1e-7),
    "transposed product": (
        lambda g: g.add(
            m.permute, g.add(linalg.matmul, g.add(m.permute, g.x(4, 3), axes=(1, 0)), g.x(4, 5)),
            axes=(1, 0),
        ),
        ["permute", "matmul"], 0,
    ),
    "transposed product of a column and a row": (
        lambda g: g.add(m.permute, g.add(linalg.matmul, g.x(4, 1), g.x(1, 5)), axes=(1, 0)),
        ["reshape", "reshape", "matmul"], 0,
    ),
    "set the whole": (
        lambda g: g.add(indexing.slice_set, g.x(3), g.x(3), starts=(0,), steps=(1,)), [], 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES_IN_WORDS)
def test_rules(rule: str):
    make, wanted, rtol = RULES_IN_WORDS[rule]
    before, after = simplified(make)
    assert names(after) == wanted, f"{before}\n{after}"
    assert_same(before, after, rtol)


def test_a_sum_of_repetitions_is_a_product():
    before, after = simplified(
        lambda g: g.add(reduction.sum, g.add(m.broadcast_to, g.x(3, 1), shape=(3, 8)), axes=(1,))
    )
    assert "sum" not in names(after) and "mul" in names(after)
    x = np.array([[0.1], [-2], [np.inf]], F)
    np.testing.assert_allclose(evaluate(after, [x]), evaluate(before, [x]), rtol=1e-6)


def test_many_products_with_one_right_side_are_one():
    def make(g):
        y = g.add(m.broadcast_to, g.x(4, 6), shape=(2, 3, 4, 6))
        return g.add(linalg.matmul, g.x(2, 3, 5, 4), y)

    before, after = simplified(make)
    (product,) = [op for op in after.ops if op.name == "matmul"]
    assert product.output.shape == (30, 6)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-4, 5, x.shape).astype(F) for x in before.inputs]
    np.testing.assert_array_equal(evaluate(after, arrays)[0], evaluate(before, arrays)[0])


def test_a_sum_of_products_is_one_product():
    def make(g):
        x = g.add(m.permute, g.x(3, 5, 4), axes=(0, 2, 1))
        return g.add(reduction.sum, g.add(linalg.matmul, x, g.x(3, 5, 6)), axes=(0,))

    before, after = simplified(make)
    assert names(after).count("matmul") == 1 and "sum" not in names(after)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-4, 5, x.shape).astype(F) for x in before.inputs]
    np.testing.assert_array_equal(evaluate(after, arrays)[0], evaluate(before, arrays)[0])


def test_the_derivative_of_softmax_reads_the_softmax_alone():
    g = G()
    x, up = g.x(5, 7), g.x(5, 7)

    def row(v):
        return g.add(m.broadcast_to, g.add(m.reshape, v, shape=(5, 1)), shape=(5, 7))

    powers = g.add(e.exp, x)
    total = row(g.add(reduction.sum, powers, axes=(1,)))
    z = g.add(e.div, powers, total)
    inner = g.add(reduction.sum, g.add(e.div, g.add(e.mul, up, z), total), axes=(1,))
    back = g.add(e.mul, g.add(e.sub, g.add(e.div, up, total), row(inner)), powers)
    g.outputs = [z, back]
    h = run(g, check=True)
    assert [op.name for op in h.users()[h.outputs[0].op.inputs[0]]] == ["sum", "div"]
    rng = np.random.default_rng(0)
    given = [rng.standard_normal((5, 7)).astype(F) for _ in range(2)]
    given[0][1] = 200  # infinite
    given[0][2] = -300  # 0 / 0
    for a, b in zip(evaluate(g, given), evaluate(h, given), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


# --- passes that are broken on purpose ------------------------------------------------------------


def _zero(g, op):
    x, y = op.inputs
    return g.full(0, x) if x is y else None


def _times_zero(g, op):
    y = op.inputs[1]
    return y if g.number(y) == 0 else None


def _plus_zero(g, op):
    x, y = op.inputs
    return x if g.number(y) == 0 else None


def _forget_transpose(g, op):
    (z,) = op.inputs
    if made_by(z, "matmul"):
        return g.make(linalg.matmul, *z.op.inputs) if z.shape[0] == z.shape[1] else None
    return None


def _swap_where(g, op):
    c, x, y = op.inputs
    return g.make(e.where, c.op.inputs[0], x, y) if made_by(c, "logical_not") else None


def _narrow_cast(g, op):
    (x,) = op.inputs
    if made_by(x, "cast") and x.op.inputs[0].dtype == op.params["dtype"]:
        return x.op.inputs[0]
    return None


def _flip_axes(g, op):
    (x,) = op.inputs
    if made_by(x, "flip"):
        return g.make(m.flip, x.op.inputs[0], axes=op.params["axes"])
    return None


def _reversed_permute(g, op):
    (x,) = op.inputs
    if made_by(x, "permute"):
        after = op.params["axes"]
        return g.make(m.permute, x.op.inputs[0], axes=tuple(after[a] for a in x.op.params["axes"]))
    return None


def rules(name: str, one: Any) -> Callable[[Graph], Graph]:
    return lambda graph: apply(graph, {name: [one]})


def forgetful_common(graph: Graph) -> Graph:
    """Common subexpressions that do not look at parameters."""
    known: dict[Any, Any] = {}
    replaced = {}
    for op in graph.ops:
        first = known.setdefault((op.name, op.inputs), op)
        if first is not op and first.output.spec == op.output.spec:
            replaced[op.output] = first.output
    return cleaning.rebuild(graph, graph.ops, replaced)


def eager_dead(graph: Graph) -> Graph:
    """Dead code that forgets checks."""
    read = {x for op in graph.ops for x in op.inputs} | set(graph.outputs)
    return cleaning.rebuild(graph, [op for op in graph.ops if set(op.outputs) & read])


def shuffled(graph: Graph) -> Graph:
    return Graph(
        graph.inputs, graph.constants, graph.ops[::-1], graph.outputs, graph.updates, graph.name
    )


BROKEN: dict[str, tuple[Callable[[Graph], Graph], Callable[[G], Value]]] = {
    "x - x = 0": (rules("sub", _zero), RULES_IN_WORDS["x - x stays"][0]),
    "0 x = 0": (
        rules("mul", _times_zero), lambda g: g.add(e.mul, x := g.x(*Z), g.full(0, x))
    ),
    "x + 0 = x": (rules("add", _plus_zero), RULES_IN_WORDS["x + 0 stays"][0]),
    "(x y)^T = x y": (
        rules("permute", _forget_transpose),
        lambda g: g.add(m.permute, g.add(linalg.matmul, g.x(3, 2), g.x(2, 3)), axes=(1, 0)),
    ),
    "where not c": (rules("where", _swap_where), RULES_IN_WORDS["where not c"][0]),
    "narrow and back": (
        rules("cast", _narrow_cast),
        lambda g: g.add(e.cast, g.add(e.cast, g.x(*Z, dtype=D), dtype=N), dtype=D),
    ),
    "flip": (rules("flip", _flip_axes), RULES_IN_WORDS["flip twice"][0]),
    "permute": (
        rules("permute", _reversed_permute),
        lambda g: g.add(
            m.permute, g.add(m.permute, g.x(3, 3, 3), axes=(1, 2, 0)), axes=(0, 2, 1)
        ),
    ),
    "common": (
        forgetful_common,
        lambda g: g.add(
            e.sub, g.add(m.flip, x := g.x(3, 3), axes=(0,)), g.add(m.flip, x, axes=(1,))
        ),
    ),
    "order": (shuffled, lambda g: g.add(e.exp, g.add(e.neg, g.x(3)))),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_passes_are_caught(broken: str):
    """What finds a defect here is what looks at every pass and program above and in the fuzzers."""
    one, make = BROKEN[broken]
    g = G()
    g.outputs = [make(g)]
    assert_same(g, run(g, check=True), rtol=1e-6)  # the passes as they are do not fail
    with pytest.raises((AssertionError, ValueError)):
        assert_same(g, verify(one(g)))


def test_a_pass_that_forgets_checks_is_caught():
    g = G()
    x = g.x(2, dtype=N)
    g.add(check, x, low=0, high=5, ignore=None, nan=False, refuse=lambda a: IndexingError("no"))
    g.outputs = [g.add(e.abs, x)]
    for made in (run(g), cleaning.dead(g)):
        with pytest.raises(IndexingError):
            evaluate(made, [np.array([1, 9])])
    assert names(eager_dead(g)) == ["abs"]


def test_passes_are_named_and_seen():
    g = G()
    g.outputs = [g.add(e.neg, g.add(e.neg, g.x(3)))]
    seen = []
    run(g, seen=lambda name, graph: seen.append((name, len(graph.ops))))
    assert [name for name, _ in seen] == [one.__name__ for one in PASSES]
    assert seen[1] == ("dead", 2) and seen[-1] == ("order", 0)
    assert all(RULES[name] for name in ("add", "reshape", "matmul", "gather"))
    assert rewrite.is_splat(np.broadcast_to(np.float32(1), (3, 3)))
