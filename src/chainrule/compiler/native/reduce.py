"""Reductions as accumulators: where one starts, how an element comes in, how two become one.

A vector of accumulators reduces as many elements at once as it has lanes; at the end the upper half
of the lanes is merged into the lower one until one lane is left. The order is fixed by the shape,
so a result is the same whoever computes it.

Sums of float32 are rounded to float32 after each addition for at most `RUN` additions in a row;
what such runs give is summed in float64. So the error of a sum of n numbers is at most about
(RUN + 6) 2^-24 times the sum of their magnitudes, whatever n is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.compiler.native import scalar
from chainrule.compiler.native.expressions import Node
from chainrule.compiler.native.text import Function, Reg, lanes_of, suffix, vector, with_element
from chainrule.primitives import elementwise

RUN = 64
"""Additions of float32 one after another before the sum goes into float64."""

Regs = tuple[Reg, ...]

_MERGES: dict[str, Any] = {
    "sum": elementwise.add, "max": elementwise.maximum, "min": elementwise.minimum,
}  # fmt: skip


class Accumulator:
    """The accumulator of one reduction.

    Arguments:
        node: a `reduce` node.
        integer: the type of positions in vectors.
    """

    def __init__(self, node: Node, integer: str):
        self.node = node
        self.name, _, self.position = node.data
        self.dtype = node.inputs[0].dtype
        self.integer = integer
        self.extremum = self.name in ("max", "min") and self.dtype.kind == "f"
        self.sums = self.name == "sum" and self.dtype.kind == "f"
        self.cost = 4 if self.name != "sum" else 1

    # --- one accumulator --------------------------------------------------------------------------

    def start(self, f: Function, lanes: int) -> Regs:
        """What nothing reduces to."""
        type = scalar.register_type(self.dtype, lanes)
        if self.name in ("all", "any"):
            return (f.number(type, self.name == "all"),)
        if self.name == "sum":
            return (f.zero(type),)
        least = _least(f, self.dtype, type, self.name.endswith("min"))
        if self.extremum:
            return least, f.zero(type)  # the last NaN, if there was one, stands beside
        if "arg" not in self.name:
            return (least,)
        # Until an element is better than the least there is, the place is beyond all others.
        where = vector(self.integer, lanes)
        return least, f.number(where, _beyond(where))

    def first(self, f: Function, x: Reg, place: Reg | None) -> Regs:
        """The accumulator of one element."""
        if self.sums or (self.name == "sum" and place is None):
            return (x,)
        if self.extremum:
            return x, x
        return self.add(f, self.start(f, lanes_of(x.type)), x, place)

    def add(self, f: Function, regs: Regs, x: Reg, place: Reg | None) -> Regs:
        """Take an element in."""
        if self.extremum:
            return self._beyond(f, x, regs[0]), f.select(f.fcmp("uno", x, x), x, regs[1])
        if place is None:
            return (self._merge(f, regs[0], x),)
        better = self._better(f, x, regs[0])
        return f.select(better, x, regs[0]), f.select(better, place, regs[1])

    def merge(self, f: Function, one: Regs, two: Regs) -> Regs:
        """Two accumulators as one."""
        if self.extremum:
            nans = f.select(f.fcmp("uno", two[1], two[1]), two[1], one[1])
            return self._beyond(f, two[0], one[0]), nans
        if len(one) == 1:
            return (self._merge(f, one[0], two[0]),)
        earlier = f.icmp("slt", two[1], one[1])
        level = f.op("and", self._level(f, two[0], one[0]), earlier)
        better = f.op("or", self._better(f, two[0], one[0]), level)
        return f.select(better, two[0], one[0]), f.select(better, two[1], one[1])

    def across(self, f: Function, regs: Regs) -> Regs:
        """All lanes as one."""
        if self.extremum and lanes_of(regs[0].type) > 1:
            return self._extremum(f, *regs)
        while (lanes := lanes_of(regs[0].type)) > 1:
            half = lanes // 2
            low = tuple(self._part(f, r, 0, half) for r in regs)
            regs = self.merge(f, low, tuple(self._part(f, r, half, half) for r in regs))
        return regs

    def _extremum(self, f: Function, x: Reg, nans: Reg) -> Regs:
        """The same for the largest or smallest: whether there was a NaN is asked only once."""
        strange = f.fcmp("uno", nans, nans)
        any_nan = f.call(f"llvm.vector.reduce.or.{suffix(strange.type)}", "i1", strange)
        while (lanes := lanes_of(x.type)) > 1:
            low, high = self._part(f, x, 0, lanes // 2), self._part(f, x, lanes // 2, lanes // 2)
            x = self._beyond(f, high, low)
        return x, f.select(any_nan, f.number(x.type, float("nan")), f.zero(x.type))

    def _part(self, f: Function, reg: Reg, start: int, count: int) -> Reg:
        if count == 1:
            return f.extract(reg, start)
        return f.shuffle(reg, Reg("poison", reg.type), range(start, start + count))

    def result(self, f: Function, regs: Regs) -> Reg:
        """The reduction's value."""
        if self.extremum:
            return f.select(f.fcmp("uno", regs[1], regs[1]), regs[1], regs[0])
        if len(regs) == 1:
            return self.narrow(f, regs[0])
        place = regs[1]
        # No element was better than the least there is: all are that, and the first is the first.
        never = f.icmp("eq", place, f.number(place.type, _beyond(place.type)))
        place = f.select(never, f.zero(place.type), place)
        whole = with_element(place.type, "i64")
        return place if place.type == whole else f.value(whole, f"sext {place} to {whole}")

    # --- float32 sums in float64 ------------------------------------------------------------------

    def widen(self, f: Function, reg: Reg) -> Reg:
        """A sum of a run, to be summed in float64."""
        if not reg.type.endswith(("float", "float>")):
            return reg
        return f.convert("fpext", reg, "double")

    def wide_zero(self, f: Function, reg: Reg) -> Reg:
        return f.zero(with_element(reg.type, "double"))

    def narrow(self, f: Function, reg: Reg) -> Reg:
        want = scalar.register_type(self.dtype, lanes_of(reg.type))
        return reg if reg.type == want else f.convert("fptrunc", reg, "float")

    # --- comparisons ------------------------------------------------------------------------------

    def _merge(self, f: Function, x: Reg, y: Reg) -> Reg:
        if self.name == "all" or (self.name == "min" and self.dtype.kind == "b"):
            return f.op("and", x, y)
        if self.name == "any" or (self.name == "max" and self.dtype.kind == "b"):
            return f.op("or", x, y)
        dtype = np.dtype("float64") if "double" in x.type else self.dtype
        return scalar.apply(f, _MERGES[self.name], [x, y], [dtype, dtype])

    def _beyond(self, f: Function, x: Reg, y: Reg) -> Reg:
        """The larger (or smaller), and y if x is no number: one instruction of x86."""
        return f.select(f.fcmp("ogt" if self.name == "max" else "olt", x, y), x, y)

    def _better(self, f: Function, x: Reg, y: Reg) -> Reg:
        """Whether x beats y: it is beyond it, or the first that is no number."""
        most = self.name.endswith("max")
        if self.dtype.kind == "b":
            return f.op("and", x, _not(f, y)) if most else f.op("and", _not(f, x), y)
        if self.dtype.kind != "f":
            sign = "s" if self.dtype.kind == "i" else "u"
            return f.icmp(f"{sign}{'gt' if most else 'lt'}", x, y)
        beyond = f.fcmp("ugt" if most else "ult", x, y)
        return f.op("and", beyond, f.fcmp("ord", y, y))

    def _level(self, f: Function, x: Reg, y: Reg) -> Reg:
        if self.dtype.kind != "f":
            return f.icmp("eq", x, y)
        nans = f.op("and", f.fcmp("uno", x, x), f.fcmp("uno", y, y))
        return f.op("or", f.fcmp("oeq", x, y), nans)


def _not(f: Function, x: Reg) -> Reg:
    return f.op("xor", x, f.number(x.type, True))


def _beyond(type: str) -> int:
    return 2**31 - 1 if "i32" in type else 2**63 - 1


def _least(f: Function, dtype: Any, type: str, smallest: bool) -> Reg:
    """The number that any other is beyond (the largest if the smallest is wanted)."""
    if dtype.kind == "f":
        return f.number(type, float("inf") if smallest else -float("inf"))
    if dtype.kind == "b":
        return f.number(type, smallest)
    info = np.iinfo(dtype)
    return f.number(type, int(info.max if smallest else info.min))
