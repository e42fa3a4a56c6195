"""Building: red zones, what happens without LLVM, kernels that are alike, repeated runs."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

from chainrule.compiler import build as building
from chainrule.compiler import fuse
from chainrule.compiler.build import Options, RedZoneError, build, schedule, text
from chainrule.compiler.ir import Graph, evaluate
from chainrule.compiler.native import jit
from chainrule.compiler.native.kernel import PARAMETERS, Kernel
from chainrule.compiler.native.target import host
from chainrule.compiler.native.text import Function
from chainrule.compiler.passes import run
from chainrule.compiler.plan import plan
from chainrule.errors import ChainruleWarning
from chainrule.graph import Spec
from chainrule.primitives import elementwise as e
from chainrule.primitives import linalg, sorting
from chainrule.primitives import movement as m

F = np.dtype("float32")


def dense(depth: int = 1, width: int = 24) -> Graph:
    """tanh(x W) several times, each with weights of its own, which move a little."""
    g = Graph(name="dense")
    x = g.input(Spec((8, width), F))
    weights = [g.input(Spec((width, width), F)) for _ in range(depth)]
    for w in weights:
        x = g.add(e.tanh, g.add(linalg.matmul, x, w))
    g.outputs = [x, *(g.add(e.add, w, g.add(e.tanh, w)) for w in weights)]
    g.updates = {i + 1: i + 1 for i in range(depth)}
    return g


def arrays_of(g: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(x.shape) / 5).astype(x.dtype) for x in g.inputs]


class Overflowing(Kernel):
    """exp, and one number too many behind (or in front of) the result."""

    family = "loops"

    def __init__(self, inner: Kernel, at: int):
        self.inner, self.at = inner, at
        self.ops, self.reads, self.writes = inner.ops, inner.reads, inner.writes
        self.units, self.scratch = inner.units, inner.scratch

    def emit(self, module, name, buffers):
        self.inner.emit(module, name + "_inner", buffers)
        f = Function(module, name, PARAMETERS)
        f.run(name + "_inner", *(f.arg(a) for a in ("table", "lo", "hi", "scratch")))
        place = f.at(buffers[self.writes[0]].pointer(f), self.at, "float")
        f.store(f.number("float", 1.0), place)
        f.finish()


@pytest.mark.parametrize("at", (-1, 15, 16, 60))
def test_red_zones_catch_a_kernel_that_writes_outside(at, monkeypatch):
    g = Graph()
    x = g.input(Spec((15,), F))
    y = g.add(e.exp, x)
    order = g.add(sorting.argsort, y, axis=0, descending=False)  # a kernel of its own reads exp
    g.outputs = [order]
    proper = fuse.kernels

    def broken(graph, target):
        return [
            Overflowing(k, at) if any(op.name == "exp" for op in k.ops) else k
            for k in proper(graph, target)
        ]  # fmt: skip

    given = [np.linspace(1, -1, 15, dtype=F)]
    build(g, Options(redzones=True)).run(given, [None])  # the kernel as it is stays inside
    monkeypatch.setattr(fuse, "kernels", broken)
    program = build(g, Options(redzones=True))
    with pytest.raises(RedZoneError, match="wrote to byte"):
        program.run(given, [None])


def test_an_environment_variable_turns_red_zones_on(monkeypatch):
    monkeypatch.delenv("CHAINRULE_REDZONES", raising=False)
    assert not Options().redzones
    monkeypatch.setenv("CHAINRULE_REDZONES", "1")
    assert Options().redzones
    assert isinstance(build(dense()), building.GuardedProgram)


def test_without_llvm_it_runs_in_numpy_with_one_warning(monkeypatch):
    def fails(*args):
        raise jit.CompileError("LLVM is not well")

    g = dense(2)
    given = arrays_of(g)
    wanted = evaluate(g, given)
    monkeypatch.setattr(jit, "assemble", fails)
    monkeypatch.setattr(building, "_warned", False)
    with pytest.warns(ChainruleWarning, match="LLVM is not well"):
        program = build(g)
    for a, b in zip(wanted, program.run([x.copy() for x in given], [None] * 3), strict=True):
        np.testing.assert_array_equal(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(dense(3))  # the warning comes once


def test_kernels_that_are_alike_are_written_once():
    sizes = {}
    for depth in (2, 3, 8):
        g = dense(depth)
        planned = plan(*schedule(run(g), host()))
        written = text(planned, host())
        sizes[depth] = len(re.findall("^define", written, re.M)), len(planned.natives)
    # Each layer more adds the calls of its kernels, and no code.
    more = sizes[8][1] - sizes[3][1]
    assert sizes[8][0] - sizes[3][0] == more > 0


def test_kernels_that_are_alike_give_what_each_would():
    g = dense(6)
    given = arrays_of(g)
    wanted = evaluate(g, given)
    results = build(g).run([x.copy() for x in given], [None] * len(g.outputs))
    for a, b in zip(wanted, results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def test_kernels_with_other_numbers_are_not_alike():
    g = Graph()
    xs = [g.input(Spec((50, 50), F)) for _ in range(3)]
    for x, number in zip(xs, (2, 3, 2), strict=True):
        c = g.constant(np.broadcast_to(F.type(number), x.shape))
        g.outputs.append(g.add(e.exp, g.add(e.mul, x, c)))
    given = arrays_of(g)
    for a, b in zip(evaluate(g, given), build(g).run(given, [None] * 3), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5)


def test_each_run_gives_the_same_bits():
    g = dense(3)
    given = arrays_of(g)
    program = build(g)
    runs = [program.run([x.copy() for x in given], [None] * 4) for _ in range(3)]
    for results in runs[1:]:
        for a, b in zip(runs[0], results, strict=True):
            assert a.tobytes() == b.tobytes()


def test_a_graph_of_nothing_and_one_of_empty_values():
    assert build(Graph()).run([], []) == []
    g = Graph()
    x = g.input(Spec((0, 3), F))
    g.outputs = [g.add(e.exp, x), g.add(linalg.matmul, g.add(m.permute, x, axes=(1, 0)), x)]
    empty, zeros = build(g).run([np.zeros((0, 3), F)], [None, None])
    assert empty.shape == (0, 3)
    np.testing.assert_array_equal(zeros, np.zeros((3, 3)))
