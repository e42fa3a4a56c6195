"""Loop kernels: any group of elementwise operations, movements and reductions as fused loops."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import scalar
from chainrule.compiler.native.emitter import Emitter
from chainrule.compiler.native.expressions import HANDLERS, REDUCTIONS, Unfusable, product
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Buffers, Kernel, strides_of
from chainrule.compiler.native.loops_emit import NestWriter
from chainrule.compiler.native.loops_key import Likeness
from chainrule.compiler.native.loops_order import arrange
from chainrule.compiler.native.loops_pass import RowPlan
from chainrule.compiler.native.loops_plan import Group, Nest, in_blocks, reachable
from chainrule.compiler.native.target import host
from chainrule.compiler.native.text import Function, Module
from chainrule.graph import Array

UNIT = 4096  # elements of a cheap expression in one unit of work
SCRATCH = 1 << 20  # bytes that may be kept between the passes over a row


def supports(op: Op) -> bool:
    """Whether a loop kernel can compute an operation."""
    if any(x.dtype.kind == "c" for x in (*op.inputs, *op.outputs)):
        return False
    if op.name in HANDLERS and op.name != "cast":
        return True
    return op.name in REDUCTIONS or scalar.supports(op)


class LoopKernel(Kernel):
    """Elementwise operations, movements and reductions, in as few nests of loops as possible.

    Arguments:
        ops: the operations, all of them supported.
        outputs: those of their values that go to buffers.
        constants: arrays of values that are known (graph.constants); numbers among them become part
            of the code.

    An output may lie where a value lies that is read at the same indices only.

    Raises:
        Unfusable: if an operation of the group cannot be computed together with the others; a
            single supported operation always can.
    """

    family: ClassVar[str] = "loops"

    def __init__(
        self,
        ops: Collection[Op],
        outputs: Sequence[Value],
        constants: Mapping[Value, Array] | None = None,
        partials: Mapping[Value, Value] | None = None,
    ):
        self.constants, self.partials = constants or {}, partials or {}
        self._set(ops, outputs, Group(list(ops), constants, partials).nests(outputs))

    def _set(self, ops: Collection[Op], outputs: Sequence[Value], nests: list[Nest]) -> None:
        self.ops, self.writes, self.nests = list(ops), list(outputs), nests
        self.reads = list(dict.fromkeys(v for n in nests for v in n.reads()))
        plans = [plan_of(nest, {}) for nest in nests]
        self.nest_units = [self._units_of(nest) for nest in nests]
        self.units = sum(self.nest_units)
        self.scratch = max(map(_scratch_of, plans), default=0)

    @classmethod
    def in_blocks(
        cls, ops: Collection[Op], nest: Nest, count: int
    ) -> tuple[LoopKernel, dict[Value, Value]]:
        """The kernel of a nest's first reductions in so many blocks, and its results."""
        partials = in_blocks(nest, count)
        kernel = cls.__new__(cls)
        used = under([z.op for z in partials if z.op is not None], ops)
        kernel.constants, kernel.partials = {}, {}
        kernel._set(used, list(dict.fromkeys(partials.values())), [nest])
        return kernel, partials

    def settled(self, strides: Mapping[Value, tuple[int, ...]]) -> list[LoopKernel]:
        """Where a few long rows are reduced, several kernels: see `in_blocks`."""
        plans = [plan_of(nest, strides) for nest in self.nests]
        for plan in plans:
            if _too_long(plan):
                return _split(self.ops, self.writes, self.constants, plan.nest, strides)
        self.scratch = max(map(_scratch_of, plans), default=0)
        return [self]

    @property
    def flops(self) -> int:
        """Without what another kernel has done in blocks, whose results are added up here."""
        if not self.partials:
            return super().flops
        rest = [op for op in self.ops if op.output not in self.partials]
        rest = under([z.op for z in self.writes if z.op in rest], rest)
        own = sum(op.primitive.flops(op.outputs, *op.inputs, **op.params) for op in rest)
        return own + sum(part.size for part in self.partials.values())

    def _units_of(self, nest: Nest) -> int:
        """Units by the problem's shape."""
        work = nest.size * max(1, nest.cost // 4)
        most = product(v.extent for v in nest.rows)
        if not nest.inner:
            most = -(-most // 256)
        return max(1, min(most, work // UNIT))

    def likeness(self) -> tuple[Any, Sequence[Value]]:
        found = Likeness(self.nests)
        return (found.key, tuple(self.nest_units), self.scratch), list(found.values)

    def may_overwrite(self, read: Value, write: Value) -> bool:
        """Every place that reads the one reads it at the index where the other is then written."""
        (mine,) = [n for n in self.nests if any(z is write for z, *_ in n.outputs)] or [None]
        if mine is None or any(read in n.reads() for n in self.nests if n is not mine):
            return False
        ((index, stage),) = [(i, node.stage) for z, i, node in mine.outputs if z is write]
        loads = [n for n in mine.nodes() if n.kind == "load" and n.data[0] is read]
        if any(n.data[1:] != (index, ()) for n in loads):
            return False
        if not frozenset(mine.inner) & frozenset().union(*(f.roots() for f in index)):
            return True  # written when all is done
        later = [node for *_, node in mine.outputs if node.stage > stage]
        later += [n.inputs[0] for found in mine.stages[stage + 1 :] for n in found]
        return not set(loads) & set(reachable(later, known=True))

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        first = 0
        pointers = {}
        for nest, units in zip(self.nests, self.nest_units, strict=True):
            order = arrange(nest, buffers, f.target)
            em = Emitter(
                f, buffers, nest.expressions, order.lane, order.merged, pointers, order.pair
            )
            lo, hi = f.arg("lo"), f.arg("hi")
            if len(self.nests) > 1:
                lo = f.smin(f.smax(f.sub(lo, first), 0), units)
                hi = f.smin(f.smax(f.sub(hi, first), 0), units)
            NestWriter(em, nest, order, units, self.scratch).write(lo, hi)
            em.finish()
            first += units
        f.finish()


def under(last: Sequence[Op], ops: Collection[Op]) -> list[Op]:
    """Those of some operations that others are computed from, in order."""
    wanted, todo = set(last), list(last)
    known = set(ops)
    while todo:
        for x in todo.pop().inputs:
            if x.op in known and x.op not in wanted:
                wanted.add(x.op)
                todo.append(x.op)
    return [op for op in ops if op in wanted]


def _scratch_of(plan: RowPlan) -> int:
    """Bytes to keep what is dear."""
    kept = plan.keep(range(plan.instances)) if not plan.flat else {}
    return max([one.end for one in kept.values()], default=0)


# --- kernels of a group ---------------------------------------------------------------------------

SPLIT = 1 << 16  # elements (of a cheap expression); rows of more are reduced in blocks
FEW = 8  # ... if there are fewer units than that
MOST_BLOCKS = 64


def kernels(
    ops: Collection[Op], outputs: Sequence[Value], constants: Mapping[Value, Array] | None = None
) -> list[LoopKernel]:
    """The kernel of a group; when it is known how values lie, `settled` may make several of it."""
    return [LoopKernel(ops, outputs, constants)]


def _split(
    ops: Collection[Op],
    outputs: Sequence[Value],
    constants: Mapping[Value, Array],
    nest: Nest,
    strides: Mapping[Value, tuple[int, ...]],
) -> list[LoopKernel]:
    """A group in which a nest's rows are too few and too long to be shared out.

    The first reductions are done in blocks, whose results lie in values of no graph; further
    kernels make the reductions of them, and do what then is left.
    """
    values = [z for node in nest.stages[0] for z in nest.expressions.reduced[node]]
    count = max(2, min(MOST_BLOCKS, nest.size * max(1, nest.cost // 4) // (SPLIT // 2)))
    first, partials = LoopKernel.in_blocks(ops, nest, count)
    try:
        return [first, LoopKernel(ops, outputs, constants, partials)]
    except Unfusable:
        pass
    made = [z.op for z in values if z.op is not None]
    joined = LoopKernel(made, values, constants, partials)
    rest = [z for z in outputs if z not in values]
    left = under([z.op for z in rest if z.op is not None], [op for op in ops if op not in made])
    last = LoopKernel(left, rest, constants).settled(strides) if rest else []
    return [first, joined, *last]


def plan_of(nest: Nest, strides: Mapping[Value, tuple[int, ...]]) -> RowPlan:
    """How a nest is done if its values lie row-major, but for some."""
    values = [z for z, *_ in nest.outputs] + nest.reads()
    buffers = {
        v: Buffer(0, 0, v.shape, strides.get(v) or strides_of(v.shape), v.dtype) for v in values
    }
    return RowPlan(nest, arrange(nest, buffers, host()), host(), SCRATCH)


def _too_long(plan: RowPlan) -> bool:
    """Whether a nest's rows are too few and too long to be shared out."""
    nest, order = plan.nest, plan.order
    if not nest.stages or any(node.data[2] is not None for node in nest.stages[0]):
        return False
    rows = product(v.extent for v in nest.rows)
    if order.lane_in_rows and order.lane is not None:
        rows = rows // order.lane.extent * -(-order.lane.extent // (order.lanes * plan.instances))
    return rows < FEW and nest.size * max(1, nest.cost // 4) >= SPLIT
