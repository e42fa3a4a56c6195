"""One contestant in a process of its own: `python -m chainrule.bench.worker`.

It reads requests from its standard input, a JSON object on each line, and answers each with one:

    {"build": "lenet", "contestant": "torch", "variant": "eager", ...} -> {"cold": seconds}
    {"losses": 20}     -> {"losses": [...]}
    {"race": "lenet", "epochs": 5, ...} -> {"accuracy": ..., "seconds": ...}
    {"run": 0.3}       -> {"times": [seconds of each step], "peak": bytes}
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

MODULES = {
    "chainrule": "ours", "torch": "with_torch", "jax": "with_jax", "numpy": "with_numpy",
}  # fmt: skip


def limit_threads(threads: int) -> None:
    """Every library in this process uses so many threads, on so many processors."""
    pin, allowed = (getattr(os, f"sched_{x}affinity", None) for x in ("set", "get"))
    if pin is not None and allowed is not None:
        pin(0, sorted(allowed(0))[:threads])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["CHAINRULE_NUM_THREADS"] = str(threads)
    if threads == 1:
        os.environ["XLA_FLAGS"] = (
            "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        )


def peak_bytes() -> int:
    """The most memory that this process has had resident; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        return 0


class Contestant:
    """What a worker holds between requests."""

    step: Callable[[], Any]

    def build(self, request: dict[str, Any]) -> dict[str, Any]:
        from chainrule.bench.workloads import named
        from chainrule.serialize import load

        workload = named(request["build"], request["shape"], request["sizes"])
        module = importlib.import_module(f"chainrule.bench.{MODULES[request['contestant']]}")
        if request["contestant"] == "torch":
            module.torch.set_num_threads(request["threads"])
        path = request["weights"]
        weights = {k: v.numpy() for k, v in load(path).items()} if path else {}
        before = peak_bytes()
        start = time.perf_counter()
        self.step = module.step_of(workload, weights, request["dtype"], request["variant"])
        self.first = _number(self.step())
        return {"cold": time.perf_counter() - start, "before": before}

    def losses(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"losses": [self.first, *(_number(self.step()) for _ in range(request["losses"]))]}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        times: list[float] = []
        step, clock, total = self.step, time.perf_counter, 0.0
        while total < request["run"] or len(times) < 3:
            start = clock()
            step()
            times.append(clock() - start)
            total += times[-1]
        return {"times": times, "peak": peak_bytes()}

    def race(self, request: dict[str, Any]) -> dict[str, Any]:
        from chainrule.bench.race import train
        from chainrule.bench.workloads import WORKLOADS
        from chainrule.serialize import load

        module = importlib.import_module(f"chainrule.bench.{MODULES[request['contestant']]}")
        if request["contestant"] == "torch":
            module.torch.set_num_threads(request["threads"])
        weights = {k: v.numpy() for k, v in load(request["weights"]).items()}
        return train(module, WORKLOADS[request["race"]], weights, request)


def _number(result: Any) -> float:
    """A loss as a number; NaN for a result with several elements."""
    size = math.prod(getattr(result, "shape", ()))
    return float(result) if size == 1 else math.nan


def main() -> None:
    limit_threads(int(sys.argv[1]))
    contestant = Contestant()
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not be taken for one
    for line in sys.stdin:
        request = json.loads(line)
        kind = next(k for k in ("build", "losses", "run", "race") if k in request)
        try:
            answer = getattr(contestant, kind)(request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
