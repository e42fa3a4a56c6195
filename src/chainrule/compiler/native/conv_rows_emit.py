"""Writing a convolution whose rows run over the lanes of vectors (`conv_rows.Rows`)."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from chainrule.compiler.native.conv_copy import copy_image
from chainrule.compiler.native.conv_emit import flat, mask_lanes, move, store_lanes, unravel
from chainrule.compiler.native.conv_finish import SPILL, Along
from chainrule.compiler.native.conv_plan import Line, Range, pieces
from chainrule.compiler.native.kernel import PARAMETERS, Buffers
from chainrule.compiler.native.microkernel import Level, Sums, contract, literal_mask
from chainrule.compiler.native.microkernel import Tile as Registers
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Function, Module, Reg, i64, type_of, vector

if TYPE_CHECKING:
    from chainrule.compiler.native.conv_rows import Rows

HIGH = 8  # output channels of a tile


class Kind(NamedTuple):
    """Tiles of rows that are the same code: a line of the axis of rows, how many rows, and the taps
    that each meets; none if all meet the same, which is then known when the program runs."""

    line: Line
    rows: int
    mets: tuple[Range, ...] = ()


class Segment(NamedTuple):
    """Some vectors of a row: the first, how many, the lanes of the last that exist, and for each
    tap the outputs that meet an input, counted from the first lane."""

    start: int
    vectors: int
    last: int
    spans: tuple[Range, ...]


class _Unit(NamedTuple):
    """Where a unit is: its image, the weight, where y goes, room for a tile, its tiles of rows, its
    first input row, and the table of tiles."""

    image: Reg
    w: Reg
    y: Reg
    spill: Reg
    tiles: tuple[Reg, Reg]
    lowest: Reg
    table: Reg


def spatial(strides: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial strides of an image or packed weight, with such an axis of one row."""
    return strides if len(strides) > 1 else (0, *strides)


class Emitter:
    """The functions of one kernel."""

    def __init__(self, kernel: Rows, module: Module, name: str, buffers: Buffers):
        self.k, self.module, self.name = kernel, module, name
        self.type, self.lanes = type_of(kernel.x.dtype), module.target.lanes(kernel.x.dtype)
        self.x, self.w = buffers[kernel.x], buffers[kernel.packed]
        self.w_group, *taps, self.w_in, _ = self.w.strides
        self.w_taps = spatial(tuple(taps))
        *self.outer, self.rows, self.inner = kernel.axes
        self.written: dict[object, str] = {}
        self.masks: dict[Range, Reg] = {}  # of the taps that are being written
        self.widest = max(-(-line.count // self.lanes) for line in self.inner.lines)
        self.high, self.most = self._choose(module.target)
        self.together = max(1, self.most // self.widest)  # rows of a tile
        self.kinds: list[Kind] = []
        self.tiles = self._tiles()
        self.x_steps: tuple[int, ...] = kernel.x_steps
        self.y_steps: tuple[int, ...] = kernel.y_steps
        self.copied = False
        if kernel.finish is not None:
            kernel.finish.buffers = buffers
        else:
            self.y = buffers[kernel.y]
            self.copied = self.y.strides[-1] != 1 and kernel.y.shape[-1] > 1
        if kernel.finish is not None:
            self.y_steps = ()
        elif not self.copied:
            self.y_steps = (self.y.strides[1], *spatial(self.y.strides[2:]))
        kernel.scratch = kernel.x_bytes + kernel.y_bytes * self.copied
        kernel.scratch += SPILL * (kernel.finish is not None)

    def _choose(self, target: Target) -> tuple[int, int]:
        """The output channels and the vectors of inputs of a tile: registers hold its sums, these
        vectors, and one number of the weight. Two multiply-adds or two loads are done in a cycle,
        and four cycles pass before a sum can be added to again."""
        best, chosen = math.inf, (1, 1)
        for high in range(1, min(HIGH, self.k.outside) + 1):
            most = max(1, (target.registers - 2 + (high == 1)) // (high + 1))
            wide = min(most, self.widest)
            vectors = wide * max(1, most // self.widest)
            cost = max(high * vectors / 2, (high + vectors) / 2, 4) + 0.25
            tiles = len(pieces(self.k.outside, high)) * len(pieces(self.widest, most))
            total = cost * tiles * wide / vectors
            if total < best:
                best, chosen = total, (high, most)
        return chosen

    def _tiles(self) -> list[list[tuple[int, ...]]]:
        """For each band its tiles of rows: first output row, kind, taps lo and hi, where the first
        tap meets the input, and the weight's first tap."""
        result = []
        for start, stop in self.k.bands:
            found = []
            for line in self.rows.lines:
                places = range(line.count)
                inside = [j for j in places if start <= line.start + line.spacing * j < stop]
                for rows in self._runs(line, inside):
                    for at, many in pieces(len(rows), self.together):
                        j, mets = rows[at], tuple(line.met(j) for j in rows[at : at + many])
                        kind = self._kind(line, many, mets if len(set(mets)) > 1 else ())
                        place = line.start + line.spacing * j
                        found.append((place, kind, *mets[0], line.at(j, 0), line.first))
            result.append(sorted(found))
        return result

    def _runs(self, line: Line, places: list[int]) -> list[list[int]]:
        """Outputs that meet the same taps, enough of them to fill tiles; those between."""
        result: list[list[int]] = []
        few = False
        for _, run in itertools.groupby(places, key=line.met):
            rows = list(run)
            if few and len(rows) < self.together:
                result[-1] += rows
            else:
                result.append(rows)
            few = len(rows) < self.together
        return result

    def _kind(self, line: Line, rows: int, mets: tuple[Range, ...]) -> int:
        for number, (other, *more) in enumerate(self.kinds):
            alike = (line.step, line.spacing, line.delta, line.jump)
            mine = (other.step, other.spacing, other.delta, other.jump)
            if more == [rows, mets] and alike == mine and (not mets or line.taps == other.taps):
                return number
        self.kinds.append(Kind(line, rows, mets))
        return len(self.kinds) - 1

    def emit(self) -> None:
        k = self.k
        tables = [self._table(number) for number in range(len(self.outer))]
        tiles = self._numbers("tiles", [n for band in self.tiles for tile in band for n in tile])
        ends = itertools.pairwise(itertools.accumulate(map(len, self.tiles), initial=0))
        entries = [
            n for end, rows, met in zip(ends, k.bands, k.met, strict=True)
            for n in (*end, *rows, *met)
        ]  # fmt: skip
        bands = self._numbers("bands", entries)
        f = Function(self.module, self.name, PARAMETERS)
        x, w = self.x.pointer(f), self.w.pointer(f)
        y = f.arg("scratch") if k.finish is not None else self.y.pointer(f)
        spill = move(f, f.arg("scratch"), k.x_bytes + k.y_bytes * self.copied, "i8")
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            image, part = f.udiv(unit.index, k.parts), f.urem(unit.index, k.parts)
            entry = f.at(bands, f.mul(part, 6), "i64")
            first, last, top, bottom, lo, hi = (
                f.load(f.at(entry, i, "i64"), "i64") for i in range(6)
            )
            self._copy_in(f, move(f, x, f.mul(image, self.x.strides[0]), self.type), lo, hi)
            lying = into = y
            if k.finish is None:
                lying = into = move(f, y, f.mul(image, self.y.strides[0]), self.type)
            if self.copied:
                into = move(f, f.arg("scratch"), k.x_bytes, "i8")
                into = move(f, into, f.mul(f.sub(0, top), self.y_steps[-2]), self.type)
            here = _Unit(image, w, into, spill, (first, last), lo, tiles)
            with f.loop(0, k.groups, hint="group") as group:
                self._group(f, here, group.index, tables)
            if self.copied:
                self._copy_out(f, lying, into, top, bottom)
        f.finish()

    def _numbers(self, what: str, numbers: list[int]) -> Reg:
        return self.module.table(f"{self.name}.{what}", "i64", [str(n) for n in numbers])

    def _copy_in(self, f: Function, x: Reg, lo: Reg, hi: Reg) -> None:
        """Copy rows lo .. hi - 1 of an image into scratch."""
        k = self.k
        steps = (self.x.strides[1], *spatial(self.x.strides[2:]))
        shape = (k.x.shape[1], *(a.size for a in self.outer), self.inner.size)
        with f.loop(lo, hi, hint="row") as row:
            at = f.add(f.mul(f.sub(row.index, lo), self.x_steps[-2]), k.before)
            copy_image(
                f, self.type, self.lanes, shape,
                (move(f, x, f.mul(row.index, steps[-2]), self.type), (*steps[:-2], steps[-1])),
                (move(f, f.arg("scratch"), at, self.type), (*self.x_steps[:-2], 1)),
            )  # fmt: skip

    def _copy_out(self, f: Function, y: Reg, source: Reg, top: Reg, bottom: Reg) -> None:
        """Copy output rows top .. bottom - 1 from scratch."""
        k = self.k
        steps = (self.y.strides[1], *spatial(self.y.strides[2:]))
        shape = (k.y.shape[1], *(a.out for a in self.outer), self.inner.out)
        with f.loop(top, bottom, hint="row") as row:
            copy_image(
                f, self.type, self.lanes, shape,
                (move(f, source, f.mul(row.index, self.y_steps[-2]), self.type),
                 (*self.y_steps[:-2], 1)),
                (move(f, y, f.mul(row.index, steps[-2]), self.type), (*steps[:-2], steps[-1])),
            )  # fmt: skip

    def _table(self, number: int) -> Reg:
        """For each position of an outer axis: taps lo, hi, offset in the input and the weight."""
        axis, entries = self.outer[number], []
        for position in range(axis.out):
            line = axis.lines[position % len(axis.lines)]
            j = position // len(axis.lines)
            at, tap = line.at(j, 0) * self.x_steps[1 + number], line.first * self.w_taps[number]
            entries += [*line.met(j), at, tap]
        return self._numbers(f"axis{number}", entries)

    def _group(self, f: Function, unit: _Unit, group: Reg, tables: list[Reg]) -> None:
        """All outputs of a group in a unit."""
        k = self.k
        x = move(f, f.arg("scratch"), f.mul(group, k.inside * self.x_steps[0]), self.type)
        x = move(f, x, k.before, self.type)
        w = move(f, unit.w, f.mul(group, self.w_group), self.type)
        channel = f.mul(group, k.outside)
        y = unit.y
        if self.y_steps:
            y = move(f, y, f.mul(channel, self.y_steps[0]), self.type)
        shape = [axis.out for axis in self.outer]
        with f.loop(0, math.prod(shape), hint="plane") as plane:
            index = unravel(f, plane.index, shape)
            if self.y_steps:
                y = move(f, y, flat(f, index, self.y_steps[1:-2]), self.type)
            ranges: list[Reg] = []
            for table, i in zip(tables, index, strict=True):
                entry = f.at(table, f.mul(i, 4), "i64")
                lo, hi, ox, ow = (f.load(f.at(entry, n, "i64"), "i64") for n in range(4))
                x, w = move(f, x, ox, self.type), move(f, w, ow, self.type)
                ranges += [lo, hi]
            with f.loop(*unit.tiles, hint="rows") as tile:
                entry = f.at(unit.table, f.mul(tile.index, 6), "i64")
                place, kind, lo, hi, at, tap = (
                    f.load(f.at(entry, n, "i64"), "i64") for n in range(6)
                )
                ox = f.mul(f.sub(at, unit.lowest), self.x_steps[-2])
                pointers = (
                    move(f, x, ox, self.type),
                    move(f, w, f.mul(tap, self.w_taps[-2]), self.type),
                    move(f, y, f.mul(place, self.y_steps[-2]), self.type) if self.y_steps else y,
                )
                place = [unit.image, channel, *index, place]
                for number, one in enumerate(self.kinds):
                    with f.when(f.icmp("eq", kind, number)):
                        self._rows(f, one, pointers, [*ranges, lo, hi], unit.spill, place)

    def _rows(
        self, f: Function, kind: Kind, pointers: tuple[Reg, Reg, Reg], ranges: list[Reg],
        spill: Reg, place: list[Reg],
    ) -> None:  # fmt: skip
        """All outputs of some rows: by output channels, by lines of the innermost axis."""
        x, w, y = pointers
        image, channel, *at = place
        for start, many in pieces(self.k.outside, self.high):
            to = move(f, y, start * self.y_steps[0], self.type) if self.y_steps else y
            for line in self.inner.lines:
                for segment in self._segments(line):
                    function = self._tile(kind, line, segment, many)
                    inner = line.start + line.spacing * segment.start
                    there = (
                        move(f, x, segment.start * line.step, self.type),
                        move(f, w, start, self.type),
                        move(f, to, inner, self.type) if self.y_steps else to,
                    )
                    arguments = [*there, *ranges]
                    if self.k.finish is not None:
                        here = [image, f.add(channel, start), *at, i64(inner)]
                        if len(self.k.finish.spatial) == 1:
                            here.pop(2)
                        arguments += [f.arg("table"), spill, *here]
                    f.run(function, *arguments)

    def _segments(self, line: Line) -> list[Segment]:
        """A row of a line, some vectors at a time."""
        result = []
        for first, many in pieces(-(-line.count // self.lanes), self.most):
            start = first * self.lanes
            stop = min(line.count, start + many * self.lanes)
            spans = []
            for i in range(line.taps):
                lo, hi = line.outputs(i)
                spans.append((max(lo, start) - start, max(min(hi, stop), max(lo, start)) - start))
            last = stop - start - (many - 1) * self.lanes
            result.append(Segment(start, many, last, tuple(spans)))
        return result

    def _tile(self, kind: Kind, line: Line, segment: Segment, high: int) -> str:
        """The function that computes a tile of `high` output channels; its name."""
        shape = (line.step, line.spacing, line.delta, line.jump, line.first, line.offset)
        number = self.kinds.index(kind)
        key = (number, shape, segment._replace(start=0), high)
        if key in self.written:
            return self.written[key]
        name = self.written[key] = f"{self.name}.tile{len(self.written)}"
        bounds = [f"i64 %{end}{n}" for n in range(len(self.outer) + 1) for end in ("lo", "hi")]
        head = ["ptr noalias %x", "ptr noalias %w", "ptr noalias %y", *bounds]
        finish = self.k.finish
        f = Function(self.module, name, ", ".join(head + (finish.place if finish else [])))
        places = [(r, v) for r in range(kind.rows) for v in range(segment.vectors)]
        sums: Sums = [[f.zero(vector(self.type, self.lanes))] * len(places) for _ in range(high)]
        axes: tuple[Along, ...] = ()
        if finish is not None:
            axes = self._along(f, kind, high)
            finish.ahead(f, finish.spatial[-1], axes, self.lanes, segment.vectors)
        sums = self._taps(f, kind, line, segment, sums, 0, i64(0), i64(0))
        if finish is not None:
            wide, last = segment.vectors, segment.last
            masks = {} if last == self.lanes else {wide - 1: literal_mask(self.lanes, last)}
            given = [row[i : i + wide] for row in sums for i in range(0, len(row), wide)]
            finish.tile(f, finish.spatial[-1], axes, given, masks)
        else:
            for o, row in enumerate(sums):
                for (r, v), value in zip(places, row, strict=True):
                    at = o * self.y_steps[0] + r * kind.line.spacing * self.y_steps[-2]
                    at += v * self.lanes * line.spacing
                    count = segment.last if v == segment.vectors - 1 else self.lanes
                    address = move(f, f.arg("y"), at, self.type)
                    store_lanes(f, value, address, self.type, line.spacing, count)
        return f.finish()

    def _along(self, f: Function, kind: Kind, high: int) -> tuple[Along, ...]:
        """The axes of a tile behind which something is fused."""
        finish = self.k.finish
        assert finish is not None
        axes = [Along(finish.channel, f.arg("channel"), high, 1)]
        if len(finish.spatial) > 1:
            rows = finish.spatial[-2], finish.at(f, -2), kind.rows, kind.line.spacing
            axes.append(Along(*rows))
        return tuple(axes)

    def _taps(
        self, f: Function, kind: Kind, line: Line, segment: Segment, sums: Sums, axis: int, ox: Reg,
        ow: Reg,
    ) -> Sums:  # fmt: skip
        """Loops over the taps of the outer axes, then the innermost axis' taps one by one."""
        everything = tuple(range(kind.rows))
        if axis == len(self.outer) + 1:
            return self._inner(f, kind, line, segment, sums, everything, ox, ow)
        if axis == len(self.outer) and kind.mets:
            return self._apart(f, kind, line, segment, sums, ox, ow)
        steps = self.outer[axis].lines[0] if axis < len(self.outer) else kind.line
        width, carry = len(sums[0]), [x for row in sums for x in row]
        with f.loop(f.arg(f"lo{axis}"), f.arg(f"hi{axis}"), carry=carry, hint="tap") as tap:
            inner = [tap.carried[i : i + width] for i in range(0, len(carry), width)]
            ox = f.add(ox, f.mul(tap.index, steps.delta * self.x_steps[1 + axis]))
            ow = f.add(ow, f.mul(tap.index, steps.jump * self.w_taps[axis]))
            inner = self._taps(f, kind, line, segment, inner, axis + 1, ox, ow)
            tap.next = [x for row in inner for x in row]
        return [tap.results[i : i + width] for i in range(0, len(carry), width)]

    def _apart(
        self, f: Function, kind: Kind, line: Line, segment: Segment, sums: Sums, ox: Reg, ow: Reg
    ) -> Sums:
        """The taps along rows that do not all meet the same: those alike together."""
        sums, wide = [list(row) for row in sums], segment.vectors

        def meeting(i: int) -> tuple[int, ...]:
            return tuple(r for r, (lo, hi) in enumerate(kind.mets) if lo <= i < hi)

        for rows, run in itertools.groupby(range(kind.line.taps), key=meeting):
            taps = list(run)
            if not rows:
                continue
            places = [r * wide + v for r in rows for v in range(wide)]
            carry = [row[p] for row in sums for p in places]
            with f.loop(taps[0], taps[-1] + 1, carry=carry, hint="tap") as tap:
                some = [tap.carried[i : i + len(places)] for i in range(0, len(carry), len(places))]
                x = f.add(ox, f.mul(tap.index, kind.line.delta * self.x_steps[-2]))
                w = f.add(ow, f.mul(tap.index, kind.line.jump * self.w_taps[-2]))
                some = self._inner(f, kind, line, segment, some, rows, x, w)
                tap.next = [reg for row in some for reg in row]
            for number, reg in enumerate(tap.results):
                sums[number // len(places)][places[number % len(places)]] = reg
        return sums

    def _inner(
        self, f: Function, kind: Kind, line: Line, segment: Segment, sums: Sums,
        rows: tuple[int, ...], ox: Reg, ow: Reg,
    ) -> Sums:  # fmt: skip
        """The taps of some rows, neighbouring ones that meet inputs for the same lanes together."""
        inside, steps = self.k.inside, self.x_steps
        self.masks = {}
        columns = tuple(
            r * kind.line.step * steps[-2] + v * self.lanes
            for r in rows
            for v in range(segment.vectors)
        )
        i = 0
        for met, run in itertools.groupby(self._met(f, segment, span) for span in segment.spans):
            taps = len(list(run))
            first, i = i, i + taps
            if met is None:
                continue
            x = move(f, f.arg("x"), f.add(ox, line.at(0, first)), self.type)
            tap = (line.first + line.jump * first) * self.w_taps[-1]
            w = move(f, f.arg("w"), f.add(ow, tap), self.type)
            masks = met * len(rows) if any(m is not None for m in met) else ()
            tile = Registers(
                self.type, self.lanes, tuple(range(len(sums))), columns, self.lanes, masks
            )
            # Loops even where they are short: written out, LLVM loads all weights first.
            levels = [
                Level(taps, line.jump * self.w_taps[-1], line.delta),
                Level(inside, self.w_in, steps[0]),
            ]
            sums = contract(f, tile, w, x, levels, sums)
        return sums

    def _met(self, f: Function, segment: Segment, span: Range) -> tuple[Reg | None, ...] | None:
        """For each vector the lanes that a tap is added to (None: all that exist, or do not); None
        if there are none."""
        lo, hi = span
        if lo >= hi:
            return None
        masks: list[Reg | None] = []
        for v in range(segment.vectors):
            count = segment.last if v == segment.vectors - 1 else self.lanes
            start, stop = (min(max(end - v * self.lanes, 0), count) for end in (lo, hi))
            whole = (start, stop) == (0, count)
            masks.append(None if whole else self._mask(f, start, stop))
        return tuple(masks)

    def _mask(self, f: Function, start: int, stop: int) -> Reg:
        if (start, stop) not in self.masks:
            self.masks[start, stop] = mask_lanes(f, self.lanes, start, stop)
        return self.masks[start, stop]
