"""Running sums along an axis, in the order of the elements as NumPy takes them.

units: groups of lines; across contiguous lines by vectors
"""

from __future__ import annotations

import math

from chainrule.compiler.ir import Op
from chainrule.compiler.native import rows
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, Kernel
from chainrule.compiler.native.text import Function, Module, Reg, vector

SIDE = 16
"""Lines side by side from which on they are summed by vectors."""


def supports(op: Op) -> bool:
    """Sums of real numbers."""
    x = op.inputs[0]
    return op.name == "cumulative_sum" and x.dtype.kind in "fiu" and x.size > 0 and x.ndim > 0


def kernels(op: Op) -> list[Kernel]:
    """The kernel of a running sum."""
    return [CumulativeSum(op)]


class CumulativeSum(Kernel):
    """z_k = the sum of x_i over i <= k."""

    family = "cumulative"

    def __init__(self, op: Op):
        self.op, self.ops = op, (op,)
        self.reads, self.writes = op.inputs, (op.output,)
        axis, shape = op.params["axis"], op.output.shape
        across = math.prod(shape[axis + 1 :])
        lines = math.prod(shape[:axis]) * across
        self.units, self.each = rows.units_of(lines, shape[axis])
        self.parts = 0
        if across >= SIDE:  # a unit is a part of the lines that lie side by side
            self.each = min(across, -(-self.each // SIDE) * SIDE)
            self.parts = -(-across // self.each)
            self.units = lines // across * self.parts

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        sides = [buffers[v] for v in (self.op.inputs[0], self.op.output)]
        lines = rows.Lines(sides, self.op.params["axis"])
        starts = [b.pointer(f) for b in sides]
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            if self.parts:
                start = lines.block(f, starts, f.udiv(unit.index, self.parts))
                first = f.mul(f.urem(unit.index, self.parts), self.each)
                last = f.smin(f.add(first, self.each), lines.across)
                if lines.gapless:
                    self._side_by_side(f, lines, start, first, last)
                else:
                    with f.loop(first, last, hint="line") as line:
                        _line(f, lines, lines.inside(f, start, line.index), 1)
            else:
                first = f.mul(unit.index, self.each)
                last = f.smin(f.add(first, self.each), lines.count)
                with f.loop(first, last, hint="line") as line:
                    _line(f, lines, lines.line(f, starts, line.index), 1)
        f.finish()

    def _side_by_side(
        self, f: Function, lines: rows.Lines, starts: list[Reg], first: Reg, last: Reg
    ) -> None:
        """Lines first .. last - 1, by vectors and then one by one."""
        lanes, type = f.target.lanes(self.op.output.dtype), lines.types[0]
        whole = f.sub(last, f.urem(f.sub(last, first), lanes))
        with f.loop(first, whole, lanes, hint="lines") as line:
            _line(f, lines, [f.at(p, line.index, type) for p in starts], lanes)
        with f.loop(whole, last, hint="line") as line:
            _line(f, lines, [f.at(p, line.index, type) for p in starts], 1)


def _line(f: Function, lines: rows.Lines, starts: list[Reg], lanes: int) -> None:
    """One line, or as many as there are lanes."""
    (x, z), (across, along) = starts, lines.steps
    inner, type = lines.types[0], vector(lines.types[0], lanes)
    opcode = "fadd" if inner in ("float", "double") else "add"
    total = f.load(x, type)
    f.store(total, z)
    with f.loop(1, lines.length, carry=[total], hint="sum") as loop:
        term = f.load(f.at(x, f.mul(loop.index, across), inner), type)
        total = f.op(opcode, loop.carried[0], term)
        f.store(total, f.at(z, f.mul(loop.index, along), inner))
        loop.next = [total]
