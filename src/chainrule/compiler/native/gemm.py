"""One product, C = A @ B with any strides, as loops over register tiles.

A *unit* of work is some row tiles by some panels of C. Every row tile of the unit runs over a panel
of B while it lies in the first- or second-level cache:

    for block of k:
        pack the unit's rows of A           # if their strides call for it
        for panel of the unit's columns:
            pack B                          # or read where it lies, or packed by a kernel before
            for tile of the unit's rows:
                C[tile, panel] (+)= A[tile, block] @ B[block, panel]

`gemm_plan` decides what is done.
"""

from __future__ import annotations

import math
from dataclasses import replace

from chainrule.compiler.native import caches
from chainrule.compiler.native.gemm_finish import PLACE, Finish
from chainrule.compiler.native.gemm_plan import (
    Plan,
    Product,
    classes,
    packed_size,
    panel_room,
    panels_of,
    spread,
    start_of,
)
from chainrule.compiler.native.microkernel import (
    Level,
    Sums,
    Tile,
    contract,
    itemsize,
    lanes_in,
    literal_mask,
    read,
    write,
    zeros,
)
from chainrule.compiler.native.packing import Panel, emit_pack, emit_pack_many
from chainrule.compiler.native.text import Function, Int, Module, Reg


def pack_panel(f: Function, p: Product, plan: Plan, panel: Reg, pointers: tuple[Reg, Reg]) -> None:
    """Write the packing of one panel of a whole B: from its first element to the packed whole."""
    lanes = lanes_in(f.target, p.type)
    source, to = pointers
    vectors = start_of(f, plan.across, panel)
    source = f.at(source, f.mul(vectors, lanes * p.b[1]), p.type)
    to = f.at(to, f.mul(vectors, panel_room(p, lanes)), p.type)
    for first, stop, wide, last in panels_of(p, plan.across, lanes):
        packing = Panel(p.type, *p.b, (wide - 1) * lanes + last, wide, p.depth % lanes == 0)
        with f.when(f.icmp("ult", f.sub(panel, first), stop - first)):
            f.run(emit_pack(f.module, packing), source, to, f.add(p.depth, 0))


def pack_rows(
    f: Function,
    p: Product,
    plan: Plan,
    panels: tuple[Reg, Reg],
    rows: tuple[Int, Int, Int],
    pointers: tuple[Reg, Reg],
    room: int,
) -> None:
    """Write the packing of some panels of a B whose rows are contiguous, row by row.

    Arguments:
        panels: the first, and the one after the last.
        rows: the first row, how many, and the row that is packed first (what lies at `to`).
        pointers: the first elements of B, and of the first of these panels as they are packed.
        room: elements between packed panels for each vector of their width.
    """
    lanes = lanes_in(f.target, p.type)
    k, depth, origin = rows
    source = f.at(pointers[0], f.mul(k, p.b[0]), p.type)
    start = start_of(f, plan.across, panels[0])
    for first, stop, wide, last in panels_of(p, plan.across, lanes):
        lower = f.smax(panels[0], first)
        upper = f.smax(f.smin(panels[1], stop), lower)
        packing = Panel(p.type, *p.b, (wide - 1) * lanes + last, wide)
        vectors = start_of(f, plan.across, lower)
        inside = f.add(f.mul(f.sub(vectors, start), room), f.mul(f.sub(k, origin), wide * lanes))
        f.run(
            emit_pack_many(f.module, packing, wide * room),
            f.at(source, f.mul(vectors, lanes), p.type),
            f.at(pointers[1], inside, p.type),
            f.add(depth, 0),
            f.sub(upper, lower),
        )


class Gemm:
    """The functions that compute one product: `unit` writes a unit's loops into a kernel.

    Arguments:
        name: the kernel's.
        finish: what is done with finished tiles in place of storing them.
    """

    def __init__(
        self,
        module: Module,
        name: str,
        product: Product,
        plan: Plan,
        finish: Finish | None = None,
    ):
        self.module, self.name, self.product, self.plan = module, name, product, plan
        self.finish = finish
        self.lanes = lanes_in(module.target, product.type)
        self.size = itemsize(product.type)
        self.blocked = product.depth > plan.block or plan.parts > 1
        # A tile's rows of a copied A lie side by side, in as many vectors as hold them.
        self.a_vectors = math.ceil(plan.down.size / self.lanes)
        self.a_steps = (1, self.a_vectors * self.lanes) if plan.copy else product.a
        self.ahead = self._ahead_bytes()
        vectors = plan.down.size * plan.across.size
        fits = finish is not None and finish.in_registers(vectors)
        # Tiles are finished before they leave the registers, or wait in scratch.
        self.spills = finish is not None and (self.blocked or not fits)
        self.c_steps = (self._sums_shape[1], 1) if self.spills else product.c

    def _ahead_bytes(self) -> int:
        """Bytes of the next panel that each round of k asks for: all tiles ask for all of it.

        None where B comes from the second-level cache anyway.
        """
        whole = packed_size(self.product, self.lanes) * self.size
        if self.plan.pack != "ready" or whole <= caches.second():
            return 0
        row = self.plan.across.size * self.lanes * self.size
        return min(64, max(16, row // self.plan.tiles // 16 * 16))

    @property
    def _sums_shape(self) -> tuple[int, int]:
        """What lies in scratch before it is finished: one tile, or all of a unit between blocks."""
        if self.blocked:
            return self._unit_rows, self._unit_columns
        return self.plan.down.size, self.plan.across.size * self.lanes

    # --- scratch: the panel, the copy of A, the waiting sums -------------------------------------

    @property
    def _unit_rows(self) -> int:
        return min(self.plan.tiles * self.plan.down.size, self.product.rows)

    @property
    def _unit_columns(self) -> int:
        return self.plan.panels * self.plan.across.size * self.lanes

    @property
    def _parts(self) -> tuple[int, int, int]:
        panel = copy = sums = 0
        if self.plan.pack == "unit":
            panel = spread(self.plan.block) * self._unit_columns * self.size
        if self.plan.pack == "panel":
            rows = math.ceil(self.plan.block / self.lanes) * self.lanes
            panel = rows * self.plan.across.size * self.lanes * self.size
        if self.plan.copy:
            copy = self.plan.tiles * spread(self.plan.block) * self.a_steps[1] * self.size
        if self.spills:
            sums = math.prod(self._sums_shape) * self.size
        return tuple(math.ceil(x / 64) * 64 for x in (panel, copy, sums))  # type: ignore[return-value]

    @property
    def scratch(self) -> int:
        """Bytes of scratch that a unit needs."""
        return sum(self._parts)

    # --- functions ------------------------------------------------------------------------------

    def _tile(self, high: int, wide: int, last: int) -> str:
        """Write the function of one size of tile; its name."""
        p, plan = self.product, self.plan
        finish = None if self.spills else self.finish
        parameters = "ptr noalias %a, ptr noalias %b, ptr noalias %c"
        if finish is not None:
            parameters += f", {PLACE}"
        if self.blocked:
            parameters += ", i64 %depth, i1 %first"
        if self.ahead:
            parameters += ", ptr %next"
        b_step = p.b[0] if plan.pack == "none" else wide * self.lanes
        depth = None if self.blocked else p.depth
        key = (
            p.type,
            high,
            wide,
            last,
            self.a_steps,
            b_step,
            self.c_steps,
            depth,
            plan.pack,
            self.ahead,
        )
        own = None if finish is None else self.name  # what finishes a tile is this product's
        name, new = self.module.shared("tile", (key, own))
        if not new:
            return name
        f = Function(self.module, name, parameters)
        outer = Tile.dense(f.target, p.type, high, wide, self.a_steps[0], last)
        inner = outer if plan.pack == "none" else replace(outer, last=self.lanes)
        start = self._start(f, outer) if self.blocked else None
        level = Level(f.arg("depth") if depth is None else depth, self.a_steps[1], b_step)
        ahead = (f.arg("next"), self.ahead) if self.ahead else None
        sums = contract(f, inner, f.arg("a"), f.arg("b"), [level], start, ahead)
        if finish is None:
            write(f, outer, sums, f.arg("c"), *self.c_steps)
        else:
            finish.registers(f, sums, self.lanes, self._masks(wide, last))
        return f.finish()

    def _masks(self, wide: int, last: int) -> dict[int, Reg]:
        return {} if last == self.lanes else {wide - 1: literal_mask(self.lanes, last)}

    def _finisher(self, wide: int, last: int) -> str:
        """Write the function that finishes some rows of a panel in scratch; its name."""
        name, new = self.module.shared("finish", (self.name, wide, last))
        if new:
            f = Function(self.module, name, f"ptr noalias %c, {PLACE}, i64 %rows")
            assert self.finish is not None
            shape = (f.arg("rows"), wide)
            masks = self._masks(wide, last)
            self.finish.memory(f, f.arg("c"), self.c_steps[0], shape, self.product.type, masks)
            f.finish()
        return name

    def _ahead(self, wide: int) -> str:
        """Write the function that asks for what finishing some rows of a panel will read."""
        name, new = self.module.shared("ahead", (self.name, wide))
        if new:
            f = Function(self.module, name, f"{PLACE}, i64 %rows")
            assert self.finish is not None
            self.finish.ahead(f, (f.arg("rows"), wide), self.lanes)
            f.finish()
        return name

    def _start(self, f: Function, tile: Tile) -> Sums:
        """Zeros in the first block of the depth, the sums so far in later ones."""
        before, more, ready = f.block, f.label("more"), f.label("ready")
        f.branch(f.arg("first"), ready, more)
        f.start(more)
        sums = read(f, tile, f.arg("c"), *self.c_steps)
        after = f.block
        f.jump(ready)
        f.start(ready)
        nothing = zeros(f, tile)
        return [
            [
                f.value(
                    x.type,
                    f"phi {x.type} [{zero.text}, %{before}], [{x.text}, %{after}]",
                )
                for x, zero in zip(row, zero_row, strict=True)
            ]
            for row, zero_row in zip(sums, nothing, strict=True)
        ]

    # --- a unit's loops -------------------------------------------------------------------------

    def unit(
        self,
        f: Function,
        pointers: tuple[Reg, Reg, Reg],
        scratch: Reg,
        at: tuple[Reg, Reg],
        batch: Int = 0,
        part: Int = 0,
    ) -> None:
        """Write the loops of one unit.

        Arguments:
            pointers: the first elements of A, B and C (of B as it was packed, if it comes so).
            scratch: `self.scratch` bytes.
            at: the unit's place in the grid, down and across.
            batch: what `finish` is told as `%batch`.
            part: which part of the depth to sum over.
        """
        p, plan = self.product, self.plan
        if 0 in (p.rows, p.columns):
            return
        first, stop = share(f, plan.down.count, at[0], plan.grid[0])
        left, right = share(f, plan.across.count, at[1], plan.grid[1])
        start, end = f.add(0, 0), f.add(p.depth, 0)
        if plan.parts > 1:
            start = f.mul(part, plan.span)
            end = f.smin(f.add(start, plan.span), p.depth)
        run = _Run(
            self,
            f,
            pointers,
            scratch,
            (first, stop),
            (left, right),
            batch,
            (start, end),
        )
        if not self.blocked:
            run.block(start, p.depth)
            return
        with f.loop(start, end, plan.block) as k:
            run.block(k.index, f.smin(f.sub(end, k.index), plan.block))


def share(f: Function, count: int, number: Int, parts: int) -> tuple[Reg, Reg]:
    """Which of `count` things belong to part `number`: from the first to before the last."""
    return (
        f.udiv(f.mul(number, count), parts),
        f.udiv(f.mul(f.add(number, 1), count), parts),
    )


class _Run:
    """The loops of one unit, being written."""

    def __init__(
        self,
        gemm: Gemm,
        f: Function,
        pointers: tuple[Reg, Reg, Reg],
        scratch: Reg,
        tiles: tuple[Reg, Reg],
        panels: tuple[Reg, Reg],
        batch: Int,
        ends: tuple[Reg, Reg],
    ):
        self.gemm, self.f, self.batch, self.ends = gemm, f, batch, ends
        self.a, self.b, self.c = pointers
        self.tiles, self.panels = tiles, panels
        panel, copy, _ = gemm._parts
        self.panel = scratch
        self.copy = f.at(scratch, panel, "i8")
        self.sums = f.at(scratch, panel + copy, "i8")

    def block(self, k: Reg, depth: Int) -> None:
        """The block of the depth that begins at k."""
        self.k = k
        f, gemm = self.f, self.gemm
        p, plan = gemm.product, gemm.plan
        self.row0 = start_of(f, plan.down, self.tiles[0])
        self.column0 = f.mul(start_of(f, plan.across, self.panels[0]), gemm.lanes)
        a = f.at(self.a, f.mul(self.k, p.a[1]), p.type)
        if plan.copy:
            self._copy(a, depth)
        if plan.pack == "unit":
            rows, room = (k, depth, k), spread(plan.block) * gemm.lanes
            pack_rows(f, p, plan, self.panels, rows, (self.b, self.panel), room)
        for number, stop, wide, last in panels_of(p, plan.across, gemm.lanes):
            lower = f.smax(self.panels[0], number)
            with f.loop(lower, f.smin(self.panels[1], stop)) as panel:
                self._panel(panel.index, wide, last, a, depth)

    def _copy(self, a: Reg, depth: Int) -> None:
        """Pack each tile's rows of A, as a panel of A^T."""
        f, gemm = self.f, self.gemm
        p, plan = gemm.product, gemm.plan
        for number, stop, high in classes(plan.down):
            whole = p.depth % gemm.lanes == 0
            panel = Panel(p.type, p.a[1], p.a[0], high, gemm.a_vectors, whole)
            lower = f.smax(self.tiles[0], number)
            upper = f.smax(f.smin(self.tiles[1], stop), lower)
            if p.a[0] == 1:
                name = emit_pack_many(gemm.module, panel, spread(plan.block) * gemm.a_steps[1])
                source = f.at(a, start_of(f, plan.down, lower), p.type)
                count = f.sub(upper, lower)
                f.run(name, source, self._copied(lower), f.add(depth, 0), count)
                continue
            name = emit_pack(gemm.module, panel)
            with f.loop(lower, upper) as tile:
                row = start_of(f, plan.down, tile.index)
                source = f.at(a, f.mul(row, p.a[0]), p.type)
                f.run(name, source, self._copied(tile.index), f.add(depth, 0))

    def _copied(self, tile: Reg) -> Reg:
        """Where the copy of a tile's rows lies."""
        f, gemm = self.f, self.gemm
        room = spread(gemm.plan.block) * gemm.a_steps[1]
        inside = f.sub(tile, self.tiles[0])
        return f.at(self.copy, f.mul(inside, room), gemm.product.type)

    def _panel(self, panel: Reg, wide: int, last: int, a: Reg, depth: Int) -> None:
        f, gemm = self.f, self.gemm
        p, plan = gemm.product, gemm.plan
        vectors = start_of(f, plan.across, panel)
        column = f.mul(vectors, gemm.lanes)
        if plan.pack == "ready":
            index = f.mul(vectors, panel_room(p, gemm.lanes))
            b = f.at(self.b, f.add(index, f.mul(self.k, wide * gemm.lanes)), p.type)
        elif plan.pack == "unit":
            index = f.mul(f.sub(column, self.column0), spread(plan.block))
            b = f.at(self.panel, index, p.type)
        else:
            b = f.at(self.b, f.add(f.mul(self.k, p.b[0]), f.mul(column, p.b[1])), p.type)
        if plan.pack == "panel":
            there = (wide - 1) * gemm.lanes + last
            packing = Panel(p.type, *p.b, there, wide, p.depth % gemm.lanes == 0)
            name = emit_pack(gemm.module, packing)
            f.run(name, b, self.panel, f.add(depth, 0))
            b = self.panel
        for number, stop, high in classes(plan.down):
            lower = f.smax(self.tiles[0], number)
            with f.loop(lower, f.smin(self.tiles[1], stop)) as tile:
                self._tile(tile.index, (high, wide, last), column, a, b, depth)

    def _tile(
        self,
        tile: Reg,
        shape: tuple[int, int, int],
        column: Reg,
        a: Reg,
        b: Reg,
        depth: Int,
    ) -> None:
        f, gemm = self.f, self.gemm
        p, (high, wide, last) = gemm.product, shape
        row = start_of(f, gemm.plan.down, tile)
        if gemm.plan.copy:
            a = self._copied(tile)
        else:
            a = f.at(a, f.mul(row, p.a[0]), p.type)
        if not gemm.spills:
            c = f.at(self.c, f.add(f.mul(row, p.c[0]), f.mul(column, p.c[1])), p.type)
        elif gemm.blocked:
            inside = f.mul(f.sub(row, self.row0), gemm.c_steps[0])
            c = f.at(self.sums, f.add(inside, f.sub(column, self.column0)), p.type)
        else:
            c = self.sums
        arguments = [a, b, c]
        place = (f.arg("table"), f.add(self.batch, 0), row, column)
        if gemm.finish is not None and not gemm.spills:
            arguments += place
        if gemm.blocked:
            arguments += [f.add(depth, 0), f.icmp("eq", self.k, self.ends[0])]
        if gemm.ahead:
            following = f.at(b, panel_room(p, gemm.lanes) * wide, p.type)
            part = f.mul(f.sub(tile, self.tiles[0]), gemm.ahead * gemm.plan.block)
            arguments.append(f.at(following, part, "i8"))
        if gemm.finish is not None and gemm.finish.streams:
            f.run(gemm._ahead(wide), *place, f.add(high, 0))
        f.run(gemm._tile(high, wide, last), *arguments)
        if not gemm.spills:
            return
        final = f.icmp("sge", f.add(self.k, depth), self.ends[1])
        with f.when(final):
            f.run(gemm._finisher(wide, last), c, *place, f.add(high, 0))
