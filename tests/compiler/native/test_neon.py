"""Code for NEON, run under emulation where a cross compiler and QEMU are installed."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from emulator import Emulated, available
from makers import MAKERS
from random_graphs import check_program, draw_graph

from chainrule.compiler.ir import Graph, evaluate
from chainrule.graph import Spec
from chainrule.primitives import convolution, linalg, movement, reduction
from chainrule.primitives import elementwise as e

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason="no aarch64 cross compiler and QEMU here"),
]
F32 = np.dtype("float32")


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_random_graphs(name: str, tmp_path):
    made = 0
    for seed in range(12):
        graph, arrays, exact = draw_graph(Random(f"{name} {seed}"), name)
        try:
            program = Emulated(graph, tmp_path)
        except NotImplementedError:
            continue
        check_program(program, graph, arrays, exact)
        made += 1
        if made == 2:
            return


def test_a_layer(tmp_path):
    g, rng = Graph(), np.random.default_rng(0)
    x, w = g.input(Spec((33, 70), F32)), g.input(Spec((21, 70), F32))
    z = g.add(linalg.matmul, x, g.add(movement.permute, w, axes=(1, 0)))
    h = g.add(e.tanh, z)
    top = g.add(reduction.max, h, axes=(1,))
    g.outputs = [h, top]
    arrays = [rng.standard_normal(v.shape).astype("f4") for v in g.inputs]
    for ours, reference in zip(Emulated(g, tmp_path).run(arrays), evaluate(g, arrays), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-5)


def test_a_convolution(tmp_path):
    g, rng = Graph(), np.random.default_rng(0)
    x, w = g.input(Spec((2, 16, 9, 11), F32)), g.input(Spec((24, 16, 3, 3), F32))
    how = dict(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    y = g.add(convolution.conv, x, w, **how)
    dw = g.add(convolution.conv_weight, x, y, kernel=(3, 3), **how)
    dx = g.add(convolution.conv_input, y, w, spatial=(9, 11), **how)
    g.outputs = [y, dw, dx]
    arrays = [rng.standard_normal(v.shape).astype("f4") for v in g.inputs]
    for ours, reference in zip(Emulated(g, tmp_path).run(arrays), evaluate(g, arrays), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=2e-5, atol=2e-5 * abs(reference).max())
