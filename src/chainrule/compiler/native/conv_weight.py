"""The adjoint of convolution in the weight: partial sums over blocks of images, then their sum.

    w[o, c, k] = sum over images and outputs p of x[n, c, s p + d k - lo] y[n, o, p]

A tile is some rows (taps and input channels) by some vectors of output channels of the packed
weight (groups, *kernel, in, out); its sums stay in registers while the loops run over the outputs
of an image: each round loads vectors of y and for each row one number of x. With many input
channels a tile has one tap, whose outputs outside the image are left out; with few it has several
taps, and x is first copied with zeros around it. Where y's channels are not contiguous it is copied
too, an image at a time.

    units: (block of images, group, block of output channels); then (row of the weight)
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.conv_copy import copy_image
from chainrule.compiler.native.conv_emit import (
    Keyed,
    flat,
    key_of,
    load_lanes,
    move,
    store_lanes,
    unravel,
)
from chainrule.compiler.native.conv_pack import together
from chainrule.compiler.native.conv_plan import Line, forward, padded, pieces
from chainrule.compiler.native.conv_weight_rows import RowSums
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, Kernel, strides_of
from chainrule.compiler.native.microkernel import Level, contract, read, write
from chainrule.compiler.native.microkernel import Tile as Registers
from chainrule.compiler.native.text import Function, Module, Reg, i64, type_of
from chainrule.graph import Spec

FEW = 8  # with fewer input channels tiles take several taps
SPLIT = 64  # output channels of a unit
BLOCK = 36_000  # bytes of x and y that tiles read again and again
SHORTEST = 48  # outputs that a tile goes over at least, before it is put away
UNITS = 16  # enough for any number of threads that helps
ROW = 160  # elements of a row of the weight that a unit writes at most, if it can have so many
PARTIAL_BYTES = 1 << 21  # of all partial sums together, unless those needed are more


class Image(NamedTuple):
    """Where an image's numbers lie: a pointer, and strides for channels and spatial axes."""

    pointer: Reg
    channel: int
    spatial: tuple[int, ...]


class Run(NamedTuple):
    """Tiles alike, one after another.

    Attributes:
        start: the first row of the weight.
        tiles: how many.
        offsets: where the numbers of a tile's rows lie in x, from where on (`at`).
        tap: the tap that they all have; None if they have several.
    """

    start: int
    tiles: int
    offsets: tuple[int, ...]
    at: int
    tap: tuple[int, ...] | None


class WeightSums(Keyed):
    """Partial sums, each over a block of images: (blocks, groups, *kernel, in, out)."""

    family = "conv_weight"

    def __init__(self, op: Op):
        x, y = op.inputs
        self.op, self.x, self.y, self.ops = op, x, y, (op,)
        self.key = key_of(op)
        self.groups: int = op.params["groups"]
        self.inside, self.outside = x.shape[1] // self.groups, y.shape[1] // self.groups
        self.kernel: tuple[int, ...] = tuple(op.params["kernel"])
        row = padded(self.outside, x.dtype.itemsize)
        self.row = row
        self.split = -(-self.outside // SPLIT)
        shape = (self.groups, *self.kernel, self.inside, row)
        nbytes = math.prod(shape) * x.dtype.itemsize
        how = op.params
        self.lines: list[Line] = [
            forward(size, out, k, s, lo, d).lines[0]
            for size, out, k, s, (lo, _), d in zip(
                x.shape[2:], y.shape[2:], self.kernel, how["stride"], how["padding"],
                how["dilation"], strict=True,
            )
        ]  # fmt: skip
        # Blocks are cut between images; with few of these, within them.
        wanted = -(-UNITS // (self.split * self.groups))
        cuts = -(-self.lines[0].count // self.rows_at_once)
        self.pieces = cuts if x.shape[0] < wanted else 1
        enough = self.split * self.groups >= UNITS // 2
        most = max(1 if enough else 2, PARTIAL_BYTES // nbytes)
        self.blocks = max(1, min(x.shape[0] * self.pieces, wanted, most))
        self.sums = Value(Spec((self.blocks, *shape), x.dtype), name="partial sums")
        self.reads, self.writes = (x, y), (self.sums,)
        self.units = self.blocks * self.groups * self.split
        self.few = self.inside < FEW
        # The room for copies: x with zeros around it, y with its channels contiguous.
        self.around = [
            (max(0, -line.at(0, 0)), max(0, line.at(line.count - 1, k - 1) + 1 - line.size))
            for line, k in zip(self.lines, self.kernel, strict=True)
        ]
        self.room = tuple(
            line.size + lo + hi for line, (lo, hi) in zip(self.lines, self.around, strict=True)
        )
        self.halo = self.few and any(lo or hi for lo, hi in self.around)
        item = x.dtype.itemsize
        room = self.room if self.halo else x.shape[2:]
        self.x_bytes = -(-self.inside * math.prod(room) * item // 64) * 64
        self.width = padded(min(SPLIT, self.outside), item)
        self.y_bytes = math.prod(y.shape[2:]) * self.width * item
        self.scratch = self.x_bytes + self.y_bytes  # at most; see `_Emitter`

    @property
    def rows_at_once(self) -> int:
        """How many places of the first spatial axis are taken at once: with all their channels they
        should stay in the first-level cache, since every tile reads them again; but not so few that
        tiles are hardly begun."""
        first, *others = self.lines
        area = math.prod(line.count for line in others)
        each = area * (min(SPLIT, self.outside) + self.inside * first.step)
        rows = max(BLOCK // (each * self.x.dtype.itemsize), -(-SHORTEST // area), 1)
        return min(first.count, rows)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        _Emitter(self, module, name, buffers).emit()


class _Emitter:
    def __init__(self, kernel: WeightSums, module: Module, name: str, buffers: Buffers):
        self.k, self.module, self.name = kernel, module, name
        self.type, self.lanes = type_of(kernel.x.dtype), module.target.lanes(kernel.x.dtype)
        self.x, self.y, self.sums = (buffers[v] for v in (kernel.x, kernel.y, kernel.sums))
        self.copies_y = self.y.strides[1] != 1 or kernel.outside % self.lanes != 0
        self.copies_x = not kernel.few and self.x.strides[1] != 1
        self.x_bytes = kernel.x_bytes if kernel.halo or self.copies_x else 0
        kernel.scratch = self.x_bytes + kernel.y_bytes * self.copies_y
        self.written: dict[object, str] = {}

    def emit(self) -> None:
        k, n = self.k, self.k.x.shape[0]
        f = Function(self.module, self.name, PARAMETERS)
        x, y, sums = (b.pointer(f) for b in (self.x, self.y, self.sums))
        if k.halo:
            self._clear(f, f.arg("scratch"), self.x_bytes // k.x.dtype.itemsize)
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            block, group, part = unravel(f, unit.index, (k.blocks, k.groups, k.split))
            first = f.udiv(f.mul(block, n * k.pieces), k.blocks)
            last = f.udiv(f.mul(f.add(block, 1), n * k.pieces), k.blocks)
            into = f.add(f.mul(block, self.sums.strides[0]), f.mul(group, self.sums.strides[1]))
            into = move(f, sums, f.add(into, f.mul(part, SPLIT)), self.type)
            xg = move(f, x, f.mul(group, k.inside * self.x.strides[1]), self.type)
            yg = f.mul(f.add(f.mul(group, k.outside), f.mul(part, SPLIT)), self.y.strides[1])
            yg = move(f, y, yg, self.type)
            for number in range(k.split):
                wide = min(SPLIT, k.outside - number * SPLIT)
                if number and wide == SPLIT:
                    continue  # as the first
                alike = f.icmp("eq", part, number)
                if wide == SPLIT:
                    alike = f.icmp("slt", part, k.outside // SPLIT)
                with f.when(alike):
                    self._unit(f, xg, yg, into, first, last, wide)
        f.finish()

    def _clear(self, f: Function, at: Reg, count: int) -> None:
        with f.loop(0, count // self.lanes * self.lanes, self.lanes) as i:
            f.store(self._zero(f), move(f, at, i.index, self.type))
        for rest in range(count // self.lanes * self.lanes, count):
            f.store(f.zero(self.type), move(f, at, rest, self.type))

    def _zero(self, f: Function) -> Reg:
        return f.zero(f"<{self.lanes} x {self.type}>" if self.lanes > 1 else self.type)

    def _unit(self, f, x: Reg, y: Reg, into: Reg, first: Reg, last: Reg, wide: int) -> None:
        """One block of images, pieces first .. last, into one block of `wide` output channels."""
        k = self.k
        rows = math.prod(k.kernel) * k.inside
        with f.loop(0, rows, hint="clear") as row:
            at = move(f, into, f.mul(row.index, k.row), self.type)
            self._clear(f, at, -(-wide // self.lanes) * self.lanes)
        images = f.udiv(first, k.pieces), f.udiv(f.add(last, k.pieces - 1), k.pieces)
        with f.loop(*images, hint="image") as image:
            xn = move(f, x, f.mul(image.index, self.x.strides[0]), self.type)
            yn = move(f, y, f.mul(image.index, self.y.strides[0]), self.type)
            source = Image(xn, self.x.strides[1], self.x.strides[2:])
            grads = Image(yn, self.y.strides[1], self.y.strides[2:])
            if k.halo:
                source = self._around(f, source)
            elif self.copies_x:
                source = self._copy_x(f, source)
            if self.copies_y:
                grads = self._copy_y(f, grads, wide)
            count, step = k.lines[0].count, k.rows_at_once
            begin, end = i64(0), i64(count)
            if k.pieces > 1:
                start = f.mul(image.index, k.pieces)
                begin = f.mul(f.smax(f.sub(first, start), 0), step)
                end = f.smin(f.mul(f.sub(last, start), step), count)
            with f.loop(begin, end, step, hint="block") as block:
                rows = block.index, f.smin(f.add(block.index, step), count)
                ahead = self._ahead(f, source, grads, rows[1])
                for vectors in self._vectors(wide):
                    self._tiles(f, source, grads, into, rows, *vectors, ahead)

    def _ahead(self, f: Function, x: Image, y: Image, row: Reg) -> list[tuple[Reg, int]]:
        """What the next block will read, where that is one run of memory: (address, bytes). With
        more taps there is so much to do for each number that it arrives in time by itself."""
        k, result = self.k, []
        if math.prod(k.kernel) > 1 or any(line.step > 1 for line in k.lines):
            return result
        for image, lying in ((x, self.x), (y, self.y)):
            if image.spatial == lying.strides[2:] and lying.strides[1] == 1:
                nbytes = k.rows_at_once * image.spatial[0] * k.x.dtype.itemsize
                at = move(f, image.pointer, f.mul(row, image.spatial[0]), self.type)
                result.append((at, nbytes))
        return result

    def _prefetch(self, f: Function, ahead: list[tuple[Reg, int]], part: int, parts: int) -> None:
        """Ask for a part of the next block while this one is computed."""
        for at, nbytes in ahead:
            lines = -(-nbytes // 64)
            first, last = lines * part // parts, lines * (part + 1) // parts
            with f.loop(first, last, hint="ahead") as line:
                address = move(f, at, f.mul(line.index, 64), "i8")
                f.module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
                f.do(f"call void @llvm.prefetch.p0({address}, i32 0, i32 3, i32 1)")

    def _vectors(self, wide: int) -> list[tuple[int, int]]:
        """(first channel, vectors) of the blocks of output channels."""
        most = self.module.target.tile[1]
        return [(at * self.lanes, v) for at, v in pieces(-(-wide // self.lanes), most)]

    def _around(self, f: Function, source: Image) -> Image:
        """x copied into the scratch, zeros around it."""
        k = self.k
        strides = strides_of((k.inside, *k.room))
        inside = sum(lo * s for (lo, _), s in zip(k.around, strides[1:], strict=True))
        at = move(f, f.arg("scratch"), inside, self.type)
        shape = (k.inside, *k.x.shape[2:])
        copy_image(
            f, self.type, self.lanes, shape,
            (source.pointer, (source.channel, *source.spatial)), (at, strides),
        )  # fmt: skip
        return Image(at, strides[0], strides[1:])

    def _copy_x(self, f: Function, source: Image) -> Image:
        """A group's channels of x copied into the scratch, contiguous."""
        k, spatial = self.k, self.k.x.shape[2:]
        at, steps = f.arg("scratch"), tuple(s * k.inside for s in strides_of(spatial))
        copy_image(
            f, self.type, self.lanes, (k.inside, *spatial),
            (source.pointer, (source.channel, *source.spatial)), (at, (1, *steps)),
        )  # fmt: skip
        return Image(at, 1, steps)

    def _copy_y(self, f: Function, grads: Image, wide: int) -> Image:
        """y copied into the scratch, channels contiguous up to a whole vector."""
        k = self.k
        spatial = k.y.shape[2:]
        at = move(f, f.arg("scratch"), self.x_bytes // k.x.dtype.itemsize, self.type)
        steps = tuple(s * k.width for s in strides_of(spatial))
        whole = -(-wide // self.lanes) * self.lanes
        if whole > wide:
            with f.loop(0, math.prod(spatial), hint="zeros") as p:
                tail = move(f, at, f.add(f.mul(p.index, k.width), whole - self.lanes), self.type)
                f.store(self._zero(f), tail)
        copy_image(
            f, self.type, self.lanes, (wide, *spatial),
            (grads.pointer, (grads.channel, *grads.spatial)), (at, (1, *steps)),
        )  # fmt: skip
        return Image(at, 1, steps)

    def _tiles(
        self, f: Function, x: Image, y: Image, into: Reg, rows: tuple[Reg, Reg], channel: int,
        vectors: int, ahead: list[tuple[Reg, int]],
    ) -> None:  # fmt: skip
        """Add some places of the first spatial axis to all tiles of some output channels."""
        k = self.k
        high, wide = self.module.target.tile
        most = high * wide // vectors
        y_at = move(f, y.pointer, channel, self.type)
        into = move(f, into, channel, self.type)
        first, *others = k.lines
        runs = self._runs(x, most)
        number, blocks = channel // (vectors * self.lanes), len(self._vectors(k.outside))
        for n, run in enumerate(runs):
            self._prefetch(f, ahead, number * len(runs) + n, blocks * len(runs))
            lo, hi = rows
            spans = [(0, line.count) for line in others]
            if run.tap is not None:
                met = first.outputs(run.tap[0])
                lo, hi = f.smax(lo, met[0]), f.smin(hi, met[1])
                spans = [line.outputs(i) for line, i in zip(others, run.tap[1:], strict=True)]
                if met[0] == met[1] or any(a == b for a, b in spans):
                    continue
            ox, oy = f.mul(lo, first.step * x.spatial[0]), f.mul(lo, y.spatial[0])
            for line, (a, _), sx, sy in zip(
                others, spans, x.spatial[1:], y.spatial[1:], strict=True
            ):
                ox, oy = f.add(ox, line.step * a * sx), f.add(oy, a * sy)
            function, high = self._tile(run.offsets, vectors, x, y), len(run.offsets)
            with f.loop(0, run.tiles, hint="tile") as tile:
                start = f.mul(tile.index, high)
                f.run(
                    function,
                    move(
                        f, x.pointer, f.add(f.add(ox, run.at), f.mul(start, x.channel)), self.type
                    ),
                    move(f, y_at, oy, self.type),
                    move(f, into, f.mul(f.add(start, run.start), k.row), self.type),
                    f.sub(hi, lo),
                    *(_literal(b - a) for a, b in spans),
                )

    def _runs(self, x: Image, most: int) -> list[Run]:
        """The tiles of the weight."""
        k, result = self.k, []
        taps = list(itertools.product(*map(range, k.kernel)))
        if k.few:
            everything = [
                self._offset(x, tap) + c * x.channel for tap in taps for c in range(k.inside)
            ]
            return [
                Run(start, 1, tuple(everything[start : start + many]), 0, None)
                for start, many in pieces(len(everything), most)
            ]
        for number, tap in enumerate(taps):
            for many, alike in itertools.groupby(pieces(k.inside, most), key=lambda p: p[1]):
                tiles = list(alike)
                start, at = tiles[0][0], self._offset(x, tap) + tiles[0][0] * x.channel
                offsets = tuple(c * x.channel for c in range(many))
                result.append(Run(number * k.inside + start, len(tiles), offsets, at, tap))
        return result

    def _offset(self, x: Image, tap: tuple[int, ...]) -> int:
        return sum(
            line.at(0, i) * s for line, i, s in zip(self.k.lines, tap, x.spatial, strict=True)
        )

    def _tile(self, offsets: tuple[int, ...], vectors: int, x: Image, y: Image) -> str:
        """The function that adds one image to a tile; its name."""
        key = (offsets, vectors, x.spatial, y.spatial)
        if key in self.written:
            return self.written[key]
        name = self.written[key] = f"{self.name}.tile{len(self.written)}"
        counts = [f"i64 %n{axis}" for axis in range(len(self.k.lines))]
        f = Function(
            self.module, name,
            ", ".join(["ptr noalias %x", "ptr noalias %y", "ptr noalias %w", *counts]),
        )  # fmt: skip
        columns = tuple(v * self.lanes for v in range(vectors))
        tile = Registers(self.type, self.lanes, offsets, columns, self.lanes)
        sums = read(f, tile, f.arg("w"), self.k.row)
        levels = [
            Level(1 if line.count == 1 else f.arg(f"n{axis}"), line.step * sx, sy)
            for axis, (line, sx, sy) in enumerate(
                zip(self.k.lines, x.spatial, y.spatial, strict=True)
            )
        ]
        sums = contract(f, tile, f.arg("x"), f.arg("y"), levels, sums)
        write(f, tile, sums, f.arg("w"), self.k.row)
        f.finish()
        return name


def _literal(n: int) -> Reg:
    return Reg(str(n), "i64")


class WeightTotal(Keyed):
    """The sum of the partial sums, in the order of the blocks, as the weight lies.

    units: some input channels of a group
    """

    family = "conv_weight_total"

    def __init__(self, op: Op, sums: Value, outside: int):
        self.op, self.sums, self.ops = op, sums, ()
        self.reads, self.writes = (sums,), (op.output,)
        self.key = self.outside = outside
        _, groups, *taps, inside, row = sums.shape
        self.block = _together(groups, inside, math.prod(taps))
        self.units = groups * (inside // self.block)
        self.scratch = self.block * math.prod(taps) * row * sums.dtype.itemsize

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        dw, sums = buffers[self.op.output], buffers[self.sums]
        type, lanes = type_of(self.sums.dtype), module.target.lanes(self.sums.dtype)
        source, target = sums.pointer(f), dw.pointer(f)
        o, c, *taps = dw.strides
        _, _, *kernel, inside, row = self.sums.shape
        shape = (self.block, *kernel, row)
        steps = strides_of(shape)
        with f.loop(f.arg("lo"), f.arg("hi"), hint="block") as unit:
            blocks = inside // self.block
            group, n = f.udiv(unit.index, blocks), f.urem(unit.index, blocks)
            n = f.mul(n, self.block)
            at = f.add(f.mul(group, sums.strides[1]), f.mul(n, row))
            with f.loop(0, math.prod(shape[:-1]), hint="row") as rows:
                number = unravel(f, rows.index, shape[:-1])
                x = move(f, source, at, type)
                x = move(f, x, flat(f, number, (row, *sums.strides[2:-2])), type)
                y = move(f, f.arg("scratch"), f.mul(rows.index, row), type)
                for start in range(0, self.outside, lanes):
                    self._total(f, move(f, x, start, type), move(f, y, start, type), type, lanes)
            into = f.add(f.mul(group, self.outside * o), f.mul(n, c))
            copy_image(
                f, type, lanes, (*shape[:-1], self.outside), (f.arg("scratch"), steps),
                (move(f, target, into, type), (c, *taps, o)),
            )  # fmt: skip
        f.finish()

    def _total(self, f: Function, x: Reg, y: Reg, type: str, lanes: int) -> None:
        """The sum of one vector over the blocks."""
        blocks, *rest = self.sums.shape
        total = load_lanes(f, x, type, lanes)
        with f.loop(1, blocks, carry=[total], hint="sum") as block:
            more = move(f, x, f.mul(block.index, math.prod(rest)), type)
            block.next = [f.fadd(block.carried[0], load_lanes(f, more, type, lanes))]
        store_lanes(f, block.results[0], y, type)


def _together(groups: int, inside: int, taps: int) -> int:
    """How many input channels a unit takes: the rows of a large weight, of which each lies in
    another page, should be long, but there should be enough units."""
    least = together(inside, taps)
    longer = [
        n for n in range(least, inside + 1)
        if inside % n == 0 and n * taps <= ROW and groups * (inside // n) >= UNITS
    ]  # fmt: skip
    return max(longer, default=least)


def partial_sums(op: Op, along: bool = False) -> list[Kernel]:
    """The kernels of a `conv_weight`.

    Arguments:
        along: whether rows run over lanes, not output channels.
    """
    sums = RowSums(op) if along else WeightSums(op)
    return [sums, WeightTotal(op, sums.sums, sums.outside)]
