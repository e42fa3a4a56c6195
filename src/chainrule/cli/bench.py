"""The command `chainrule bench`."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from chainrule import bench as benchmark
from chainrule.bench import race, report, studies, workloads
from chainrule.bench.run import installed
from chainrule.bench.studies import STUDIES
from chainrule.cli.tables import print_table
from chainrule.compiler.native.runtime import available_threads
from chainrule.errors import ArgumentError, unknown_name
from chainrule.files import atomic_write


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Workloads (`gemm` for all matrix products); all if none is named."),
    ] = None,
    threads: Annotated[
        int | None, Option(help="Of every contestant; at most 2 unless set.")
    ] = None,
    rounds: Annotated[int, Option(help="How often each contestant runs.")] = 5,
    seconds: Annotated[float, Option(help="How long it runs each time.")] = 0.3,
    peers: Annotated[
        str, Option(help="torch, jax, numpy; those installed run.")
    ] = "torch,jax,numpy",
    burn: Annotated[bool, Option("--burn", help="Keep one processor busy meanwhile.")] = False,
    study: Annotated[
        str | None,
        Option(help=f"In place of the rows, how cost grows: {', '.join(STUDIES)}; or mnist."),
    ] = None,
    output: Annotated[Path | None, Option("--json", help="Write the run as JSON.")] = None,
    page: Annotated[Path | None, Option(help="Write the run as a page of Markdown.")] = None,
) -> int:
    """Measure training steps against PyTorch, JAX and NumPy, in turn, in processes of their own."""
    if rounds < 1 or seconds <= 0:
        raise ArgumentError(f"bench needs rounds >= 1 and seconds > 0, got {rounds}, {seconds}.")
    available = available_threads()
    threads = min(2, available) if threads is None else threads
    if not 1 <= threads <= available:
        raise ArgumentError(f"--threads {threads}: this process may use {available} processor(s).")
    wanted = tuple(x.strip() for x in peers.split(",") if x.strip())
    settings = benchmark.Settings(threads, rounds, seconds, wanted, burn)
    if study is not None:
        return _study(study, settings, output)
    records = []
    for workload in workloads.chosen(names or []):
        record = benchmark.measure(workload, settings, _progress)
        records.append(record)
        _progress("")
        print("  ".join(report.row(record)[:5]), flush=True)
        for name, why in record["failed"].items():
            print(f"  {name} did not run: {why}", file=sys.stderr)
    run = {"date": datetime.date.today().isoformat(), "machine": report.machine(),
           "command": shlex.join(["chainrule", *sys.argv[1:]]), "settings": asdict(settings),
           "versions": _versions(settings.peers), "records": records}  # fmt: skip
    print()
    print_table(report.COLUMNS, benchmark.rows(records))
    print()
    print_table(("rows", "ratio"), [(k, f"{v:.2f}") for k, v in benchmark.summary(records).items()])
    if output is not None:
        atomic_write(output, json.dumps(run, indent=1))
    if page is not None:
        atomic_write(page, benchmark.page(run))
    return 0


def _study(name: str, settings: Any, output: Path | None) -> int:
    if name == "mnist":
        records = race.race(settings, say=_progress)
        _progress("")
        print_table(race.COLUMNS, race.race_rows(records))
        _write(output, settings, records)
        return 0
    if name not in STUDIES:
        raise unknown_name("study", name, [*STUDIES, "mnist"])
    records = studies.run_study(name, settings, _progress)
    _progress("")
    print_table(studies.COLUMNS, studies.study_rows(records))
    if name == "contention":
        print()
        print_table(("workload", "contestant", "slowdown"), studies.slowdowns(records))
    _write(output, settings, records)
    return 0


def _write(output: Path | None, settings: Any, records: Any) -> None:
    if output is not None:
        made = {"settings": asdict(settings), "records": records}
        atomic_write(output, json.dumps(made, indent=1))


def _progress(text: str) -> None:
    """One line that is written over; nothing where the output is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _versions(peers: tuple[str, ...]) -> dict[str, Any]:
    found = {"Python": platform.python_version()}
    for package in ("chainrule", *installed(peers), "llvmlite"):
        found[package] = importlib.metadata.version(package)
    return found
