"""Loop kernels against the primitives' own evaluation: movements, reductions, fused groups."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import run_kernels

from chainrule.compiler.ir import Graph, evaluate
from chainrule.compiler.native import loops
from chainrule.compiler.native.target import host
from chainrule.graph import Spec
from chainrule.primitives import elementwise as e
from chainrule.primitives import movement as m
from chainrule.primitives import reduction as r

TARGETS = ("avx512", "avx2", "plain")
FLOATS = ("float32", "float64")
INTEGERS = ("int8", "uint8", "int32", "uint32", "int64", "uint64")
Build = Callable[..., Any]


def available() -> list[str]:
    found = []
    for name in TARGETS:
        try:
            host(name)
        except ValueError:
            continue
        found.append(name)
    return found


class Cases:
    """Graphs to be computed by one loop kernel each, compiled together."""

    def __init__(self) -> None:
        self.graphs: list[tuple[str, Graph, list[np.ndarray]]] = []

    def add(self, name: str, build: Build, *arrays: np.ndarray) -> None:
        g = Graph(name=name)
        values = [g.input(Spec(a.shape, a.dtype)) for a in arrays]
        outputs = build(g, *values)
        g.outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        self.graphs.append((name, g, list(arrays)))

    def check(self, target: str, rtol: float = 0.0, strided: bool = False, seed: int = 0) -> None:
        """Run all on a target; floats may differ by `rtol` of the largest, all else not at all."""
        kernels, arrays, strides = [], {}, {}
        for name, g, given in self.graphs:
            kernel = loops.LoopKernel(g.ops, g.outputs, g.constants)
            assert all(loops.supports(op) for op in g.ops), name
            kernels.append(kernel)
            arrays.update(zip(g.inputs, given, strict=True))
            arrays.update({v: a for v, a in g.constants.items() if v in kernel.reads})
            if strided:
                strides.update({v: turned(v.shape) for v in (*kernel.reads, *kernel.writes)})
        got = run_kernels(kernels, arrays, strides=strides, target=host(target), seed=seed)
        for name, g, given in self.graphs:
            for z, want in zip(g.outputs, wanted(g, given), strict=True):
                close(got[z], want, rtol, f"{name} on {target}: {z}")


def turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides under which the first axis is innermost, with gaps in between."""
    steps, step = [], 2
    for n in shape:
        steps.append(step)
        step *= max(n, 1) + 1
    return tuple(steps)


def wanted(g: Graph, given: list[np.ndarray]) -> list[np.ndarray]:
    return evaluate(g, given)


def close(got: np.ndarray, want: np.ndarray, rtol: float, what: str) -> None:
    assert got.dtype == want.dtype, what
    if got.dtype.kind != "f" or not rtol:
        np.testing.assert_array_equal(got, want, what)
        return
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), what)
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite], what)
    scale = max(float(np.abs(want[finite]).max(initial=0)), 1e-30)
    error = float(np.abs(got[finite].astype("f8") - want[finite]).max(initial=0))
    limit = rtol if want.dtype == np.float32 else rtol * 1e-8
    assert error <= limit * scale, f"{what}: error {error / scale:.2e}"


def numbers(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype.startswith("float"):
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


# --- movements ------------------------------------------------------------------------------------


def movements(dtype: str) -> Cases:
    cases = Cases()
    x = numbers((3, 5, 34), dtype)
    for axes in itertools.permutations(range(3)):
        cases.add(f"permute {axes}", lambda g, v, a=axes: g.add(m.permute, v, axes=a), x)
    for shape, new in [
        ((3, 5, 34), (15, 34)), ((3, 5, 34), (3, 170)), ((6, 4), (4, 6)), ((6, 35), (14, 15)),
        ((12,), (3, 1, 4)), ((1, 1), ()), ((), (1, 1)), ((7, 3), (21, 1)), ((0, 3), (3, 0)),
        ((4, 6, 10), (8, 3, 10)), ((4, 6, 10), (10, 6, 4)),
    ]:  # fmt: skip
        cases.add(
            f"reshape {shape} {new}",
            lambda g, v, s=new: g.add(m.reshape, v, shape=s), numbers(shape, dtype),
        )  # fmt: skip
    for shape, new in [((34,), (3, 34)), ((5, 1), (5, 37)), ((1, 7), (4, 7)), ((), (2, 3)),
                       ((3, 1, 4), (2, 3, 5, 4)), ((1,), (0,))]:  # fmt: skip
        cases.add(
            f"broadcast {shape} {new}",
            lambda g, v, s=new: g.add(m.broadcast_to, v, shape=s), numbers(shape, dtype),
        )  # fmt: skip
    for starts, lengths, steps in [
        ((0, 1, 2), (3, 4, 30), (1, 1, 1)),
        ((2, 0, 1), (1, 3, 11), (1, 2, 3)),
        ((0, 0, 0), (0, 5, 34), (1, 1, 1)),
    ]:
        cases.add(
            f"slice {starts} {steps}",
            lambda g, v, a=starts, b=lengths, c=steps: g.add(
                m.slice_, v, starts=a, lengths=b, steps=c
            ), x,
        )  # fmt: skip
    for axes in [(0,), (2,), (0, 1, 2)]:
        cases.add(f"flip {axes}", lambda g, v, a=axes: g.add(m.flip, v, axes=a), x)
    for shape, widths in [((3, 20), ((1, 2, 0), (3, 4, 0))), ((4, 5), ((0, 0, 2), (1, 0, 3))),
                          ((3, 19), ((0, 0, 0), (0, 1, 1))), ((0, 3), ((2, 1, 1), (0, 0, 0))),
                          ((40,), ((-2, -3, 0),)), ((6, 7), ((-1, 2, 0), (2, -3, 1)))]:  # fmt: skip
        if any(w < 0 for one in widths for w in one):
            continue
        cases.add(
            f"pad {shape} {widths}",
            lambda g, v, w=widths: g.add(m.pad, v, widths=w, value=1), numbers(shape, dtype),
        )  # fmt: skip
    for axis, lengths in [
        (0, (3, 1, 4)),
        (1, (3, 18)),
        (1, (17, 0, 2, 16)),
        (2, (1, 1)),
        (2, (33, 5)),
    ]:
        parts = [numbers(tuple(n if a == axis else 3 for a in range(3)), dtype, n) for n in lengths]
        cases.add(
            f"concat {axis} {lengths}", lambda g, *v, a=axis: g.add(m.concat, *v, axis=a), *parts
        )
    cases.add("alias", lambda g, v: g.add(m.alias, v), x)
    cases.add("copy", lambda g, v: g.add(m.identity_copy, v), x)
    return cases


@pytest.mark.parametrize("target", available())
@pytest.mark.parametrize("dtype", [*FLOATS, "int64", "int8", "bool"])
def test_movements(target: str, dtype: str) -> None:
    movements(dtype).check(target)


@pytest.mark.parametrize("target", available())
def test_movements_of_strided_values(target: str) -> None:
    movements("float32").check(target, strided=True)


# --- reductions -----------------------------------------------------------------------------------


def reductions(dtype: str) -> Cases:
    cases = Cases()
    kinds = [r.max, r.min] if dtype != "bool" else [r.max, r.min, r.all_, r.any_]
    kinds += [r.sum] if dtype != "bool" else []
    for shape in [(3, 5, 34), (2, 64), (17,), (130, 3), (1, 1), (9, 16, 5), (300,)]:
        x = numbers(shape, dtype)
        for n in range(len(shape) + 1):
            for axes in itertools.combinations(range(len(shape)), n):
                for kind in kinds:
                    cases.add(
                        f"{kind} {shape} {axes}",
                        lambda g, v, k=kind, a=axes: g.add(k, v, axes=a),
                        x,
                    )
        for axis in range(len(shape)):
            for kind in (r.argmax, r.argmin):
                small = x if dtype == "bool" or x.dtype.kind == "f" else (x % 7).astype(dtype)
                cases.add(
                    f"{kind} {shape} {axis}",
                    lambda g, v, k=kind, a=axis: g.add(k, v, axis=a),
                    small,
                )
    return cases


@pytest.mark.parametrize("target", available())
@pytest.mark.parametrize("dtype", [*FLOATS, "int64", "uint8", "bool"])
def test_reductions(target: str, dtype: str) -> None:
    reductions(dtype).check(target, 2e-6)


@pytest.mark.parametrize("target", available())
def test_reductions_of_strided_values(target: str) -> None:
    reductions("float32").check(target, 2e-6, strided=True)


def test_reductions_of_nothing() -> None:
    cases = Cases()
    for kind, dtype in [(r.sum, "float32"), (r.sum, "int64"), (r.all_, "bool"), (r.any_, "bool")]:
        for shape, axes in [((0,), (0,)), ((3, 0), (1,)), ((0, 3), (0,)), ((3, 0), (0,))]:
            cases.add(
                f"{kind}", lambda g, v, k=kind, a=axes: g.add(k, v, axes=a), numbers(shape, dtype)
            )
    cases.check(available()[0])


@pytest.mark.parametrize("target", available())
@pytest.mark.parametrize("dtype", FLOATS)
def test_extrema_with_nan_and_infinities(target: str, dtype: str) -> None:
    cases = Cases()
    for n in (3, 40, 200):
        lines = []
        for places in ([], [0], [1, 2], [-1], [-1, 1], list(range(n))):
            for fill in (np.nan, np.inf, -np.inf):
                lines.append(numbers((n,), dtype, len(lines)))
                lines[-1][places] = fill
        lines.append(np.concatenate([[np.inf], np.full(n - 2, -np.inf), [np.nan]]).astype(dtype))
        x = np.stack(lines)
        for kind in (r.max, r.min):
            cases.add(f"{kind} {n}", lambda g, v, k=kind: g.add(k, v, axes=(1,)), x)
            cases.add(f"{kind} {n} across", lambda g, v, k=kind: g.add(k, v, axes=(0,)), x.T.copy())
        for kind in (r.argmax, r.argmin):
            cases.add(f"{kind} {n}", lambda g, v, k=kind: g.add(k, v, axis=1), x)
            cases.add(f"{kind} {n} across", lambda g, v, k=kind: g.add(k, v, axis=0), x.T.copy())
    cases.check(target)


@pytest.mark.parametrize("target", available())
def test_long_sums_are_more_accurate_than_numpys(target: str) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random(1_000_003) + 1).astype("float32")
    rows = x[:1_000_000].reshape(1000, 1000)
    for array, axes in [(x, (0,)), (rows, (0,)), (rows, (1,)), (rows, (0, 1))]:
        g = Graph()
        v = g.input(Spec(array.shape, array.dtype))
        z = g.add(r.sum, v, axes=axes)
        got = run_kernels([loops.LoopKernel(g.ops, [z])], {v: array}, target=host(target))[z]
        exact = np.sum(array.astype("float64"), axis=axes)
        error = np.max(np.abs(got - exact) / exact)
        assert error <= 1.5 * 2**-23, f"{array.shape} {axes}: {error:.1e}"


# --- fused groups ---------------------------------------------------------------------------------


def expanded(g: Graph, v: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
    return g.add(m.broadcast_to, g.add(m.reshape, v, shape=kept), shape=shape)


def constant(g: Graph, number: float, like: Any) -> Any:
    return g.constant(np.broadcast_to(np.asarray(number, like.dtype), like.shape))


def softmax(g: Graph, x: Any, axis: int) -> Any:
    top = expanded(g, g.add(r.max, x, axes=(axis,)), x.shape, (axis,))
    powers = g.add(e.exp, g.add(e.sub, x, top))
    return g.add(e.div, powers, expanded(g, g.add(r.sum, powers, axes=(axis,)), x.shape, (axis,)))


def log_softmax(g: Graph, x: Any, axis: int) -> Any:
    top = expanded(g, g.add(r.max, x, axes=(axis,)), x.shape, (axis,))
    low = g.add(e.sub, x, top)
    total = g.add(r.sum, g.add(e.exp, low), axes=(axis,))
    return g.add(e.sub, low, expanded(g, g.add(e.log, total), x.shape, (axis,)))


def softmax_backward(g: Graph, x: Any, up: Any, axis: int) -> Any:
    z = softmax(g, x, axis)
    inner = g.add(r.sum, g.add(e.mul, up, z), axes=(axis,))
    return z, g.add(e.mul, z, g.add(e.sub, up, expanded(g, inner, x.shape, (axis,))))


def mean(g: Graph, x: Any, axes: tuple[int, ...]) -> Any:
    total = g.add(r.sum, x, axes=axes)
    count = int(np.prod([x.shape[a] for a in axes]))
    return g.add(e.div, total, constant(g, count, total))


def norm(g: Graph, x: Any, weight: Any, bias: Any, axes: tuple[int, ...], channels: int) -> Any:
    """Layer and batch norm, with what training keeps."""
    average = mean(g, x, axes)
    low = g.add(e.sub, x, expanded(g, average, x.shape, axes))
    variance = mean(g, g.add(e.mul, low, low), axes)
    root = g.add(e.sqrt, g.add(e.add, variance, constant(g, 1e-5, variance)))
    scale = g.add(e.div, constant(g, 1, root), root)
    z = g.add(e.mul, low, expanded(g, scale, x.shape, axes))
    others = tuple(a for a in range(x.ndim) if a != channels)
    z = g.add(e.mul, z, expanded(g, weight, x.shape, others))
    return g.add(e.add, z, expanded(g, bias, x.shape, others)), average, variance


def norm_backward(g: Graph, x: Any, up: Any, axes: tuple[int, ...]) -> Any:
    """The gradient of (x - mean) / std by x, and the sums that weight and bias need."""
    average = mean(g, x, axes)
    low = g.add(e.sub, x, expanded(g, average, x.shape, axes))
    variance = mean(g, g.add(e.mul, low, low), axes)
    root = g.add(e.sqrt, g.add(e.add, variance, constant(g, 1e-5, variance)))
    unit = g.add(e.div, low, expanded(g, root, x.shape, axes))
    first = mean(g, up, axes)
    second = mean(g, g.add(e.mul, up, unit), axes)
    inner = g.add(e.sub, up, expanded(g, first, x.shape, axes))
    inner = g.add(e.sub, inner, g.add(e.mul, unit, expanded(g, second, x.shape, axes)))
    return g.add(e.div, inner, expanded(g, root, x.shape, axes)), first, second


ROWS = [((32, 10), 1), ((5, 65), 1), ((3, 4, 300), 2), ((7, 33, 6), 1), ((20, 40), 0), ((2, 1), 1),
        ((3, 1030), 1), ((1, 9), 0)]  # fmt: skip


def rows(dtype: str) -> Cases:
    cases = Cases()
    for shape, axis in ROWS:
        x, up = numbers(shape, dtype), numbers(shape, dtype, 1)
        cases.add(f"softmax {shape}", lambda g, v, a=axis: softmax(g, v, a), x)
        cases.add(f"log_softmax {shape}", lambda g, v, a=axis: log_softmax(g, v, a), x)
        cases.add(
            f"softmax backward {shape}",
            lambda g, v, u, a=axis: softmax_backward(g, v, u, a),
            x,
            up,
        )
    return cases


def norms(dtype: str) -> Cases:
    cases = Cases()
    for shape, axes, channels in [
        ((6, 40), (1,), 1), ((3, 5, 128), (2,), 2), ((4, 6, 5, 7), (0, 2, 3), 1),
        ((8, 3, 16), (0, 2), 1), ((50, 19), (0,), 1), ((2, 300), (1,), 1),
    ]:  # fmt: skip
        x, up = numbers(shape, dtype), numbers(shape, dtype, 1)
        weight, bias = (
            numbers(shape[channels : channels + 1], dtype, 2),
            numbers(shape[channels : channels + 1], dtype, 3),
        )
        cases.add(
            f"norm {shape} {axes}",
            lambda g, v, w, b, a=axes, c=channels: norm(g, v, w, b, a, c), x, weight, bias,
        )  # fmt: skip
        cases.add(
            f"norm backward {shape} {axes}",
            lambda g, v, u, a=axes: norm_backward(g, v, u, a),
            x,
            up,
        )
    return cases


@pytest.mark.parametrize("target", available())
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cases", [rows, norms])
def test_rows(target: str, dtype: str, cases: Any) -> None:
    found = cases(dtype)
    found.check(target, 1e-5)


@pytest.mark.parametrize("target", available())
@pytest.mark.parametrize("cases", [rows, norms])
def test_rows_of_strided_values(target: str, cases: Any) -> None:
    cases("float32").check(target, 1e-5, strided=True)


def test_rows_are_one_nest() -> None:
    for cases in (rows("float32"), norms("float32")):
        for name, g, _ in cases.graphs:
            kernel = loops.LoopKernel(g.ops, g.outputs, g.constants)
            assert len(kernel.nests) == 1, name
