"""How far losses of float32 runs are from those of a float64 run, from several starts.

Nothing is timed here, so that all contestants of two workloads run at the same time, on one thread
each.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chainrule.bench.run import (
    Say,
    Settings,
    Worker,
    contestants,
    distance,
    reference_of,
    weights_of,
)
from chainrule.bench.workloads import WORKLOADS, Workload

COLUMNS = ("workload", "contestant", "starts", "above 1e-4", "median", "largest")
LIMIT = 1e-4
SEEDS = {"resnet20": 3, "gpt-small": 2, "lstm": 4, "gru": 4}
"""Starts of each workload; 12 of those that are not named."""
_drawing = threading.Lock()  # weights are drawn from the one default generator
OURS = [("chainrule", "compiled"), ("chainrule", "eager")]


def seeds_of(workload: Workload) -> int:
    return SEEDS.get(workload.name, 12)


def measure(settings: Settings, say: Say) -> list[dict[str, Any]]:
    """A record for each workload with an optimiser and each start."""
    workloads = [w for w in WORKLOADS.values() if w.optimizer is not None]
    slow_first = sorted(workloads, key=seeds_of)
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda w: compared(w, seeds_of(w), settings, say), slow_first)
        found = {w.name: records for w, records in zip(slow_first, made, strict=True)}
    return [record for w in workloads for record in found[w.name]]


def compared(workload: Workload, seeds: int, settings: Settings, say: Say) -> list[dict[str, Any]]:
    """Distances of each contestant's losses, start by start."""
    peers = [way for way in contestants(workload, settings)[1:] if way[1] in ("eager", "jit")]
    workers = [Worker(*way, 1) for way in [reference_of(settings), *OURS, *peers]]
    records = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(seeds):
                say(f"{workload.name}, start {seed + 1} of {seeds}")
                with _drawing:
                    weights = weights_of(workload, Path(folder), seed)
                runs = _runs(workers, workload, weights, settings.losses)
                if runs[0] is None:
                    continue
                found = {
                    w.name: distance(losses, runs[0])
                    for w, losses in zip(workers[1:], runs[1:], strict=True)
                    if losses is not None
                }
                label = f"{workload.name}, start {seed}"
                records.append({"label": label, "workload": workload.name, "distances": found})
    finally:
        for worker in workers:
            worker.close()
    return records


def _runs(
    workers: list[Worker], workload: Workload, weights: str | None, steps: int
) -> list[list[float] | None]:
    """Everybody's losses; the first of them calculates in float64."""
    for worker in workers:
        worker.ready()
    for n, worker in enumerate(workers):
        worker.send(
            build=workload.name, shape=workload.shape, sizes=workload.sizes,
            variant=worker.variant, weights=weights, dtype="float32" if n else "float64",
        )  # fmt: skip
        worker.send(losses=steps)
    answers = [(worker.receive(), worker.receive()) for worker in workers]
    return [None if "error" in built else ran.get("losses") for built, ran in answers]


def rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for name, far in record["distances"].items():
            groups.setdefault((record["workload"], name), []).append(far)
    return [
        (
            workload, name, str(len(found)), str(sum(far > LIMIT for far in found)),
            f"{statistics.median(found):.1e}", f"{max(found):.1e}",
        )
        for (workload, name), found in groups.items()
    ]  # fmt: skip
