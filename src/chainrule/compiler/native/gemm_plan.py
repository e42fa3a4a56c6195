"""Deciding by shape and strides how a product is computed: tiles, units of work, packing.

Results must not depend on who computes what, so nothing here knows of threads: a product is cut
into units by its shape, and the order of every sum is fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from chainrule.compiler.native import caches
from chainrule.compiler.native.microkernel import Cut, choose, cut, cycles, itemsize, lanes_in
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Function, Int, Reg

Pair = tuple[int, int]
Packing = Literal["none", "panel", "unit", "ready"]

PAGE = 4096

SMALL = 1 << 16
"""Numbers of C up to which the depth may be cut in parts."""

WORTH = 500_000
"""Floating-point operations that a unit should have: some microseconds."""

SHALLOW = 32
"""The depth up to which a product is bound by writing its result."""

ALIASED = 10
"""Rows of a tile whose distance in A is a multiple of a page: they share the ways of one set of the
first-level cache."""

STREAMED = 32
"""So many floating-point operations for a byte that is read or written besides are few."""

TALL = 1024
"""Rows from which on pages and lines of A and C are what tiles of many rows wait for."""

BYTE = 4
"""Floating-point operations that take about as long as to read or write a byte of a cache."""


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
        grid: units down and across; each has an even share of the tiles and panels.
        block: the most of the depth that is done at a time.
        pack: whether B is read where it lies (`none`), packed by each unit as it goes, one panel at
            a time (`panel`) or all of them for a block of the depth (`unit`), or comes packed whole
            (`ready`).
        copy: whether each unit copies its rows of A.
        parts, span: into how many parts the depth is cut, to be added up later, and their length.
    """

    down: Cut
    across: Cut
    grid: Pair
    block: int
    pack: Packing
    copy: bool
    parts: int = 1
    span: int = 0

    @property
    def tiles(self) -> int:
        """The most row tiles of a unit."""
        return math.ceil(self.down.count / self.grid[0])

    @property
    def panels(self) -> int:
        """The most panels of a unit."""
        return math.ceil(self.across.count / self.grid[1])

    @property
    def units(self) -> int:
        return math.prod(self.grid) * self.parts if self.down.count and self.across.count else 0


def parts_of(target: Target, p: Product, batch: int = 1) -> int:
    """Into how many parts to cut the depth: where C is small, there is nothing else to share."""
    size, long = p.rows * p.columns * batch, max(p.rows, p.columns)
    if not size or p.depth < 8 * long or size > SMALL or p.flops * batch < 16 * WORTH:
        return 1
    if batch * math.ceil(p.rows / 32) * math.ceil(p.columns / 32) >= 16:
        return 1
    parts = min(16, p.depth // 256)
    return math.ceil(p.depth / _span(target, p, parts))


def _span(target: Target, p: Product, parts: int) -> int:
    lanes = lanes_in(target, p.type)
    return math.ceil(p.depth / parts / lanes) * lanes


def plan(
    target: Target,
    product: Product,
    batch: int = 1,
    ready: Pair | None = None,
    parts: int = 1,
    more: int = 0,
) -> Plan:
    """Decide by shape and strides.

    Arguments:
        batch: how many such products there are.
        ready: B comes packed whole, for tiles of so many rows and vectors.
        parts: into how many parts to cut the depth, from `parts_of`.
        more: bytes that are read and written by what follows the products.
    """
    p, size = product, itemsize(product.type)
    if not p.rows * p.columns * batch:
        return Plan(cut(0, 1), cut(0, 1), (1, 1), 1, "none", False)
    lanes = lanes_in(target, p.type)
    high, wide = ready or tile_of(target, p, more)
    down, across = cut(p.rows, high), cut(math.ceil(p.columns / lanes), wide)
    if parts > 1:
        span = _span(target, p, parts)
        block = _depth_block(span, size, across.size * lanes, lanes)
        result = Plan(down, across, (1, 1), block, "none", False, parts, span)
    else:
        block = _depth_block(p.depth, size, across.size * lanes, lanes)
        wanted = _wanted(p, batch, more)
        grid = _grid(p, down, across, block, batch, ready is not None, wanted)
        result = Plan(down, across, grid, block, "ready" if ready else "none", False)
    if ready is None and p.b[1] != 1:
        result = replace(result, pack="panel")
    elif ready is None and _strided_badly(p.b[0], size, result.tiles):
        result = _pack_rows(result, p, size, lanes)
    if p.depth >= 32 and _worth_copying(p, size, result.panels):
        result = replace(result, copy=True)
    return result


def tile_of(target: Target, p: Product, more: int) -> Pair:
    """Rows and vectors of a tile.

    Of tiles that take about as long the one with few long rows: its numbers of C lie together, and
    so fewer pages and lines of A and C, and of what is read along with C, are at work at once.
    """
    best = choose(target, p.type, p.rows, p.columns)
    lanes = lanes_in(target, p.type)
    vectors = math.ceil(p.columns / lanes)
    if p.c[1] != 1 or target.registers < 32:
        return best
    if p.depth <= SHALLOW and vectors > best[1]:
        wide = min(target.registers // 4 if 2 * p.depth <= SHALLOW else 4, vectors)
        return min(p.rows, _high(target, wide)), wide
    aliased = p.a[1] == 1 and p.a[0] * itemsize(p.type) % PAGE == 0
    if aliased and best[0] > ALIASED:
        shapes = [(min(ALIASED, _high(target, wide)), wide) for wide in range(1, 5)]
        return min(shapes[:vectors], key=lambda shape: _cycles_of(p, vectors, *shape))
    streams = more * STREAMED > p.flops or p.columns > p.rows
    streams = streams and more > caches.second()
    if p.rows < TALL and not streams:
        return best
    enough = 1.015 * _cycles_of(p, vectors, *best)
    for wide in (4, 3):
        high = _high(target, wide)
        if best[1] < wide <= vectors and _cycles_of(p, vectors, high, wide) <= enough:
            return high, wide
    return best


def _high(target: Target, wide: int) -> int:
    """The most rows of a tile of so many vectors."""
    return max(1, (target.registers - wide - 2) // wide)


def _cycles_of(p: Product, vectors: int, high: int, wide: int) -> float:
    return cycles(cut(p.rows, high), cut(vectors, wide))


def _pack_rows(plan: Plan, p: Product, size: int, lanes: int) -> Plan:
    """Pack B row by row: what a unit needs of a block of the depth must fit with its rows of A."""
    if plan.panels == 1:
        return replace(plan, pack="panel")
    width = plan.panels * plan.across.size * lanes + plan.tiles * plan.down.size
    most = max(lanes, caches.second() * 5 // 8 // (width * size))
    block = _even_block(plan.span or p.depth, most, lanes)
    return replace(plan, pack="unit", block=min(plan.block, block))


def _depth_block(depth: int, size: int, width: int, lanes: int) -> int:
    """Blocks of even length whose panel of B takes at most a share of the second-level cache."""
    return _even_block(depth, max(lanes, caches.second() // 8 // (width * size)), lanes)


def _even_block(depth: int, most: int, lanes: int) -> int:
    if depth <= most * 3 // 2:
        return max(depth, 1)
    count = math.ceil(depth / most)
    return math.ceil(depth / count / lanes) * lanes


def _grid(
    p: Product, down: Cut, across: Cut, block: int, batch: int, ready: bool, wanted: int
) -> Pair:
    """Units down and across: enough to deal out, and so that A's rows fit the cache."""
    room = max(1, caches.second() // 2 // (block * itemsize(p.type) * down.size))
    rows, columns = _even(math.ceil(down.count / room)), 1
    # Of a B from beyond the cache, two panels at least are packed together, row by row.
    large = p.depth * p.columns * itemsize(p.type) > caches.second()
    most = max(1, across.count // 2) if large and p.b[1] == 1 else across.count
    while batch * rows * columns < wanted:
        # Halving the columns costs nothing where each unit packs its own, halving rows otherwise;
        # but what is packed should be used by some tiles, and A by some panels.
        if columns < most and (not ready or rows * 8 > down.count):
            columns = min(2 * columns, most)
        elif rows < down.count:
            rows = min(2 * rows, down.count)
        else:
            break
    return min(rows, down.count), columns


def _wanted(p: Product, batch: int, more: int) -> int:
    """How many units there should be; each packs something, so that fewer are better for each."""
    flops = p.flops * batch
    numbers = p.rows * p.depth + p.depth * p.columns + p.rows * p.columns
    effort = flops + BYTE * (more + batch * numbers * itemsize(p.type))
    return max(1, min(8, effort // WORTH), min(16, flops // (32 * WORTH)))


def _even(count: int) -> int:
    """Two threads share an even number of parts best."""
    return count if count == 1 else count + count % 2


def _strided_badly(step: int, size: int, uses: int) -> bool:
    """Whether rows of B so far apart are worth packing for `uses` row tiles."""
    return uses >= 4 and step * size >= 256


def _worth_copying(p: Product, size: int, panels: int) -> bool:
    """Whether `panels` panels make good for packing their rows of A.

    Rows a multiple of a page apart fall on each other in the first-level cache; numbers that lie a
    page or more apart along k take a line of the cache and an entry of the page table each.
    """
    row, k = (abs(x) * size for x in p.a)
    if k == size:
        return row % PAGE == 0 and panels >= 24
    return k >= PAGE and panels >= 4


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


def spread(rows: int) -> int:
    """As many rows or one more, an odd number: panels so far apart do not fall on each other in the
    first-level cache while they are packed side by side."""
    return rows | 1


def panel_room(p: Product, lanes: int) -> int:
    """Elements between the panels of a whole packed B, for each vector of their width."""
    return spread(max(p.depth, 1)) * lanes


def packed_size(p: Product, lanes: int) -> int:
    """Elements of a whole packed B."""
    return math.ceil(p.columns / lanes) * panel_room(p, lanes)


@dataclass(frozen=True)
class DotPlan:
    """How a product is computed as dot products.

    Attributes:
        high, wide: rows and columns of a tile; their product is the lanes of a vector.
        grid: units down (always one) and across; each has some strips as wide as a vector.
    """

    high: int
    wide: int
    grid: Pair

    @property
    def units(self) -> int:
        return math.prod(self.grid)


def suits_dots(target: Target, p: Product) -> bool:
    """Whether vectors should run along k: both operands are contiguous along it, rows are few."""
    if p.type not in ("float", "double") or not p.rows or p.depth < 2 * lanes_in(target, p.type):
        return False
    # Adding up across lanes costs each number of C what five steps of k cost a panel's packing.
    few = p.rows == 1 or p.rows * (5 + p.depth / 400) <= p.depth
    few = few and p.rows * p.depth * itemsize(p.type) <= caches.second() // 2
    return few and p.a[1] == 1 and p.b[0] == 1 and (p.b[1] != 1 or p.columns == 1)


def plan_dots(target: Target, p: Product, batch: int = 1, more: int = 0) -> DotPlan:
    """Tiles as square as can be, for the fewest loads; arguments as those of `plan`."""
    lanes = lanes_in(target, p.type)
    high = 1
    while high * high < lanes and high < p.rows:
        high *= 2
    wanted = max(1, _wanted(p, batch, more) // batch)
    return DotPlan(high, lanes // high, (1, min(wanted, math.ceil(p.columns / lanes))))
