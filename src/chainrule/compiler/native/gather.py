"""Gather and scatter over the first axis, and assignment to a slice.

An index is held inside its axis by every kernel, whatever stands in memory: what an index out of
bounds should raise is said by the checks before.

    gather, slice_set: units are groups of rows
    scatter_add, scatter_set: units are groups of columns, so that each element is written by one
        unit only, and sums are taken in the order of the index
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import rows
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Buffers, Kernel
from chainrule.compiler.native.rows import Moved, Side, merge, moved
from chainrule.compiler.native.text import Function, Int, Module, Reg, i64, type_of

NARROW = 32  # float32 rows of fewer elements are summed in float64
SUMS = 1 << 20  # bytes of such sums at most
COLUMNS = 16  # units of columns at most


def supports(op: Op) -> bool:
    """Gather and scatter of anything, sums of real numbers; nothing empty."""
    if op.name not in ("gather", "scatter_add", "scatter_set", "slice_set"):
        return False
    if any(not v.size for v in (*op.inputs, op.output)):
        return False
    return op.name != "scatter_add" or op.output.dtype.kind in "fiu"


def kernels(op: Op) -> list[Kernel]:
    """The kernel of one of these operations."""
    kind = {
        "gather": Gather, "scatter_add": ScatterAdd, "scatter_set": ScatterSet,
        "slice_set": SliceSet,
    }[op.name]  # fmt: skip
    return [kind(op)]


class Indexed(Kernel):
    """What the kernels of this room have in common."""

    family = "gather"

    def __init__(self, op: Op):
        self.op, self.ops = op, (op,)
        self.reads, self.writes = tuple(dict.fromkeys(op.inputs)), (op.output,)

    def _start(self, module: Module, name: str, buffers: Buffers) -> tuple[Function, list[Reg]]:
        """The function and the addresses of the inputs and the output."""
        f = Function(module, name, PARAMETERS)
        return f, [buffers[v].pointer(f) for v in (*self.op.inputs, self.op.output)]


class Gather(Indexed):
    """z[i, ...] = x[index[i], ...]."""

    def __init__(self, op: Op):
        super().__init__(op)
        x, index = op.inputs
        self.units, self.each = rows.units_of(index.size, math.prod(x.shape[1:]))

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f, (x, index, z) = self._start(module, name, buffers)
        source, where, to = (buffers[v] for v in (*self.op.inputs, self.op.output))
        axes = len(where.shape)
        rows_of, row_of = moved(to), moved(source)
        shape, (steps, out) = merge(where.shape, where.strides, rows_of.strides[:axes])
        inner, (across, along) = merge(row_of.shape[1:], row_of.strides[1:], rows_of.strides[axes:])
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            first = f.mul(unit.index, self.each)
            last = f.smin(f.add(first, self.each), math.prod(shape))
            with f.loop(first, last, hint="row") as row:
                place = rows.unravel(f, row.index, shape)
                i = rows.index_at(
                    f, index, rows.offset(f, place, steps), where.dtype, source.shape[0]
                )
                a = f.at(x, f.mul(i, row_of.strides[0]), row_of.type)
                b = f.at(z, rows.offset(f, place, out), row_of.type)
                rows.copy(f, inner, Side(b, along), Side(a, across), row_of.type)
        f.finish()


@dataclass(frozen=True)
class Part:
    """Some columns of the output and of the inputs but the index.

    Attributes:
        inner: one row of them, as a merged region.
        rows: for each buffer row 0 of them, and all axes of the buffer.
        index, at: the index's buffer and address.
    """

    f: Function
    inner: tuple[Int, ...]
    rows: tuple[tuple[Side, Moved], ...]
    index: Buffer
    at: Reg

    @property
    def type(self) -> str:
        return self.rows[0][1].type

    def row(self, which: int, number: Int) -> Side:
        """A row of a buffer."""
        side, buffer = self.rows[which]
        step = self.f.mul(number, buffer.strides[0])
        return Side(self.f.at(side.pointer, step, self.type), side.strides)

    def each(self, length: int, do: Callable[[Reg, Side], None]) -> None:
        """Call do(index[i], updates[i]) for each i in order; the updates are the last buffer."""
        f, (updates, buffer) = self.f, self.rows[-1]
        axes = len(self.index.shape)
        shape, (steps, across) = merge(self.index.shape, self.index.strides, buffer.strides[:axes])
        with f.loop(0, math.prod(shape), hint="update") as update:
            place = rows.unravel(f, update.index, shape)
            at = rows.offset(f, place, steps)
            i = rows.index_at(f, self.at, at, self.index.dtype, length)
            first = f.at(updates.pointer, rows.offset(f, place, across), self.type)
            do(i, Side(first, updates.strides))


class Columns(Indexed):
    """A scatter whose units are groups of columns.

    Attributes:
        updates, index: the inputs of those names.
        each: columns in a unit.
    """

    def __init__(self, op: Op, updates: Value, index: Value):
        super().__init__(op)
        self.updates, self.index = updates, index
        self.width = math.prod(op.output.shape[1:])
        least = max(16, 64 // op.output.dtype.itemsize)
        most = max(1, min(COLUMNS, self.width // least, updates.size // rows.UNIT))
        self.each = -(-self.width // most)
        self.units = -(-self.width // self.each)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        values = [self.op.output, *self.op.inputs[:-1]]
        parts = [self._moved(buffers[v]) for v in values]
        pointers = [buffers[v].pointer(f) for v in values]
        index, at = buffers[self.index], buffers[self.index].pointer(f)
        lead = [len(index.shape) if v is self.updates else 1 for v in values]
        inner, steps = merge(
            parts[0].shape[1:], *(p.strides[n:] for p, n in zip(parts, lead, strict=True))
        )

        def some(first: Int, inner: tuple[Int, ...]) -> Part:
            sides = [
                Side(f.at(p, f.mul(first, s[0]) if s else 0, parts[0].type), s)
                for p, s in zip(pointers, steps, strict=True)
            ]
            return Part(f, inner, tuple(zip(sides, parts, strict=True)), index, at)

        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            if self.units == 1:
                self._do(some(0, inner))
            elif len(inner) != 1:  # rows of several runs are not divided
                with f.when(f.icmp("eq", unit.index, 0)):
                    self._do(some(0, inner))
            else:
                factor = inner[0] // self.width  # 2 of complex128
                first = f.mul(unit.index, self.each * factor)
                count = f.smin(f.sub(i64(inner[0]), first), self.each * factor)
                self._do(some(first, (count,)))
        f.finish()

    def _moved(self, buffer: Buffer) -> Moved:
        return moved(buffer)

    def _do(self, part: Part) -> None:
        raise NotImplementedError


class ScatterSet(Columns):
    """z = x, then z[index[i], ...] = updates[i, ...] for each i in order."""

    def __init__(self, op: Op):
        super().__init__(op, op.inputs[1], op.inputs[2])

    def may_overwrite(self, read: Value, write: Value) -> bool:
        return read is self.op.inputs[0] and read not in self.op.inputs[1:]

    def _do(self, part: Part) -> None:
        f, length = part.f, self.op.output.shape[0]
        (z, _), (x, _), _ = part.rows
        with f.when(f.icmp("ne", z.pointer, x.pointer)), f.loop(0, length, hint="row") as row:
            to, of = part.row(0, row.index), part.row(1, row.index)
            rows.copy(f, part.inner, to, of, part.type)
        part.each(
            length,
            lambda i, updates: rows.copy(f, part.inner, part.row(0, i), updates, part.type),
        )


class ScatterAdd(Columns):
    """z[j, ...] = the sum of updates[i, ...] over i with index[i] = j, in the order of i."""

    def __init__(self, op: Op):
        super().__init__(op, *op.inputs)
        size = 8 * op.output.size
        narrow = self.width < NARROW
        self.wide = op.output.dtype.name == "float32" and narrow and size <= SUMS
        self.scratch = size if self.wide else 0

    def _moved(self, buffer: Buffer) -> Moved:
        return Moved(type_of(buffer.dtype), buffer.shape, buffer.strides)

    def _do(self, part: Part) -> None:
        if self.wide:
            self._in_float64(part)
            return
        f, length = part.f, self.op.output.shape[0]
        with f.loop(0, length, hint="row") as row:
            rows.fill(f, part.inner, part.row(0, row.index), part.type)
        part.each(
            length,
            lambda i, updates: rows.accumulate(f, part.inner, part.row(0, i), updates, part.type),
        )

    def _in_float64(self, part: Part) -> None:
        """The sums in scratch memory, row-major, and then rounded. The rows are whole."""
        f, length, width = part.f, self.op.output.shape[0], self.width
        inner = tuple(n for n in part.inner if isinstance(n, int))
        sums = f.arg("scratch")
        rows.fill(f, (length * width,), Side(sums, (1,)), "double")

        def element(side: Side, column: Reg) -> Reg:
            place = rows.unravel(f, column, inner)
            return f.at(side.pointer, rows.offset(f, place, side.strides), part.type)

        def add(i: Reg, updates: Side) -> None:
            with f.loop(0, width) as column:
                x = f.convert("fpext", f.load(element(updates, column.index), "float"), "double")
                at = f.at(sums, f.add(f.mul(i, width), column.index), "double")
                f.store(f.fadd(f.load(at, "double"), x), at)

        part.each(length, add)
        with f.loop(0, length, hint="row") as row, f.loop(0, width) as column:
            at = f.at(sums, f.add(f.mul(row.index, width), column.index), "double")
            x = f.convert("fptrunc", f.load(at, "double"), "float")
            f.store(x, element(part.row(0, row.index), column.index))


class SliceSet(Indexed):
    """z = x, but `updates` at z[starts : : steps]. Units are groups of rows of the first axis."""

    def __init__(self, op: Op):
        super().__init__(op)
        x = op.inputs[0]
        self.units, self.each = rows.units_of(
            *((x.shape[0], x.size // x.shape[0]) if x.ndim else (1, 1))
        )

    def may_overwrite(self, read: Value, write: Value) -> bool:
        return read is self.op.inputs[0] and read not in self.op.inputs[1:]

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f, (x, updates, z) = self._start(module, name, buffers)
        old, new, to = (moved(buffers[v]) for v in (*self.op.inputs, self.op.output))
        starts, steps = self.op.params["starts"], self.op.params["steps"]
        extra = len(to.shape) - len(starts)  # the two halves of complex128
        starts, steps = (*starts, *(0,) * extra), (*steps, *(1,) * extra)
        base = sum(a * s for a, s in zip(starts, to.strides, strict=True))
        step = tuple(a * s for a, s in zip(steps, to.strides, strict=True))
        if len(starts) == extra:  # a single element
            with f.loop(f.arg("lo"), f.arg("hi"), hint="unit"):
                rows.copy(f, to.shape, Side(z, to.strides), Side(updates, new.strides), to.type)
            f.finish()
            return
        some, (target, source) = merge(new.shape[1:], step[1:], new.strides[1:])
        moves = f.icmp("ne", z, x)
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            first = f.mul(unit.index, self.each)
            last = f.smin(f.add(first, self.each), to.shape[0])
            with f.when(moves):
                self._keep(f, first, last, Side(z, to.strides), Side(x, old.strides), to)

            def after(row: Int) -> Reg:
                """Rows of the updates that go before a row of x."""
                beyond = f.smax(f.add(f.sub(row, starts[0]), steps[0] - 1), 0)
                return f.smin(f.udiv(beyond, steps[0]), new.shape[0])

            with f.loop(after(first), after(last), hint="row") as row:
                there = f.at(z, f.add(f.mul(row.index, step[0]), base), to.type)
                of = Side(f.at(updates, f.mul(row.index, new.strides[0]), to.type), source)
                rows.copy(f, some, Side(there, target), of, to.type)
        f.finish()

    def _keep(self, f: Function, first: Int, last: Int, z: Side, x: Side, to: Moved) -> None:
        """Copy rows first .. last - 1 of x."""
        z, x = (
            Side(f.at(s.pointer, f.mul(first, s.strides[0]), to.type), s.strides) for s in (z, x)
        )
        count, width = f.sub(last, first), math.prod(to.shape[1:])
        shape, strides = merge(to.shape, z.strides, x.strides)
        if len(shape) <= 1 and to.shape[0] > 1:  # rows follow each other without gaps
            shape = (f.mul(count, width),)
        else:
            inner, strides = merge(to.shape[1:], z.strides[1:], x.strides[1:])
            shape = (count, *inner)
            strides = [(s.strides[0], *t) for s, t in zip((z, x), strides, strict=True)]
        sides = [Side(s.pointer, t) for s, t in zip((z, x), strides, strict=True)]
        rows.copy(f, shape, sides[0], sides[1], to.type)
