"""One traced version of a function: where its inputs are found at a call, and what it changes.

    version = Version(tracer, names, result, backend)
    if version.holds(leaves):       # the world is as it was traced, but for numbers
        result = version.run(leaves)

Nothing in the world changes before the program has run: an error leaves tensors, numbers and random
state as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.compiler import ir, signature
from chainrule.compiler.body import needed
from chainrule.compiler.boundary import Call
from chainrule.compiler.guards import Object, put_setting, same
from chainrule.compiler.launch import (
    ALONE,
    Binding,
    InNumPy,
    KeptGradients,
    Native,
    binding,
    make_own,
)
from chainrule.compiler.native.runtime_memory import address_of
from chainrule.compiler.numbers import NumberProgram
from chainrule.compiler.results import SPENT, Results, made, new_node
from chainrule.compiler.signature import leaf_key
from chainrule.compiler.trace import Outside, Tracer, finder
from chainrule.graph import Array, Deferred, Leaf, Node, Value, make, structure

if TYPE_CHECKING:
    from chainrule.compiler.fast import Usual

LOOKING = 1e9
"""Floating-point operations that may be spent on values that somebody wants to see once."""

VERIFY = False
"""Whether every traced graph is checked against the specification; tests turn it on."""

Backend = Callable[[ir.Graph], InNumPy | Native]


class Version:
    """A traced function, ready to run.

    Attributes:
        graph: what was traced.
        key: the structure of the call, the mode of gradients, the leaves, which of them are known.
        captured: the identities of the tensors that the function found by itself.
        launch: runs it.
    """

    def __init__(self, tracer: Tracer, names: Any, returned: Any):
        self.names = names
        self.key: Any = None
        results = Results(tracer, returned)
        self.graph = graph = tracer.graph
        graph.outputs, graph.updates = results.outputs, results.updates
        if VERIFY:
            ir.verify(graph)
        numbers = [(i, *x) for i, x in enumerate(tracer.inputs) if not isinstance(x, Outside)]
        self.numbers = NumberProgram(tracer.numbers, results.wanted | {p for _, p, _ in numbers})
        self._scalars: list[tuple[int, int, Any]] = numbers
        self._assigned, self._rebound = results.assigned, results.rebound
        self._gradients = results.gradients
        self._frozen = results.frozen
        self._counters = [
            (d, key, what)
            for d, key, kind, what in results.entries
            if kind == "number" and type(tracer.items[id(d)][1].get(key)) in (int, float)
        ]
        counted = {(id(d), key) for d, key, _ in self._counters}
        self._entries = [e for e in results.entries if (id(e[0]), e[1]) not in counted]
        self._leaves, self._build = results.leaves, results.build
        self._single = _is_one_tensor(results)
        self._back, self._saved, self._again = results.back, results.saved, results.again
        self._sources = [] if self._back is None else self._back.sources
        self._take_books(tracer, set(results.updates.values()))
        objects = {id(o): Object(o) for o in names.objects} | tracer.touched
        self._objects = list(objects.values())
        self._items = list(tracer.items.values())
        self._hoisted = list(tracer.hoisted.values())
        self._probes = tracer.probes
        self._effects = tracer.effects  # these two are known when the tracer is closed
        self.counted = tracer.counted
        self._epoch = -1
        self._copied = False  # whether a state's elements are copied to lie side by side
        self._numbers_set: Any = None
        self._fills: list[tuple[Callable[[Any], None], int]] | None = None
        self._kept_gradients: KeptGradients | None = None
        self._results: Results | None = results
        self.usual: Usual | None = None  # what makes its usual calls; see `fast.follow`
        self.patience, self.waited = 1, 0

    def compile(self, backend: Backend) -> None:
        """Make the program, after the trace."""
        assert self._results is not None
        for known in self._objects:
            known.look()
        self._backend = backend
        self.launch = backend(self.graph)
        if self.launch.in_place:
            self._keep_in_place(self._results)
        self._results = None

    def _take_books(self, tracer: Tracer, updated: set[int]) -> None:
        """Sort the tensors from outside by how a call finds them."""
        books = list(tracer.outside.values())
        self._arguments: list[tuple[int, int]] = []
        self._finders: list[Any] = []  # of states, in the order of the lists below
        self._places: list[int] = []  # their positions among the inputs
        self._needs: list[bool] = []
        self._hooks: list[tuple[int, ...]] = []
        self._specs: list[tuple[Any, Any]] = []
        self._moving: list[int] = []  # states that are looked up at each call
        for b in books:
            if _is_read_argument(b, updated):
                self._arguments.append((b.position, b.place[1]))
                continue
            if b.place is not None and b.place[0] in ("argument", "random", "grad"):
                self._moving.append(len(self._finders))
            self._finders.append(finder(b))
            self._places.append(b.position)
            self._needs.append(b.needs_gradient)
            self._hooks.append(_hooks(b.tensor))
            self._specs.append((b.entry.shape, b.entry.dtype))
        self._generators = {
            n: b.place[1]
            for n, b in enumerate(b for b in books if not _is_read_argument(b, updated))
            if b.place is not None and b.place[0] == "random"
        }
        self._written = [n for n, i in enumerate(self._places) if i in updated]
        count = len(self._finders)
        self._tensors: list[Any] = [None] * count
        self._bindings: list[Binding] = [Binding()] * count
        self._stamps: list[int] = [-1] * count
        self._nodes: list[Any] = [None] * count
        self.rows: list[tuple[Any, Binding, int, Any]] | None = None
        self.captured = {id(b.tensor) for b in books if b.place is None}
        # Whether it makes no difference if two arguments are one tensor.
        free = not any(_is_argument(b) and b.position in updated for b in books)
        self._free = free
        self._had_grads = [(finder(b), b.had_grad) for b in books if b.had_grad is not None]

    def _keep_in_place(self, results: Results) -> None:
        """What the program writes where it belongs needs no assignment after a call."""
        launch = self.launch
        assert isinstance(launch, Native)
        self._assigned = [(n, find) for n, find in self._assigned if n not in results.updates]
        self._points = [(launch.pointer(i), n) for i, n in self._arguments]
        fixed = [
            (books.tensor, position)
            for books, (position, _) in zip(results.with_gradient, self._gradients, strict=True)
            if position is not None and books.place is None
        ]
        if fixed:
            kept = {position for _, position in fixed}
            self._gradients = [(n, find) for n, find in self._gradients if n not in kept]
            self._kept_gradients = KeptGradients(launch, fixed)

    def file_under(self, key: Any) -> None:
        """Note what of a call the version is for."""
        self.key = key

    # --- the first call ---------------------------------------------------------------------------

    def install(self) -> None:
        """Let optimisers' dictionaries have the entries that were made while tracing."""
        for numbers, key, value in self._hoisted:
            numbers[key] = value

    def uninstall(self) -> None:
        """The first call has failed: take them out again."""
        for numbers, key, _ in self._hoisted:
            if key in numbers:
                del numbers[key]

    def look(self, leaves: Sequence[Any]) -> None:
        """Show the values that somebody wants to see once, as they are in the first call.

        They are computed in NumPy, unless that would take longer than a look is worth.
        """
        if not self._probes:
            return
        values = [value for value, _ in self._probes]
        ops = needed(self.graph.ops, values)
        if sum(op.primitive.flops(op.outputs, *op.inputs, **op.params) for op in ops) > LOOKING:
            self._probes = []
            return
        graph = ir.Graph(list(self.graph.inputs), self.graph.constants, ops, values, {}, "probes")
        for (_, look), array in zip(
            self._probes, ir.evaluate(graph, self._arrays(leaves)), strict=True
        ):
            look(array)
        self._probes = []

    # --- before a call ----------------------------------------------------------------------------

    def holds(self, leaves: Sequence[Any]) -> bool:
        """Whether the world is as it was when the function was traced, but for numbers."""
        for check in self.names.checks:
            if not check.holds():
                return False
        if self._epoch != structure.epoch and not self._structure_holds(leaves):
            return False
        for find, had in self._had_grads:
            if (find(leaves)._grad is not None) != had:
                return False
        for n in self._moving:
            self._settle(n, self._finders[n](leaves))
        for n, (tensor, books, stamp, node) in enumerate(self.rows or self.make_rows()):
            if (
                tensor._array is not books.array or books.stamp != stamp or tensor._node is not node
            ) and not self._look_again(n):
                return False
        return self.numbers.holds(leaves)

    def _structure_holds(self, leaves: Sequence[Any]) -> bool:
        """Look at models and optimisers, and find the states anew."""
        epoch = structure.epoch
        if not all([check.holds() for check in self._objects]):
            return False
        for numbers, entry in self._items:
            if dict.keys(numbers) != entry.keys():
                return False
            for key, was in entry.items():
                if not _alike(was, dict.__getitem__(numbers, key)):
                    return False
        for n, find in enumerate(self._finders):
            if n not in self._moving:
                self._settle(n, find(leaves))
        self._nodes = [None] * len(self._nodes)  # their hooks may be others
        self.rows = None
        self._epoch = epoch
        return True

    def reason(self, leaves: Sequence[Any]) -> str | None:
        """What keeps this version from holding, in words; None if nothing does."""
        for check in self.names.checks:
            if not check.holds():
                return check.reason()
        for check in self._objects:
            if not check.holds():
                return check.reason()
        for numbers, entry in self._items:
            for key in dict.keys(numbers) | entry.keys():
                was, now = entry.get(key), dict.get(numbers, key)
                if not _alike(was, now):
                    return f"the optimiser's {key!r} was {was!r:.60} and is {now!r:.60}"
        for find, had in self._had_grads:
            if (find(leaves)._grad is not None) != had:
                return f"a tensor had {'a' if had else 'no'} gradient, and now it is otherwise"
        for n, tensor in enumerate(self._tensors):
            if tensor is not None and not self._look_again(n):
                words = signature.described(leaf_key(tensor))
                needs = "" if tensor._node is not None else " without requires_grad"
                return f"a tensor from outside that the function uses became {words}{needs}"
        return self.numbers.reason(leaves)

    def _settle(self, n: int, tensor: Any) -> None:
        """State n is this tensor."""
        if tensor is not self._tensors[n]:
            self.rows = None
            self._tensors[n], self._bindings[n] = tensor, binding(tensor)
            self._stamps[n] = -1

    def _look_again(self, n: int) -> bool:
        """State n has another array or another node: whether the program can take it."""
        tensor, books = self._tensors[n], self._bindings[n]
        array = tensor._array
        if (tensor._node is not None) != self._needs[n] or _hooks(tensor) != self._hooks[n]:
            return False
        if (array.shape, array.dtype) != self._specs[n]:
            return False
        if array is not books.array:
            books.look(array)
        if self._places[n] >= 0:
            self.launch.point(self._places[n], books.address)
            self._copied = self._copied or books.memory is not None
        self._stamps[n], self._nodes[n] = books.stamp, tensor._node
        self.rows = None
        return True

    def make_rows(self) -> list[tuple[Any, Binding, int, Any]]:
        """For each state the tensor, its books, and what they were when the program was told."""
        columns = self._tensors, self._bindings, self._stamps, self._nodes
        self.rows = list(zip(*columns, strict=True))
        return self.rows

    # --- a call -----------------------------------------------------------------------------------

    def _arrays(self, leaves: Sequence[Any]) -> list[Array]:
        """The inputs of this call."""
        self._set_numbers()
        arrays: list[Any] = [None] * len(self.graph.inputs)
        for i, n in self._arguments:
            arrays[i] = leaves[n]._array
        for i, books in zip(self._places, self._bindings, strict=True):
            if i >= 0:
                arrays[i] = books.array if books.memory is None else books.memory
        for i, _, _ in self._scalars:
            arrays[i] = self.launch.numbers[i]
        return arrays

    def _set_numbers(self) -> None:
        if self._numbers_set is self.numbers.now:
            return
        values, launch = self.numbers.values, self.launch
        if self._fills is not None:
            for fill, position in self._fills:
                fill(values[position])
        else:
            for i, position, dtype in self._scalars:
                launch.set_number(i, values[position], dtype)
            if launch.in_place:  # the arrays stay, and are filled anew
                self._fills = [(launch.numbers[i].fill, p) for i, p, _ in self._scalars]
        self._numbers_set = self.numbers.now

    def run(self, leaves: Sequence[Any]) -> Any:
        """Run the program, and leave the world as the function would have left it."""
        launch = self.launch
        kept = self._prepare(leaves) if launch.in_place else None
        arrays = node = None
        if launch.wants_arrays or self._back is not None:
            arrays = self._arrays(leaves)
        outputs = launch(arrays if launch.wants_arrays else None)
        if arrays is not None and self._back is not None:
            node = self._node(leaves, arrays, outputs)
        del kept, arrays
        result = self._finish(leaves, outputs, node)
        launch.raise_late()
        return result

    def _node(
        self, leaves: Sequence[Any], arrays: Sequence[Array], outputs: Sequence[Array]
    ) -> Node:
        """The node of the eager graph that this call is."""
        back = self._back
        assert back is not None
        arrays = list(arrays)
        for i, _, _ in self._scalars:  # their memory is used again
            arrays[i] = arrays[i].copy()
        tensors = [find(leaves) for _, find in self._sources]
        there = {"input": arrays, "output": outputs}
        saved = [there[kind][i] for kind, i in self._saved]
        inputs = {value: make(there[kind][i]) for value, kind, i in self._again}
        for (value, _), tensor in zip(self._sources, tensors, strict=True):
            if value in inputs:
                inputs[value] = make(inputs[value]._array, tensor._node, tensor._slot)
        call = Call(self.graph.name, back, self._backend, saved, inputs)
        return Node(call, {}, tuple(tensors), tuple(back.outputs))  # type: ignore[arg-type]

    def _prepare(self, leaves: Sequence[Any]) -> list[Any]:
        """Let the program know where everything lies; what is returned must live until it ran."""
        kept = []
        for point, n in self._points:
            array = leaves[n]._array
            if not array.flags.carray:
                array = np.array(array, order="C")
                kept.append(array)
            point(address_of(array))
        tensors, bindings = self._tensors, self._bindings
        if self._copied:  # what is shared with NumPy may have been written to
            for books in bindings:
                if books.memory is not None:
                    books.memory[...] = books.array
        for n in self._written:
            tensor, books = tensors[n], bindings[n]
            if getrefcount(tensor._array) != ALONE or not books.own:
                make_own(tensor, books)
                self._look_again(n)
        self._set_numbers()
        if self._kept_gradients is not None:
            self._kept_gradients.prepare()
        return kept

    def _finish(self, leaves: Sequence[Any], outputs: Sequence[Array], node: Node | None) -> Any:
        assigned = [(find(leaves), outputs[position]) for position, find in self._assigned]
        gradients = [(find(leaves), position) for position, find in self._gradients]
        numbers = self.numbers.values
        if self._single is not None:
            kind, what = self._single
            result = make(outputs[what], SPENT if kind == "spent" else None)
        else:
            result = self._build(
                iter(
                    [
                        made(kind, what, outputs, numbers, leaves, node)
                        for kind, what in self._leaves
                    ]
                )
            )
        for tensor, array in assigned:
            tensor._array = array
        for slot, find in self._rebound:
            tensor = find(leaves)
            tensor._node, tensor._slot = new_node(slot, node)
        for tensor, position in gradients:
            tensor._grad = None if position is None else Deferred(outputs[position])
        if self._kept_gradients is not None:
            self._kept_gradients.hand_out()
        for entries, key, position in self._counters:
            write(entries, key, numbers[position])
        for entries, key, kind, what in self._entries:
            entries[key] = made(kind, what, outputs, numbers, leaves)
        for find, flag in self._frozen:
            find(leaves).requires_grad_(flag)
        for module, name, value in self._effects:
            put_setting(module, name, value)
        return result


def _is_one_tensor(results: Results) -> tuple[str, int] | None:
    """The leaf that is all that the function returns, if it returns one tensor without a graph."""
    if len(results.leaves) != 1 or results.leaves[0][0] not in ("output", "spent"):
        return None
    return results.leaves[0] if results.build(iter([MARK])) is MARK else None


MARK: Any = object()
write = dict.__setitem__  # a number in the place of a number changes no structure


def _is_argument(books: Outside) -> bool:
    return books.place is not None and books.place[0] == "argument"


def _is_read_argument(books: Outside, updated: set[int]) -> bool:
    """Whether a tensor is an argument that is read and not written."""
    return books.input is not None and _is_argument(books) and books.position not in updated


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
