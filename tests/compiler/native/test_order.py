"""Kernels of order, running sums and random bits against the primitives' evaluation in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from elementwise import targets
from harness import run_kernels

from chainrule.compiler.ir import Graph, Value
from chainrule.compiler.native import random, scan1d, sort
from chainrule.compiler.native.jit import assembly
from chainrule.compiler.native.kernel import FIRST, PARAMETERS, Buffer, strides_of
from chainrule.compiler.native.target import foreign, host
from chainrule.compiler.native.text import Function, Module
from chainrule.graph import Primitive, Spec
from chainrule.primitives import bits, reduction, sorting
from chainrule.primitives.kernels import philox

TARGETS = pytest.mark.parametrize("target", targets())
RNG = np.random.default_rng(0)
DTYPES = ["int8", "uint16", "int32", "uint64", "int64", "float32", "float64"]


def check(
    room: Any, primitive: Primitive, *arrays: np.ndarray, target: str,
    strides: dict[int, tuple[int, ...]] | None = None, **params: Any,
) -> None:  # fmt: skip
    """The kernel must say what the primitive says, to the bit."""
    graph = Graph()
    values: list[Value] = [graph.input(Spec(x.shape, x.dtype)) for x in arrays]
    out = graph.add(primitive, *values, **params)
    op = graph.ops[0]
    assert room.supports(op)
    by_value = {(out if i == -1 else values[i]): s for i, s in (strides or {}).items()}
    inputs = dict(zip(values, arrays, strict=True))
    got = run_kernels(room.kernels(op), inputs, by_value, host(target))[out]
    with np.errstate(all="ignore"):
        want = np.asarray(primitive.evaluate(*arrays, **params))
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


def numbers(shape: tuple[int, ...], dtype: str, distinct: bool = False) -> np.ndarray:
    """Numbers with many ties; with infinities, zeros of both signs and NaN if they are floats."""
    if np.dtype(dtype).kind == "f":
        if distinct:
            return RNG.standard_normal(shape).astype(dtype)
        edges = np.array([0, -0.0, 1, -1, 2.5, np.inf, -np.inf, np.nan, -np.nan, 1e-40], dtype)
        return RNG.choice(edges, shape)
    info = np.iinfo(dtype)
    if distinct:
        return RNG.integers(info.min, info.max, shape, dtype)
    return RNG.choice(np.array([info.min, 0, 1, 2, 3, info.max], dtype), shape)


# --- running sums -------------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize("dtype", DTYPES)
def test_cumulative_sum(dtype: str, target: str) -> None:
    for shape, axis in (
        ((37,), 0),
        ((4, 9), 1),
        ((9, 4), 0),
        ((5, 30, 3), 1),
        ((2, 7, 67), 1),
        ((3, 1), 1),
    ):
        x = (10 * RNG.standard_normal(shape)).astype(dtype)
        check(scan1d, reduction.cumulative_sum, x, target=target, axis=axis)


@TARGETS
def test_cumulative_sum_in_several_units_and_with_gaps(target: str) -> None:
    for shape, axis in (((300, 500), 0), ((3, 40, 1000), 1), ((400, 300), 1), ((2, 50000), 1)):
        x = RNG.standard_normal(shape).astype(np.float32)
        check(scan1d, reduction.cumulative_sum, x, target=target, axis=axis)
    x = RNG.standard_normal((4, 6, 40)).astype(np.float32)
    for strides in ({0: (1, 4, 24)}, {-1: (1, 4, 24)}, {0: (480, 80, 2)}, {0: (40, 0, 1)}):
        if strides == {0: (40, 0, 1)}:
            x = np.broadcast_to(x[:, :1], x.shape)
        for axis in range(3):
            check(scan1d, reduction.cumulative_sum, x, target=target, strides=strides, axis=axis)


# --- order --------------------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
def test_argsort(dtype: str, descending: bool, target: str) -> None:
    for shape, axis in (
        ((1,), 0),
        ((20,), 0),
        ((3, 300), 1),
        ((100, 5), 0),
        ((2, 64, 3), 1),
        ((2, 65, 3), 1),
    ):
        draws = (
            [numbers(shape, dtype, d) for d in (False, True)]
            if dtype != "bool"
            else [RNG.integers(0, 2, shape).astype(bool)]
        )
        for x in draws:
            check(sort, sorting.argsort, x, target=target, axis=axis, descending=descending)


@TARGETS
def test_argsort_of_long_lines_and_with_gaps(target: str) -> None:
    for dtype in ("float32", "float64", "uint64"):
        x = numbers((2, 30_000), dtype, distinct=True)
        check(sort, sorting.argsort, x, target=target, axis=1, descending=False)
    x = numbers((30, 60), "float32")
    for strides in ({0: (1, 30)}, {-1: (1, 30)}, {0: (240, 4)}):
        for axis in range(2):
            check(
                sort, sorting.argsort, x, target=target, strides=strides, axis=axis, descending=True
            )


@TARGETS
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
def test_searchsorted(dtype: str, side: str, target: str) -> None:
    for n, shape in ((1, (5,)), (2, (4, 5)), (100, (300,)), (127, ()), (1000, (7,))):
        x = np.sort(numbers((n,), dtype)) if dtype != "bool" else np.sort(RNG.integers(0, 2, n) > 0)
        v = numbers(shape, dtype) if dtype != "bool" else np.asarray(RNG.integers(0, 2, shape) > 0)
        check(sort, sorting.searchsorted, x, np.asarray(v), target=target, side=side)
    if dtype == "float32":
        x, v = np.sort(numbers((5000,), dtype, True)), numbers((60, 50), dtype, True)
        for strides in ({}, {0: (3,)}, {1: (1, 60)}, {-1: (1, 60)}):
            check(sort, sorting.searchsorted, x, v, target=target, side=side, strides=strides)


# --- random bits --------------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize("n", [1, 3, 4, 31, 32, 33, 1000, 4 * random.BLOCKS + 5, 40_000])
def test_random_bits(n: int, target: str) -> None:
    for key, counter in ((0, 0), (2**64 - 1, 2**64 - 3), (0x123456789ABCDEF0, 2**32 - 2)):
        state = np.array([key, counter], np.uint64)
        check(random, bits.random_bits, state, target=target, shape=(n,))


@TARGETS
def test_the_published_numbers(target: str) -> None:
    """The known answers of the paper's authors for counters that this stream can have: 0, key 0."""
    state = np.array([0, 0], np.uint64)
    assert philox.philox_bits(0, 0, 4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    check(random, bits.random_bits, state, target=target, shape=(2, 2))


@TARGETS
def test_advance(target: str) -> None:
    for blocks in (0, 1, 12345, 2**63):
        state = np.array([7, 2**64 - 5], np.uint64)
        check(random, bits.advance, state, target=target, blocks=blocks)


def test_code_for_another_processor() -> None:
    """Every kernel gives code for NEON, and none calls a library."""
    target = foreign("neon")
    graph = Graph()
    x = graph.input(Spec((9, 100), np.dtype("float32")))
    line = graph.input(Spec((50,), np.dtype("float64")))
    state = graph.input(Spec((2,), np.dtype("uint64")))
    graph.add(sorting.argsort, x, axis=0, descending=True)
    graph.add(sorting.argsort, x, axis=1, descending=True)
    graph.add(sorting.searchsorted, line, line, side="right")
    graph.add(reduction.cumulative_sum, x, axis=0)
    graph.add(reduction.cumulative_sum, x, axis=1)
    graph.add(bits.random_bits, state, shape=(333,))
    graph.add(bits.advance, state, blocks=3)
    module = Module(target)
    buffers = {
        v: Buffer(FIRST + i, 0, v.shape, strides_of(v.shape), v.dtype)
        for i, v in enumerate(graph.values())
    }
    for number, op in enumerate(graph.ops):
        room = next(room for room in (random, scan1d, sort) if room.supports(op))
        name = f"kernel{number}"
        room.kernels(op)[0].emit(module, name, buffers)
        f = Function(module, f"entry{number}", PARAMETERS, internal=False)
        f.run(name, *(f.arg(x) for x in ("table", "lo", "hi", "scratch")))
        f.finish()
    text = assembly(module.text(), target)
    called = {s.split()[1] for s in map(str.strip, text.splitlines()) if s.startswith("bl\t")}
    assert called == {f"kernel{i}" for i in range(len(graph.ops))}


def test_what_is_not_claimed() -> None:
    graph = Graph()
    x = graph.input(Spec((9,), np.dtype("float32")))
    y = graph.input(Spec((9,), np.dtype("float64")))
    c = graph.input(Spec((9,), np.dtype("complex64")))
    empty = graph.input(Spec((0,), np.dtype("float32")))
    huge = graph.input(Spec((10**8,), np.dtype("float32")))
    graph.add(sorting.searchsorted, x, y, side="left")
    graph.add(reduction.cumulative_sum, c, axis=0)
    for value in (empty, huge):
        graph.add(sorting.argsort, value, axis=0, descending=False)
    assert not any(room.supports(op) for op in graph.ops for room in (random, scan1d, sort))
