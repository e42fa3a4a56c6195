"""An optimiser's step of one parameter, written down again for each other parameter like it.

A network has many parameters and few shapes. The house's optimisers say what becomes of one
parameter as a function of it, its gradient, its state and its group. So what `update` has left in
the graph and in the tracer's books for the first parameter of a kind is a pattern: for the next one
its operations are copied, with that one's values in the place of the first one's, which takes a
tenth of the time of calling `update` again. Operations in which the parameter has no part (a
learning rate spread over the shape) are not copied, but shared.

Of one kind are parameters whose shapes, dtypes and states are alike, the numbers in the states
being equal. Whatever is not plain (a value that is known while tracing, two roles of one value, an
optimiser of the user's) is left to `update`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chainrule.compiler import ir
from chainrule.compiler.numbers import Number, NumberDict, is_symbolic
from chainrule.compiler.outside import ABSENT
from chainrule.compiler.slots import array_slot
from chainrule.compiler.traced import Traced
from chainrule.graph import Value, make
from chainrule.primitives.checks import check

if TYPE_CHECKING:
    from chainrule.compiler.trace import Tracer

P, G = "the parameter", "its gradient"
_HOUSE = "chainrule."
_PLAIN = (bool, int, float, str, type(None))


@dataclass
class _Pattern:
    """What `update` did for one parameter. Numbers are positions in the list of values.

    Attributes:
        shared: values that are the same for all parameters; they come first in that list.
        roles: then those of the parameter, its gradient and entries of its state.
        ops: operations, whose results follow: their inputs' positions, one that was made, and the
            results' shapes and dtypes.
        reads: the numbers of the state that were read.
        made: entries of the state that were made, as if they had been there before: whether it is a
            tensor, and its array or the number.
        assigned: the roles that were assigned to, and the positions of their new values.
        entries: entries of the state that were set: a position, or a number.
    """

    shared: list[ir.Value] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    ops: list[tuple[list[int], ir.Op, list[Any]]] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    made: list[tuple[str, bool, Any]] = field(default_factory=list)
    assigned: list[tuple[str, int]] = field(default_factory=list)
    entries: list[tuple[str, int | None, Any]] = field(default_factory=list)


class _Irregular(Exception):
    """What an update did is no pattern for others."""


class Updates:
    """The updates of all parameters in one step of one optimiser."""

    def __init__(self, tracer: Tracer, optimizer: Any):
        self._tracer, self._optimizer = tracer, optimizer
        self._plain = not type(optimizer).__module__.startswith(_HOUSE)
        self._patterns: dict[Any, _Pattern | None] = {}

    def __call__(self, p: Any, g: Any, state: Any, group: Any) -> None:
        """Do what `optimizer.update(p, g, state, group)` does."""
        update = self._optimizer.update
        if self._plain:
            update(p, g, state, group)
            return
        with self._tracer.at_one_line():
            kind = self._kind(p, g, state, group)
            pattern = None if kind is None else self._patterns.get(kind)
            if pattern is not None:
                self._repeat(pattern, p, g, state)
            elif kind is None or kind in self._patterns:
                update(p, g, state, group)
            else:
                self._patterns[kind] = self._observe(p, g, state, group)

    def _kind(self, p: Any, g: Any, state: Any, group: Any) -> Any:
        """What parameters with equal patterns have in common; None for one that is by itself."""
        tracer = self._tracer
        if type(state) is not NumberDict or not tracer.watches(state):
            return None
        if tracer.books(p) is None or tracer.books(g) is not None:
            return None
        here, there = g._array, p._array
        if type(here) is not Traced or type(there) is not Traced or here.value is there.value:
            return None
        entries = []
        for key, value in tracer.items[id(state)][1].items():
            if (id(state), key) in tracer.written:
                return None
            if isinstance(value, Value):
                tracer.read_item(state, key)
                if tracer.books(value) is None or type(value._array) is not Traced:
                    return None
                entries.append((key, value.shape, value.dtype))
            elif type(value) in _PLAIN:
                entries.append((key, type(value), repr(value)))
            else:
                return None
        shapes = there.shape, there.dtype, here.shape, here.dtype
        return id(group), *shapes, tuple(entries)

    # --- the first of a kind ----------------------------------------------------------------------

    def _observe(self, p: Any, g: Any, state: Any, group: Any) -> _Pattern | None:
        """Call `update`, and see what it does."""
        tracer = self._tracer
        entry = tracer.items[id(state)][1]
        holders = {P: p, G: g, **{k: x for k, x in entry.items() if isinstance(x, Value)}}
        before = {name: holder._array.value for name, holder in holders.items()}
        start, known = len(tracer.graph.ops), self._counts()
        hoisted, written = set(tracer.hoisted), set(tracer.written)
        self._optimizer.update(p, g, state, group)
        try:
            pattern = _Pattern()
            made = [place for place in tracer.hoisted if place not in hoisted]
            for place in made:
                key, value = place[1], tracer.hoisted[place][2]
                tensor = isinstance(value, Value)
                if tensor:
                    holders[key] = value
                    before[key] = tracer.enter(tracer.adopt(value)).value
                    value = array_slot.__get__(value)
                pattern.made.append((key, tensor, value))
            changed = [place for place in tracer.written if place not in written]
            if {i for i, _ in (*made, *changed)} - {id(state)} or self._counts() != known:
                raise _Irregular
            positions = _positions(pattern, before, tracer.graph.ops[start:])
            self._note_results(pattern, holders, before, positions)
            for place in changed:
                pattern.entries.append(_written(place[1], tracer.written[place][2], positions))
            pattern.reads = [
                k for k, v in entry.items() if is_symbolic(v) and tracer.has_read(state, k)
            ]
        except _Irregular:
            return None
        return pattern

    def _counts(self) -> tuple[int, ...]:
        """Of what an update that is a pattern adds nothing to."""
        tracer = self._tracer
        return len(tracer.probes), len(tracer.homes), len(tracer.touched), len(tracer.layers)

    def _note_results(
        self, pattern: _Pattern, holders: dict[str, Any], before: Any, positions: Any
    ) -> None:
        for name, holder in holders.items():
            after = holder._array
            if name != P and holder._node is not None and name != G:
                raise _Irregular
            if type(after) is not Traced:
                raise _Irregular
            if after.value is not before[name]:
                if name == G or after.value not in positions:
                    raise _Irregular
                pattern.assigned.append((name, positions[after.value]))

    # --- the others -------------------------------------------------------------------------------

    def _repeat(self, pattern: _Pattern, p: Any, g: Any, state: Any) -> None:
        tracer = self._tracer
        for key, tensor, value in pattern.made:
            tracer.write_item(state, key, make(value) if tensor else value)
        entry = tracer.items[id(state)][1]
        for key in pattern.reads:
            tracer.read_item(state, key)
        holders = {P: p, G: g, **entry}
        values = [*pattern.shared, *[holders[name]._array.value for name in pattern.roles]]
        ops, line, where = tracer.graph.ops, tracer.line, tracer.where
        line = None if line is ABSENT else line
        for positions, like, specs in pattern.ops:
            inputs = [values[i] for i in positions]
            op = ir.Op(like.primitive, inputs, like.params, specs, line, where)
            ops.append(op)
            values.extend(op.outputs)
        for name, position in pattern.assigned:
            tracer.write_array(holders[name], Traced(tracer, values[position]))
        for key, position, value in pattern.entries:
            new = value if position is None else make(Traced(tracer, values[position]))  # type: ignore[arg-type]
            tracer.write_item(state, key, new)


def _positions(pattern: _Pattern, before: dict[str, ir.Value], ops: list[ir.Op]) -> Any:
    """Sort values into shared ones, roles and results, and write the operations down with them."""
    roles = {value: name for name, value in before.items()}
    if len(roles) < len(before) or any(op.primitive is check for op in ops):
        raise _Irregular
    own = set(roles)
    kept = []
    for op in ops:
        if not own.isdisjoint(op.inputs):
            own.update(op.outputs)
            kept.append(op)
    results = [z for op in kept for z in op.outputs]
    read = dict.fromkeys(x for op in kept for x in op.inputs)
    pattern.shared = [x for x in read if x not in own]
    # All of them: what is assigned may be one that no operation reads.
    pattern.roles = list(before)
    order = [*pattern.shared, *before.values(), *results]
    positions = {value: position for position, value in enumerate(order)}
    pattern.ops = [
        ([positions[x] for x in op.inputs], op, [z.spec for z in op.outputs]) for op in kept
    ]
    return positions


def _written(key: str, value: Any, positions: Any) -> tuple[str, int | None, Any]:
    """An entry of the state that was set."""
    if isinstance(value, Value):
        array = value._array
        if type(array) is not Traced or array.value not in positions or value._node is not None:
            raise _Irregular
        return key, positions[array.value], None
    if isinstance(value, Number) or type(value) in _PLAIN:
        return key, None, value
    raise _Irregular
