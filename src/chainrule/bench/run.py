"""Measuring: every contestant in a process of its own, in turn, round after round."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule import random
from chainrule.bench.workloads import Workload, variants
from chainrule.errors import ArgumentError
from chainrule.serialize import save

PEERS = ("torch", "jax", "numpy")
REFERENCE = ("chainrule", "eager", "float64")


@dataclass(frozen=True)
class Settings:
    """How a run of the benchmark is made.

    Attributes:
        threads: of every contestant, pinned to as many processors.
        rounds, seconds: how often each contestant runs, and for how long each time.
        peers: which are asked to run; those not installed are left out.
        burn: keep one processor busy with another process meanwhile.
        losses: steps over which losses are compared with a float64 run.
    """

    threads: int = 2
    rounds: int = 5
    seconds: float = 0.3
    peers: tuple[str, ...] = PEERS
    burn: bool = False
    losses: int = 20


class Worker:
    """A contestant's process; `ask` sends a request and waits for its answer."""

    def __init__(self, contestant: str, variant: str, threads: int):
        self.name = f"{contestant} {variant}"
        self.contestant, self.variant = contestant, variant
        self.cold = 0.0  # seconds that the first call took
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chainrule.bench.worker", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or ["no message"])[-1]
        return {"error": f"the process ended: {last}"}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def installed(peers: tuple[str, ...]) -> list[str]:
    """Those of the peers that can be imported."""
    for peer in peers:
        if peer not in PEERS:
            raise ArgumentError(f"there is no peer {peer!r}; known: {', '.join(PEERS)}.")
    return [p for p in peers if importlib.util.find_spec(p) is not None]


def contestants(workload: Workload, peers: list[str]) -> list[tuple[str, str]]:
    """Who runs a workload: chainrule compiled, and each peer in each of its ways."""
    ways = [(peer, variant) for peer in peers for variant in variants(workload, peer)]
    return [("chainrule", "compiled"), *ways]


@contextlib.contextmanager
def burning(on: bool) -> Iterator[None]:
    """A process that keeps one processor busy."""
    if not on:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def weights_of(workload: Workload, folder: Path) -> str | None:
    """A file with the weights that every contestant starts from."""
    if workload.model == "gemm":
        return None
    from chainrule.bench.ours import model_of

    with random.preserved():
        random.manual_seed(0)
        path = folder / f"{workload.model}.safetensors"
        save(model_of(workload).state_dict(), path)
    return str(path)


def measure(
    workload: Workload, settings: Settings, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Run one workload on every contestant; returns a record for JSON.

    The record holds, for each contestant, the median, minimum and 90th percentile of a step in
    seconds, the first call's time, the peak of its memory, and how far its losses are from those of
    a float64 run.
    """
    peers = installed(settings.peers)
    record: dict[str, Any] = {"workload": workload.name, "what": workload.what, "failed": {}}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        weights = weights_of(workload, Path(folder))
        workers = _start(workload, settings, peers, weights, record, stack, say)
        reference = _reference(workload, settings, weights, stack) if workload.trains else None
        results = {w.name: _losses(w, workload, settings, reference) for w in workers}
        times: dict[str, list[float]] = {w.name: [] for w in workers}
        peaks: dict[str, int] = {}
        with burning(settings.burn):
            for number in range(settings.rounds):
                for worker in workers:
                    say(f"{workload.name}: {worker.name}, {number + 1} of {settings.rounds}")
                    answer = worker.ask(run=settings.seconds)
                    if "error" in answer:
                        record["failed"][worker.name] = answer["error"]
                        continue
                    times[worker.name] += answer["times"]
                    peaks[worker.name] = answer["peak"]
        for worker in workers:
            if times[worker.name]:
                results[worker.name] |= worker_record(times[worker.name], peaks[worker.name])
                results[worker.name]["cold"] = worker.cold
        record["contestants"] = {k: v for k, v in results.items() if "median" in v}
    return record


def worker_record(times: list[float], peak: int) -> dict[str, Any]:
    ordered = sorted(times)
    return {
        "median": statistics.median(ordered), "minimum": ordered[0],
        "p90": ordered[int(0.9 * (len(ordered) - 1))], "mean": statistics.fmean(ordered),
        "steps": len(ordered), "peak": peak,
    }  # fmt: skip


def _start(
    workload: Workload, settings: Settings, peers: list[str], weights: str | None,
    record: dict[str, Any], stack: contextlib.ExitStack, say: Callable[[str], None],
) -> list[Worker]:  # fmt: skip
    workers: list[Worker] = []
    for contestant, variant in contestants(workload, peers):
        say(f"{workload.name}: {contestant} {variant}, first call")
        worker = Worker(contestant, variant, settings.threads)
        stack.callback(worker.close)
        answer = _build(worker, workload, settings, weights, "float32")
        if "error" in answer:
            record["failed"][worker.name] = answer["error"]
        else:
            worker.cold = answer["cold"]
            workers.append(worker)
    return workers


def _build(
    worker: Worker, workload: Workload, settings: Settings, weights: str | None, dtype: str
) -> dict[str, Any]:
    return worker.ask(
        build=workload.name, shape=workload.shape, sizes=workload.sizes,
        contestant=worker.contestant, variant=worker.variant, threads=settings.threads,
        weights=weights, dtype=dtype,
    )  # fmt: skip


def _reference(
    workload: Workload, settings: Settings, weights: str | None, stack: contextlib.ExitStack
) -> list[float] | None:
    """The losses of chainrule's own eager run in float64."""
    contestant, variant, dtype = REFERENCE
    worker = Worker(contestant, variant, settings.threads)
    stack.callback(worker.close)
    if "error" in _build(worker, workload, settings, weights, dtype):
        return None
    losses = worker.ask(losses=settings.losses)["losses"]
    worker.close()
    return losses


def _losses(
    worker: Worker, workload: Workload, settings: Settings, reference: list[float] | None
) -> dict[str, Any]:
    """The worker's losses, and their largest distance from the reference."""
    if reference is None:
        return {}
    losses = worker.ask(losses=settings.losses).get("losses", [])
    if not losses:
        return {}
    distance = max(abs(a - b) for a, b in zip(losses, reference, strict=True))
    return {"losses": losses, "distance": distance, "falls": losses[-1] < losses[0]}
