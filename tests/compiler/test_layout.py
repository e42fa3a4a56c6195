"""Images between convolutions lie channels last, and nothing else does."""

from __future__ import annotations

import numpy as np

from chainrule.compiler import layout
from chainrule.compiler.build import Options, build
from chainrule.compiler.ir import Graph, evaluate
from chainrule.compiler.native.conv_plan import channels_last
from chainrule.compiler.native.kernel import strides_of
from chainrule.graph import Spec
from chainrule.primitives import convolution, elementwise, linalg, movement, pooling, reduction

F = np.dtype("float32")
HOW = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
POOL = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0),) * 2, "dilation": (1, 1)}


def network() -> Graph:
    """Convolution, ReLU, convolution, residual, maxima, a dense layer; and a sum on the side."""
    g = Graph()
    x, w, v = (g.input(Spec(s, F)) for s in ((2, 3, 8, 6), (9, 3, 3, 3), (9, 9, 3, 3)))
    dense = g.input(Spec((108, 4), F))
    a = g.add(convolution.conv, x, w, **HOW)
    r = g.add(elementwise.relu, a)
    b = g.add(elementwise.add, g.add(convolution.conv, r, v, **HOW), a)
    index = g.add(pooling.window_argmax, b, out=(4, 3), **POOL)
    p = g.add(pooling.window_take, b, index, **POOL)
    flat = g.add(movement.reshape, p, shape=(2, 108))
    total = g.add(reduction.sum, r, axes=(0, 2, 3))
    g.outputs = [g.add(linalg.matmul, flat, dense), total, b]
    return g


def test_images_between_convolutions_lie_channels_last() -> None:
    planned = build(network(), Options(simplify=False)).plan
    for kernel in planned.schedule.kernels:
        for value in (*kernel.reads, *kernel.writes):
            buffer = planned.buffers[value]
            if value.shape == (2, 9, 8, 6) and value not in planned.schedule.graph.outputs:
                assert buffer.strides == channels_last(value.shape)
    maxima = [v for v in planned.buffers if v.shape == (2, 9, 4, 3) and v.dtype == F]
    assert maxima, "the dense layer reads the maxima through a reshape"
    assert all(planned.buffers[v].strides == (108, 12, 3, 1) for v in maxima)


def test_results_do_not_depend_on_the_layout() -> None:
    rng = np.random.default_rng(0)
    graph = network()
    arrays = [rng.standard_normal(v.shape).astype(F) for v in graph.inputs]
    found = build(graph, Options(redzones=True)).run(arrays)
    for array, expected in zip(found, evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(array, expected, rtol=2e-5, atol=2e-5)


def test_windows_between_inputs_and_outputs_stay_in_rows() -> None:
    g = Graph()
    x = g.input(Spec((2, 9, 8, 6), F))
    y = g.add(elementwise.relu, g.add(elementwise.add, x, x))
    g.outputs = [g.add(pooling.window_sum, y, out=(4, 3), **POOL)]
    planned = build(g, Options(simplify=False)).plan
    assert all(b.strides == strides_of(b.shape) for b in planned.buffers.values())


def test_nothing_wishes_in_a_graph_without_images() -> None:
    g = Graph()
    x = g.input(Spec((4, 4), F))
    g.outputs = [g.add(elementwise.relu, g.add(linalg.matmul, x, x))]
    planned = build(g).plan
    assert layout.choose(planned.schedule.graph, planned.schedule.kernels) == {}
