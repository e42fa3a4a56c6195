"""Sums over time taken after the loop.

The gradient of a weight is a sum over the steps. Where a step's term is a product of matrices,
`sum over t of A_t B_t` is one product of the A side by side with the B on top of each other:

    [A_1 A_2 ... A_T] [B_1; B_2; ...; B_T]

which runs at full speed where T small ones would not, and needs no room to add up in. So the
operands come out of the loop, and what is linear is done once behind it. What cannot be put off in
this way is added up inside the loop, by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from chainrule.compiler.ir import Graph, Op, Value
from chainrule.graph import apply, make
from chainrule.primitives import elementwise, indexing, linalg, movement, reduction

Late = Callable[[Callable[[Value], Any]], Any]  # (the stack of a value over time) -> the sum

_LINEAR = (
    movement.reshape, movement.permute, movement.broadcast_to, movement.flip, movement.slice_,
    elementwise.neg, reduction.sum,
)  # fmt: skip
_PRODUCTS = (linalg.matmul, indexing.scatter_add)


class OverTime:
    """What of a loop's body can be summed over time behind the loop.

    Arguments:
        graph: the body.
        invariant: its inputs that are the same at every step.
        stacked: its inputs that are slices of stacks.
    """

    def __init__(self, graph: Graph, invariant: Iterable[Value], stacked: Iterable[Value]):
        self.graph = graph
        self.invariant = {*invariant, *graph.constants}
        self.stacked = set(stacked)  # values of which the caller has, or will emit, the stack
        for op in graph.ops:
            if all(x in self.invariant for x in op.inputs):
                self.invariant.update(op.outputs)

    def terms(self, value: Value) -> Iterator[Value]:
        """The summands that a value is made of."""
        op = value.op
        if op is not None and op.primitive is elementwise.add and value not in self.stacked:
            for x in op.inputs:
                yield from self.terms(x)
        else:
            yield value

    def emit(self, value: Value) -> None:
        """Mark as to be stacked what the products behind a value are products of."""
        op = value.op
        if op is None or value in self.stacked or value in self.invariant:
            return
        if self._is_product(op):
            operands = {_operand(x)[0] for x in op.inputs} - self.stacked
            # To write operands that are larger than the sum would cost more than to add it up.
            if sum(x.size for x in operands) <= value.size:
                self.stacked |= operands
        elif (position := self._linear_in(op)) is not None:
            self.emit(op.inputs[position])
        elif op.primitive in (elementwise.add, elementwise.sub):
            for x in op.inputs:
                self.emit(x)

    def late(self, value: Value) -> Late | None:
        """The sum of a value over time from stacks alone; None if that is not to be had."""
        op = value.op
        if value in self.stacked:
            return lambda stack: reduction.sum(stack(value), axes=(0,))
        if op is None or value in self.invariant:
            return None
        if self._is_product(op):
            if any(_operand(x)[0] not in self.stacked for x in op.inputs):
                return None
            return _late_matmul(op) if op.primitive is linalg.matmul else _late_scatter(op)
        if op.primitive in (elementwise.add, elementwise.sub):
            first, second = map(self.late, op.inputs)
            if first is None or second is None:
                return None
            return lambda stack: apply(op.primitive, first(stack), second(stack))
        position = self._linear_in(op)
        inner = None if position is None else self.late(op.inputs[position])
        if inner is None or position is None:
            return None
        others = [make(self.graph.constants[x]) for x in op.inputs if x is not op.inputs[position]]

        def late(stack: Callable[[Value], Any]) -> Any:
            return apply(op.primitive, inner(stack), *others, **op.params)

        return late

    def _is_product(self, op: Op) -> bool:
        return op.primitive in _PRODUCTS and not any(
            _operand(x)[0] in self.invariant for x in op.inputs
        )

    def _linear_in(self, op: Op) -> int | None:
        """The operand that an operation is linear in, any other being a constant of the graph."""
        if op.primitive in _LINEAR:
            return 0
        if op.primitive is elementwise.mul:
            for i in (0, 1):
                if op.inputs[1 - i] in self.graph.constants:
                    return i
        return None


def _operand(x: Value) -> tuple[Value, bool]:
    """What to stack of a product's operand: the matrix itself, or what it is the transpose of."""
    op = x.op
    if op is not None and op.primitive is movement.permute:
        axes = op.params["axes"]
        if axes == (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2):
            return op.inputs[0], True
    return x, False


def _side_by_side(stack: Any, transposed: bool, time_axis: int) -> Any:
    """(T, ..., m, k) as (..., m, T k) for time_axis = -1, as (..., T m, k) for -2.

    A transposed one is laid out as it lies in memory, and transposed afterwards.
    """
    axis = {-1: -2, -2: -1}[time_axis] if transposed else time_axis
    n = stack.ndim
    place = n + axis - 1  # where time goes: in front of the axis it is merged with
    order = [i for i in range(1, n)]
    order.insert(place, 0)
    moved = movement.permute(stack, axes=tuple(order)) if place else stack
    shape = list(moved.shape)
    shape[place : place + 2] = [shape[place] * shape[place + 1]]
    merged = movement.reshape(moved, shape=tuple(shape))
    return linalg.transpose(merged) if transposed else merged


def _late_matmul(op: Op) -> Late:
    (a, a_transposed), (b, b_transposed) = map(_operand, op.inputs)

    def late(stack: Callable[[Value], Any]) -> Any:
        left = _side_by_side(stack(a), a_transposed, -1)
        right = _side_by_side(stack(b), b_transposed, -2)
        return linalg.matmul(left, right)

    return late


def _late_scatter(op: Op) -> Late:
    updates, index = op.inputs
    return lambda stack: indexing.scatter_add(stack(updates), stack(index), **op.params)
