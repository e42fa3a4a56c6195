"""Sliding windows: their sum, where their maximum stands, the maximum itself, and the adjoints.

Each output gathers over the taps of its window, axis by axis as convolutions do (see `conv_plan`);
taps outside the input are left out. The adjoints gather as well, each input position from the
windows that hold it: `window_spread` takes all of them, `window_route` those whose index points at
it. Vectors run over channels where these are contiguous, else over neighbouring outputs of a row.

    units: (image, part of the rows)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.conv_emit import (
    Keyed,
    key_of,
    load_lanes,
    move,
    select_lanes,
    store_lanes,
    unravel,
)
from chainrule.compiler.native.conv_plan import (
    Axis,
    Line,
    Range,
    Tile,
    adjoint,
    collides,
    forward,
    tiles,
)
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Buffers, Kernel, strides_of
from chainrule.compiler.native.text import Function, Int, Module, Reg, i64, type_of, vector

SUMS = ("window_sum", "window_spread")
OPERATIONS = ("window_argmax", "window_take", "window_route", *SUMS)
UNIT_FLOPS = 20_000


def supports(op: Op) -> bool:
    """Windows over values that are not empty and small enough for indices of 32 bits."""
    return (
        op.name in OPERATIONS
        and all(v.size and v.dtype.kind in "fiu" for v in (*op.inputs, *op.outputs))
        and math.prod(op.inputs[0].shape[2:]) < 2**31
        and math.prod(op.output.shape[2:]) < 2**31
    )


def kernels(op: Op) -> list[Kernel]:
    """The kernel of one operation."""
    return [Take(op)] if op.name == "window_take" else [Windows(op)]


def is_pair(argmax: Op, take: Op) -> bool:
    """Whether the second operation takes the maxima that the first one finds."""
    return (
        argmax.name == "window_argmax"
        and take.name == "window_take"
        and take.inputs == (argmax.inputs[0], argmax.output)
        and supports(argmax)
    )


def paired(kernels: Sequence[Kernel], outputs: Collection[Value]) -> list[Kernel]:
    """The kernels, each `window_take` done where its maxima are found.

    Arguments:
        outputs: the graph's.
    """
    takes = {k.op.inputs[1]: k for k in kernels if isinstance(k, Take)}
    result: list[Kernel] = []
    gone: set[Kernel] = set()
    for kernel in kernels:
        index = kernel.writes[0]
        if isinstance(kernel, Windows) and index in takes and is_pair(kernel.op, takes[index].op):
            take = takes[index]
            gone.add(take)
            wanted = index in outputs or any(index in k.reads for k in kernels if k is not take)
            kernel = Windows(kernel.op, take.op, wanted)
        result.append(kernel)
    return [k for k in result if k not in gone]


class Windows(Keyed):
    """One operation on sliding windows, or the pair of `is_pair` at once.

    Arguments:
        take: the second operation of the pair.
        index_wanted: whether the index that a pair finds is written.
    """

    family = "pool"

    def __init__(self, op: Op, take: Op | None = None, index_wanted: bool = True):
        self.op, self.take = op, take
        self.ops = (op,) if take is None else (op, take)
        self.key = key_of(op), take is None, index_wanted
        self.x = op.inputs[0]
        self.index = op.output if op.name == "window_argmax" and index_wanted else None
        self.value = op.output if op.name != "window_argmax" else take and take.output
        self.y: Value = op.output
        self.reads = op.inputs
        self.writes = tuple(v for v in (self.index, self.value) if v is not None)
        how = op.params
        rule = adjoint if op.name in ("window_spread", "window_route") else forward
        self.axes = tuple(
            rule(size, out, k, s, lo, d)
            for size, out, k, s, (lo, _), d in zip(
                self.x.shape[2:], self.y.shape[2:], how["kernel"], how["stride"], how["padding"],
                how["dilation"], strict=True,
            )
        )  # fmt: skip
        images = self.x.shape[0]
        self.rows = math.prod(axis.out for axis in self.axes[:-1])
        work = self.y.size * math.prod(how["kernel"])
        most = max(1, work // images // UNIT_FLOPS)
        self.parts = min(self.rows, most, max(1, -(-32 // images)))
        self.units = images * self.parts

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        _Emitter(self, module, name, buffers).emit()


Offset = Callable[[Buffer], Int]


@dataclass(frozen=True)
class _Spot:
    """What a vector of outputs is: pointers to what it reads and writes, the taps of the outer axes
    that it meets, the flat position that indices are compared with, and the lanes that exist."""

    reads: tuple[Reg, ...]
    writes: tuple[Reg, ...]
    ranges: tuple[Reg, ...]
    place: Reg
    lanes: int


class _Emitter:
    def __init__(self, kernel: Windows, module: Module, name: str, buffers: Buffers):
        self.k, self.module, self.name = kernel, module, name
        self.reads = [buffers[v] for v in kernel.reads]
        self.writes = [buffers[v] for v in kernel.writes]
        self.x, self.type = self.reads[0], type_of(kernel.x.dtype)
        self.lanes = module.target.lanes(kernel.x.dtype)
        self.outer: tuple[Axis, ...] = kernel.axes[:-1]
        self.inner: Axis = kernel.axes[-1]
        self.where = kernel.op.name == "window_argmax"
        self.route = kernel.op.name == "window_route"
        # Indices are flat positions in what the maximum was taken of.
        self.steps = strides_of((kernel.y if self.route else kernel.x).shape[2:])
        self.channels = kernel.x.shape[1]
        self.across = self.x.strides[1] == 1 and self.channels > 1
        self.across &= not any(map(collides, self.writes))

    def _move(self, f: Function, spot: _Spot, read: Offset, write: Offset) -> _Spot:
        return replace(
            spot,
            reads=tuple(
                move(f, p, read(b), type_of(b.dtype))
                for p, b in zip(spot.reads, self.reads, strict=True)
            ),
            writes=tuple(
                move(f, p, write(b), type_of(b.dtype))
                for p, b in zip(spot.writes, self.writes, strict=True)
            ),
        )

    def _along(self, f: Function, spot: _Spot, axis: int, index: Int) -> _Spot:
        """Moved along the batch or the channels, which inputs and outputs share."""
        step: Offset = lambda b: f.mul(index, b.strides[axis])  # noqa: E731
        return self._move(f, spot, step, step)

    def emit(self) -> None:
        k = self.k
        tables = [self._table(number) for number in range(len(self.outer))]
        f = Function(self.module, self.name, PARAMETERS)
        pointers = [tuple(b.pointer(f) for b in side) for side in (self.reads, self.writes)]
        start = _Spot(pointers[0], pointers[1], (), i64(0), self.lanes)
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            image, part = f.udiv(unit.index, k.parts), f.urem(unit.index, k.parts)
            rows = (
                f.udiv(f.mul(part, k.rows), k.parts),
                f.udiv(f.mul(f.add(part, 1), k.rows), k.parts),
            )
            spot = self._along(f, start, 0, image)
            if self.across:
                self._rows(f, spot, rows, tables)
            else:
                with f.loop(0, self.channels, hint="channel") as channel:
                    self._rows(f, self._along(f, spot, 1, channel.index), rows, tables)
        f.finish()

    def _table(self, number: int) -> Reg:
        """For each position of an outer axis: taps lo, hi, and the input under the first tap."""
        axis, entries = self.outer[number], []
        for position in range(axis.out):
            line = axis.lines[position % len(axis.lines)]
            j = position // len(axis.lines)
            entries += [*line.met(j), line.at(j, 0)]
        return self.module.table(f"{self.name}.axis{number}", "i64", [str(e) for e in entries])

    def _rows(self, f: Function, spot: _Spot, rows: tuple[Reg, Reg], tables: list[Reg]) -> None:
        with f.loop(*rows, hint="row") as row:
            index = unravel(f, row.index, [axis.out for axis in self.outer])
            ranges, place = [], i64(0)
            for number, (table, i) in enumerate(zip(tables, index, strict=True)):
                entry = f.at(table, f.mul(i, 3), "i64")
                lo, hi, at = (f.load(f.at(entry, n, "i64"), "i64") for n in range(3))
                axis = 2 + number
                spot = self._move(
                    f, spot, lambda b: f.mul(at, b.strides[axis]),  # noqa: B023
                    lambda b: f.mul(i, b.strides[axis]),  # noqa: B023
                )  # fmt: skip
                place = f.add(place, f.mul(i if self.route else at, self.steps[number]))
                ranges += [lo, hi]
            spot = replace(spot, ranges=tuple(ranges), place=place)
            for line in self.inner.lines:
                self._line(f, line, spot)

    def _line(self, f: Function, line: Line, spot: _Spot) -> None:
        width = 1 if self.across else self.lanes
        alike = itertools.groupby(tiles(line, width), key=lambda t: (t.width, t.spans))
        for _, run in alike:
            same = list(run)
            tile = same[0]
            with f.loop(0, len(same), hint="tile") as number:
                j = f.add(f.mul(number.index, tile.width), tile.start)
                source = f.mul(j, line.step)
                target = f.add(f.mul(j, line.spacing), line.start)
                here = self._move(
                    f, spot, lambda b: f.mul(source, b.strides[-1]),  # noqa: B023
                    lambda b: f.mul(target, b.strides[-1]),  # noqa: B023
                )  # fmt: skip
                here = replace(here, place=f.add(spot.place, target if self.route else source))
                if self.across:
                    self._channels(f, line, tile, here)
                else:
                    self._vector(f, line, tile, here)

    def _channels(self, f: Function, line: Line, tile: Tile, spot: _Spot) -> None:
        whole = self.channels // self.lanes * self.lanes
        with f.loop(0, whole, self.lanes, hint="channels") as c:
            self._vector(f, line, tile, self._along(f, spot, 1, c.index))
        if self.channels > whole:
            rest = replace(self._along(f, spot, 1, whole), lanes=self.channels - whole)
            self._vector(f, line, tile, rest)

    def _vector(self, f: Function, line: Line, tile: Tile, spot: _Spot) -> None:
        """One vector of outputs."""
        lanes = spot.lanes if self.across else tile.width
        kind = vector(self.type, self.lanes)
        state = [f.zero(kind)]
        if self.where:
            best = f.number(kind, _lowest(self.k.x.dtype))
            state = [best, self._start(f, line, tile, spot)]
        state = self._taps(f, line, tile, spot, lanes, 0, (i64(0),) * 3, state)
        results = [state[0]] if self.k.value is not None else []
        if self.k.index is not None:
            wide = vector("i64", self.lanes)
            results.insert(0, f.value(wide, f"sext {state[1]} to {wide}"))
        for result, pointer, b in zip(results, spot.writes, self.writes, strict=True):
            stride = b.strides[1] if self.across else line.spacing * b.strides[-1]
            store_lanes(f, result, pointer, type_of(b.dtype), stride, lanes)

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
        start = f.op("add", self._narrow(f, place), _constant(ahead, "i32"))
        inside = _constant([i is not None for i in firsts], "i1")
        if met is not None:
            inside = f.op("and", f.splat(met, self.lanes), inside)
        return f.select(inside, start, f.number(start.type, -1))

    def _narrow(self, f: Function, x: Reg) -> Reg:
        """A number of 64 bits as one of 32, in all lanes."""
        literal = x.literal is not None
        narrow = Reg(x.text, "i32") if literal else f.value("i32", f"trunc {x} to i32")
        return f.splat(narrow, self.lanes)

    def _taps(
        self, f: Function, line: Line, tile: Tile, spot: _Spot, lanes: int, axis: int,
        offsets: Sequence[Reg], state: list[Reg],
    ) -> list[Reg]:  # fmt: skip
        """Loop over the taps that are met. `offsets`: in each input, and of the flat position."""
        if axis < len(self.outer):
            lo, hi = spot.ranges[2 * axis : 2 * axis + 2]
            delta = self.outer[axis].lines[0].delta
            steps = [b.strides[2 + axis] for b in self.reads][:2]
            steps += [0] * (2 - len(steps)) + [0 if self.route else self.steps[axis]]
            with f.loop(lo, hi, carry=state, hint="tap") as tap:
                there = [
                    f.add(offset, f.mul(tap.index, delta * step))
                    for offset, step in zip(offsets, steps, strict=True)
                ]
                inner = list(tap.carried)
                tap.next = self._taps(f, line, tile, spot, lanes, axis + 1, there, inner)
            return tap.results
        for i, span in enumerate(tile.spans):
            met: Range = (0, lanes) if self.across and span[0] < span[1] else span
            if met[0] < met[1]:
                values = [
                    self._load(f, spot.reads[n], offsets[n], b, line, i, met)
                    for n, b in enumerate(self.reads)
                ]
                state = self._one(f, line, i, values, met, spot, offsets[2], state)
        return state

    def _load(
        self, f: Function, base: Reg, offset: Reg, b: Buffer, line: Line, i: int, met: Range
    ) -> Reg:
        type, stride = type_of(b.dtype), b.strides[1]
        if not self.across:
            stride = line.step * b.strides[-1]
        address = move(f, base, f.add(offset, line.at(0, i) * b.strides[-1]), type)
        return load_lanes(f, address, type, self.lanes, stride, met[1], met[0])

    def _one(
        self, f: Function, line: Line, i: int, values: list[Reg], met: Range, spot: _Spot,
        place: Reg, state: list[Reg],
    ) -> list[Reg]:  # fmt: skip
        """Take one element of each window into the state."""
        floating, x = self.k.x.dtype.kind == "f", values[0]
        if self.route:
            index = _convert(f, values[1])
            here = self._narrow(f, spot.place)
            if not self.across:
                steps = [n * line.spacing for n in range(self.lanes)]
                here = f.op("add", here, _constant(steps, "i32"))
            x = f.select(f.icmp("eq", index, here), x, f.zero(x.type))
        if not self.where:
            return [f.op("fadd" if floating else "add", state[0], x)]
        best, index = state
        if floating:
            larger = f.op("or", f.fcmp("ogt", x, best), f.fcmp("uno", x, x))
        else:
            larger = f.icmp("sgt" if self.k.x.dtype.kind == "i" else "ugt", x, best)
        if met != (0, self.lanes):
            larger = f.op("and", larger, select_lanes(self.lanes, *met))
        here = self._narrow(f, f.add(f.add(spot.place, place), line.at(0, i)))
        if not self.across:
            steps = [n * line.step for n in range(self.lanes)]
            here = f.op("add", here, _constant(steps, "i32"))
        return [f.select(larger, x, best), f.select(larger, here, index)]


class Take(Keyed):
    """`window_take`: one element of a plane for each index; an index that points outside of the
    plane reads its nearest end."""

    family = "pool"

    def __init__(self, op: Op):
        self.op, self.ops, self.reads, self.writes = op, (op,), op.inputs, op.outputs
        self.key = key_of(op)
        self.units = op.output.shape[0]

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        x, index = (buffers[v] for v in self.reads)
        y = buffers[self.op.output]
        type, kind = type_of(x.dtype), type_of(index.dtype)
        f = Function(module, name, PARAMETERS)
        pointers = [b.pointer(f) for b in (x, index, y)]
        spatial = self.reads[0].shape[2:]
        with f.loop(f.arg("lo"), f.arg("hi"), hint="image") as n, f.loop(0, x.shape[1]) as c:
            bases = [
                move(
                    f, p, f.add(f.mul(n.index, b.strides[0]), f.mul(c.index, b.strides[1])),
                    type_of(b.dtype),
                )
                for p, b in zip(pointers, (x, index, y), strict=True)
            ]  # fmt: skip
            with f.loop(0, math.prod(y.shape[2:]), hint="window") as p:
                at = unravel(f, p.index, y.shape[2:])
                place = f.load(move(f, bases[1], _dot(f, at, index.strides[2:]), kind), kind)
                if kind != "i64":
                    signed = index.dtype.kind == "i"  # type: ignore[attr-defined]
                    place = f.value("i64", f"{'sext' if signed else 'zext'} {place} to i64")
                place = f.smin(f.smax(place, 0), math.prod(spatial) - 1)
                there = _dot(f, unravel(f, place, spatial), x.strides[2:])
                value = f.load(move(f, bases[0], there, type), type)
                f.store(value, move(f, bases[2], _dot(f, at, y.strides[2:]), type))
        f.finish()


def _dot(f: Function, index: Sequence[Reg], strides: Sequence[int]) -> Reg:
    total = i64(0)
    for i, stride in zip(index, strides, strict=True):
        total = f.add(total, f.mul(i, stride))
    return total


def _convert(f: Function, x: Reg) -> Reg:
    """Integers as integers of 32 bits."""
    bits = int(x.type.strip("<>").split("i")[-1])
    if bits == 32:
        return x
    return f.convert("trunc" if bits > 32 else "sext", x, "i32")


def _lowest(dtype: Any) -> float | int:
    return -math.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _constant(numbers: list[Any], type: str) -> Reg:
    """A literal vector of integers."""
    if len(numbers) == 1:
        return Reg(str(int(numbers[0])), type)
    body = ", ".join(f"{type} {int(n)}" for n in numbers)
    return Reg(f"<{body}>", f"<{len(numbers)} x {type}>")
