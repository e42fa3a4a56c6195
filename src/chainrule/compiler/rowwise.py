"""Which axis of a loop's body can be cut: rows that have nothing to do with each other.

In a recurrent network each sequence of a batch goes its own way through time. If every operation
of a body treats the indices along one axis apart, a loop over all steps can be run for some of the
rows by one thread and for the others by another, and they need not meet until the end.

`cut` finds for every value of a body the axis along which it is cut, or that it is needed whole;
`resized` is the same body for fewer rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.compiler.ir import Graph, Op, Value
from chainrule.graph import Primitive
from chainrule.primitives import elementwise

ELEMENTWISE = frozenset(p.name for p in vars(elementwise).values() if isinstance(p, Primitive))
SAME = frozenset({"alias", "copy", "detach"})
REDUCTIONS = frozenset({"sum", "max", "min", "all", "any"})
SHAPES = {"reshape": "shape", "broadcast_to": "shape", "slice": "lengths"}
"""The parameter that states the shape of an operation's result."""


@dataclass
class Cut:
    """How a body is cut.

    Attributes:
        axes: for each value the axis along which it is cut, None for those that are whole.
        rows: how many rows there are.
        in_products: whether the rows are rows (or columns) of matrices that are multiplied, so that
            a few of them at a time are better than one.
        inner: how the bodies of the loops in it are cut.
    """

    axes: dict[Value, int | None]
    rows: int
    in_products: bool
    inner: dict[Op, Cut]


class NotCut(Exception):
    """This body cannot be cut in this way."""


def cut(body: Graph, consts: int, carries: int, axis: int) -> Cut | None:
    """How a body is cut if its carries are cut along `axis` (if it has none, its first output)."""
    carried = body.inputs[consts : consts + carries]
    after, ys = body.outputs[:carries], body.outputs[carries:]
    ends = [*carried, *after] or ys[:1]
    rows = {z.shape[axis] if z.ndim > axis else 0 for z in ends}
    if len(rows) != 1:
        return None
    search = _Search(body, rows.pop(), set(carried))
    try:
        for value in ends:
            search.demand(value, axis)
        for value in ys:
            search.demand_any(value, axis)
    except NotCut:
        return None
    return Cut(search.axes, search.rows, search.in_products, search.inner)


class _Search:
    def __init__(self, body: Graph, rows: int, carried: set[Value]):
        self.body, self.rows, self.carried = body, rows, carried
        self.in_products = False
        self.inner: dict[Op, Cut] = {}
        self.axes: dict[Value, int | None] = {}

    def demand(self, value: Value, axis: int | None) -> None:
        """Let a value be cut along an axis, and whatever it is made from accordingly."""
        stack: list[tuple[Value, int | None]] = [(value, axis)]
        while stack:
            value, axis = stack.pop()
            if value in self.axes:
                if self.axes[value] != axis:
                    raise NotCut
                continue
            if axis is not None and (axis >= value.ndim or value.shape[axis] != self.rows):
                raise NotCut
            self.axes[value] = axis
            if value.op is not None and value.op.name == "scan":
                stack += self._scan(value, axis)
            elif value.op is not None:
                stack += self._inputs(value.op, axis)
            elif value in self.body.constants:
                array = self.body.constants[value]
                if axis is not None and array.strides[axis] and array.shape[axis] > 1:
                    raise NotCut
            elif axis is None and value in self.carried:
                raise NotCut  # what another unit makes is not there to be read

    def demand_any(self, value: Value, axis: int) -> None:
        """Let a value be cut along an axis, this one or one nearby, or whichever can be."""
        if self.axes.get(value) is not None:
            return
        fitting = [a for a, n in enumerate(value.shape) if n == self.rows]
        for a in sorted(fitting, key=lambda a: abs(a - axis)):
            before = dict(self.axes), dict(self.inner), self.in_products
            try:
                self.demand(value, a)
                return
            except NotCut:
                self.axes, self.inner, self.in_products = before
        raise NotCut

    def _inputs(self, op: Op, axis: int | None) -> list[tuple[Value, int | None]]:
        """How an operation's inputs must be cut for its result to be."""
        if axis is None:
            return [(x, None) for x in op.inputs]
        if op.name in ELEMENTWISE or op.name in SAME:
            return [(x, axis) for x in op.inputs]
        rule = getattr(self, f"_{op.name}", None)
        if op.name in REDUCTIONS:
            rule = self._reduction
        if rule is None or len(op.outputs) != 1:
            raise NotCut
        return rule(op, axis)

    def _scan(self, value: Value, axis: int | None) -> list[tuple[Value, int | None]]:
        """How a loop in the body must be cut, all of it, for one of its results to be."""
        op = value.op
        assert op is not None
        if axis is None:
            return [(x, None) for x in op.inputs]
        body, n, m = op.params["body"], op.params["consts"], op.params["carries"]
        position = op.outputs.index(value)
        inside = axis if position < m else axis - 1
        if op in self.inner:
            return []  # the axes of all results were demanded with the first
        found = cut(body, n, m, inside) if inside >= 0 else None
        if found is None or found.rows != self.rows:
            raise NotCut
        self.inner[op] = found
        self.in_products = self.in_products or found.in_products
        demands: list[tuple[Value, int | None]] = [
            (z, inside + (i >= m)) for i, z in enumerate(op.outputs) if z is not value
        ]
        for i, (x, given) in enumerate(zip(body.inputs, op.inputs, strict=True)):
            at = found.axes.get(x)
            demands.append((given, at if at is None or i < n + m else at + 1))
        return demands

    def _permute(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        return [(op.inputs[0], op.params["axes"][axis])]

    def _broadcast_to(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        x, z = op.inputs[0], op.output
        source = axis - (z.ndim - x.ndim)
        return [(x, None if source < 0 or x.shape[source] != z.shape[axis] else source)]

    def _reshape(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        x, z = op.inputs[0], op.output
        before = math.prod(z.shape[:axis])
        for source, n in enumerate(x.shape):
            if n == z.shape[axis] and math.prod(x.shape[:source]) == before:
                return [(x, source)]
        raise NotCut

    def _matmul(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        x, y = op.inputs
        self.in_products = self.in_products or axis >= op.output.ndim - 2
        if axis == op.output.ndim - 1:
            return [(x, None), (y, axis)]
        return [(x, axis), (y, None if axis == op.output.ndim - 2 else axis)]

    def _reduction(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        x = op.inputs[0]
        kept = [i for i in range(x.ndim) if i not in op.params["axes"]]
        return [(x, kept[axis])]

    def _slice(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        x = op.inputs[0]
        if op.params["lengths"][axis] != x.shape[axis] or op.params["steps"][axis] != 1:
            raise NotCut
        return [(x, axis)]

    def _pad(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        if any(op.params["widths"][axis]):
            raise NotCut
        return [(op.inputs[0], axis)]

    def _concat(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        if op.params["axis"] == axis:
            raise NotCut
        return [(x, axis) for x in op.inputs]

    def _flip(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        if axis in op.params["axes"]:
            raise NotCut
        return [(op.inputs[0], axis)]

    def _cumulative_sum(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        if op.params["axis"] == axis:
            raise NotCut
        return [(op.inputs[0], axis)]

    def _gather(self, op: Op, axis: int) -> list[tuple[Value, int | None]]:
        x, index = op.inputs
        if axis >= index.ndim:
            raise NotCut
        return [(x, None), (index, axis)]


def resized(body: Graph, cut: Cut, rows: int) -> Graph:
    """The body for `rows` rows."""
    axes = cut.axes

    def shape_of(value: Value) -> tuple[int, ...]:
        axis = axes.get(value)
        if axis is None:
            return value.shape
        return (*value.shape[:axis], rows, *value.shape[axis + 1 :])

    graph = Graph(name=body.name)
    now: dict[Value, Value] = {
        x: graph.input(x.spec._replace(shape=shape_of(x)), x.name) for x in body.inputs
    }
    for value, array in body.constants.items():
        axis = axes.get(value)
        if axis is not None:
            array = _of_length(array, axis, rows)
        now[value] = graph.constant(array)
    for op in body.ops:
        params: dict[str, Any] = op.params
        name = SHAPES.get(op.name)
        if name is not None:
            params = {**params, name: shape_of(op.output)}
        if op in cut.inner:
            params = {**params, "body": resized(params["body"], cut.inner[op], rows)}
        made = graph.add(op.primitive, *[now[x] for x in op.inputs], **params)
        graph.ops[-1].line, graph.ops[-1].where = op.line, op.where
        now.update(zip(op.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    graph.outputs = [now[z] for z in body.outputs]
    return graph


def _of_length(array: np.ndarray[Any, Any], axis: int, rows: int) -> np.ndarray[Any, Any]:
    """A constant that repeats along an axis, repeated another number of times."""
    first = array[(slice(None),) * axis + (slice(0, 1),)]
    return np.broadcast_to(first, (*array.shape[:axis], rows, *array.shape[axis + 1 :]))


def candidates(body: Graph, consts: int, carries: int) -> Sequence[int]:
    """Axes that may be worth trying."""
    values = [*body.inputs[consts : consts + carries], *body.outputs[: carries or 1]]
    least = min((z.ndim for z in values), default=0)
    return [a for a in range(least) if len({z.shape[a] for z in values}) == 1 < values[0].shape[a]]
