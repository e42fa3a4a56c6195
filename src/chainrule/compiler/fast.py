"""The usual call, in few steps of Python: tensors by position, nothing has changed but numbers.

`Version.holds` and `Version.run` do every call, with every kind of argument and result. A training
step is called a thousand times in the same way; for that, `usual_call` makes one function that
looks at what those look at, in the same order, and does what they do. Where anything is not as
usual it says so, and they take over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import getrefcount
from types import CellType
from typing import Any

from chainrule.compiler.guards import Name
from chainrule.compiler.launch import ALONE, Native
from chainrule.compiler.native.runtime_memory import address_of
from chainrule.compiler.results import SPENT
from chainrule.graph import Value, make, state, structure

UNUSUAL: Any = object()
"""The answer to a call that is not the usual one."""

Call = Callable[[Sequence[Any]], Any]


def is_usual(version: Any) -> bool:
    """Whether calls of a version can be made in this way."""
    launch = version.launch
    if not isinstance(launch, Native) or launch.wants_arrays or version._simple is None:
        return False
    more = version._back, version._assigned, version._gradients, version._entries, version._frozen
    return (
        not any(more)
        and not (version._had_grads or version._effects or version._copied)
        and all(kind in ("output", "spent", "constant") for kind, _ in version._leaves)
        and all(isinstance(check, Name) for check in version.names.checks)
        and all(n in version._generators for n in version._moving)
    )


def usual_call(version: Any) -> Call:
    """A function `(arguments) -> result`, or `UNUSUAL`; see the head of this file."""
    launch, table = version.launch, version.launch._table
    slots = {n: launch._slots[i] for i, n in version._arguments}
    arguments = [(n, *spec, slots.get(n)) for n, spec in enumerate(version._simple)]
    count, mode, captured = len(arguments), version.key[1], version.captured
    cells = [(c.room, c.was) for c in version.names.checks if type(c.room) is CellType]
    names = [(c.room, c.key, c.was) for c in version.names.checks if type(c.room) is not CellType]
    generators, numbers = list(version._generators.items()), version.numbers
    tensors, bindings = version._tensors, version._bindings
    written, kept, pools = version._written, version._kept_gradients, launch._pools
    program, result_of, counters = launch.program, _result_of(version), version._counters
    run = program.call

    def holds(given: Sequence[Any]) -> bool:
        if len(given) != count or state.grad_enabled is not mode:
            return False
        if version._epoch != structure.epoch or version._copied:
            return False
        for n, shape, dtype, needs, slot in arguments:
            x = given[n]
            if not isinstance(x, Value):
                return False
            array = x._array
            if (
                array.shape != shape
                or array.dtype is not dtype
                or (x._node is not None) is not needs
                or id(x) in captured
                or not array.flags.carray
            ):
                return False
            if slot is not None:
                table[slot] = address_of(array)
        for room, key, was in names:
            if room.get(key) is not was:
                return False
        for cell, was in cells:
            if cell.cell_contents is not was:
                return False
        for n, generator in generators:
            if generator._state is not tensors[n]:
                return False
        for tensor, books, stamp, node in version.rows or version.make_rows():
            if tensor._array is not books.array or books.stamp != stamp or tensor._node is not node:
                return False
        for n in written:
            if getrefcount(tensors[n]._array) != ALONE or not bindings[n].own:
                return False
        return numbers.holds(given)

    def call(given: Sequence[Any]) -> Any:
        if not holds(given):
            return UNUSUAL
        if version._numbers_set is not numbers.now:
            version._set_numbers()
        if kept is not None:
            kept.prepare()
        outputs = []
        for _, slot, pool in pools:
            array = pool.take()
            table[slot] = address_of(array)
            outputs.append(array)
        run()
        if kept is not None:
            kept.hand_out()
        values = numbers.values
        for entries, key, position in counters:
            write(entries, key, values[position])
        if program.late is not None:
            program.raise_late()
        return result_of(outputs)

    return call


write = dict.__setitem__


def _result_of(version: Any) -> Callable[[list[Any]], Any]:
    """What makes the result of the outputs that belong to the caller."""
    places = {n: i for i, (n, _, _) in enumerate(version.launch._pools)}
    if version._single is not None:
        kind, what = version._single
        place, node = places[what], SPENT if kind == "spent" else None
        return lambda outputs: make(outputs[place], node)
    leaves = [
        (None, what) if kind == "constant" else (places[what], SPENT if kind == "spent" else None)
        for kind, what in version._leaves
    ]
    build = version._build
    return lambda outputs: build(
        iter([node if i is None else make(outputs[i], node) for i, node in leaves])
    )
