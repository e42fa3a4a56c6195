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

from chainrule.autograd.function import CALLED
from chainrule.compiler import memory, passes
from chainrule.compiler.ir import Graph, Op, Value
from chainrule.compiler.looping_emit import Writer
from chainrule.compiler.native import loops, views
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Buffers, Kernel, strides_of
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Function, Module
from chainrule.compiler.rowwise import Cut, candidates, cut, resized
from chainrule.compiler.schedule import sort
from chainrule.graph import Spec
from chainrule.primitives.checks import check
from chainrule.primitives.control import scan
from chainrule.primitives.movement import identity_copy

FEWEST = 8
"""Rows of a unit, if there are twice as many: products of fewer wait for weights from memory."""
LEAST = 4
"""Rows from which on there are two units all the same."""
MANY = 16
"""Units enough: of the axes that give as many the first one is cut."""
PIECE = 8 << 10
"""Bytes of a step's slice that a unit should have, where that leaves units enough: of slices beyond
the caches a little of each of many pages takes long."""
GRAIN = 1024
"""Elements of a unit's carry, if there is no product in the body: fewer are soon done."""


@dataclass
class Loop:
    """A scan, ready to become kernels.

    Attributes:
        op: the scan.
        body: its body, for the rows of one unit, each output made by an operation.
        axes: for each input and output of the body the axis along which its rows are cut.
        count: how many units of so many rows there are.
        first: the first row.
    """

    op: Op
    body: Graph
    axes: dict[Value, int | None]
    count: int
    first: int = 0

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


def units_of(cut: Cut, body: Graph, consts: int, carries: int) -> int:
    """How many units there should be: an even number, which two threads share best."""
    n = cut.rows
    values = [*body.inputs[consts : consts + carries], *body.outputs[: carries or 1]]
    width = max(z.size for z in values) // n
    if not cut.in_products:
        count = n // max(1, GRAIN // max(width, 1))
        return max(1, count - count % 2) if count > 1 else 1
    if n < LEAST:
        return 1
    count = min(n // FEWEST, max(MANY, n * width * values[0].dtype.itemsize // PIECE))
    return max(2, count - count % 2)


def prepare(op: Op) -> list[Loop]:
    """Cut a scan into units, if that is possible, and let each of its outputs be made once.

    Units differ by one row at most; for either number of rows there is a loop.
    """
    params: dict[str, Any] = op.params
    body = passes.run(params["body"])
    consts, carries = params["consts"], params["carries"]
    found = [cut(body, consts, carries, axis) for axis in candidates(body, consts, carries)]
    cuts = [(units_of(c, body, consts, carries), c) for c in found if c is not None]
    count, best = max(cuts, key=lambda pair: min(pair[0], MANY), default=(1, None))
    if best is None or count == 1:
        return [Loop(op, *owned(body, {}, carries), 1)]
    rows, larger = divmod(best.rows, count)
    made: list[Loop] = []
    first = 0
    for size, many in ((rows + 1, larger), (rows, count - larger)):
        if many:
            smaller = resized(body, best, size)
            ends = (*body.inputs, *body.outputs), (*smaller.inputs, *smaller.outputs)
            axes = {new: best.axes.get(old) for old, new in zip(*ends, strict=True)}
            made.append(Loop(op, *owned(smaller, axes, carries), many, first))
            first += size * many
    return made


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
    parts: list[Part] = []
    before: list[Kernel] = []
    for loop in prepare(op):
        hoisted, kernels = _kernels_of(loop, path, graph, target)
        before += hoisted
        parts.append(Part(loop, kernels))
    return [*before, ScanKernel(parts, path)]


def _kernels_of(
    loop: Loop, path: Collection[Op], graph: Graph, target: Target
) -> tuple[list[Kernel], list[Kernel]]:
    """The kernels of the body that do the same at every step, and the others."""
    from chainrule.compiler import fuse

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
    return before, kernels


class Part:
    """The units of a loop that have equal numbers of rows.

    Attributes:
        kernels: of the body, in order.
        units: how many units there are.
        given: what the body's kernels know of outside by its own name.
        temporary: what they write for each other.
        arena: where that lies in a thread's memory.
        slots: the entries of values in the table of pointers.
        table: the bytes of the table.
    """

    def __init__(self, loop: Loop, kernels: list[Kernel]):
        self.loop, self.kernels = loop, kernels
        self.units = loop.count * (1 if loop.carries else loop.length)
        written = dict.fromkeys(v for k in kernels for v in k.writes)
        seen = dict.fromkeys(v for k in kernels for v in (*k.reads, *k.looks))
        self.given = [v for v in seen if v not in written and v not in loop.body.inputs]
        self.temporary = [v for v in written if v not in loop.body.outputs]
        self.arena = memory.place(self._lives().values())
        table = [*loop.body.inputs, *dict.fromkeys(loop.body.outputs), *self.given]
        self.slots = {v: i + 1 for i, v in enumerate(table)}
        # Behind the entries of values there are two for copies.
        self.table = memory.rounded(8 * (len(table) + 3))

    def _lives(self) -> dict[Value, memory.Life]:
        lives: dict[Value, memory.Life] = {}
        for number, kernel in enumerate(self.kernels):
            for v in kernel.writes:
                if v in self.temporary:
                    lives[v] = memory.Life([v], v.nbytes, number, number)
            for v in kernel.reads:
                if v in lives:
                    lives[v].last = number
        return lives

    @property
    def scratch(self) -> int:
        """Bytes of a thread's memory. To be read again after the kernels are emitted."""
        most = max((k.scratch for k in self.kernels), default=0)
        return self.table + memory.rounded(self.arena.nbytes) + memory.rounded(most) + 64


class ScanKernel(Kernel):
    """The loop.

    Attributes:
        parts: what is done for units of different numbers of rows.
        rooms: for each carry where it lies between steps.
    """

    family = "scan"

    def __init__(self, parts: list[Part], path: Collection[Op] = ()):
        self.parts = parts
        loop = parts[0].loop
        self.op, self.ops = loop.op, [loop.op]
        self.rooms: list[Value] = []
        for x, z in zip(loop.carry, loop.after, strict=True):
            start = loop.outer[x]
            # What is no stacked output goes to and fro between two; the first carry may need one.
            places = 2 if z not in loop.ys else 1
            self.rooms.append(Value(Spec((places, *start.shape), start.dtype)))
        inputs = [behind(x, path) for x in self.op.inputs]
        given = [v for part in parts for v in part.given]
        self.reads = list(dict.fromkeys([*inputs, *given]))
        self.writes = [*self.op.outputs, *self.rooms]
        self.units = sum(part.units for part in parts)
        self.scratch = max(part.scratch for part in parts)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        buffers = with_views(buffers, self.op.inputs)
        if len(self.parts) == 1:
            Writer(self.parts[0], self.rooms, module, name, buffers).write()
        else:
            self._emit_parts(module, name, buffers)
        self.scratch = max(part.scratch for part in self.parts)

    def _emit_parts(self, module: Module, name: str, buffers: Buffers) -> None:
        for i, part in enumerate(self.parts):
            Writer(part, self.rooms, module, f"{name}_part{i}", buffers).write()
        f = Function(module, name, PARAMETERS)
        first = 0
        for i, part in enumerate(self.parts):
            lo, hi = (f.smin(f.smax(f.sub(f.arg(x), first), 0), part.units) for x in ("lo", "hi"))
            f.run(f"{name}_part{i}", f.arg("table"), lo, hi, f.arg("scratch"))
            first += part.units
        f.finish()


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
        op.primitive is not check
        and (family_of(op) is not None or loops.supports(op) or op.name == CALLED)
        for op in body.ops
    )
