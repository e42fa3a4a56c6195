"""The order of elements along an axis, and places in a sorted line.

Elements are compared as unsigned integers in the same order: of floating-point numbers the bits,
with all of a negative number's and the sign of any other turned; -0 is taken as 0 and every NaN as
the same one, which comes last. Long lines are sorted by one byte after the other from the lowest
(radix sort, stable; H. H. Seward, 1954), short ones by counting for each element those before it.

    argsort: units are groups of lines; searchsorted: groups of values
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.compiler.ir import Op
from chainrule.compiler.native import rows
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, Kernel
from chainrule.compiler.native.text import Function, Int, Module, Reg, i64, type_of, vector

LANES = 16
SHORT = 64  # lines of at most so many elements are sorted by counting
SCRATCH = 64 << 20  # bytes that a line may need at most
BINS = 256


def supports(op: Op) -> bool:
    """Lines of real numbers that are not too long; values of the line's dtype."""
    if op.name not in ("argsort", "searchsorted") or op.inputs[0].dtype.kind not in "fiub":
        return False
    if any(not v.size for v in (*op.inputs, op.output)):
        return False
    if op.name == "searchsorted":
        return op.inputs[0].dtype == op.inputs[1].dtype
    return op.output.ndim > 0 and _scratch(op) <= SCRATCH


def kernels(op: Op) -> list[Kernel]:
    """The kernel of one of these operations."""
    return [ArgSort(op) if op.name == "argsort" else SearchSorted(op)]


def _scratch(op: Op) -> int:
    """Two lines of keys and two of places, each a multiple of 64 bytes, and the bins."""
    n, width = op.output.shape[op.params["axis"]], op.inputs[0].dtype.itemsize
    return sum(2 * _padded(n * size) for size in (width, 4)) + width * BINS * 4


def _padded(n: int) -> int:
    return -(-n // 64) * 64


def key(f: Function, x: Reg, dtype: Any) -> Reg:
    """The unsigned integer that stands where x stands in the order of its dtype."""
    dtype = np.dtype(dtype)
    bits, type = 8 * dtype.itemsize, f"i{8 * dtype.itemsize}"
    top = Reg(str(1 << (bits - 1)), type)
    if dtype.kind in "ub":
        return x
    if dtype.kind == "i":
        return f.op("xor", x, top)
    x = f.select(f.fcmp("uno", x, x), f.number(x.type, np.nan), f.fadd(x, f.zero(x.type)))
    x = f.convert("bitcast", x, type)
    sign = f.op("ashr", x, Reg(str(bits - 1), type))
    return f.op("xor", x, f.op("or", sign, top))


class ArgSort(Kernel):
    """The indices that sort each line; equal elements stay in order, also when descending."""

    family = "sort"

    def __init__(self, op: Op):
        self.op, self.ops = op, (op,)
        self.reads, self.writes = op.inputs, (op.output,)
        self.axis, self.length = op.params["axis"], op.output.shape[op.params["axis"]]
        self.lines = op.output.size // self.length
        digits = op.inputs[0].dtype.itemsize
        self.units, self.each = rows.units_of(self.lines, self.length * digits)
        self.scratch = _scratch(op)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        sides = [buffers[v] for v in (self.op.inputs[0], self.op.output)]
        lines = rows.Lines(sides, self.axis)
        starts = [b.pointer(f) for b in sides]
        sort = self._count if self.length <= SHORT else self._radix
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            first = f.mul(unit.index, self.each)
            last = f.smin(f.add(first, self.each), self.lines)
            with f.loop(first, last, hint="line") as line:
                x, z = lines.line(f, starts, line.index)
                sort(f, x, lines.steps[0], z, lines.steps[1])
        f.finish()

    def _key(self, f: Function, x: Reg, at: Int) -> Reg:
        """Element `at` of a line as a key."""
        dtype = self.op.inputs[0].dtype
        k = key(f, f.load(f.at(x, at, type_of(dtype)), type_of(dtype)), dtype)
        return f.op("xor", k, Reg("-1", k.type)) if self.op.params["descending"] else k

    def _count(self, f: Function, x: Reg, across: int, z: Reg, along: int) -> None:
        """Put each element where as many are before it as are less, or equal and earlier."""
        n, type = self.length, f"i{8 * self.op.inputs[0].dtype.itemsize}"
        whole = -(-n // LANES) * LANES
        keys, ranks = f.arg("scratch"), f.at(f.arg("scratch"), whole, type)
        rows.fill(f, (whole,), rows.Side(keys, (1,)), type)
        with f.loop(0, n, hint="key") as i:
            k = self._key(f, x, f.mul(i.index, across))
            f.store(k, f.at(keys, i.index, type))
        numbers = Reg("<" + ", ".join(f"i64 {i}" for i in range(LANES)) + ">", f"<{LANES} x i64>")
        with f.loop(0, whole, LANES, hint="elements") as j:
            mine = f.load(f.at(keys, j.index, type), vector(type, LANES))
            place = f.op("add", f.splat(j.index, LANES), numbers)
            none = f.zero(vector("i32", LANES))
            with f.loop(0, n, carry=[none], hint="other") as i:
                other = f.splat(f.load(f.at(keys, i.index, type), type), LANES)
                earlier = f.icmp("ult", f.splat(i.index, LANES), place)
                equal = f.op("and", f.icmp("eq", other, mine), earlier)
                before = f.op("or", f.icmp("ult", other, mine), equal)
                i.next = [f.op("add", i.carried[0], f.convert("zext", before, "i32"))]
            f.store(i.results[0], f.at(ranks, j.index, "i32"))
        with f.loop(0, n, hint="place") as i:
            rank = f.convert("zext", f.load(f.at(ranks, i.index, "i32"), "i32"), "i64")
            f.store(i.index, f.at(z, f.mul(rank, along), "i64"))

    def _radix(self, f: Function, x: Reg, across: int, z: Reg, along: int) -> None:
        n, width = self.length, self.op.inputs[0].dtype.itemsize
        type, scratch = f"i{8 * width}", f.arg("scratch")
        line, order = _padded(n * width), _padded(4 * n)
        keys, spare, places, others, bins = (
            f.at(scratch, start, "i8")
            for start in (0, line, 2 * line, 2 * line + order, 2 * (line + order))
        )
        rows.fill(f, (width * BINS,), rows.Side(bins, (1,)), "i32")
        with f.loop(0, n, hint="key") as i:
            k = self._key(f, x, f.mul(i.index, across))
            f.store(k, f.at(keys, i.index, type))
            f.store(f.value("i32", f"trunc {i.index} to i32"), f.at(places, i.index, "i32"))
            for digit in range(width):
                bin = f.at(bins, f.add(_digit(f, k, i64(digit)), digit * BINS), "i32")
                f.store(f.op("add", f.load(bin, "i32"), Reg("1", "i32")), bin)
        with f.loop(0, width, carry=[keys, spare, places, others], hint="digit") as digit:
            of, to, of_places, to_places = digit.carried
            counts = f.at(bins, f.mul(digit.index, BINS), "i32")
            some = f.at(counts, _digit(f, f.load(of, type), digit.index), "i32")
            # If all elements have the same digit they stay where they are.
            moves = f.icmp("ne", f.load(some, "i32"), Reg(str(n), "i32"))
            with f.when(moves):
                self._distribute(f, counts, digit.carried, digit.index)
            digit.next = [
                f.select(moves, to, of), f.select(moves, of, to),
                f.select(moves, to_places, of_places), f.select(moves, of_places, to_places),
            ]  # fmt: skip
        with f.loop(0, n, hint="place") as i:
            place = f.load(f.at(digit.results[2], i.index, "i32"), "i32")
            f.store(f.convert("zext", place, "i64"), f.at(z, f.mul(i.index, along), "i64"))

    def _distribute(self, f: Function, counts: Reg, lines: list[Reg], digit: Reg) -> None:
        """Move keys and places to where their digit goes; counts become the bins' ends."""
        of, to, of_places, to_places = lines
        type = f"i{8 * self.op.inputs[0].dtype.itemsize}"
        with f.loop(0, BINS, carry=[Reg("0", "i32")], hint="bin") as bin:
            at = f.at(counts, bin.index, "i32")
            count = f.load(at, "i32")
            f.store(bin.carried[0], at)
            bin.next = [f.op("add", bin.carried[0], count)]
        with f.loop(0, self.length, hint="move") as i:
            k = f.load(f.at(of, i.index, type), type)
            bin_at = f.at(counts, _digit(f, k, digit), "i32")
            place = f.load(bin_at, "i32")
            f.store(f.op("add", place, Reg("1", "i32")), bin_at)
            target = f.convert("zext", place, "i64")
            f.store(k, f.at(to, target, type))
            moved = f.load(f.at(of_places, i.index, "i32"), "i32")
            f.store(moved, f.at(to_places, target, "i32"))


def _digit(f: Function, k: Reg, number: Reg) -> Reg:
    """A byte of a key, as i64."""
    if k.type != "i64":
        k = f.convert("zext", k, "i64")
    shift = i64(8 * number.literal) if number.literal is not None else f.mul(number, 8)
    return f.op("and", f.op("lshr", k, shift), i64(BINS - 1))


class SearchSorted(Kernel):
    """How many elements of a sorted line are less than (`right`: at most) each value."""

    family = "sort"

    def __init__(self, op: Op):
        self.op, self.ops = op, (op,)
        self.reads, self.writes = tuple(dict.fromkeys(op.inputs)), (op.output,)
        self.steps = op.inputs[0].size.bit_length()
        self.units, self.each = rows.units_of(op.output.size, self.steps)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        line, values, out = (buffers[v] for v in (*self.op.inputs, self.op.output))
        x, v, z = line.pointer(f), values.pointer(f), out.pointer(f)
        type, n = type_of(line.dtype), line.shape[0]
        shape, (of, to) = rows.merge(values.shape, values.strides, out.strides)
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            first = f.mul(unit.index, self.each)
            last = f.smin(f.add(first, self.each), math.prod(shape))
            with f.loop(first, last, hint="value") as one:
                index = rows.unravel(f, one.index, shape)
                wanted = f.load(f.at(v, rows.offset(f, index, of), type), type)
                before = self._before(f, wanted)
                found: Reg = i64(0)
                # Steps of powers of two, from the largest that the line may hold.
                for bit in reversed(range(self.steps)):
                    next = f.add(found, 1 << bit)
                    at = f.sub(f.smin(next, n), 1)
                    here = f.load(f.at(x, f.mul(at, line.strides[0]), type), type)
                    goes = f.op("and", f.icmp("sle", next, n), before(here))
                    found = f.select(goes, next, found)
                f.store(found, f.at(z, rows.offset(f, index, to), "i64"))
        f.finish()

    def _before(self, f: Function, wanted: Reg) -> Callable[[Reg], Reg]:
        """Whether an element stands before the place of a value; NaN comes last."""
        dtype, how = self.op.inputs[0].dtype, "lt" if self.op.params["side"] == "left" else "le"
        if dtype.kind != "f":
            sign = "s" if dtype.kind == "i" else "u"
            return lambda x: f.icmp(sign + how, x, wanted)
        last = f.fcmp("uno", wanted, wanted)

        def before(x: Reg) -> Reg:
            other = last if how == "le" else f.op("and", last, f.fcmp("ord", x, x))
            return f.op("or", f.fcmp("o" + how, x, wanted), other)

        return before
