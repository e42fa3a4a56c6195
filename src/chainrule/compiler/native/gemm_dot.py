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
from chainrule.compiler.native.microkernel import lanes_in, multiply_add
from chainrule.compiler.native.text import Function, Int, Module, Reg, lanes_of, vector


class Dots:
    """The functions that compute one product; used like `Gemm`."""

    scratch = 0

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

    def unit(
        self,
        f: Function,
        pointers: tuple[Reg, Reg, Reg],
        scratch: Reg,
        at: tuple[Reg, Reg],
        batch: Int = 0,
    ) -> None:
        """Write the loops of one unit; arguments as those of `Gemm.unit`."""
        p, plan = self.product, self.plan
        whole, rest = divmod(p.columns, plan.wide)
        left, right = share(f, whole + bool(rest), at[1], plan.grid[1])
        if whole:
            with f.loop(left, f.smin(right, whole)) as j:
                self._columns(f, pointers, f.mul(j.index, plan.wide), plan.wide, batch)
        if rest:
            with f.when(f.icmp("sgt", right, whole)):
                self._columns(f, pointers, f.add(whole * plan.wide, 0), rest, batch)

    def _columns(
        self, f: Function, pointers: tuple[Reg, Reg, Reg], column: Reg, wide: int, batch: Int
    ) -> None:
        high = self.plan.high
        whole, rest = divmod(self.product.rows, high)
        if whole:
            with f.loop(0, whole) as i:
                self._run_tile(f, pointers, f.mul(i.index, high), column, high, wide, batch)
        if rest:
            row = f.add(whole * high, 0)
            self._run_tile(f, pointers, row, column, rest, wide, batch)

    def _run_tile(
        self,
        f: Function,
        pointers: tuple[Reg, Reg, Reg],
        row: Reg,
        column: Reg,
        high: int,
        wide: int,
        batch: Int,
    ) -> None:
        p = self.product
        a, b, c = pointers
        arguments = [
            f.at(a, f.mul(row, p.a[0]), p.type),
            f.at(b, f.mul(column, p.b[1]), p.type),
            f.at(c, f.add(f.mul(row, p.c[0]), f.mul(column, p.c[1])), p.type),
        ]
        if self.finish is not None:
            arguments += [f.arg("table"), f.add(batch, 0), row, column]
        f.run(self._tile(high, wide), *arguments)

    def _tile(self, high: int, wide: int) -> str:
        """Write the function of one size of tile; its name."""
        p, plan = self.product, self.plan
        parameters = "ptr noalias %a, ptr noalias %b, ptr noalias %c"
        if self.finish is not None:
            parameters += f", {PLACE}"
        own = None if self.finish is None else self.name
        key = (p.type, high, wide, plan, p.depth, p.a[0], p.b[1], p.c, own)
        name, new = self.module.shared("dots", key)
        if not new:
            return name
        f = Function(self.module, name, parameters)
        sums = self._sums(f, high, wide)
        zero = f.zero(vector(p.type, self.lanes))
        padded = [row + [zero] * (plan.wide - wide) for row in sums]
        padded += [[zero] * plan.wide] * (plan.high - high)
        total = add_across(f, [x for row in padded for x in row])
        parts = [self._part(f, total, i * plan.wide, wide) for i in range(high)]
        if self.finish is not None:
            self.finish.registers(f, [[x] for x in parts], wide, {})
        else:
            for i, x in enumerate(parts):
                self._store(f, x, i, wide)
        return f.finish()

    def _sums(self, f: Function, high: int, wide: int) -> list[list[Reg]]:
        """A vector of partial sums for each number of the tile."""
        p, lanes = self.product, self.lanes
        type = vector(p.type, lanes)
        whole, rest = divmod(p.depth, lanes)
        with f.loop(0, whole * lanes, lanes, carry=[f.zero(type)] * (high * wide)) as k:
            sums = [k.carried[i * wide : (i + 1) * wide] for i in range(high)]
            sums = self._round(f, sums, k.index, None)
            k.next = [x for row in sums for x in row]
        sums = [k.results[i * wide : (i + 1) * wide] for i in range(high)]
        if rest:
            bits = ", ".join(f"i1 {int(lane < rest)}" for lane in range(lanes))
            mask = Reg(f"<{bits}>", f"<{lanes} x i1>")
            sums = self._round(f, sums, f.add(whole * lanes, 0), mask)
        return sums

    def _round(
        self, f: Function, sums: list[list[Reg]], k: Reg, mask: Reg | None
    ) -> list[list[Reg]]:
        p = self.product
        type = vector(p.type, self.lanes)

        def load(name: str, step: int) -> Reg:
            address = f.at(f.at(f.arg(name), k, p.type), step, p.type)
            return f.load(address, type) if mask is None else f.load_masked(address, type, mask)

        columns = [load("b", j * p.b[1]) for j in range(len(sums[0]))]
        result = []
        for i, row in enumerate(sums):
            x = load("a", i * p.a[0])
            result.append([multiply_add(f, x, y, z) for y, z in zip(columns, row, strict=True)])
        return result

    def _store(self, f: Function, x: Reg, i: int, wide: int) -> None:
        p = self.product
        if p.c[1] == 1 or wide == 1:
            f.store(x, f.at(f.arg("c"), i * p.c[0], p.type))
            return
        for j in range(wide):
            to = f.at(f.arg("c"), i * p.c[0] + j * p.c[1], p.type)
            f.store(f.extract(x, j), to)

    def _part(self, f: Function, total: Reg, first: int, count: int) -> Reg:
        if count == 1:
            return f.extract(total, first)
        if count == self.lanes:
            return total
        return f.shuffle(total, total, range(first, first + count))


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
