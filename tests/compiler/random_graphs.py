"""Drawing whole graphs, and comparing what a program makes of them with their meaning."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from graphs import Maker
from makers import MAKERS

from chainrule.compiler.ir import Graph, Value, evaluate, verify

Array = np.ndarray[Any, Any]
ROUNDING = {"float32": 2e-6, "float64": 4e-15, "complex64": 2e-6, "complex128": 4e-15}
COMMON = (
    "add", "mul", "sub", "exp", "tanh", "sum", "max", "reshape", "permute", "broadcast_to", "where",
    "matmul", "slice", "relu", "div", "cast",
)  # fmt: skip


def draw_graph(random: Random, name: str, size: int = 10) -> tuple[Graph, list[Array], set[Value]]:
    """A graph with at least one application of a primitive; its inputs; its exact values."""
    m = Maker(random)
    wanted = random.randint(0, size)
    for position in range(size + 1):
        if position == wanted:
            MAKERS[name](m)
        else:
            MAKERS[random.choice(COMMON if random.random() < 0.6 else list(MAKERS))](m)
    graph = m.graph
    made = [z for op in graph.ops for z in op.outputs]
    read = {x for op in graph.ops for x in op.inputs}
    graph.outputs = [z for z in made if z not in read or random.random() < 0.15]
    if random.random() < 0.2:
        graph.outputs.append(random.choice([*graph.inputs, *made, *graph.constants]))
    # Some outputs are the next values of inputs: those that are there, or made to fit.
    for j in range(len(graph.inputs)):
        fits = [z for z in [*made, *graph.inputs] if z.spec == graph.inputs[j].spec]
        if fits and random.random() < 0.3:
            graph.updates[len(graph.outputs)] = j
            graph.outputs.append(random.choice(fits))
    return verify(graph), m.arrays, m.exact


def tolerances(graph: Graph, arrays: list[Array], exact: set[Value]) -> list[Any]:
    """How far each output may be off: what a few roundings more in every operation would change."""
    spread = [np.zeros(z.shape) for z in graph.outputs]
    plain = evaluate(graph, arrays)
    rng = np.random.default_rng(0)
    for _ in range(3):
        noisy = _noisy(graph, arrays, exact, rng)
        for i, (a, b) in enumerate(zip(plain, noisy, strict=True)):
            if a.dtype.kind in "fc":
                with np.errstate(all="ignore"):
                    spread[i] = np.maximum(spread[i], np.nan_to_num(np.abs(a - b), posinf=0))
    allowed = []
    for error, a in zip(spread, plain, strict=True):
        if a.dtype.kind not in "fc":
            allowed.append(0.0)
            continue
        scale = float(np.max(np.abs(a), initial=0, where=np.isfinite(a)))
        unit = ROUNDING[a.dtype.name]
        allowed.append(20 * float(np.max(error, initial=0)) + unit * scale + 1e-30)
    return allowed


def _noisy(graph: Graph, arrays: list[Array], exact: set[Value], rng: Any) -> list[Array]:
    """The graph's results with a relative error of a few roundings in each inexact operation."""
    env: dict[Value, Any] = dict(zip(graph.inputs, arrays, strict=True))
    env.update(graph.constants)
    for op in graph.ops:
        with np.errstate(all="ignore"):
            result = op.primitive.evaluate(*[env[x] for x in op.inputs], **op.params)
            results = result if isinstance(result, tuple) else (result,)
            for value, array in zip(op.outputs, results, strict=True):
                array = np.asarray(array)
                if value not in exact and array.dtype.kind in "fc" and op.primitive.flops_rule != 0:
                    noise = rng.uniform(-1, 1, array.shape) * ROUNDING[array.dtype.name]
                    # Sums and products round by the size of what they add up.
                    size = np.max(np.abs(array), initial=0, where=np.isfinite(array))
                    floor = size if op.name in ("sum", "matmul") or "conv" in op.name else 0
                    grown = np.abs(array) + 0.25 * floor
                    array = (array + noise * np.where(np.isfinite(grown), grown, 0)).astype(
                        array.dtype
                    )
                env[value] = array
    return [np.asarray(env[value]) for value in graph.outputs]


def check_program(program: Any, graph: Graph, arrays: list[Array], exact: set[Value]) -> None:
    """Run a program twice on copies of the arrays; compare with the graph's meaning."""
    allowed = tolerances(graph, arrays, exact)
    wanted = evaluate(graph, arrays)
    before = None
    for _ in range(2):
        given = [np.array(a) for a in arrays]
        results = program.run(given, [None] * len(graph.outputs))
        compare(graph, results, wanted, allowed)
        replaced = set(graph.updates.values())
        for i, j in graph.updates.items():
            np.testing.assert_array_equal(given[j], results[i])
        for j, array in enumerate(arrays):
            if j not in replaced:
                np.testing.assert_array_equal(given[j], array)
        if before is not None:  # each run gives the same bits
            for a, b in zip(before, results, strict=True):
                assert a.tobytes() == b.tobytes()
        before = [np.array(a) for a in results]


def compare(graph: Graph, results: Any, wanted: Any, allowed: Any) -> None:
    for value, a, b, error in zip(graph.outputs, results, wanted, allowed, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, f"{value}: {a.dtype}{a.shape}"
        if a.dtype.kind not in "fc":
            np.testing.assert_array_equal(a, b, err_msg=f"{value}\n{graph}")
            continue
        odd = ~np.isfinite(b)
        np.testing.assert_array_equal(a[odd], b[odd], err_msg=f"{value}\n{graph}")
        with np.errstate(all="ignore"):
            off = np.max(np.abs(a - b), initial=0, where=~odd)
        assert off <= error and not np.isnan(off), f"{value}: off by {off} > {error}\n{graph}"
