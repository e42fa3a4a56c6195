"""One traced version of a function: where its inputs are found at a call, what becomes of its results.

    version = Version(tracer, ...)
    if version.holds(leaves):       # the world is as it was traced, but for numbers
        result = version.run(leaves)

Nothing in the world changes before the program has run to its end: an error leaves tensors, gradients,
numbers and random state as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from chainrule.compiler import ir
from chainrule.compiler.body import needed
from chainrule.compiler.guards import Object, same
from chainrule.compiler.numbers import Number, NumberDict
from chainrule.compiler.signature import take_apart
from chainrule.compiler.slots import array_slot
from chainrule.compiler.trace import ABSENT, Outside, Tracer, position_of
from chainrule.errors import TraceError
from chainrule.graph import Array, Deferred, Leaf, Node, Value, make, structure

Backend = Callable[[ir.Graph], Callable[[list[Array]], Sequence[Array]]]
Find = Callable[[Sequence[Any]], Any]


class NumberProgram:
    """The numbers of a trace, computed anew before each call where their sources have changed."""

    def __init__(self, tracer: Tracer, wanted: set[int]):
        table = tracer.numbers
        self.guards = table.guards
        steps = table.needed(wanted | set(table.guards))
        used = {i for _, operands, _ in steps for i in operands} | wanted | set(table.guards)
        self.steps = steps
        self.sources = [(i, source) for i, source in table.sources.items() if i in used]
        self.values = list(table.values)
        self.now = [table.values[i] for i, _ in self.sources]

    def holds(self, numbers: Sequence[Any]) -> bool:
        """Read the sources; whether what Python was told while tracing is still true."""
        now = []
        for position, source in self.sources:
            if source.argument is not None:
                value = numbers[source.argument]
            else:
                found = [numbers_[key] for numbers_, key in source.places]
                if source.item is not None:
                    found = [entry[source.item] for entry in found]
                value = found[0]
                if len(found) > 1 and found.count(value) != len(found):
                    return False
            if type(value) is not type(self.values[position]):
                return False
            now.append(value)
        if now == self.now:
            return True
        values = self.values
        for (position, _), value in zip(self.sources, now, strict=True):
            values[position] = value
        for function, operands, position in self.steps:
            values[position] = function(*[values[i] for i in operands])
        self.now = now
        if all(values[i] == told for i, told in self.guards.items()):
            return True
        self.now = []  # these values are of another version: compute them anew next time
        return False


def finder(books: Outside) -> Find:
    """How a call finds a tensor from outside: a function of the call's tensors."""
    place = books.place
    if place is None:
        return lambda leaves: books.tensor
    if place[0] == "argument":
        return lambda leaves: leaves[place[1]]
    if place[0] == "random":
        return lambda leaves: place[1]._state
    if place[0] == "grad":
        owner = finder(place[1])
        return lambda leaves: owner(leaves).grad
    numbers, key = place
    return lambda leaves: dict.__getitem__(numbers, key)


class Version:
    """A traced function, ready to run.

    Attributes:
        graph: what was traced.
        key: what of the arguments it was traced for.
    """

    def __init__(
        self, tracer: Tracer, names: Any, key: Any, result: Any, backend: Backend
    ):
        self.key, self.names = key, names
        self.graph = graph = tracer.graph
        self._outputs: list[ir.Value] = graph.outputs
        self._tracer: Tracer | None = tracer
        self._wanted: set[int] = {x[0] for x in tracer.inputs if isinstance(x, tuple)}
        self._books = list(tracer.outside.values())
        self.result, self.build = self._take_result(result)
        self._assign = self._assignments()
        self._grads = self._gradients()
        self._written = self._written_items()
        self.scalars = [
            (i, *entry) for i, entry in enumerate(tracer.inputs) if isinstance(entry, tuple)
        ]
        self.states = [
            (i, finder(entry), entry.entry.shape, entry.entry.dtype)
            for i, entry in enumerate(tracer.inputs)
            if isinstance(entry, Outside)
        ]
        self.numbers = NumberProgram(tracer, self._wanted)
        self.objects = [Object("", o) for o in names.objects] + list(tracer.touched.values())
        self.items = [(d, entry) for d, entry in tracer.items.values()]
        self.nodes = [
            (finder(b), b.needs_gradient, _hooks(b.tensor)) for b in self._books if not b.cut
        ]
        self.had_grads = [
            (finder(b), b.had_grad) for b in self._books if b.had_grad is not None
        ]
        self.hoisted = list(tracer.hoisted.values())
        self.epoch = -1
        self.probes = tracer.probes
        ir.verify(graph)
        self.program = backend(graph)
        self.bound: list[Any] = [None] * len(graph.inputs)
        self._tracer = None

    # --- after the trace --------------------------------------------------------------------------

    def _output(self, array: Any) -> int:
        """A new output of the graph; its position."""
        assert self._tracer is not None
        self._outputs.append(self._tracer.value(array))
        return len(self._outputs) - 1

    def _take_result(self, result: Any) -> tuple[list[tuple[str, Any]], Any]:
        """For each leaf of what the function returned, how a call makes it."""
        assert self._tracer is not None
        leaves: list[Any] = []
        _, build = take_apart(result, leaves)
        makers: list[tuple[str, Any]] = []
        for leaf in leaves:
            if isinstance(leaf, Value):
                books = self._tracer.outside.get(id(leaf))
                if books is not None:
                    makers.append(("same", finder(books)))
                else:
                    makers.append(("output", self._output(leaf._array)))
            elif isinstance(leaf, Number):
                position = position_of(leaf)
                assert position is not None
                self._wanted.add(position)
                makers.append(("number", position))
            else:
                makers.append(("constant", leaf))
        return makers, build

    def _assignments(self) -> list[tuple[int, Find]]:
        """(output, tensor) for the tensors from outside that were assigned to."""
        found = []
        for books in self._books:
            if isinstance(books.node, Node):
                raise _carries_graph()
            if not books.changed:
                continue
            position = self._output(books.array)
            if self._outputs[position].spec == self._input(books).spec:
                self.graph.updates[position] = books.position
            found.append((position, finder(books)))
        return found

    def _input(self, books: Outside) -> ir.Value:
        assert books.input is not None
        return books.input.value

    def _gradients(self) -> list[tuple[int | None, Find]]:
        """(output or None, tensor) for the tensors whose gradient was assigned to."""
        assert self._tracer is not None
        found: list[tuple[int | None, Find]] = []
        for books in self._books:
            grad = books.grad
            if grad is ABSENT or (books.place is not None and books.place[0] == "grad"):
                continue
            if grad is None:
                found.append((None, finder(books)))
            elif id(grad) not in self._tracer.outside:
                found.append((self._output(grad._array), finder(books)))
        return found

    def _written_items(self) -> list[tuple[NumberDict, Any, str, Any]]:
        """(dictionary, key, kind, what) for the entries of dictionaries that were assigned to."""
        assert self._tracer is not None
        found: list[tuple[NumberDict, Any, str, Any]] = []
        for numbers, key, value in self._tracer.written.values():
            position = position_of(value)
            if position is not None:
                self._wanted.add(position)
                found.append((numbers, key, "number", position))
            elif isinstance(value, Value):
                books = self._tracer.outside.get(id(value))
                if books is None:
                    found.append((numbers, key, "output", self._output(value._array)))
                else:
                    found.append((numbers, key, "same", finder(books)))
            elif type(value) is tuple and any(isinstance(v, Number) for v in value):
                table = self._tracer.numbers
                known = [position_of(v) for v in value]
                positions = [
                    table.constant(v) if i is None else i for i, v in zip(known, value, strict=True)
                ]
                self._wanted.update(positions)
                found.append((numbers, key, "numbers", positions))
            else:
                found.append((numbers, key, "constant", value))
        return found

    # --- entries that the function makes when it is called for the first time ---------------------

    def install(self) -> None:
        """Let optimisers' dictionaries have the entries that were made while tracing."""
        for numbers, key, value in self.hoisted:
            numbers[key] = value

    def uninstall(self) -> None:
        """The first call has failed: take them out again."""
        for numbers, key, _ in self.hoisted:
            if key in numbers:
                del numbers[key]

    def look(self) -> None:
        """Show the values that somebody wants to see once, as they are in the first call."""
        if not self.probes:
            return
        values = [value for value, _ in self.probes]
        ops = needed(self.graph.ops, values)
        graph = ir.Graph(list(self.graph.inputs), self.graph.constants, ops, values, {}, "probes")
        arrays = ir.evaluate(graph, self.arrays())
        for (_, look), array in zip(self.probes, arrays, strict=True):
            look(array)
        self.probes = []

    # --- before a call ----------------------------------------------------------------------------

    def holds(self, tensors: Sequence[Any], numbers: Sequence[Any]) -> bool:
        """Whether the world is as it was when the function was traced, but for numbers."""
        for check in self.names.checks:
            if not check.holds():
                return False
        if self.epoch != structure.epoch:
            epoch = structure.epoch
            if not self._structure_holds():
                return False
            self.epoch = epoch
        for find, needs, hooks in self.nodes:
            tensor = find(tensors)
            if (tensor._node is not None) != needs or hooks != _hooks(tensor):
                return False
        for find, had in self.had_grads:
            if (find(tensors)._grad is not None) != had:
                return False
        for i, find, shape, dtype in self.states:
            array = array_slot.__get__(find(tensors))
            if array is not self.bound[i]:
                if array.shape != shape or array.dtype != dtype:
                    return False
                self.bound[i] = array
        return self.numbers.holds(numbers)

    def _structure_holds(self) -> bool:
        if not all(check.holds() for check in self.objects):
            return False
        for numbers, entry in self.items:
            if dict.keys(numbers) != entry.keys():
                return False
            for key, was in entry.items():
                if not _alike(was, dict.__getitem__(numbers, key)):
                    return False
        return True

    # --- a call -----------------------------------------------------------------------------------

    def arrays(self) -> list[Array]:
        """The inputs of this call."""
        values = self.numbers.values
        for i, position, dtype in self.scalars:
            self.bound[i] = np.asarray(values[position], dtype=dtype)
        return self.bound

    def run(self, tensors: Sequence[Any]) -> Any:
        """Run the program, and let the world be as the function would have left it."""
        outputs = self.program(self.arrays())
        targets = [(find(tensors), outputs[position]) for position, find in self._assign]
        grads = [
            (find(tensors), None if position is None else Deferred(outputs[position]))
            for position, find in self._grads
        ]
        for tensor, array in targets:
            tensor._array = array
        for tensor, grad in grads:
            tensor._grad = grad
        self._write_items(tensors, outputs)
        if len(self.result) == 1 and self.result[0][0] == "output" and self.single:
            return make(outputs[self.result[0][1]])
        return self.build(self._results(tensors, outputs))

    single = False

    def _write_items(self, tensors: Sequence[Any], outputs: Sequence[Array]) -> None:
        values = self.numbers.values
        for numbers, key, kind, what in self._written:
            if kind == "number":
                value = values[what]
            elif kind == "output":
                value = make(outputs[what])
            elif kind == "same":
                value = what(tensors)
            elif kind == "numbers":
                value = tuple(values[i] for i in what)
            else:
                value = what
            numbers[key] = value

    def _results(self, tensors: Sequence[Any], outputs: Sequence[Array]) -> Iterator[Any]:
        for kind, what in self.result:
            if kind == "output":
                yield make(outputs[what])
            elif kind == "number":
                yield self.numbers.values[what]
            elif kind == "same":
                yield what(tensors)
            else:
                yield what


def _hooks(tensor: Any) -> tuple[int, ...]:
    """The hooks that hang on a leaf."""
    node = tensor._node
    if type(node) is not Leaf or not node.hooks:
        return ()
    return tuple(key for hooks in node.hooks.values() for key in hooks)


def _alike(was: Any, now: Any) -> bool:
    """Whether an entry of an optimiser's dictionary has the structure that it had."""
    if isinstance(was, Value) and isinstance(now, Value):
        return True  # found at its place at each call
    if type(was) is not type(now):
        return False
    if type(was) in (int, float):
        return True
    if isinstance(was, list | tuple):
        return len(was) == len(now) and all(map(_alike_item, was, now))
    return same(was, now)


def _alike_item(was: Any, now: Any) -> bool:
    return was is now or (type(was) is type(now) and type(was) in (int, float)) or same(was, now)


def _carries_graph() -> TraceError:
    return TraceError(
        "a tensor from outside the compiled function was assigned a value that carries a graph of "
        "its gradients into the next call. Assign x.detach(), or assign inside `with "
        "cr.no_grad():`; or return the value and pass it in as an argument."
    )
