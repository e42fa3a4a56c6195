"""Products as dot products: C = A @ B where rows of A and columns of B are both contiguous along k.

Where few rows would use a panel of B, packing it costs more than it saves. Then vectors run along
k: a tile of R rows by S columns keeps R S accumulators, one for each number of C, and R S is the
number of lanes of a vector, so that in the end all of them are added up across their lanes into one
vector by a tree of shuffles.
"""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.compiler.native.gemm import share
from chainrule.compiler.native.gemm_finish import PLACE, Finish
from chainrule.compiler.native.gemm_plan import DotPlan, Product
from chainrule.compiler.native.microkernel import (
    itemsize,
    lanes_in,
    literal_mask,
    load_vector,
    multiply_add,
)
from chainrule.compiler.native.text import Function, Int, Module, Reg, lanes_of, vector


class Dots:
    """The functions that compute one product; used like `Gemm`.

    A unit is some strips of columns, each as wide as a vector. What is fused behind the product is
    done strip by strip, on full vectors.
    """

    def __init__(
        self,
        module: Module,
        name: str,
        product: Product,
        plan: DotPlan,
        finish: Finish | None = None,
    ):
        self.module, self.name, self.product, self.plan = module, name, product, plan
        self.finish = finish
        self.lanes = lanes_in(module.target, product.type)
        self.c_steps = product.c if finish is None else (self.lanes, 1)

    @property
    def scratch(self) -> int:
        """Bytes of scratch that a unit needs: a strip that waits to be finished."""
        if self.finish is None:
            return 0
        return self.product.rows * self.lanes * itemsize(self.product.type)

    def unit(
        self,
        f: Function,
        pointers: tuple[Reg, Reg, Reg],
        scratch: Reg,
        at: tuple[Reg, Reg],
        batch: Int = 0,
        part: Int = 0,
    ) -> None:
        """Write the loops of one unit; arguments as those of `Gemm.unit`."""
        whole, rest = divmod(self.product.columns, self.lanes)
        left, right = share(f, whole + bool(rest), at[1], self.plan.grid[1])
        if whole:
            with f.loop(left, f.smin(right, whole)) as strip:
                column = f.mul(strip.index, self.lanes)
                self._strip(f, pointers, scratch, column, self.lanes, batch)
        if rest:
            with f.when(f.icmp("sgt", right, whole)):
                column = f.add(whole * self.lanes, 0)
                self._strip(f, pointers, scratch, column, rest, batch)

    def _strip(
        self,
        f: Function,
        pointers: tuple[Reg, Reg, Reg],
        scratch: Reg,
        column: Reg,
        columns: int,
        batch: Int,
    ) -> None:
        p = self.product
        a, b, c = pointers
        b = f.at(b, f.mul(column, p.b[1]), p.type)
        c = f.at(c, f.mul(column, p.c[1]), p.type) if self.finish is None else scratch
        whole, rest = divmod(columns, self.plan.wide)
        if whole:
            with f.loop(0, whole) as j:
                self._rows(f, (a, b, c), f.mul(j.index, self.plan.wide), self.plan.wide)
        if rest:
            self._rows(f, (a, b, c), f.add(whole * self.plan.wide, 0), rest)
        if self.finish is not None:
            name = self._finish_strip(columns)
            f.run(name, c, f.arg("table"), f.add(batch, 0), f.add(0, 0), column)

    def _rows(self, f: Function, pointers: tuple[Reg, Reg, Reg], column: Reg, wide: int) -> None:
        p, high = self.product, self.plan.high
        a, b, c = pointers
        b = f.at(b, f.mul(column, p.b[1]), p.type)
        c = f.at(c, f.mul(column, self.c_steps[1]), p.type)
        whole, rest = divmod(p.rows, high)

        def tile(row: Int, high: int) -> None:
            to = f.at(c, f.mul(row, self.c_steps[0]), p.type)
            f.run(self._tile(high, wide), f.at(a, f.mul(row, p.a[0]), p.type), b, to)

        if whole:
            with f.loop(0, whole) as i:
                tile(f.mul(i.index, high), high)
        if rest:
            tile(whole * high, rest)

    def _finish_strip(self, columns: int) -> str:
        """Write the function that finishes a strip; its name."""
        p = self.product
        name, new = self.module.shared("strip", (self.name, columns))
        if new:
            f = Function(self.module, name, f"ptr noalias %c, {PLACE}")
            full = columns == self.lanes
            masks = {} if full else {0: literal_mask(self.lanes, columns)}
            assert self.finish is not None
            self.finish.memory(f, f.arg("c"), self.lanes, (p.rows, 1), p.type, masks)
            f.finish()
        return name

    def _tile(self, high: int, wide: int) -> str:
        """Write the function of one size of tile; its name."""
        p, plan = self.product, self.plan
        key = (p.type, high, wide, plan.high, plan.wide, p.depth, p.a[0], p.b[1], self.c_steps)
        name, new = self.module.shared("dots", key)
        if not new:
            return name
        f = Function(self.module, name, "ptr noalias %a, ptr noalias %b, ptr noalias %c")
        sums = self._sums(f, high, wide)
        zero = f.zero(vector(p.type, self.lanes))
        padded = [row + [zero] * (plan.wide - wide) for row in sums]
        padded += [[zero] * plan.wide] * (plan.high - high)
        total = add_across(f, [x for row in padded for x in row])
        for i in range(high):
            self._store(f, self._part(f, total, i * plan.wide, wide), i, wide)
        return f.finish()

    def _sums(self, f: Function, high: int, wide: int) -> list[list[Reg]]:
        """A vector of partial sums for each number of the tile."""
        p, lanes = self.product, self.lanes
        type = vector(p.type, lanes)
        whole, rest = divmod(p.depth, lanes)
        # Additions take four cycles, two can be done in each: so many sums hide it.
        sets = max(1, min(8 // (high * wide), whole))
        many = whole // sets * sets * lanes
        zero = f.zero(type)
        carry = [zero] * (sets * high * wide)
        with f.loop(0, many, sets * lanes, carry=carry) as k:
            groups = fold_rows(k.carried, high, wide)
            for i, sums in enumerate(groups):
                groups[i] = self._round(f, sums, f.add(k.index, i * lanes), None)
            k.next = [x for sums in groups for row in sums for x in row]
        groups = fold_rows(k.results, high, wide)
        sums = groups[0]
        for other in groups[1:]:
            sums = [
                [f.fadd(x, y) for x, y in zip(*rows, strict=True)]
                for rows in zip(sums, other, strict=True)
            ]
        for start in range(many, whole * lanes, lanes):
            sums = self._round(f, sums, f.add(start, 0), None)
        if rest:
            sums = self._round(f, sums, f.add(whole * lanes, 0), literal_mask(lanes, rest))
        return sums

    def _round(
        self, f: Function, sums: list[list[Reg]], k: Reg, mask: Reg | None
    ) -> list[list[Reg]]:
        p = self.product

        def load(name: str, step: int) -> Reg:
            address = f.at(f.at(f.arg(name), k, p.type), step, p.type)
            return load_vector(f, address, p.type, mask)

        columns = [load("b", j * p.b[1]) for j in range(len(sums[0]))]
        result = []
        for i, row in enumerate(sums):
            x = load("a", i * p.a[0])
            result.append([multiply_add(f, x, y, z) for y, z in zip(columns, row, strict=True)])
        return result

    def _store(self, f: Function, x: Reg, i: int, wide: int) -> None:
        type, (row_step, column_step) = self.product.type, self.c_steps
        if column_step == 1 or wide == 1:
            f.store(x, f.at(f.arg("c"), i * row_step, type))
            return
        for j in range(wide):
            to = f.at(f.arg("c"), i * row_step + j * column_step, type)
            f.store(f.extract(x, j), to)

    def _part(self, f: Function, total: Reg, first: int, count: int) -> Reg:
        if count == 1:
            return f.extract(total, first)
        if count == self.lanes:
            return total
        return f.shuffle(total, total, range(first, first + count))


def fold_rows(xs: Sequence[Reg], high: int, wide: int) -> list[list[list[Reg]]]:
    """A flat list as groups of rows."""
    rows = [list(xs[i : i + wide]) for i in range(0, len(xs), wide)]
    return [rows[i : i + high] for i in range(0, len(rows), high)]


def add_across(f: Function, sums: Sequence[Reg]) -> Reg:
    """The vector whose lane i is the sum over the lanes of vector i, as many vectors as lanes.

    Each step adds two vectors into one that holds half as many numbers of each.
    """
    lanes = lanes_of(sums[0].type)
    run = lanes  # so many lanes hold the numbers of one sum
    parts = list(sums)
    while len(parts) > 1:
        half = run // 2
        low, high = [], []
        for start in range(0, 2 * lanes, run):
            low += range(start, start + half)
            high += range(start + half, start + run)
        parts = [_fold(f, parts[i], parts[i + 1], low, high) for i in range(0, len(parts), 2)]
        run = half
    return parts[0]


def _fold(f: Function, x: Reg, y: Reg, low: Sequence[int], high: Sequence[int]) -> Reg:
    return f.fadd(f.shuffle(x, y, low), f.shuffle(x, y, high))
