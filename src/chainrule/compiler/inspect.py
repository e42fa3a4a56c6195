"""What a compiled function has become, and what each part of it costs: `step.inspect()`.

    report = step.inspect()       # after a call
    print(report)                 # the profile: time, GFLOP/s, GB/s, share of the ceilings
    report.graph, report.simplified, report.kernels, report.llvm, report.assembly
    report.operations_of(5), report.llvm_of(5), report.assembly_of(5)
    report.save("step.html")      # all of it on one page, from the operations to their assembly

The profile is taken on a copy of the program, of its states and of its numbers, so that nothing of
the user's is touched; arguments are made up, as they are not kept after a call.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.compiler import build, passes, show
from chainrule.compiler.inspect_code import Code, code_of
from chainrule.compiler.ir import Graph
from chainrule.compiler.native import jit
from chainrule.compiler.native.ceiling import ceiling
from chainrule.compiler.native.program import HostCall, Program
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.plan import Plan, plan
from chainrule.errors import ChainruleError
from chainrule.files import atomic_write
from chainrule.graph import Array

WARMUP, RUNS, BUDGET = 3, 30, 1.0
EXPLAINED = """\
time: of all threads together, and its share of all kernels'. GFLOP/s: a thread's, of what one core
reaches in multiply-adds that need no memory. GB/s: what a kernel must read and write at least, by
the clock, of what the threads read from memory: above 100 % it came from the caches."""


class InspectionError(ChainruleError, RuntimeError):
    """A compiled function that cannot be looked into yet."""


@dataclass(frozen=True)
class Row:
    """One kernel in one run of the program; times in seconds.

    Attributes:
        number: its position in the program.
        name, family: what it computes, and which generator wrote it.
        phase: kernels of one phase may run at the same time.
        start, wall: when it began, and how long until its last chunk was done.
        busy: for each thread how long it worked on it; `spans` is when, from its first chunk to its
            last.
        chunks: how many pieces the threads took.
        flops, bytes: what it computes, and what it must read and write at least.
    """

    number: int
    name: str
    family: str
    phase: int
    start: float
    wall: float
    busy: tuple[float, ...]
    spans: tuple[tuple[float, float] | None, ...]
    chunks: int
    flops: int
    bytes: int

    @property
    def work(self) -> float:
        """Time of all threads together."""
        return sum(self.busy)


@dataclass(frozen=True)
class Profile:
    """The kernels of a run in the order in which they began, beside what the machine can do.

    Attributes:
        total: seconds of the run, from call to return.
        threads: how many there were.
        peak_flops, peak_bytes: what one core reached, and what the threads together read from
            memory, in a second, measured right after the run.
    """

    rows: tuple[Row, ...]
    total: float
    threads: int
    peak_flops: float
    peak_bytes: float

    def shares(self, row: Row) -> tuple[float, float]:
        """Arithmetic and traffic of a kernel as shares of what its threads could do at most."""
        seconds = max(row.work, 1e-12)
        flops = row.flops / seconds / self.peak_flops
        return flops, row.bytes / max(row.wall, 1e-12) / self.peak_bytes

    @property
    def outside(self) -> float:
        """Seconds in which no kernel ran: calling, dealing out, waiting."""
        end, covered = 0.0, 0.0
        for row in self.rows:
            begin, stop = max(row.start, end), row.start + row.wall
            covered += max(0.0, stop - begin)
            end = max(end, stop)
        return max(0.0, self.total - covered)

    @property
    def busy(self) -> float:
        """The share of the threads' time in which they ran kernels."""
        return sum(row.work for row in self.rows) / max(self.threads * self.total, 1e-12)

    def table(self, most: int | None = None) -> str:
        """The kernels one by one, those that take longest first."""
        return self._table([[row] for row in self.rows], most)

    def grouped(self, most: int | None = None) -> str:
        """The same, equal kernels together."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.family, row.name), []).append(row)
        return self._table(list(groups.values()), most)

    def _table(self, groups: list[list[Row]], most: int | None) -> str:
        total = sum(row.work for row in self.rows) or 1e-12
        lines = [
            f"{'kernel':>8} {'time us':>9} {'share':>6} {'chunks':>6} {'GFLOP/s':>8} "
            f"{'of core':>7} {'GB/s':>6} {'of mem':>7}  what"
        ]
        groups = sorted(groups, key=lambda rows: -sum(row.work for row in rows))
        for rows in groups[:most]:
            work, wall = sum(r.work for r in rows) or 1e-12, sum(r.wall for r in rows) or 1e-12
            flops, traffic = sum(r.flops for r in rows) / work, sum(r.bytes for r in rows) / wall
            first = rows[0]
            number = str(first.number) if len(rows) == 1 else f"{len(rows)} times"
            lines.append(
                f"{number:>8} {work * 1e6:>9.1f} {work / total:>6.1%} "
                f"{sum(r.chunks for r in rows):>6} {flops / 1e9:>8.1f} "
                f"{flops / self.peak_flops:>7.1%} {traffic / 1e9:>6.1f} "
                f"{traffic / self.peak_bytes:>7.1%}  {first.family}: {first.name}"
            )
        rest = sum(row.work for rows in groups[len(lines) - 1 :] for row in rows)
        if rest:
            left = len(groups) - len(lines) + 1
            lines.append(f"{'...':>8} {rest * 1e6:>9.1f} {rest / total:>6.1%}  {left} more")
        return "\n".join(lines)

    def __str__(self) -> str:
        flops = sum(row.flops for row in self.rows)
        return (
            f"{self.total * 1e6:.1f} us on {self.on_threads}, {flops / self.total / 1e9:.1f} "
            f"GFLOP/s; threads were busy {self.busy:.0%} of it, {self.outside * 1e6:.1f} us passed "
            f"in no kernel\none core's multiply-adds reach {self.peak_flops / 1e9:.0f} GFLOP/s, "
            f"reading from memory {self.peak_bytes / 1e9:.0f} GB/s on {self.on_threads}\n"
            f"{self.grouped(40)}\n{EXPLAINED}"
        )

    @property
    def on_threads(self) -> str:
        return "1 thread" if self.threads == 1 else f"{self.threads} threads"


class Inspection:
    """A compiled function taken apart; see the head of this file.

    Attributes:
        graph: as it was traced.
        simplified: after all passes.
        profile: what a run costs, kernel by kernel.
    """

    def __init__(self, graph: Graph, program: Program, arrays: Sequence[Array], runs: int = RUNS):
        self.graph, self.program = graph, program
        self.target: Target = program.target or host()
        self._arrays = arrays
        self._runs = runs

    @functools.cached_property
    def simplified(self) -> Graph:
        return passes.run(self.graph)

    def after(self, name: str) -> list[Graph]:
        """The graph after each run of the pass of that name."""
        found: list[Graph] = []
        passes.run(self.graph, seen=lambda one, graph: found.append(graph) if one == name else None)
        return found

    @functools.cached_property
    def _written(self) -> tuple[Plan, str]:
        zone = build.REDZONE if isinstance(self.program, build.GuardedProgram) else 0
        planned = plan(*build.schedule(self.simplified, self.target), redzone=zone)
        return planned, build.text(planned, self.target)

    @property
    def plan(self) -> Plan:
        """Kernels, steps and memory."""
        return self._written[0]

    @property
    def kernels(self) -> str:
        """The kernels and what they compute, step by step."""
        return str(self.plan)

    @property
    def dot(self) -> str:
        """The graph, its kernels as boxes, in the language of Graphviz (`dot -Tsvg`)."""
        return show.dot(self.plan.schedule.graph, self.plan.schedule.kernels)

    @property
    def llvm(self) -> str:
        """The code as LLVM's intermediate representation."""
        return self._written[1]

    @functools.cached_property
    def assembly(self) -> str:
        """The code of the processor."""
        return jit.assembly(self.llvm, self.target)

    @functools.cached_property
    def code(self) -> Code:
        """`llvm` and `assembly`, function by function."""
        return code_of(self.llvm, self.assembly)

    def operations_of(self, number: int) -> str:
        """What one kernel computes: the graph's operations, with the layer and the user's line."""
        self._known(number)
        kernel = self.plan.schedule.kernels[self.plan.natives[number]]
        return "\n".join(show.format_op(op) + show.comment(op) for op in kernel.ops)

    def llvm_of(self, number: int) -> str:
        """The part of `llvm` that is one kernel, and the functions that it calls."""
        return self._parts(self.code.llvm, number)

    def assembly_of(self, number: int) -> str:
        """The part of `assembly` that is one kernel, and the functions that it calls."""
        return self._parts(self.code.assembly, number)

    def _parts(self, texts: dict[str, str], number: int) -> str:
        self._known(number)
        return "\n\n".join(texts[name] for name in self.code.reached(f"kernel{number}"))

    def _known(self, number: int) -> None:
        count = len(self.program.tables.kernels)
        if not 0 <= number < count:
            raise InspectionError(f"there is no kernel {number}; there are {count}, from 0.")

    @functools.cached_property
    def profile(self) -> Profile:
        return measure(self.program, self._arrays, self._runs)

    def __str__(self) -> str:
        tables = self.program.tables
        return (
            f"{self.graph.name}: {len(self.graph.ops)} operations traced, "
            f"{len(tables.kernels)} kernels in {len(tables.steps)} phases for {self.target.name}, "
            f"{tables.arena / 2**20:.2f} MiB of temporary values\n{self.profile}"
        )

    __repr__ = __str__

    def html(self) -> str:
        """All of it as one page."""
        from chainrule.compiler.inspect_html import page

        return page(self)

    def _repr_html_(self) -> str:
        from chainrule.compiler.inspect_html import fragment

        return fragment(self)

    def save(self, path: str | Path) -> None:
        """Write the page to a file."""
        atomic_write(path, self.html())


# --- measuring ------------------------------------------------------------------------------------


def measure(program: Program, arrays: Sequence[Array], runs: int = RUNS) -> Profile:
    """Profile a copy of a program on copies of arrays; the fastest of some runs is told.

    Arguments:
        arrays: one for each input.
        runs: how many to try, within about a second.
    """
    spans: dict[int, tuple[float, float]] = {}
    hosts = [_timed(call, n, spans) for n, call in enumerate(program.hosts)]
    twin = Program(
        program.code, program.tables, program.constants_given, hosts, target=program.target
    )
    given = [np.array(x, order="C") for x in arrays]
    twin.run(given)  # binds everything
    replaced = {place.slot for place in twin.tables.outputs}
    states = [n for n, place in enumerate(twin.tables.inputs) if place.slot in replaced]
    best: tuple[float, float, Array, dict[int, tuple[float, float]]] | None = None
    budget = time.perf_counter() + BUDGET
    with twin.profiled() as rows:
        for n in range(WARMUP + max(1, runs)):
            for state in states:  # many steps in one direction could end in infinities
                given[state][...] = arrays[state]
            rows[:] = 0
            start = time.perf_counter()
            twin.call()
            took = time.perf_counter() - start
            if best is None or took < best[0]:
                best = took, start, rows.copy(), dict(spans)
            if n >= WARMUP and time.perf_counter() > budget:
                break
    assert best is not None
    total, start, counted, called = best
    threads = counted.shape[0]
    used = max(1, int((counted[:, :, 1].sum(axis=1) > 0).sum()))
    top = ceiling(program.target)
    peaks = top.flops(), top.bandwidth(threads=used)
    made = [*_kernel_rows(twin, counted), *_host_rows(twin, called, threads)]
    clock = min((row.start for row in made), default=start)
    made = [_shifted(row, clock) for row in made]
    return Profile(tuple(sorted(made, key=lambda r: r.start)), total, used, *peaks)


def _timed(
    call: Callable[[Program], None], number: int, spans: dict[int, tuple[float, float]]
) -> Callable[[Program], None]:
    def run(program: Program) -> None:
        start = time.monotonic()
        call(program)
        spans[number] = start, time.monotonic()

    return run


def _phases(program: Program) -> tuple[dict[int, int], dict[int, int]]:
    """The phase of each kernel and of each host call."""
    kernels, hosts = {}, {}
    for number, step in enumerate(program.tables.steps):
        if isinstance(step, HostCall):
            hosts[step.number] = number
        else:
            kernels |= {task.kernel: number for task in step.tasks}
    return kernels, hosts


def _kernel_rows(program: Program, counted: Array) -> list[Row]:
    phases, _ = _phases(program)
    rows = []
    for number, label in enumerate(program.tables.kernels):
        ran = counted[:, number, :]
        active = ran[:, 1] > 0
        if not active.any():
            continue
        first, last = int(ran[active, 2].min()), int(ran[active, 3].max())
        spans = tuple(
            (int(a) * 1e-9, int(b) * 1e-9) if on else None
            for (_, _, a, b), on in zip(ran, active, strict=True)
        )
        busy = tuple(float(x) * 1e-9 for x in ran[:, 0])
        rows.append(
            Row(
                number, label.name, label.family, phases.get(number, 0), first * 1e-9,
                (last - first) * 1e-9, busy, spans, int(ran[:, 1].sum()), label.flops, label.bytes,
            )
        )  # fmt: skip
    return rows


def _host_rows(program: Program, spans: dict[int, tuple[float, float]], threads: int) -> list[Row]:
    _, phases = _phases(program)
    names = [record["primitive"] for record in program.tables.notes.get("hosts", [])]
    rows = []
    for number, (start, stop) in spans.items():
        name = names[number] if number < len(names) else f"call {number}"
        busy = (stop - start, *[0.0] * (threads - 1))
        shown = ((start, stop), *[None] * (threads - 1))
        number = len(program.tables.kernels) + number
        phase = phases[number - len(program.tables.kernels)]
        rows.append(Row(number, name, "NumPy", phase, start, stop - start, busy, shown, 1, 0, 0))
    return rows


def _shifted(row: Row, clock: float) -> Row:
    spans = tuple(None if s is None else (s[0] - clock, s[1] - clock) for s in row.spans)
    fields = {**vars(row), "start": row.start - clock, "spans": spans}
    return Row(**fields)


# --- what is inspected ----------------------------------------------------------------------------


def inspect(version: Any, runs: int = RUNS) -> Inspection:
    """Look into one version of a compiled function.

    Arguments:
        version: a `state.Version` that has run natively.
        runs: how many runs the profile is the fastest of.
    """
    program = getattr(version.launch, "program", None)
    if program is None or program.code is None:
        raise InspectionError(
            "this function runs in NumPy, operation by operation: there is no native code to look "
            "into. cr.compile(backend='native') asks for it."
        )
    return Inspection(version.graph, program, inputs_of(version), runs)


def inputs_of(version: Any) -> list[Array]:
    """States and numbers as they are now, and made-up arguments."""
    arrays: dict[int, Array] = dict(version.launch.numbers)
    for i, books in zip(version._places, version._bindings, strict=True):
        if i >= 0 and books.array is not None:
            arrays[i] = books.array
    rng = np.random.default_rng(0)
    return [
        arrays[i] if i in arrays else made_up(value.shape, value.dtype, rng)
        for i, value in enumerate(version.graph.inputs)
    ]


def made_up(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Array:
    """Numbers that most functions take: between 0.25 and 0.75, or whole and 0."""
    if np.dtype(dtype).kind in "fc":
        return rng.uniform(0.25, 0.75, shape).astype(dtype)
    return np.zeros(shape, dtype)
