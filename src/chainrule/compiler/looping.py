"""Native loops: a scan as one kernel, whose size does not depend on the number of steps.

The body becomes kernels like any graph. The loop's own function sets a table of pointers for each
step (where this step's slices lie, where the carry is, where the next one goes) and calls them one
after another:

    for t in 0 ... T-1:
        table[x] = xs + t;  table[h] = carry;  table[h'] = ys + t
        body0(table, ...);  body1(table, ...)
        carry = table[h']

What is temporary lies in the thread's own memory, and stays in its caches. If the rows of a batch
have nothing to do with each other (rowwise.py), the body is made for a few rows, and each unit of
work takes some rows through all steps; so threads meet at the end alone. A loop without a carry is
cut by its steps.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.compiler import memory, passes
from chainrule.compiler.ir import Graph, Op, Value
from chainrule.compiler.native import loops, views
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Buffers, Kernel, strides_of
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Function, Int, Module, Reg
from chainrule.compiler.rowwise import Cut, candidates, cut, resized
from chainrule.compiler.schedule import sort
from chainrule.graph import Spec
from chainrule.primitives.checks import check
from chainrule.primitives.control import scan
from chainrule.primitives.movement import identity_copy

FEWEST = 8
"""Rows of a unit, if there are as many: products of fewer wait for weights from memory."""


@dataclass
class Loop:
    """A scan, ready to become kernels.

    Attributes:
        op: the scan.
        body: its body, for the rows of one unit, each output made by an operation.
        axes: for each input and output of the body the axis along which its rows are cut.
        count: how many units the rows are cut into.
    """

    op: Op
    body: Graph
    axes: dict[Value, int | None]
    count: int

    def __post_init__(self) -> None:
        params: dict[str, Any] = self.op.params
        self.consts: int = params["consts"]
        self.carries: int = params["carries"]
        self.length: int = params["length"]
        self.reverse: bool = params["reverse"]
        n, m = self.consts, self.consts + self.carries
        self.fixed, self.carry, self.slices = (
            self.body.inputs[:n], self.body.inputs[n:m], self.body.inputs[m:],
        )  # fmt: skip
        self.after = self.body.outputs[: self.carries]
        self.ys = self.body.outputs[self.carries :]
        self.outer = dict(zip(self.body.inputs, self.op.inputs, strict=True))


def units_of(cut: Cut) -> int:
    """How many units of equal numbers of rows there are."""
    least = FEWEST if cut.in_products else 1
    n = cut.rows
    return next((n // r for r in range(least, n + 1) if n % r == 0), 1)


def prepare(op: Op) -> Loop:
    """Cut a scan into units, if that is possible, and let each of its outputs be made once."""
    params: dict[str, Any] = op.params
    body = passes.run(params["body"])
    consts, carries = params["consts"], params["carries"]
    axes: dict[Value, int | None] = {}
    cuts = [cut(body, consts, carries, axis) for axis in candidates(body, consts, carries)]
    best = max((c for c in cuts if c is not None), key=units_of, default=None)
    count = 1 if best is None else units_of(best)
    if best is not None and count > 1:
        smaller = resized(body, best, best.rows // count)
        ends = zip((*body.inputs, *body.outputs), (*smaller.inputs, *smaller.outputs), strict=True)
        axes = {new: best.axes.get(old) for old, new in ends}
        body = smaller
    return Loop(op, *owned(body, axes, carries), count)


def owned(
    body: Graph, axes: dict[Value, int | None], carries: int
) -> tuple[Graph, dict[Value, int | None]]:
    """Let each output be made by an operation, and be one carry and one stacked output at most."""
    axes = dict(axes)
    ops, outputs = list(body.ops), []
    made = {z for op in ops for z in op.outputs}
    for position, value in enumerate(body.outputs):
        rivals = outputs[:carries] if position < carries else outputs[carries:]
        if value not in made or value in rivals:
            copy = Op(identity_copy, (value,), {})
            ops.append(copy)
            axes[copy.output] = axes.get(value)
            value = copy.output
        outputs.append(value)
    return Graph(list(body.inputs), dict(body.constants), ops, outputs, {}, body.name), axes


class HoistedKernel(Kernel):
    """A kernel of the body that does the same at every step, done before the loop."""

    def __init__(self, kernel: Kernel, outer: dict[Value, Value], path: Collection[Op]):
        self.kernel, self.outer = kernel, outer
        self.family = kernel.family  # type: ignore[misc]
        self.ops, self.units, self.scratch = kernel.ops, kernel.units, kernel.scratch
        self.reads = [behind(outer.get(v, v), path) for v in kernel.reads]
        self.writes = kernel.writes
        self.looks = [behind(outer[v], path) for v in kernel.looks if v in outer]

    def likeness(self) -> tuple[Any, Sequence[Value]]:
        """Like no other: what it is can only be seen from inside the loop."""
        return id(self), [*self.reads, *self.writes]

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        values = [*self.kernel.reads, *self.kernel.writes, *self.kernel.looks]
        buffers = with_views(buffers, [self.outer.get(v, v) for v in values])
        known = {
            v: buffers.get(self.outer.get(v, v))
            or Buffer(0, 0, v.shape, strides_of(v.shape), v.dtype)
            for v in values
        }
        self.kernel.emit(module, name, known)
        self.units, self.scratch = self.kernel.units, self.kernel.scratch


def behind(value: Value, path: Collection[Op]) -> Value:
    """What lies in memory of an input that is seen through some movements."""
    while value.op in path:
        assert value.op is not None
        value = value.op.inputs[0]
    return value


def with_views(buffers: Buffers, values: Iterable[Value]) -> Buffers:
    """The buffers, and those of values that are views of what lies there."""
    found = dict(buffers)
    for x in values:
        view = None if x in buffers else views.resolve(x, buffers)
        if view is not None:
            base = buffers[view.base]
            offset = base.offset + view.offset * x.dtype.itemsize
            found[x] = Buffer(base.slot, offset, x.shape, view.strides, x.dtype)
    return found


def lower(op: Op, path: Collection[Op], graph: Graph, target: Target) -> list[Kernel]:
    """The kernels of a scan: what is the same at every step, then the loop.

    Arguments:
        path: the movements through which it reads its inputs.
    """
    from chainrule.compiler import fuse

    loop = prepare(op)
    body = loop.body
    unique = list(dict.fromkeys(body.outputs))
    inner = Graph(body.inputs, body.constants, body.ops, unique, {}, body.name)
    found = fuse.kernels(inner, target, siblings=True)
    kernels = sort([part for k in found for part in k.settled({})])
    same = {v for v in loop.fixed if loop.axes.get(v) is None}
    same.update(body.constants)
    before: list[Kernel] = []
    for kernel in list(kernels):
        hoistable = all(v in same for v in kernel.reads)
        if hoistable and not any(v in unique for v in kernel.writes):
            same.update(kernel.writes)
            kernels.remove(kernel)
            before.append(HoistedKernel(kernel, loop.outer, path))
    for value, array in body.constants.items():
        if any(value in k.reads or value in k.looks for k in (*kernels, *before)):
            graph.constants[value] = array
    return [*before, ScanKernel(loop, kernels, path)]


class ScanKernel(Kernel):
    """The loop."""

    family = "scan"

    def __init__(self, loop: Loop, kernels: list[Kernel], path: Collection[Op] = ()):
        self.loop, self.kernels = loop, kernels
        self.ops = [loop.op]
        self.by_step = not loop.carries
        self.units = loop.count * (loop.length if self.by_step else 1)
        made = {v for k in kernels for v in k.writes}
        # What the body's kernels know by name, and what of it comes from outside the body.
        seen = dict.fromkeys(v for k in kernels for v in (*k.reads, *k.looks))
        self.given = [v for v in seen if v not in made and v not in loop.body.inputs]
        self.temporary = [v for v in dict.fromkeys(v for k in kernels for v in k.writes)
                          if v not in loop.body.outputs]  # fmt: skip
        self.rooms: dict[Value, Value] = {}  # by carry: where it lies between steps
        for x, z in zip(loop.carry, loop.after, strict=True):
            start = loop.outer[x]
            # What is no stacked output goes to and fro between two; the first carry may need one.
            places = 2 if z not in loop.ys else 1
            self.rooms[x] = Value(Spec((places, *start.shape), start.dtype))
        inputs = [behind(x, path) for x in loop.op.inputs]
        self.reads = list(dict.fromkeys([*inputs, *self.given]))
        self.writes = [*loop.op.outputs, *self.rooms.values()]
        self._plan()

    def _plan(self) -> None:
        """Where temporaries lie in a thread's memory."""
        lives: dict[Value, memory.Life] = {}
        for number, kernel in enumerate(self.kernels):
            for v in kernel.writes:
                if v in self.temporary:
                    lives[v] = memory.Life([v], v.nbytes, number, number)
            for v in kernel.reads:
                if v in lives:
                    lives[v].last = number
        self.arena = memory.place(lives.values())
        loop = self.loop
        table = [*loop.body.inputs, *dict.fromkeys(loop.body.outputs), *self.given]
        self.slots = {v: i + 1 for i, v in enumerate(table)}
        # Behind the entries of values there are two for copies.
        self.table = memory.rounded(8 * (len(table) + 3))
        self._settle()

    def _settle(self) -> None:
        most = max((k.scratch for k in self.kernels), default=0)
        self.scratch = self.table + memory.rounded(self.arena.nbytes) + memory.rounded(most) + 64

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        _Writer(self, module, name, with_views(buffers, self.loop.op.inputs)).write()
        self._settle()


def _alike(v: Value, strides: Sequence[int], others: Sequence[int]) -> bool:
    """Whether a value lies the same under two strides; along one element they mean nothing."""
    return all(n == 1 or a == b for n, a, b in zip(v.shape, strides, others, strict=True))


class _Writer:
    """Writes a loop's function."""

    def __init__(self, kernel: ScanKernel, module: Module, name: str, buffers: Buffers):
        self.kernel, self.loop = kernel, kernel.loop
        self.module, self.name, self.buffers = module, name, buffers
        self.own: dict[Value, Buffer] = {}
        loop, op = self.loop, self.loop.op
        for v in (*loop.fixed, *kernel.given):
            self._own(v, buffers[loop.outer.get(v, v)].strides)
        for v in loop.slices:
            self._own(v, buffers[loop.outer[v]].strides[1:])
        for v, z in zip(loop.ys, op.outputs[loop.carries :], strict=True):
            self._own(v, buffers[z].strides[1:])
        for x, v in zip(loop.carry, loop.after, strict=True):
            if v not in loop.ys:
                self._own(v, buffers[kernel.rooms[x]].strides[1:])
            self._own(x, self.own[v].strides)
        for v, offset in kernel.arena.offsets.items():
            self.own[v] = Buffer(0, offset, v.shape, strides_of(v.shape), v.dtype)

    def _own(self, v: Value, strides: tuple[int, ...]) -> None:
        self.own[v] = Buffer(self.kernel.slots[v], 0, v.shape, strides, v.dtype)

    def write(self) -> None:
        kernel, loop = self.kernel, self.loop
        names = []
        for i, k in enumerate(kernel.kernels):
            names.append(f"{self.name}_{i}")
            # Not all buffers: others may hold nothing yet, or something else.
            known = dict.fromkeys((*k.reads, *k.writes, *k.looks))
            k.emit(self.module, names[-1], {v: self.own[v] for v in known})
        self.calls = [(n, k.units) for n, k in zip(names, kernel.kernels, strict=True) if k.units]
        self._write_copies()
        f = self.f = Function(self.module, self.name, PARAMETERS)
        self.entries = f.arg("scratch")
        temporary = f.at(self.entries, kernel.table, "i8")
        self.rest = f.at(temporary, memory.rounded(kernel.arena.nbytes), "i8")
        f.store(temporary, self.entries)
        self.base = {v: b.pointer(f) for v, b in self.buffers.items()}
        with f.loop(f.arg("lo"), f.arg("hi")) as unit:
            if kernel.by_step:
                self._fix(f.urem(unit.index, loop.count))
                self._step(f.udiv(unit.index, loop.count), [])
            else:
                self._fix(f.add(unit.index, 0))
                starts = [self._start(x) for x in loop.carry]
                with f.loop(0, loop.length, carry=starts) as time:
                    time.next = self._step(time.index, time.carried)
                self._finish(time.results)
        f.finish()

    # --- pointers ---------------------------------------------------------------------------------

    def _moved(self, pointer: Reg, v: Value, steps: Sequence[int]) -> Reg:
        """The first row of this unit; `steps` are the strides of the value's axes, in elements."""
        axis = self.loop.axes.get(v)
        if axis is None or self.loop.count == 1:
            return pointer
        distance = v.shape[axis] * steps[axis] * v.dtype.itemsize
        return self.f.at(pointer, self.f.mul(self.row, distance), "i8")

    def _point(self, v: Value, pointer: Reg) -> None:
        self.f.store(pointer, self.f.at(self.entries, self.kernel.slots[v], "ptr"))

    def _fix(self, row: Reg) -> None:
        """Set the entries that are the same at every step, for a range of rows."""
        self.row = row
        for v in (*self.loop.fixed, *self.kernel.given):
            at = self.base[self.loop.outer.get(v, v)]
            self._point(v, self._moved(at, v, self.own[v].strides))

    def _stacked(self, v: Value, outer: Value, t: Int) -> Reg:
        """This unit's part of step t of a stack."""
        step = self.buffers[outer].strides[0] * v.dtype.itemsize
        at = self.f.at(self.base[outer], self.f.mul(t, step), "i8")
        return self._moved(at, v, self.own[v].strides)

    def _room(self, x: Value, which: Int) -> Reg:
        """One of the places of a carry between steps."""
        room = self.kernel.rooms[x]
        step = self.buffers[room].strides[0] * x.dtype.itemsize
        at = self.f.at(self.base[room], self.f.mul(which, step), "i8")
        return self._moved(at, x, self.own[x].strides)

    # --- one unit ---------------------------------------------------------------------------------

    def _start(self, x: Value) -> Reg:
        """Where the first carry lies: where it came from, or a copy that lies as the others do."""
        outer = self.loop.outer[x]
        at = self._moved(self.base[outer], x, self.buffers[outer].strides)
        if _alike(x, self.buffers[outer].strides, self.own[x].strides):
            return at
        to = self._room(x, self.kernel.rooms[x].shape[0] - 1)
        self._copy(x, at, to)
        return to

    def _step(self, number: Reg, carried: Sequence[Reg]) -> list[Reg]:
        """Call the body for one step; returns where the next carry lies."""
        f, loop, op = self.f, self.loop, self.loop.op
        t = f.sub(loop.length - 1, number) if loop.reverse else number
        for x in loop.slices:
            self._point(x, self._stacked(x, loop.outer[x], t))
        places = {}
        for z, outer in zip(loop.ys, op.outputs[loop.carries :], strict=True):
            places[z] = self._stacked(z, outer, t)
        last = f.icmp("eq", number, loop.length - 1) if loop.carries else None
        odd = f.op("and", number, Reg("1", "i64")) if loop.carries else None
        for x, z, outer in zip(loop.carry, loop.after, op.outputs, strict=False):
            if z not in places:
                assert last is not None
                assert odd is not None
                places[z] = self._room(x, odd)
                if (x, True) not in self.copies:
                    end = self._moved(self.base[outer], x, self.buffers[outer].strides)
                    places[z] = f.select(last, end, places[z])
        for x, at in zip(loop.carry, carried, strict=True):
            self._point(x, at)
        for z, at in places.items():
            self._point(z, at)
        for name, units in self.calls:
            f.run(name, self.entries, Reg("0", "i64"), Reg(str(units), "i64"), self.rest)
        return [places[z] for z in loop.after]

    def _finish(self, carried: Sequence[Reg]) -> None:
        """Copy the last carry, where it lies among the stacked outputs or in another layout."""
        for x, outer, at in zip(self.loop.carry, self.loop.op.outputs, carried, strict=False):
            if (x, True) in self.copies:
                to = self._moved(self.base[outer], x, self.buffers[outer].strides)
                self._copy(x, at, to, end=True)

    # --- copies -----------------------------------------------------------------------------------

    def _write_copies(self) -> None:
        """Functions that copy a carry: at the start, and at the end to where it goes."""
        loop = self.loop
        self.copies: dict[tuple[Value, bool], tuple[str, int]] = {}
        n = len(self.kernel.slots) + 1
        for i, (x, z) in enumerate(zip(loop.carry, loop.after, strict=True)):
            inside = self.own[x].strides
            start = self.buffers[loop.outer[x]].strides
            end = self.buffers[loop.op.outputs[i]].strides
            for late, source, to in ((False, start, inside), (True, inside, end)):
                if _alike(x, source, to) and not (late and z in loop.ys):
                    continue
                value = Value(x.spec)
                op = Op(identity_copy, (value,), {})
                (kernel,) = loops.kernels([op], [op.output])
                name = f"{self.name}_copy{i}{'end' if late else 'start'}"
                places = {
                    value: Buffer(n, 0, x.shape, source, x.dtype),
                    op.output: Buffer(n + 1, 0, x.shape, to, x.dtype),
                }
                kernel.emit(self.module, name, places)
                self.copies[x, late] = (name, kernel.units)

    def _copy(self, x: Value, source: Reg, to: Reg, end: bool = False) -> None:
        f, n = self.f, len(self.kernel.slots) + 1
        name, units = self.copies[x, end]
        f.store(source, f.at(self.entries, n, "ptr"))
        f.store(to, f.at(self.entries, n + 1, "ptr"))
        f.run(name, self.entries, Reg("0", "i64"), Reg(str(units), "i64"), self.rest)


# --- checks ---------------------------------------------------------------------------------------


def with_checks_outside(graph: Graph) -> Graph:
    """The graph with the checks of values in its loops behind them, on what all steps looked at.

    A kernel holds its indices inside their axes whatever they are, so what is computed from values
    that are refused is only of no use; and no state is written before the checks.
    """
    if not any(op.primitive is scan for op in graph.ops):
        return graph
    ops: list[Op] = []
    now: dict[Value, Value] = {}
    for old in graph.ops:
        op = _renewed(old, old.params, now)
        if op.primitive is scan:
            body = with_checks_outside(passes.run(op.params["body"]))
            checks = [one for one in body.ops if one.primitive is check]
            if checks:
                params = {**op.params, "body": _without_checks(body, checks)}
                op = Op(scan, op.inputs, params, None, op.line, op.where)
            n = len(old.outputs)
            ops.append(op)
            for one, stack in zip(checks, op.outputs[n:], strict=True):
                ops.append(Op(check, (stack,), one.params, None, one.line, one.where))
        else:
            ops.append(op)
        now.update(zip(old.outputs, op.outputs, strict=False))
    outputs = [now.get(z, z) for z in graph.outputs]
    constants, updates = dict(graph.constants), dict(graph.updates)
    return Graph(list(graph.inputs), constants, ops, outputs, updates, graph.name)


def _renewed(op: Op, params: dict[str, Any], now: dict[Value, Value]) -> Op:
    """The operation on other inputs, if some of its own have been replaced."""
    inputs = tuple(now.get(x, x) for x in op.inputs)
    if inputs == op.inputs:
        return op
    specs = [z.spec for z in op.outputs]
    return Op(op.primitive, inputs, params, specs, op.line, op.where)


def _without_checks(body: Graph, checks: Sequence[Op]) -> Graph:
    """The body, which gives what they look at in place of looking at it."""
    passed = Value(checks[0].output.spec)
    now = {one.output: passed for one in checks}
    ops = []
    for old in body.ops:
        if old not in checks:
            ops.append(_renewed(old, old.params, now))
            now.update(zip(old.outputs, ops[-1].outputs, strict=True))
    outputs = [now.get(z, z) for z in (*body.outputs, *[one.inputs[0] for one in checks])]
    constants = {**body.constants, passed: np.broadcast_to(np.asarray(True), passed.shape)}
    return Graph(list(body.inputs), constants, ops, outputs, {}, body.name)


def supports(op: Op) -> bool:
    """Whether a scan has native code: all of its body has, and there is a step."""
    if op.primitive is not scan or op.params["length"] == 0:
        return False
    if any(math.prod(z.shape) == 0 for z in (*op.inputs, *op.outputs)):
        return False
    return runs_natively(op.params["body"])


def runs_natively(body: Graph) -> bool:
    """Whether every operation of a body has a kernel, and none is a check of values."""
    from chainrule.compiler.families import family_of

    return all(
        op.primitive is not check and (family_of(op) is not None or loops.supports(op))
        for op in body.ops
    )
