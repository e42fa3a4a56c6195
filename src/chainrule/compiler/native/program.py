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

import ctypes
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from chainrule.compiler.native.jit import Library
from chainrule.compiler.native.kernel import ARENA, CONSTANTS, Buffer
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.native.text import Module
from chainrule.errors import ChainruleError
from chainrule.graph import Array

KERNELS = "chainrule_kernels"
"""The one symbol that a program's object code exports: the addresses of its kernels, in order."""

ALIGNMENT = 64
LARGE = 4 << 20  # from here on memory is aligned so that large pages can serve it


class ProgramError(ChainruleError, RuntimeError):
    """A program that cannot be run as it was asked to."""


@dataclass(frozen=True)
class Task:
    """One kernel in a phase.

    Attributes:
        kernel: its position in the table of kernels.
        units: how many units of work it has.
        cost: what all of them take on one thread, in nanoseconds, as far as can be told.
        chunk: how many units a thread takes at a time; 0 lets the runtime choose by the cost.
    """

    kernel: int
    units: int
    cost: float = 0.0
    chunk: int = 0


@dataclass(frozen=True)
class Phase:
    """Kernels of which none reads what another one writes.

    Attributes:
        tasks: the kernels.
        commits: whether one of them writes state (an input that an output replaces). From the first
            such phase on a step is not broken off any more, so that state is never half new.
    """

    tasks: tuple[Task, ...]
    commits: bool = False


@dataclass(frozen=True)
class HostCall:
    """A call of Python on the program's buffers; `number` is its position in `hosts`."""

    number: int
    commits: bool = False


@dataclass(frozen=True)
class Place:
    """An input or output: its entry in the table of pointers, and what lies there (row-major)."""

    slot: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Label:
    """What a kernel is, for the profile."""

    name: str
    family: str = ""
    flops: int = 0
    bytes: int = 0


@dataclass
class Tables:
    """How to run a program: numbers and strings only.

    Attributes:
        steps: phases and host calls, in order.
        inputs, outputs: where they are bound. An output whose slot is an input's replaces it.
        arena, scratch: bytes of the arena, and of each thread's own memory.
        kernels: a label for each kernel, in the order of the table of kernels.
        status: None, or the offset in the arena of an int64 that is 0 when the program starts and
            that a kernel may set to the number of a check that failed (1, 2, ...): the program then
            ends after that phase, and `run` raises what `failed(number)` gives.
        notes: whatever else the compiler wants to find again beside a cached program.
    """

    steps: list[Phase | HostCall]
    inputs: list[Place]
    outputs: list[Place]
    arena: int = 0
    scratch: int = 0
    kernels: list[Label] = field(default_factory=list)
    status: int | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """Entries in the table of pointers."""
        return 1 + max([CONSTANTS, *(p.slot for p in (*self.inputs, *self.outputs))])

    def to_json(self) -> str:
        record = asdict(self)
        record["steps"] = [
            {"host": s.number, "commits": s.commits}
            if isinstance(s, HostCall)
            else {"tasks": [list(asdict(t).values()) for t in s.tasks], "commits": s.commits}
            for s in self.steps
        ]
        return json.dumps(record, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Tables:
        record = json.loads(text)
        places = {
            side: [Place(p["slot"], tuple(p["shape"]), p["dtype"]) for p in record[side]]
            for side in ("inputs", "outputs")
        }
        steps: list[Phase | HostCall] = [
            HostCall(s["host"], s["commits"])
            if "host" in s
            else Phase(tuple(Task(*t) for t in s["tasks"]), s["commits"])
            for s in record["steps"]
        ]
        kernels = [Label(**k) for k in record["kernels"]]
        return cls(**{**record, **places, "steps": steps, "kernels": kernels})


def export_kernels(module: Module, names: Sequence[str]) -> None:
    """Add the table of kernels to a module: what makes its object code a program's."""
    body = ", ".join(f"ptr @{name}" for name in names)
    module.globals[KERNELS] = f"@{KERNELS} = constant [{len(names)} x ptr] [{body}], align 64"


def memory(nbytes: int) -> Array:
    """Fresh bytes, aligned to 64, or to a large page where that pays; never empty."""
    align = 2 << 20 if nbytes >= LARGE else ALIGNMENT
    raw = np.empty(nbytes + align, np.uint8)
    start = -raw.ctypes.data % align
    return raw[start : start + max(nbytes, 1)]


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of aligned, uninitialised memory."""
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return memory(nbytes)[:nbytes].view(dtype).reshape(shape)


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
        failed: the exception for the check of a number; see `Tables.status`.

    One program runs once at a time: a second thread waits for the first to be done.
    """

    def __init__(
        self,
        code: bytes | None,
        tables: Tables,
        constants: bytes | Array = b"",
        hosts: Sequence[Callable[[Program], None]] = (),
        failed: Callable[[int], Exception] | None = None,
        target: Target | None = None,
    ):
        self.tables = tables
        self.code = code
        self._hosts = tuple(hosts)
        self._failed = failed
        self._lock = threading.Lock()
        count = len(tables.kernels)
        self._library = Library(code, [KERNELS], target or host()) if code is not None else None
        self._kernels: list[int] = []
        if self._library is not None:
            exported = (ctypes.c_uint64 * count).from_address(self._library.addresses[KERNELS])
            self._kernels = list(exported)
        self._table = (ctypes.c_void_p * tables.slots)()
        self._bound: list[Any] = [None] * tables.slots
        self.arena = memory(tables.arena)
        self.constants = memory(len(constants))
        self.constants[: len(constants)] = np.frombuffer(constants, np.uint8)
        self.bind(ARENA, self.arena)
        self.bind(CONSTANTS, self.constants)
        self._scratch = memory(tables.scratch)

    # --- binding ----------------------------------------------------------------------------------

    def bind(self, slot: int, array: Array) -> None:
        """Let a slot point to an array, which is kept alive until another one takes its place.

        The array must be row-major and of the shape and dtype that the tables state: what calls
        this has looked at both. (Arrays of 0 elements point somewhere harmless.)
        """
        self._table[slot] = array.ctypes.data
        self._bound[slot] = array

    def view(self, buffer: Buffer) -> Array:
        """A buffer of the program as an array; for host calls."""
        memory = self._bound[buffer.slot]
        if memory is None:
            raise ProgramError(f"slot {buffer.slot} of the program has not been bound to an array.")
        dtype = np.dtype(buffer.dtype)  # type: ignore[arg-type]
        strides = tuple(n * dtype.itemsize for n in buffer.strides)
        flat = memory.reshape(-1).view(np.uint8)
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
        with self._lock:
            for slot, array in taken.items():
                self.bind(slot, array)
            self._call()
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
        with self._lock:
            self._call()

    def _call(self) -> None:
        kind = ctypes.CFUNCTYPE(
            None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
        )
        status = self._status()
        for step in self.tables.steps:
            if isinstance(step, HostCall):
                self._hosts[step.number](self)
                continue
            for task in step.tasks:
                kind(self._kernels[task.kernel])(
                    ctypes.addressof(self._table), 0, task.units, self._scratch.ctypes.data
                )
            if status is not None and status[0]:
                raise self._failure(int(status[0]))

    def _status(self) -> Array | None:
        if self.tables.status is None:
            return None
        status = self.arena[self.tables.status :][:8].view(np.int64)
        status[0] = 0
        return status

    def _failure(self, number: int) -> Exception:
        if self._failed is None:
            return ProgramError(f"check {number} of the program failed.")
        return self._failed(number)
