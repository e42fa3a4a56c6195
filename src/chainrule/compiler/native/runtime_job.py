"""Phases as the native runtime reads them: a job, and how it is cut into chunks for threads.

How a job is cut depends on what it costs and on nothing that was measured while it ran. (Its
results do not depend on it at all: see `kernel.Kernel`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler.native.runtime_records import (
    CHUNK,
    CHUNK_BYTES,
    JOB,
    MOST_CHUNKS,
    PHASE,
    PHASE_BYTES,
    ROW_BYTES,
    TASK,
    TASK_BYTES,
)

# All in nanoseconds on one thread.
ALONE = 30_000
"""A job that costs less runs on one thread."""
SHARE = 15_000
"""A job gets another thread for each so much that it costs."""
WAKE = 120_000
"""A job that costs less does not wake threads that have parked: it would be over too soon."""
SERIAL = 2_500
"""A phase that costs less runs on one thread while the others wait for the next one."""
GRAIN = 2_000
"""What a chunk should cost at least, when the kernel does not say how it is to be cut."""
CHUNKS = 128
"""How many chunks of a kernel are enough, for the same case."""


class Piece(NamedTuple):
    """A kernel in a phase: its address, its units, what they cost, the units of a chunk (0: choose)
    and its number among the program's kernels."""

    address: int
    units: int
    cost: float
    chunk: int
    number: int


def chunk_size(units: int, cost: float, chunk: int = 0) -> int:
    """How many units a thread takes at a time."""
    if chunk <= 0:
        wanted = max(1, min(CHUNKS, int(cost // GRAIN)))
        chunk = -(-units // wanted)
    return max(1, chunk)


@dataclass(frozen=True)
class Share:
    """The chunks of one kernel in a phase.

    Attributes:
        task: the address of its record.
        count: how many chunks there are.
        size: the units of each, but for the last.
        cost: of one chunk, in nanoseconds.
    """

    task: int
    count: int
    size: int
    cost: float


def deal(shares: Sequence[Share], threads: int) -> list[list[tuple[int, int]]]:
    """Which chunks of each kernel go to which thread: for each share a range for each thread.

    The dearest chunks must come first. Every thread gets a part of each kernel if there is enough
    of it, so that all begin with what takes long, and help each other with what is short; and what
    they are dealt costs about the same.
    """
    loads = [0.0] * threads
    result = []
    for share in shares:
        level = (sum(loads) + share.count * share.cost) / threads
        wanted = [max(0.0, level - load) for load in loads]
        scale = share.count / sum(wanted) if sum(wanted) else 0.0
        ends = [round(scale * sum(wanted[: i + 1])) for i in range(threads)]
        ends[-1] = share.count
        parts = list(zip([0, *ends[:-1]], ends, strict=True))
        loads = [x + (hi - lo) * share.cost for x, (lo, hi) in zip(loads, parts, strict=True)]
        result.append(parts)
    return result


class Job:
    """Some phases that run one after another, in the memory that the native runtime reads.

    Arguments:
        phases: the kernels of each phase.
        kernels: how many kernels the whole program has.
    """

    def __init__(self, phases: Sequence[Sequence[Piece]], kernels: int):
        self.phases = [[piece for piece in phase if piece.units > 0] for phase in phases]
        self.phases = [phase for phase in self.phases if phase]
        self.kernels = kernels
        self.cost = sum(piece.cost for phase in self.phases for piece in phase)
        count = sum(len(phase) for phase in self.phases)
        words = 8 * len(JOB) + PHASE_BYTES * len(self.phases) + TASK_BYTES * count
        self._words = np.zeros(words // 8 + 1, np.int64)  # the last is a status that is never set
        self.address = self._words.ctypes.data
        self._put(0, JOB["status"], self.address + self._words.nbytes - 8)
        self._put(0, JOB["count"], len(self.phases))
        self._put(0, JOB["tasks"], kernels)
        self._dealt = 0  # for how many threads chunks have been dealt
        self._lay_out()

    def _put(self, base: int, offset: int, value: int) -> None:
        self._words[(base + offset) // 8] = value

    def _lay_out(self) -> None:
        phase_at = 8 * len(JOB)
        task_at = phase_at + PHASE_BYTES * len(self.phases)
        self._put(0, JOB["phases"], self.address + phase_at)
        self._shares: list[list[Share]] = []
        for phase in self.phases:
            sizes = [chunk_size(p.units, p.cost, p.chunk) for p in phase]
            while sum(-(-p.units // n) for p, n in zip(phase, sizes, strict=True)) > MOST_CHUNKS:
                sizes = [2 * n for n in sizes]
            self._put(phase_at, PHASE["tasks"], self.address + task_at)
            self._put(phase_at, PHASE["count"], len(phase))
            shares = []
            for piece, size in zip(phase, sizes, strict=True):
                fields = {"kernel": piece.address, "units": piece.units, "size": size}
                for name, value in (fields | {"number": piece.number}).items():
                    self._put(task_at, TASK[name], value)
                count = -(-piece.units // size)
                shares.append(
                    Share(self.address + task_at, count, size, max(piece.cost, 1.0) / count)
                )
                task_at += TASK_BYTES
            chunks = sum(share.count for share in shares)
            serial = chunks == 1 or sum(piece.cost for piece in phase) < SERIAL
            self._put(phase_at, PHASE["chunks"], chunks)
            self._put(phase_at, PHASE["serial"], int(serial))
            self._shares.append([] if serial else sorted(shares, key=lambda s: -s.cost))
            phase_at += PHASE_BYTES

    def _deal(self, threads: int) -> None:
        """Write for each phase which chunks are dealt to whom, and in which order."""
        if threads == self._dealt:
            return
        chunks = sum(share.count for shares in self._shares for share in shares)
        words = CHUNK_BYTES // 8
        table = np.zeros((chunks, words), np.int64)
        bounds = np.zeros((len(self.phases), threads + 1), np.int64)
        first = 0
        for number, shares in enumerate(self._shares):
            order: list[list[np.ndarray[Any, Any]]] = [[] for _ in range(threads)]
            for share, parts in zip(shares, deal(shares, threads), strict=True):
                for mine, (lo, hi) in zip(order, parts, strict=True):
                    records = np.empty((hi - lo, words), np.int64)
                    records[:, CHUNK["task"] // 8] = share.task
                    records[:, CHUNK["lo"] // 8] = np.arange(lo, hi) * share.size
                    mine.append(records)
            counts = [sum(map(len, mine)) for mine in order]
            bounds[number, 1:] = np.cumsum(counts)
            last = first + sum(counts)
            if last > first:
                np.concatenate([x for mine in order for x in mine], out=table[first:last])
            place = 8 * len(JOB) + number * PHASE_BYTES
            self._put(place, PHASE["bounds"], bounds[number].ctypes.data)
            self._put(place, PHASE["table"], table.ctypes.data + first * CHUNK_BYTES)
            first = last
        self._dealt, self._tables = threads, (table, bounds)

    def prepare(self, table: int, scratch: int, stride: int, status: int, threads: int) -> None:
        """Make it ready to run from the start, on at most so many threads.

        Arguments:
            table: address of the table of pointers.
            scratch, stride: address of the first thread's memory, bytes from one to the next.
            status: address of the int64 that ends the job when a kernel sets it; 0 for none.
        """
        self._put(0, JOB["table"], table)
        self._put(0, JOB["scratch"], scratch)
        self._put(0, JOB["stride"], stride)
        if status:
            self.watch(status)
        threads = self.wants(threads)
        self._put(0, JOB["threads"], threads)
        if threads > 1:
            self._deal(threads)
        self._put(0, JOB["wake"], -1 if self.cost >= WAKE else 0)
        for name in ("mode", "stop", "at_phase", "at_task", "at_unit"):
            self._put(0, JOB[name], 0)

    def watch(self, status: int) -> None:
        """End when the int64 at this address is not 0."""
        self._put(0, JOB["status"], status)

    def wants(self, threads: int) -> int:
        """How many of the threads to run on."""
        return 1 if self.cost < ALONE else max(1, min(threads, int(self.cost // SHARE)))

    def stop(self) -> None:
        """Ask the threads to leave out the chunks that have not begun."""
        self._put(0, JOB["stop"], 1)

    @property
    def running(self) -> bool:
        """Whether it has begun and is not done."""
        return bool(self._words[JOB["mode"] // 8])

    def profile(self, rows: np.ndarray[Any, Any] | None) -> None:
        """Let the threads add up times in `rows` (see `rows_for`), or no longer."""
        self._put(0, JOB["profile"], 0 if rows is None else rows.ctypes.data)


def rows_for(threads: int, kernels: int) -> np.ndarray[Any, Any]:
    """A table for the profile: [thread, kernel, (time, calls, first, last)], in nanoseconds."""
    return np.zeros((threads, kernels, ROW_BYTES // 8), np.int64)
