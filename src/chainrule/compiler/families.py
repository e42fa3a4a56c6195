"""The families of kernels that are not plain loops: what each computes, and what it can take along.

A family says which operations are its own (`supports`), through which movements it reads its inputs
(`reads`), which arithmetic on its result it does before it writes it (`takes`), and makes the
kernels (`lower`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.compiler import branching, looping
from chainrule.compiler.ir import Graph, Op, Value
from chainrule.compiler.native import (
    checks,
    conv,
    gather,
    matmul,
    pool,
    random,
    scan1d,
    sort,
    views,
)
from chainrule.compiler.native.kernel import Buffer, Kernel, strides_of
from chainrule.compiler.native.target import Target
from chainrule.compiler.paths import MOVEMENTS


class Family:
    """A family whose kernels compute one operation and read inputs that have buffers."""

    fuses = False

    def supports(self, op: Op) -> bool:
        raise NotImplementedError

    def reads(self, value: Value, base: Value) -> bool:
        """Whether an input may be a view of another value."""
        return False

    def takes(self, group: Any, op: Op) -> bool:
        """Whether a group that began with this family's operation may take another one."""
        return False

    def lower(
        self, first: Op, ops: Sequence[Op], outputs: Sequence[Value], graph: Graph, target: Target
    ) -> list[Kernel]:
        """The kernels.

        Arguments:
            first: the operation of the family.
            ops: it, the movements before it and what it takes along, in order.
            outputs: the values that others read.
        """
        raise NotImplementedError


class Products(Family):
    """Matrix products of views of any strides, and arithmetic on each element of the result."""

    fuses = True

    def supports(self, op: Op) -> bool:
        return matmul.supports([op])

    def reads(self, value: Value, base: Value) -> bool:
        return is_view(value, base)

    def takes(self, group: Any, op: Op) -> bool:
        return op.output.shape == group.shape and op.name not in MOVEMENTS

    def lower(
        self, first: Op, ops: Sequence[Op], outputs: Sequence[Value], graph: Graph, target: Target
    ) -> list[Kernel]:
        return matmul.lower(ops, outputs, target, graph.constants)


class Convolutions(Family):
    """Convolutions in three directions; arithmetic on each element of an image that they make."""

    fuses = True

    def supports(self, op: Op) -> bool:
        return conv.supports(op)

    def takes(self, group: Any, op: Op) -> bool:
        return op.name not in MOVEMENTS and conv.takes(group.first, op)

    def lower(
        self, first: Op, ops: Sequence[Op], outputs: Sequence[Value], graph: Graph, target: Target
    ) -> list[Kernel]:
        return conv.lower(first, ops, outputs, graph.constants)


class Windows(Family):
    def supports(self, op: Op) -> bool:
        return pool.supports(op)

    def lower(
        self, first: Op, ops: Sequence[Op], outputs: Sequence[Value], graph: Graph, target: Target
    ) -> list[Kernel]:
        return pool.kernels(first)


class Checks(Family):
    def supports(self, op: Op) -> bool:
        return checks.supports(op)

    def lower(
        self, first: Op, ops: Sequence[Op], outputs: Sequence[Value], graph: Graph, target: Target
    ) -> list[Kernel]:
        return [checks.CheckKernel(first)]


class Positions(Family):
    """Gather and scatter, order, running sums and random bits: one kernel each."""

    rooms = (gather, scan1d, sort, random)

    def supports(self, op: Op) -> bool:
        return any(room.supports(op) for room in self.rooms)

    def lower(
        self, first: Op, ops: Sequence[Op], outputs: Sequence[Value], graph: Graph, target: Target
    ) -> list[Kernel]:
        return next(room.kernels(first) for room in self.rooms if room.supports(first))


class Steps(Family):
    """Loops over time whose bodies have kernels."""

    def supports(self, op: Op) -> bool:
        return looping.supports(op)

    def reads(self, value: Value, base: Value) -> bool:
        """Rows in another order are better copied once than read so at every step."""
        return is_view(value, base, ordered=True)

    def lower(
        self, first: Op, ops: Sequence[Op], outputs: Sequence[Value], graph: Graph, target: Target
    ) -> list[Kernel]:
        return looping.lower(first, [op for op in ops if op is not first], graph, target)


class Choices(Family):
    """Choices, and loops of unknown length, whose bodies have kernels."""

    def supports(self, op: Op) -> bool:
        return branching.supports(op)

    def lower(
        self, first: Op, ops: Sequence[Op], outputs: Sequence[Value], graph: Graph, target: Target
    ) -> list[Kernel]:
        return branching.lower(first, graph, target)


FAMILIES: tuple[Family, ...] = (
    Products(), Convolutions(), Windows(), Checks(), Positions(), Steps(),
    Choices(),
)  # fmt: skip


def family_of(op: Op) -> Family | None:
    """The family that an operation is its own of; None for plain loops, and for NumPy."""
    for family in FAMILIES:
        if family.supports(op):
            return family
    return None


def is_view(value: Value, base: Value, ordered: bool = False) -> bool:
    """Whether a value is a view of another one that lies row-major.

    Arguments:
        ordered: only if its own elements lie row-major, too.
    """
    buffer = Buffer(0, 0, base.shape, strides_of(base.shape), base.dtype)
    view = views.resolve(value, {base: buffer})
    if view is None or not ordered:
        return view is not None
    ends = zip(value.shape, view.strides, strides_of(value.shape), strict=True)
    return all(n == 1 or a == b for n, a, b in ends)
