"""How cost grows: by batch, depth and length, by threads, under contention, and at the first call.

A study is a list of points, each a workload of some size under some settings; every point is
measured like a row of the benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chainrule.bench.report import OURS, fastest_peer, ratio, seconds
from chainrule.bench.run import Settings, measure
from chainrule.bench.workloads import STUDIED, WORKLOADS, Workload

Say = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """One measurement of a study: its label, what runs, and how."""

    label: str
    workload: Workload
    settings: Settings


def with_batch(workload: Workload, batch: int) -> Workload:
    return replace(workload, shape=(batch, *workload.shape[1:]))


def by_batch(settings: Settings) -> list[Point]:
    """Batches from 1 to 1,024."""
    return [
        Point(f"{name}, batch {n}", with_batch(WORKLOADS[name], n), settings)
        for name in ("mlp-wide", "lenet")
        for n in (1, 4, 16, 64, 256, 1024)
    ]


def by_depth(settings: Settings) -> list[Point]:
    """Depths from 2 to 64."""
    row = STUDIED["mlp-deep"]
    return [
        Point(f"depth {n}", replace(row, sizes=row.sizes | {"depth": n}), settings)
        for n in (2, 4, 8, 16, 32, 64)
    ]


def by_length(settings: Settings) -> list[Point]:
    """Attention over 256 to 8,192 positions."""
    row = STUDIED["attention"]
    return [
        Point(f"T = {t}", replace(row, shape=(1, t, row.shape[2])), settings)
        for t in (256, 512, 1024, 2048, 4096, 8192)
    ]


def by_threads(settings: Settings) -> list[Point]:
    """One thread and two."""
    return [
        Point(f"{row.name}, {n} thread(s)", row, replace(settings, threads=n))
        for row in WORKLOADS.values()
        if not row.group
        for n in (1, 2)
    ]


def by_contention(settings: Settings) -> list[Point]:
    """Alone, and beside a process that keeps one processor busy."""
    return [
        Point(f"{row.name}, {'busy' if burn else 'quiet'}", row, replace(settings, burn=burn))
        for row in WORKLOADS.values()
        if not row.group
        for burn in (False, True)
    ]


STUDIES: dict[str, Callable[[Settings], list[Point]]] = {
    "batch": by_batch, "depth": by_depth, "length": by_length, "threads": by_threads,
    "contention": by_contention,
}  # fmt: skip
COLUMNS = ("point", "chainrule", "mean", "fastest peer", "ratio", "peak memory", "peer's peak")


def run_study(name: str, settings: Settings, say: Say = lambda text: None) -> list[dict[str, Any]]:
    """Measure every point of a study; records like those of `measure`, with a `label`."""
    records = []
    for point in STUDIES[name](settings):
        record = measure(point.workload, point.settings, say)
        records.append(record | {"label": point.label})
    return records


def study_rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = []
    for record in records:
        ours, peer, found = record["contestants"].get(OURS), fastest_peer(record), ratio(record)
        rows.append(
            (
                record["label"],
                seconds(ours["median"]) if ours else "failed",
                seconds(ours["mean"]) if ours else "-",
                f"{seconds(peer[1]['median'])} ({peer[0]})" if peer else "none",
                f"{found:.2f}" if found else "-",
                f"{ours['peak'] / 2**20:.0f} MiB" if ours else "-",
                f"{peer[1]['peak'] / 2**20:.0f} MiB" if peer else "-",
            )
        )
    return rows


def slowdowns(records: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Of a study of contention: each contestant's mean step beside a busy process, over alone."""
    rows = []
    for quiet, busy in zip(records[::2], records[1::2], strict=True):
        for name, found in busy["contestants"].items():
            if name in quiet["contestants"]:
                slower = found["mean"] / quiet["contestants"][name]["mean"]
                rows.append((quiet["workload"], name, f"{slower:.2f}"))
    return rows
