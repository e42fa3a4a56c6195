"""What is computed together, in which order, and when state is written over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chainrule.compiler import fuse
from chainrule.compiler.build import Options, build, schedule
from chainrule.compiler.ir import Graph, Value, evaluate
from chainrule.compiler.native.target import host
from chainrule.compiler.passes import run
from chainrule.compiler.plan import divide
from chainrule.compiler.schedule import Schedule, own
from chainrule.errors import IndexingError
from chainrule.graph import Spec
from chainrule.primitives import elementwise as e
from chainrule.primitives import linalg, reduction
from chainrule.primitives import movement as m
from chainrule.primitives.checks import check

F = np.dtype("float32")


class G(Graph):
    def x(self, *shape: int, dtype: Any = F) -> Value:
        return self.input(Spec(shape, np.dtype(dtype)))

    def row(self, value: Value, like: Value) -> Value:
        """One value for each row, for all its elements."""
        column = self.add(m.reshape, value, shape=(*value.shape, 1))
        return self.add(m.broadcast_to, column, shape=like.shape)

    def softmax(self, x: Value) -> Value:
        axes = (x.ndim - 1,)
        top = self.row(self.add(reduction.max, x, axes=axes), x)
        powers = self.add(e.exp, self.add(e.sub, x, top))
        return self.add(e.div, powers, self.row(self.add(reduction.sum, powers, axes=axes), x))

    def linear(self, x: Value, w: Value, b: Value) -> Value:
        z = self.add(linalg.matmul, x, self.add(m.permute, w, axes=(1, 0)))
        return self.add(e.add, z, self.add(m.broadcast_to, b, shape=z.shape))


def planned(graph: Graph) -> Schedule:
    return schedule(run(graph), host())[0]


def families(graph: Graph) -> list[str]:
    return [kernel.family for kernel in planned(graph).kernels]


def check_run(graph: Graph, seed: int = 0, rtol: float = 1e-5) -> None:
    rng = np.random.default_rng(seed)
    arrays = [
        rng.standard_normal(x.shape).astype(x.dtype)
        if x.dtype.kind == "f" else rng.integers(0, 3, x.shape).astype(x.dtype)
        for x in graph.inputs
    ]  # fmt: skip
    wanted = evaluate(graph, arrays)
    for options in (Options(), Options(native=False), Options(redzones=True)):
        given = [a.copy() for a in arrays]
        results = build(graph, options).run(given, [None] * len(graph.outputs))
        for i, (a, b) in enumerate(zip(wanted, results, strict=True)):
            np.testing.assert_allclose(b, a, rtol=rtol, atol=1e-6)
            if i in graph.updates:
                np.testing.assert_array_equal(given[graph.updates[i]], b)


# --- fusion ---------------------------------------------------------------------------------------


def test_a_chain_of_arithmetic_and_movement_is_one_kernel():
    g = G()
    x, b = g.x(8, 12), g.x(12)
    z = g.add(e.tanh, g.add(e.mul, x, g.add(m.broadcast_to, b, shape=x.shape)))
    z = g.add(e.exp, g.add(m.permute, z, axes=(1, 0)))
    g.outputs = [g.add(m.slice_, z, starts=(2, 0), lengths=(5, 8), steps=(2, 1))]
    assert families(g) == ["loops"]
    check_run(g)


def test_softmax_is_one_kernel():
    g = G()
    g.outputs = [g.softmax(g.x(9, 33))]
    assert families(g) == ["loops"]
    check_run(g)


def test_normalisation_of_rows_is_one_kernel():
    g = G()
    x, gamma = g.x(16, 40), g.x(40)
    n = g.constant(np.broadcast_to(F.type(40), (16,)))
    mean = g.add(e.div, g.add(reduction.sum, x, axes=(1,)), n)
    centred = g.add(e.sub, x, g.row(mean, x))
    square = g.add(reduction.sum, g.add(e.mul, centred, centred), axes=(1,))
    scale = g.add(e.sqrt, g.add(e.div, square, n))
    z = g.add(e.div, centred, g.row(scale, x))
    g.outputs = [g.add(e.mul, z, g.add(m.broadcast_to, gamma, shape=x.shape)), mean]
    assert families(g) == ["loops"]
    check_run(g)


def test_bias_and_activation_are_behind_the_product():
    g = G()
    g.outputs = [g.add(e.relu, g.linear(g.x(20, 30), g.x(16, 30), g.x(16)))]
    assert families(g) == ["matmul"]
    check_run(g)


def test_the_step_of_an_optimiser_is_behind_the_gradient():
    g = G()
    x, dy, w, v = g.x(20, 30), g.x(20, 16), g.x(30, 16), g.x(30, 16)
    grad = g.add(linalg.matmul, g.add(m.permute, x, axes=(1, 0)), dy)
    new_v = g.add(e.add, g.add(e.mul, v, g.constant(np.broadcast_to(F.type(0.9), v.shape))), grad)
    g.outputs = [g.add(e.sub, w, new_v), new_v]
    g.updates = {0: 2, 1: 3}
    plan = planned(g)
    assert [k.family for k in plan.kernels] == ["matmul"]  # and no copies: written in place
    check_run(g)


def test_cheap_arithmetic_is_done_again_by_its_readers():
    """relu'(z) is a comparison of what the product has written anyway: no mask in memory."""
    g = G()
    z = g.add(e.relu, g.linear(g.x(20, 30), g.x(16, 30), g.x(16)))
    grad = g.add(linalg.matmul, g.x(20, 8), g.x(8, 16))
    zero = g.constant(np.broadcast_to(F.type(0), z.shape))
    back = g.add(e.where, g.add(e.gt, z, zero), grad, zero)
    g.outputs = [g.add(linalg.matmul, g.add(m.permute, z, axes=(1, 0)), back)]
    plan = planned(g)
    assert [k.family for k in plan.kernels] == ["matmul"] * 3
    assert all(v.dtype != np.bool_ for k in plan.kernels for v in k.writes)
    check_run(g)


def test_products_read_views():
    g = G()
    x = g.x(4, 6, 8)
    heads = g.add(m.permute, g.add(m.reshape, x, shape=(4, 6, 2, 4)), axes=(0, 2, 1, 3))
    g.outputs = [g.add(linalg.matmul, heads, g.add(m.permute, heads, axes=(0, 1, 3, 2)))]
    assert families(g) == ["matmul"]
    check_run(g)


def test_a_value_seen_through_a_movement_that_is_an_output_too():
    """The product reads z as a row of one, and the row is asked for as well."""
    g = G()
    x, y, w = g.x(3), g.x(3), g.x(3, 3)
    row = g.add(m.reshape, g.add(e.mul, x, y), shape=(1, 3))
    g.outputs = [g.add(linalg.matmul, row, w), row]
    check_run(g)


def test_no_group_waits_for_a_group_that_waits_for_it():
    """exp(x) and what is computed from a product of it are not one loop, though both read x."""
    g = G()
    x, w = g.x(8, 8), g.x(8, 8)
    a = g.add(e.exp, x)
    product = g.add(linalg.matmul, a, w)
    g.outputs = [g.add(e.exp, g.add(e.mul, a, product)), g.add(e.tanh, a)]
    plan = planned(g)
    steps = {i: n for n, step in enumerate(divide(plan)) for i in step}
    for i, before in enumerate(plan.before):
        assert all(steps[j] < steps[i] for j in before)
    check_run(g)


def test_a_group_that_cannot_be_one_nest_is_still_computed():
    g = G()
    x = g.x(6, 10)
    rows = g.add(reduction.sum, x, axes=(1,))
    columns = g.add(reduction.max, x, axes=(0,))
    z = g.add(e.sub, x, g.row(rows, x))
    g.outputs = [g.add(e.mul, z, g.add(m.broadcast_to, columns, shape=x.shape))]
    check_run(g)


def test_every_operation_is_computed_by_a_kernel():
    g = G()
    g.outputs = [g.softmax(g.linear(g.x(5, 7), g.x(6, 7), g.x(6)))]
    made = run(g)
    done = {op for kernel in fuse.kernels(own(made), host()) for op in kernel.ops}
    assert done == set(made.ops)


def test_chains_of_any_length():
    g = G()
    x, w = g.x(6, 7), g.x(6, 7)
    c = g.constant(np.broadcast_to(F.type(0.999), x.shape))
    z = x
    for i in range(700):
        z = g.add(e.mul, g.add(e.add, z, w), c) if i % 3 else g.add(e.tanh, z)
    for i in range(400):  # movements alone
        z = g.add(m.pad, z, widths=((0, 0, 0), (i % 2, 0, 0)), value=0)
        z = g.add(m.permute, z, axes=(1, 0))
        rows, columns = z.shape[0] - i % 2, z.shape[1]
        z = g.add(m.slice_, z, starts=(i % 2, 0), lengths=(rows, columns), steps=(1, 1))
    g.outputs = [z, g.add(reduction.sum, z, axes=(0,))]
    check_run(g, rtol=1e-4)


# --- outputs and state ----------------------------------------------------------------------------


def test_outputs_are_memory_of_their_own():
    g = G()
    x = g.x(3, 4)
    c = g.constant(np.ones((2, 2), F))
    z = g.add(e.neg, x)
    g.outputs = [x, c, z, z, g.add(m.reshape, z, shape=(12,))]
    arrays = [np.arange(12, dtype=F).reshape(3, 4)]
    results = build(g).run(arrays, [None] * 5)
    for i, a in enumerate(results):
        assert not np.shares_memory(a, arrays[0])
        assert not any(np.shares_memory(a, b) for b in results[:i])
    np.testing.assert_array_equal(results[4], -arrays[0].reshape(12))
    check_run(g)


def test_states_that_change_places():
    g = G()
    a, b = g.x(5), g.x(5)
    g.outputs, g.updates = [b, a], {0: 0, 1: 1}
    check_run(g)


def test_a_state_that_stays_as_it_is():
    g = G()
    a, b = g.x(5), g.x(5)
    g.outputs, g.updates = [a, g.add(e.add, a, b)], {0: 0, 1: 1}
    assert len(planned(g).kernels) == 1
    check_run(g)


def test_an_old_value_that_is_read_late_is_not_written_over():
    """w' is ready early, but w is still read by what depends on w'."""
    g = G()
    x, w = g.x(6, 6), g.x(6, 6)
    new = g.add(e.add, w, g.add(e.tanh, w))
    product = g.add(linalg.matmul, x, new)
    late = g.add(linalg.matmul, product, w)
    g.outputs, g.updates = [new, late], {0: 1}
    check_run(g)


def test_each_of_two_states_is_read_by_what_writes_the_other():
    g = G()
    a, b, x = g.x(6, 6), g.x(6, 6), g.x(6, 6)
    g.outputs = [g.add(linalg.matmul, x, b), g.add(linalg.matmul, x, a)]
    g.updates = {0: 0, 1: 1}
    check_run(g)


def test_a_state_read_in_another_order_is_not_written_over_in_place():
    g = G()
    w = g.x(7, 7)
    g.outputs = [g.add(e.add, w, g.add(m.permute, w, axes=(1, 0)))]
    g.updates = {0: 0}
    check_run(g)


def test_an_output_is_read_by_others_after_it_is_written():
    g = G()
    w, x = g.x(6, 6), g.x(6, 6)
    new = g.add(e.exp, w)
    g.outputs = [new, g.add(linalg.matmul, x, new), new]
    g.updates = {0: 0}
    check_run(g)


# --- checks ---------------------------------------------------------------------------------------


def refuse(values: np.ndarray) -> Exception:
    return IndexingError(f"found {values.max()}")


@pytest.mark.parametrize("native", (True, False))
@pytest.mark.parametrize("dtype", ("int64", "int32", "uint8", "float32", "float64"))
@pytest.mark.parametrize("size", (1, 3, 8, 29))
def test_a_failed_check_leaves_state_as_it_was(native, dtype, size):
    g = G()
    labels, w = g.x(size, dtype=dtype), g.x(3)
    g.add(check, labels, low=0, high=9, ignore=100, nan=True, refuse=refuse)
    g.outputs = [g.add(e.exp, w)]
    g.updates = {0: 1}
    program = build(g, Options(native=native))
    state = np.ones(3, F)
    good = np.full(size, 9).astype(dtype)
    good[-1] = 100
    program.run([good, state], [None])
    np.testing.assert_allclose(state, np.exp(np.ones(3)), rtol=1e-6)
    before = state.copy()
    for place in range(size):
        bad = good.copy()
        bad[place] = 10
        with pytest.raises(IndexingError, match="found 1"):
            program.run([bad, state], [None])
        np.testing.assert_array_equal(state, before)
    program.run([good, state], [None])  # and it goes on


def test_checks_of_floats_with_and_without_nan():
    for nan in (True, False):
        g = G()
        x = g.x(9)
        g.add(check, x, low=0, high=np.inf, ignore=None, nan=nan, refuse=refuse)
        g.outputs = [g.add(e.neg, x)]
        program = build(g)
        values = np.arange(9, dtype=F)
        program.run([values], [None])
        values[8] = np.nan
        if nan:
            program.run([values], [None])
        else:
            with pytest.raises(IndexingError):
                program.run([values], [None])
        values[3] = -1
        with pytest.raises(IndexingError):
            program.run([values], [None])


def test_a_check_of_what_is_computed_sees_the_values():
    g = G()
    x, w = g.x(6, 5), g.x(3)
    sums = g.add(reduction.sum, x, axes=(1,))
    g.add(check, sums, low=-1, high=50, ignore=None, nan=False, refuse=refuse)
    g.outputs, g.updates = [g.add(e.neg, w)], {0: 1}
    program = build(g)
    state = np.ones(3, F)
    program.run([np.full((6, 5), 10, F), state], [None])
    with pytest.raises(IndexingError, match=r"found 55\.0"):
        program.run([np.full((6, 5), 11, F), state], [None])
    np.testing.assert_array_equal(state, -1)


def test_an_operand_that_is_read_behind_the_product_too_is_read_from_memory():
    """y = a b; e^c + y + y W: the sum is done behind the product, and y lies where W reads it."""
    g = G()
    a, c, w = g.x(8, 8), g.x(8, 8), g.x(8, 8)
    y = g.add(e.mul, a, g.add(m.broadcast_to, g.x(1, 1), shape=(8, 8)))
    left = g.add(e.add, g.add(e.exp, c), y)
    product = g.add(linalg.matmul, y, w)
    total = g.add(e.add, left, product)
    other = g.add(linalg.matmul, g.x(8, 8), y)
    g.outputs = [total, other]
    check_run(g)
