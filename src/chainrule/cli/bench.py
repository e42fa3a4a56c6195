"""The command `chainrule bench`."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import platform
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from chainrule import bench as benchmark
from chainrule.bench import page as pages
from chainrule.bench import sections, workloads
from chainrule.bench.run import PEERS, installed
from chainrule.bench.sections import SECTIONS, Section, Table
from chainrule.cli.tables import print_table
from chainrule.compiler.native.runtime import available_threads
from chainrule.errors import ArgumentError, ChainruleError, unknown_name
from chainrule.files import atomic_write

STUDIES = [name for name in SECTIONS if name != "rows"]


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Workloads (`gemm` for all matrix products); all if none is named."),
    ] = None,
    threads: Annotated[
        int | None, Option(help="Of every contestant; at most 2 unless set.")
    ] = None,
    rounds: Annotated[int | None, Option(help="How often each contestant runs.")] = None,
    seconds: Annotated[float | None, Option(help="How long it runs each time.")] = None,
    peers: Annotated[
        str, Option(help="torch, jax, numpy; those installed run.")
    ] = "torch,jax,numpy",
    burn: Annotated[bool, Option("--burn", help="Keep one processor busy meanwhile.")] = False,
    study: Annotated[
        list[str] | None,
        Option(help=f"In place of the rows: {', '.join(STUDIES)}. May be given several times."),
    ] = None,
    everything: Annotated[bool, Option("--all", help="The rows and all studies.")] = False,
    output: Annotated[Path | None, Option("--json", help="Write what was measured.")] = None,
    page: Annotated[
        Path | None,
        Option(help="A page of Markdown, and JSON beside it, to put into what was measured."),
    ] = None,
) -> int:
    """Measure training steps against PyTorch, JAX and NumPy, in turn, in processes of their own."""
    chosen = _sections(names or [], study or [], everything)
    settings = _settings(threads, rounds, seconds, peers, burn)
    if page is not None:
        pages.load(page.with_suffix(".json"))  # refused now rather than after the measurements
    typed = {
        "rounds": rounds, "seconds": seconds, "burn": burn,
        "peers": None if peers == ",".join(PEERS) else peers,
    }  # fmt: skip
    progress, made, failed = Progress(chosen), [], 0
    for section in chosen:
        progress.begin(section)
        mine = replace(
            settings, rounds=rounds or section.rounds, seconds=seconds or section.seconds
        )
        try:
            records = section.run(mine, progress.say)
        except ChainruleError as error:  # the others can still be measured
            progress.end()
            print(f"{section.name} was not measured: {error}", file=sys.stderr)
            failed += 1
            continue
        minutes = progress.end()
        command = pages.command(section.name, names or [], **typed)
        made.append(_run(section, mine, records, minutes, command))
        _print(section, records)
        if output is not None:
            atomic_write(output, pages.dump(made))
        if page is not None:
            pages.update(page, made[-1])
    return 1 if failed else 0


def _sections(names: list[str], studies: list[str], everything: bool) -> list[Section]:
    """What is to be measured."""
    if names and (studies or everything):
        raise ArgumentError(
            f"workloads ({', '.join(names)}) choose rows; a study has workloads of its own. Leave "
            "out the one or the other."
        )
    if everything:
        return list(SECTIONS.values())
    for name in studies:
        if name not in STUDIES:
            raise unknown_name("study", name, STUDIES)
    if studies:
        return [SECTIONS[name] for name in studies]
    rows = workloads.chosen(names)
    return [
        replace(
            SECTIONS["rows"], minutes=sections.rows_minutes(rows),
            run=functools.partial(sections.run_rows, names),
        )
    ]  # fmt: skip


def _settings(
    threads: int | None, rounds: int | None, seconds: float | None, peers: str, burn: bool
) -> benchmark.Settings:
    if (rounds is not None and rounds < 1) or (seconds is not None and seconds <= 0):
        raise ArgumentError(f"bench needs rounds >= 1 and seconds > 0, got {rounds}, {seconds}.")
    available = available_threads()
    threads = min(2, available) if threads is None else threads
    if not 1 <= threads <= available:
        raise ArgumentError(f"--threads {threads}: this process may use {available} processor(s).")
    wanted = tuple(x.strip() for x in peers.split(",") if x.strip())
    installed(wanted)  # refuses a name that is none
    return benchmark.Settings(threads, peers=wanted, burn=burn)


def _run(
    section: Section, settings: Any, records: list[dict[str, Any]], minutes: float, command: str
) -> dict[str, Any]:
    return {
        "section": section.name, "date": datetime.date.today().isoformat(), "command": command,
        "machine": pages.machine(), "settings": asdict(settings), "minutes": minutes,
        "versions": _versions(settings.peers), "records": records,
    }  # fmt: skip


def _print(section: Section, records: list[dict[str, Any]]) -> None:
    print(f"\n{section.title}")
    for part in section.tables(records):
        print()
        if isinstance(part, Table):
            if part.title:
                print(part.title)
            print_table(part.columns, part.rows)
        else:
            print(part)
    sys.stdout.flush()


def _versions(peers: tuple[str, ...]) -> dict[str, Any]:
    found = {"Python": platform.python_version()}
    for package in ("chainrule", *installed(peers), "llvmlite"):
        found[package] = importlib.metadata.version(package)
    return found


class Progress:
    """Where a run is and how long it may take still, on the standard error.

    One line that is written over; where the output is no terminal, a line for each thing measured.
    """

    def __init__(self, chosen: list[Section]):
        self.left = sum(section.minutes for section in chosen)
        self.count, self.number = len(chosen), 0
        self.start = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.section, self.shown, self.began = "", "", 0.0
        print(
            f"{', '.join(section.name for section in chosen)}: about {self.left:.0f} minutes on "
            "two processors with all peers",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def begin(self, section: Section) -> None:
        self.number += 1
        self.section, self.minutes, self.began = section.name, section.minutes, time.monotonic()

    def say(self, text: str) -> None:
        passed = time.monotonic() - self.start
        in_section = (time.monotonic() - self.began) / 60
        left = self.left - min(in_section, self.minutes)
        clock = f"{int(passed // 60)}:{int(passed % 60):02d}"
        where = f"[{self.number}/{self.count} {self.section}, {clock}, about {left:.0f} min left]"
        if self.terminal:
            print(f"\r\x1b[K{where} {text}", end="", file=sys.stderr, flush=True)
        elif text.partition(":")[0] != self.shown:
            self.shown = text.partition(":")[0]
            print(f"{where} {self.shown}", file=sys.stderr, flush=True)

    def end(self) -> float:
        """The minutes that the section took."""
        self.left -= self.minutes
        took = (time.monotonic() - self.began) / 60
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr)
        print(f"{self.section} took {took:.1f} minutes", file=sys.stderr, flush=True)
        return took
