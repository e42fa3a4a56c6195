"""From operations to kernels: which operations are computed together.

What a family of kernels of its own computes (products, convolutions, windows, checks, NumPy) starts
a group. Everything else is arithmetic at every element, movement, or reduction, and joins a group
where it can, in the order of the graph:

- a movement costs nothing where its result is read, so it belongs to its readers;
- so does cheap arithmetic on one value (a comparison, a cast, 1 - x): its readers do it again,
  which is cheaper than writing it to memory and reading it back; and any arithmetic that has one
  reader and reads one value, which must be kept for it in either case;
- other arithmetic joins the group of what it reads, at the same indices: as the epilogue of a
  product or a convolution, or in a loop over the same elements, or in a loop over rows whose
  reductions it reads;
- a reduction joins a group of its own rows.

Groups wait for each other and never in a circle (groups.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chainrule.compiler.families import Family, family_of
from chainrule.compiler.groups import Group, Groups
from chainrule.compiler.ir import Graph, Op, Value
from chainrule.compiler.native import loops, pool
from chainrule.compiler.native.expressions import REDUCTIONS, Unfusable
from chainrule.compiler.native.host import HostKernel
from chainrule.compiler.native.kernel import Kernel
from chainrule.compiler.native.loops import supports as loops_support
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.views import base_of
from chainrule.compiler.paths import MOVEMENTS, Axes, count, long, straight, through, visited
from chainrule.graph import Shape

DEAR = frozenset({
    "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "div", "pow", "sin", "cos", "tan",
    "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid", "erf",
    "erfinv", "logaddexp", "atan2", "hypot", "remainder", "floor_divide", "nextafter",
})  # fmt: skip
"""Arithmetic that is not done twice."""

CHEAP = 4  # operations that readers may do again
MOST = 120  # operations of a group: more are no faster, and long chains nest deeply
ALONG = 40  # operations that one reader does for itself
SMALL = 8  # a value with so many times fewer elements costs nothing to read
SERIAL = (
    1 << 15
)  # elements; fewer rows than FEW of more elements than that are too few to share out
FEW = 8


class Fusion:
    """Forming the groups of a graph, operation by operation."""

    def __init__(self, graph: Graph, siblings: bool = False):
        self.graph = graph
        self.groups = Groups()
        self.home = self.groups.home
        self.users = graph.users()
        self.wanted = set(graph.outputs)
        self._leaves: dict[Value, tuple[list[Value], list[Op]]] = {}
        for op in graph.ops:
            self._visit(op)
        for value in graph.outputs:
            self.demand(value)
        if siblings:
            self._join_siblings()
        for group in self.groups.groups.values():
            self._read_operands(group)

    def _join_siblings(self) -> None:
        """Let loops over the same elements that read the same values be one, if one is short.

        That spares calls where a kernel is short; elsewhere it would only keep values for longer.
        """
        loops = [g for g in self.groups.groups.values() if g.first is None and g.reduced is None]
        for group in loops:
            if sum(op.name not in MOVEMENTS for op in group.ops) > CHEAP:
                continue
            for other in loops:
                here = self.groups.groups.get(other.number) is other is not group
                if here and self._mergeable(other, group) and other.reads() & group.reads():
                    self.groups.merge(other, group)
                    break

    def _read_operands(self, group: Group) -> None:
        """What a product reads from memory is not done again for what follows the product."""
        if group.first is None:
            return
        for x in group.first.inputs:
            base = base_of(x)
            if base.op is not None and self.home.get(base) not in (None, group):
                group.ops.pop(base.op, None)

    def _visit(self, op: Op) -> None:
        family = family_of(op)
        if family is not None or not loops_support(op):
            self._begin(op, family)
        elif op.name in REDUCTIONS:
            self._reduce(op)
        elif op.name in MOVEMENTS:
            if len(self._under(op)[1]) > MOST:
                self._place(op)
            elif len(self.users.get(op.output, ())) > 1:
                self._keep_dear(op)
        elif not self._belongs_to_readers(op):
            self._place(op)

    # --- values that belong to their readers ------------------------------------------------------

    def leaves(self, value: Value) -> tuple[list[Value], list[Op]]:
        """What must lie in memory for a value to be read, and the operations from there to it."""
        if value in self.home or value.op is None:
            return [value], []
        found = self._leaves.get(value)
        if found is not None and not any(op.outputs[0] in self.home for op in found[1]):
            return found
        values, ops = self._under(value.op)
        self._leaves[value] = values, [*ops, value.op]
        return self._leaves[value]

    def _under(self, op: Op) -> tuple[list[Value], list[Op]]:
        """The same for all that an operation reads."""
        values: dict[Value, None] = {}
        ops: dict[Op, None] = {}
        for x in op.inputs:
            some, between = self.leaves(x)
            values.update(dict.fromkeys(some))
            ops.update(dict.fromkeys(between))
        return list(values), list(ops)

    def _belongs_to_readers(self, op: Op) -> bool:
        """Whether an operation is done by those who read it, each for itself."""
        values, ops = self._under(op)
        if len(ops) > ALONG:
            return False
        large = [
            v for v in values
            if v not in self.graph.constants and v.size * SMALL > op.output.size
        ]  # fmt: skip
        reader = self._only_reader(op.output)
        if reader is not None and count(visited(reader)) <= op.output.size:
            if len(large) <= 1:
                return True
            # Products and the like take no reductions along: this would be written, and read again.
            homes = self.groups.homes(values)
            if reader.name in REDUCTIONS and homes:
                return max(homes, key=lambda g: g.number).first is not None
        work = sum(o.name not in MOVEMENTS for o in ops)
        dear = op.name in DEAR or any(o.name in DEAR for o in ops)
        return len(large) <= 1 and work < CHEAP and not dear

    def _only_reader(self, value: Value, depth: int = 8) -> Op | None:
        """The one operation of loops that reads a value, if need be through movements."""
        users = self.users.get(value, ())
        if value in self.wanted or len(users) != 1 or not depth:
            return None
        (user,) = users
        if user.name in MOVEMENTS:
            return self._only_reader(user.output, depth - 1)
        return user if loops_support(user) and family_of(user) is None else None

    def _keep_dear(self, movement: Op) -> None:
        """What several will read through a movement is not done by each of them, if it is dear."""
        _, ops = self._under(movement)
        if any(op.name in DEAR for op in ops):
            last = next(op for op in reversed(ops) if op.name not in MOVEMENTS)
            self.demand(last.output)

    def demand(self, value: Value) -> None:
        """See to it that a value lies in memory."""
        if value not in self.home and value.op is not None:
            self._place(value.op)

    # --- operations with kernels of their own -----------------------------------------------------

    def _begin(self, op: Op, family: Family | None) -> None:
        group = self.groups.start(op.outputs[0].shape, first=op, family=family)
        bases, seen = [], []
        for x in dict.fromkeys(op.inputs):
            base, path = self._readable(x, family)
            self.demand(base)
            bases.append(base)
            seen += path
        self.groups.add(group, op, seen, bases)

    def _readable(self, x: Value, family: Family | None) -> tuple[Value, list[Op]]:
        """What a kernel of its own reads for an input, and the movements that it sees through."""
        path: list[Op] = []
        base = x
        while base not in self.home and base.op is not None and base.op.name in MOVEMENTS:
            if len(base.op.inputs) != 1 or base.op.name == "pad":
                break
            path.append(base.op)
            base = base.op.inputs[0]
        if path and (family is None or not family.reads(x, base)):
            return x, []
        return base, path[::-1]

    # --- arithmetic -------------------------------------------------------------------------------

    def _place(self, op: Op) -> None:
        """Put arithmetic (or a movement that must be done) into a group."""
        self._dissolve(op)
        values, between = self._under(op)
        homes = self.groups.homes(values)
        candidates = sorted((g for g in homes if self._takes(g, op, homes)), key=lambda g: g.number)
        if not candidates:
            self.groups.add(self.groups.start(op.output.shape), op, between, values)
            return
        group = candidates.pop()
        for other in reversed(candidates):
            if self._mergeable(group, other):
                keep, gone = (other, group) if other.first is not None else (group, other)
                self.groups.merge(keep, gone)
                group = keep
        self.groups.add(group, op, between, values)

    def _takes(self, group: Group, op: Op, homes: list[Group]) -> bool:
        """Whether a group can compute an operation along with what it has."""
        shape = op.output.shape
        if len(group.ops) >= MOST:
            return False
        if group.first is not None and (group.family is None or not group.family.takes(group, op)):
            return False
        full = shape == group.shape
        if not full and (
            group.reduced is None
            or long(shape) != group.rows
            or self._would_delay(group, op, homes)
        ):
            return False
        return self.groups.may_read(group, homes) and all(
            self.home.get(value) is not group or self._fits(group, value, axes, full, shape)
            for value, axes in self._paths(op)
        )

    def _would_delay(self, group: Group, op: Op, homes: list[Group]) -> bool:
        """Whether others that read a group would have to wait longer, for a small operation."""
        later = [
            other for other in homes
            if other.depends.bit_count() > group.depends.bit_count() and other is not group
        ]  # fmt: skip
        if all(group.depends >> g.number & 1 or self._mergeable(group, g) for g in later):
            return False
        return any(
            user is not op and user not in group.ops
            for z in group.placed
            for user in self.users.get(z, ())
        )

    def _fits(
        self, group: Group, value: Value, axes: Axes | None, full: bool, shape: Shape
    ) -> bool:
        """Whether the element of a group's value that is read is the one at hand."""
        if axes is None:
            return False
        used = tuple(a for a in axes if a is not None)
        whole = count(group.shape)
        if value.size == whole or (value.shape == group.shape and group.reduced is None):
            everything = tuple(a for a, n in enumerate(shape) if n != 1)
            return full and used == everything and value.shape == group.shape
        if group.reduced is None:
            return False
        # A row's value is read by the elements of the row, or by another value of the row.
        if full and group.rows and count(group.rows) < FEW and count(shape) > SERIAL:
            return False
        inner = group.reduced if full else ()
        return used == tuple(a for a, n in enumerate(shape) if n != 1 and a not in inner)

    def _mergeable(self, x: Group, y: Group) -> bool:
        if x.shape != y.shape or (x.first is not None and y.first is not None):
            return False
        if len(x.ops) + len(y.ops) > MOST:
            return False
        reduced = {g.reduced for g in (x, y)} - {None}
        if len(reduced) > 1 or (reduced and (x.first or y.first) is not None):
            return False
        # Sums of different things would only wait for each other.
        if x.reduced is not None and y.reduced is not None and not x.reads() & y.reads():
            return False
        return self.groups.may_merge(x, y)

    def _dissolve(self, op: Op) -> None:
        """Hand what only this operation reads, in another order than its own, over to it."""
        for value, axes in list(self._paths(op)):
            group = self.home.get(value)
            if group is None or group.first is not None or group.reduced is not None:
                continue
            if axes == straight(visited(op)) or count(visited(op)) > count(group.shape):
                continue
            if all(self._leads_only_to(z, op, group) for z in group.placed):
                if self.groups.read_by_others(group):  # through `op`, which costs them nothing
                    continue
                self.groups.remove(group)
                self._leaves.clear()

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

    def _paths(self, op: Op) -> Iterator[tuple[Value, Axes | None]]:
        """The values in memory under an operation, and how the axes that it visits run through."""
        start: Axes | None = straight(visited(op))
        if op.name in MOVEMENTS:
            start = through(op, start)
        stack = [(x, start) for x in op.inputs]
        seen: set[Any] = set()
        while stack:
            value, axes = stack.pop()
            if (value, axes) in seen:
                continue
            seen.add((value, axes))
            if value.op is None or value in self.home:
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
        homes = self.groups.homes(values)
        for group in sorted(homes, key=lambda g: -g.number):
            if self._takes_reduction(group, op, reduced, homes):
                group.reduced = reduced
                break
        else:
            group = self.groups.start(x.shape, reduced=reduced)
        self.groups.add(group, op, between, values)

    def _takes_reduction(
        self, group: Group, op: Op, reduced: tuple[int, ...], homes: list[Group]
    ) -> bool:
        shape = op.inputs[0].shape
        if group.first is not None or group.shape != shape or len(group.ops) >= MOST:
            return False
        if group.reduced is not None and group.reduced != reduced:
            return False
        if not self.groups.may_read(group, homes):
            return False
        rows = count(tuple(n for a, n in enumerate(shape) if a not in reduced))
        few = rows < FEW and count(shape) > SERIAL
        if few and not all(self._leads_only_to(z, op, group) for z in group.placed):
            return False
        trial = Group(group.number, group.shape, reduced)
        return all(
            self.home.get(value) is not group or self._fits(trial, value, axes, True, shape)
            for value, axes in self._paths(op)
        )


# --- from groups to kernels -----------------------------------------------------------------------


def kernels(graph: Graph, target: Target | None, siblings: bool = False) -> list[Kernel]:
    """The kernels of a graph.

    Arguments:
        siblings: kernels that read the same are one even if neither needs the other.
    """
    if target is None:
        return [kernel for op in graph.ops for kernel in kernels_of(op, None, graph)]
    fusion = Fusion(graph, siblings)
    order = {op: i for i, op in enumerate(graph.ops)}
    reading = _outputs(fusion)
    made: list[Kernel] = []
    apart: set[Value] = set()
    for group in fusion.groups.groups.values():
        ops = sorted(group.ops, key=order.__getitem__)
        outputs = sorted(reading[group.number], key=lambda z: order[z.op])  # type: ignore[index]
        if group.first is None:
            made += _loops(graph, group, ops, outputs, apart)
        elif group.family is None:
            made += kernels_of(group.first, None, graph)
        else:
            made += group.family.lower(group.first, ops, outputs, graph, target)
    return pool.paired(made, graph.outputs)


def _outputs(fusion: Fusion) -> dict[int, set[Value]]:
    """The values of each group that others read."""
    groups, home = fusion.groups.groups, fusion.home
    read: dict[int, set[Value]] = {number: set() for number in groups}
    for value in fusion.graph.outputs:
        if value in home:
            read[home[value].number].add(value)
    for group in groups.values():
        mine = {z for op in group.ops for z in op.outputs}
        for op in group.ops:
            for x in op.inputs:
                if x in home and x not in mine:
                    read[home[x].number].add(x)
        if group.first is not None and (group.family is None or not group.family.fuses):
            read[group.number].update(group.first.outputs)
    for group in groups.values():
        if group.first is not None and not read[group.number]:
            read[group.number].update(group.first.outputs)
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
        return [*loops.kernels(ops, outputs, graph.constants)]
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
    if target is not None:
        family = family_of(op)
        if family is not None:
            return family.lower(op, [op], list(op.outputs), graph, target)
        if loops_support(op):
            return [*loops.kernels([op], op.outputs, graph.constants)]
    return [HostKernel(op)]
