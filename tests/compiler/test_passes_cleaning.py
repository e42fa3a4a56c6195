"""Folding, common subexpressions, dead code, the order of operations, indices."""

from __future__ import annotations

import numpy as np
import pytest
from passing import F, G, N, names

from chainrule.compiler.ir import Value, evaluate, verify
from chainrule.compiler.passes import cleaning, folding, run
from chainrule.errors import IndexingError
from chainrule.primitives import elementwise as e
from chainrule.primitives import indexing, reduction
from chainrule.primitives import movement as m
from chainrule.primitives.checks import check


def test_constants_are_folded_and_numbers_stored_once():
    g = G()
    x = g.x(300, 300)
    two = g.add(e.add, g.full(1, x), g.full(1, x))
    table = g.add(e.mul, c := g.constant(np.arange(4, dtype=F)), c)
    g.outputs = [g.add(e.mul, x, two), table]
    h = verify(folding.fold(g))
    assert names(h) == ["mul"]
    (filled,) = [array for value, array in h.constants.items() if value in h.ops[0].inputs]
    assert filled.strides == (0, 0) and filled[0, 0] == 2
    np.testing.assert_array_equal(h.constants[h.outputs[1]], [0, 1, 4, 9])


def test_large_results_are_not_folded():
    g = G()
    line = g.constant(np.arange(1 << 15, dtype=F))
    g.outputs = [g.add(m.concat, line, line, axis=0)]
    assert names(folding.fold(g)) == ["concat"]


def test_what_would_be_refused_is_left_to_the_program():
    g = G()
    bad = g.constant(np.array([7]))
    g.outputs = [g.add(indexing.ravel_index, bad, dims=(3,))]
    assert names(folding.fold(g)) == ["ravel_index"]


def test_equal_operations_are_done_once_and_different_ones_are_kept():
    g = G()
    x = g.x(4, 4)
    a, b = (g.add(m.permute, x, axes=(1, 0)) for _ in range(2))
    c = g.add(m.permute, x, axes=(0, 1))
    zeros = [g.add(m.pad, x, widths=((1, 0, 0),) * 2, value=v) for v in (0.0, -0.0)]
    g.outputs = [g.add(e.add, a, b), c, *zeros]
    h = verify(cleaning.common(g))
    assert names(h) == ["permute", "permute", "pad", "pad", "add"]
    assert h.ops[-1].inputs[0] is h.ops[-1].inputs[1]


def test_dead_code_goes_but_checks_stay():
    g = G()
    x = g.x(3, dtype=N)
    g.add(e.neg, g.add(e.neg, x))
    g.add(check, x, low=0, high=5, ignore=None, nan=False, refuse=ValueError)
    g.outputs = [g.add(e.abs, x)]
    assert names(cleaning.dead(g)) == ["check", "abs"]


def test_checks_come_first():
    g = G()
    x = g.x(3, dtype=N)
    y = g.add(e.abs, x)
    z = g.add(e.neg, x)
    g.add(check, z, low=0, high=5, ignore=None, nan=False, refuse=ValueError)
    g.outputs = [y]
    assert names(verify(cleaning.order(g))) == ["neg", "check", "abs"]


# --- indices --------------------------------------------------------------------------------------


def picking(g: G, labels: Value, classes: int) -> Value:
    """exp(x)[n, labels[n]], as take_along_axis writes it down."""
    n = labels.shape[0]
    rows = g.add(e.exp, g.x(n, classes))
    counted = g.constant(np.arange(n).reshape(n, 1))
    column = g.add(m.reshape, labels, shape=(n, 1))
    flat = g.add(indexing.ravel_index, counted, column, dims=(n, classes))
    return g.add(indexing.gather, g.add(m.reshape, rows, shape=(n * classes,)), flat)


def test_picking_a_label_needs_no_gather_and_still_refuses_what_is_outside():
    g = G()
    labels = g.x(4, dtype=N)
    g.outputs = [picking(g, labels, 3)]
    h = run(g, check=True)
    assert "gather" not in names(h) and "ravel_index" not in names(h)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(F)
    for good in ([0, 2, 1, 1], [-1, -3, 0, 2]):
        a = evaluate(g, [np.array(good), x])
        np.testing.assert_array_equal(evaluate(h, [np.array(good), x]), a)
    for bad in ([0, 3, 0, 0], [0, 0, -4, 0]):
        with pytest.raises(IndexingError):
            evaluate(h, [np.array(bad), x])


def test_the_sum_of_a_derivative_of_picking_needs_no_sum():
    """Of the derivative of the label's score, in the derivative of a log-softmax."""
    g = G()
    labels, up = g.x(4, dtype=N), g.x(4, 1)
    counted = g.constant(np.arange(4).reshape(4, 1))
    column = g.add(m.reshape, labels, shape=(4, 1))
    flat = g.add(indexing.ravel_index, counted, column, dims=(4, 3))
    spread = g.add(indexing.scatter_add, up, flat, length=12)
    rows = g.add(m.reshape, spread, shape=(4, 3))
    g.outputs = [
        g.add(reduction.sum, rows, axes=(1,)),
        g.add(reduction.sum, g.add(e.neg, rows), axes=(1,)),
        g.add(reduction.sum, rows, axes=(0,)),
    ]
    h = run(g, check=True)
    assert names(h).count("sum") == 1 and "scatter_add" not in names(h)
    given = [np.array([0, -1, 2, 1]), np.array([[1], [2], [-3], [0.5]], F)]
    for a, b in zip(evaluate(g, given), evaluate(h, given), strict=True):
        np.testing.assert_array_equal(a, b)


def test_checked_labels_are_not_checked_again():
    g = G()
    labels = g.x(4, dtype=N)
    g.add(check, labels, low=0, high=2, ignore=-100, nan=False, refuse=ValueError)
    ignored = g.add(e.eq, labels, g.full(-100, labels))
    safe = g.add(e.where, ignored, g.full(0, labels), labels)
    g.outputs = [picking(g, safe, 3)]
    h = run(g, check=True)
    assert names(h).count("check") == 1 and "lt" not in names(h)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(F)
    given = [np.array([0, -100, 2, 1]), x]
    np.testing.assert_array_equal(evaluate(h, given), evaluate(g, given))
