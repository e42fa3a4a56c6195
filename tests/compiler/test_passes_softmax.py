"""The derivative of softmax, put together from those of e^x, sum and division, needs only z."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.ir import Graph, evaluate, verify
from chainrule.compiler.passes import run
from chainrule.graph import Spec
from chainrule.primitives import elementwise as e
from chainrule.primitives import movement as m
from chainrule.primitives import reduction as r

SHAPE = (3, 4, 5)


def spread(g, x, axis):
    kept = tuple(1 if a == axis else n for a, n in enumerate(SHAPE))
    return g.add(m.broadcast_to, g.add(m.reshape, x, shape=kept), shape=SHAPE)


def derivative(axis, other_axis=None, negated="before"):
    """d(softmax(x)) as each operation's rule gives it; with `other_axis` it is something else."""
    g = Graph()
    x, d = (g.input(Spec(SHAPE, np.dtype("float64"))) for _ in range(2))
    powers = g.add(e.exp, x)
    s = spread(g, g.add(r.sum, powers, axes=(axis,)), axis)
    z = g.add(e.div, powers, s)
    if negated == "before":
        share = g.add(e.mul, g.add(e.neg, d), z)
    else:
        share = g.add(e.neg, g.add(e.mul, z, d))
    over = axis if other_axis is None else other_axis
    total = spread(g, g.add(r.sum, g.add(e.div, share, s), axes=(over,)), over)
    whole = g.add(e.add, g.add(e.div, d, s), total)
    g.outputs = [z, g.add(e.mul, whole, powers)]
    return g


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("negated", ["before", "after"])
def test_the_powers_are_read_once(axis, negated):
    graph = derivative(axis, negated=negated)
    better = verify(run(graph, check=True))
    assert [op.name for op in better.ops].count("div") == 1
    powers = next(op.output for op in better.ops if op.name == "exp")
    assert len(better.users()[powers]) == 2  # the sum and the quotient
    arrays = [np.random.default_rng(i).normal(size=SHAPE) for i in range(2)]
    for got, want in zip(evaluate(better, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


def test_other_sums_stay():
    graph = derivative(2, other_axis=1)
    better = run(graph, check=True)
    assert [op.name for op in better.ops].count("div") == 3
    arrays = [np.random.default_rng(i).normal(size=SHAPE) for i in range(2)]
    for got, want in zip(evaluate(better, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)
