"""Planning loops: which outputs share a nest, its rows, and the passes over each row.

A *nest* computes outputs of one iteration space. Its variables fall into *rows* and *inner* ones:
the rows are what reductions keep, and for each row the inner variables are run through several
times, in passes, since a reduction's result must be there before what depends on it begins
(softmax: the largest, then the sum of e^x, then the quotients). Without reductions all variables
are rows and there are no passes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import index as ix
from chainrule.compiler.native.expressions import REDUCTIONS, Expressions, Node, Unfusable, product
from chainrule.compiler.native.index import ZERO, Form, Index, Var
from chainrule.graph import Array, Spec

CUTS = 24  # variables are cut in two at most so often to make reshapes come out even


@dataclass
class Nest:
    """One nest of loops.

    Attributes:
        expressions: the nodes.
        outputs: each value that it writes, at which index, and what.
        rows, inner: its variables.
        stages: the reductions of each pass.
        block: of a nest that reduces each row in blocks, the variable that counts them; each gives
            a result of its own.
    """

    expressions: Expressions
    outputs: list[tuple[Value, Index, Node]]
    rows: list[Var]
    inner: list[Var]
    stages: list[list[Node]]
    block: Var | None = None
    known: list[Node] | None = field(default=None, repr=False)

    def nodes(self) -> list[Node]:
        """The nodes that its outputs are made of, inputs first."""
        if self.known is None:
            self.known = list(reachable([node for *_, node in self.outputs]))
        return self.known

    def reads(self) -> list[Value]:
        """The values that it reads from buffers."""
        return list(dict.fromkeys(n.data[0] for n in self.nodes() if n.kind == "load"))

    @property
    def size(self) -> int:
        """Elements that are visited, in each pass."""
        return product(v.extent for v in (*self.rows, *self.inner) if v is not self.block)

    @property
    def row_cost(self) -> int:
        """Instructions for one row, beside those for its elements, roughly."""
        inner = frozenset(self.inner)
        return sum(n.cost for n in self.nodes() if n.kind == "apply" and not n.depends & inner)

    @property
    def cost(self) -> int:
        """Instructions for one element, roughly."""
        inner = frozenset(self.inner)
        nodes = self.nodes()
        return 1 + sum(n.cost for n in nodes if not self.inner or n.depends & inner)


def reachable(nodes: Sequence[Node], known: bool = False) -> Iterator[Node]:
    """All nodes under some nodes, each once, inputs first.

    Arguments:
        known: leave out what reductions are made of.
    """
    seen: set[Node] = set()
    for first in nodes:
        stack = [(first, False)]
        while stack:
            node, done = stack.pop()
            if done:
                yield node
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                if not (known and node.kind == "reduce"):
                    stack += [(x, False) for x in reversed(node.inputs) if x not in seen]


class Group:
    """Operations, and what is known of their surroundings."""

    def __init__(
        self,
        ops: Collection[Op],
        constants: Mapping[Value, Array] | None = None,
        partials: Mapping[Value, Value] | None = None,
    ):
        self.ops = list(ops)
        self.constants = constants or {}
        self.partials = partials or {}

    def nests(self, outputs: Sequence[Value]) -> list[Nest]:
        """As few nests as can be for some outputs; those of no elements need none."""
        found = []
        for part in self._connected([z for z in outputs if z.size]):
            left = sorted(part, key=lambda z: -z.size)
            while left:
                nest, left = self._largest(left)
                found.append(nest)
        return found

    def _largest(self, outputs: list[Value]) -> tuple[Nest, list[Value]]:
        """A nest of the first output and as many others as go with it, and those that do not."""
        try:
            return self.nest(outputs), []
        except Unfusable:
            if len(outputs) == 1:
                raise
        taken, left = outputs[:1], []
        nest = self.nest(taken)
        for z in outputs[1:]:
            try:
                nest = self.nest([*taken, z])
                taken.append(z)
            except Unfusable:
                left.append(z)
        return nest, left

    def _connected(self, outputs: Sequence[Value]) -> list[list[Value]]:
        """The outputs in parts that have no operation and nothing large to read in common."""
        ops, parts = set(self.ops), []
        for z in outputs:
            touched, todo = set(), [z]
            while todo:
                value = todo.pop()
                if value in touched:
                    continue
                touched.add(value)
                if value.op in ops:
                    todo += value.op.inputs
            touched = {v for v in touched if v.size > 1 or v.op in ops}
            mine = [z]
            for part in [p for p in parts if p[1] & touched]:
                parts.remove(part)
                mine, touched = part[0] + mine, part[1] | touched
            parts.append((mine, touched))
        return [part for part, _ in parts]

    # --- one nest ---------------------------------------------------------------------------------

    def nest(self, outputs: Sequence[Value]) -> Nest:
        """One nest for outputs, the largest first.

        Raises:
            Unfusable: if they do not go together.
        """
        roots = [[n] for n in outputs[0].shape]
        inner: list[int] = []
        nest, reason = None, None
        for _ in range(CUTS):
            attempt = _Attempt(self, outputs, roots, inner)
            try:
                nest = attempt.build()
            except Unfusable as error:
                nest, reason = None, error
            cut = attempt.e.splits.wanted
            if cut is None or not attempt.cut(*cut):
                break
            roots, inner = attempt.roots, attempt.inner
        if nest is None:
            raise reason or Unfusable(f"{outputs} do not go together.")
        return nest


class _Attempt:
    """Building a nest with each axis of the first output cut into given lengths."""

    def __init__(
        self, group: Group, outputs: Sequence[Value], roots: list[list[int]], inner: list[int]
    ):
        self.outputs, self.roots, self.inner = outputs, roots, inner
        self.e = Expressions(group.ops, group.constants, group.partials)
        self.vars = [[Var(n) for n in lengths] for lengths in roots]
        self.flat = [v for axis in self.vars for v in axis if v.extent > 1]

    def build(self) -> Nest:
        e, first = self.e, self.outputs[0]
        e.roots = self.flat
        e.inner_lengths = self.inner
        place = tuple(mixed([(v, v.extent) for v in axis]) for axis in self.vars)
        found: list[tuple[Value, Index, Node]] = []
        for z in self.outputs:
            if z.size != first.size:
                continue
            where = (
                place if z.shape == first.shape else e.splits.reshape(place, first.shape, z.shape)
            )
            found.append((z, where, e.at(z, where)))
        for z in self.outputs:
            if z.size != first.size:
                if e.rows is None:
                    self._find_rows(z, place)
                where = self._row(z)
                found.append((z, where, e.at(z, where)))
        found.sort(key=lambda out: self.outputs.index(out[0]))
        rows = self.flat if e.rows is None else e.rows
        inner = e.inner if e.rows is not None else []
        if not set(rows).union(inner).issuperset(self.flat):
            raise Unfusable(f"{first} has more indices than its rows and what they reduce.")
        return Nest(e, found, list(rows), list(inner), stages([node for *_, node in found]))

    def _find_rows(self, z: Value, place: Index) -> None:
        """Let the rows be those of a reduction of the elements of the first output, under z."""
        e, first = self.e, self.outputs[0]
        seen, todo = {z}, [z]
        while todo:
            op = todo.pop().op
            if op is None or op not in (e.ops or ()):
                continue
            x = op.inputs[0]
            if op.name in REDUCTIONS and x.size == first.size:
                where = e.splits.reshape(place, first.shape, x.shape)
                axes = op.params["axes"] if "axes" in op.params else (op.params["axis"],)
                kept = [f.roots() for a, f in enumerate(where) if a not in axes]
                e.set_rows(frozenset().union(*kept))
                return
            todo += [x for x in op.inputs if x not in seen]
            seen.update(op.inputs)

    def _row(self, z: Value) -> Index:
        """The index of an output that has one element for each row."""
        rows = self.e.rows
        if rows is None or product(v.extent for v in rows) != z.size:
            raise Unfusable(f"{z} has no element for each element or row of {self.outputs[0]}.")
        place = ix.flatten([(ix.of(v), v.extent) for v in rows])
        return self.e.splits.unflatten(place, z.shape)

    def cut(self, var: Var, inner: int) -> bool:
        """Note a variable to be cut in two in the next attempt; False if it is none of ours."""
        for axis, lengths in zip(self.vars, self.roots, strict=True):
            if var in axis:
                at = axis.index(var)
                lengths[at : at + 1] = [var.extent // inner, inner]
                return True
        if var in self.e.inner:
            lengths = [v.extent for v in self.e.inner]
            at = self.e.inner.index(var)
            lengths[at : at + 1] = [var.extent // inner, inner]
            self.inner = lengths
            return True
        return False


def in_blocks(nest: Nest, count: int) -> dict[Value, Value]:
    """Let a nest do the reductions of its first pass only, each in so many blocks.

    Returns the values that the blocks' results form, along a new first axis, by what they are of.
    """
    nest.stages, nest.outputs, nest.known = nest.stages[:1], [], None
    nest.block = Var(count)
    nest.rows = [nest.block, *nest.rows]
    partials: dict[Value, Value] = {}
    for node in nest.stages[0]:
        node.depends |= {nest.block}
        value = nest.expressions.reduced[node][0]
        index = nest.expressions.places[node]
        part = Value(Spec((count, *value.shape), value.dtype))
        nest.outputs.append((part, (ix.of(nest.block), *index), node))
        partials.update(dict.fromkeys(nest.expressions.reduced[node], part))
    return partials


def mixed(parts: Sequence[tuple[Var, int]]) -> Form:
    """Several variables as the digits of one index."""
    total = ZERO
    for var, n in parts:
        total = total.scale(n) + ix.of(var)
    return total


def stages(nodes: Sequence[Node]) -> list[list[Node]]:
    """The reductions under some nodes, by the pass in which they can be done."""
    found: list[list[Node]] = []
    for node in reachable(nodes):
        if node.kind == "reduce":
            found += [[] for _ in range(node.stage - len(found))]
            found[node.stage - 1].append(node)
    return found
