"""What becomes of the outputs of a program: results, state, gradients, entries of dictionaries.

While a function was traced it returned something and assigned to tensors, to gradients and to
entries of optimisers' dictionaries. Here each of these becomes an output of the graph, and a note
of where a call has to put it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.compiler import ir
from chainrule.compiler.boundary import WayBack, carries_gradient, is_spent, spent_node
from chainrule.compiler.numbers import Number
from chainrule.compiler.signature import take_apart
from chainrule.compiler.trace import ABSENT, Find, Outside, Tracer, finder, position_of
from chainrule.graph import Array, Node, Value, make

USED_UP, NO_GRAPH = -1, -2


class Results:
    """Notes of where outputs go.

    Attributes:
        outputs: the values of the graph that a call needs.
        updates: output -> input that it replaces.
        wanted: the positions of the numbers that a call needs.
        assigned: (output, how to find the tensor).
        rebound: (position among the outputs that can be differentiated, how to find the tensor) for
            those that are assigned a value with its graph, with one that was used up (`USED_UP`),
            or in the place of one that had a graph (`NO_GRAPH`).
        gradients: (output or None, how to find the tensor whose gradient it is).
        frozen: (how to find the tensor, whether it requires a gradient afterwards).
        entries: (dictionary, key, kind, what), see `_entry`.
        leaves: (kind, what) for each leaf of what the function returned.
        saved, again: where a call finds what the derivative reads, and the inputs that derivatives
            of the derivative read: ("input" or "output", position).
    """

    def __init__(self, tracer: Tracer, returned: Any):
        self.tracer = tracer
        self.outputs: list[ir.Value] = []
        self.updates: dict[int, int] = {}
        self.wanted: set[int] = set()
        self.connected: list[Any] = []  # what was returned and can be differentiated
        self.leaves, self.build = self._take_apart(returned)
        books = list(tracer.outside.values())
        self.rebound = [
            self._rebound(b) for b in books if isinstance(b.node, Node) or (b.cut and not b.node)
        ]
        self.back = WayBack(tracer, self.connected) if self.connected else None
        self.assigned = [self._assigned(b) for b in books if b.changed]
        self.with_gradient = [b for b in books if self._has_gradient(b)]
        self.gradients = [self._gradient(b) for b in self.with_gradient]
        self.frozen = [
            (finder(b), b.node is not None)
            for b in books
            if not b.cut
            and (b.node is not None) is not b.needs_gradient
            and not isinstance(b.node, Node)
        ]
        self.entries = [
            (numbers, key, *self._kind(value)) for numbers, key, value in tracer.written.values()
        ]
        again = [] if self.back is None else self.back.read_again()
        self.saved = [] if self.back is None else [self._saved(v) for v in self.back.saved]
        self.again = [(value, *self._saved(value)) for value in again]

    def _saved(self, value: ir.Value) -> tuple[str, int]:
        """Where a call finds a value for the way back: an input that stays, or another output."""
        inputs = self.tracer.graph.inputs
        if value in inputs and inputs.index(value) not in self.updates.values():
            return "input", inputs.index(value)
        self.outputs.append(value)
        return "output", len(self.outputs) - 1

    def _output(self, array: Any) -> int:
        self.outputs.append(self.tracer.value(array))
        return len(self.outputs) - 1

    def _take_apart(self, returned: Any) -> tuple[list[tuple[str, Any]], Any]:
        leaves: list[Any] = []
        _, build = take_apart(returned, leaves)
        return [self._kind(leaf) for leaf in leaves], build

    def _kind(self, value: Any) -> tuple[str, Any]:
        """How a call makes a value: of an output, a number, numbers, a tensor, or as it is."""
        if isinstance(value, Value):
            books = self.tracer.books(value)
            if books is not None:
                return "tensor", finder(books)
            position = self._output(value._array)
            if not carries_gradient(value):
                return "output", position
            if is_spent(value):
                return "spent", position
            self.connected.append(value)
            return "connected", (position, len(self.connected) - 1)
        if (position := position_of(value)) is not None:
            self.wanted.add(position)
            return "number", position
        if type(value) is tuple and any(isinstance(v, Number) for v in value):
            known = [position_of(v) for v in value]
            table = self.tracer.numbers
            positions = [
                table.constant(v) if i is None else i for i, v in zip(known, value, strict=True)
            ]
            self.wanted.update(positions)
            return "numbers", positions
        return "array" if isinstance(value, np.ndarray) else "constant", value

    def _rebound(self, books: Outside) -> tuple[int, Find]:
        if books.node is None:
            return NO_GRAPH, finder(books)
        value = make(books.array, books.node, books.index)
        if is_spent(value):
            return USED_UP, finder(books)
        self.connected.append(value)
        return len(self.connected) - 1, finder(books)

    def _assigned(self, books: Outside) -> tuple[int, Find]:
        position = self._output(books.array)
        assert books.input is not None
        if self.outputs[position].spec == books.input.value.spec:
            self.updates[position] = books.position
        return position, finder(books)

    def _has_gradient(self, books: Outside) -> bool:
        """Whether the gradient of a tensor was assigned to."""
        if books.grad is ABSENT or id(books.grad) in self.tracer.outside:  # or is what it was
            return False
        return books.grad is not None or books.had_grad is not False

    def _gradient(self, books: Outside) -> tuple[int | None, Find]:
        grad = books.grad
        return None if grad is None else self._output(grad._array), finder(books)


def made(
    kind: str, what: Any, outputs: Sequence[Array], numbers: Any, tensors: Any, node: Any = None
) -> Any:
    """A value of a call; see `Results._kind`. `node` is where its gradient goes."""
    if kind == "output":
        return make(outputs[what])
    if kind == "spent":
        return make(outputs[what], SPENT)
    if kind == "connected":
        return make(outputs[what[0]], node, what[1])
    if kind == "number":
        return numbers[what]
    if kind == "numbers":
        return tuple([numbers[i] for i in what])
    if kind == "array":
        return what.copy()  # the caller's, who may write to it
    return what(tensors) if kind == "tensor" else what


def new_node(slot: int, node: Any) -> tuple[Any, int]:
    """Where the gradient of a tensor goes that was assigned to; see `Results.rebound`."""
    if slot == USED_UP:
        return SPENT, 0
    return (None, 0) if slot == NO_GRAPH else (node, slot)


SPENT = spent_node()
"""The node of all results whose graph was used up inside the function."""
