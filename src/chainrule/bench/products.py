"""Matrix products' share of one core's ceiling.

Each product is compiled as NN, TN and NT and timed between runs of a loop of multiply-adds that
needs no memory (`compiler.native.ceiling`); of several rounds the shortest time counts. The time is
the thread's own, so that other processes disturb it only through the caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.bench.run import Say, Settings, Worker
from chainrule.bench.workloads import WORKLOADS

COLUMNS = ("product", "layout", "GFLOP/s", "ceiling", "share")
WORK = int(1e8)
"""Operations in one timing, at least."""


def product(shape: tuple[int, int, int], layout: str, dtype: str) -> Callable[[], object]:
    """A function that multiplies M x K by K x N once; T: an operand lies transposed."""
    from chainrule.compiler.build import build
    from chainrule.compiler.ir import Graph
    from chainrule.graph import Spec
    from chainrule.primitives.linalg import matmul
    from chainrule.primitives.movement import permute

    m, k, n = shape
    graph = Graph()
    values, rng = [], np.random.default_rng(0)
    for (rows, columns), order in zip(((m, k), (k, n)), layout, strict=True):
        stored = (columns, rows) if order == "T" else (rows, columns)
        x = graph.input(Spec(stored, np.dtype(dtype)))
        values.append(graph.add(permute, x, axes=(1, 0)) if order == "T" else x)
    graph.outputs = [graph.add(matmul, *values)]
    program = build(graph)
    arrays = [rng.standard_normal(v.shape).astype(dtype) for v in graph.inputs]
    program.run(arrays, [np.empty((m, n), dtype)])  # binds the arrays
    return program.call


def best(
    shape: tuple[int, int, int], layout: str, rounds: int, dtype: str = "float32"
) -> dict[str, float]:
    """Operations in a second of this thread: of the product, and of multiply-adds in registers."""
    from chainrule.compiler.native.ceiling import ceiling

    m, k, n = shape
    run, flops, peak = product(shape, layout, dtype), 2 * m * k * n, ceiling(None, dtype)
    calls, clock = max(1, WORK // flops), time.thread_time
    reached = most = 0.0
    for _ in range(rounds):
        most = max(most, peak.flops(threads=1))
        start = clock()
        for _ in range(calls):
            run()
        reached = max(reached, flops * calls / (clock() - start))
    return {"flops": reached, "peak": most}


def measure(settings: Settings, say: Say) -> list[dict[str, Any]]:
    """Every product of the benchmark in a process with one thread."""
    records, worker = [], Worker("chainrule", "compiled", 1)
    try:
        for row in WORKLOADS.values():
            if row.model == "gemm":
                say(row.name)
                found = worker.ask(product=row.shape, layout=row.layout, rounds=settings.rounds)
                records.append({"label": row.name, "layout": row.layout, **found})
    finally:
        worker.close()
    return records


def rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            r["label"].removeprefix("gemm-").removesuffix(f"-{r['layout']}"), r["layout"],
            f"{r['flops'] / 1e9:.0f}", f"{r['peak'] / 1e9:.0f}", f"{r['flops'] / r['peak']:.0%}",
        )
        for r in records
        if "error" not in r
    ]  # fmt: skip
