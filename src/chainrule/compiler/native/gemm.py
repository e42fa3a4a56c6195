"""One product, C = A @ B with any strides, as loops over register tiles.

A *unit* of work is some row tiles by some panels of C. For each block of the depth it copies its
rows of A if their strides call for it, and for each panel it packs B if that pays; then every row
tile of the unit runs over the panel while it lies in the first- or second-level cache:

    for block of k:
        copy the unit's rows of A           # padded strides
        for panel of the unit's columns:
            pack B                          # or read where it lies, or packed by a kernel before
            for tile of the unit's rows:
                C[tile, panel] (+)= A[tile, block] @ B[block, panel]

Everything is decided here by the problem's shape and strides (`plan`), so that results do not
depend on who computes what.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from chainrule.compiler.native import caches
from chainrule.compiler.native.microkernel import (
    Cut,
    Finish,
    Level,
    Sums,
    Tile,
    apply,
    choose,
    contract,
    cut,
    itemsize,
    lanes_in,
    read,
    write,
    zeros,
)
from chainrule.compiler.native.packing import (
    Panel,
    copied_bytes,
    copied_strides,
    emit_copy,
    emit_pack,
)
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Function, Int, Module, Reg

Pair = tuple[int, int]
Packing = Literal["none", "unit", "ready"]

FAR = 128
"""From this depth on, lines of C are asked for before they are needed."""


@dataclass(frozen=True)
class Product:
    """C = A @ B: sizes, type of the elements, strides in elements.

    Attributes:
        rows, columns, depth: C is rows by columns, A rows by depth, B depth by columns.
        a: the strides of A by row and by k.
        b: those of B by k and by column.
        c: those of C by row and by column.
    """

    rows: int
    columns: int
    depth: int
    type: str
    a: Pair
    b: Pair
    c: Pair

    @property
    def transposed(self) -> Product:
        """The same numbers as C^T = B^T @ A^T."""
        a, b, c = [(second, first) for first, second in (self.b, self.a, self.c)]
        return Product(self.columns, self.rows, self.depth, self.type, a, b, c)

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.columns * self.depth


@dataclass(frozen=True)
class Plan:
    """How a product is computed.

    Attributes:
        down, across: the rows in tiles, and the vectors of a row in panels.
        tiles, panels: how many of them a unit has at most.
        block: the most of the depth that is done at a time.
        pack: whether B is read where it lies, packed by each unit, or comes packed (`ready`).
        copy: whether each unit copies its rows of A.
    """

    down: Cut
    across: Cut
    tiles: int
    panels: int
    block: int
    pack: Packing
    copy: bool

    @property
    def grid(self) -> Pair:
        """Units down and across."""
        return (
            math.ceil(self.down.count / max(1, self.tiles)),
            math.ceil(self.across.count / max(1, self.panels)),
        )

    @property
    def units(self) -> int:
        return math.prod(self.grid)


def plan(target: Target, product: Product, batch: int = 1, ready: Pair | None = None) -> Plan:
    """Decide by shape and strides.

    Arguments:
        batch: how many such products there are.
        ready: B comes packed whole, for tiles of so many rows and vectors.
    """
    p, size = product, itemsize(product.type)
    if not p.rows * p.columns * batch:
        return Plan(cut(0, 1), cut(0, 1), 1, 1, 1, "none", False)
    lanes = lanes_in(target, p.type)
    high, wide = ready or choose(target, p.type, p.rows, p.columns)
    down, across = cut(p.rows, high), cut(math.ceil(p.columns / lanes), wide)
    block = _depth_block(p.depth, size, across.size * lanes, lanes)
    tiles, panels = _unit(p, down, across, block, batch, ready is not None)
    pack: Packing = "ready" if ready else "none"
    if ready is None and (p.b[1] != 1 or _strided_badly(p.b[0], size, min(tiles, down.count))):
        pack = "unit"
    copy = panels >= 3 and p.depth >= 32 and _worth_copying(p, size, down.size)
    return Plan(down, across, tiles, panels, block, pack, copy)


def _depth_block(depth: int, size: int, width: int, lanes: int) -> int:
    """Blocks of even length whose panel of B takes at most a share of the second-level cache."""
    most = max(lanes, caches.second() // 8 // (width * size))
    if depth <= most * 3 // 2:
        return max(depth, 1)
    count = math.ceil(depth / most)
    return math.ceil(depth / count / lanes) * lanes


def _unit(
    p: Product, down: Cut, across: Cut, block: int, batch: int, ready: bool
) -> tuple[int, int]:
    """Row tiles and panels of a unit: enough units to deal out, and A's rows fit the cache."""
    room = max(1, caches.second() // 2 // (block * itemsize(p.type) * max(down.size, 1)))
    tiles = _even(down.count, room)
    panels = across.count
    wanted = _wanted_units(p.flops * batch)
    while batch * math.ceil(down.count / tiles) * math.ceil(across.count / panels) < wanted:
        # Halving the columns costs nothing where B is packed by each unit, halving rows otherwise.
        if panels > 1 and (not ready or tiles <= 4):
            panels = math.ceil(panels / 2)
        elif tiles > 1:
            tiles = math.ceil(tiles / 2)
        else:
            break
    return max(tiles, 1), max(panels, 1)


def _wanted_units(flops: int) -> int:
    """One for each few microseconds of work, up to 16."""
    return max(1, min(16, flops // 1_000_000))


def _even(count: int, most: int) -> int:
    """Divide `count` into parts of at most `most`, as even as can be; the size of a part."""
    return math.ceil(count / math.ceil(count / most)) if count else 1


def _strided_badly(step: int, size: int, uses: int) -> bool:
    """Whether rows of B so far apart are worth packing for `uses` row tiles."""
    return uses >= 4 and step * size >= 256


def _worth_copying(p: Product, size: int, high: int) -> bool:
    row, k = (abs(x) * size for x in p.a)
    if k == size:  # rows fall on each other in the first-level cache
        return row >= 1024 and row % 1024 == 0
    return True


def classes(parts: Cut) -> list[tuple[int, int, int]]:
    """The ranges of tiles of one size: first, stop and size."""
    both = [
        (0, parts.larger, parts.size),
        (parts.larger, parts.count, parts.size - 1),
    ]
    return [x for x in both if x[0] < x[1]]


def panels_of(p: Product, across: Cut, lanes: int) -> list[tuple[int, int, int, int]]:
    """The ranges of panels of one kind: first, stop, vectors, and lanes of the last vector.

    A last panel whose last vector is not full is a kind of its own.
    """
    kinds = [(first, stop, size, lanes) for first, stop, size in classes(across)]
    if p.columns % lanes:
        first, stop, size, _ = kinds.pop()
        if first < stop - 1:
            kinds.append((first, stop - 1, size, lanes))
        kinds.append((stop - 1, stop, size, p.columns % lanes))
    return kinds


def start_of(f: Function, parts: Cut, number: Int) -> Reg:
    """Where tile or panel `number` begins."""
    whole = f.mul(number, parts.size)
    if not parts.smaller:
        return whole
    return f.sub(whole, f.smax(f.sub(number, parts.larger), 0))


def panel_room(p: Product, lanes: int) -> int:
    """Elements between the panels of a whole packed B, for each vector of their width."""
    return math.ceil(max(p.depth, 1) / lanes) * lanes * lanes


def packed_size(p: Product, lanes: int) -> int:
    """Elements of a whole packed B."""
    return math.ceil(p.columns / lanes) * panel_room(p, lanes)


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


class Gemm:
    """The functions that compute one product: `unit` writes a unit's loops into a kernel.

    Arguments:
        name: the kernel's.
        finish: what is done with finished vectors in place of storing them. The function that it
            writes into then has the arguments `%table` and `%batch`.
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
        self.blocked = product.depth > plan.block
        self.a_steps = product.a
        if plan.copy:
            copied = copied_strides(*product.a, self._unit_rows, plan.block, product.type)
            self.a_steps = (copied.row_step, copied.depth_step)
        self.c_steps = product.c
        if finish is not None and self.blocked:  # sums wait in scratch for their last block
            self.c_steps = (self._unit_columns, 1)

    # --- scratch: the panel, the copy of A, the waiting sums -------------------------------------

    @property
    def _unit_rows(self) -> int:
        return min(self.plan.tiles * self.plan.down.size, self.product.rows)

    @property
    def _unit_columns(self) -> int:
        return self.plan.panels * self.plan.across.size * self.lanes

    @property
    def _parts(self) -> tuple[int, int, int]:
        p = self.product
        panel = copy = sums = 0
        if self.plan.pack == "unit":
            rows = math.ceil(self.plan.block / self.lanes) * self.lanes
            panel = rows * self.plan.across.size * self.lanes * self.size
        if self.plan.copy:
            copy = copied_bytes(*p.a, self._unit_rows, self.plan.block, p.type)
        if self.finish is not None and self.blocked:
            sums = self._unit_rows * self._unit_columns * self.size
        return tuple(math.ceil(x / 64) * 64 for x in (panel, copy, sums))  # type: ignore[return-value]

    @property
    def scratch(self) -> int:
        """Bytes of scratch that a unit needs."""
        return sum(self._parts)

    # --- functions ------------------------------------------------------------------------------

    def _tile(self, high: int, wide: int, last: int) -> str:
        """Write the function of one size of tile; its name."""
        p, plan = self.product, self.plan
        parameters = "ptr noalias %a, ptr noalias %b, ptr noalias %c"
        if self.finish is not None:
            parameters += ", ptr %table, i64 %batch, i64 %row, i64 %column"
        if self.blocked:
            parameters += ", i64 %depth, i1 %first, i1 %final"
        b_step = p.b[0] if plan.pack == "none" else wide * self.lanes
        depth = None if self.blocked else p.depth
        key = (p.type, high, wide, last, self.a_steps, b_step, self.c_steps, depth, plan.pack)
        own = None if self.finish is None else self.name  # what finishes a tile is this product's
        name, new = self.module.shared("tile", (key, own))
        if not new:
            return name
        f = Function(self.module, name, parameters)
        outer = Tile.dense(f.target, p.type, high, wide, self.a_steps[0], last)
        inner = outer if plan.pack == "none" else replace(outer, last=self.lanes)
        c, start = f.arg("c"), None
        if self.blocked:
            start = self._start(f, outer)
        if self.finish is None and self.c_steps[1] == 1 and plan.block >= FAR:
            for i in range(high):
                for j in range(wide):
                    index = f.add(f.mul(i, self.c_steps[0]), j * self.lanes)
                    _prefetch(f, f.at(c, index, p.type))
        level = Level(f.arg("depth") if depth is None else depth, self.a_steps[1], b_step)
        sums = contract(f, inner, f.arg("a"), f.arg("b"), [level], start)
        if self.finish is None:
            write(f, outer, sums, c, *self.c_steps)
        elif not self.blocked:
            apply(f, outer, sums, f.arg("row"), f.arg("column"), self.finish)
        else:
            with f.when(f.value("i1", f"xor {f.arg('final')}, true")):
                write(f, outer, sums, c, *self.c_steps)
            with f.when(f.arg("final")):
                apply(f, outer, sums, f.arg("row"), f.arg("column"), self.finish)
        return f.finish()

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
                f.value(x.type, f"phi {x.type} [{zero.text}, %{before}], [{x.text}, %{after}]")
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
    ) -> None:
        """Write the loops of one unit.

        Arguments:
            pointers: the first elements of A, B and C (of B as it was packed, if it comes so).
            scratch: `self.scratch` bytes.
            at: the unit's place in the grid, down and across.
            batch: what `finish` is told as `%batch`.
        """
        p, plan = self.product, self.plan
        if 0 in (p.rows, p.columns):
            return
        first, stop = self._range(f, at[0], plan.tiles, plan.down)
        left, right = self._range(f, at[1], plan.panels, plan.across)
        if not self.blocked:
            run = _Run(self, f, pointers, scratch, (first, stop), (left, right), batch, f.add(0, 0))
            run.block(p.depth)
            return
        with f.loop(0, p.depth, plan.block) as k:
            depth = f.smin(f.sub(p.depth, k.index), plan.block)
            run = _Run(self, f, pointers, scratch, (first, stop), (left, right), batch, k.index)
            run.block(depth)

    def _range(self, f: Function, number: Reg, size: int, parts: Cut) -> tuple[Reg, Reg]:
        first = f.mul(number, size)
        if size >= parts.count:
            return f.add(0, 0), f.add(parts.count, 0)
        return first, f.smin(f.add(first, size), parts.count)


def _prefetch(f: Function, address: Reg) -> None:
    """Ask for a line of memory that will be written."""
    f.module.declare("llvm.prefetch.p0", "void", ["ptr", *["i32 immarg"] * 3])
    f.do(f"call void @llvm.prefetch.p0({address}, i32 1, i32 3, i32 1)")


class _Run:
    """The loops of one unit over one block of the depth, being written."""

    def __init__(
        self,
        gemm: Gemm,
        f: Function,
        pointers: tuple[Reg, Reg, Reg],
        scratch: Reg,
        tiles: tuple[Reg, Reg],
        panels: tuple[Reg, Reg],
        batch: Int,
        k: Reg,
    ):
        self.gemm, self.f, self.k, self.batch = gemm, f, k, batch
        self.a, self.b, self.c = pointers
        self.tiles, self.panels = tiles, panels
        panel, copy, _ = gemm._parts
        self.panel = scratch
        self.copy = f.at(scratch, panel, "i8")
        self.sums = f.at(scratch, panel + copy, "i8")

    def block(self, depth: Int) -> None:
        f, gemm = self.f, self.gemm
        p, plan = gemm.product, gemm.plan
        self.row0 = start_of(f, plan.down, self.tiles[0])
        self.column0 = f.mul(start_of(f, plan.across, self.panels[0]), gemm.lanes)
        a = f.at(self.a, f.mul(self.k, p.a[1]), p.type)
        if plan.copy:
            to = copied_strides(*p.a, gemm._unit_rows, plan.block, p.type)
            name = emit_copy(gemm.module, p.type, p.a, to)
            rows = f.sub(start_of(f, plan.down, self.tiles[1]), self.row0)
            source = f.at(a, f.mul(self.row0, p.a[0]), p.type)
            f.run(name, source, self.copy, rows, f.add(depth, 0))
        for number, stop, wide, last in panels_of(p, plan.across, gemm.lanes):
            lower = f.smax(self.panels[0], number)
            with f.loop(lower, f.smin(self.panels[1], stop)) as panel:
                self._panel(panel.index, wide, last, a, depth)

    def _panel(self, panel: Reg, wide: int, last: int, a: Reg, depth: Int) -> None:
        f, gemm = self.f, self.gemm
        p, plan = gemm.product, gemm.plan
        vectors = start_of(f, plan.across, panel)
        column = f.mul(vectors, gemm.lanes)
        if plan.pack == "ready":
            index = f.mul(vectors, panel_room(p, gemm.lanes))
            b = f.at(self.b, f.add(index, f.mul(self.k, wide * gemm.lanes)), p.type)
        else:
            b = f.at(self.b, f.add(f.mul(self.k, p.b[0]), f.mul(column, p.b[1])), p.type)
        if plan.pack == "unit":
            there = (wide - 1) * gemm.lanes + last
            packing = Panel(p.type, *p.b, there, wide, p.depth % gemm.lanes == 0)
            name = emit_pack(gemm.module, packing)
            f.run(name, b, self.panel, f.add(depth, 0))
            b = self.panel
        for number, stop, high in classes(plan.down):
            name = gemm._tile(high, wide, last)
            lower = f.smax(self.tiles[0], number)
            with f.loop(lower, f.smin(self.tiles[1], stop)) as tile:
                self._run_tile(name, start_of(f, plan.down, tile.index), column, a, b, depth)

    def _run_tile(self, name: str, row: Reg, column: Reg, a: Reg, b: Reg, depth: Int) -> None:
        f, gemm = self.f, self.gemm
        p = gemm.product
        inside = f.sub(row, self.row0)
        if gemm.plan.copy:
            a = f.at(self.copy, f.mul(inside, gemm.a_steps[0]), p.type)
        else:
            a = f.at(a, f.mul(row, p.a[0]), p.type)
        if gemm.finish is not None and gemm.blocked:
            index = f.add(f.mul(inside, gemm.c_steps[0]), f.sub(column, self.column0))
            c = f.at(self.sums, index, p.type)
        else:
            index = f.add(f.mul(row, p.c[0]), f.mul(column, p.c[1]))
            c = f.at(self.c, index, p.type)
        arguments = [a, b, c]
        if gemm.finish is not None:
            arguments += [f.arg("table"), f.add(self.batch, 0), row, column]
        if gemm.blocked:
            first = f.icmp("eq", self.k, 0)
            final = f.icmp("sge", f.add(self.k, depth), p.depth)
            arguments += [f.add(depth, 0), first, final]
        f.run(name, *arguments)
