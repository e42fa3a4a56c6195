"""Writing a nest: its units of work, the loops over its rows, and the passes over each row.

Lanes run over neighbours in memory: along a row if that is where they lie (then each accumulator is
a vector, merged across its lanes when the row is done), or across rows (then a vector is so many
rows, each with its own results). Either way several vectors, the *instances*, are worked on side by
side, so that the latency of one addition is hidden behind the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.compiler.native.emitter import Emitter
from chainrule.compiler.native.expressions import product
from chainrule.compiler.native.index import Var
from chainrule.compiler.native.loops_order import Order
from chainrule.compiler.native.loops_pass import Pass, RowPlan
from chainrule.compiler.native.loops_plan import Nest
from chainrule.compiler.native.loops_tile import Tiles
from chainrule.compiler.native.text import Function, Int, Reg, i64


class NestWriter:
    """Writes one nest into a function.

    Arguments:
        units: into how many units of work it is cut.
        scratch: bytes that it may use.
    """

    def __init__(self, emitter: Emitter, nest: Nest, order: Order, units: int, scratch: int):
        self.em, self.f, self.nest, self.order = emitter, emitter.f, nest, order
        self.units = units
        self.tile: Var | None = None  # counts tiles of transposed values
        self.plan = RowPlan(nest, order, self.f.target, scratch)

    # --- units ------------------------------------------------------------------------------------

    def write(self, lo: Reg, hi: Reg) -> None:
        """The units lo <= unit < hi of this nest.

        The rows' variables are, from the outside in: those that a unit is a range of (`rows`), then
        those that are run through whole (`middle`), then the lanes if they run across rows, cut
        into blocks if the others give too few units.
        """
        order, em, f = self.order, self.em, self.f
        rows = [v for v in order.rows if v is not order.lane]
        if order.cross is not None:
            rows[-1] = self.tile = Var(-(-order.cross.extent // order.lanes))
        total = product(v.extent for v in rows)
        length = order.lane.extent if order.lane_in_rows and order.lane else 1
        step = order.lanes * self.plan.instances
        block, blocks = length, 1
        if total < self.units and length > step and order.cross is None:
            block = -(-length * total // (self.units * step)) * step
            blocks = -(-length // block)
        quota = total * blocks // self.units
        middle: list[Var] = []
        while blocks == 1 and rows and product(v.extent for v in middle) * rows[-1].extent <= quota:
            middle.insert(0, rows.pop())
        place = Var(product(v.extent for v in rows) * blocks)
        each = -(-place.extent // self.units)
        unit = Var(self.units)
        with em.loop(unit, lo, hi):
            first = f.mul(em.var(unit), each)
            last = f.smin(f.add(first, each), place.extent)
            with em.loop(place, first, last):
                self._rows(place, rows, middle, block, blocks, length)

    def _rows(
        self, place: Var, rows: list[Var], middle: list[Var], block: int, blocks: int, length: int
    ) -> None:
        """Find the row from its place in the order of units, then run the loops inside."""
        em, f = self.em, self.f
        at = em.var(place)
        regs: dict[Var, Reg] = {}
        start: Int = 0
        stop: Int = length
        if blocks > 1:
            start = f.mul(f.urem(at, blocks), block)
            stop = f.smin(f.add(start, block), length)
            at = f.udiv(at, blocks)
        for var in reversed(rows):
            outermost = var is rows[0]
            regs[var] = at if outermost else f.urem(at, var.extent)
            at = at if outermost else f.udiv(at, var.extent)
        with em.block(regs):
            self._middle(middle, start, stop)

    def _middle(self, loops: list[Var], start: Int, stop: Int) -> None:
        if loops:
            with self.em.loop(loops[0], 0, loops[0].extent):
                self._middle(loops[1:], start, stop)
        elif self.tile is not None:
            self._tiles(self.tile)
        elif self.order.lane_in_rows:
            self._lanes(start, stop)
        else:
            self._row([0])

    def _tiles(self, tile: Var) -> None:
        """The rows of one tile, or those of the last one, which is not whole, one by one."""
        em, f, order = self.em, self.f, self.order
        assert order.cross is not None and order.lane is not None
        lanes, rows = order.lanes, order.cross.extent
        whole = rows // lanes * lanes
        first = f.mul(em.var(tile), lanes)
        with em.loop(order.cross, first, f.smin(f.add(first, lanes), whole), lanes):
            Tiles(em, order, self._store_rows).write()
        if whole < rows:
            with em.loop(order.cross, f.smax(first, whole), f.smin(f.add(first, lanes), rows)):
                self._lanes(0, order.lane.extent)

    def _lanes(self, start: Int, stop: Int) -> None:
        """The rows that lanes run across, `instances` vectors at a time."""
        em, f, lanes, lane = self.em, self.f, self.order.lanes, self.order.lane
        assert lane is not None
        step = lanes * self.plan.instances
        if isinstance(start, int) and isinstance(stop, int):
            full = (stop - start) // step * step
            rest = stop - full
            if full:
                with em.loop(lane, 0, full, step), em.wide(lanes):
                    self._row(range(self.plan.instances))
            whole, tail = divmod(rest, lanes)
            if whole or (tail and f.target.masks):
                masks = {whole: mask(lanes, tail)} if tail and f.target.masks else {}
                with em.block({lane: i64(full)}), em.wide(lanes, masks):
                    self._row(range(whole + len(masks)))
            if tail and not f.target.masks:
                with em.loop(lane, stop - tail, stop):
                    self._row([0])
            return
        count = f.sub(stop, start)
        middle = f.add(start, f.op("and", count, i64(-step)) if step & (step - 1) == 0 else
                       f.mul(f.udiv(count, step), step))  # fmt: skip
        with em.loop(lane, start, middle, step), em.wide(lanes):
            self._row(range(self.plan.instances))
        if lane.extent % step == 0:
            return
        if not f.target.masks:
            with em.loop(lane, middle, stop):
                self._row([0])
            return
        with em.loop(lane, middle, stop, lanes) as loop:
            ragged = {0: running_mask(f, f.sub(stop, loop.index), lanes)}
            with em.wide(lanes, ragged):
                self._row([0])

    def range_of(self, var: Var) -> tuple[Int, Int]:
        """Where an inner variable begins and ends."""
        block = self.nest.block
        if block is None or var is not self.plan.blocked:
            return 0, var.extent
        f, length, known = self.f, self.plan.length(var), frozenset((block,))

        def start() -> Reg:
            return f.smin(f.mul(self.em.var(block), length), var.extent)

        first = self.em.memoised("first", known, start)
        last = self.em.memoised("last", known, lambda: f.smin(f.add(first, length), var.extent))
        return first, last

    # --- one row, or one vector of rows for each instance -----------------------------------------

    def _row(self, instances: Sequence[int]) -> None:
        em, plan = self.em, self.plan
        row, lane = self.nest.expressions.row, self.order.lane
        if not plan.passes:
            self._store_rows(instances)
        elif plan.flat and lane is not None:
            vectors, rest = -(-lane.extent // self.order.lanes), lane.extent % self.order.lanes
            masks = {vectors - 1: mask(self.order.lanes, rest)} if rest else {}
            with em.block({row: i64(0), lane: i64(0)}), em.wide(self.order.lanes, masks):
                for reduces, outputs in plan.passes:
                    Pass(self, reduces, outputs, range(vectors)).flat()
                self._store_rows([0])
        else:
            with em.block({row: i64(0)}):
                kept = plan.keep(instances)
                em.kept = kept
                for number, (reduces, outputs) in enumerate(plan.passes):
                    Pass(self, reduces, outputs, instances).run()
                    for one in kept.values():
                        one.written = one.written or one.first == number
                em.kept = {}
                self._store_rows(instances)

    def _store_rows(self, instances: Sequence[int]) -> None:
        for k in instances:
            self.em.instance = k
            self.store(self.plan.row_outputs)
        self.em.instance = 0

    def store(self, outputs: Sequence[int]) -> None:
        """Write some outputs at this place."""
        em, results = self.em, []
        for number in outputs:
            value, index, node = self.nest.outputs[number]
            wide = em.is_wide(frozenset().union(*(f.roots() for f in index)))
            results.append((value, index, em.vector(node) if wide else em.scalar(node)))
        # Only now, since what is written may lie where something was read.
        for value, index, reg in results:
            em.store(value, index, reg)


def mask(lanes: int, count: int) -> Reg:
    """The first `count` lanes."""
    bits = ", ".join(f"i1 {'true' if i < count else 'false'}" for i in range(lanes))
    return Reg(f"<{bits}>", f"<{lanes} x i1>")


def running_mask(f: Function, count: Reg, lanes: int) -> Reg:
    """The first `count` lanes, or all of them."""
    narrow = f.value("i32", f"trunc {f.smin(count, lanes)} to i32")
    numbers = ", ".join(f"i32 {i}" for i in range(lanes))
    return f.value(
        f"<{lanes} x i1>", f"icmp slt <{lanes} x i32> <{numbers}>, {f.splat(narrow, lanes).text}"
    )
