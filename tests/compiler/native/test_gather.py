"""Kernels of indices against the primitives' evaluation in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from elementwise import targets
from harness import run_kernels

from chainrule.compiler.ir import Graph, Value
from chainrule.compiler.native import gather
from chainrule.compiler.native.target import host
from chainrule.graph import Primitive, Spec
from chainrule.primitives import indexing as p

TARGETS = pytest.mark.parametrize("target", targets())
RNG = np.random.default_rng(0)
DTYPES = [
    "bool",
    "int8",
    "uint16",
    "int32",
    "int64",
    "float32",
    "float64",
    "complex64",
    "complex128",
]


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    x = np.asarray(RNG.standard_normal(shape) * 50)
    if dtype.startswith("complex"):
        x = x + 1j * RNG.standard_normal(shape)
    return np.asarray(x > 0 if dtype == "bool" else x.astype(dtype))


def run(
    primitive: Primitive, *arrays: np.ndarray, target: str,
    strides: dict[int, tuple[int, ...]] | None = None, **params: Any,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """What the kernel and the primitive say; `strides` by position of inputs, -1 the output."""
    graph = Graph()
    values: list[Value] = [graph.input(Spec(x.shape, x.dtype)) for x in arrays]
    out = graph.add(primitive, *values, **params)
    op = graph.ops[0]
    assert gather.supports(op)
    by_value = {(out if i == -1 else values[i]): s for i, s in (strides or {}).items()}
    got = run_kernels(
        gather.kernels(op), dict(zip(values, arrays, strict=True)), by_value, host(target)
    )[out]
    return got, np.asarray(primitive.evaluate(*arrays, **params))


def same(got: np.ndarray, want: np.ndarray) -> None:
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


@TARGETS
@pytest.mark.parametrize("dtype", DTYPES)
def test_gather(dtype: str, target: str) -> None:
    for rows, index in (((7, 5), (11,)), ((3, 2, 19), (2, 3)), ((9,), (40,)), ((4, 33), ())):
        x = numbers(rows, dtype)
        for kind in ("int64", "int32", "uint8"):
            i = np.asarray(RNG.integers(0, rows[0], index), kind)
            same(*run(p.gather, x, i, target=target))


@TARGETS
def test_gather_of_many_rows_in_several_units(target: str) -> None:
    x = numbers((100, 130), "float32")
    same(*run(p.gather, x, RNG.integers(0, 100, 500), target=target))
    same(*run(p.gather, numbers((70000,), "float32"), RNG.integers(0, 70000, 60000), target=target))


@TARGETS
def test_gather_with_gaps(target: str) -> None:
    x, i = numbers((6, 4, 5), "float32"), RNG.integers(0, 6, (3, 2))
    for strides in (
        {0: (40, 1, 5)},
        {0: (1, 6, 24)},
        {1: (1, 3)},
        {-1: (1, 3, 6, 24)},
        {1: (5, 2)},
    ):
        same(*run(p.gather, x, i, target=target, strides=strides))


@TARGETS
def test_an_index_out_of_bounds_reads_the_nearest_row(target: str) -> None:
    x = numbers((5, 3), "float32")
    for kind in ("int64", "int32"):
        i = np.array([-1, -(2**31), 5, 2**31 - 1, 2], kind)
        got, _ = run(p.gather, x, np.clip(i, 0, 4), target=target)
        graph = Graph()
        a, b = graph.input(Spec(x.shape, x.dtype)), graph.input(Spec(i.shape, i.dtype))
        out = graph.add(p.gather, a, b)
        kernels = gather.kernels(graph.ops[0])
        same(run_kernels(kernels, {a: x, b: i}, target=host(target))[out], got)
    i = np.array([2**64 - 1, 2**63, 1], "uint64")
    graph = Graph()
    a, b = graph.input(Spec(x.shape, x.dtype)), graph.input(Spec(i.shape, i.dtype))
    out = graph.add(p.gather, a, b)
    got = run_kernels(gather.kernels(graph.ops[0]), {a: x, b: i}, target=host(target))[out]
    same(got, x[[4, 4, 1]])


@TARGETS
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "uint32"])
def test_scatter_add(dtype: str, target: str) -> None:
    for index, inner, length in (
        ((40,), (3,), 7),
        ((5, 6), (2, 40), 4),
        ((300,), (), 5),
        ((), (9,), 2),
    ):
        updates = numbers((*index, *inner), dtype)
        i = RNG.integers(0, length, index)
        got, want = run(p.scatter_add, updates, i, target=target, length=length)
        if dtype.startswith("f"):
            scale = np.abs(updates).sum(axis=tuple(range(len(index)))) * np.finfo(dtype).eps
            assert (np.abs(got - want) <= 4 * scale).all()
        else:
            same(got, want)


@TARGETS
def test_scatter_add_by_columns(target: str) -> None:
    """Wide rows in several units: sums in the order of the index."""
    updates, i = numbers((400, 300), "float32"), RNG.integers(0, 11, 400)
    got, want = run(p.scatter_add, updates, i, target=target, length=11)
    exact = np.zeros((11, 300), np.float32)
    for row, update in zip(i, updates, strict=True):
        exact[row] += update
    same(got, exact)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)
    got, _ = run(p.scatter_add, updates, i, target=target, length=11, strides={0: (1, 400)})
    same(got, exact)


@TARGETS
def test_sums_of_narrow_rows_are_as_exact_as_in_numpy(target: str) -> None:
    updates = RNG.uniform(0, 1, 200_000).astype(np.float32)
    i = RNG.integers(0, 3, 200_000)
    got, want = run(p.scatter_add, updates, i, target=target, length=3)
    np.testing.assert_allclose(got, want, rtol=2e-7)


@TARGETS
@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_set(dtype: str, target: str) -> None:
    for shape, index in (((7, 5), (4,)), ((3, 2, 19), (2, 3)), ((9,), (40,)), ((4, 33), ())):
        x, i = numbers(shape, dtype), RNG.integers(0, shape[0], index)
        updates = numbers((*index, *shape[1:]), dtype)
        same(*run(p.scatter_set, x, updates, i, target=target))


@TARGETS
def test_scatter_set_by_columns_and_with_gaps(target: str) -> None:
    x, i, updates = (
        numbers((30, 400), "float32"),
        RNG.integers(0, 30, 99),
        numbers((99, 400), "float32"),
    )
    for strides in ({}, {0: (1, 30)}, {1: (1, 99)}, {-1: (1, 30)}, {0: (800, 2)}):
        same(*run(p.scatter_set, x, updates, i, target=target, strides=strides))
    z = numbers((30, 400), "complex128")
    same(*run(p.scatter_set, z, z[i[:70] % 30], i[:70], target=target))


@TARGETS
@pytest.mark.parametrize("dtype", DTYPES)
def test_slice_set(dtype: str, target: str) -> None:
    for shape, updates, starts, steps in (
        ((7, 5), (3, 2), (1, 0), (2, 3)), ((7, 5), (7, 5), (0, 0), (1, 1)),
        ((40,), (5,), (3,), (7,)), ((2, 3, 70), (1, 3, 20), (1, 0, 5), (1, 1, 3)),
        ((), (), (), ()), ((200, 300), (50, 300), (100, 0), (2, 1)),
    ):  # fmt: skip
        x, u = numbers(shape, dtype), numbers(updates, dtype)
        same(*run(p.slice_set, x, u, target=target, starts=starts, steps=steps))


@TARGETS
def test_slice_set_with_gaps(target: str) -> None:
    x, u = numbers((6, 8, 10), "float32"), numbers((2, 3, 4), "float32")
    for strides in ({0: (1, 6, 48)}, {1: (1, 2, 6)}, {-1: (1, 6, 48)}, {-1: (160, 20, 2)}):
        same(
            *run(
                p.slice_set, x, u, target=target, strides=strides, starts=(1, 2, 1), steps=(2, 2, 2)
            )
        )


def test_what_is_not_claimed() -> None:
    graph = Graph()
    x = graph.input(Spec((0, 3), np.dtype("float32")))
    i = graph.input(Spec((4,), np.dtype("int64")))
    c = graph.input(Spec((4, 2), np.dtype("complex64")))
    graph.add(p.gather, x, i)
    graph.add(p.scatter_add, c, i, length=3)
    assert not any(gather.supports(op) for op in graph.ops)
