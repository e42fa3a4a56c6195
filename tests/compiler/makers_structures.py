"""Makers of products, convolutions, windows, indexing, random bits, checks and loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from graphs import FLOATS, Maker
from making import filled, maker, region

from chainrule.compiler.ir import Graph, Value
from chainrule.graph import Spec
from chainrule.primitives import (
    bits,
    checks,
    control,
    convolution,
    elementwise,
    indexing,
    linalg,
    movement,
    pooling,
    reduction,
)
from chainrule.primitives.convolution import output_shape

# --- products -------------------------------------------------------------------------------------


@maker("matmul")
def matmul(m: Maker) -> Value:
    x = m.find("f", 2) if m.random.random() < 0.9 else m.find("i", 2)
    n = m.random.choice((1, 3, 10, 17, 32))
    if m.random.random() < 0.4 and math.prod(x.shape[:-1]) * x.shape[-2] <= 8192:
        axes = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
        return m.add(linalg.matmul, x, m.add(movement.permute, x, axes=axes))
    if math.prod(x.shape[:-2]) * n * max(x.shape[-2:]) > 8192:
        n = 1
    y = m.leaf(m.draw((*x.shape[:-2], x.shape[-1], n), x.dtype))
    return m.add(linalg.matmul, x, y)


# --- convolution and windows ----------------------------------------------------------------------


def convolve(m: Maker) -> dict[str, Any]:
    r = m.random
    axes = r.choice((1, 2, 2, 2, 3))
    groups = r.choice((1, 1, 2, 4))
    depthwise = r.random() < 0.2
    inside = 1 if depthwise else r.choice((1, 2, 3))
    outside = 1 if depthwise else r.choice((1, 2, 5))
    how = dict(
        stride=tuple(r.choice((1, 1, 2)) for _ in range(axes)),
        padding=tuple((r.choice((0, 1)), r.choice((0, 1, 2))) for _ in range(axes)),
        dilation=tuple(r.choice((1, 1, 2)) for _ in range(axes)),
        groups=groups,
    )
    return dict(
        how=how,
        x=(r.choice((1, 2, 3)), inside * groups, *(r.choice((5, 6, 9)) for _ in range(axes))),
        w=(outside * groups, inside, *(r.choice((1, 2, 3)) for _ in range(axes))),
    )


@maker("conv", "conv_input", "conv_weight")
def convolution_(m: Maker, name: str) -> Value:
    one = convolve(m)
    x_shape, w_shape, how = one["x"], one["w"], one["how"]
    out = output_shape(x_shape[2:], w_shape[2:], how["stride"], how["padding"], how["dilation"])
    y_shape = (x_shape[0], w_shape[0], *out)
    dtype = m.random.choice(("float32", "float32", "float64"))
    x, w, y = (m.leaf(m.draw(shape, dtype)) for shape in (x_shape, w_shape, y_shape))
    if name == "conv":
        return m.add(convolution.conv, x, w, **how)
    if name == "conv_input":
        return m.add(convolution.conv_input, y, w, spatial=x_shape[2:], **how)
    return m.add(convolution.conv_weight, x, y, kernel=w_shape[2:], **how)


@maker("window_argmax", "window_sum", "window_spread", "window_take", "window_route")
def windows(m: Maker, name: str) -> Value:
    r = m.random
    axes = r.choice((1, 2, 2, 3))
    kernel = tuple(r.choice((1, 2, 3)) for _ in range(axes))
    how = dict(
        kernel=kernel,
        stride=tuple(r.choice((1, 2, 3)) for _ in range(axes)),
        padding=tuple((p, p) for p in (r.randint(0, k // 2) for k in kernel)),
        dilation=(1,) * axes,
    )
    shape = (r.choice((1, 2)), r.choice((1, 3, 16)), *(r.choice((4, 5, 8)) for _ in range(axes)))
    out = output_shape(shape[2:], kernel, how["stride"], how["padding"], how["dilation"])
    if name == "window_spread":
        y = m.leaf(m.draw((*shape[:2], *out), "float32"))
        return m.add(pooling.window_spread, y, spatial=shape[2:], **how)
    x = m.leaf(m.draw(shape, m.random.choice(FLOATS)))
    if name in ("window_take", "window_route"):
        index = m.add(pooling.window_argmax, x, out=out, **how)
        y = m.add(pooling.window_take, x, index, **how)
        if name == "window_take":
            return y
        return m.add(pooling.window_route, y, index, spatial=shape[2:], **how)
    return m.add(getattr(pooling, name), x, out=out, **how)


# --- indexing -------------------------------------------------------------------------------------


def indices(m: Maker, n: int, shape: Any) -> Value:
    return m.leaf(m.draw(shape, m.random.choice(("int64", "int64", "int32")), 0, n))


@maker("gather")
def gather(m: Maker) -> Value:
    x = filled(m, m.find("fiub", 1, 3))
    shape = m.shape(0, 2)
    if math.prod(shape) * math.prod(x.shape[1:]) > 8192:
        shape = (2,)
    return m.add(indexing.gather, x, indices(m, x.shape[0], shape))


@maker("scatter_add")
def scatter_add(m: Maker) -> Value:
    updates = m.find("fi", 1, 3)
    length = m.random.choice((1, 3, 7))
    index = indices(m, length, updates.shape[: m.random.randint(1, updates.ndim)])
    return m.add(indexing.scatter_add, updates, index, length=length)


@maker("scatter_set")
def scatter_set(m: Maker) -> Value:
    x = filled(m, m.find("fi", 1, 3))
    index = indices(m, x.shape[0], (m.random.choice((1, 2, 6)),))
    updates = m.leaf(m.draw(index.shape + x.shape[1:], x.dtype))
    return m.add(indexing.scatter_set, x, updates, index)


@maker("slice_set")
def slice_set(m: Maker) -> Value:
    x = m.find("fiub", 1)
    where = region(m, x)
    updates = m.leaf(m.draw(where["lengths"], x.dtype))
    return m.add(indexing.slice_set, x, updates, starts=where["starts"], steps=where["steps"])


@maker("ravel_index")
def ravel_index(m: Maker) -> Value:
    shape, dims = m.shape(0, 2), tuple(m.random.choice((1, 3, 6)) for _ in range(2))
    parts = [m.leaf(m.draw(shape, "int64", -n, n)) for n in dims]
    return m.add(indexing.ravel_index, *parts, dims=dims)


# --- random bits ----------------------------------------------------------------------------------


def state(m: Maker) -> Value:
    numbers = [m.random.randrange(1 << 64), m.random.choice((0, 7, (1 << 32) - 2))]
    return m.leaf(np.array(numbers, np.uint64))


@maker("random_bits")
def random_bits(m: Maker) -> Value:
    words = m.add(bits.random_bits, state(m), shape=m.shape())
    return m.add(elementwise.cast, words, dtype=np.dtype("float64"))


@maker("advance")
def advance(m: Maker) -> Value:
    return m.add(bits.advance, state(m), blocks=m.random.randrange(9))


# --- checks and loops -----------------------------------------------------------------------------


@maker("check")
def check(m: Maker) -> Value:
    """A check that passes."""
    x = m.find("fiu", exact=True)
    array = m.numbers[x]
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    return m.add(
        checks.check, x, low=m.random.choice((low, -math.inf)), high=high + 1, ignore=None,
        nan=m.random.random() < 0.5, refuse=ValueError,
    )  # fmt: skip


def body_of(specs: list[Spec], make: Callable[..., list[Value]]) -> Graph:
    body = Graph(name="body")
    body.outputs = make(body, *[body.input(spec) for spec in specs])
    return body


@maker("scan")
def scan(m: Maker) -> Value:
    """c_t = tanh(c_(t-1) W + x_t), giving each c_t and x_t c_t."""
    r = m.random
    n, d, length = r.choice((1, 3, 16)), r.choice((1, 4, 8)), r.choice((1, 2, 7))
    dtype = np.dtype(r.choice(FLOATS))
    specs = [Spec((d, d), dtype), Spec((n, d), dtype), Spec((n, d), dtype)]

    def make(body: Graph, w: Value, c: Value, x: Value) -> list[Value]:
        product = body.add(linalg.matmul, c, w) if d > 1 else c
        new = body.add(elementwise.tanh, body.add(elementwise.add, product, x))
        return [new, new, body.add(elementwise.mul, x, new)]

    inputs = [m.leaf(m.draw(s.shape, dtype, -1, 2)) for s in specs[:2]]
    xs = m.leaf(m.draw((length, n, d), dtype))
    _, ys, _ = m.add(
        control.scan, *inputs, xs, body=body_of(specs, make), consts=1, carries=1, length=length,
        reverse=r.random() < 0.5, recompute=False,
    )  # fmt: skip
    return ys


@maker("cond")
def cond(m: Maker) -> Value:
    x = m.find("f")
    predicate = m.leaf(np.asarray(m.random.random() < 0.5))
    branches = [
        body_of([x.spec], lambda body, y, one=one: [body.add(one, y)])
        for one in (elementwise.tanh, elementwise.neg)
    ]
    return m.add(control.cond, predicate, x, then=branches[0], otherwise=branches[1])


@maker("while_loop")
def while_loop(m: Maker) -> Value:
    """Half of it as long as the sum of the magnitudes is above 1."""
    x = m.tame(m.find("f", 1), -50, 50)

    def test(body: Graph, y: Value) -> list[Value]:
        total = body.add(reduction.sum, body.add(elementwise.abs, y), axes=tuple(range(y.ndim)))
        one = body.constant(np.asarray(1.03, y.dtype))
        return [body.add(elementwise.gt, total, one)]

    def half(body: Graph, y: Value) -> list[Value]:
        return [body.add(elementwise.mul, y, body.constant(np.full(y.shape, 0.5, y.dtype)))]

    exact = m.add(elementwise.cast, m.leaf(m.draw(x.shape, "int64")), dtype=x.dtype)
    return m.add(
        control.while_loop, exact, test=body_of([x.spec], test), body=body_of([x.spec], half),
        consts=0,
    )  # fmt: skip
