"""The building block of every product: a tile of C in registers, `C (+)= sum_i A_i @ B_i`.

A tile is some rows by some vectors of C. It is computed by a nest of loops (`Level`s), each of
which moves A and B by fixed steps: the innermost runs over k, outer ones over whatever else is
summed (the taps of a convolution, the blocks of a batch-reduce product). Each innermost round
loads the tile's vectors of B, and for each row one number of A, repeated in all lanes:

    tile = Tile.dense(f.target, "float", rows=14, vectors=2, row_step=K)
    sums = contract(f, tile, a, b, [Level(K, a=1, b=N)])
    write(f, tile, sums, c, row_step=N)

`contract` writes into the function that the caller is writing; in between it may do with the sums
(one register for each row and vector) what it likes: add a bias, apply an activation, update a
parameter. `choose` picks rows and vectors by the shape of the whole product, `cut` divides a
length into tiles of two sizes that differ by one, so that no thin tile is left over.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Function, Int, Reg, element, vector

Sums = list[list[Reg]]
"""The accumulators of a tile: one vector register for each row and each vector of the row."""


class Level(NamedTuple):
    """One loop of a contraction: its rounds, and the elements by which A and B move each round."""

    rounds: Int
    a: int
    b: int


@dataclass(frozen=True)
class Tile:
    """A register tile.

    Attributes:
        type: the type of an element (`float`, `double`, `i32`, ...).
        lanes: elements of a vector.
        rows: for each row of the tile, where its numbers of A lie (elements from A's pointer).
        columns: for each vector of the tile, where its numbers of B lie (elements from B's
            pointer); they are contiguous within a vector.
        last: lanes of the last vector that exist; what lies beyond is neither read nor written.
        met: for each vector the lanes that are added to, as a literal; None for all. Empty: all.
    """

    type: str
    lanes: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    last: int
    met: tuple[Reg | None, ...] = ()

    @classmethod
    def dense(
        cls,
        target: Target,
        type: str,
        rows: int,
        vectors: int,
        row_step: int,
        last: int | None = None,
    ) -> Tile:
        """Rows of A at a fixed distance, vectors of B one after another."""
        lanes = lanes_in(target, type)
        return cls(
            type,
            lanes,
            tuple(i * row_step for i in range(rows)),
            tuple(j * lanes for j in range(vectors)),
            lanes if last is None else last,
        )

    @property
    def vector(self) -> str:
        return vector(self.type, self.lanes)

    def count(self, j: int) -> int:
        """How many lanes of vector j exist."""
        return self.last if j == len(self.columns) - 1 else self.lanes

    def mask(self, j: int) -> Reg | None:
        """The lanes of vector j that exist, as a literal; None if all do."""
        if self.count(j) == self.lanes:
            return None
        return literal_mask(self.lanes, self.last)


def lanes_in(target: Target, type: str) -> int:
    """Elements of a type in one vector register."""
    return max(1, target.vector_bytes // itemsize(type))


def itemsize(type: str) -> int:
    """Bytes of an element."""
    return {"float": 4, "double": 8}.get(type) or int(type[1:]) // 8


def load_vector(f: Function, address: Reg, type: str, mask: Reg | None = None) -> Reg:
    """Load a vector, or only the lanes in a mask (zeros elsewhere)."""
    whole = vector(type, lanes_in(f.target, type))
    return f.load(address, whole) if mask is None else f.load_masked(address, whole, mask)


def load(f: Function, tile: Tile, address: Reg, j: int) -> Reg:
    """Load the lanes of vector j that exist."""
    return load_vector(f, address, tile.type, tile.mask(j))


def store(f: Function, tile: Tile, x: Reg, address: Reg, j: int) -> None:
    """Store the lanes of vector j that exist."""
    mask = tile.mask(j)
    if mask is None:
        f.store(x, address)
    else:
        f.store_masked(x, address, mask)


def _is_float(x: Reg) -> bool:
    return element(x.type) in ("float", "double")


def multiply_add(f: Function, x: Reg, y: Reg, z: Reg) -> Reg:
    """x y + z, for floating-point numbers and integers."""
    return f.fma(x, y, z) if _is_float(x) else f.op("add", f.op("mul", x, y), z)


def plus(f: Function, x: Reg, y: Reg) -> Reg:
    """x + y, likewise."""
    return f.op("fadd" if _is_float(x) else "add", x, y)


def literal_mask(lanes: int, count: int) -> Reg:
    """The mask of the first `count` lanes."""
    bits = ", ".join(f"i1 {int(lane < count)}" for lane in range(lanes))
    return Reg(f"<{bits}>", f"<{lanes} x i1>")


def zeros(f: Function, tile: Tile) -> Sums:
    return [[f.zero(tile.vector) for _ in tile.columns] for _ in tile.rows]


def read(f: Function, tile: Tile, c: Reg, row_step: Int, column_step: int = 1) -> Sums:
    """The tile as it lies in memory, to add to.

    Arguments:
        c: pointer to its first element.
        row_step, column_step: elements from one row, and from one column, to the next.
    """
    result: Sums = []
    for i in range(len(tile.rows)):
        row = f.at(c, f.mul(i, row_step), tile.type)
        result.append([_read(f, tile, row, j, column_step) for j in range(len(tile.columns))])
    return result


def _read(f: Function, tile: Tile, row: Reg, j: int, step: int) -> Reg:
    if step == 1:
        return load(f, tile, f.at(row, j * tile.lanes, tile.type), j)
    x = f.zero(tile.vector)
    for lane in range(tile.count(j)):
        address = f.at(row, (j * tile.lanes + lane) * step, tile.type)
        x = f.insert(x, f.load(address, tile.type), lane)
    return x


def write(f: Function, tile: Tile, sums: Sums, c: Reg, row_step: Int, column_step: int = 1) -> None:
    """Store the tile; arguments as those of `read`."""
    for i, vectors in enumerate(sums):
        row = f.at(c, f.mul(i, row_step), tile.type)
        for j, x in enumerate(vectors):
            if column_step == 1:
                store(f, tile, x, f.at(row, j * tile.lanes, tile.type), j)
                continue
            for lane in range(tile.count(j)):
                address = f.at(row, (j * tile.lanes + lane) * column_step, tile.type)
                f.store(f.extract(x, lane), address)


def prefetch(f: Function, address: Reg) -> None:
    """Ask for a line of memory that will be read."""
    f.module.declare("llvm.prefetch.p0", "void", ["ptr", *["i32 immarg"] * 3])
    f.do(f"call void @llvm.prefetch.p0({address}, i32 0, i32 3, i32 1)")


def contract(
    f: Function,
    tile: Tile,
    a: Reg,
    b: Reg,
    levels: Sequence[Level],
    start: Sums | None = None,
    ahead: tuple[Reg, int] | None = None,
) -> Sums:
    """Write the loops that compute a tile; returns its accumulators.

    Arguments:
        a, b: pointers to the first element of A's first row and of B's first vector.
        levels: the loops, outermost first; the sum runs over all of them. The rounds may be a
            register, and 0.
        start: what to add to; zeros if None.
        ahead: memory that is soon needed, and the bytes of it to ask for in each innermost round.
    """
    sums = start if start is not None else zeros(f, tile)
    if not levels:
        return _round(f, tile, a, b, sums)
    level, inner = levels[0], levels[1:]
    if level.rounds == 1:
        return contract(f, tile, a, b, inner, sums, ahead)
    if level.rounds == 0:
        return sums
    width = len(tile.columns)
    carry = [x for row in sums for x in row]
    with f.loop(0, level.rounds, carry=carry, hint="sum") as loop:
        sums = [loop.carried[i : i + width] for i in range(0, len(carry), width)]
        next_a = f.at(a, f.mul(loop.index, level.a), tile.type)
        next_b = f.at(b, f.mul(loop.index, level.b), tile.type)
        if ahead is not None and not inner:
            prefetch(f, f.at(ahead[0], f.mul(loop.index, ahead[1]), "i8"))
        sums = contract(f, tile, next_a, next_b, inner, sums, ahead)
        loop.next = [x for row in sums for x in row]
    return [loop.results[i : i + width] for i in range(0, len(carry), width)]


def _round(f: Function, tile: Tile, a: Reg, b: Reg, sums: Sums) -> Sums:
    vectors = [load(f, tile, f.at(b, x, tile.type), j) for j, x in enumerate(tile.columns)]
    result = []
    for offset, row in zip(tile.rows, sums, strict=True):
        repeated = f.splat(f.load(f.at(a, offset, tile.type), tile.type), tile.lanes)
        added = [multiply_add(f, repeated, y, z) for y, z in zip(vectors, row, strict=True)]
        if tile.met:  # an instruction of its own only where there are no masked ones
            added = [
                new if mask is None else f.select(mask, new, z)
                for mask, new, z in zip(tile.met, added, row, strict=True)
            ]
        result.append(added)
    return result


# --- shapes of tiles ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """A length in tiles: `larger` of `size`, then `smaller` of `size - 1`."""

    size: int
    larger: int
    smaller: int

    @property
    def count(self) -> int:
        return self.larger + self.smaller

    def start(self, number: int) -> int:
        """Where tile `number` begins."""
        return number * self.size - max(0, number - self.larger)


def cut(length: int, most: int) -> Cut:
    """Divide a length into the fewest tiles of at most `most`, as even as can be."""
    if length == 0:
        return Cut(1, 0, 0)
    count = math.ceil(length / most)
    size = math.ceil(length / count)
    smaller = count * size - length
    return Cut(size, count - smaller, smaller)


@functools.lru_cache(maxsize=4096)
def choose(target: Target, type: str, rows: int, columns: int) -> tuple[int, int]:
    """The rows and vectors of the register tile that suits a product of rows by columns best.

    The model counts cycles of one round of k over the whole product: two multiply-adds or two loads
    a cycle, four cycles before a result can be added to again, and a little for every kind of
    tile, which must be compiled.
    """
    vectors = math.ceil(columns / lanes_in(target, type))
    best, chosen = math.inf, target.tile
    for wide in range(1, min(8, target.registers // 2, max(vectors, 1)) + 1):
        spare = target.registers - wide - (1 if wide > 1 else 0) - (0 if target.fma else 1)
        for high in range(1, min(spare // wide, max(rows, 1), 24) + 1):
            cost = cycles(cut(rows, high), cut(vectors, wide))
            if cost < best:
                best, chosen = cost, (high, wide)
    return chosen


def cycles(down: Cut, across: Cut) -> float:
    """About how many cycles a round of k takes over a whole product cut into tiles so."""
    total, kinds = 0.0, 0
    for many, high in ((down.larger, down.size), (down.smaller, down.size - 1)):
        for much, wide in ((across.larger, across.size), (across.smaller, across.size - 1)):
            if many and much:
                # One more for the loop, half a cycle for the start and end of each tile.
                cycles = max(high * wide / 2, (high + wide + 1) / 2, 4.0) + 0.5
                total += many * much * cycles
                kinds += 1
    return total * (1 + 0.01 * kinds)
