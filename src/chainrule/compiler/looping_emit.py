"""Writing a loop over time: the function that sets a table of pointers for each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chainrule.compiler import memory
from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import loops
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Buffers, strides_of
from chainrule.compiler.native.text import Function, Int, Module, Reg
from chainrule.primitives.movement import identity_copy

if TYPE_CHECKING:
    from chainrule.compiler.looping import Part


def _alike(v: Value, strides: Sequence[int], others: Sequence[int]) -> bool:
    """Whether a value lies the same under two strides; along one element they mean nothing."""
    return all(n == 1 or a == b for n, a, b in zip(v.shape, strides, others, strict=True))


class Writer:
    """Writes the function of some units of a loop.

    Arguments:
        part: the units.
        rooms: where each carry lies between steps.
        buffers: where the values outside lie.
    """

    def __init__(
        self, part: Part, rooms: Sequence[Value], module: Module, name: str, buffers: Buffers
    ):
        self.part, self.loop = part, part.loop
        self.rooms = dict(zip(part.loop.carry, rooms, strict=True))
        self.module, self.name, self.buffers = module, name, buffers
        self.own: dict[Value, Buffer] = {}
        loop, op = self.loop, self.loop.op
        for v in (*loop.fixed, *part.given):
            self._own(v, buffers[loop.outer.get(v, v)].strides)
        for v in loop.slices:
            self._own(v, buffers[loop.outer[v]].strides[1:])
        for v, z in zip(loop.ys, op.outputs[loop.carries :], strict=True):
            self._own(v, buffers[z].strides[1:])
        for x, v in zip(loop.carry, loop.after, strict=True):
            if v not in loop.ys:
                self._own(v, buffers[self.rooms[x]].strides[1:])
            self._own(x, self.own[v].strides)
        for v, offset in part.arena.offsets.items():
            self.own[v] = Buffer(0, offset, v.shape, strides_of(v.shape), v.dtype)

    def _own(self, v: Value, strides: tuple[int, ...]) -> None:
        self.own[v] = Buffer(self.part.slots[v], 0, v.shape, strides, v.dtype)

    def write(self) -> None:
        part, loop = self.part, self.loop
        names = []
        for i, k in enumerate(part.kernels):
            names.append(f"{self.name}_{i}")
            # Not all buffers: others may hold nothing yet, or something else.
            known = dict.fromkeys((*k.reads, *k.writes, *k.looks))
            k.emit(self.module, names[-1], {v: self.own[v] for v in known})
        self.calls = [(n, k.units) for n, k in zip(names, part.kernels, strict=True) if k.units]
        self._write_copies()
        f = self.f = Function(self.module, self.name, PARAMETERS)
        self.entries = f.arg("scratch")
        temporary = f.at(self.entries, part.table, "i8")
        self.rest = f.at(temporary, memory.rounded(part.arena.nbytes), "i8")
        f.store(temporary, self.entries)
        self.base = {v: b.pointer(f) for v, b in self.buffers.items()}
        with f.loop(f.arg("lo"), f.arg("hi")) as unit:
            if not loop.carries:
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
        if axis is None:
            return pointer
        distance = steps[axis] * v.dtype.itemsize
        moved = self.f.mul(self.unit, v.shape[axis] * distance)
        return self.f.at(pointer, self.f.add(moved, self.loop.first * distance), "i8")

    def _point(self, v: Value, pointer: Reg) -> None:
        self.f.store(pointer, self.f.at(self.entries, self.part.slots[v], "ptr"))

    def _fix(self, unit: Reg) -> None:
        """Set the entries that are the same at every step, for a unit's rows."""
        self.unit = unit
        for v in (*self.loop.fixed, *self.part.given):
            at = self.base[self.loop.outer.get(v, v)]
            self._point(v, self._moved(at, v, self.own[v].strides))

    def _stacked(self, v: Value, outer: Value, t: Int) -> Reg:
        """This unit's part of step t of a stack."""
        step = self.buffers[outer].strides[0] * v.dtype.itemsize
        at = self.f.at(self.base[outer], self.f.mul(t, step), "i8")
        return self._moved(at, v, self.own[v].strides)

    def _room(self, x: Value, which: Int) -> Reg:
        """One of the places of a carry between steps."""
        room = self.rooms[x]
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
        to = self._room(x, self.rooms[x].shape[0] - 1)
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
        n = len(self.part.slots) + 1
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
        f, n = self.f, len(self.part.slots) + 1
        name, units = self.copies[x, end]
        f.store(source, f.at(self.entries, n, "ptr"))
        f.store(to, f.at(self.entries, n + 1, "ptr"))
        f.run(name, self.entries, Reg("0", "i64"), Reg(str(units), "i64"), self.rest)
