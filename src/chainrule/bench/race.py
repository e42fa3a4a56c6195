"""A whole training run: every contestant trains LeNet on MNIST for the same epochs.

The same weights to begin with, the same batches in the same order; the clock runs from before the
first step, so that compiling counts, to after the last one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.bench.run import Say, Settings, Worker, contestants, quiet, weights_of
from chainrule.bench.workloads import WORKLOADS, Workload

COLUMNS = ("contestant", "test accuracy", "training", "first epoch", "ratio to chainrule")


def mnist() -> tuple[np.ndarray, ...]:
    """Training images and labels, test images and labels; pixels from 0 to 1."""
    from chainrule import data

    sets = data.load("mnist")
    parts = [part[:] for part in sets]
    return tuple(np.ascontiguousarray(np.asarray(x)) for part in parts for x in part)


def train(module: Any, workload: Workload, weights: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Run one contestant."""
    x, y, test_x, test_y = mnist()
    step, predict = module.trainer_of(workload, weights, request["variant"])
    size, rng = workload.shape[0], np.random.default_rng(request["seed"])
    epochs = []
    start = time.perf_counter()
    for _ in range(request["epochs"]):
        order = rng.permutation(len(x))
        for first in range(0, len(x) - size + 1, size):
            chosen = order[first : first + size]
            step(x[chosen], y[chosen])
        epochs.append(time.perf_counter() - start)
    hits = [
        predict(test_x[i : i + 1000]).argmax(1) == test_y[i : i + 1000]
        for i in range(0, len(test_x), 1000)
    ]
    return {"accuracy": float(np.mean(hits)), "seconds": epochs[-1], "epochs": epochs}


def race(
    settings: Settings, say: Say = quiet, epochs: int = 5, seeds: int = 1
) -> list[dict[str, Any]]:
    """Let all contestants train, one after another; a record for each and each seed."""
    workload, records = WORKLOADS["lenet"], []
    mnist()  # fetched and found whole, before a clock runs
    with tempfile.TemporaryDirectory() as folder:
        weights = weights_of(workload, Path(folder))
        for seed in range(seeds):
            for contestant, variant in contestants(workload, settings):
                worker = Worker(contestant, variant, settings.threads)
                try:
                    say(f"{worker.name}: {epochs} epochs, seed {seed}")
                    answer = worker.ask(
                        race=workload.name, variant=variant, weights=weights, epochs=epochs,
                        seed=seed,
                    )  # fmt: skip
                finally:
                    worker.close()
                records.append(
                    {"label": f"{worker.name}, seed {seed}", "contestant": worker.name} | answer
                )
    return records


def race_rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each contestant: means over the seeds."""
    names = list(dict.fromkeys(r["contestant"] for r in records))
    mean = {
        name: [
            float(np.mean([f(r) for r in records if r["contestant"] == name and "error" not in r]))
            for f in (lambda r: r["accuracy"], lambda r: r["seconds"], lambda r: r["epochs"][0])
        ]
        for name in names
        if any(r["contestant"] == name and "error" not in r for r in records)
    }
    ours = mean.get("chainrule compiled", [np.nan] * 3)[1]
    return [
        (name, f"{100 * a:.2f} %", f"{s:.1f} s", f"{first:.1f} s", f"{s / ours:.2f}")
        for name, (a, s, first) in mean.items()
    ] + [(r["contestant"], "failed", r["error"], "-", "-") for r in records if "error" in r]
