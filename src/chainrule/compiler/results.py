"""What becomes of the outputs of a program: results, state, gradients, entries of dictionaries.

While a function was traced it returned something and assigned to tensors, to gradients and to
entries of optimisers' dictionaries. Here each of these becomes an output of the graph, and a note of
where a call has to put it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from chainrule.compiler import ir
from chainrule.compiler.numbers import Number, NumberDict
from chainrule.compiler.signature import take_apart
from chainrule.compiler.trace import ABSENT, Outside, Tracer, position_of
from chainrule.errors import TraceError
from chainrule.graph import Array, Node, Value, make

Find = Callable[[Sequence[Any]], Any]
"""Finds a tensor, given the tensors among the call's arguments."""


def finder(books: Outside) -> Find:
    """How a call finds a tensor from outside."""
    place = books.place
    if place is None:
        return lambda leaves: books.tensor
    kind, what = place
    if kind == "argument":
        return lambda leaves: leaves[what]
    if kind == "random":
        return lambda leaves: what._state
    if kind == "grad":
        owner = finder(what)
        return lambda leaves: owner(leaves).grad
    return lambda leaves: dict.__getitem__(kind, what)


class Results:
    """Notes of where outputs go.

    Attributes:
        outputs: the values of the graph that a call needs.
        updates: output -> input that it replaces.
        wanted: the positions of the numbers that a call needs.
        assigned: (output, how to find the tensor).
        gradients: (output or None, how to find the tensor whose gradient it is).
        entries: (dictionary, key, kind, what), see `_entry`.
        leaves: (kind, what) for each leaf of what the function returned.
    """

    def __init__(self, tracer: Tracer, returned: Any):
        self.tracer = tracer
        self.outputs: list[ir.Value] = []
        self.updates: dict[int, int] = {}
        self.wanted: set[int] = set()
        books = list(tracer.outside.values())
        self.leaves, self.build = self._take_apart(returned)
        self.assigned = [self._assigned(b) for b in books if self._has_changed(b)]
        self.gradients = [g for b in books if (g := self._gradient(b)) is not None]
        self.entries = [
            (numbers, key, *self._kind(value)) for numbers, key, value in tracer.written.values()
        ]

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
            books = self.tracer.outside.get(id(value))
            if books is not None:
                return "tensor", finder(books)
            return "output", self._output(value._array)
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
        return "constant", value

    def _has_changed(self, books: Outside) -> bool:
        if isinstance(books.node, Node):
            raise TraceError(
                "a tensor from outside the compiled function was assigned a value that carries "
                "the graph of its gradients into the next call. Assign x.detach(), or assign inside "
                "`with cr.no_grad():`; or return the value and pass it in as an argument."
            )
        return books.changed

    def _assigned(self, books: Outside) -> tuple[int, Find]:
        position = self._output(books.array)
        assert books.input is not None
        if self.outputs[position].spec == books.input.value.spec:
            self.updates[position] = books.position
        return position, finder(books)

    def _gradient(self, books: Outside) -> tuple[int | None, Find] | None:
        grad = books.grad
        if grad is ABSENT:
            return None
        if grad is None:
            return (None, finder(books)) if books.had_grad is not False else None
        if id(grad) in self.tracer.outside:  # the tensor that it was on entry
            return None
        return self._output(grad._array), finder(books)


def made(kind: str, what: Any, outputs: Sequence[Array], numbers: Any, tensors: Any) -> Any:
    """A value of a call; see `Results._kind`."""
    if kind == "output":
        return make(outputs[what])
    if kind == "number":
        return numbers[what]
    if kind == "numbers":
        return tuple([numbers[i] for i in what])
    return what(tensors) if kind == "tensor" else what


Entries = list[tuple[NumberDict, Any, str, Any]]


def made_leaves(
    leaves: Sequence[tuple[str, Any]], outputs: Sequence[Array], numbers: Any, tensors: Any
) -> Iterator[Any]:
    """The leaves of what a call returns."""
    for kind, what in leaves:
        yield made(kind, what, outputs, numbers, tensors)
