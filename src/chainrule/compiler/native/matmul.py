"""Kernels of the primitive `matmul`: batches, operands seen through movements, a fused epilogue.

`lower` turns a group of operations around one `matmul` into kernels: usually one; two where B is
large enough that it should be packed once for all units, or where the sum over k is so much longer
than C that it must be divided to give every thread something to do.

    movements that only change strides  ->  matmul  ->  elementwise operations on its result

The movements before the product cost nothing, A and B are read with their strides. What follows it
is computed on the registers that hold a finished tile.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import views
from chainrule.compiler.native.gemm import Gemm, pack_panel, pack_rows, share
from chainrule.compiler.native.gemm_dot import Dots
from chainrule.compiler.native.gemm_finish import Finish
from chainrule.compiler.native.gemm_layout import (
    Layout,
    Operand,
    batch_index,
    dot,
    expected,
    find_layout,
    leaves,
    product_of,
    rowmajor,
)
from chainrule.compiler.native.gemm_plan import (
    DotPlan,
    Plan,
    packed_size,
    panel_room,
    parts_of,
    plan,
    plan_dots,
    suits_dots,
)
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, Kernel
from chainrule.compiler.native.microkernel import lanes_in, load_vector, plus
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.native.text import Function, Module, Reg, type_of
from chainrule.graph import Array, Spec

SUMMED = 1 << 15
"""Numbers that a unit of a `SumKernel` adds up at least."""


def supports(ops: Sequence[Op]) -> bool:
    """Whether a group is one matmul of real numbers with movements before it that are views."""
    products = [op for op in ops if op.name == "matmul"]
    if len(products) != 1:
        return False
    op = products[0]
    if op.output.dtype.kind not in "fiu":
        return False
    buffers = rowmajor([*leaves(ops, op.inputs), op.output])
    return all(views.resolve(x, buffers) is not None for x in op.inputs)


def lower(
    ops: Sequence[Op],
    outputs: Sequence[Value] | None = None,
    target: Target | None = None,
    constants: Mapping[Value, Array] | None = None,
) -> list[Kernel]:
    """The kernels of one matmul and what is fused with it.

    Arguments:
        ops: movements, the matmul, operations on its result; in order.
        outputs: the values that others read; the last operation's if None.
        target: the instruction set to cut the work for.
        constants: arrays of values that are known; numbers among them become part of the code.
    """
    outputs = [ops[-1].output] if outputs is None else outputs
    target = target or host()
    layout = expected(ops, False)
    batch = math.prod(layout.batch)
    parts = 1 if suits_dots(target, layout.product) else parts_of(target, layout.product, batch)
    if parts > 1:
        before = ops[: ops.index(product_of(ops)) + 1]
        partial = MatmulKernel(before, [], target, parts=parts)
        return [partial, SumKernel(ops, outputs, constants or {}, partial.writes[0])]
    kernel = MatmulKernel(ops, outputs, target, constants)
    how = kernel.plan
    if isinstance(how, Plan) and _many_would_pack(how) and not kernel.layout.swapped:
        pack = PackKernel(ops, kernel.layout, how, target)
        return [pack, MatmulKernel(ops, outputs, target, constants, pack)]
    return [kernel]


def _many_would_pack(plan: Plan) -> bool:
    """Whether each panel of B would be packed by three or more units."""
    return plan.pack in ("panel", "unit") and plan.grid[0] >= 3


class MatmulKernel(Kernel):
    """C = A @ B for each batch index.

    `units` and `scratch` hold for operands that lie row-major; `emit` sets them anew for the
    buffers that it is given, so they are to be read after it.

    Arguments:
        ops, outputs, target, constants: as in `lower`.
        pack: the kernel that packs B before this one runs, if there is one.
        parts: more than 1 leaves the sums over so many parts of the depth for a `SumKernel`, in a
            value that takes the place of the outputs.
    """

    family = "matmul"

    def __init__(
        self,
        ops: Sequence[Op],
        outputs: Sequence[Value],
        target: Target,
        constants: Mapping[Value, Array] | None = None,
        pack: PackKernel | None = None,
        parts: int = 1,
    ):
        self.ops, self.target, self.pack = list(ops), target, pack
        self.op = product_of(ops)
        self.constants = constants or {}
        self.looks = leaves(ops, self.op.inputs)
        self.operands = self.looks if pack is None else leaves(ops, self.op.inputs[:1])
        self.parts, self.writes = parts, list(outputs)
        if parts > 1:
            self.writes = [Value(Spec((parts, self.op.output.size), self.op.output.dtype))]
        self.stored = self.writes == [self.op.output]
        self._settle(expected(ops, self.stored))
        reads = [*self.operands, *(self.finish.reads if self.finish is not None else ())]
        if pack is not None:
            reads.append(pack.output)
        self.reads = list(dict.fromkeys(reads))

    def _settle(self, layout: Layout) -> None:
        """Plan for operands that lie so."""
        self.layout = layout
        batch = math.prod(layout.batch)
        p = layout.product
        self.finish, more = None, 0
        if not self.stored and self.parts == 1:
            self.finish = Finish(
                self.op, self.ops, self.writes, self.constants, layout.batch, layout.swapped
            )
            more = sum(v.nbytes for v in (*self.finish.reads, *self.writes))
        if self.pack is None and self.parts == 1 and suits_dots(self.target, p):
            self.plan: Plan | DotPlan = plan_dots(self.target, p, batch, more)
        else:
            ready = None if self.pack is None else self.pack.tile
            self.plan = plan(self.target, p, batch, ready, self.parts, more)
        self.units = batch * self.plan.units
        self.scratch = self._loops(Module(self.target), "").scratch

    def _loops(self, module: Module, name: str) -> Gemm | Dots:
        if isinstance(self.plan, DotPlan):
            return Dots(module, name, self.layout.product, self.plan, self.finish)
        return Gemm(module, name, self.layout.product, self.plan, self.finish)

    def may_overwrite(self, read: Value, write: Value) -> bool:
        """What only the fused operations read, and where the result then goes."""
        if self.finish is None or read in self.operands:
            return False
        return self.finish.reads_only_here(read)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        swap = None if self.pack is None else False
        self._settle(find_layout(self.op, buffers, self.stored, swap))
        if self.finish is not None:
            self.finish.buffers = buffers
        f = Function(module, name, PARAMETERS)
        if self.units:
            with f.loop(f.arg("lo"), f.arg("hi")) as unit:
                self._unit(f, name, buffers, unit.index)
        f.finish()

    def _unit(self, f: Function, name: str, buffers: Buffers, unit: Reg) -> None:
        """Find a unit's place in batch, depth and grid, and its operands."""
        at, p = self.layout, self.layout.product
        down, across = self.plan.grid
        rest = f.udiv(unit, across)
        place = (f.urem(rest, down), f.urem(unit, across))
        rest = f.udiv(rest, down)
        batch = math.prod(at.batch)
        part = f.udiv(rest, batch) if self.parts > 1 else f.add(0, 0)
        rest = f.urem(rest, batch)
        index = batch_index(f, rest, at.batch)
        b = at.b if self.pack is None else self.pack.packed(at)
        moved = []
        for x in (at.a, b):
            start = f.at(buffers[x.base].pointer(f), x.offset, p.type)
            moved.append(f.at(start, dot(f, index, x.batch), p.type))
        if self.finish is not None:
            c = f.arg("scratch")
        elif self.parts > 1:
            inside = f.add(f.mul(part, self.op.output.size), dot(f, index, at.c.batch))
            c = f.at(buffers[self.writes[0]].pointer(f), inside, p.type)
        else:
            c = f.at(buffers[at.c.base].pointer(f), at.c.offset, p.type)
            c = f.at(c, dot(f, index, at.c.batch), p.type)
        loops = self._loops(f.module, name)
        loops.unit(f, (moved[0], moved[1], c), f.arg("scratch"), place, rest, part)


class PackKernel(Kernel):
    """B, packed once for all units of the `MatmulKernel` that reads it."""

    family = "pack"

    def __init__(self, ops: Sequence[Op], at: Layout, how: Plan, target: Target):
        self.ops = []
        self.op = product_of(ops)
        self.tile = (how.down.size, how.across.size)
        self.plan = plan(target, at.product, math.prod(at.batch), self.tile)
        self.lanes = lanes_in(target, at.product.type)
        copies = math.prod(n for n, step in zip(at.batch, at.b.batch, strict=True) if step)
        size = copies * packed_size(at.product, self.lanes)
        self.output = Value(Spec((size,), self.op.output.dtype))
        self.reads, self.writes = leaves(ops, self.op.inputs[1:]), [self.output]
        self.looks = leaves(ops, self.op.inputs)
        self.copies = copies
        self._settle(at)

    def _settle(self, at: Layout) -> None:
        """Units are panels, or some rows of all panels where B's rows are contiguous."""
        self.by_rows = at.product.b[1] == 1
        rows = max(1, min(16, at.product.depth // 64))
        self.pieces = rows if self.by_rows else self.plan.across.count
        self.units = self.copies * self.pieces

    def packed(self, at: Layout) -> Operand:
        """B as it was packed: once where the batch axes repeat it."""
        steps: list[int] = []
        step = packed_size(at.product, self.lanes)
        for n, before in zip(reversed(at.batch), reversed(at.b.batch), strict=True):
            steps.append(step if before else 0)
            step *= n if before else 1
        return Operand(self.output, 0, tuple(reversed(steps)))

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        at = find_layout(self.op, buffers, False, False)
        self._settle(at)
        p = at.product
        to = self.packed(at)
        shape = tuple(n for n, step in zip(at.batch, to.batch, strict=True) if step)
        steps = [(b, t) for b, t in zip(at.b.batch, to.batch, strict=True) if t]
        f = Function(module, name, PARAMETERS)
        source = f.at(buffers[at.b.base].pointer(f), at.b.offset, p.type)
        packed = buffers[self.output].pointer(f)
        with f.loop(f.arg("lo"), f.arg("hi")) as unit:
            piece = f.urem(unit.index, self.pieces)
            index = batch_index(f, f.udiv(unit.index, self.pieces), shape)
            pointers = (
                f.at(source, dot(f, index, [b for b, _ in steps]), p.type),
                f.at(packed, dot(f, index, [t for _, t in steps]), p.type),
            )
            if self.by_rows:
                start, stop = share(f, p.depth, piece, self.pieces)
                panels = (f.add(0, 0), f.add(self.plan.across.count, 0))
                rows, room = (start, f.sub(stop, start), 0), panel_room(p, self.lanes)
                pack_rows(f, p, self.plan, panels, rows, pointers, room)
            else:
                pack_panel(f, p, self.plan, piece, pointers)
        f.finish()


class SumKernel(Kernel):
    """The sum of what a `MatmulKernel` left for parts of the depth, and what is fused behind it.

    Arguments:
        ops, outputs, constants: as in `lower`.
        partial: the sums over each part, one C after another.
    """

    family = "sum"

    def __init__(
        self,
        ops: Sequence[Op],
        outputs: Sequence[Value],
        constants: Mapping[Value, Array],
        partial: Value,
    ):
        op = product_of(ops)
        self.ops = [x for x in ops[ops.index(op) + 1 :]]
        self.writes, self.partial = list(outputs), partial
        self.finish = Finish(op, ops, outputs, constants, (), op.output.shape[-1] == 1)
        self.reads = [partial, *self.finish.reads]
        rows = self.finish.row.extent
        self.units = max(1, min(rows, 16, partial.size // SUMMED))

    def may_overwrite(self, read: Value, write: Value) -> bool:
        return read is not self.partial and self.finish.reads_only_here(read)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        self.finish.buffers = buffers
        f = Function(module, name, PARAMETERS)
        type = type_of(self.partial.dtype)
        lanes = lanes_in(module.target, type)
        parts, size = self.partial.shape
        base = buffers[self.partial].pointer(f)

        def total(row: Reg, column: Reg, mask: Reg | None) -> Reg:
            at = f.at(base, f.add(f.mul(row, self.finish.column.extent), column), type)
            sums = [load_vector(f, f.at(at, i * size, type), type, mask) for i in range(parts)]
            return functools.reduce(functools.partial(plus, f), sums)

        with f.loop(f.arg("lo"), f.arg("hi")) as unit:
            rows = share(f, self.finish.row.extent, unit.index, self.units)
            self.finish.elements(f, rows, lanes, total)
        f.finish()
