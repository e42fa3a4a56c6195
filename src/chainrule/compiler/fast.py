"""The usual call, natively: nothing has changed but numbers.

`Version.holds` and `Version.run` do every call, with every kind of argument and result. A training
step is called a thousand times in the same way; for that, `Usual` writes down what those look at
and what they do, as a record that native code goes through (`native.runtime_call`). Where anything
is not as usual it says so, and they take over.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import chain
from types import CellType
from typing import Any

import numpy as np

from chainrule.compiler.guards import MISSING, Name
from chainrule.compiler.launch import UNUSUAL, Binding, Native
from chainrule.compiler.native import runtime
from chainrule.compiler.native.kernel import ARENA
from chainrule.compiler.native.runtime_call import (
    KINDS,
    LISTS,
    NUMBER,
    RECORD,
    RECORD_WORDS,
    ROWS,
    builtins,
)
from chainrule.compiler.native.runtime_memory import address_of
from chainrule.compiler.native.runtime_objects import COUNT, layout, place
from chainrule.compiler.results import SPENT
from chainrule.graph import Value, make, state, structure

WHOLE = (1 << 64) - 1
_structure = vars(structure)
_structure.setdefault("epoch", structure.epoch)
LONGEST = 64
"""Calls in the other way from one record to the next, at most."""
SPARE = 3  # rows of words that are written later
ALONE = 2
"""References to a state's array: the tensor's and that of the books."""


def is_usual(version: Any) -> bool:
    """Whether calls of a version can be made in this way."""
    launch = version.launch
    if not isinstance(launch, Native) or launch.wants_arrays or _arguments(version) is None:
        return False
    more = version._back, version._assigned, version._gradients, version._entries, version._frozen
    places = [what for kind, what in version._leaves if kind != "constant"]
    return (
        not any(more)
        and not version._rebound
        and not (version._had_grads or version._effects or version._copied)
        and all(kind in ("output", "spent", "constant") for kind, _ in version._leaves)
        and len(set(places)) == len(places)
        and all(n in version._generators for n in version._moving)
        and all(array.dtype.name in KINDS for array in launch.numbers.values())
        and all(books.own for books in (version._bindings[n] for n in version._written))
        and all(_is_plain(source) for _, source in version.numbers.sources)
        and all(type(key) is str for _, key, _ in version._counters)
        and version._epoch is structure.epoch
        and all(check.holds() for check in version.names.checks)
        and builtins() is not None
    )


def _is_plain(source: Any) -> bool:
    return source.argument is not None or all(type(key) is str for _, key in source.places)


def _arguments(version: Any) -> list[Any] | None:
    """What the leaves of a call are, if all are tensors and numbers, each of its own."""
    *_, leaves, identities = version.key
    if identities or not version._free:
        return None
    usual = all(leaf in (int, float) or leaf[2] is not None for leaf in leaves)
    return list(leaves) if usual else None


def _structure_of(version: Any) -> Any:
    """The structure of a call's arguments; None if each is a leaf, and has no name."""
    positional, named = structure_key = version.key[0]
    plain = not named and all(part in (Value, int, float) for part in positional)
    return None if plain else structure_key


class Usual:
    """The record of a version's usual calls, and the function that makes them.

    Attributes:
        call: `(*arguments) -> result`, or `UNUSUAL`. What it returns is one tensor, or a tuple of
            all outputs, of which `build` makes what the function returns.
        build: that, or None.
        shape: None, or the structure of arguments whose leaves it takes.
    """

    def __init__(self, version: Any):
        places, made = layout(), builtins()
        assert places is not None and made is not None
        self._layout, self._numbers = places, version.numbers
        self.shape = _structure_of(version)
        self._held: list[Any] = []
        self._rows: dict[str, list[int]] = {name: [] for name in LISTS}
        self._fields = self._of_all(version)
        self._take_arguments(version)
        self._modes(version)
        self._names(version)
        self._states(version)
        self._take_numbers(version)
        self.build = self._outputs(version)
        self._gradients(version)
        self._words = words = self._written()
        program = version.launch.program
        last = RECORD_WORDS + len(self._rows["words"]) - 3 * SPARE
        self._call_back("run", _runs(program, words, last))
        self._call_back("renew", _renews(version._kept_gradients, words))
        self.call: Callable[..., Any] = made.make(words, self._held)
        self.forget()

    def calls(self) -> int:
        """How many calls it has made since `forget`."""
        return int(self._words[RECORD["calls"] // 8])

    def forget(self) -> None:
        """Numbers may have been read and computed in another way since the last call."""
        self._words[RECORD["calls"] // 8] = 0
        self._words[RECORD["dirty"] // 8] = 1
        self._numbers.now = []  # and in that way they are what they were no more

    def _call_back(self, name: str, function: Callable[[], None]) -> None:
        self._words[RECORD[name] // 8] = self._hold(function)

    # --- writing it -------------------------------------------------------------------------------

    def _hold(self, thing: Any) -> int:
        """The address of an object, which stays alive as long as the record does."""
        self._held.append(thing)
        return id(thing)

    def _memory(self, numbers: list[int]) -> int:
        """The address of some words of memory."""
        array = np.array(numbers or [0], np.uint64)
        self._held.append(array)
        return address_of(array)

    def _add(self, name: str, *row: int) -> None:
        assert len(row) == len(ROWS[name])
        self._rows[name].extend(row)

    def _same(self, address: int, held: Any) -> None:
        """A word of memory that must be the address of an object (or empty)."""
        self._add("words", address, WHOLE, 0 if held is MISSING else self._hold(held))

    def _of_all(self, version: Any) -> dict[str, int]:
        hold = self._hold
        program = version.launch.program
        return {
            "tensor": hold(type(make(np.zeros(())))), "value": hold(Value),
            "ndarray": hold(np.ndarray), "none": id(None), "zero": hold(0), "true": id(True),
            "false": id(False), "values": hold(version.numbers.values),
            "late": hold(program.raise_late), "failed": hold(program.fail),
            "unusual": hold(UNUSUAL),
        }  # fmt: skip

    def _entry(self, version: Any, slot: int) -> int:
        """The address of an entry of the program's table."""
        return ctypes.addressof(version.launch._table) + 8 * slot

    def _take_arguments(self, version: Any) -> None:
        slots = {n: version.launch._slots[i] for i, n in version._arguments}
        for n, leaf in enumerate(_arguments(version) or ()):
            if leaf in (int, float):
                self._add("arguments", self._hold(leaf), NUMBER, 0, 0, 0)
                continue
            shape, dtype, needs = leaf
            table = self._entry(version, slots[n]) if n in slots else 0
            sizes = self._memory(list(shape))
            self._add("arguments", self._hold(dtype), len(shape), sizes, int(needs), table)
        for tensor in version.captured:
            self._add("captured", tensor)

    def _modes(self, version: Any) -> None:
        wanted = {"tracer": None, "observers": (), "grad_enabled": version.key[1]}
        for name, expected in wanted.items():
            self._add("modes", self._hold(state), self._hold(name), self._hold(expected))
        epoch = self._hold("epoch"), self._hold(version._epoch)
        self._add("entries", self._hold(_structure), *epoch)

    def _names(self, version: Any) -> None:
        for check in version.names.checks:
            room, now = check.room, check.now()
            if isinstance(check, Name):
                if type(room) is CellType:
                    self._same(self._hold(room) + self._layout.cell, now)
                elif type(room) is dict and type(check.key) is str:
                    expected = 0 if now is MISSING else self._hold(now)
                    self._add("entries", self._hold(room), self._hold(check.key), expected)
                else:
                    self._add("checks", self._hold(check.holds))
            elif type(room) in (list, dict):
                self._held.append(now)  # and with it everything in it
                inside = [*chain(*room.items())] if type(room) is dict else now
                count, listed = len(room), int(type(room) is dict)
                memory = self._memory([id(x) for x in inside])
                self._add("contents", self._hold(room), listed, count, memory)
            elif type(room) is not tuple:
                self._add("checks", self._hold(check.holds))

    def _states(self, version: Any) -> None:
        layout = self._layout
        stamp, written = _stamp(), set(version._written)
        for n, generator in version._generators.items():
            room, tensor = vars(generator), version._tensors[n]
            self._add("entries", self._hold(room), self._hold("_state"), self._hold(tensor))
        for n, (tensor, books, count, node) in enumerate(version.rows or version.make_rows()):
            at = self._hold(tensor)
            # The books hold the array; a reference more would be one too many.
            self._same(self._hold(books) + stamp, count)
            self._add("words", at + layout.array, WHOLE, id(books.array))
            self._same(at + layout.node, node)
            if n in written:
                self._add("words", id(books.array), COUNT, ALONE)
        nothing = self._memory([0])
        for _ in range(SPARE):  # see `_runs`
            self._add("words", nothing, 0, 0)

    def _take_numbers(self, version: Any) -> None:
        numbers, hold = version.numbers, self._hold
        for position, source in numbers.sources:
            if source.argument is not None:
                self._add("given", source.argument, position)
            for n, (room, key) in enumerate(source.places):
                if source.item is None:
                    self._add("sources", hold(room), hold(key), position, int(n == 0))
                else:
                    self._add("entries", hold(room), hold(key), hold(dict.__getitem__(room, key)))
        for function, operands, result in numbers.steps:
            padded = [*operands, 0, 0, 0][:3]
            self._add("steps", hold(function), result, len(operands), *padded)
        for position, told in numbers.guards.items():
            self._add("guards", position, hold(told))
        for i, position, _ in version._scalars:
            array = version.launch.numbers[i]
            self._held.append(array)
            self._add("fills", position, KINDS[array.dtype.name], address_of(array))
        for entries, key, position in version._counters:
            self._add("counters", hold(entries), hold(key), position)

    def _outputs(self, version: Any) -> Callable[[Any], Any] | None:
        pools = version.launch._pools
        kinds = {what: kind for kind, what in version._leaves if kind != "constant"}
        for n, slot, pool in pools:
            node = self._hold(SPENT if kinds.get(n) == "spent" else None)
            entry = self._entry(version, slot)
            self._add("outputs", self._hold(pool.arrays), self._hold(pool.take), entry, node)
        if version._single is not None and len(pools) == 1:
            self._fields["single"] = 1
            return None
        at = {n: i for i, (n, _, _) in enumerate(pools)}
        leaves = [(None, x) if kind == "constant" else (at[x], None) for kind, x in version._leaves]
        build = version._build
        return lambda made: build(iter([x if i is None else made[i] for i, x in leaves]))

    def _gradients(self, version: Any) -> None:
        kept = version._kept_gradients
        if kept is None:
            self._fields["turn"] = self._memory([0])
            return
        self._held.append(kept)
        self._fields["turn"] = address_of(kept.turn)
        slots = [self._entry(version, version.launch.places[n][0]) for _, n in kept.gradients]
        sets = kept.whole(0), kept.whole(1)
        for (tensor, _), slot, first, second in zip(kept.gradients, slots, *sets, strict=True):
            places = self._hold(tensor) + self._layout.grad, slot, id(first), id(second)
            self._add("gradients", *places, address_of(first.array), address_of(second.array))

    def _written(self) -> Any:
        """The record: fields, lists, rows."""
        counts = {name: len(rows) // len(ROWS[name]) for name, rows in self._rows.items()}
        words = np.zeros(RECORD_WORDS + sum(map(len, self._rows.values())), np.uint64)
        at = RECORD_WORDS
        for name, rows in self._rows.items():
            words[at : at + len(rows)] = rows
            listed = LISTS[name] // 8
            words[listed : listed + 2] = address_of(words) + 8 * at, counts[name]
            at += len(rows)
        for name, value in self._fields.items():
            words[RECORD[name] // 8] = value
        return words


def _stamp() -> int:
    """Where books keep their stamp."""
    books = Binding()
    books.stamp = 1 << 40
    return place(books, books.stamp, Binding.__basicsize__)


def _runs(program: Any, words: Any, last: int) -> Callable[[], None]:
    """Runs the program as Python does, and lets native code run it as soon as that may.

    Arguments:
        words: the record.
        last: the first of its rows that must hold while native code runs the program.
    """

    def run() -> None:
        program.call()
        direct = program.direct()
        if direct is None or program.late is not None:
            return  # the record without a job: what came late is raised when all is written
        arena = ctypes.addressof(program._table) + 8 * ARENA
        rows = (
            (arena, WHOLE, program._table[ARENA]),  # where it is not, the mark may be gone
            (direct.mark, WHOLE, 0),
            (address_of(runtime.changes), WHOLE, runtime.changes[0]),
        )
        words[last : last + 3 * len(rows)] = [x for row in rows for x in row]
        for name in ("pool", "enter", "status", "job"):
            words[RECORD[name] // 8] = getattr(direct, name)

    return run


def _renews(kept: Any, words: Any) -> Callable[[], None]:
    """Replaces gradients that somebody has read, in their books and in the record."""

    def renew() -> None:
        at = (int(words[LISTS["gradients"] // 8]) - address_of(words)) // 8
        rows = words[at : at + 6 * len(kept.gradients)].reshape(-1, 6)
        which = int(kept.turn[0])
        for row, deferred in zip(rows, kept.whole(which), strict=True):
            row[2 + which], row[4 + which] = id(deferred), address_of(deferred.array)

    return renew


def follow(version: Any) -> bool:
    """After a call that was made in the other way: let the next one be usual, if it can be.

    A record that is never of use, or cannot be written, is thought of ever more seldom.

    Returns:
        Whether there is another record now, or none any more.
    """
    usual = version.usual
    if usual is not None:
        version.patience = 1 if usual.calls() else min(2 * version.patience, LONGEST)
        usual.forget()
    version.waited += 1
    if version.waited < version.patience:
        return False
    version.waited = 0
    version.usual = Usual(version) if is_usual(version) else None
    if version.usual is None:
        version.patience = min(2 * version.patience, LONGEST)
    return version.usual is not usual
