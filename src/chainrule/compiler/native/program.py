"""A program: the object code of a step, the tables that say how to run it, and running it.

A program is a list of steps. Most are *phases*: kernels that may run at the same time, cut into
chunks that any thread takes; a phase begins when the one before it is done. Between phases a *host
call* may run NumPy on the program's buffers. What the kernels see is one table of pointers:

    slot 0      the arena: all temporary values, at offsets planned ahead
    slot 1      the constants
    slot 2...   inputs and outputs, bound to arrays by the caller

Everything but the object code and the host calls is numbers and strings (`Tables`), so that a
program can be kept on disk as JSON beside its code and never needs to be unpickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler.native import runtime
from chainrule.compiler.native.jit import Library
from chainrule.compiler.native.kernel import ARENA, CONSTANTS, Buffer
from chainrule.compiler.native.runtime_job import Job, Piece, rows_for
from chainrule.compiler.native.runtime_memory import (
    Arena,
    address_of,
    arena,
    empty,
    mark_of,
    memory,
    put_back,
    take,
)
from chainrule.compiler.native.runtime_tables import (
    HostCall,
    Label,
    Phase,
    Place,
    Tables,
    Task,
)
from chainrule.compiler.native.runtime_turn import ProgramError, Turn, uninterrupted
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.native.text import Module
from chainrule.graph import Array

__all__ = [
    "KERNELS",
    "HostCall",
    "Label",
    "Phase",
    "Place",
    "Program",
    "ProgramError",
    "Tables",
    "Task",
    "address_of",
    "empty",
    "export_kernels",
    "memory",
]

KERNELS = "chainrule_kernels"
"""The one symbol that a program's object code exports: the addresses of its kernels, in order."""

SHORT = 1e6
"""Nanoseconds: what takes less keeps Python's lock, or another thread could take it for 5 ms."""
TRIALS = 8
"""How many runs tell whether a segment is short."""
LONG = 2e8
"""Nanoseconds: what takes longer can be broken off between two phases."""
SLICE = 50_000_000
"""Nanoseconds after which a long run looks for signals."""


class Direct(NamedTuple):
    """Addresses: a program's only job, the pool, the runtime's `enter`, the status (0: none) and
    the mark of the arena, which is 0 while nobody has it."""

    job: int
    pool: int
    enter: int
    status: int
    mark: int


class Segment:
    """Phases between two host calls, as a job.

    Attributes:
        commits: whether it writes state.
        short: whether it keeps Python's lock: by its estimated cost, then by its first runs.
        settled: whether it is short for certain.
    """

    def __init__(self, job: Job, commits: bool):
        self.job, self.commits = job, commits
        self.short, self.settled = job.cost < SHORT, False
        self._least, self._trials = float("inf"), TRIALS

    def took(self, seconds: float) -> None:
        """Learn from a run."""
        if self._trials:
            self._trials -= 1
            self._least = min(self._least, seconds)
            if not self._trials:
                self.short = self.settled = self._least * 1e9 < SHORT


def _host_commits(steps: Sequence[Phase | HostCall]) -> bool:
    """Whether Python runs when state is already half written."""
    seen = False
    for step in steps:
        seen = seen or step.commits
        if seen and isinstance(step, HostCall):
            return True
    return False


def export_kernels(module: Module, names: Sequence[str]) -> None:
    """Add the table of kernels to a module: what makes its object code a program's."""
    body = ", ".join(f"ptr @{name}" for name in names)
    module.globals[KERNELS] = f"@{KERNELS} = constant [{len(names)} x ptr] [{body}], align 64"


class Program:
    """Object code and tables, ready to run.

        program = Program(code, tables, constants)
        program.run([x, w], [None, w])            # a fresh output, and w replaced in place

    or, faster, with arrays bound once and only those rebound that changed:

        program.bind(slot, array)
        program.call()

    Arguments:
        code: the object code of a module that `export_kernels` was called on; None if there is no
            kernel at all.
        tables: how to run it.
        constants: what slot 1 points to.
        hosts: the functions that host calls call, with the program as their only argument; its
            `view(buffer)` gives them their arrays.
        failed: makes the exception for the check of a number, given the program and the number; see
            `Tables.status`.

    One program runs once at a time: a second thread waits for the first to be done.

    Attributes:
        plan: what it was made from, if it was made in this process.
        arena: where temporary values lay in the last run; other programs use it too.
        private: whether no other program may use it.
        late: what a signal raised while state was written. `call` then comes to its end all the
            same, and its caller raises this when all is as after a whole run (`raise_late`).
    """

    plan: Any = None
    private = False
    late: BaseException | None = None

    def __init__(
        self,
        code: bytes | None,
        tables: Tables,
        constants: bytes | Array = b"",
        hosts: Sequence[Callable[[Program], None]] = (),
        failed: Callable[[Program, int], Exception] | None = None,
        target: Target | None = None,
    ):
        self.tables = tables
        self.code = code
        self.hosts = self._hosts = tuple(hosts)
        self._failed = failed
        self._turn = Turn()
        count = len(tables.kernels)
        self.target = target or (host() if code is not None else None)
        self._library: Library | None = None
        if code is not None:
            assert self.target is not None
            self._library = Library(code, [KERNELS], self.target)
        self._kernels: list[int] = []
        if self._library is not None:
            exported = (ctypes.c_uint64 * count).from_address(self._library.addresses[KERNELS])
            self._kernels = list(exported)
        self._table = (ctypes.c_void_p * tables.slots)()
        self._bound: list[Any] = [None] * tables.slots
        self.constants = memory(len(constants))
        self.constants_given = self.constants[: len(constants)]
        self.constants_given[:] = np.frombuffer(constants, np.uint8)
        self.bind(CONSTANTS, self.constants)
        self.arena: Array | None = None
        self._status: Array | None = None
        self._parts = self._segments()
        self._host_commits = _host_commits(tables.steps)
        self._pool: runtime.Pool | None = None
        self._unfinished: Segment | None = None
        runtime.programs.add(self)

    def _segments(self) -> list[Segment | int]:
        """Consecutive phases as one job each; between them the numbers of host calls."""
        parts: list[Segment | int] = []
        phases: list[list[Piece]] = []
        commits = False
        long = sum(
            self._cost(t) for s in self.tables.steps if isinstance(s, Phase) for t in s.tasks
        )

        def cut() -> None:
            if phases:
                parts.append(Segment(Job(phases, len(self.tables.kernels)), commits))
            phases.clear()

        for step in self.tables.steps:
            if isinstance(step, HostCall):
                cut()
                parts.append(step.number)
            else:
                # What takes long should be free to be broken off until it begins to write state.
                if step.commits and not commits and long > LONG:
                    cut()
                phases.append([self._piece(task) for task in step.tasks])
            commits = commits or step.commits
        cut()
        return parts

    def _piece(self, task: Task) -> Piece:
        address = self._kernels[task.kernel]
        return Piece(address, task.units, self._cost(task), task.chunk, task.kernel)

    def _cost(self, task: Task) -> float:
        """Nanoseconds on one thread; where the tables do not say, 50 GFLOP/s and 10 GB/s."""
        label = self.tables.kernels[task.kernel]
        return task.cost or 200 + max(label.flops / 50, label.bytes / 10)

    # --- binding ----------------------------------------------------------------------------------

    def bind(self, slot: int, array: Array) -> None:
        """Let a slot point to an array, which is kept alive until another one takes its place.

        The array must be row-major and of the shape and dtype that the tables state: what calls
        this has looked at both. (Arrays of 0 elements point somewhere harmless.)
        """
        self._table[slot] = address_of(array)
        self._bound[slot] = array

    def bound(self, slot: int) -> Array:
        """The array that a slot points to."""
        return self._bound[slot]

    def view(self, buffer: Buffer) -> Array:
        """A buffer of the program as an array; for host calls."""
        memory, dtype = self._bound[buffer.slot], np.dtype(buffer.dtype)  # type: ignore[arg-type]
        strides = tuple(n * dtype.itemsize for n in buffer.strides)
        if memory is not None:
            flat = memory.reshape(-1).view(np.uint8)
        elif address := self._table[buffer.slot]:  # whoever keeps the arrays set pointers only
            steps = zip(buffer.shape, strides, strict=True)
            last = sum(max(n - 1, 0) * max(s, 0) for n, s in steps)
            kind = ctypes.c_uint8 * (buffer.offset + last + dtype.itemsize)
            flat = np.ctypeslib.as_array(kind.from_address(address))
        else:
            raise ProgramError(f"slot {buffer.slot} of the program has not been bound to an array.")
        return np.ndarray(buffer.shape, dtype, flat.data, buffer.offset, strides)

    # --- running ----------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array | None] = ()) -> list[Array]:
        """Run the program on arrays.

        Arguments:
            inputs: one array for each of `tables.inputs`.
            outputs: an array to write each output into, or None for a fresh one; where an output
                replaces an input, the input's own array is written.

        Returns:
            The outputs' arrays.

        Raises:
            ProgramError: if a shape or dtype is not the one that the program was made for.
        """
        tables = self.tables
        given = list(outputs) + [None] * (len(tables.outputs) - len(outputs))
        self._check(inputs, given)
        taken: dict[int, Array] = {}
        for place, array in zip(tables.inputs, inputs, strict=True):
            taken[place.slot] = np.ascontiguousarray(array).reshape(place.shape)
        results = []
        for place, array in zip(tables.outputs, given, strict=True):
            if array is None:
                array = taken.get(place.slot)
            if array is None:
                array = empty(place.shape, place.dtype)
            taken[place.slot] = array
            results.append(array)
        with self._turn.lock():
            for slot, array in taken.items():
                self.bind(slot, array)
            self._call()
            self.raise_late()
        return results

    def _check(self, inputs: Sequence[Array], outputs: Sequence[Array | None]) -> None:
        tables = self.tables
        if len(inputs) != len(tables.inputs) or len(outputs) != len(tables.outputs):
            raise ProgramError(
                f"the program takes {len(tables.inputs)} inputs and {len(tables.outputs)} outputs; "
                f"got {len(inputs)} and {len(outputs)}."
            )
        for kind, places, arrays in (
            ("input", tables.inputs, inputs),
            ("output", tables.outputs, outputs),
        ):
            for i, (place, array) in enumerate(zip(places, arrays, strict=True)):
                if array is None:
                    continue
                if array.shape != place.shape or array.dtype != place.dtype:
                    raise ProgramError(
                        f"{kind} {i} of the program is {place.dtype}{list(place.shape)}; "
                        f"got {array.dtype.name}{list(array.shape)}."
                    )
                if kind == "output" and not (array.flags.c_contiguous and array.flags.writeable):
                    raise ProgramError(f"output {i} must be a writable array in row-major order.")

    def call(self) -> None:
        """Run the program on what is bound."""
        with self._turn.lock():
            self._call()

    def _call(self) -> None:
        self._turn.owner = threading.get_ident()
        if self._unfinished is not None:
            self._finish()
        reference = None if self.private else self._take_arena()
        if self._kernels and (self._pool is None or self._pool is not runtime.current()):
            self._prepare()  # NumPy alone needs no threads
        try:
            if self._status is not None:
                self._status[0] = 0
            if self._host_commits:
                with uninterrupted():
                    self._run_parts()
            else:
                self._run_parts()
        finally:
            if reference is not None and self._unfinished is None:
                put_back(reference)
            self._turn.owner = None

    def direct(self) -> Direct | None:
        """How native code may run the program on what is bound; None if Python has to."""
        if self.private or len(self._parts) != 1 or self._pool is None or self.arena is None:
            return None
        (part,) = self._parts
        if not isinstance(part, Segment) or not part.settled or self._unfinished is not None:
            return None
        if self._pool is not runtime.current():
            return None
        native = self._pool.native
        status = 0 if self._status is None else address_of(self._status)
        free = mark_of(self.arena)
        return Direct(part.job.address, self._pool_address, native.address, status, free)

    def fail(self) -> None:
        """Raise what the check is about that has failed."""
        if self._status is not None and self._status[0]:
            raise self._failure(int(self._status[0]))

    def _take_arena(self) -> Arena:
        """Temporary values lie where they lay in the last run, if that is free."""
        reference = take()
        if reference is None or self.arena is None or reference() is not self.arena:
            reference = weakref.ref(self._settle_in(arena(self.tables.arena, reference)))
        return reference

    def _settle_in(self, memory: Array) -> Array:
        """Let temporary values lie in this memory."""
        self.arena = memory
        self.bind(ARENA, memory)
        if self.tables.status is not None:
            self._status = memory[self.tables.status :][:8].view(np.int64)
            for part in self._parts:
                if isinstance(part, Segment):
                    part.job.watch(address_of(self._status))
        return memory

    def _run_parts(self) -> None:
        for part in self._parts:
            if not isinstance(part, Segment):
                self._hosts[part](self)
            elif part.short:
                self._run_short(part)
            else:
                self._run_long(part)
            self.fail()

    def _run_short(self, segment: Segment) -> None:
        """Run a segment at one go."""
        start = 0.0 if segment.settled else time.perf_counter()
        try:
            self._enter_keeping_lock(self._pool_address, segment.job.address, 0)
        except BaseException as error:  # a signal's, when the segment had run
            self._put_off(error, segment)
        if not segment.settled:
            segment.took(time.perf_counter() - start)

    def _put_off(self, error: BaseException, segment: Segment) -> None:
        """Raise the error of a signal: at once, or at the end if state has been written."""
        if not segment.commits:
            raise error
        self.late = error

    def raise_late(self) -> None:
        """Raise what came while state was written, after which the run went on to its end."""
        error, self.late = self.late, None
        if error is not None:
            raise error

    def _run_long(self, segment: Segment) -> None:
        """Run a segment without Python's lock, in slices, and look for signals in between."""
        start = time.perf_counter()
        self._unfinished = segment
        try:
            while self._enter(self._pool_address, segment.job.address, SLICE):
                pass
        except BaseException as error:
            self._finish()
            self._put_off(error, segment)
            self._prepare()
        self._unfinished = None
        segment.took(time.perf_counter() - start)

    def _finish(self) -> None:
        """Bring a segment to its end that was interrupted; if it writes no state, at once."""
        segment = self._unfinished
        if segment is None:
            return
        if segment.job.running:
            if not segment.commits:
                segment.job.stop()
            self._enter(self._pool_address, segment.job.address, 0)
        self._unfinished = self._pool = None  # the next run makes everything ready again

    def _prepare(self) -> None:
        """Make the jobs ready for the pool that there is now."""
        pool = self._pool = runtime.pool()
        self._enter, self._enter_keeping_lock = pool.native.enter, pool.native.enter_keeping_lock
        self._pool_address = pool.address
        stride = -(-max(self.tables.scratch, 1) // 128) * 128  # no two threads' share a line
        self._scratch = memory(stride * pool.threads)
        status = 0 if self._status is None else self._status.ctypes.data
        table, scratch = ctypes.addressof(self._table), self._scratch.ctypes.data
        for part in self._parts:
            if isinstance(part, Segment):
                part.job.prepare(table, scratch, stride, status, pool.threads)

    @contextlib.contextmanager
    def profiled(self) -> Iterator[Array]:
        """Let the threads add up what each kernel takes, while the block runs.

        Yields a table [thread, kernel, (nanoseconds, chunks, first start, last end)].
        """
        with self._turn.lock():
            if self._kernels:
                self._finish()
                self._prepare()
            threads = self._pool.threads if self._pool is not None else 1
            rows = rows_for(threads, len(self.tables.kernels))
        jobs = [part.job for part in self._parts if isinstance(part, Segment)]
        try:
            for job in jobs:
                job.profile(rows)
            yield rows
        finally:
            for job in jobs:
                job.profile(None)

    def after_fork(self) -> None:
        """In the child of a fork: whoever had the lock, and the threads, are not here."""
        self._turn = Turn()
        self._pool = self._unfinished = None

    def __del__(self) -> None:
        # Interrupted twice within microseconds, it may still be running.
        if getattr(self, "_unfinished", None) is not None:
            self._finish()

    def _failure(self, number: int) -> Exception:
        if self._failed is None:
            return ProgramError(f"check {number} of the program failed.")
        return self._failed(self, number)
