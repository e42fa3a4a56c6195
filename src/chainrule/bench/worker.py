"""One contestant in a process of its own: `python -m chainrule.bench.worker THREADS CONTESTANT`.

It says what its imports took, then reads requests from its standard input, a JSON object on each
line, and answers each with one:

    -> {"imported": seconds}
    {"build": "lenet", "variant": "eager", ...} -> {"cold": seconds, "call": seconds}
    {"losses": 20}     -> {"losses": [...]}
    {"run": 0.3}       -> {"times": [seconds of each step], "peak": bytes}
    {"race": "lenet", "epochs": 5, ...} -> {"accuracy": ..., "seconds": ...}
    {"overhead": 30}   -> {"times": [seconds of each call]}
    {"product": [256, 256, 256], "layout": "NN"} -> {"flops": a second, "peak": a second}
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
PATIENCE = 8
"""A run of slow steps ends early when it has taken so many times as long as it was meant to."""


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
    first: float

    def __init__(self, threads: int, name: str):
        self.module = importlib.import_module(f"chainrule.bench.{MODULES[name]}")
        if name == "torch":
            self.module.torch.set_num_threads(threads)

    def build(self, request: dict[str, Any]) -> dict[str, Any]:
        from chainrule.bench.workloads import named

        workload = named(request["build"], request["shape"], request["sizes"])
        weights = _weights(request)
        start = time.perf_counter()
        self.step = self.module.step_of(workload, weights, request["dtype"], request["variant"])
        called = time.perf_counter()
        self.first = _number(self.step())
        end = time.perf_counter()
        return {"cold": end - start, "call": end - called}

    def losses(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"losses": [self.first, *(_number(self.step()) for _ in range(request["losses"]))]}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        times: list[float] = []
        step, clock, total, wanted = self.step, time.perf_counter, 0.0, request["run"]
        while total < wanted or (len(times) < 3 and total < PATIENCE * wanted):
            start = clock()
            step()
            times.append(clock() - start)
            total += times[-1]
        return {"times": times, "peak": peak_bytes()}

    def race(self, request: dict[str, Any]) -> dict[str, Any]:
        from chainrule.bench.race import train
        from chainrule.bench.workloads import WORKLOADS

        return train(self.module, WORKLOADS[request["race"]], _weights(request), request)

    def overhead(self, request: dict[str, Any]) -> dict[str, Any]:
        from chainrule.bench.start import calls

        return {"times": calls(request["overhead"])}

    def product(self, request: dict[str, Any]) -> dict[str, Any]:
        from chainrule.bench.products import best

        return best(tuple(request["product"]), request["layout"], request["rounds"])


def _weights(request: dict[str, Any]) -> dict[str, Any]:
    from chainrule.serialize import load

    path = request["weights"]
    return {k: v.numpy() for k, v in load(path).items()} if path else {}


def _number(result: Any) -> float:
    """A loss as a number; NaN for a result with several elements."""
    size = math.prod(getattr(result, "shape", ()))
    return float(result) if size == 1 else math.nan


def main() -> None:
    threads = int(sys.argv[1])
    limit_threads(threads)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not be taken for one

    def answer(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    start = time.perf_counter()
    contestant = Contestant(threads, sys.argv[2])
    answer({"imported": time.perf_counter() - start})
    for line in sys.stdin:
        request = json.loads(line)
        kinds = ("build", "losses", "run", "race", "overhead", "product")
        try:
            answer(getattr(contestant, next(k for k in kinds if k in request))(request))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
