"""Sliding windows: where their maximum stands, their sum, and the adjoint of the sum.

Each output gathers over the taps of its window, axis by axis as convolutions do (see `conv_plan`);
taps outside the input are left out. Vectors run over channels where these are contiguous, else over
neighbouring outputs of a row.

    units: (image, part of the rows)
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chainrule.compiler.ir import Op
from chainrule.compiler.native.conv_emit import (
    flat,
    load_lanes,
    move,
    select_lanes,
    store_lanes,
    type_of,
    unravel,
)
from chainrule.compiler.native.conv_plan import Axis, Line, Range, Tile, adjoint, forward, tiles
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, Kernel, strides_of
from chainrule.compiler.native.text import Function, Int, Module, Reg, i64, vector

OPERATIONS = ("window_argmax", "window_sum", "window_spread")
UNIT_FLOPS = 20_000


def supports(op: Op) -> bool:
    """Windows over values that are not empty and small enough for indices of 32 bits."""
    return (
        op.name in OPERATIONS
        and all(v.size and v.dtype.kind in "fiu" for v in (*op.inputs, *op.outputs))
        and math.prod(op.inputs[0].shape[2:]) < 2**31
    )


def kernels(op: Op) -> list[Kernel]:
    """The kernel of a sliding window."""
    return [Windows(op)]


class Windows(Kernel):
    """`window_argmax`, `window_sum` or `window_spread`."""

    family = "pool"

    def __init__(self, op: Op):
        self.op, self.ops = op, (op,)
        self.x, self.y = op.inputs[0], op.output
        self.reads, self.writes = (self.x,), (self.y,)
        how, rule = op.params, adjoint if op.name == "window_spread" else forward
        self.axes = tuple(
            rule(size, out, k, s, lo, d)
            for size, out, k, s, (lo, _), d in zip(
                self.x.shape[2:], self.y.shape[2:], how["kernel"], how["stride"], how["padding"],
                how["dilation"], strict=True,
            )
        )  # fmt: skip
        images = self.x.shape[0]
        self.rows = math.prod(axis.out for axis in self.axes[:-1])
        most = max(1, self.flops // images // UNIT_FLOPS)
        self.parts = min(self.rows, most, max(1, -(-32 // images)))
        self.units = images * self.parts

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        _Emitter(self, module, name, buffers).emit()


@dataclass(frozen=True)
class _Spot:
    """What a vector of outputs is: pointers to its inputs and outputs, the taps of the outer axes
    that it meets, the flat position of its first window, and the lanes that exist."""

    x: Reg
    y: Reg
    ranges: tuple[Reg, ...]
    place: Reg
    lanes: int

    def at(self, f: Function, type: str, out: str, x: Int, y: Int) -> _Spot:
        return replace(self, x=move(f, self.x, x, type), y=move(f, self.y, y, out))


class _Emitter:
    def __init__(self, kernel: Windows, module: Module, name: str, buffers: Buffers):
        self.k, self.module, self.name = kernel, module, name
        self.x, self.y = buffers[kernel.x], buffers[kernel.y]
        self.type, self.out = type_of(kernel.x.dtype), type_of(kernel.y.dtype)
        self.lanes = module.target.lanes(kernel.x.dtype)
        self.outer: tuple[Axis, ...] = kernel.axes[:-1]
        self.inner: Axis = kernel.axes[-1]
        self.steps = strides_of(kernel.x.shape[2:])
        self.across = self.x.strides[1] == 1 and kernel.x.shape[1] > 1
        self.where = kernel.op.name == "window_argmax"

    def emit(self) -> None:
        k = self.k
        tables = [self._table(number) for number in range(len(self.outer))]
        f = Function(self.module, self.name, PARAMETERS)
        x, y = self.x.pointer(f), self.y.pointer(f)
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            image, part = f.udiv(unit.index, k.parts), f.urem(unit.index, k.parts)
            first = f.udiv(f.mul(part, k.rows), k.parts)
            last = f.udiv(f.mul(f.add(part, 1), k.rows), k.parts)
            spot = _Spot(x, y, (), i64(0), self.lanes).at(
                f, self.type, self.out,
                f.mul(image, self.x.strides[0]), f.mul(image, self.y.strides[0]),
            )  # fmt: skip
            if self.across:
                self._rows(f, spot, first, last, tables)
            else:
                with f.loop(0, k.x.shape[1], hint="channel") as channel:
                    at = (f.mul(channel.index, b.strides[1]) for b in (self.x, self.y))
                    self._rows(f, spot.at(f, self.type, self.out, *at), first, last, tables)
        f.finish()

    def _table(self, number: int) -> Reg:
        """For each position of an outer axis: taps lo, hi, offset in the input, flat position."""
        axis, entries = self.outer[number], []
        for position in range(axis.out):
            line = axis.lines[position % len(axis.lines)]
            j = position // len(axis.lines)
            at = line.at(j, 0)
            entries += [*line.met(j), at * self.x.strides[2 + number], at * self.steps[number]]
        return self.module.table(f"{self.name}.axis{number}", "i64", [str(e) for e in entries])

    def _rows(self, f: Function, spot: _Spot, first: Reg, last: Reg, tables: list[Reg]) -> None:
        with f.loop(first, last, hint="row") as row:
            index = unravel(f, row.index, [axis.out for axis in self.outer])
            spot = spot.at(f, self.type, self.out, 0, flat(f, index, self.y.strides[2:-1]))
            ranges, place = [], i64(0)
            for table, i in zip(tables, index, strict=True):
                entry = f.at(table, f.mul(i, 4), "i64")
                lo, hi, offset, at = (f.load(f.at(entry, n, "i64"), "i64") for n in range(4))
                spot = spot.at(f, self.type, self.out, offset, 0)
                place = f.add(place, at)
                ranges += [lo, hi]
            spot = replace(spot, ranges=tuple(ranges), place=place)
            for line in self.inner.lines:
                self._line(f, line, spot)

    def _line(self, f: Function, line: Line, spot: _Spot) -> None:
        width = 1 if self.across else self.lanes
        xw, yw = self.x.strides[-1], self.y.strides[-1]
        alike = itertools.groupby(tiles(line, width), key=lambda t: (t.width, t.spans))
        for _, run in alike:
            same = list(run)
            tile = same[0]
            with f.loop(0, len(same), hint="tile") as number:
                j = f.add(f.mul(number.index, tile.width), tile.start)
                here = spot.at(
                    f, self.type, self.out, f.mul(j, line.step * xw),
                    f.mul(f.add(f.mul(j, line.spacing), line.start), yw),
                )  # fmt: skip
                here = replace(here, place=f.add(spot.place, f.mul(j, line.step)))
                if not self.across:
                    self._vector(f, line, tile, here)
                    continue
                self._channels(f, line, tile, here)

    def _channels(self, f: Function, line: Line, tile: Tile, spot: _Spot) -> None:
        channels = self.k.x.shape[1]
        whole = channels // self.lanes * self.lanes
        with f.loop(0, whole, self.lanes, hint="channels") as c:
            at = (f.mul(c.index, b.strides[1]) for b in (self.x, self.y))
            self._vector(f, line, tile, spot.at(f, self.type, self.out, *at))
        if channels > whole:
            at = (whole * b.strides[1] for b in (self.x, self.y))
            rest = replace(spot.at(f, self.type, self.out, *at), lanes=channels - whole)
            self._vector(f, line, tile, rest)

    def _vector(self, f: Function, line: Line, tile: Tile, spot: _Spot) -> None:
        """One vector of outputs."""
        lanes = spot.lanes if self.across else tile.width
        kind = vector(self.type, self.lanes)
        if self.where:
            start = self._start(f, line, tile, spot)
            lowest = _lowest(self.k.x.dtype)
            state = [f.number(kind, lowest), start]
        else:
            state = [f.zero(kind)]
        state = self._taps(f, line, tile, spot, lanes, 0, i64(0), i64(0), state)
        result = state[-1]
        if self.where:
            wide = vector("i64", self.lanes)
            result = f.value(wide, f"sext {result} to {wide}")
        stride = self.y.strides[1] if self.across else line.spacing * self.y.strides[-1]
        store_lanes(f, result, spot.y, self.out, stride, lanes)

    def _start(self, f: Function, line: Line, tile: Tile, spot: _Spot) -> Reg:
        """The flat position of each window's first element; -1 where it has none."""
        place, met = spot.place, None
        for axis, step in enumerate(self.steps[:-1]):
            lo, hi = spot.ranges[2 * axis : 2 * axis + 2]
            place = f.add(place, f.mul(lo, self.outer[axis].lines[0].delta * step))
            some = f.icmp("slt", lo, hi)
            met = some if met is None else f.op("and", met, some)
        firsts = [
            next((i for i, (lo, hi) in enumerate(tile.spans) if lo <= lane < hi), None)
            for lane in range(tile.width)
        ]
        if self.across:
            firsts = firsts * self.lanes
        firsts += [None] * (self.lanes - len(firsts))
        ahead = [
            0 if i is None else line.at(0 if self.across else lane, i)
            for lane, i in enumerate(firsts)
        ]
        start = f.op("add", self._splat32(f, place), _constant(ahead, "i32"))
        inside = _constant([i is not None for i in firsts], "i1")
        if met is not None:
            inside = f.op("and", f.splat(met, self.lanes), inside)
        return f.select(inside, start, f.number(start.type, -1))

    def _splat32(self, f: Function, x: Reg) -> Reg:
        narrow = i32 if (i32 := _narrow(x)) else f.value("i32", f"trunc {x} to i32")
        return f.splat(narrow, self.lanes)

    def _taps(
        self, f: Function, line: Line, tile: Tile, spot: _Spot, lanes: int, axis: int, offset: Reg,
        place: Reg, state: list[Reg],
    ) -> list[Reg]:  # fmt: skip
        if axis < len(self.outer):
            lo, hi = spot.ranges[2 * axis : 2 * axis + 2]
            delta = self.outer[axis].lines[0].delta
            with f.loop(lo, hi, carry=state, hint="tap") as tap:
                there = f.add(offset, f.mul(tap.index, delta * self.x.strides[2 + axis]))
                at = f.add(place, f.mul(tap.index, delta * self.steps[axis]))
                tap.next = self._taps(
                    f, line, tile, spot, lanes, axis + 1, there, at, list(tap.carried)
                )
            return tap.results
        stride = self.x.strides[1] if self.across else line.step * self.x.strides[-1]
        for i, span in enumerate(tile.spans):
            met: Range = (0, lanes) if self.across and span[0] < span[1] else span
            if met[0] < met[1]:
                there = f.add(offset, line.at(0, i) * self.x.strides[-1])
                x = load_lanes(
                    f, move(f, spot.x, there, self.type), self.type, self.lanes, stride, met[1],
                    met[0],
                )  # fmt: skip
                state = self._one(f, line, i, x, met, spot, place, state)
        return state

    def _one(
        self, f: Function, line: Line, i: int, x: Reg, met: Range, spot: _Spot, place: Reg,
        state: list[Reg],
    ) -> list[Reg]:  # fmt: skip
        """Take one element of each window into the state."""
        floating = self.k.x.dtype.kind == "f"
        if not self.where:
            return [f.op("fadd" if floating else "add", state[0], x)]
        best, index = state
        if floating:
            larger = f.op("or", f.fcmp("ogt", x, best), f.fcmp("uno", x, x))
        else:
            larger = f.icmp("sgt" if self.k.x.dtype.kind == "i" else "ugt", x, best)
        if met != (0, self.lanes):
            larger = f.op("and", larger, select_lanes(self.lanes, *met))
        here = self._splat32(f, f.add(f.add(spot.place, place), line.at(0, i)))
        if not self.across:
            here = f.op("add", here, _constant([n * line.step for n in range(self.lanes)], "i32"))
        return [f.select(larger, x, best), f.select(larger, here, index)]


def _lowest(dtype: Any) -> float | int:
    return -math.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _constant(numbers: list[Any], type: str) -> Reg:
    """A literal vector of integers."""
    if len(numbers) == 1:
        return Reg(str(int(numbers[0])), type)
    body = ", ".join(f"{type} {int(n)}" for n in numbers)
    return Reg(f"<{body}>", f"<{len(numbers)} x {type}>")


def _narrow(x: Reg) -> Reg | None:
    """A literal i64 as a literal i32."""
    return Reg(x.text, "i32") if x.literal is not None else None
