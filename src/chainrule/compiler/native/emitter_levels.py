"""The loops around the place that is being written, and what is written in front of each.

The loops form a stack of *levels*. Whatever is computed belongs to the level of the innermost
variable on which it depends: it is written in front of the loop inside that level (its
*preheader*), once, however deep it is asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chainrule.compiler.native.index import Form, Var
from chainrule.compiler.native.lanes import Pair
from chainrule.compiler.native.text import Function, Int, Loop, Reg


class Level:
    """One loop (or block) of the stack, and what has been written in front of it.

    Attributes:
        regs: the variables that it opens.
        memo: what has been written in it, by node and instance.
        lines, block: the preheader, and the basic block at its end.
    """

    def __init__(self, lines: list[str], block: str):
        self.regs: dict[Var, Reg] = {}
        self.memo: dict[Any, Reg] = {}
        self.lines, self.block = lines, block


class Levels:
    """A stack of loops in a function.

    Arguments:
        lane: the variable that may run over lanes.
        merged: variables that another one stands for: to that one, or to None if it has no part in
            any form (because the one inside it runs over both).
        pair: two loops that the lane variable runs over, if it does.
    """

    def __init__(
        self, f: Function, lane: Var | None, merged: Mapping[Var, Var | None],
        pair: Pair | None = None,
    ):  # fmt: skip
        self.f, self.lane, self.merged, self.pair = f, lane, merged, pair
        self.lanes = 1
        self.instance = 0
        self.step = 1  # each instance is so much further along one of the variables
        self.masks: dict[int, Reg] = {}  # by instance; lanes that are none of the problem's
        self.levels = [Level([], "")]
        self.place: dict[Var, int] = {}
        self._lane_names = self._along_names = self._names(lane)
        self._writing = 0  # the level whose preheader is being written; 0: none
        self._markers: dict[str, list[str]] = {}

    # --- levels -----------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        return len(self.levels) - 1

    @contextlib.contextmanager
    def loop(
        self, var: Var, start: Int, stop: Int, step: int = 1, carry: Sequence[Reg] = ()
    ) -> Iterator[Loop]:
        """A loop over a variable, as a level of its own."""
        level = self._preheader()
        with self.f.loop(start, stop, step, carry) as loop, self._open(level, {var: loop.index}):
            yield loop

    @contextlib.contextmanager
    def block(self, regs: Mapping[Var, Reg]) -> Iterator[None]:
        """A level without a loop, in which some variables are what the registers hold."""
        level = self._preheader()
        with self._open(level, regs):
            yield

    @contextlib.contextmanager
    def wide(
        self, lanes: int, masks: Mapping[int, Reg] | None = None, along: Var | None = None
    ) -> Iterator[None]:
        """Let the lane variable run over so many lanes.

        Arguments:
            along: the variable that grows by 1 from instance to instance; None for the lane
                variable, which grows by the number of lanes.
        """
        before = self.lanes, self.masks, self.instance, self._along_names, self.step
        self.lanes, self.masks, self.instance = lanes, dict(masks or {}), 0
        self._along_names, self.step = self._lane_names, lanes
        if along is not None:
            self._along_names, self.step = self._names(along), 1
        yield
        self.lanes, self.masks, self.instance, self._along_names, self.step = before

    def _preheader(self) -> Level:
        f = self.f
        entry, body = f.label("before"), f.label("body")
        f.jump(entry)
        f.start(entry)
        level = Level([], f.block)
        marker = f"; {entry}"
        self._markers[marker] = level.lines
        f.lines.append(marker)
        f.jump(body)
        f.start(body)
        return level

    @contextlib.contextmanager
    def _open(self, level: Level, regs: Mapping[Var, Reg]) -> Iterator[None]:
        level.regs.update(regs)
        if self.pair is not None and self.pair.whole in regs:
            level.regs.update(self._both(self.pair, regs[self.pair.whole]))
        self.levels.append(level)
        before, self.place = self.place, dict(self.place)
        for var in regs:
            self.place.update(dict.fromkeys(self._names(var), self.depth))
        yield
        self.levels.pop()
        self.place = before

    def _both(self, pair: Pair, whole: Reg) -> dict[Var, Reg]:
        f, length = self.f, pair.length
        return {pair.outer: f.udiv(whole, length), pair.inner: f.urem(whole, length)}

    @contextlib.contextmanager
    def _at(self, level: int) -> Iterator[None]:
        """Write in front of the loop inside a level, if one is open there."""
        if level >= self.depth or self._writing == level + 1:
            yield
            return
        f, inner, before = self.f, self.levels[level + 1], self._writing
        lines, block = f.lines, f.block
        f.lines, f.block, self._writing = inner.lines, inner.block, level + 1
        yield
        inner.block = f.block
        f.lines, f.block, self._writing = lines, block, before

    def finish(self) -> None:
        """Put the preheaders where they belong. To be called once, before `f.finish()`."""

        def expand(lines: list[str]) -> Iterator[str]:
            for line in lines:
                inner = self._markers.get(line)
                if inner is None:
                    yield line
                else:
                    yield from expand(inner)

        self.f.lines = list(expand(self.f.lines))

    # --- where a node belongs ---------------------------------------------------------------------

    def _names(self, var: Var | None) -> frozenset[Var]:
        """A variable, and those that it stands for in forms."""
        if var is None:
            return frozenset()
        if self.pair is not None and var is self.pair.whole:
            return self.pair.names
        return frozenset([var, *(v for v, other in self.merged.items() if other is var)])

    def _level(self, depends: frozenset[Var]) -> int:
        place = self.place
        return max([place.get(v, 0) for v in depends], default=0)

    def is_wide(self, depends: frozenset[Var]) -> bool:
        """Whether what depends on these is a vector here."""
        return self.lanes > 1 and not depends.isdisjoint(self._lane_names)

    def _moves(self, depends: frozenset[Var]) -> bool:
        """Whether what depends on these differs between instances."""
        return not depends.isdisjoint(self._along_names)

    def _ahead(self, form: Form) -> int:
        """How much further than the first the form is in this instance."""
        if not self.instance:
            return 0
        step, pair = self.step, self.pair
        if pair is not None:  # lanes begin where the inner loop does
            outer = sum(c for v, c in form.terms if v in pair.outer_names)
            return outer * (step // pair.length) * self.instance
        steps = sum(c for v, c in form.terms if type(v) is Var and self._moves(v.roots()))
        return steps * step * self.instance

    def memoised(self, key: Any, depends: frozenset[Var], write: Any) -> Reg:
        """What `write()` gives, written once at the level where it belongs."""
        level = self._level(depends)
        memo = self.levels[level].memo
        full = (key, self.instance if self._moves(depends) else 0)
        reg = memo.get(full)
        if reg is None:
            with self._at(level):
                reg = memo[full] = write()
        return reg
