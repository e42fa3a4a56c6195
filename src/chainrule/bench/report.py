"""What a run of the benchmark says: rows of tables and a summary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from chainrule.bench.workloads import WORKLOADS

OURS = "chainrule compiled"
COLUMNS = (
    "workload", "chainrule", "fastest peer", "ratio", "target", "first call", "peak memory",
    "leanest peer",
)  # fmt: skip
CONTESTANT_COLUMNS = (
    "workload", "contestant", "median", "minimum", "p90", "first call", "peak memory",
    "losses from float64",
)  # fmt: skip
PEER_COLUMNS = ("workload", "peer", "measured", "expected", "measured / expected", "")
SLOW = 1.25
"""A peer that takes so many times as long as expected is set up wrongly, and no win counts."""


def fastest_peer(record: dict[str, Any], of: str = "") -> tuple[str, dict[str, Any]] | None:
    """The peer (of that library) with the smallest median, and what was measured of it."""
    peers = [
        (k, v)
        for k, v in record["contestants"].items()
        if not k.startswith("chainrule") and k.startswith(of)
    ]
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


def mebibytes(record: dict[str, Any]) -> tuple[str, str]:
    """Our peak of memory, and that of the peer with the smallest."""
    ours = record["contestants"].get(OURS)
    peers = [
        (v["peak"], k) for k, v in record["contestants"].items() if not k.startswith("chainrule")
    ]
    least = min(peers, default=None)
    return (
        f"{ours['peak'] / 2**20:.0f} MiB" if ours else "-",
        f"{least[0] / 2**20:.0f} MiB ({least[1]})" if least else "-",
    )


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
        *mebibytes(record),
    )


def rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [row(record) for record in records]


def contestant_rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Every contestant of every row."""
    lines = []
    for record in records:
        for name, found in record["contestants"].items():
            distance = found.get("distance")
            lines.append(
                (
                    record["workload"], name, seconds(found["median"]), seconds(found["minimum"]),
                    seconds(found["p90"]), seconds(found["cold"]),
                    f"{found['peak'] / 2**20:.0f} MiB",
                    "-" if distance is None or math.isnan(distance) else f"{distance:.1e}",
                )
            )  # fmt: skip
    return lines


def peer_rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Peers beside what they are expected to take; those that are far slower are marked."""
    lines = []
    for record in records:
        expected = WORKLOADS[record["workload"]].expected
        found = fastest_peer(record, expected[0]) if expected else None
        if expected and found:
            off = found[1]["median"] / expected[1]
            lines.append(
                (
                    record["workload"], found[0], seconds(found[1]["median"]),
                    seconds(expected[1]), f"{off:.2f}",
                    "more than 25 % slower" if off > SLOW else "",
                )
            )  # fmt: skip
    return lines


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
