"""Short innermost axes: lanes over two loops at once, and loads of what lies near together."""

from __future__ import annotations

import numpy as np
import pytest
from harness import run_kernels

from chainrule.compiler.ir import Graph, Value, evaluate
from chainrule.compiler.native import lanes, loops
from chainrule.compiler.native.target import host
from chainrule.graph import Spec
from chainrule.primitives import elementwise as e
from chainrule.primitives import movement as m

RNG = np.random.default_rng(0)


def available() -> list[str]:
    found = []
    for name in ("avx512", "avx2", "plain"):
        try:
            host(name)
        except ValueError:
            continue
        found.append(name)
    return found


TARGETS = pytest.mark.parametrize("target", available())


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == "bool":
        return RNG.random(shape) < 0.5
    x = 10 * RNG.normal(size=shape)
    return x.astype(dtype) if dtype.startswith("f") else x.astype("int8").astype(dtype)


def check(g: Graph, arrays: list[np.ndarray], target: str, paired: bool | None = None) -> None:
    """The graph as one kernel, to the bit, on ranges of units in any order."""
    kernel = loops.LoopKernel(g.ops, g.outputs, g.constants)
    assert kernel.units >= 1
    if paired is not None:
        (plan,) = [loops.plan_of(nest, {}) for nest in kernel.nests]
        assert (plan.order.pair is not None) == paired
    got = run_kernels([kernel], dict(zip(g.inputs, arrays, strict=True)), target=host(target))
    for z, want in zip(g.outputs, evaluate(g, arrays), strict=True):
        np.testing.assert_array_equal(got[z], want, f"{z} on {target}")


def rotary(g: Graph, x: Value, cos: Value, sin: Value) -> Value:
    """x, whose neighbours are pairs, turned by angles: (a cos - b sin, a sin + b cos)."""
    shape = x.shape
    half = (*shape[:-1], shape[-1] // 2)

    def one(start: int) -> Value:
        return g.add(
            m.slice_, x, starts=(0,) * (x.ndim - 1) + (start,), lengths=half,
            steps=(1,) * (x.ndim - 1) + (2,),
        )  # fmt: skip

    a, b = one(0), one(1)
    c, s = (g.add(m.broadcast_to, v, shape=half) for v in (cos, sin))
    parts = [
        g.add(e.sub, g.add(e.mul, a, c), g.add(e.mul, b, s)),
        g.add(e.add, g.add(e.mul, a, s), g.add(e.mul, b, c)),
    ]
    parts = [g.add(m.reshape, p, shape=(*half, 1)) for p in parts]
    return g.add(m.reshape, g.add(m.concat, *parts, axis=len(half)), shape=shape)


@TARGETS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 2, 48, 16), (5, 7, 6), (2, 130), (300, 64), (1, 34)])
def test_pairs_of_a_rotary_embedding(shape: tuple[int, ...], dtype: str, target: str) -> None:
    g = Graph()
    angles = (*shape[-2:-1], shape[-1] // 2)
    specs = [Spec(s, np.dtype(dtype)) for s in (shape, angles, angles)]
    x, cos, sin = (g.input(spec) for spec in specs)
    g.outputs = [rotary(g, x, cos, sin)]
    arrays = [numbers(spec.shape, dtype) for spec in specs]
    got = run_kernels(
        [kernel := loops.LoopKernel(g.ops, g.outputs, g.constants)],
        dict(zip(g.inputs, arrays, strict=True)), target=host(target),
    )  # fmt: skip
    scale = max(float(np.abs(a).max()) for a in arrays) ** 2
    (want,) = evaluate(g, arrays)
    # A product may or may not be rounded before it is added.
    np.testing.assert_allclose(got[g.outputs[0]], want, 0, scale * 3 * np.finfo(dtype).eps)
    order = loops.plan_of(kernel.nests[0], {}).order
    if host().vector_bytes // np.dtype(dtype).itemsize == 2:  # the short axis fills a vector
        assert order.pair is None and order.lanes == 2
    else:
        assert order.pair is not None and order.lane is order.pair.whole
        assert order.pair.length == 2


@TARGETS
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int8", "bool"])
@pytest.mark.parametrize("length", [2, 4, 8])
def test_a_short_axis_beside_a_long_one(length: int, dtype: str, target: str) -> None:
    for n in (3, 16, 53, 3000):
        g = Graph()
        x, row, column = (
            g.input(Spec(s, np.dtype(dtype))) for s in ((n, length), (length,), (n, 1))
        )
        add = e.bitwise_xor if dtype == "bool" else e.add
        z = g.add(add, x, g.add(m.broadcast_to, row, shape=x.shape))
        z = g.add(add, z, g.add(m.broadcast_to, column, shape=x.shape))
        g.outputs = [z]
        check(g, [numbers(v.shape, dtype) for v in g.inputs], target)


@TARGETS
def test_what_lies_apart_is_read_in_windows(target: str) -> None:
    """Steps over lanes, forwards and backwards, and the spreading that is their adjoint."""
    x = RNG.normal(size=(5, 144)).astype("float32")
    for step in (2, 3, 4):
        for start in (0, 1):
            count = (x.shape[1] - start - 1) // step + 1
            g = Graph()
            v = g.input(Spec(x.shape, x.dtype))
            part = g.add(
                m.slice_, v, starts=(0, start), lengths=(5, count), steps=(1, step)
            )  # fmt: skip
            back = g.add(m.flip, part, axes=(1,))
            g.outputs = [g.add(e.add, part, back)]
            check(g, [x], target)
            g = Graph()
            v = g.input(Spec((5, count), x.dtype))
            widths = ((0, 0, 0), (start, x.shape[1] - start - (count - 1) * step - 1, step - 1))
            z = g.add(m.pad, v, widths=widths, value=0)
            g.outputs = [g.add(e.add, z, g.add(m.flip, z, axes=(1,)))]
            check(g, [x[:, :count].copy()], target)


@TARGETS
@pytest.mark.parametrize("seed", range(12))
def test_random_movements_of_short_axes(seed: int, target: str) -> None:
    """Slices, flips, paddings, joins and foldings of arrays whose last axes are short."""
    rng = np.random.default_rng(seed)
    dtype = rng.choice(["float32", "float64", "int32", "int8"])
    for _ in range(6):
        shape = (int(rng.integers(1, 4)), int(rng.choice([5, 8, 24])), int(rng.choice([2, 4, 8])))
        g = Graph()
        values = [g.input(Spec(shape, np.dtype(dtype))) for _ in range(2)]
        arrays = [numbers(shape, str(dtype)) for _ in values]
        for _ in range(int(rng.integers(2, 7))):
            x = values[int(rng.integers(len(values)))]
            axis = x.ndim - 1
            match int(rng.integers(6)):
                case 0:
                    z = g.add(m.flip, x, axes=(axis,))
                case 1 if x.shape[axis] > 1:
                    step = int(rng.integers(1, 3))
                    start = int(rng.integers(0, 2))
                    count = (x.shape[axis] - start - 1) // step + 1
                    z = g.add(
                        m.slice_, x, starts=(0,) * axis + (start,),
                        lengths=(*x.shape[:axis], count), steps=(1,) * axis + (step,),
                    )  # fmt: skip
                case 2:
                    wide = (int(rng.integers(0, 2)), int(rng.integers(0, 2)), int(rng.integers(2)))
                    z = g.add(m.pad, x, widths=((0, 0, 0),) * axis + (wide,), value=1)
                case 3:
                    z = g.add(m.concat, x, g.add(m.flip, x, axes=(axis,)), axis=axis)
                case 4:
                    z = g.add(m.reshape, x, shape=(*x.shape[:1], x.size // x.shape[0]))
                    z = g.add(m.concat, z, z, axis=0)
                    z = (
                        g.add(m.reshape, z, shape=(z.shape[0], z.shape[1] // 2, 2))
                        if (z.shape[1] % 2 == 0)
                        else z
                    )
                case _:
                    same = [v for v in values if v.shape == x.shape]
                    z = g.add(e.add, x, same[int(rng.integers(len(same)))])
            values.append(z)
        g.outputs = [z for z in values[-2:] if z.op is not None]
        check(g, arrays, target)


def test_windows_touch_nothing_outside() -> None:
    for lane_count in (4, 8, 16):
        for _ in range(300):
            places = [int(n) for n in RNG.integers(-40, 40, lane_count) // RNG.integers(1, 12)]
            bits = [bool(b) for b in RNG.random(lane_count) < 0.7]
            if not any(bits):
                continue
            found = lanes.window(places, bits)
            wanted = [p for p, b in zip(places, bits, strict=True) if b]
            if found is None:
                assert max(wanted) - min(wanted) >= lane_count
                continue
            length, low, high = found
            assert length <= lane_count and length & (length - 1) == 0
            assert low == min(wanted) and high + length - 1 == max(wanted)
            assert all(low <= p < low + length or high <= p < high + length for p in wanted)
