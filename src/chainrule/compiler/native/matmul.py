"""Kernels of the primitive `matmul`: batches, operands seen through movements, a fused epilogue.

`lower` turns a group of operations around one `matmul` into kernels: usually one; two where B is
large enough that it should be packed once for all units, or where the sum over k is so much longer
than C that it must be divided to give every thread something to do.

    movements that only change strides  ->  matmul  ->  elementwise operations on its result

The movements before the product cost nothing, A and B are read with their strides. What follows it
is computed on the registers that hold a finished tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import views
from chainrule.compiler.native.gemm import Gemm, pack_panel
from chainrule.compiler.native.gemm_dot import Dots
from chainrule.compiler.native.gemm_finish import Finish
from chainrule.compiler.native.gemm_plan import (
    DotPlan,
    Plan,
    Product,
    packed_size,
    plan,
    plan_dots,
    suits_dots,
)
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Buffers, Kernel, strides_of
from chainrule.compiler.native.microkernel import lanes_in
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.native.text import Function, Int, Module, type_of
from chainrule.errors import ChainruleError
from chainrule.graph import Array, Shape, Spec


class LayoutError(ChainruleError, ValueError):
    """Operands that cannot be read where they lie: the schedule grouped what it should not."""


@dataclass(frozen=True)
class Operand:
    """A matrix for each batch index: where it lies and how far apart the batches are."""

    base: Value
    offset: int
    batch: tuple[int, ...]  # strides of the batch axes


@dataclass(frozen=True)
class Layout:
    """A batch of products as they lie in memory; A and B may have changed places."""

    product: Product
    batch: Shape
    a: Operand
    b: Operand
    c: Operand
    swapped: bool  # C^T = B^T @ A^T


def supports(ops: Sequence[Op]) -> bool:
    """Whether a group is one matmul of real numbers with movements before it that are views."""
    products = [op for op in ops if op.name == "matmul"]
    if len(products) != 1:
        return False
    op = products[0]
    if op.output.dtype.kind not in "fiu":
        return False
    buffers = _rowmajor([*leaves(ops, op.inputs), op.output])
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
    kernel = MatmulKernel(ops, outputs, target, constants)
    how = kernel.plan
    if isinstance(how, Plan) and _many_would_pack(how) and not kernel.layout.swapped:
        pack = PackKernel(ops, kernel.layout, how, target)
        return [pack, MatmulKernel(ops, outputs, target, constants, pack)]
    return [kernel]


def _many_would_pack(plan: Plan) -> bool:
    """Whether each panel of B would be packed by three or more units."""
    return plan.pack == "unit" and plan.grid[0] >= 3


class MatmulKernel(Kernel):
    """C = A @ B for each batch index.

    `units` and `scratch` hold for operands that lie row-major; `emit` sets them anew for the
    buffers that it is given, so they are to be read after it.

    Arguments:
        ops, outputs, target, constants: as in `lower`.
        pack: the kernel that packs B before this one runs, if there is one.
    """

    family = "matmul"

    def __init__(
        self,
        ops: Sequence[Op],
        outputs: Sequence[Value],
        target: Target,
        constants: Mapping[Value, Array] | None = None,
        pack: PackKernel | None = None,
    ):
        self.ops, self.writes = list(ops), list(outputs)
        self.target, self.pack = target, pack
        self.op = product_of(ops)
        self.constants = constants or {}
        self.looks = leaves(ops, self.op.inputs)
        self.operands = self.looks if pack is None else leaves(ops, self.op.inputs[:1])
        self.looks = leaves(ops, self.op.inputs)
        self._settle(expected(ops))
        reads = [*self.operands, *(self.finish.reads if self.finish is not None else ())]
        if pack is not None:
            reads.append(pack.output)
        self.reads = list(dict.fromkeys(reads))

    def _settle(self, layout: Layout) -> None:
        """Plan for operands that lie so."""
        self.layout = layout
        batch = math.prod(layout.batch)
        p = layout.product
        if self.pack is None and suits_dots(self.target, p):
            self.plan: Plan | DotPlan = plan_dots(self.target, p, batch)
        else:
            ready = None if self.pack is None else self.pack.tile
            self.plan = plan(self.target, p, batch, ready)
        self.units = batch * self.plan.units
        self.finish = None
        if self.writes != [self.op.output]:
            self.finish = Finish(
                self.op, self.ops, self.writes, self.constants, layout.batch, layout.swapped
            )
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
        self._settle(find_layout(self.op, buffers, self.writes == [self.op.output], swap))
        if self.finish is not None:
            self.finish.buffers = buffers
        at, p = self.layout, self.layout.product
        gemm = self._loops(module, name)
        f = Function(module, name, PARAMETERS)
        if self.units:
            a, b, c = at.a, at.b, at.c
            if self.pack is not None:
                b = self.pack.packed(at)
            start = [f.at(buffers[x.base].pointer(f), x.offset, p.type) for x in (a, b)]
            if self.finish is None:
                start.append(f.at(buffers[c.base].pointer(f), c.offset, p.type))
            else:
                start.append(f.arg("scratch"))
            down, across = self.plan.grid
            with f.loop(f.arg("lo"), f.arg("hi")) as unit:
                rest = f.udiv(unit.index, across)
                place = (f.urem(rest, down), f.urem(unit.index, across))
                batch = f.udiv(rest, down) if at.batch else f.add(0, 0)
                index = batch_index(f, batch, at.batch)
                moved = [
                    f.at(pointer, dot(f, index, x.batch), p.type)
                    for pointer, x in zip(start, (a, b, c), strict=True)
                ]
                gemm.unit(f, (moved[0], moved[1], moved[2]), f.arg("scratch"), place, batch)
        f.finish()


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
        self.units = copies * self.plan.across.count

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
        p = at.product
        to = self.packed(at)
        shape = tuple(n for n, step in zip(at.batch, to.batch, strict=True) if step)
        steps = [(b, t) for b, t in zip(at.b.batch, to.batch, strict=True) if t]
        f = Function(module, name, PARAMETERS)
        source = f.at(buffers[at.b.base].pointer(f), at.b.offset, p.type)
        packed = buffers[self.output].pointer(f)
        with f.loop(f.arg("lo"), f.arg("hi")) as unit:
            panel = f.urem(unit.index, self.plan.across.count)
            index = batch_index(f, f.udiv(unit.index, self.plan.across.count), shape)
            pointers = (
                f.at(source, dot(f, index, [b for b, _ in steps]), p.type),
                f.at(packed, dot(f, index, [t for _, t in steps]), p.type),
            )
            pack_panel(f, p, self.plan, panel, pointers)
        f.finish()


# --- where operands lie ---------------------------------------------------------------------------


def product_of(ops: Sequence[Op]) -> Op:
    """The one matmul of a group."""
    (op,) = [op for op in ops if op.name == "matmul"]
    return op


def leaves(ops: Sequence[Op], values: Sequence[Value]) -> list[Value]:
    """The values in memory from which a group's operations make `values`."""
    found: dict[Value, None] = {}
    for value in values:
        if value.op is not None and value.op in ops and value.op.name != "matmul":
            found.update(dict.fromkeys(leaves(ops, value.op.inputs)))
        elif value.op is None or value.op not in ops:
            found[value] = None
    return list(found)


def expected(ops: Sequence[Op]) -> Layout:
    """The layout if all buffers are row-major."""
    op = product_of(ops)
    return find_layout(op, _rowmajor([*leaves(ops, op.inputs), op.output]))


def _rowmajor(values: Sequence[Value]) -> dict[Value, Buffer]:
    return {v: Buffer(0, 0, v.shape, strides_of(v.shape), v.dtype) for v in values}


def find_layout(op: Op, buffers: Buffers, stored: bool = True, swap: bool | None = None) -> Layout:
    """Where a matmul's operands and result lie.

    Arguments:
        stored: whether the result goes to its buffer as it is; else it is taken for row-major.
        swap: whether to compute C^T = B^T @ A^T; None chooses what lets C be stored in vectors.

    Raises:
        LayoutError: if an operand is no view of a buffer.
    """
    seen = []
    places = [buffers, buffers, buffers if stored else _rowmajor([op.output])]
    for value, where in zip((*op.inputs, op.output), places, strict=True):
        view = views.resolve(value, where)
        if view is None:
            raise LayoutError(f"{op} cannot read {value} where it lies.")
        seen.append(view)
    x, y, z = seen
    depth = x.shape[-1]
    a, b, c = (Operand(v.base, v.offset, v.strides[:-2]) for v in seen)
    batch = z.shape[:-2]
    rows, row_steps = z.shape[-2], [v.strides[-2] for v in (x, z)]
    merged = _merge_rows(x, y, z) if math.prod(batch) > 1 else None
    if merged is not None:
        rows, row_steps = merged
    if merged is not None or math.prod(batch) == 1:
        batch, a, b, c = (), replace(a, batch=()), replace(b, batch=()), replace(c, batch=())
    columns = z.shape[-1]
    # Strides along an axis of one element mean nothing: let them be as is most convenient.
    product = Product(
        rows,
        columns,
        depth,
        type_of(op.output.dtype),
        (row_steps[0] if rows > 1 else depth, x.strides[-1] if depth > 1 else 1),
        (y.strides[-2] if depth > 1 else columns, y.strides[-1] if columns > 1 else 1),
        (row_steps[1] if rows > 1 else columns, z.strides[-1] if columns > 1 else 1),
    )
    if swap is None:
        swap = (columns == 1 and rows > 1) or (product.c[1] != 1 and product.c[0] == 1)
    if swap:
        return Layout(product.transposed, batch, b, a, c, True)
    return Layout(product, batch, a, b, c, False)


def _merge_rows(x: views.View, y: views.View, z: views.View) -> tuple[int, list[int]] | None:
    """Rows and row strides of A and C with the batch axes among the rows, if B is repeated."""
    if any(s for n, s in zip(y.shape[:-2], y.strides[:-2], strict=True) if n > 1):
        return None
    steps = []
    for v in (x, z):
        joined = views.regroup(v.shape[:-1], v.strides[:-1], (math.prod(v.shape[:-1]),))
        if joined is None:
            return None
        steps.append(joined[0])
    return math.prod(z.shape[:-1]), steps


def batch_index(f: Function, number: Int, shape: Shape) -> list[Int]:
    """The indices along each axis of batch `number`."""
    index: list[Int] = []
    for n in reversed(shape):
        index.append(f.urem(number, n))
        number = f.udiv(number, n)
    return index[::-1]


def dot(f: Function, index: Sequence[Int], steps: Sequence[int]) -> Int:
    """The sum of index times step."""
    total: Int = 0
    for i, step in zip(index, steps, strict=True):
        total = f.add(total, f.mul(i, step))
    return total
