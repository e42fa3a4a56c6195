"""Groups of operations that are computed at once, and which of them waits for which.

No group may wait for another one that waits for it. Each knows all that it waits for, as the bits
of a number; what joins a group, and which groups become one, `may_read` and `may_merge` allow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chainrule.compiler.families import Family
from chainrule.compiler.ir import Op, Value
from chainrule.graph import Shape


@dataclass(eq=False)
class Group:
    """Operations that one kernel computes.

    Attributes:
        number: its bit in the sets of groups.
        shape: the shape whose elements are visited.
        reduced: the axes that its reductions run over; None without reductions.
        first: the operation of a family of its own that it began with, if any.
        ops: the operations, those that are done again for it included.
        placed: the values that it makes for others.
        depends: the groups that it waits for, as bits.
    """

    number: int
    shape: Shape
    reduced: tuple[int, ...] | None = None
    first: Op | None = None
    family: Family | None = None
    ops: dict[Op, None] = field(default_factory=dict)
    placed: set[Value] = field(default_factory=set)
    depends: int = 0

    @property
    def rows(self) -> Shape:
        """The shape without the axes that are reduced and those of length 1."""
        reduced = self.reduced or ()
        return tuple(n for a, n in enumerate(self.shape) if n != 1 and a not in reduced)

    def reads(self) -> set[Value]:
        """The large values that it reads, and those that it makes."""
        return {x for op in self.ops for x in op.inputs if x.size > 1 and x.op not in self.ops} | {
            z for z in self.placed if z.size > 1
        }


class Groups:
    """All groups.

    Attributes:
        groups: by number.
        home: the group that makes a value, for values that lie in memory.
    """

    def __init__(self) -> None:
        self.groups: dict[int, Group] = {}
        self.home: dict[Value, Group] = {}
        self._made = 0

    def start(self, shape: Shape, **how: Any) -> Group:
        """A new group."""
        group = self.groups[self._made] = Group(self._made, shape, **how)
        self._made += 1
        return group

    def add(self, group: Group, op: Op, before: Iterable[Op], values: Iterable[Value]) -> None:
        """Put an operation into a group, with what is done again for it, reading some values."""
        group.ops.update(dict.fromkeys(before))
        group.ops[op] = None
        self.need(group, self.homes(values))
        for z in op.outputs:
            self.home[z] = group
            group.placed.add(z)

    def remove(self, group: Group) -> None:
        """Take a group away; its values belong to their readers."""
        del self.groups[group.number]
        for z in group.placed:
            del self.home[z]

    def read_by_others(self, group: Group) -> bool:
        """Whether another group reads a value of a group."""
        others = [other for other in self.groups.values() if other is not group]
        return any(x in group.placed for other in others for op in other.ops for x in op.inputs)

    def homes(self, values: Iterable[Value]) -> list[Group]:
        """The groups that make some values."""
        return list(dict.fromkeys(self.home[v] for v in values if v in self.home))

    def need(self, group: Group, others: Iterable[Group]) -> None:
        """Let a group wait for others."""
        new = 0
        for other in others:
            if other is not group:
                new |= other.depends | 1 << other.number
        new &= ~group.depends
        if new:
            bit = 1 << group.number
            for one in self.groups.values():
                if one is group or one.depends & bit:
                    one.depends |= new

    def may_read(self, group: Group, others: Iterable[Group]) -> bool:
        """Whether a group may wait for others: none of them waits for it."""
        bit = 1 << group.number
        return not any(other.depends & bit for other in others if other is not group)

    def may_merge(self, x: Group, y: Group) -> bool:
        """Whether two groups may be one: no third one is between them."""
        for first, last in ((x, y), (y, x)):
            bit, rest = 1 << first.number, last.depends & ~(1 << first.number)
            for number, group in self.groups.items():
                if rest >> number & 1 and group.depends & bit:
                    return False
        return True

    def merge(self, kept: Group, gone: Group) -> None:
        """Make two groups one."""
        before, after = 1 << gone.number, 1 << kept.number
        del self.groups[gone.number]
        kept.ops.update(gone.ops)
        kept.placed |= gone.placed
        kept.reduced = kept.reduced if kept.reduced is not None else gone.reduced
        self.home.update(dict.fromkeys(gone.placed, kept))
        depends = (kept.depends | gone.depends) & ~(before | after)
        for one in self.groups.values():
            if one.depends & (before | after):
                one.depends = (one.depends & ~before) | after | depends
        kept.depends = depends
