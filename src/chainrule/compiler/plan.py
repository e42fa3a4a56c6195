"""From a schedule to the tables of a program: steps, and where each value lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.compiler import memory
from chainrule.compiler.ir import Value
from chainrule.compiler.native.checks import CheckKernel
from chainrule.compiler.native.kernel import (
    ARENA,
    CONSTANTS,
    FIRST,
    Buffer,
    Kernel,
    strides_of,
)
from chainrule.compiler.native.program import HostCall, Label, Phase, Place, Tables, Task
from chainrule.compiler.schedule import Schedule, may_fail
from chainrule.graph import Shape

STATUS = 8
"""Bytes at the beginning of the arena: the number of the check that failed."""

Strides = Mapping[Value, tuple[int, ...]]


@dataclass
class Plan:
    """All that is decided before code is written.

    Attributes:
        schedule: the kernels.
        steps: the positions of the kernels that run side by side, in order; a host kernel is alone.
        buffers: where each value that has memory lies.
        arena: the plan of the arena.
        constants: the bytes of the constants.
        places: where inputs and outputs are bound.
        natives: the positions of the kernels that have native code, as the tables number them.
        hosts: those that are host calls.
        checks: the kernels that set the status, in the order of their numbers.
    """

    schedule: Schedule
    steps: list[list[int]]
    buffers: dict[Value, Buffer]
    arena: memory.Arena
    constants: bytes
    places: tuple[list[Place], list[Place]]
    natives: list[int]
    hosts: list[int]
    checks: list[CheckKernel]

    def buffers_of(self, kernel: Kernel) -> dict[Value, Buffer]:
        """The buffers that a kernel may use: others may hold nothing yet, or something else."""
        return {
            value: self.buffers[value] for value in (*kernel.reads, *kernel.writes, *kernel.looks)
        }

    def __str__(self) -> str:
        lines = []
        for number, step in enumerate(self.steps):
            lines.append(f"step {number}:")
            lines += [f"  {self.schedule.kernels[i]}" for i in step]
        return "\n".join([*lines, str(self.arena)])


def plan(schedule: Schedule, strides: Strides | None = None, redzone: int = 0) -> Plan:
    """Divide the kernels into steps and give every value its place.

    Arguments:
        strides: strides, in elements, of values in the arena that do not lie row-major.
        redzone: bytes of red zone around each value in the arena.
    """
    strides = strides or {}
    steps = divide(schedule)
    arena = _plan_arena(schedule, steps, strides, redzone)
    buffers, places, constants = _outside(schedule)
    for value, offset in arena.offsets.items():
        shape = value.shape
        buffers[value] = Buffer(
            ARENA, offset, shape, strides.get(value, strides_of(shape)), value.dtype
        )
    natives = [i for i, k in enumerate(schedule.kernels) if k.family != "host"]
    hosts = [i for i, k in enumerate(schedule.kernels) if k.family == "host"]
    checks = [k for k in schedule.kernels if isinstance(k, CheckKernel)]
    for position, check in enumerate(checks):
        check.number, check.status = position + 1, (ARENA, 0)
    return Plan(schedule, steps, buffers, arena, constants, places, natives, hosts, checks)


# --- steps ----------------------------------------------------------------------------------------


def divide(schedule: Schedule) -> list[list[int]]:
    """Kernels that may run side by side; a host kernel is alone."""
    level = _late(schedule, _soon(schedule))
    levels: list[list[int]] = [[] for _ in range(1 + max(level, default=-1))]
    for i, n in enumerate(level):
        levels[n].append(i)
    steps = []
    for kernels in levels:
        native = [i for i in kernels if schedule.kernels[i].family != "host"]
        steps += [[i] for i in kernels if schedule.kernels[i].family == "host"]
        if native:
            steps.append(native)
    return steps


def _soon(schedule: Schedule) -> list[int]:
    """For each kernel the first step in which all that it waits for is done."""
    level: dict[int, int] = {}
    for start in range(len(schedule.kernels)):
        stack = [start]
        while stack:
            i = stack[-1]
            waiting = [j for j in schedule.before[i] if j not in level]
            if waiting:
                stack.extend(waiting)
            else:
                stack.pop()
                level[i] = 1 + max((level[j] for j in schedule.before[i]), default=-1)
    return [level[i] for i in range(len(schedule.kernels))]


def _late(schedule: Schedule, level: list[int]) -> list[int]:
    """The same, but what writes more than it lets go waits until shortly before it is needed.

    (Random bits depend on nothing, and would lie around from the beginning.)
    """
    after: list[set[int]] = [set() for _ in level]
    for i, first in enumerate(schedule.before):
        for j in first:
            after[j].add(i)
    made = {value for kernel in schedule.kernels for value in kernel.writes}
    for i in sorted(range(len(level)), key=lambda i: -level[i]):
        kernel = schedule.kernels[i]
        if not after[i] or may_fail(kernel):
            continue
        reads = sum(v.nbytes for v in dict.fromkeys(kernel.reads) if v in made)
        if sum(v.nbytes for v in kernel.writes) > reads:
            level[i] = min(level[j] for j in after[i]) - 1
    return level


# --- memory ---------------------------------------------------------------------------------------


def extent(shape: Shape, strides: Sequence[int]) -> int:
    """How many elements lie from the first to the last."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def _plan_arena(
    schedule: Schedule, steps: list[list[int]], strides: Strides, redzone: int
) -> memory.Arena:
    outside = {*schedule.graph.inputs, *schedule.graph.constants, *schedule.graph.outputs}
    lives: dict[Value, memory.Life] = {}
    readers: dict[Value, set[int]] = {}
    for number, step in enumerate(steps):
        for i in step:
            for value in schedule.kernels[i].writes:
                if value not in outside:
                    size = extent(value.shape, strides.get(value, strides_of(value.shape)))
                    nbytes = size * value.dtype.itemsize
                    lives[value] = memory.Life([value], nbytes, number, number)
    for number, step in enumerate(steps):
        for i in step:
            for value in schedule.kernels[i].reads:
                if value in lives:
                    lives[value].last = max(lives[value].last, number)
                    readers.setdefault(value, set()).add(i)
    over = []
    for number, step in enumerate(steps):
        for i in step:
            kernel = schedule.kernels[i]
            # Only this kernel may read the old value in the step that writes the new one.
            dying = [
                v for v in dict.fromkeys(kernel.reads)
                if v in lives and lives[v].last == number and len(readers[v] & set(step)) == 1
            ]  # fmt: skip
            over += [
                (old, new)
                for new in kernel.writes
                if new in lives
                for old in dying
                if _alike(old, new, strides) and kernel.may_overwrite(old, new)
            ]
    start = memory.rounded(STATUS)
    return memory.place(memory.share(lives.values(), over), start, redzone)


def _alike(x: Value, y: Value, strides: Strides) -> bool:
    """Whether equal positions of two values are equal addresses, if they begin at the same one."""
    return (
        x.dtype.itemsize == y.dtype.itemsize
        and x.shape == y.shape
        and strides.get(x) == strides.get(y)
    )


def _outside(
    schedule: Schedule,
) -> tuple[dict[Value, Buffer], tuple[list[Place], list[Place]], bytes]:
    """The buffers of inputs, outputs and constants."""
    graph = schedule.graph
    buffers: dict[Value, Buffer] = {}
    inputs = [Place(FIRST + i, x.shape, x.dtype.name) for i, x in enumerate(graph.inputs)]
    outputs = []
    slot = FIRST + len(inputs)
    for position, value in enumerate(graph.outputs):
        if position in graph.updates:
            outputs.append(inputs[graph.updates[position]])
        else:
            outputs.append(Place(slot, value.shape, value.dtype.name))
            slot += 1
    sides = zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True)
    for value, place in sides:
        buffers[value] = Buffer(place.slot, 0, value.shape, strides_of(value.shape), value.dtype)
    blob = bytearray()
    used = {value for kernel in schedule.kernels for value in kernel.reads}
    for value, array in graph.constants.items():
        if value in used:
            buffers[value], data = _constant(value, array, len(blob))
            blob += data
    return buffers, (inputs, outputs), bytes(blob)


def _constant(value: Value, array: np.ndarray[Any, Any], start: int) -> tuple[Buffer, bytes]:
    """A constant at the end of the others; one number is stored once."""
    if array.size and not any(array.strides):
        strides, data = (0,) * array.ndim, array[(0,) * array.ndim].tobytes()
    else:
        strides, data = strides_of(array.shape), array.tobytes()
    padding = b"\0" * (memory.rounded(start) - start)
    offset = start + len(padding)
    return Buffer(CONSTANTS, offset, value.shape, strides, value.dtype), padding + data


# --- tables ---------------------------------------------------------------------------------------


def tables(plan: Plan) -> Tables:
    """The program's tables. To be called after kernels are emitted: that settles their units."""
    natives, hosts = plan.natives, plan.hosts
    number = {i: n for n, i in enumerate(natives)} | {i: n for n, i in enumerate(hosts)}
    kernels = plan.schedule.kernels
    listed: list[Phase | HostCall] = []
    for step in plan.steps:
        commits = any(i in plan.schedule.commits for i in step)
        if kernels[step[0]].family == "host":
            listed.append(HostCall(number[step[0]], commits))
        else:
            tasks = tuple(
                Task(number[i], kernels[i].units, cost(kernels[i]))
                for i in step
                if kernels[i].units
            )
            listed.append(Phase(tasks, commits))
    labels = [label(kernels[i]) for i in natives]
    scratch = max((kernels[i].scratch for i in natives), default=0)
    status = 0 if plan.checks else None
    return Tables(listed, *plan.places, plan.arena.nbytes, scratch, labels, status)


GENERAL: dict[str, float] = {"exp": 8, "log": 10, "tanh": 14, "sigmoid": 12, "erf": 20, "pow": 40}
"""What some elementwise functions cost beside an addition."""


def cost(kernel: Kernel) -> float:
    """About how long one thread takes, in nanoseconds: a tenth is good enough to deal out work."""
    flops = kernel.flops
    if kernel.family == "loops":
        heavy: Callable[[Any], float] = lambda op: GENERAL.get(op.name, 1)  # noqa: E731
        flops = sum(heavy(op) * sum(z.size for z in op.outputs) for op in kernel.ops) / 4
    return 50 + max(flops / 100, kernel.bytes / 20)


def label(kernel: Kernel) -> Label:
    """What the profile calls a kernel."""
    names = [op.name for op in kernel.ops if op.primitive.flops_rule != 0] or [
        op.name for op in kernel.ops
    ]
    where = next((op.where for op in reversed(kernel.ops) if op.where), "")
    name = " ".join(names if len(names) <= 6 else [*names[:5], f"(+{len(names) - 5})"])
    return Label(f"{name} {where}".strip(), kernel.family, kernel.flops, kernel.bytes)
