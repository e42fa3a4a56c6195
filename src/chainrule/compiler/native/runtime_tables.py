"""How a program is to be run, in numbers and strings that JSON can hold."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from chainrule.compiler.native.kernel import CONSTANTS


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
            ends after that phase, and `run` raises what `failed(program, number)` gives.
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
