"""Native sliding windows against the definition, position by position."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from harness import run_kernels
from test_conv import TARGETS, TYPED, channels_last, value

from chainrule.compiler.ir import Op
from chainrule.compiler.native import pool
from chainrule.compiler.native.target import host
from chainrule.primitives import pooling

Array = np.ndarray[Any, Any]

# (N, C, *spatial), kernel, stride, padding, dilation, extra outputs (ceil mode)
CASES = {
    "1d": ((2, 1, 6), (3,), (2,), ((0, 0),), (1,), 0),
    "2d": ((1, 2, 4, 3), (2, 2), (1, 2), ((1, 0), (0, 1)), (2, 1), 0),
    "3d": ((1, 1, 3, 3, 2), (2, 1, 2), (1, 1, 1), ((0, 0),) * 3, (1, 1, 1), 0),
    "lenet": ((2, 6, 28, 28), (2, 2), (2, 2), ((0, 0),) * 2, (1, 1), 0),
    "overlapping": ((2, 21, 9, 20), (3, 3), (2, 2), ((1, 1),) * 2, (1, 1), 0),
    "ceiling": ((1, 3, 7, 40), (2, 3), (2, 3), ((0, 0), (1, 1)), (1, 1), 1),
    "gaps": ((1, 18, 5, 9), (2, 1), (3, 2), ((0, 0),) * 2, (2, 1), 0),
    "misses": ((1, 2, 2, 3), (2, 2), (1, 1), ((1, 1), (2, 2)), (3, 4), 0),
    "everything": ((3, 17, 4, 4), (4, 4), (4, 4), ((0, 0),) * 2, (1, 1), 0),
}


def places(shape: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, more: int) -> Any:
    """The output's extents, and all (output, input) that meet, taps in row-major order."""
    out = tuple(
        (n + sum(pad) - d * (k - 1) - 1) // s + 1 + more
        for n, k, s, pad, d in zip(shape, kernel, stride, padding, dilation, strict=True)
    )
    pairs = []
    for p, t in product(product(*map(range, out)), product(*map(range, kernel))):
        q = tuple(
            i * s + j * d - lo
            for i, j, s, d, (lo, _) in zip(p, t, stride, dilation, padding, strict=True)
        )
        if all(0 <= a < n for a, n in zip(q, shape, strict=True)):
            pairs.append((p, q))
    return out, pairs


def draw(shape: Any, dtype: str) -> Array:
    """Few different numbers, so that maxima are equal now and then; NaN and infinities too."""
    rng = np.random.default_rng(3)
    x = rng.integers(0 if dtype.startswith("u") else -9, 9, shape).astype(dtype)
    if x.dtype.kind == "f":
        x[rng.random(shape) < 0.03] = np.nan
        x[rng.random(shape) < 0.2] = -np.inf
    return x


def maxima(x: Array, out: Any, pairs: Any) -> Array:
    index = np.full((*x.shape[:2], *out), -1)
    for n, c in product(*map(range, x.shape[:2])):
        for p, q in pairs:
            at, best = (n, c, *p), index[(n, c, *p)]
            here = x[(n, c, *q)]
            if best < 0 or np.isnan(here) or here > x[n, c].reshape(-1)[best]:
                index[at] = np.ravel_multi_index(q, x.shape[2:])
    return index


@pytest.mark.parametrize("last", (False, True), ids=("planes", "channels_last"))
@pytest.mark.parametrize("target, dtype", [*TYPED, (TARGETS[0], "int32"), (TARGETS[-1], "uint8")])
@pytest.mark.parametrize("case", CASES)
def test_windows(case: str, target: str, dtype: str, last: bool) -> None:
    shape, kernel, stride, padding, dilation, more = CASES[case]
    how = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    out, pairs = places(shape[2:], kernel, stride, padding, dilation, more)

    def check(op: Op, x: Array, expected: Array) -> None:
        assert pool.supports(op)
        strides = {v: channels_last(v.shape) for v in (*op.inputs, op.output)} if last else {}
        found = run_kernels(pool.kernels(op), {op.inputs[0]: x}, strides, host(target))
        np.testing.assert_array_equal(found[op.output], expected)

    x = draw(shape, dtype)
    index = maxima(x, out, pairs)
    check(Op(pooling.window_argmax, [value(x)], {"out": out, **how}), x, index)
    x = np.nan_to_num(x, nan=3, neginf=-5)
    y = draw((*shape[:2], *out), "int8").astype(dtype)
    total, spread = np.zeros_like(y), np.zeros_like(x)
    for p, q in pairs:
        total[(..., *p)] += x[(..., *q)]
        spread[(..., *q)] += y[(..., *p)]
    check(Op(pooling.window_sum, [value(x)], {"out": out, **how}), x, total)
    check(Op(pooling.window_spread, [value(y)], {"spatial": shape[2:], **how}), y, spread)


@pytest.mark.parametrize("last", (False, True), ids=("planes", "channels_last"))
@pytest.mark.parametrize("target, dtype", TYPED)
@pytest.mark.parametrize("case", CASES)
def test_maxima_and_their_gradients(case: str, target: str, dtype: str, last: bool) -> None:
    shape, kernel, stride, padding, dilation, more = CASES[case]
    how = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    out, pairs = places(shape[2:], kernel, stride, padding, dilation, more)
    x = draw(shape, dtype)
    index = maxima(x, out, pairs)
    flat = np.maximum(index, 0).reshape(*shape[:2], -1)
    taken = np.take_along_axis(x.reshape(*shape[:2], -1), flat, axis=2).reshape(index.shape)
    a, b = value(x), value(index)

    def run(kernels: Any, arrays: Any, values: Any) -> Any:
        strides = {v: channels_last(v.shape) for v in values} if last else {}
        return run_kernels(kernels, arrays, strides, host(target))

    take = Op(pooling.window_take, [a, b], how)
    found = run(pool.kernels(take), {a: x, b: index}, [a, b, take.output])
    np.testing.assert_array_equal(found[take.output], taken)

    y = np.random.default_rng(5).integers(-9, 9, index.shape).astype(dtype)
    y[index < 0] = 0
    c = value(y)
    route = Op(pooling.window_route, [c, b], {"spatial": shape[2:], **how})
    dx = np.zeros((*shape[:2], np.prod(shape[2:])), dtype)
    for n, k in product(*map(range, shape[:2])):
        np.add.at(dx[n, k], flat[n, k], y[n, k].reshape(-1))
    found = run(pool.kernels(route), {c: y, b: index}, [c, b, route.output])
    np.testing.assert_array_equal(found[route.output], dx.reshape(shape))

    if (index >= 0).all():
        argmax = Op(pooling.window_argmax, [a], {"out": out, **how})
        take = Op(pooling.window_take, [a, argmax.output], how)
        assert pool.is_pair(argmax, take)
        alone = [*pool.kernels(argmax), *pool.kernels(take)]
        assert len(pool.paired(alone, ())) == 1
        found = run(pool.paired(alone, [argmax.output]), {a: x}, [a, argmax.output, take.output])
        np.testing.assert_array_equal(found[argmax.output], index)
        np.testing.assert_array_equal(found[take.output], taken)
        found = run(pool.paired(alone, [take.output]), {a: x}, [a, take.output])
        np.testing.assert_array_equal(found[take.output], taken)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", (32, 31), ids=("colliding", "apart"))
def test_from_one_layout_into_the_other(size: int, target: str) -> None:
    """Planes of 4096 bytes lie in one set of the cache: then rows run over lanes, not channels."""
    how = {"kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1),) * 2, "dilation": (1, 1)}
    x = draw((2, 9, size, size), "float32")
    out, pairs = places(x.shape[2:], (3, 3), (1, 1), ((1, 1),) * 2, (1, 1), 0)
    index = maxima(x, out, pairs)
    total, numbers = np.zeros_like(x), np.nan_to_num(x, nan=3, neginf=-5)
    for p, q in pairs:
        total[(..., *p)] += numbers[(..., *q)]
    for primitive, array, expected in (
        (pooling.window_sum, numbers, total), (pooling.window_argmax, x, index),
    ):  # fmt: skip
        for mixed in (0, 1):
            op = Op(primitive, [value(array)], {"out": out, **how})
            turned = (op.inputs[0], op.output)[mixed]
            strides = {turned: channels_last(array.shape)}
            found = run_kernels(pool.kernels(op), {op.inputs[0]: array}, strides, host(target))
            np.testing.assert_array_equal(found[op.output], expected)
