"""The specification of a legal graph: each rule is broken once and noticed."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.ir import Graph, GraphError, Op, Value, evaluate, rebuild, verify
from chainrule.graph import Spec
from chainrule.primitives import elementwise as e
from chainrule.primitives import linalg
from chainrule.primitives import movement as m

F = np.dtype("float32")


def small() -> Graph:
    """x W + 1 and the next W."""
    g = Graph(name="small")
    x, w = g.input(Spec((2, 3), F), "x"), g.input(Spec((3, 3), F), "w")
    one = g.constant(np.broadcast_to(np.float32(1), (2, 3)))
    z = g.add(e.add, g.add(linalg.matmul, x, w), one)
    g.outputs = [z, g.add(e.neg, w)]
    g.updates = {1: 1}
    return g


def test_a_legal_graph_passes_and_means_what_its_primitives_mean():
    g = verify(small())
    x, w = np.arange(6, dtype=F).reshape(2, 3), np.eye(3, dtype=F) * 2
    z, new = evaluate(g, [x, w])
    np.testing.assert_array_equal(z, 2 * x + 1)
    np.testing.assert_array_equal(new, -w)


def break_order(g):
    g.ops.reverse()


def break_missing_op(g):
    del g.ops[0]


def break_foreign_input(g):
    g.ops[0].inputs = (Value(Spec((2, 3), F)), g.ops[0].inputs[1])


def break_shape(g):
    g.ops[0].outputs[0].shape = (2, 4)


def break_dtype(g):
    g.ops[-1].outputs[0].dtype = np.dtype("float64")


def break_constant(g):
    (value,) = g.constants
    g.constants[value] = np.ones((2, 4), F)


def break_twice_made(g):
    g.ops.append(g.ops[0])


def break_output(g):
    g.outputs.append(Value(Spec((), F)))


def break_update_spec(g):
    g.updates = {0: 1}


def break_update_twice(g):
    g.outputs.append(g.outputs[1])
    g.updates = {1: 1, 2: 1}


def break_update_range(g):
    g.updates = {7: 0}


def break_input_made(g):
    g.inputs.append(g.ops[0].outputs[0])


BROKEN = {
    break_order: "rule 2", break_missing_op: "rule 2", break_foreign_input: "rule 2",
    break_shape: "rule", break_dtype: "rule", break_constant: "rule 4", break_twice_made: "rule 1",
    break_output: "rule 5", break_update_spec: "rule 6", break_update_twice: "rule 6",
    break_update_range: "rule 6", break_input_made: "rule 1",
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=lambda f: f.__name__)
def test_what_is_illegal_is_refused_by_its_rule(broken):
    g = small()
    broken(g)
    with pytest.raises(GraphError, match=BROKEN[broken]):
        verify(g)


def test_a_graph_prints_what_a_person_needs():
    text = str(small())
    for part in ("small (", "float32[2, 3] 'x'", "matmul(", "constant(1.0)", "-> %"):
        assert part in text


def test_rebuilding_replaces_values_and_keeps_the_rest():
    g = small()
    x, w = g.inputs
    other = Op(m.permute, (w,), {"axes": (1, 0)})
    matmul = g.ops[0]
    # x W becomes x W^T: the operations behind it are made anew, on the new product.
    fresh = Op(linalg.matmul, (x, other.output), {})
    new = verify(rebuild(g, [other, fresh, *g.ops[1:]], {matmul.output: fresh.output}))
    assert [op.name for op in new.ops] == ["permute", "matmul", "add", "neg"]
    a, b = np.ones((2, 3), F), np.arange(9, dtype=F).reshape(3, 3)
    np.testing.assert_array_equal(evaluate(new, [a, b])[0], a @ b.T + 1)
    np.testing.assert_array_equal(evaluate(g, [a, b])[0], a @ b + 1)
