"""Operations fused behind a convolution, computed on its registers or on tiles in scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import run_kernels
from test_conv import CASES, TARGETS, backward, channels_last, forward

import chainrule as cr
from chainrule import nn
from chainrule.compiler.ir import Graph
from chainrule.compiler.native import conv
from chainrule.compiler.native.target import host
from chainrule.graph import Spec
from chainrule.primitives import convolution
from chainrule.primitives import elementwise as ew
from chainrule.primitives.movement import broadcast_to, reshape

Array = np.ndarray[Any, Any]


def number(graph: Graph, x: float, like: Any) -> Any:
    return graph.constant(np.broadcast_to(np.asarray(x, like.dtype), like.shape))


def of_channels(graph: Graph, like: Any) -> tuple[Any, Any]:
    """An input with a number for each channel, and the same for each element of an image."""
    b = graph.input(Spec((like.shape[1],), like.dtype))
    column = graph.add(reshape, b, shape=(like.shape[1], *(1 for _ in like.shape[2:])))
    return b, graph.add(broadcast_to, column, shape=like.shape)


def per_channel(b: Array, like: Array) -> Array:
    return b.reshape(-1, *(1 for _ in like.shape[2:]))


def bias_relu(graph: Graph, y: Any) -> Any:
    """max(y + b, 0), and where it is positive."""
    z = graph.add(ew.add, y, of_channels(graph, y)[1])
    zero = number(graph, 0, y)

    def expected(y: Array, b: Array) -> list[Array]:
        z = y + per_channel(b, y)
        return [np.maximum(z, 0), z > 0]

    return [graph.add(ew.maximum, z, zero), graph.add(ew.gt, z, zero)], expected


def residual(graph: Graph, y: Any) -> Any:
    """y a + b + r, and y itself: batch normalisation of running statistics, and a shortcut."""
    a, b = (of_channels(graph, y)[1] for _ in range(2))
    r = graph.input(Spec(y.shape, y.dtype))
    z = graph.add(ew.add, graph.add(ew.add, graph.add(ew.mul, y, a), b), r)

    def expected(y: Array, a: Array, b: Array, r: Array) -> list[Array]:
        return [y * per_channel(a, y) + per_channel(b, y) + r, y]

    return [z, y], expected


def masked(graph: Graph, y: Any) -> Any:
    """y where m is positive: the gradient through a rectifier."""
    m, zero = graph.input(Spec(y.shape, y.dtype)), number(graph, 0, y)
    z = graph.add(ew.where, graph.add(ew.gt, m, zero), y, zero)
    return [z], lambda y, m: [np.where(m > 0, y, 0)]


def dear(graph: Graph, y: Any) -> Any:
    """tanh(y + b) sigmoid(r)."""
    r = graph.input(Spec(y.shape, y.dtype))
    z = graph.add(ew.tanh, graph.add(ew.add, y, of_channels(graph, y)[1]))

    def expected(y: Array, r: Array, b: Array) -> list[Array]:
        return [np.tanh(y + per_channel(b, y)) / (1 + np.exp(-r))]

    return [graph.add(ew.mul, z, graph.add(ew.sigmoid, r))], expected


BEHIND = {f.__name__: f for f in (bias_relu, residual, masked, dear)}


def check(name: str, op: str, behind: str, target: str, dtype: str, last: bool) -> None:
    x_shape, w_shape, params = CASES[name]
    rng = np.random.default_rng(3)
    x, w = (rng.standard_normal(shape) for shape in (x_shape, w_shape))
    y = forward(x, w, **params)
    more: dict[str, Any] = {}
    if op == "conv_input":
        more, g = {"spatial": x_shape[2:]}, rng.standard_normal(y.shape)
        x, y = g, backward(x, w, g, **params)[0]
    graph, kind = Graph(), np.dtype(dtype)
    ends = [graph.input(Spec(a.shape, kind)) for a in (x, w)]
    first = graph.add(getattr(convolution, op), *ends, **params, **more)
    outputs, expected = BEHIND[behind](graph, first)
    assert all(conv.takes(first.op, z.op) for z in outputs if z is not first)
    arrays = [x, w, *(rng.standard_normal(v.shape) for v in graph.inputs[2:])]
    arrays[:2] = x, w
    kernels = conv.lower(first.op, graph.ops, outputs, graph.constants)
    images = [v for k in kernels for v in (*k.reads, *k.writes) if v.shape == first.shape]
    strides = {v: channels_last(v.shape) for v in (*images, ends[0])} if last else {}
    values = dict(zip(graph.inputs, (a.astype(kind) for a in arrays), strict=True))
    found = run_kernels(kernels, values, strides, host(target))
    rtol, atol = (3e-6, 4e-5) if dtype == "float32" else (1e-14, 5e-14)
    narrow = [a.astype(kind).astype("float64") for a in arrays]
    if dtype == "float32":
        y = forward(*narrow[:2], **params) if op == "conv" else y
    for z, want in zip(outputs, expected(y, *narrow[2:]), strict=True):
        if want.dtype == bool:  # but where rounding decides
            close = np.abs(y + per_channel(narrow[2], y)) < 1e-4
            assert np.array_equal(found[z] | close, want | close)
        else:
            np.testing.assert_allclose(found[z], want, rtol=rtol, atol=atol)


ROWS = ("lenet", "2d-lopsided", "3d")  # rows run over lanes
CHANNELS = ("resnet", "first", "depthwise", "small", "3d-wide", "1d", "resnet-down", "grouped")


@pytest.mark.parametrize("last", (False, True), ids=("planes", "channels_last"))
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", (*ROWS, *CHANNELS))
def test_behind_a_convolution(name: str, behind: str, last: bool) -> None:
    check(name, "conv", behind, TARGETS[0], "float32", last)


@pytest.mark.parametrize("behind", ("residual", "masked"))
@pytest.mark.parametrize(
    "name", ("lenet2", "resnet", "depthwise", "resnet-down", "3d-wide", "small")
)
def test_behind_the_adjoint(name: str, behind: str) -> None:
    check(name, "conv_input", behind, TARGETS[0], "float32", name != "lenet2")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ("lenet", "resnet", "depthwise"))
def test_dtypes_and_targets(name: str, target: str) -> None:
    for dtype in ("float32", "float64"):
        for behind in ("bias_relu", "dear"):
            check(name, "conv", behind, target, dtype, name != "lenet")


def test_outputs_apart_are_not_taken() -> None:
    """Where rows run over lanes and outputs lie some places apart, there are no vectors."""
    graph, kind = Graph(), np.dtype("float32")
    g, w = (graph.input(Spec(shape, kind)) for shape in ((2, 8, 8, 8), (8, 3, 4, 4)))
    how = {"stride": (2, 2), "padding": ((1, 1),) * 2, "dilation": (1, 1), "groups": 1}
    y = graph.add(convolution.conv_input, g, w, **how, spatial=(16, 16))
    assert not conv.takes(y.op, graph.add(ew.relu, y).op)


def families(step: Any) -> list[str]:
    """The kernels of a compiled function that compute something, by family and operations."""
    kernels = step.inspect().plan.schedule.kernels
    return [f"{k.family}: {' '.join(op.name for op in k.ops)}" for k in kernels]


def test_a_network_in_inference() -> None:
    """Two convolutions with bias, rectifier and shortcut are two kernels, beside the packing."""
    rng = np.random.default_rng(5)

    def array(*shape: int) -> Any:
        return cr.asarray(rng.standard_normal(shape).astype("float32") / 4)

    x, w, v, b = array(3, 16, 9, 10), array(16, 16, 3, 3), array(16, 16, 3, 3), array(16)
    f = nn.functional.conv2d

    def network(x: Any, w: Any, v: Any, b: Any) -> Any:
        y = cr.relu(f(x, w, b, padding=1))
        return cr.sum(cr.relu(f(y, v, b, padding=1) + y), axis=(2, 3))

    compiled = cr.compile(network)
    np.testing.assert_allclose(
        compiled(x, w, v, b).numpy(), network(x, w, v, b).numpy(), rtol=2e-5, atol=2e-5
    )
    kinds = families(compiled)
    assert sum(kind.startswith("conv:") and kind.endswith("add relu") for kind in kinds) >= 1
    assert not any(kind.startswith("loops") and "conv" in kind for kind in kinds)


def test_an_infinite_weight_never_meets_padding() -> None:
    """Lanes outside the image are left out, not multiplied by zeros."""
    x = cr.ones((2, 1, 6, 20))
    w = cr.asarray(np.array([[[[np.inf, 1, 1]] * 3]], "float32").reshape(1, 1, 3, 3))
    y = cr.compile(lambda x, w: nn.functional.conv2d(x, w, padding=1))(x, w).numpy()
    assert np.isinf(y[..., 1:]).all()
    np.testing.assert_array_equal(y[0, 0, :, 0], [4, 6, 6, 6, 6, 4])
