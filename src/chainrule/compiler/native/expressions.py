"""Expressions: what one element of a value is, in terms of what lies in memory.

`Expressions.at(value, index)` follows a value back through the operations of a group: an
elementwise operation asks for its inputs at the same index, a movement for its input at another
one, a reduction for its input at all indices of the axes that it sums over, and a value that lies
in a buffer is loaded. What comes out is a tree of nodes in which equal nodes are one object, so
that nothing is computed twice. `emitter.Emitter` turns nodes into instructions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import index as ix
from chainrule.compiler.native.index import ZERO, Form, Index, Splits, Var
from chainrule.errors import ChainruleError
from chainrule.graph import Array, Shape

_numbers = itertools.count()

Condition = tuple[Form, int, int]
"""low <= form < high."""
Guard = tuple[Condition, ...]

Wanted = Generator[tuple["Value", Index, Guard], "Node", "Node"]
"""What finds a node: it asks for other ones, at other indices, and gives it in the end."""

REDUCTIONS = frozenset({"sum", "max", "min", "all", "any", "argmax", "argmin"})
SAME = frozenset({"alias", "copy", "detach"})
"""Operations whose output is their input."""


class Unfusable(ChainruleError, ValueError):
    """Operations that cannot be one loop nest; the schedule tries another grouping."""


class Node:
    """One number for each element of a loop nest.

    Attributes:
        kind: `load`, `literal`, `position`, `apply`, `choice`, `reduce` or `given`.
        inputs: the nodes that it is made of.
        data: what else it is made of, by kind.
        depends: the loops' variables on which it depends.
        stage: how many reductions must be done one after another before it is known.
        depth: the longest way from it to what it is made of.
        cost: arithmetic instructions to compute it from its inputs, roughly.
    """

    __slots__ = ("cost", "data", "depends", "depth", "dtype", "inputs", "kind", "number", "stage")

    def __init__(
        self, kind: str, dtype: Any, inputs: tuple[Node, ...], data: Any, depends: frozenset[Var]
    ):
        self.kind, self.dtype, self.inputs, self.data = kind, dtype, inputs, data
        self.depends = depends
        self.stage = max((n.stage for n in inputs), default=0) + (kind == "reduce")
        self.depth = max((n.depth for n in inputs), default=0) + 1
        self.cost = 1
        self.number = next(_numbers)

    def __repr__(self) -> str:
        return f"{self.kind}{self.number}({', '.join(map(repr, self.inputs))})"


_COSTS = {
    "div": 6, "sqrt": 6, "exp": 12, "log": 14, "tanh": 20, "sigmoid": 18, "erf": 24, "erfinv": 40,
    "expm1": 18, "log1p": 20, "log2": 14, "log10": 14, "sin": 20, "cos": 20, "tan": 30, "pow": 40,
    "logaddexp": 34, "asin": 30, "acos": 30, "atan": 25, "sinh": 24, "cosh": 20, "asinh": 40,
    "acosh": 40, "atanh": 30, "atan2": 40, "hypot": 14, "remainder": 12, "floor_divide": 12,
}  # fmt: skip


class Expressions:
    """The nodes of a group of operations.

    Arguments:
        ops: the operations that may be followed; None for all. A value that none of them makes lies
            in a buffer.
        constants: arrays of values that are known; those of one number become literals, and those
            that count become positions.
        partials: reductions whose input has been reduced in blocks already: value -> the blocks'
            results, along a new first axis.
    """

    def __init__(
        self,
        ops: Collection[Op] | None = None,
        constants: Mapping[Value, Array] | None = None,
        partials: Mapping[Value, Value] | None = None,
    ):
        self.ops = None if ops is None else set(ops)
        self.constants = constants or {}
        self.partials = partials or {}
        self.splits = Splits()
        self.reduced: dict[Node, list[Value]] = {}  # the values that reductions give
        self.places: dict[Node, Index] = {}  # ... and at which index
        self.reads: dict[Value, None] = {}
        self.given: dict[Value, frozenset[Var]] = {}
        self.rows: list[Var] | None = None  # the variables that reductions keep
        self.inner: list[Var] = []  # those that they run over
        self.roots: list[Var] = []  # the variables of the largest output
        self.inner_lengths: Sequence[int] = ()  # of the inner ones, where no output has them
        self.row = Var(1)  # what a reduction's result depends on: it is known once a row is done
        self._nodes: dict[Any, Node] = {}
        self._known: dict[Any, Node] = {}
        self._counting: dict[Value, tuple[int, tuple[int, ...]] | None] = {}

    # --- nodes ------------------------------------------------------------------------------------

    def _node(
        self, kind: str, dtype: Any, inputs: Sequence[Node], data: Any, depends: frozenset[Var]
    ) -> Node:
        key = (kind, dtype, tuple(inputs), data)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(kind, dtype, tuple(inputs), data, depends)
        return node

    def literal(self, number: Any, dtype: Any) -> Node:
        number = np.asarray(number, dtype)[()]
        return self._node("literal", dtype, (), (number.tobytes(), number), frozenset())

    def position(self, form: Form, dtype: Any) -> Node:
        """A form as a number."""
        if not form.terms:
            return self.literal(form.const, dtype)
        return self._node("position", dtype, (), form, form.roots())

    def load(self, value: Value, index: Index, guard: Guard) -> Node:
        self.reads[value] = None
        depends = frozenset().union(*(f.roots() for f in index), *(c[0].roots() for c in guard))
        return self._node("load", value.dtype, (), (value, index, guard), depends)

    def apply(self, op: Op, inputs: Sequence[Node]) -> Node:
        depends = frozenset().union(*(n.depends for n in inputs))
        params = tuple(op.params.items())
        key = ("apply", op.primitive.name, params, tuple(inputs))
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node("apply", op.output.dtype, tuple(inputs), op, depends)
            node.cost = _COSTS.get(op.name, 1)
        return node

    def choice(self, guard: Guard, x: Node, y: Node) -> Node:
        """x where all conditions hold, y elsewhere."""
        guard, never = simplified(guard)
        if never:
            return y
        if not guard:
            return x
        depends = frozenset().union(x.depends, y.depends, *(c[0].roots() for c in guard))
        return self._node("choice", x.dtype, (x, y), guard, depends)

    def nodes(self) -> list[Node]:
        return list(self._nodes.values())

    # --- what a value is --------------------------------------------------------------------------

    def give(self, value: Value, depends: frozenset[Var]) -> None:
        """Let a value be something that the emitter is told (`bind`), whatever the index."""
        self.given[value] = depends

    def at(self, value: Value, index: Index, guard: Guard = ()) -> Node:
        """The element of a value at an index; where the guard fails anything may come out.

        Chains of operations may be longer than calls can be nested: what is wanted first waits on a
        stack of its own.
        """
        known = self._known
        waiting: list[tuple[Any, Wanted | None]] = [((value, index, guard), None)]
        result: Node | None = None
        while waiting:
            key, asking = waiting[-1]
            if asking is None:
                result = known.get(key)
                if result is not None:
                    waiting.pop()
                    continue
                asking = self._at(*key)
                waiting[-1] = key, asking
                result = None
            try:
                wanted = next(asking) if result is None else asking.send(result)
                result = known.get(wanted)
                if result is None:
                    waiting.append((wanted, None))
                else:
                    # Go on with it at once.
                    while result is not None:
                        wanted = asking.send(result)
                        result = known.get(wanted)
                    waiting.append((wanted, None))
            except StopIteration as done:
                result = known[key] = done.value
                waiting.pop()
        assert result is not None
        return result

    def _at(self, value: Value, index: Index, guard: Guard) -> Wanted:
        if value in self.given:
            return self._node("given", value.dtype, (), value, self.given[value])
        if value in self.constants:
            known = self._constant(value, index)
            if known is not None:
                return known
        op = value.op
        if op is None or (self.ops is not None and op not in self.ops):
            return self.load(value, index, guard)
        handler = HANDLERS.get(op.name)
        if handler is not None:
            return (yield from handler(self, op, index, guard))
        if op.name in REDUCTIONS:
            return (yield from self._reduce(op, index))
        inputs = []
        for x in op.inputs:
            inputs.append((yield x, index, guard))
        return self.apply(op, inputs)

    def _constant(self, value: Value, index: Index) -> Node | None:
        """A constant as a number, or as a form of its index."""
        if value not in self._counting:
            self._counting[value] = counting(self.constants[value])
        found = self._counting[value]
        if found is None:
            array = self.constants[value]
            if any(array.strides) or array.size == 0:
                return None
            return self.literal(array[(0,) * array.ndim], value.dtype)
        first, steps = found
        form = Form(first)
        for f, step in zip(index, steps, strict=True):
            form = form + f.scale(step)
        return self.position(form, value.dtype)

    # --- reductions -------------------------------------------------------------------------------

    def _reduce(self, op: Op, index: Index) -> Wanted:
        (x,) = op.inputs
        if op.output in self.partials:
            x, axes = self.partials[op.output], (0,)
        else:
            axes = op.params["axes"] if "axes" in op.params else (op.params["axis"],)
        if 0 in x.shape:
            return self.literal(op.name == "all", op.output.dtype)
        self._check_row(op, index)
        inner = self._inner(tuple(x.shape[a] for a in axes))
        kept, reduced = iter(index), iter(inner)
        place = tuple(next(reduced) if a in axes else next(kept) for a in range(x.ndim))
        operand = yield x, place, ()
        over = tuple(self.inner)
        depends = operand.depends.difference(over).union((self.row,), *(f.roots() for f in index))
        data: Any = (op.name, over, inner[0] if op.name.startswith("arg") else None)
        node = self._node("reduce", op.output.dtype, (operand,), data, depends)
        self.reduced.setdefault(node, []).append(op.output)
        self.places[node] = index
        return node

    def _check_row(self, op: Op, index: Index) -> None:
        """A nest's reductions give one number for each row, and all have the same rows."""
        rows = frozenset().union(*(f.roots() for f in index))
        size = op.output.size
        if self.rows is None:
            self.set_rows(rows)
            assert self.rows is not None
        if rows != frozenset(self.rows) or size != product(v.extent for v in self.rows):
            raise Unfusable(f"{op} is wanted at {index}, which is no row of {self.rows}.")

    def set_rows(self, rows: frozenset[Var]) -> None:
        """Say what the nest's reductions keep; they run over all else."""
        self.rows = sorted(rows, key=lambda v: v.number)
        self.inner = [v for v in self.roots if v not in rows]

    def _inner(self, lengths: Shape) -> Index:
        """The index into the reduced axes, in the variables that the nest's reductions run over."""
        if not self.inner and product(lengths) > 1:
            self.inner = [Var(n) for n in self.inner_lengths or lengths if n > 1]
        forms: list[Form] = []
        rest = list(self.inner)
        for n in reversed(lengths):
            form, size = ZERO, 1
            while size < n and rest:
                v = rest.pop()
                if size * v.extent > n and n % size == 0 and v.extent % (n // size) == 0:
                    self.splits.wanted = self.splits.wanted or (v, n // size)
                form, size = form + ix.of(v, size), size * v.extent
            if size != n:
                raise Unfusable(f"reductions over {lengths} and over {self.inner} do not match.")
            forms.append(form)
        if rest:
            raise Unfusable(f"reductions over {lengths} and over {self.inner} do not match.")
        return tuple(reversed(forms))


def product(numbers: Any) -> int:
    total = 1
    for n in numbers:
        total *= n
    return total


def simplified(guard: Guard) -> tuple[Guard, bool]:
    """The conditions that can fail, each once; and whether one can never hold."""
    left: dict[Condition, None] = {}
    for form, low, high in guard:
        if form.high < low or form.low >= high:
            return (), True
        if form.low < low or form.high >= high:
            left[form, low, high] = None
    return tuple(left), False


def counting(array: Array) -> tuple[int, tuple[int, ...]] | None:
    """(first, steps) if the array's elements are first + sum of steps * index."""
    if array.dtype.kind not in "iu" or array.dtype.name == "uint64" or array.size < 2:
        return None
    first = int(array[(0,) * array.ndim])
    steps = []
    for axis, n in enumerate(array.shape):
        one = tuple(int(a == axis) for a in range(array.ndim))
        steps.append(int(array[one]) - first if n > 1 else 0)
    grid = np.full(array.shape, first, np.int64)
    for axis, (n, step) in enumerate(zip(array.shape, steps, strict=True)):
        line = (1,) * axis + (n,) + (1,) * (array.ndim - axis - 1)
        grid += (np.arange(n) * step).reshape(line)
    return (first, tuple(steps)) if np.array_equal(grid, array) else None


# --- movements ------------------------------------------------------------------------------------

Handler = Callable[[Expressions, Op, Index, Guard], Wanted]


def _same(e: Expressions, op: Op, index: Index, guard: Guard) -> Wanted:
    return (yield op.inputs[0], index, guard)


def _permute(e: Expressions, op: Op, index: Index, guard: Guard) -> Wanted:
    source = [ZERO] * len(index)
    for form, axis in zip(index, op.params["axes"], strict=True):
        source[axis] = form
    return (yield op.inputs[0], tuple(source), guard)


def _broadcast(e: Expressions, op: Op, index: Index, guard: Guard) -> Wanted:
    (x,) = op.inputs
    last = index[len(index) - x.ndim :]
    return (
        yield x, tuple(ZERO if n == 1 else f for f, n in zip(last, x.shape, strict=True)), guard
    )


def _reshape(e: Expressions, op: Op, index: Index, guard: Guard) -> Wanted:
    (x,) = op.inputs
    return (yield x, e.splits.reshape(index, op.output.shape, x.shape), guard)


def _slice(e: Expressions, op: Op, index: Index, guard: Guard) -> Wanted:
    moved = [
        f.scale(step).shift(start)
        for f, start, step in zip(index, op.params["starts"], op.params["steps"], strict=True)
    ]
    return (yield op.inputs[0], tuple(moved), guard)


def _flip(e: Expressions, op: Op, index: Index, guard: Guard) -> Wanted:
    axes, shape = op.params["axes"], op.output.shape
    turned = [f.scale(-1).shift(shape[a] - 1) if a in axes else f for a, f in enumerate(index)]
    return (yield op.inputs[0], tuple(turned), guard)


def _pad(e: Expressions, op: Op, index: Index, guard: Guard) -> Wanted:
    (x,) = op.inputs
    filler = e.literal(op.params["value"], x.dtype)
    if not x.size:
        return filler
    conditions: list[Condition] = []
    source = []
    for f, n, (low, _, interior) in zip(index, x.shape, op.params["widths"], strict=True):
        place, step = f.shift(-low), interior + 1
        conditions.append((place, 0, (n - 1) * step + 1))
        if step > 1:
            # Divide a number that is not negative: places in front of the array are guarded away.
            lift = max(0, -(place.low // step))
            quotient, rest = e.splits.divide(place.shift(lift * step), step)
            conditions.append((rest, 0, 1))
            place = quotient.shift(-lift)
        source.append(place)
    inside, never = simplified(tuple(conditions))
    if never:
        return filler
    both, _ = simplified((*guard, *inside))
    return e.choice(inside, (yield x, tuple(source), both), filler)


def _concat(e: Expressions, op: Op, index: Index, guard: Guard) -> Wanted:
    axis = op.params["axis"]
    pieces = [x for x in op.inputs if x.size]
    starts = [0, *itertools.accumulate(x.shape[axis] for x in pieces)]
    result: Node | None = None
    for x, start in reversed(list(zip(pieces, starts[:-1], strict=True))):
        place = index[axis].shift(-start)
        inside, never = simplified(((place, 0, x.shape[axis]),))
        both, unwanted = simplified((*guard, *inside))
        if never or unwanted:
            continue
        node = yield x, (*index[:axis], place, *index[axis + 1 :]), both
        # What stands behind this piece is chosen by where the piece ends.
        result = node if result is None else e.choice(inside, node, result)
    if result is None:  # nothing of it is wanted
        return e.literal(0, op.output.dtype)
    return result


def _cast(e: Expressions, op: Op, index: Index, guard: Guard) -> Wanted:
    node = yield op.inputs[0], index, guard
    return node if node.dtype == op.output.dtype else e.apply(op, [node])


HANDLERS: dict[str, Handler] = {
    "permute": _permute, "broadcast_to": _broadcast, "reshape": _reshape, "slice": _slice,
    "flip": _flip, "pad": _pad, "concat": _concat, "cast": _cast,
    **dict.fromkeys(SAME, _same),
}  # fmt: skip
