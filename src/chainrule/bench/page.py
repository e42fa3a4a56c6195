"""The page of Markdown, and the file of runs beside it that it is made from.

`docs/benchmarks.md` is made from `docs/benchmarks.json`, which keeps what every run measured; a run
of some rows or of one study replaces what it measured anew and leaves the rest as it is. To write
the page again without measuring: `python -m chainrule.bench.page docs/benchmarks.md`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from chainrule.bench.run import ENVIRONMENT, KEEP_MEMORY
from chainrule.bench.sections import SECTIONS, Section, Table, key
from chainrule.bench.workloads import WORKLOADS
from chainrule.errors import DataError
from chainrule.files import atomic_write

Run = dict[str, Any]


# --- runs -----------------------------------------------------------------------------------------


def merged(runs: Sequence[Run], new: Run) -> list[Run]:
    """The runs with a newer one, whose records take the places of older records of the same."""
    fresh, kept = {key(record) for record in new["records"]}, []
    for run in runs:
        if run["section"] == new["section"]:
            left = [record for record in run["records"] if key(record) not in fresh]
            if left:
                kept.append(run | {"records": left})
        else:
            kept.append(run)
    return [*kept, new]


def dump(runs: Sequence[Run]) -> str:
    """JSON with a record on each line."""
    written = []
    for run in runs:
        head = json.dumps({k: v for k, v in run.items() if k != "records"})
        records = ",\n".join(json.dumps(_rounded(record)) for record in run["records"])
        written.append(f'{head[:-1]}, "records": [\n{records}\n]}}')
    return "[\n" + ",\n".join(written) + "\n]\n"


def _rounded(x: Any) -> Any:
    """Numbers with five digits."""
    if isinstance(x, float):
        return float(f"{x:.5g}")
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    return [_rounded(v) for v in x] if isinstance(x, list) else x


def load(path: Path) -> list[Run]:
    """The runs in a file; none if there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        runs = json.loads(text)
        known = (isinstance(run["records"], list) and run["section"] in SECTIONS for run in runs)
        if isinstance(runs, list) and all(known):
            return runs
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{os.fspath(path)!r} does not hold runs of `chainrule bench`, which the page is made "
        "from; move it away to begin a new one."
    )


def update(path: Path, new: Run) -> None:
    """Add a run to a page and to the file beside it."""
    runs = merged(load(path.with_suffix(".json")), new)
    atomic_write(path.with_suffix(".json"), dump(runs))
    atomic_write(path, page(runs))


# --- the page -------------------------------------------------------------------------------------


def page(runs: Sequence[Run]) -> str:
    """All sections, those without a run too."""
    minutes = round(sum(section.minutes for section in SECTIONS.values()))
    settings = ", ".join(f"`{k}={v}`" for k, v in KEEP_MEMORY.items())
    head = (
        "# Benchmarks\n\n"
        "`chainrule bench --all --page docs/benchmarks.md` makes this page (about "
        f"{minutes} minutes on two processors), `chainrule bench lenet gru --page "
        "docs/benchmarks.md` measures some rows anew, and `--study NAME` one section; what a run "
        "does not measure stays. What was measured is in `benchmarks.json`. Losing rows are shown "
        "like the others.\n\n"
        f"Peers run at their best settings: {' and '.join(ENVIRONMENT)} with the environment "
        f"{settings}, so that glibc keeps large blocks from one step to the next and steps do not "
        "fault their memory in again (their memory is measured with the same settings); PyTorch "
        "eagerly, compiled, and channels-last, with its fused optimisers; JAX jitted, with buffers "
        "donated. Threads and processors are the same for all."
    )
    parts = [part for section in SECTIONS.values() for part in _section(section, runs)]
    return "\n\n".join([head, *parts]) + "\n"


def _section(section: Section, runs: Sequence[Run]) -> Iterator[str]:
    yield f"## {section.title}"
    yield section.text.replace("\n", " ")
    mine = [run for run in runs if run["section"] == section.name]
    if not mine:
        yield f"Not measured yet: `{command(section.name)} --page docs/benchmarks.md`."
        return
    yield "\n".join(_made(run) for run in mine)
    records = [record for run in mine for record in run["records"]]
    if section.name == "rows":
        order = {w.name: (bool(w.group), n) for n, w in enumerate(WORKLOADS.values())}
        records.sort(key=lambda record: order[record["workload"]])
    for part in section.tables(records):
        yield part if isinstance(part, str) else markdown(part)


def _made(run: Run) -> str:
    how = run["settings"]
    versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    return (
        f"- {run['date']}, `{run['command']}`: {run['machine']}; {how['threads']} thread(s), "
        f"{how['rounds']} round(s) of {how['seconds']} s"
        + (", beside a process that keeps one processor busy" if how["burn"] else "")
        + f"; {len(run['records'])} record(s) in {run['minutes']:.1f} minutes. {versions}."
    )


def markdown(table: Table) -> str:
    """A table of Markdown, with its title above it."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    text = "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)
    return f"### {table.title}\n\n{text}" if table.title else text


def command(section: str, names: Sequence[str] = (), **changed: Any) -> str:
    """What was typed, without the paths."""
    words = ["chainrule bench", *names]
    if section != "rows":
        words.append(f"--study {section}")
    words += [f"--{k}" if v is True else f"--{k} {v}" for k, v in changed.items() if v]
    return " ".join(words)


def machine() -> str:
    """The processor, how many there are, what it can do, and the system."""
    from chainrule.compiler.native.runtime import available_threads
    from chainrule.compiler.native.target import host

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")]
    except OSError:
        names = []
    return (
        f"{names[0] if names else platform.processor() or platform.machine()}, "
        f"{available_threads()} processor(s), {host().name}, {platform.system()} "
        f"{platform.release().split('-')[0]}, {' '.join(filter(None, platform.libc_ver()))}"
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        atomic_write(Path(name), page(load(Path(name).with_suffix(".json"))))
