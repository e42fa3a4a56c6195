"""Tracing: a function is called once, with tensors that have no numbers, and written down.

Nothing is computed. `graph.apply` hands every application to the thread's `Tracer`, which writes it
into a graph if it depends on something that is not known yet, and lets it be computed at once if
all that it depends on was made in the trace from what is known (masks, ranges, zeros).

What is not known: the arguments, and every tensor that was there before the trace. The tracer sees
each access to a tensor (`compiler.slots`). A tensor from outside becomes an input of the graph when
it is first read; what is assigned to it stays in the tracer's own books (`Outside`) until the trace
is over and the program has run. A trace that fails has therefore changed nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.compiler import ir
from chainrule.compiler.guards import Object, put_setting, settings
from chainrule.compiler.numbers import Number, NumberDict, Source, Table, is_symbolic, wrapped
from chainrule.compiler.outside import ABSENT, Find, Outside, finder
from chainrule.compiler.repeats import Updates
from chainrule.compiler.slots import array_slot, born, grad_slot, grow_up, index_slot, node_slot
from chainrule.compiler.traced import OneLine, Traced
from chainrule.errors import TraceError, users_line
from chainrule.graph import Array, Deferred, Primitive, Spec, Value, make, state, structure
from chainrule.primitives.checks import check, placed
from chainrule.primitives.movement import broadcast_to

_MOVING = frozenset({"alias", "broadcast_to", "cast", "flip", "permute", "reshape", "slice"})

HOUSE = "chainrule."


class Tracer:
    """Writes one call of one function down. `graph` has an input for each of `inputs`.

    Attributes:
        inputs: for each input of the graph what it is: an `Outside`, or a position in `numbers` and
            a dtype.
        outside: the books, by the identity of the tensor.
        numbers: the Python numbers; `written` the entries of dictionaries that were assigned to.
        items: the dictionaries of optimisers that were looked into, as they were on entry.
        hoisted: entries of dictionaries that were made, as if they had been there before.
        touched: models and optimisers that took part. homes: the states of random generators.
        layers: the modules that run. where, line: the innermost one's kind, and the user's line if
            it is known to be the same for a while (None: there is none; `ABSENT`: look for it).
        effects: settings of modules that were changed; counted: numbers among them.
        probes: (value, function): to be looked at once, after the trace, in NumPy.
        edges: for each operation that gradients were recorded of, which inputs they go on to.
    """

    def __init__(self, name: str):
        self.graph = ir.Graph(name=name)
        self.active = True
        self.token = object()
        self.parent = None
        self.inputs: list[Any] = []
        self.outside: dict[int, Outside] = {}
        self.numbers = Table()
        self.written: dict[tuple[int, Any], tuple[NumberDict, Any, Any]] = {}
        self.items: dict[int, tuple[NumberDict, dict[Any, Any]]] = {}
        self.hoisted: dict[tuple[int, Any], tuple[NumberDict, Any, Any]] = {}
        self.touched: dict[int, Object] = {}
        self.homes: dict[int, tuple[Any, Any]] = {}
        self.probes: list[tuple[ir.Value, Any]] = []
        self.edges: dict[ir.Op, list[bool]] = {}
        self.layers: list[Any] = []
        self.line: Any = ABSENT
        self.where = ""
        self.counted: list[str] = []
        self.effects: list[tuple[Any, str, Any]] = []
        self._settings: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._scalars: dict[tuple[int, Any], Any] = {}
        self._sources: dict[Any, int] = {}
        self._born: dict[int, weakref.ref[Any]] = {}
        self._constants: dict[int, tuple[Array, ir.Value]] = {}

    # --- what graph.apply tells -------------------------------------------------------------------

    def record(
        self, primitive: Primitive, inputs: Sequence[Any], params: dict[str, Any], specs: Any
    ) -> Any:
        """Write an application down and give what stands for its results; None: compute it."""
        arrays = [x._array for x in inputs]
        if Traced not in map(type, arrays):
            return None
        line = users_line() if self.line is ABSENT or primitive is check else self.line
        if primitive is check:
            params = params | {"refuse": placed(params["refuse"], line, self.layers)}
        values = [
            a.value if type(a) is Traced and a.tracer is self else self.value(a) for a in arrays
        ]
        several = type(specs) is not Spec
        op = ir.Op(primitive, values, params, specs if several else (specs,), line, self.where)
        self.graph.ops.append(op)
        if state.grad_enabled:
            self.edges[op] = [x._node is not None for x in inputs]
        if several:
            return tuple([Traced(self, z) for z in op.outputs])
        return Traced(self, op.outputs[0])

    def at_one_line(self) -> OneLine:
        """Inside, all that is applied is of the user's line that is being run now.

        To look for the line takes as long as to write an application down.
        """
        return OneLine(self)

    def made(self, array: Array) -> None:
        """`graph.constant` tells of constants; here they are found when they are used."""

    def value(self, array: Any) -> ir.Value:
        """The graph's value of an array: of one that is known, a constant."""
        if type(array) is Traced:
            if array.tracer is not self:
                array._refuse()
            return array.value
        known = self._constants.get(id(array))
        if known is None:
            known = self._constants[id(array)] = (array, self._constant(array))
        return known[1]

    def _constant(self, array: Array) -> ir.Value:
        """A constant; of one that is repeated along some axes, its numbers once."""
        once = array
        if array.size and any(array.strides):
            once = array[tuple([slice(None if step else 1) for step in array.strides])]
        kept, base = once, once.base
        if once.flags.writeable if base is None else not isinstance(base, bytes):
            # It may be the user's, who may write to it; one number fills a repeated one.
            number = once[(slice(1),) * once.ndim]
            kept = once.copy() if any(once.strides) else np.broadcast_to(number.copy(), once.shape)
        value = self.graph.constant(kept)
        if once.shape == array.shape:
            return value
        specs = (Spec(array.shape, array.dtype),)
        spread = ir.Op(broadcast_to, (value,), {"shape": array.shape}, specs)
        self.graph.ops.append(spread)
        return spread.output

    def refuse(self, what: str) -> None:
        """Raise the error for something that a compiled function cannot do."""
        error = TraceError(
            f"{what} is not possible inside a compiled function; do it outside, between calls."
        )
        error.line = users_line()
        raise error

    # --- tensors ----------------------------------------------------------------------------------

    def _is_born(self, tensor: Any, raw: Any) -> bool:
        """Whether a tensor was made in this trace."""
        if type(raw) is Traced:
            if raw.tracer is not self:
                raw._refuse()
            return True
        born = self._born.get(id(tensor))
        return born is not None and born() is tensor

    def bear(self, tensor: Any) -> None:
        """A tensor with numbers that are known is made in this trace."""
        key = id(tensor)
        self._born[key] = weakref.ref(tensor, lambda _: self._born.pop(key, None))

    def born(self, array: Any, node: Any, slot: int) -> Any:
        """A new tensor."""
        tensor = born(array, node, slot)
        if type(array) is not Traced:
            self.bear(tensor)
        return tensor

    def adopt(self, tensor: Any, place: Any = None) -> Outside:
        """Open the books on a tensor from outside."""
        books = self.outside.get(id(tensor))
        if books is None:
            if place is None and (generator := self._generator_of(tensor)) is not None:
                place = ("random", generator)
            books = self.outside[id(tensor)] = Outside(tensor, place)
            if type(books.entry) is Traced:
                books.entry._refuse()
        return books

    def books(self, tensor: Any) -> Outside | None:
        """The books on a tensor from outside; None for one that was made in the trace."""
        books = self.outside.get(id(tensor))
        if books is not None:
            return books
        return None if self._is_born(tensor, array_slot.__get__(tensor)) else self.adopt(tensor)

    def read_array(self, tensor: Any) -> Any:
        books = self.books(tensor)
        if books is None:
            return array_slot.__get__(tensor)
        if books.array is ABSENT:
            books.array = self.enter(books)
        return books.array

    def enter(self, books: Outside) -> Traced:
        """The tensor as an input of the graph."""
        if books.input is None:
            value = self.graph.input(Spec(books.entry.shape, books.entry.dtype))
            books.input = Traced(self, value)
            books.position = len(self.inputs)
            self.inputs.append(books)
        return books.input

    def write_array(self, tensor: Any, array: Any) -> None:
        try:
            raw = array_slot.__get__(tensor)
        except AttributeError:  # it is being made
            array_slot.__set__(tensor, array)
            if type(array) is not Traced:
                self.bear(tensor)
            return
        books = self.books(tensor)
        if books is not None:
            if books.array is ABSENT:
                self.enter(books)
            books.array = array
            return
        array_slot.__set__(tensor, array)
        if type(raw) is Traced and type(array) is not Traced:
            self.bear(tensor)

    def assign(self, tensor: Any, value: Any) -> bool:
        """Let a tensor from outside have another's value; False if it was made in the trace."""
        books = self.books(tensor)
        if books is None or value is None:
            return False
        if value is not tensor:
            self.write_array(tensor, value._array)
            books.node, books.index = value._node, value._slot
        return True

    def read_node(self, tensor: Any) -> Any:
        books = self.outside.get(id(tensor)) or self.books(tensor)
        return node_slot.__get__(tensor) if books is None else books.node

    def write_node(self, tensor: Any, node: Any) -> None:
        books = self.books(tensor)
        if books is None:
            node_slot.__set__(tensor, node)
        else:
            books.node = node

    def read_index(self, tensor: Any) -> Any:
        books = self.books(tensor)
        return index_slot.__get__(tensor) if books is None else books.index

    def write_index(self, tensor: Any, index: int) -> None:
        books = self.books(tensor)
        if books is None:
            index_slot.__set__(tensor, index)
        else:
            books.index = index

    def read_grad(self, tensor: Any) -> Any:
        books = self.books(tensor)
        if books is None:
            return grad_slot.__get__(tensor)
        if books.grad is ABSENT:
            grad = grad_slot.__get__(tensor)
            books.had_grad = grad is not None
            if type(grad) is Deferred:
                grad.taken = True
                grad = _outside_tensor(grad.array)
                grad_slot.__set__(tensor, grad)
            if grad is not None:
                self.adopt(grad, ("grad", books))
            books.grad = grad
        return books.grad

    def write_grad(self, tensor: Any, grad: Any) -> None:
        books = self.books(tensor)
        if books is None:
            grad_slot.__set__(tensor, grad)
            return
        if books.cut and grad is not None:
            error = TraceError(
                "backward() inside a compiled function reached a tensor that was computed outside "
                "of it, and cannot go on there. Compute that tensor inside, detach it, or call "
                "backward() outside, on what the function returns."
            )
            error.line = users_line()
            raise error
        books.grad = grad

    # --- numbers ----------------------------------------------------------------------------------

    def depend(self, position: int) -> None:
        """Python was told the number at a position: the trace holds while it stays the same."""
        self.numbers.guards[position] = self.numbers.values[position]

    def scalar(self, position: int, dtype: Any) -> Any:
        """A number as a tensor of shape (): an input of the graph."""
        key = (position, dtype)
        if key not in self._scalars:
            value = self.graph.input(Spec((), dtype), self._name_of(position))
            self.inputs.append((position, dtype))
            self._scalars[key] = Traced(self, value)
        return make(self._scalars[key])  # type: ignore[arg-type]

    def _name_of(self, position: int) -> str:
        source = self.numbers.sources.get(position)
        return "" if source is None else source.name

    def argument(self, n: int, name: str, value: Any) -> Any:
        """The number that is argument n of the call."""
        return wrapped(self, self.numbers.source(Source(name, argument=n), value))

    def watches(self, numbers: NumberDict) -> bool:
        """Whether a dictionary was there before the trace."""
        if not self.active or getattr(numbers, "made_by", None) is self.token:
            return False
        if id(numbers) not in self.items:
            self.items[id(numbers)] = (numbers, dict(dict.items(numbers)))
        return True

    def items_of(self, numbers: NumberDict) -> dict[Any, Any]:
        """The entries as they are now, as a plain dictionary."""
        entry = self.items[id(numbers)][1]
        keys = [*entry, *[key for i, key in self.written if i == id(numbers) and key not in entry]]
        return {key: self.read_item(numbers, key) for key in keys}

    def read_item(self, numbers: NumberDict, key: Any) -> Any:
        written = self.written.get((id(numbers), key))
        if written is not None:
            return written[2]
        entry = self.items[id(numbers)][1]
        value = entry[key]
        if is_symbolic(value):
            return wrapped(self, self._source(numbers, key, value))
        if type(value) is tuple and any(map(is_symbolic, value)):
            return tuple(
                wrapped(self, self._source(numbers, key, v, i)) if is_symbolic(v) else v
                for i, v in enumerate(value)
            )
        if isinstance(value, Value):
            self.adopt(value, (numbers, key))
        return value

    def _source(self, numbers: NumberDict, key: Any, value: Any, item: int | None = None) -> int:
        """The position of an entry. Equal entries of one name in states of parameters are one."""
        which = self._which(numbers, key, value, item)
        position = self._sources.get(which)
        if position is None:
            name = str(key) if item is None else f"{key}[{item}]"
            position = self._sources[which] = self.numbers.source(Source(name, item=item), value)
        self.numbers.sources[position].add_place(numbers, key)
        return position

    def _which(self, numbers: NumberDict, key: Any, value: Any, item: int | None = None) -> Any:
        shared = "params" not in self.items[id(numbers)][1]
        return key, item, type(value), value if shared else id(numbers), shared

    def has_read(self, numbers: NumberDict, key: Any) -> bool:
        """Whether the number that an entry was on entry has been read."""
        which = self._which(numbers, key, self.items[id(numbers)][1][key])
        position = self._sources.get(which)
        return position is not None and self.numbers.sources[position].has_place(numbers, key)

    def updates(self, optimizer: Any) -> Any:
        """What stands in the place of `optimizer.update` for one step."""
        return Updates(self, optimizer)

    def write_item(self, numbers: NumberDict, key: Any, value: Any) -> None:
        entry = self.items[id(numbers)][1]
        place = (id(numbers), key)
        known = key in entry or place in self.written
        if not known and self._is_known(value):
            # Set for the first time, to something that no input has a part in: as if it had been
            # there before the call.
            self.hoisted[place] = (numbers, key, value)
            entry[key] = value
            if isinstance(value, Value):
                self._born.pop(id(value), None)
                grow_up(value)
                self.adopt(value, (numbers, key))
            return
        self.written[place] = (numbers, key, value)

    def _is_known(self, value: Any) -> bool:
        if isinstance(value, Value):
            return type(array_slot.__get__(value)) is not Traced and id(value) in self._born
        return value is None or type(value) in (int, float, bool, str)

    # --- objects ----------------------------------------------------------------------------------

    def probe(self, tensor: Any, look: Any, makers: frozenset[str]) -> None:
        """Let `look` see the array of a tensor once: now if it is known, else after the trace.

        Arguments:
            makers: whatever another operation has made, movements apart, is not worth computing
                in NumPy only to be looked at.
        """
        array = tensor._array
        if type(array) is not Traced:
            look(array)
            return
        op = array.value.op
        while op is not None and op.name in _MOVING:
            op = op.inputs[0].op
        if op is None or op.name in makers:
            self.probes.append((array.value, look))

    def touch(self, thing: Any) -> None:
        """A model or an optimiser takes part: its structure must be the same at the next call."""
        if id(thing) not in self.touched:
            self.touched[id(thing)] = Object(thing)
            for part in thing.modules() if hasattr(thing, "modules") else ():
                if id(part) not in self._settings:
                    self._settings[id(part)] = (part, settings(part))

    def enter_layer(self, module: Any) -> Any:
        """A module begins: operations are known by the layer that they are of.

        Returns what `leave_layer` wants to be told.
        """
        if not self.layers:
            self.touch(module)
        self.layers.append(module)
        before = self.where, self.line
        self.where = type(module).__name__
        if module._hooks is not None or not type(module).__module__.startswith(HOUSE):
            self.line = ABSENT
        elif self.line is ABSENT:
            self.line = users_line()
        return before

    def leave_layer(self, before: Any) -> None:
        self.layers.pop()
        self.where, self.line = before

    def rebinds(self, tensor: Any) -> None:
        """A tensor is about to be assigned to; it is seen when that happens."""
        array = array_slot.__get__(tensor)
        if type(array) is Traced and array.tracer is not self:
            array._refuse()

    def stateful(self, generator: Any) -> None:
        """A generator is about to be drawn from; its state is seen as any tensor is."""

    def home(self, generator: Any) -> Any:
        """The tensor that a generator's state was on entry. It is what the state is assigned to."""
        if id(generator) not in self.homes:
            self.homes[id(generator)] = (generator, generator._state)
        return self.homes[id(generator)][1]

    def _generator_of(self, tensor: Any) -> Any:
        return next((g for g, home in self.homes.values() if home is tensor), None)

    def close(self) -> None:
        """The trace is over: what it left in places that it cannot see is of no use any more.

        Settings of modules that it changed, such as their mode, are as they were before; each run
        of the program then changes them (`effects`). Numbers are counted on once (`counted`).
        """
        self.active = False
        for reference in list(self._born.values()):
            grow_up(reference())
        for module, before in self._settings.values():
            now = settings(module)
            for name in before.keys() | now.keys():
                old, new = before.get(name, ABSENT), now.get(name, ABSENT)
                if old is new:
                    continue
                if is_symbolic(new):
                    self.counted.append(f"{type(module).__name__}.{name}")
                    structure.epoch += 1
                else:
                    self.effects.append((module, name, new))
                    put_setting(module, name, old)


def _outside_tensor(array: Array) -> Any:
    """A tensor that counts as one from outside, though it is made now."""
    from chainrule import graph

    tensor = object.__new__(graph._tensor_class)
    for slot, value in ((array_slot, array), (node_slot, None), (index_slot, 0), (grad_slot, None)):
        slot.__set__(tensor, value)
    return tensor


def position_of(value: Any) -> int | None:
    """The position in the tracer's table of a number that is one of its."""
    return value._position if isinstance(value, Number) else None


__all__ = ["ABSENT", "Find", "Outside", "Traced", "Tracer", "finder", "position_of"]
