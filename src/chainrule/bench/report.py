"""What a run of the benchmark says: rows of a table, a summary, and a page of Markdown."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from typing import Any

from chainrule.bench.workloads import WORKLOADS

OURS = "chainrule compiled"
COLUMNS = ("workload", "chainrule", "fastest peer", "ratio", "target", "first call", "peak memory")


def fastest_peer(record: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The peer with the smallest median, and what was measured of it."""
    peers = [(k, v) for k, v in record["contestants"].items() if not k.startswith("chainrule")]
    return min(peers, key=lambda kv: kv[1]["median"], default=None)


def ratio(record: dict[str, Any]) -> float | None:
    """Time of the fastest peer over ours; None if either is missing."""
    peer, ours = fastest_peer(record), record["contestants"].get(OURS)
    return None if peer is None or ours is None else peer[1]["median"] / ours["median"]


def seconds(x: float) -> str:
    """A time in the unit that suits it."""
    for scale, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if x * scale >= 1:
            return f"{x * scale:.3g} {unit}"
    return f"{x * 1e9:.3g} ns"


def row(record: dict[str, Any]) -> tuple[str, ...]:
    ours, peer = record["contestants"].get(OURS), fastest_peer(record)
    found = ratio(record)
    return (
        record["workload"],
        seconds(ours["median"]) if ours else "failed",
        f"{seconds(peer[1]['median'])} ({peer[0]})" if peer else "none",
        f"{found:.2f}" if found else "-",
        f"{WORKLOADS[record['workload']].target:g}",
        seconds(ours["cold"]) if ours else "-",
        f"{ours['peak'] / 2**20:.0f} MiB" if ours else "-",
    )


def rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [row(record) for record in records]


def geometric_mean(numbers: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def summary(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The geometric mean of the ratios: of the matrix products, of each other row, of all rows."""
    groups: dict[str, list[float]] = {}
    for record in records:
        found = ratio(record)
        if found is not None:
            name = WORKLOADS[record["workload"]].group or record["workload"]
            groups.setdefault(name, []).append(found)
    means = {name: geometric_mean(found) for name, found in groups.items()}
    if means:
        means["all rows"] = geometric_mean(list(means.values()))
    return means


def _markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns),
                                                                 *lines])  # fmt: skip


def page(run: dict[str, Any]) -> str:
    """The page `docs/benchmarks.md`: every row of a run, the losing ones like the others."""
    records, how = run["records"], run["settings"]
    parts = [
        "# Benchmarks",
        f"Made by `{run['command']}` on {run['date']}: {run['machine']}, {how['threads']} "
        f"thread(s), {how['rounds']} rounds of {how['seconds']} s for each contestant in turn"
        + (", with another process keeping one processor busy" if how["burn"] else "")
        + ". Ratio = median time of the fastest peer over ours; above 1 chainrule is faster. "
        "Every contestant starts from the same weights, takes the same batch, and lives in a "
        "process of its own.",
        "Contestants: " + ", ".join(f"{k} {v}" for k, v in run["versions"].items()) + ".",
        _markdown(COLUMNS, rows(records)),
        "## Geometric means",
        _markdown(("rows", "ratio"), [(k, f"{v:.2f}") for k, v in summary(records).items()]),
        "## Every contestant",
        _markdown(
            ("workload", "contestant", "median", "minimum", "p90", "first call", "peak memory",
             "losses from float64"),
            [line for record in records for line in _contestants(record)],
        ),
    ]  # fmt: skip
    failed = [
        f"- {record['workload']}, {name}: {why}"
        for record in records
        for name, why in record["failed"].items()
    ]
    if failed:
        parts += ["## Did not run", "\n".join(failed)]
    parts += ["## How to repeat", f"```\n{run['command']}\n```"]
    return "\n\n".join(parts) + "\n"


def _contestants(record: dict[str, Any]) -> list[tuple[str, ...]]:
    lines = []
    for name, found in record["contestants"].items():
        distance = found.get("distance")
        lines.append(
            (
                record["workload"], name, seconds(found["median"]), seconds(found["minimum"]),
                seconds(found["p90"]), seconds(found["cold"]), f"{found['peak'] / 2**20:.0f} MiB",
                "-" if distance is None or math.isnan(distance) else f"{distance:.1e}",
            )
        )  # fmt: skip
    return lines


def machine() -> str:
    """The processor, as the operating system names it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")]
    except OSError:
        names = []
    return (
        f"{names[0] if names else platform.processor() or platform.machine()}, {platform.system()}"
    )
