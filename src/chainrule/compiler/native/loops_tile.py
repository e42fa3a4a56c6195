"""Transposing: values that lie along another variable than the one that lanes run over.

A gather would fetch every element by itself. Instead a square of as many elements as there are
lanes, both ways, is loaded in vectors as it lies, turned in registers, and worked on as so many
instances: each is one step further along the other variable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chainrule.compiler.native.emitter import Emitter
from chainrule.compiler.native.expressions import Node
from chainrule.compiler.native.loops_order import Order
from chainrule.compiler.native.text import Function, Reg, i64, type_of, vector


def transposed(f: Function, rows: Sequence[Reg]) -> list[Reg]:
    """The columns of a square of elements, given as its rows (Eklundh's algorithm)."""
    lanes, block = len(rows), 1
    rows = list(rows)
    while block < lanes:
        low = [i if not i & block else lanes + i - block for i in range(lanes)]
        high = [i + block if not i & block else lanes + i for i in range(lanes)]
        for i in range(lanes):
            if not i & block:
                x, y = rows[i], rows[i + block]
                rows[i], rows[i + block] = f.shuffle(x, y, low), f.shuffle(x, y, high)
        block *= 2
    return rows


class Tiles:
    """Writes the rows along `order.cross`, a tile at a time.

    Arguments:
        store: writes the outputs of an instance.
    """

    def __init__(self, em: Emitter, order: Order, store: Callable[[Sequence[int]], None]):
        self.em, self.f, self.order, self.store = em, em.f, order, store

    def write(self) -> None:
        """The rows of one tile, whose first is where `order.cross` stands."""
        lane, lanes, em = self.order.lane, self.order.lanes, self.em
        assert lane is not None
        full, tail = lane.extent // lanes * lanes, lane.extent % lanes
        if full:
            with em.loop(lane, 0, full, lanes):
                self._tile(lanes)
        if tail and self.f.target.masks:
            with em.block({lane: i64(full)}):
                self._tile(tail)
        elif tail:
            with em.loop(lane, full, lane.extent), em.wide(1, along=self.order.cross):
                self.store(range(lanes))

    def _tile(self, count: int) -> None:
        """`count` lanes of as many rows as there are lanes."""
        from chainrule.compiler.native.loops_emit import mask

        em, lanes = self.em, self.order.lanes
        masks = {} if count == lanes else dict.fromkeys(range(lanes), mask(lanes, count))
        with em.wide(lanes, masks, along=self.order.cross):
            for node in self.order.turned:
                for k, reg in enumerate(self._columns(node, count)):
                    em.instance = k
                    em.bind(node, reg)
                em.instance = 0
            self.store(range(lanes))

    def _columns(self, node: Node, count: int) -> list[Reg]:
        em, f, lanes = self.em, self.f, self.order.lanes
        value, index, _ = node.data
        type = type_of(value.dtype)
        whole = vector(type, lanes)
        form = em.offset(value, index)
        step = sum(c for v, c in form.terms if em.is_wide(v.roots()))
        first = em.address(value, em.base(value), form, type)
        rows = [
            f.load(f.value("ptr", f"getelementptr {type}, {first}, i64 {j * step}"), whole)
            for j in range(count)
        ]
        rows += [f.zero(whole)] * (lanes - count)
        columns = transposed(f, rows)
        return [em.from_memory(reg, value) for reg in columns]
