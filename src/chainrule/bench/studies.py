"""How cost grows: by batch, depth and length, by threads, and under contention.

A study of growth is a list of points, each a workload of some size under some settings; every point
is measured like a row of the benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chainrule.bench.report import OURS, fastest_peer, mebibytes, ratio, seconds
from chainrule.bench.run import Say, Settings, burning, measure, quiet, started, timed
from chainrule.bench.workloads import STUDIED, WORKLOADS, Workload


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


GROWTH: dict[str, Callable[[Settings], list[Point]]] = {
    "batch": by_batch, "depth": by_depth, "length": by_length, "threads": by_threads,
}  # fmt: skip
COLUMNS = (
    "point", "chainrule", "to the one before", "fastest peer", "ratio", "first call",
    "peak memory", "leanest peer",
)  # fmt: skip


def run_study(name: str, settings: Settings, say: Say = quiet) -> list[dict[str, Any]]:
    """Measure every point of a study of growth; records like those of `measure`, with a `label`."""
    plain = replace(settings, losses=0, compiled_peers=False)
    return [
        measure(point.workload, point.settings, lambda text, p=point: say(f"{p.label}: {text}"))
        | {"label": point.label}
        for point in GROWTH[name](plain)
    ]


def study_rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows, before = [], (None, 0.0)
    for record in records:
        ours, peer, found = record["contestants"].get(OURS), fastest_peer(record), ratio(record)
        grown = "-"
        if ours and before[0] == record["workload"]:
            grown = f"{ours['median'] / before[1]:.2f}"
        before = record["workload"], ours["median"] if ours else 0.0
        rows.append(
            (
                record["label"], seconds(ours["median"]) if ours else "failed", grown,
                f"{seconds(peer[1]['median'])} ({peer[0]})" if peer else "none",
                f"{found:.2f}" if found else "-", seconds(ours["cold"]) if ours else "-",
                *mebibytes(record),
            )
        )  # fmt: skip
    return rows


# --- threads --------------------------------------------------------------------------------------

SPEEDUP_COLUMNS = ("workload", "contestant", "1 thread", "2 threads", "times as fast")


def speedups(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Each contestant's median step on one thread and on two."""
    rows = []
    for one in records:
        name = one["label"].partition(",")[0]
        two = next((r for r in records if r["label"] == f"{name}, 2 thread(s)"), None)
        if one["label"] != f"{name}, 1 thread(s)" or two is None:
            continue
        for who, found in one["contestants"].items():
            if who in two["contestants"]:
                a, b = found["median"], two["contestants"][who]["median"]
                rows.append((name, who, seconds(a), seconds(b), f"{a / b:.2f}"))
    return rows


# --- contention -----------------------------------------------------------------------------------

CONTENTION_COLUMNS = (
    "workload", "chainrule beside it", "slowdown", "fastest peer beside it", "slowdown", "ratio"
)  # fmt: skip
SLOWDOWN_COLUMNS = ("workload", "contestant", "alone", "beside it", "slowdown")


def contention(settings: Settings, say: Say = quiet) -> list[dict[str, Any]]:
    """Each row alone, and beside a process that keeps one processor busy."""
    records = []
    for row in WORKLOADS.values():
        if row.group:
            continue
        record: dict[str, Any] = {"label": row.name, "workload": row.name, "failed": {}}
        with started(row, settings, record, lambda text, r=row: say(f"{r.name}: {text}")) as run:
            for kind in ("alone", "beside"):
                with burning(kind == "beside", settings.threads):
                    record[kind] = timed(
                        run[0], settings, record,
                        lambda text, r=row, k=kind: say(f"{r.name}, {k}: {text}"),
                    )  # fmt: skip
        records.append(record)
    return records


def slowdowns(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Each contestant's mean step beside a busy process, over alone."""
    return [
        (
            record["label"], name, seconds(found["mean"]), seconds(busy["mean"]),
            f"{busy['mean'] / found['mean']:.2f}",
        )
        for record in records
        for name, found in record["alone"].items()
        if (busy := record["beside"].get(name)) is not None
    ]  # fmt: skip


def contention_rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """chainrule and the peer whose mean step is shortest beside a busy process."""
    rows = []
    for record in records:
        busy, alone = record["beside"], record["alone"]
        peers = [k for k in busy if not k.startswith("chainrule") and k in alone]
        if OURS not in busy or OURS not in alone or not peers:
            rows.append((record["label"], "failed", "-", "-", "-", "-"))
            continue
        best = min(peers, key=lambda k: busy[k]["mean"])
        ours, theirs = busy[OURS]["mean"], busy[best]["mean"]
        rows.append(
            (
                record["label"], seconds(ours), f"{ours / alone[OURS]['mean']:.2f}",
                f"{seconds(theirs)} ({best})", f"{theirs / alone[best]['mean']:.2f}",
                f"{theirs / ours:.2f}",
            )
        )  # fmt: skip
    return rows
