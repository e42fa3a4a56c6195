"""Loop kernels as the schedule sees them: blocks, places to overwrite, what is alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import run_kernels
from test_loops import Cases, available, close, constant, norm, numbers, softmax, turned

from chainrule.compiler.ir import Graph, evaluate
from chainrule.compiler.native import loops
from chainrule.compiler.native.jit import assembly
from chainrule.compiler.native.kernel import FIRST, Buffer, strides_of
from chainrule.compiler.native.target import foreign, host
from chainrule.compiler.native.text import Module
from chainrule.graph import Spec
from chainrule.primitives import elementwise as e
from chainrule.primitives import movement as m
from chainrule.primitives import reduction as r


def graph(build: Any, *shapes: tuple[int, ...], dtype: str = "float32") -> Graph:
    g = Graph()
    outputs = build(g, *[g.input(Spec(s, np.dtype(dtype))) for s in shapes])
    g.outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    return g


# --- long rows in blocks --------------------------------------------------------------------------

LONG = {
    "sum of all": ((3, 100007), lambda g, x: g.add(r.sum, x, axes=(0, 1))),
    "sums of rows": ((3, 100007), lambda g, x: g.add(r.sum, x, axes=(1,))),
    "sums of columns": ((100007, 3), lambda g, x: g.add(r.sum, x, axes=(0,))),
    "sums over two axes": ((5000, 2, 40), lambda g, x: g.add(r.sum, x, axes=(0, 2))),
    "length": (
        (2, 70001),
        lambda g, x: g.add(e.sqrt, g.add(r.sum, g.add(e.mul, x, x), axes=(0, 1))),
    ),
    "largest": ((3, 100007), lambda g, x: g.add(r.max, x, axes=(0, 1))),
    "least of rows": ((2, 65536), lambda g, x: g.add(r.min, x, axes=(1,))),
    "softmax": ((2, 100007), lambda g, x: softmax(g, x, 1)),
}


@pytest.mark.parametrize("target", available())
@pytest.mark.parametrize("name", LONG)
def test_long_rows_are_reduced_in_blocks(name: str, target: str) -> None:
    shape, build = LONG[name]
    g = graph(build, shape)
    x = np.random.default_rng(0).random(shape, dtype="float32") + 1
    (kernel,) = loops.kernels(g.ops, g.outputs, g.constants)
    kernels = kernel.settled({})
    assert len(kernels) > 1 and kernels[0].units >= 4
    got = run_kernels(kernels, {g.inputs[0]: x}, target=host(target), pieces=5)
    (want,) = evaluate(g, [x.astype("float64")])
    close(got[g.outputs[0]], want.astype("float32"), 1e-6, name)


@pytest.mark.parametrize("name", ["sum of all", "sums of columns", "length", "largest"])
def test_what_blocks_have_done_is_not_counted_again(name: str) -> None:
    shape, build = LONG[name]
    g = graph(build, shape)
    (kernel,) = loops.kernels(g.ops, g.outputs, g.constants)
    first, *rest = kernel.settled({})
    assert first.flops > 0.99 * kernel.flops
    assert 0 < sum(k.flops for k in rest) < 0.01 * kernel.flops


def test_blocks_depend_on_how_values_lie() -> None:
    """Few channels are many rows, unless they are the innermost axis."""
    g = graph(lambda g, x, w, b: norm(g, x, w, b, (0, 2, 3), 1), (8, 16, 32, 32), (16,), (16,))
    (kernel,) = loops.kernels(g.ops, g.outputs, g.constants)
    last = {v: (16384, 1, 512, 16) for v in (*kernel.reads, *kernel.writes) if v.ndim == 4}
    assert len(kernel.settled({})) == 1
    kernels = kernel.settled(last)
    assert len(kernels) > 1
    arrays = [numbers(v.shape, "float32", i) for i, v in enumerate(g.inputs)]
    got = run_kernels(kernels, dict(zip(g.inputs, arrays, strict=True)), strides=last)
    for z, want in zip(g.outputs, evaluate(g, arrays), strict=True):
        close(got[z], want, 1e-5, str(z))


def test_argument_of_the_largest_in_a_long_row() -> None:
    x = np.zeros((1, 200_001), "float32")
    x[0, 123_456] = 1
    g = graph(lambda g, v: g.add(r.argmax, v, axis=1), x.shape)
    (kernel,) = loops.kernels(g.ops, g.outputs)
    assert run_kernels(kernel.settled({}), {g.inputs[0]: x})[g.outputs[0]] == [123_456]


# --- writing over what is read --------------------------------------------------------------------


def test_what_may_be_written_over() -> None:
    def step(g: Graph, p: Any, d: Any) -> Any:
        return g.add(e.sub, p, g.add(e.mul, d, constant(g, 0.1, d)))

    g = graph(step, (30, 40), (30, 40))
    (kernel,) = loops.kernels(g.ops, g.outputs, g.constants)
    (z,) = g.outputs
    assert all(kernel.may_overwrite(x, z) for x in g.inputs)

    g = graph(lambda g, x: g.add(e.neg, g.add(m.flip, x, axes=(0,))), (30, 40))
    (kernel,) = loops.kernels(g.ops, g.outputs)
    assert not kernel.may_overwrite(g.inputs[0], g.outputs[0])

    def two(g: Graph, x: Any) -> Any:
        return g.add(e.neg, x), g.add(r.sum, g.add(e.mul, x, x), axes=(1,))

    g = graph(two, (30, 40))  # x is read in the same pass, before it is written
    (kernel,) = loops.kernels(g.ops, g.outputs)
    assert kernel.may_overwrite(g.inputs[0], g.outputs[0])

    def later(g: Graph, x: Any) -> Any:
        mean = g.add(m.broadcast_to, g.add(r.sum, x, axes=(1,)), shape=(40, 30))
        low = g.add(e.sub, x, g.add(m.permute, mean, axes=(1, 0)))
        return g.add(e.neg, x), g.add(r.sum, g.add(e.mul, low, low), axes=(1,))

    g = graph(later, (30, 40))  # the second pass reads x after the first has written
    (kernel,) = loops.kernels(g.ops, g.outputs)
    assert not kernel.may_overwrite(g.inputs[0], g.outputs[0])

    g = graph(lambda g, x: softmax(g, x, 1), (30, 40))
    (kernel,) = loops.kernels(g.ops, g.outputs)
    assert kernel.may_overwrite(g.inputs[0], g.outputs[0])


# --- likeness -------------------------------------------------------------------------------------


def test_equal_groups_are_alike_and_others_are_not() -> None:
    def key(build: Any, *shapes: tuple[int, ...], dtype: str = "float32") -> Any:
        g = graph(build, *shapes, dtype=dtype)
        (kernel,) = loops.kernels(g.ops, g.outputs, g.constants)
        found, values = kernel.likeness()
        assert set(values) == {*kernel.reads, *kernel.writes}
        return found

    one = key(lambda g, x: softmax(g, x, 1), (30, 40))
    assert one == key(lambda g, x: softmax(g, x, 1), (30, 40))
    others = [
        key(lambda g, x: softmax(g, x, 1), (30, 41)),
        key(lambda g, x: softmax(g, x, 0), (30, 40)),
        key(lambda g, x: softmax(g, x, 1), (30, 40), dtype="float64"),
        key(lambda g, x: g.add(e.mul, x, constant(g, 2, x)), (30, 40)),
        key(lambda g, x: g.add(e.mul, x, constant(g, 3, x)), (30, 40)),
        key(lambda g, x, y: g.add(e.sub, x, y), (30, 40), (30, 40)),
        key(lambda g, x, y: g.add(e.sub, y, x), (30, 40), (30, 40)),
        key(lambda g, x: g.add(m.flip, x, axes=(0,)), (30, 40)),
        key(lambda g, x: g.add(m.flip, x, axes=(1,)), (30, 40)),
        key(lambda g, x: g.add(r.sum, x, axes=(1,)), (30, 40)),
        key(lambda g, x: g.add(r.max, x, axes=(1,)), (30, 40)),
        key(lambda g, x: g.add(e.cast, x, dtype=np.dtype("int32")), (30, 40)),
        key(lambda g, x: g.add(e.cast, x, dtype=np.dtype("int64")), (30, 40)),
    ]  # fmt: skip
    values = [one, *others]
    pairs = [(i, j) for i in range(len(values)) for j in range(i)]
    assert {(i, j) for i, j in pairs if values[i] == values[j]} <= {(7, 6)}


# --- independent outputs, other processors --------------------------------------------------------


@pytest.mark.parametrize("target", available())
def test_updates_of_many_parameters_are_one_kernel(target: str) -> None:
    def update(g: Graph, *values: Any) -> Any:
        half = len(values) // 2
        return tuple(
            g.add(e.sub, p, g.add(e.mul, d, constant(g, 0.1, d)))
            for p, d in zip(values[:half], values[half:], strict=True)
        )

    cases = Cases()
    shapes = [(16, 784), (16,), (3, 5, 7), (1,), (), (20_000,)]
    cases.add("updates", update, *[numbers(s, "float32", i) for i, s in enumerate(shapes * 2)])
    cases.check(target, 1e-6)
    (_, g, _) = cases.graphs[0]
    assert len(loops.LoopKernel(g.ops, g.outputs, g.constants).nests) == len(shapes)


def test_code_for_other_processors() -> None:
    """NEON: vectors of four, no masked stores; the assembly is read, not run."""
    g = graph(lambda g, x: softmax(g, x, 1), (30, 70))
    (kernel,) = loops.kernels(g.ops, g.outputs)
    values = [*kernel.reads, *kernel.writes]
    buffers = {
        v: Buffer(FIRST + i, 0, v.shape, strides_of(v.shape), v.dtype) for i, v in enumerate(values)
    }
    target = foreign("neon")
    module = Module(target)
    kernel.emit(module, "softmax", buffers)
    module.functions = [f.replace("define internal", "define") for f in module.functions]
    text = assembly(module.text(), target)
    assert "fmla\tv" in text and ".4s" in text and "fdiv\tv" in text


@pytest.mark.parametrize("target", available())
def test_constants_that_count(target: str) -> None:
    """They are numbers of the index, however large; all others are read."""
    cases = Cases()
    for array in (
        np.arange(40) * 5_000_000_000, np.arange(40, dtype="uint8") * 6, np.arange(7)[::-1] - 3,
        np.arange(120).reshape(5, 24) * 3 - 7, np.array([1, 2, 4]), np.arange(20).reshape(20, 1),
        np.array([3, 3, 3, 4]), np.arange(40, dtype="uint64") + 2**63,
    ):  # fmt: skip

        def build(g: Graph, x: Any, a: np.ndarray = array) -> Any:
            return g.add(e.add, x, g.constant(a.copy()))

        cases.add(f"{array[:2]}", build, numbers(array.shape, str(array.dtype)))
    cases.check(target)


@pytest.mark.parametrize("target", available())
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool"])
def test_transposed_tiles(target: str, dtype: str) -> None:
    """Whole tiles, rows and columns that are left, several transposed values, other axes around."""
    cases = Cases()
    for shape in [(37, 53), (16, 16), (64, 33), (15, 40), (40, 8), (130, 17)]:
        x = numbers(shape, dtype)
        cases.add(f"{shape}", lambda g, v: g.add(m.permute, v, axes=(1, 0)), x)
        both = e.add if dtype != "bool" else e.logical_xor
        y, z = numbers(shape[::-1], dtype, 1), numbers(shape, dtype, 2)

        def build(g: Graph, x: Any, y: Any, z: Any, op: Any = both) -> Any:
            turned = [g.add(m.permute, v, axes=(1, 0)) for v in (x, z)]
            return g.add(op, g.add(op, turned[0], y), turned[1])

        cases.add(f"{shape} together", build, x, y, z)
    x = numbers((3, 35, 2, 18), dtype)
    for axes in [(0, 3, 2, 1), (2, 3, 0, 1), (3, 0, 2, 1)]:
        cases.add(f"{axes}", lambda g, v, a=axes: g.add(m.permute, v, axes=a), x)
    cases.check(target, 1e-6)


def test_tiles_are_found() -> None:
    g = graph(lambda g, x: g.add(m.permute, x, axes=(1, 0)), (40, 70))
    (kernel,) = loops.kernels(g.ops, g.outputs)
    order = loops.plan_of(kernel.nests[0], {}).order
    assert order.cross is not None and order.cross.extent == 70
    assert len(order.turned) == 1


@pytest.mark.parametrize("movement", [False, True])
def test_chains_longer_than_calls_can_be_nested(movement: bool) -> None:
    def build(g: Graph, x: Any, y: Any) -> Any:
        z = x
        for i in range(1200):
            z = g.add(e.sub, y, z)
            if movement and i % 3 == 0:
                z = g.add(m.flip, z, axes=(0,))
        return z, g.add(r.sum, z, axes=(1,))

    cases = Cases()
    cases.add("chain", build, numbers((4, 5), "int64"), numbers((4, 5), "int64", 1))
    cases.check(available()[0])


def test_strides_with_gaps_and_backwards() -> None:
    shape = (6, 35)
    cases = Cases()
    cases.add("add", lambda g, x, y: g.add(e.add, x, y), numbers(shape), numbers(shape, seed=1))
    for target in available():
        cases.check(target, 1e-6, strided=True)
    assert turned(shape) == (2, 14)
