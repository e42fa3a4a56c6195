"""Measuring: every contestant in a process of its own, in turn, round after round."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule import random
from chainrule.bench.workloads import Workload, variants
from chainrule.errors import ArgumentError
from chainrule.serialize import save

PEERS = ("torch", "jax", "numpy")

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(1 << 28), "MALLOC_ARENA_MAX": "1",
}  # fmt: skip
"""glibc keeps large blocks for the next step and does not give them back to the system, which would
make every step touch its memory for the first time again: of PyTorch's and JAX's ResNet-20 it takes
17,600 and 37,000 page faults a step, a sixth of their time. chainrule's steps have none."""
ENVIRONMENT = {"torch": KEEP_MEMORY, "jax": KEEP_MEMORY}

Say = Callable[[str], None]


def quiet(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Settings:
    """How a run of the benchmark is made.

    Attributes:
        threads: of every contestant, pinned to as many processors.
        rounds, seconds: how often each contestant runs, and for how long each time.
        peers: which are asked to run; those not installed are left out.
        burn: keep one processor busy with another process meanwhile.
        losses: steps over which losses are compared with a float64 run; 0 for no comparison.
        compiled_peers: whether `torch.compile` takes part.
    """

    threads: int = 2
    rounds: int = 5
    seconds: float = 0.3
    peers: tuple[str, ...] = PEERS
    burn: bool = False
    losses: int = 20
    compiled_peers: bool = True


class Worker:
    """A contestant's process; `ask` sends a request and waits for its answer.

    It compiles from nothing: its programs are kept in a folder of its own, unless one is given.
    """

    def __init__(self, contestant: str, variant: str, threads: int, cache: str | None = None):
        self.name = f"{contestant} {variant}"
        self.contestant, self.variant = contestant, variant
        self.cold = 0.0  # seconds that the first call took
        self._folder = None if cache else tempfile.TemporaryDirectory(prefix="chainrule-bench-")
        kept = cache if self._folder is None else self._folder.name
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chainrule.bench.worker", str(threads), contestant],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env={**os.environ, "CHAINRULE_CACHE": kept or "", **ENVIRONMENT.get(contestant, {})},
        )  # fmt: skip
        self._ready: dict[str, Any] | None = None

    def ready(self) -> dict[str, Any]:
        """Wait until it has imported its library."""
        if self._ready is None:
            self._ready = self.receive()
        return self._ready

    def send(self, **request: Any) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # `receive` says what happened
            print(json.dumps(request), file=self.process.stdin, flush=True)

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or ["no message"])[-1]
        return {"error": f"the process ended: {last}"}

    def ask(self, **request: Any) -> dict[str, Any]:
        found = self.ready()
        if "error" in found:
            return found
        self.send(**request)
        return self.receive()

    def build(self, workload: Workload, weights: str | None, dtype: str = "float32") -> Any:
        """Let it make the model and take the first step."""
        return self.ask(
            build=workload.name, shape=workload.shape, sizes=workload.sizes, variant=self.variant,
            weights=weights, dtype=dtype,
        )  # fmt: skip

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()
        if self._folder is not None:
            self._folder.cleanup()


def installed(peers: Sequence[str]) -> list[str]:
    """Those of the peers that are installed (a folder of that name beside the program is none)."""
    for peer in peers:
        if peer not in PEERS:
            raise ArgumentError(f"there is no peer {peer!r}; known: {', '.join(PEERS)}.")
    return [p for p in peers if _is_installed(p)]


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def contestants(workload: Workload, settings: Settings) -> list[tuple[str, str]]:
    """Who runs a workload: chainrule compiled, and each peer in each of its ways."""
    ways = [
        (peer, variant)
        for peer in installed(settings.peers)
        for variant in variants(workload, peer)
        if settings.compiled_peers or not variant.startswith("compiled")
    ]
    return [("chainrule", "compiled"), *ways]


def reference_of(settings: Settings) -> tuple[str, str]:
    """Whose losses in float64 others are compared with: PyTorch's, or chainrule's eager ones."""
    return ("torch" if "torch" in installed(settings.peers) else "chainrule"), "eager"


@contextlib.contextmanager
def burning(on: bool, threads: int) -> Iterator[None]:
    """A process that keeps one of the contestants' processors busy."""
    if not on:
        yield
        return
    program = (
        "from chainrule.bench.worker import limit_threads\n"
        f"limit_threads({threads})\nprint(flush=True)\nwhile True: pass"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


def weights_of(workload: Workload, folder: Path, seed: int = 0) -> str | None:
    """A file with the weights that every contestant starts from."""
    if workload.model == "gemm":
        return None
    from chainrule.bench.ours import model_of

    with random.preserved():
        random.manual_seed(seed)
        path = folder / f"{workload.model}-{seed}.safetensors"
        save(model_of(workload).state_dict(), path)
    return str(path)


@contextlib.contextmanager
def started(
    workload: Workload, settings: Settings, record: dict[str, Any], say: Say
) -> Iterator[tuple[list[Worker], str | None]]:
    """Every contestant's process, its model built and its first call made, and the weights' file.

    The processes import their libraries side by side; what is measured is done one by one.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        weights = weights_of(workload, Path(folder))
        workers: list[Worker] = []
        for contestant, variant in contestants(workload, settings):
            workers.append(Worker(contestant, variant, settings.threads))
            stack.callback(workers[-1].close)
        for worker in workers:
            worker.ready()
        running = []
        for worker in workers:
            say(f"{worker.name}, first call")
            answer = worker.build(workload, weights)
            if "error" in answer:
                record["failed"][worker.name] = answer["error"]
            else:
                worker.cold = answer["cold"]
                running.append(worker)
        yield running, weights


def timed(
    workers: list[Worker], settings: Settings, record: dict[str, Any], say: Say
) -> dict[str, dict[str, Any]]:
    """Let the contestants run in turn; the record of each that ran.

    One whose steps take so long that a round was broken off runs in that round alone.
    """
    times: dict[str, list[float]] = {w.name: [] for w in workers}
    peaks: dict[str, int] = {}
    for number in range(settings.rounds):
        for worker in workers:
            if number and len(times[worker.name]) < 3:
                continue
            say(f"{worker.name}, round {number + 1} of {settings.rounds}")
            answer = worker.ask(run=settings.seconds)
            if "error" in answer:
                record["failed"][worker.name] = answer["error"]
                continue
            times[worker.name] += answer["times"]
            peaks[worker.name] = answer["peak"]
    return {k: worker_record(v, peaks[k]) for k, v in times.items() if v}


def measure(workload: Workload, settings: Settings, say: Say = quiet) -> dict[str, Any]:
    """Run one workload on every contestant; returns a record for JSON.

    The record holds, for each contestant, the median, minimum and 90th percentile of a step in
    seconds, the first call's time, the peak of its memory, and how far its losses are from those of
    a float64 run.
    """
    record: dict[str, Any] = {"workload": workload.name, "what": workload.what, "failed": {}}

    def told(text: str) -> None:
        say(f"{workload.name}: {text}")

    with started(workload, settings, record, told) as (workers, weights):
        compared: dict[str, dict[str, Any]] = {}
        if workload.trains and settings.losses:
            told("losses in float64")
            compared = _losses(workers, workload, settings, weights)
        with burning(settings.burn, settings.threads):
            found = timed(workers, settings, record, told)
        for worker in workers:
            if worker.name in found:
                found[worker.name] |= {"cold": worker.cold, **compared.get(worker.name, {})}
    record["contestants"] = found
    return record


def worker_record(times: list[float], peak: int) -> dict[str, Any]:
    ordered = sorted(times)
    return {
        "median": statistics.median(ordered), "minimum": ordered[0],
        "p90": ordered[int(0.9 * (len(ordered) - 1))], "mean": statistics.fmean(ordered),
        "steps": len(ordered), "peak": peak,
    }  # fmt: skip


def _losses(
    workers: list[Worker], workload: Workload, settings: Settings, weights: str | None
) -> dict[str, dict[str, Any]]:
    """How far each contestant's losses are from those of a float64 run, and whether they fell."""
    exact = Worker(*reference_of(settings), settings.threads)
    try:
        if "error" in exact.build(workload, weights, "float64"):
            return {}
        reference = exact.ask(losses=settings.losses)["losses"]
    finally:
        exact.close()
    found = {}
    for worker in workers:
        losses = worker.ask(losses=settings.losses).get("losses")
        if losses:
            found[worker.name] = {
                "distance": distance(losses, reference), "falls": losses[-1] < losses[0]
            }  # fmt: skip
    return found


def distance(losses: Sequence[float], reference: Sequence[float]) -> float:
    """The largest difference between two runs' losses."""
    return max(abs(a - b) for a, b in zip(losses, reference, strict=True))
