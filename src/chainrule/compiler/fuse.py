"""From operations to kernels: which operations are computed together.

What a family of kernels of its own computes (products, convolutions, windows, checks, NumPy) starts
a group. Everything else is arithmetic at every element, movement, or reduction, and joins a group
where it can, in the order of the graph:

- a movement costs nothing where its result is read, so it belongs to its readers;
- so does cheap arithmetic on one value (a comparison, a cast, 1 - x): its readers do it again, which
  is cheaper than writing it to memory and reading it back;
- other arithmetic joins the group of what it reads, at the same indices: as the epilogue of a
  product, or in a loop over the same elements, or in a loop over rows whose reductions it reads;
- a reduction joins a group of its own rows.

A group is computed at once, so no group may wait for another one that waits for it. Each group
knows the groups that it depends on, and an operation joins only where no path would leave the group
and come back (`Groups.may_read`, `Groups.may_merge`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from chainrule.compiler.families import Family, family_of
from chainrule.compiler.ir import Graph, Op, Value
from chainrule.compiler.native import loops, pool
from chainrule.compiler.native.expressions import REDUCTIONS, Unfusable
from chainrule.compiler.native.kernel import Kernel
from chainrule.compiler.native.loops import supports as loops_support
from chainrule.compiler.native.target import Target
from chainrule.graph import Shape

MOVEMENTS = frozenset({
    "reshape", "permute", "broadcast_to", "slice", "flip", "pad", "concat", "alias", "copy", "detach",
})  # fmt: skip
DEAR = frozenset({
    "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "div", "pow", "sin", "cos", "tan", "asin",
    "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid", "erf", "erfinv",
    "logaddexp", "atan2", "hypot", "remainder", "floor_divide", "nextafter",
})  # fmt: skip
"""Arithmetic that is not done twice."""

CHEAP = 4  # operations that readers may do again
SMALL = 8  # a value with so many times fewer elements costs nothing to read
SERIAL = 1 << 15  # elements; fewer rows than FEW of more elements than that are too few to share out
FEW = 8

Axes = tuple[int | None, ...]
"""For each axis of a value the axis of a reader's element that runs along it; None if of length 1."""


@dataclass(eq=False)
class Group:
    """Operations that one kernel computes.

    Attributes:
        number: its bit in the sets of groups.
        shape: the shape whose elements are visited.
        reduced: the axes that its reductions run over; None without reductions.
        first: the operation of a family of its own that it began with, if any.
        ops: the operations, those that are done again for it included.
        placed: the values that it makes for others.
        depends: the groups that it waits for, as bits.
    """

    number: int
    shape: Shape
    reduced: tuple[int, ...] | None = None
    first: Op | None = None
    family: Family | None = None
    ops: dict[Op, None] = field(default_factory=dict)
    placed: set[Value] = field(default_factory=set)
    depends: int = 0

    @property
    def rows(self) -> Shape:
        """The shape without the axes that are reduced and those of length 1."""
        reduced = self.reduced or ()
        return tuple(n for a, n in enumerate(self.shape) if n != 1 and a not in reduced)


class Groups:
    """The groups of a graph, while they are being formed."""

    def __init__(self, graph: Graph, target: Target):
        self.graph, self.target = graph, target
        self.groups: dict[int, Group] = {}
        self.home: dict[Value, Group] = {}
        self.users = graph.users()
        self.wanted = set(graph.outputs)
        self.lone: set[Op] = set()
        self._leaves: dict[Value, tuple[list[Value], list[Op]]] = {}
        for op in graph.ops:
            self._visit(op)
        for value in graph.outputs:
            self.demand(value)

    # --- what waits for what ----------------------------------------------------------------------

    def _start(self, shape: Shape, **how: Any) -> Group:
        number = max(self.groups, default=-1) + 1
        group = self.groups[number] = Group(number, shape, **how)
        return group

    def _need(self, group: Group, others: Iterable[Group]) -> None:
        """Let a group wait for others."""
        new = 0
        for other in others:
            if other is not group:
                new |= other.depends | 1 << other.number
        new &= ~group.depends
        if new:
            bit = 1 << group.number
            for one in self.groups.values():
                if one is group or one.depends & bit:
                    one.depends |= new

    def _may_read(self, group: Group, others: Iterable[Group]) -> bool:
        """Whether a group may wait for others: none of them waits for it."""
        bit = 1 << group.number
        return not any(other.depends & bit for other in others if other is not group)

    def _may_merge(self, x: Group, y: Group) -> bool:
        """Whether two groups may be one: no third one is between them."""
        for first, last in ((x, y), (y, x)):
            bit, rest = 1 << first.number, last.depends & ~(1 << first.number)
            for number, group in self.groups.items():
                if rest >> number & 1 and group.depends & bit:
                    return False
        return True

    def _merge(self, kept: Group, gone: Group) -> None:
        before, after = 1 << gone.number, 1 << kept.number
        del self.groups[gone.number]
        kept.ops.update(gone.ops)
        kept.placed |= gone.placed
        kept.reduced = kept.reduced if kept.reduced is not None else gone.reduced
        self.home.update(dict.fromkeys(gone.placed, kept))
        depends = (kept.depends | gone.depends) & ~(before | after)
        for one in self.groups.values():
            if one.depends & (before | after):
                one.depends = (one.depends & ~before) | after | depends
        kept.depends = depends

    # --- values that belong to their readers ------------------------------------------------------

    def leaves(self, value: Value) -> tuple[list[Value], list[Op]]:
        """What must lie in memory for a value to be read, and the operations from there to it."""
        if value in self.home or value.op is None or value.op in self.lone:
            return [value], []
        found = self._leaves.get(value)
        if found is None:
            values: dict[Value, None] = {}
            ops: dict[Op, None] = {}
            for x in value.op.inputs:
                some, between = self.leaves(x)
                values.update(dict.fromkeys(some))
                ops.update(dict.fromkeys(between))
            ops[value.op] = None
            found = self._leaves[value] = (list(values), list(ops))
        elif any(op.outputs[0] in self.home for op in found[1]):
            del self._leaves[value]  # something in between has got memory since
            return self.leaves(value)
        return found

    def _is_cheap(self, op: Op) -> bool:
        """Whether readers may do an operation again."""
        if op.name in MOVEMENTS:
            return True
        if op.name in DEAR:
            return False
        values, ops = self._under(op)
        large = [
            v for v in values
            if v not in self.graph.constants and v.size * SMALL > op.output.size
        ]  # fmt: skip
        work = sum(o.name not in MOVEMENTS for o in ops)
        return len(large) <= 1 and work < CHEAP

    def _under(self, op: Op) -> tuple[list[Value], list[Op]]:
        values: dict[Value, None] = {}
        ops: dict[Op, None] = {}
        for x in op.inputs:
            some, between = self.leaves(x)
            values.update(dict.fromkeys(some))
            ops.update(dict.fromkeys(between))
        return list(values), list(ops)

    # --- forming groups ---------------------------------------------------------------------------

    def _visit(self, op: Op) -> None:
        family = family_of(op)
        if family is not None or not loops_support(op):
            self._begin(op, family)
        elif op.name in REDUCTIONS:
            self._reduce(op)
        elif not self._is_cheap(op):
            self._place(op)

    def _begin(self, op: Op, family: Family | None) -> None:
        """A group for an operation with a kernel of its own."""
        group = self._start(op.outputs[0].shape, first=op, family=family)
        for x in dict.fromkeys(op.inputs):
            values, between = self._readable(x, family)
            group.ops.update(dict.fromkeys(between))
            self._need(group, self._homes(values))
        group.ops[op] = None
        self._settle(group, op)

    def _readable(self, x: Value, family: Family | None) -> tuple[list[Value], list[Op]]:
        """What a kernel of its own reads for an input, and the movements that it sees it through."""
        path: list[Op] = []
        base = x
        while base not in self.home and base.op is not None and base.op.name in MOVEMENTS:
            if len(base.op.inputs) != 1 or base.op.name == "pad":
                break
            path.append(base.op)
            base = base.op.inputs[0]
        if path and (family is None or not family.reads(x, base)):
            base, path = x, []
        self.demand(base)
        return [base], path[::-1]

    def demand(self, value: Value) -> None:
        """See to it that a value lies in memory."""
        if value not in self.home and value.op is not None:
            self._place(value.op)

    def _settle(self, group: Group, op: Op) -> None:
        for z in op.outputs:
            self.home[z] = group
            group.placed.add(z)

    def _homes(self, values: Iterable[Value]) -> list[Group]:
        return list(dict.fromkeys(self.home[v] for v in values if v in self.home))

    def _place(self, op: Op) -> None:
        """Put arithmetic (or a movement that must be done) into a group."""
        self._dissolve(op)
        values, between = self._under(op)
        homes = self._homes(values)
        candidates = [g for g in homes if self._takes(g, op, values, homes)]
        candidates.sort(key=lambda g: g.number)
        if candidates:
            group = candidates.pop()
            for other in reversed(candidates):
                if self._mergeable(group, other):
                    keep, gone = (other, group) if other.first is not None else (group, other)
                    self._merge(keep, gone)
                    group = keep
        else:
            group = self._start(op.output.shape)
        self._join(group, op, values, between)

    def _dissolve(self, op: Op) -> None:
        """Hand what only this operation reads, in another order than its own, over to it."""
        for value, axes in list(self._paths(op)):
            group = self.home.get(value)
            if group is None or group.first is not None or group.reduced is not None:
                continue
            if axes == tuple(a if n != 1 else None for a, n in enumerate(_visited(op))):
                continue
            if _count(_visited(op)) <= _count(group.shape) and self._is_only_for(group, op):
                del self.groups[group.number]
                for z in group.placed:
                    del self.home[z]
                self._leaves.clear()

    def _join(
        self, group: Group, op: Op, values: Sequence[Value], between: Sequence[Op]
    ) -> None:
        group.ops.update(dict.fromkeys(between))
        group.ops[op] = None
        self._need(group, self._homes(values))
        self._settle(group, op)

    def _mergeable(self, x: Group, y: Group) -> bool:
        if x.first is not None and y.first is not None:
            return False
        if (x.first is not None or y.first is not None) and (x.reduced or y.reduced) is not None:
            return False
        reduced = x.reduced is None or y.reduced is None or x.reduced == y.reduced
        return x.shape == y.shape and reduced and self._may_merge(x, y)

    def _takes(self, group: Group, op: Op, values: list[Value], homes: list[Group]) -> bool:
        """Whether a group can compute an operation along with what it has."""
        z = op.output
        if group.first is not None and (group.family is None or not group.family.takes(group, op)):
            return False
        full = z.shape == group.shape
        if not full and (group.reduced is None or _long(z.shape) != group.rows):
            return False
        if not self._may_read(group, homes):
            return False
        for value, axes in self._paths(op):
            if self.home.get(value) is group and not self._fits(group, value, axes, full, z.shape):
                return False
        return True

    def _fits(self, group: Group, value: Value, axes: Axes | None, full: bool, shape: Shape) -> bool:
        """Whether the element of a group's value that is read is the one at hand."""
        if axes is None:
            return False
        used = tuple(a for a in axes if a is not None)
        if (value.shape == group.shape and group.reduced is None) or value.size == _count(group.shape):
            everything = tuple(a for a, n in enumerate(shape) if n != 1)
            return full and used == everything and value.shape == group.shape
        if group.reduced is None:
            return False
        # A row's value is read by the elements of the row, or by another value of the row.
        kept = tuple(
            a for a, n in enumerate(shape) if n != 1 and not (full and a in group.reduced)
        )
        if full and len(group.rows) and _count(group.rows) < FEW and _count(shape) > SERIAL:
            return False
        return used == kept

    def _paths(self, op: Op) -> Iterator[tuple[Value, Axes | None]]:
        """The values in memory under an operation, and how the axes that it visits run through each."""
        start: Axes = tuple(a if n != 1 else None for a, n in enumerate(_visited(op)))
        if op.name in MOVEMENTS:
            stack = [(op.output, start)]
        else:
            stack = [(x, start) for x in op.inputs]
        seen: set[Any] = set()
        while stack:
            value, axes = stack.pop()
            if (value, axes) in seen:
                continue
            seen.add((value, axes))
            if value.op is None or (value in self.home and value is not op.output):
                yield value, axes
                continue
            for x in value.op.inputs:
                stack.append((x, axes if axes is None else through(value.op, axes)))

    # --- reductions -------------------------------------------------------------------------------

    def _reduce(self, op: Op) -> None:
        (x,) = op.inputs
        axes = op.params["axes"] if "axes" in op.params else (op.params["axis"],)
        reduced = tuple(a for a in axes if x.shape[a] != 1)
        self._dissolve(op)
        values, between = self._under(op)
        homes = self._homes(values)
        chosen = None
        for group in sorted(homes, key=lambda g: -g.number):
            if self._takes_reduction(group, op, x, reduced, homes):
                chosen = group
                break
        if chosen is None:
            chosen = self._start(x.shape, reduced=reduced)
        elif chosen.reduced is None:
            chosen.reduced = reduced
        self._join(chosen, op, values, between)

    def _takes_reduction(
        self, group: Group, op: Op, x: Value, reduced: tuple[int, ...], homes: list[Group]
    ) -> bool:
        if group.first is not None or group.shape != x.shape:
            return False
        if group.reduced is not None and group.reduced != reduced:
            return False
        if not self._may_read(group, homes):
            return False
        rows = _count(tuple(n for a, n in enumerate(x.shape) if a not in reduced))
        if rows < FEW and x.size > SERIAL and not self._is_only_for(group, op):
            return False
        trial = Group(group.number, group.shape, reduced)
        return all(
            self.home.get(value) is not group or self._fits(trial, value, axes, True, x.shape)
            for value, axes in self._paths(op)
        )

    def _is_only_for(self, group: Group, op: Op) -> bool:
        """Whether nobody but an operation reads what a group makes."""
        return all(self._leads_only_to(z, op, group) for z in group.placed)

    def _leads_only_to(self, value: Value, op: Op, group: Group, depth: int = 8) -> bool:
        """Whether a value is read by an operation alone, at once or through what costs nothing."""
        if value in self.wanted or not depth:
            return False
        for user in self.users.get(value, ()):
            if user is op or user in group.ops:
                continue
            if user.name not in MOVEMENTS or user.output in self.home:
                return False
            if not self._leads_only_to(user.output, op, group, depth - 1):
                return False
        return True


def _visited(op: Op) -> Shape:
    """The shape whose elements an operation goes through."""
    return op.inputs[0].shape if op.name in REDUCTIONS else op.output.shape


def _long(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


def _count(shape: Shape) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def through(op: Op, axes: Axes) -> Axes | None:
    """How the axes of an operation's output run through its (first) input; None if not straight."""
    x, z = op.inputs[0], op.output
    if op.name not in MOVEMENTS:
        return axes
    if op.name in ("alias", "copy", "detach"):
        return axes
    if op.name == "permute":
        found: list[int | None] = [None] * x.ndim
        for axis, source in zip(axes, op.params["axes"], strict=True):
            found[source] = axis
        return tuple(found)
    if op.name == "broadcast_to":
        last = axes[z.ndim - x.ndim :]
        return tuple(None if n == 1 else a for a, n in zip(last, x.shape, strict=True))
    if op.name == "reshape" and _long(x.shape) == _long(z.shape):
        rest = iter([a for a, n in zip(axes, z.shape, strict=True) if n != 1])
        return tuple(next(rest) if n != 1 else None for n in x.shape)
    return None


# --- from groups to kernels -----------------------------------------------------------------------


def kernels(graph: Graph, target: Target | None) -> list[Kernel]:
    """The kernels of a graph."""
    if target is None:
        return [kernel for op in graph.ops for kernel in kernels_of(op, None, graph)]
    groups = Groups(graph, target)
    order = {op: i for i, op in enumerate(graph.ops)}
    reading = _outputs(groups)
    made: list[Kernel] = []
    apart: set[Value] = set()
    for group in groups.groups.values():
        ops = sorted(group.ops, key=order.__getitem__)
        outputs = sorted(reading[group.number], key=lambda z: order[z.op])  # type: ignore[index]
        if group.first is None:
            made += _loops(graph, group, ops, outputs, apart)
        elif group.family is None:
            made += kernels_of(group.first, None, graph)
        else:
            made += group.family.lower(group.first, ops, outputs, graph, target)
    return pool.paired(made, graph.outputs)


def _outputs(groups: Groups) -> dict[int, set[Value]]:
    """The values of each group that others read."""
    read: dict[int, set[Value]] = {number: set() for number in groups.groups}
    for value in groups.graph.outputs:
        if value in groups.home:
            read[groups.home[value].number].add(value)
    for group in groups.groups.values():
        mine = {z for op in group.ops for z in op.outputs}
        for op in group.ops:
            for x in op.inputs:
                if x in groups.home and x not in mine:
                    read[groups.home[x].number].add(x)
    for group in groups.groups.values():
        if group.first is not None:  # all outputs of such an operation are written
            made = {z for z in group.first.outputs}
            if len(group.ops) == 1 or group.family is None or not group.family.fuses:
                read[group.number] |= made
    return read


def _loops(
    graph: Graph, group: Group, ops: list[Op], outputs: list[Value], apart: set[Value]
) -> list[Kernel]:
    """The kernels of a group of loops; if it cannot be one, of each value that it was formed for.

    Arguments:
        apart: the values that are written although they belong to their readers; several groups may
            need one.
    """
    try:
        return loops.kernels(ops, outputs, graph.constants)
    except Unfusable:
        pass
    made: list[Kernel] = []
    inner = [op for op in ops if op.output not in group.placed]
    for op in ops:
        if op.output not in group.placed:
            continue
        some = loops.under([op], [*inner, op])
        try:
            made += loops.kernels(some, op.outputs, graph.constants)
        except Unfusable:
            for one in some:
                if one.output not in apart:
                    apart.add(one.output)
                    made += loops.kernels([one], one.outputs, graph.constants)
    return made


def kernels_of(op: Op, target: Target | None, graph: Graph) -> list[Kernel]:
    """The kernels of one operation alone; NumPy's if no family has one, or without a target."""
    from chainrule.compiler.native.host import HostKernel

    if target is not None:
        family = family_of(op)
        if family is not None:
            return family.lower(op, [op], list(op.outputs), graph, target)
        if loops_support(op):
            return loops.kernels([op], op.outputs, graph.constants)
    return [HostKernel(op)]
