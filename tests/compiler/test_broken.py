"""Stages behind the passes, broken on purpose: what looks at programs in this suite finds each.

The passes have theirs in test_passes.py, the specification in test_ir.py, red zones in
test_build.py. A stage is broken here by replacing one of its decisions; then the same graphs that
run as they should before must give something else, or nothing, afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from random_graphs import check_program, draw_graph

import chainrule as cr
from chainrule.compiler import branching, looping, looping_checks, memory
from chainrule.compiler.build import build
from chainrule.compiler.ir import Op
from chainrule.compiler.native import loops
from chainrule.nn import functional as F
from chainrule.primitives import elementwise

GRAPHS = 12
PLACE = memory.place

Check = Callable[[], None]


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that was made before, or is made here, is used again."""
    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    monkeypatch.setenv("CHAINRULE_REDZONES", "0")  # they keep values apart
    yield


def random_programs(*names: str) -> Check:
    """Random graphs around some primitives mean what NumPy says."""

    def check() -> None:
        for seed in range(GRAPHS):
            name = names[seed % len(names)]
            graph, arrays, exact = draw_graph(Random(f"{name} {seed}"), name, size=12)
            check_program(build(graph), graph, arrays, exact)

    return check


def function(f: Callable[..., Any], *shapes: tuple[int, ...]) -> Check:
    """A function gives compiled what it gives eagerly."""

    def check() -> None:
        rng = np.random.default_rng(0)
        inputs = [cr.asarray(rng.standard_normal(shape)) for shape in shapes]
        got = cr.autograd.tree.flatten(cr.compile(f, backend="native")(*inputs))[0]
        for a, b in zip(got, cr.autograd.tree.flatten(f(*inputs))[0], strict=True):
            np.testing.assert_allclose(a.detach(), b.detach(), rtol=1e-10, atol=1e-12)

    return check


def steps(f: Callable[[Any], Any], *shape: int) -> Check:
    """A function that changes a state changes it compiled as it does eagerly, several times."""

    def check() -> None:
        found = []
        for compiled in (True, False):
            state = cr.asarray(np.random.default_rng(0).standard_normal(shape))
            call = cr.compile(f, backend="native") if compiled else f
            results = [np.array(call(state).numpy()) for _ in range(3)]
            found.append([np.array(state.numpy()), *results])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)

    return check


def turned(state: Any) -> Any:
    with cr.no_grad():
        state.copy_(cr.flip(state).T * 2)
    return cr.sum(state)


def running(w: Any, xs: Any) -> Any:
    return cr.scan(lambda h, x: (cr.tanh(h @ w + x), h * x), xs[0], xs, reverse=True)


def gradients(w: Any, xs: Any) -> Any:
    return cr.grad(lambda w, xs: sum(z.sum() for z in running(w, xs)), (0, 1))(w, xs)


def parted(x: Any) -> Any:
    """What is made from one value by one kernel, and each read by another kernel."""
    total = cr.cumulative_sum(x, axis=0)
    return cr.cumulative_sum(total * 2, axis=0), cr.cumulative_sum(cr.exp(-total), axis=0)


def chosen(x: Any) -> Any:
    return cr.cond(cr.sum(x) > 0, lambda x: cr.exp(x), lambda x: x * 2 - 1, x)


def halved(x: Any, y: Any) -> Any:
    return cr.while_loop(lambda c: cr.sum(c[0] ** 2) > 0.1, lambda c: (c[1] / 2, c[0] / 3), (x, y))


def refused() -> None:
    table = cr.ones((3, 2))
    for f in (
        lambda i: cr.cond(cr.sum(i) > 0, lambda i: F.embedding(i, table), lambda i: table[:2], i),
        lambda i: cr.scan(lambda h, _: (h + F.embedding(i, table), None), table[:2], length=2),
    ):
        with pytest.raises(IndexError):
            cr.compile(f, backend="native")(cr.asarray([1, 3]))


# --- what is broken -------------------------------------------------------------------------------


def lives_that_touch(x: Any, y: Any) -> bool:
    """As if a kernel never read where another one in the same step writes."""
    return x.first < y.last and y.first < x.last


def soon_forgotten(lives: Any, start: int = 0, redzone: int = 0) -> Any:
    """As if nobody read a value later than right after it is written."""
    lives = [memory.Life(x.values, x.nbytes, x.first, x.first) for x in lives]
    return PLACE(lives, start, redzone)


def only_forward(post_init: Any) -> Any:
    def broken(loop: Any) -> None:
        post_init(loop)
        loop.reverse = False

    return broken


def other_branch(init: Any) -> Any:
    def broken(kernel: Any, *arguments: Any) -> None:
        init(kernel, *arguments)
        kernel.parts = kernel.parts[::-1]

    return broken


def crossed(init: Any) -> Any:
    """Each part of the next carry is written where the other one belongs."""

    def broken(kernel: Any, *arguments: Any) -> None:
        init(kernel, *arguments)
        kernel.ends.outputs = kernel.ends.outputs[::-1]

    return broken


def lenient(primitive: Any, inputs: Any, params: Any, *rest: Any) -> Any:
    """Checks that are moved out of a body and accept everything there."""
    if primitive is looping_checks.check:
        params = {**params, "low": -np.inf, "high": np.inf}
    return Op(primitive, inputs, params, *rest)


BROKEN: dict[str, tuple[Any, str, Any, Check]] = {
    "memory plan: lives": (
        memory, "_meet", lives_that_touch, random_programs("argsort", "matmul", "cumulative_sum")
    ),
    "memory plan: readers": (
        memory, "place", soon_forgotten, function(parted, (40, 7))
    ),
    "in place": (
        loops.LoopKernel, "may_overwrite", lambda kernel, read, write: True, steps(turned, 5, 5)
    ),
    "a lowering": (
        elementwise.floor, "scalar", elementwise.ceil.scalar, random_programs("floor")
    ),
    "a comparison": (elementwise.lt, "scalar", elementwise.le.scalar, random_programs("lt")),
    "scan: direction": (
        looping.Loop, "__post_init__", only_forward(looping.Loop.__post_init__),
        function(running, (3, 3), (4, 3)),
    ),
    "scan: derivative": (
        looping.Loop, "__post_init__", only_forward(looping.Loop.__post_init__),
        function(gradients, (3, 3), (4, 3)),
    ),
    "cond": (
        branching.CondKernel, "__init__", other_branch(branching.CondKernel.__init__),
        function(chosen, (4,)),
    ),
    "while_loop": (
        branching.WhileKernel, "__init__", crossed(branching.WhileKernel.__init__),
        function(halved, (4,), (4,)),
    ),
    "checks in bodies": (
        looping_checks, "Op", lenient, refused
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, what, instead, check = BROKEN[name]
    check()  # as it is nothing is wrong
    monkeypatch.setattr(where, what, instead)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check()
