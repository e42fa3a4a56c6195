"""Matmul kernels against NumPy: every order of strides, every instruction set, odd sizes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from harness import run_kernels
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.compiler.ir import Graph
from chainrule.compiler.native import matmul
from chainrule.compiler.native.jit import assembly
from chainrule.compiler.native.kernel import FIRST, Buffer, strides_of
from chainrule.compiler.native.target import foreign, host
from chainrule.compiler.native.text import Module
from chainrule.errors import ArgumentError
from chainrule.graph import Spec
from chainrule.primitives.linalg import matmul as product
from chainrule.primitives.movement import broadcast_to, flip, permute, slice_


def available(name):
    try:
        return host(name)
    except ArgumentError:
        return None


TARGETS = [x for x in map(available, ("avx512", "avx2", "plain")) if x is not None]
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)


def arrays_for(rng, shape, dtype):
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 100, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def matrix(graph, rng, shape, dtype, order):
    """A value of a shape that lies in memory in some order, and its array.

    Orders: "n" as it is, "t" transposed, "f" flipped along both axes, "s" every second of more.
    """
    *lead, m, n = shape
    swap = (*range(len(lead)), len(lead) + 1, len(lead))
    last = (len(lead), len(lead) + 1)
    if order == "t":
        base = graph.input(Spec((*lead, n, m), np.dtype(dtype)))
        value = graph.add(permute, base, axes=swap)
    elif order == "f":
        base = graph.input(Spec(shape, np.dtype(dtype)))
        value = graph.add(flip, base, axes=last)
    elif order == "s":
        base = graph.input(Spec((*lead, 2 * m + 1, 2 * n + 1), np.dtype(dtype)))
        zeros = (0,) * len(lead)
        value = graph.add(
            slice_,
            base,
            starts=(*zeros, 1, 1),
            lengths=(*lead, m, n),
            steps=(*(1 for _ in lead), 2, 2),
        )
    else:
        value = base = graph.input(Spec(shape, np.dtype(dtype)))
    return base, value, arrays_for(rng, base.shape, dtype)


def check(m, n, k, orders="nn", batch=(), dtype=np.float32, target=None, strides=None, seed=0):
    rng = np.random.default_rng(seed)
    graph = Graph()
    x0, x, ax = matrix(graph, rng, (*batch, m, k), dtype, orders[0])
    y0, y, ay = matrix(graph, rng, (*batch, k, n), dtype, orders[1])
    z = graph.add(product, x, y)
    assert matmul.supports(graph.ops)
    kernels = matmul.lower(graph.ops, [z], target)
    steps = None if strides is None else {z: strides}
    got = run_kernels(kernels, {x0: ax, y0: ay}, steps, target, seed=seed)[z]
    env = {x0: ax, y0: ay}
    for op in graph.ops:
        env[op.output] = op.primitive.evaluate(*[env[v] for v in op.inputs], **op.params)
    compare(got, env[x], env[y])
    return kernels


def compare(got, x, y):
    if x.dtype.kind in "iu":
        np.testing.assert_array_equal(got, np.matmul(x, y))
        return
    exact = np.matmul(x.astype(np.float64), y.astype(np.float64))
    bound = np.matmul(np.abs(x).astype(np.float64), np.abs(y).astype(np.float64))
    unit = np.finfo(x.dtype).eps
    assert got.dtype == x.dtype
    assert np.all(np.abs(got - exact) <= unit * (np.sqrt(x.shape[-1]) + 4) * bound + 1e-30)


ORDERS = [a + b for a in "nt" for b in "nt"]
SIZES = [(32, 16, 784), (32, 10, 16), (16, 130, 32), (33, 65, 20), (128, 48, 40), (7, 100, 33)]


@each_target
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_orders(target, size):
    for orders in ORDERS:
        check(*size, orders, target=target)


@each_target
@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32, np.int8, np.uint8, np.int16])
def test_dtypes(target, dtype):
    for orders in ("nn", "tt", "nt"):
        check(29, 37, 43, orders, dtype=dtype, target=target)


@pytest.mark.parametrize(
    "size", [(1, 1, 1), (1, 50, 70), (50, 1, 70), (50, 70, 1), (1, 1, 70)], ids=str
)
def test_vectors(size):
    for orders in ORDERS:
        check(*size, orders)


@pytest.mark.parametrize("orders", ["nn", "nt", "tn"])
@pytest.mark.parametrize(
    "size", [(37, 203, 1), (70, 130, 8), (23, 150, 31), (1031, 70, 40), (33, 21, 1024)], ids=str
)
def test_tiles_of_long_rows(size, orders):
    """Where writing the result takes the time, and where the rows of A lie a page apart."""
    check(*size, orders)


@pytest.mark.parametrize("size", [(0, 5, 3), (5, 0, 3), (5, 3, 0), (0, 0, 0)], ids=str)
def test_nothing(size):
    check(*size)
    check(*size, batch=(2,))


@pytest.mark.parametrize("orders", ["ff", "ss", "fs", "sf", "nf", "fn", "ts"])
def test_odd_strides(orders):
    check(31, 45, 27, orders)
    check(31, 45, 27, orders, batch=(3, 2))


@pytest.mark.parametrize("strides", [(1, 40), (3, 300), (200, 2)], ids=str)
def test_strides_of_the_result(strides):
    check(37, 45, 27, "nt", strides=strides)
    check(40, 45, 2100, "nn", strides=strides)


@given(
    m=st.integers(1, 70),
    n=st.integers(1, 90),
    k=st.integers(0, 70),
    orders=st.tuples(*[st.sampled_from("ntfs")] * 2),
    batch=st.sampled_from([(), (3,), (2, 1, 2)]),
    dtype=st.sampled_from([np.float32, np.float64, np.int32]),
    target=st.sampled_from(TARGETS),
)
@settings(max_examples=60, deadline=None)
def test_any(m, n, k, orders, batch, dtype, target):
    check(m, n, k, "".join(orders), batch, dtype, target)


@pytest.mark.parametrize("size", [(150, 90, 3000), (40, 33, 5001)], ids=str)
def test_long_sums_go_block_by_block(size):
    for orders in ("nn", "tn", "nt"):
        check(*size, orders)


@each_target
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_small_results_of_long_sums_are_made_in_parts(target, dtype):
    for orders in ORDERS:
        kernels = check(20, 33, 15001, orders, dtype=dtype, target=target)
        assert [k.family for k in kernels] == ["matmul", "sum"]
        assert kernels[0].units == 16
    check(5, 33, 9000, "tn", (3,), dtype=dtype, target=target)
    check(20, 33, 15001, dtype=dtype, target=target, strides=(1, 20))


@pytest.mark.parametrize("orders", ["nn", "nt", "tn"])
def test_large_products_pack_once(orders):
    kernels = check(700, 530, 600, orders)
    assert [k.family for k in kernels] == ["pack", "matmul"]


def test_one_matrix_for_all_batches():
    rng = np.random.default_rng(0)
    for order in "nt":
        graph = Graph()
        x = graph.input(Spec((4, 20, 30), np.dtype("float32")))
        w0, w, aw = matrix(graph, rng, (30, 17), np.float32, order)
        w = graph.add(broadcast_to, w, shape=(4, 30, 17))
        z = graph.add(product, x, w)
        (kernel,) = matmul.lower(graph.ops, [z])
        assert kernel.layout.product.rows == 80
        ax = arrays_for(rng, x.shape, np.float32)
        got = run_kernels([kernel], {x: ax, w0: aw})[z]
        compare(got, ax, aw if order == "n" else aw.T)


def test_rows_far_apart_are_no_batch():
    """A batch of padded matrices whose rows do not merge."""
    rng = np.random.default_rng(0)
    graph = Graph()
    x = graph.input(Spec((4, 20, 30), np.dtype("float32")))
    w0 = graph.input(Spec((30, 17), np.dtype("float32")))
    w = graph.add(broadcast_to, w0, shape=(4, 30, 17))
    z = graph.add(product, x, w)
    (kernel,) = matmul.lower(graph.ops, [z])
    ax, aw = arrays_for(rng, x.shape, np.float32), arrays_for(rng, w0.shape, np.float32)
    got = run_kernels([kernel], {x: ax, w0: aw}, {x: (30 * 20 + 7, 30, 1)})[z]
    compare(got, ax, aw)


def test_neon_code_multiplies_in_vectors():
    """Code for another processor: each round of k is fused multiply-adds by one number of A."""
    target = foreign("neon")
    for order in ("nn", "nt"):
        rng = np.random.default_rng(0)
        graph = Graph()
        _, x, _ = matrix(graph, rng, (96, 64), np.float32, "n")
        _, y, _ = matrix(graph, rng, (64, 80), np.float32, order[1])
        z = graph.add(product, x, y)
        kernels = matmul.lower(graph.ops, [z], target)
        module = Module(target)
        values = dict.fromkeys(v for k in kernels for v in (*k.reads, *k.writes))
        buffers = {
            v: Buffer(FIRST + i, 0, v.shape, strides_of(v.shape), v.dtype)
            for i, v in enumerate(values)
        }
        for number, kernel in enumerate(kernels):
            kernel.emit(module, f"kernel{number}", buffers)
        code = assembly(module.text().replace("define internal", "define"), target)
        tile = kernels[-1].plan.down.size * kernels[-1].plan.across.size
        assert len(re.findall(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.(4s|s\[\d\])", code)) >= tile
        assert "fmadd" not in code


@pytest.mark.parametrize("order", "nt")
def test_batches_of_packed_matrices(order):
    """Packed once for each batch, or once for all where they share it and rows do not merge."""
    kernels = check(500, 100, 600, "n" + order, (2, 2))
    assert [k.family for k in kernels] == ["pack", "matmul"]
    rng = np.random.default_rng(0)
    graph = Graph()
    x = graph.input(Spec((3, 900, 300), np.dtype("float32")))
    w0, w, aw = matrix(graph, rng, (300, 200), np.float32, order)
    w = graph.add(broadcast_to, w, shape=(3, 300, 200))
    z = graph.add(product, x, w)
    kernels = matmul.lower(graph.ops, [z])
    assert [k.family for k in kernels] == ["pack", "matmul"]
    ax = arrays_for(rng, x.shape, np.float32)
    got = run_kernels(kernels, {x: ax, w0: aw}, {x: (900 * 300 + 13, 300, 1)})[z]
    compare(got, ax, aw if order == "n" else aw.T)


@each_target
def test_results_do_not_depend_on_who_computes_them(target):
    """The same bits however the units are dealt out."""
    rng = np.random.default_rng(0)
    for size, orders in (((150, 200, 900), "nt"), ((33, 20, 15001), "tn"), ((6, 90, 400), "nt")):
        graph = Graph()
        m, n, k = size
        x0, x, ax = matrix(graph, rng, (m, k), np.float32, orders[0])
        y0, y, ay = matrix(graph, rng, (k, n), np.float32, orders[1])
        z = graph.add(product, x, y)
        kernels = matmul.lower(graph.ops, [z], target)
        results = [
            run_kernels(kernels, {x0: ax, y0: ay}, None, target, pieces, seed)[z]
            for pieces, seed in ((1, 0), (2, 1), (7, 2))
        ]
        assert all(np.array_equal(results[0], other) for other in results[1:])
