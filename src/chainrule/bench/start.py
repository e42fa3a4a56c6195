"""First calls: with nothing kept, in a second process, and by length; and what a call costs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import chainrule as cr
from chainrule.bench.report import seconds
from chainrule.bench.run import Say, Settings, Worker, weights_of
from chainrule.bench.workloads import WORKLOADS, Workload

COLUMNS = ("workload", "first call", "at most", "in a second process", "at most")
WARM, IMPORTS, CALL = 0.020, 0.2, 10e-6
"""What a first call of a second process, the imports and a call should take at most, in seconds."""
CALLS, STATES = 20_000, 30


def points() -> list[tuple[str, Workload]]:
    """The workloads with a limit, and an LSTM over 10 and over 1,000 steps."""
    lstm = WORKLOADS["lstm"]
    lengths = [(f"lstm, T = {t}", replace(lstm, shape=(32, t, 64))) for t in (10, 1000)]
    return [*((w.name, w) for w in WORKLOADS.values() if w.cold is not None), *lengths]


def measure(settings: Settings, say: Say) -> list[dict[str, Any]]:
    """Each point `settings.rounds` times: a process with an empty cache, and one after it."""
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for label, workload in points():
            weights = weights_of(workload, Path(folder))
            record: dict[str, Any] = {
                "label": label,
                "limit": workload.cold,
                "cold": [],
                "warm": [],
            }
            for n in range(settings.rounds):
                say(f"{label}, {n + 1} of {settings.rounds}")
                with tempfile.TemporaryDirectory(prefix="chainrule-bench-") as cache:
                    for kind in ("cold", "warm"):
                        worker = Worker("chainrule", "compiled", settings.threads, cache)
                        try:
                            answer = worker.build(workload, weights)
                        finally:
                            worker.close()
                        if "error" in answer:
                            record["error"] = answer["error"]
                        else:
                            record[kind].append(answer["call"])
            records.append(record)
    say("imports, calls")
    records.append({"label": "imports", "seconds": [_import() for _ in range(5)]})
    worker = Worker("chainrule", "compiled", settings.threads)
    try:
        records.append({"label": "calls", "seconds": worker.ask(overhead=STATES)["times"]})
    finally:
        worker.close()
    return records


def _import() -> float:
    """Seconds that `import chainrule` takes in a new process."""
    program = (
        "import time; start = time.perf_counter(); import chainrule; "
        "print(time.perf_counter() - start)"
    )
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True,
                                text=True).stdout)  # fmt: skip


def calls(states: int) -> list[float]:
    """Seconds of calls that do next to nothing: two inputs, and so many states, of one number.

    Returns:
        The minimum and the median.
    """
    held = [cr.zeros((1,)) for _ in range(states)]

    @cr.compile
    def step(x: cr.Tensor, y: cr.Tensor) -> None:
        for state in held:
            state += x * y

    x, y = cr.ones((1,)), cr.ones((1,))
    step(x, y)
    times, clock = [], time.perf_counter
    for _ in range(CALLS):
        start = clock()
        step(x, y)
        times.append(clock() - start)
    return [min(times), statistics.median(times)]


def rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            r["label"], seconds(min(r["cold"])), seconds(r["limit"]) if r["limit"] else "-",
            seconds(min(r["warm"])), seconds(WARM),
        )
        for r in records
        if r.get("cold") and r.get("warm")
    ]  # fmt: skip


def sentences(records: Sequence[dict[str, Any]]) -> list[str]:
    """What is no table: lengths compared, imports, calls."""
    told = {r["label"]: r for r in records}
    said = []
    short, long = (told.get(f"lstm, T = {t}", {}).get("cold") for t in (10, 1000))
    if short and long:
        said.append(
            f"The first call over 1,000 steps takes {min(long) / min(short):.2f} times as long as "
            "over 10 (compiling and the step itself)."
        )
    if "imports" in told:
        found = told["imports"]["seconds"]
        said.append(f"`import chainrule` takes {seconds(min(found))} (at most {seconds(IMPORTS)}).")
    if "calls" in told:
        low, median = told["calls"]["seconds"]
        said.append(
            f"A call with 2 inputs and {STATES} states of one number each takes {seconds(median)}, "
            f"at least {seconds(low)}, arithmetic included (at most {seconds(CALL)})."
        )
    return said
