"""Operations fused behind a product, computed on its registers or on tiles in scratch."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_kernels

from chainrule.compiler.ir import Graph
from chainrule.compiler.native import matmul
from chainrule.compiler.native.target import host
from chainrule.errors import ArgumentError
from chainrule.graph import Spec
from chainrule.primitives import elementwise as ew
from chainrule.primitives.linalg import matmul as product
from chainrule.primitives.movement import broadcast_to, permute, reshape


def available(name):
    try:
        return host(name)
    except ArgumentError:
        return None


TARGETS = [x for x in map(available, ("avx512", "avx2", "plain")) if x is not None]
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
F32 = np.dtype("float32")


def spread(graph, x, shape, axis=None):
    """A row (or a column) repeated to a shape."""
    if axis is not None:
        x = graph.add(reshape, x, shape=(*x.shape, 1))
    return graph.add(broadcast_to, x, shape=shape)


def number(graph, x, shape, dtype=F32):
    return graph.constant(np.broadcast_to(np.asarray(x, dtype), shape))


def bias_relu(graph, z):
    """max(z + b, 0), and where it is positive."""
    b = graph.input(Spec(z.shape[-1:], z.dtype))
    y = graph.add(ew.add, z, spread(graph, b, z.shape))
    zero = number(graph, 0, z.shape, z.dtype)
    return [graph.add(ew.maximum, y, zero), graph.add(ew.gt, y, zero)]


def dear(graph, z):
    """sigmoid(z) tanh(z + b) with a number for each row, and z itself."""
    b = graph.input(Spec(z.shape[:-1], z.dtype))
    y = graph.add(ew.tanh, graph.add(ew.add, z, spread(graph, b, z.shape, -1)))
    s = graph.add(ew.sigmoid, z)
    return [graph.add(ew.mul, y, s), z]


def step(graph, z):
    """w - 0.1 (z + v)."""
    w, v = (graph.input(Spec(z.shape, z.dtype)) for _ in range(2))
    g = graph.add(ew.add, z, v)
    return [graph.add(ew.sub, w, graph.add(ew.mul, g, number(graph, 0.1, z.shape, z.dtype)))]


def run(m, n, k, behind, batch=(), order="nn", dtype=F32, target=None, shared=False, seed=0):
    """Compare a fused product with NumPy; returns the kernels."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    swap = (*range(len(batch)), len(batch) + 1, len(batch))
    x = graph.input(Spec((*batch, m, k), dtype))
    if shared:
        w = graph.input(Spec((k, n), dtype))
        y = graph.add(broadcast_to, w, shape=(*batch, k, n))
    elif order[1] == "t":
        y = graph.add(permute, graph.input(Spec((*batch, n, k), dtype)), axes=swap)
    else:
        y = graph.input(Spec((*batch, k, n), dtype))
    z = graph.add(product, x, y)
    outputs = behind(graph, z)
    kernels = matmul.lower(graph.ops, outputs, target, graph.constants)
    scale = min(1.0, (2048 / k) ** 0.25) / 4  # long sums would drive what is behind into its tails
    env = {v: (rng.standard_normal(v.shape) * scale).astype(v.dtype) for v in graph.inputs}
    got = run_kernels(kernels, dict(env), None, target, seed=seed)
    exact = {v: a.astype(np.float64) for v, a in env.items()}
    exact |= {v: a.astype(np.float64) for v, a in graph.constants.items()}
    for op in graph.ops:
        exact[op.output] = op.primitive.evaluate(*[exact[v] for v in op.inputs], **op.params)
    unit = float(np.finfo(dtype).eps)
    for value in outputs:
        if value.dtype.kind == "b":
            near = np.abs(exact[value.op.inputs[0]]) < 1e-4
            assert np.all((got[value] == exact[value]) | near)
        else:
            bound = unit * (np.sqrt(k) + 8) * (np.sqrt(k) / 16 + 1)
            np.testing.assert_allclose(got[value], exact[value], rtol=4 * unit, atol=bound)
    return kernels


BEHIND = [bias_relu, dear, step]


@each_target
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("size", [(33, 45, 20), (16, 784, 32), (5, 10, 70), (70, 1, 40)], ids=str)
def test_fused(target, behind, size):
    run(*size, behind, target=target)


@each_target
@pytest.mark.parametrize("behind", BEHIND)
def test_behind_dot_products(target, behind):
    (kernel,) = run(6, 19, 100, behind, order="nt", target=target)
    assert isinstance(kernel.plan, matmul.DotPlan)
    run(1, 19, 100, behind, order="nt", target=target)


@each_target
@pytest.mark.parametrize("behind", BEHIND)
def test_behind_long_sums(target, behind):
    for order in ("nn", "nt"):
        kernel = run(600, 60, 4600, behind, order=order, target=target)[-1]
        assert isinstance(kernel, matmul.MatmulKernel) and kernel.plan.block < 4600


@each_target
@pytest.mark.parametrize("behind", BEHIND)
def test_behind_sums_in_parts(target, behind):
    for order in ("nn", "nt"):
        kernels = run(50, 33, 6001, behind, order=order, target=target)
        assert [k.family for k in kernels] == ["matmul", "sum"]
        assert kernels[0].parts == 16 and not kernels[0].may_overwrite(*kernels[0].reads)
    run(60, 1, 90000, behind, target=target)
    run(7, 9, 8000, behind, batch=(2, 3), target=target)


@pytest.mark.parametrize("behind", BEHIND)
def test_batches(behind):
    run(9, 20, 12, behind, batch=(2, 3))
    run(9, 20, 12, behind, batch=(2, 3), order="nt")
    (kernel,) = run(9, 20, 12, behind, batch=(2, 3), shared=True)
    assert kernel.layout.product.rows == 54


@pytest.mark.parametrize("behind", BEHIND)
def test_float64(behind):
    run(33, 45, 20, behind, dtype=np.dtype("float64"))


def test_the_operand_read_again():
    """A residual connection: x + x @ w, where w is square."""
    run(40, 24, 24, lambda graph, z: [graph.add(ew.add, z, graph.inputs[0])])


def test_what_may_be_overwritten():
    graph = Graph()
    x = graph.input(Spec((8, 8), F32))
    y = graph.input(Spec((8, 8), F32))
    w = graph.input(Spec((8, 8), F32))
    z = graph.add(product, x, y)
    straight = graph.add(ew.add, z, w)
    (kernel,) = matmul.lower(graph.ops, [straight])
    assert kernel.may_overwrite(w, straight)
    assert not kernel.may_overwrite(x, straight)
    turned = graph.add(ew.add, z, graph.add(permute, w, axes=(1, 0)))
    (kernel,) = matmul.lower(graph.ops, [straight, turned])
    assert not kernel.may_overwrite(w, straight)


def test_what_is_read_along_with_the_result_is_asked_for_ahead():
    (kernel,) = run(300, 700, 40, step)
    assert len(kernel.finish.streams) == 2
    (kernel,) = run(30, 70, 40, step)
    assert not kernel.finish.streams
