"""Convolution and its adjoint in the input, as gathers over taps around the microkernel.

A tile is some neighbouring outputs of one row (of several images, where rows are short) by some
vectors of output channels. Its sums stay in registers while the loops run over the taps of the
kernel and the input channels: each round loads vectors of packed weights and for each output one
number of the input, repeated in all lanes. Depthwise convolutions have channels in the lanes of
both, and no loop over input channels. Images whose channels are not contiguous are copied.

    units: (block of images, part of the rows)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import conv_weight_rows
from chainrule.compiler.native.conv_copy import copy_image, packed, packed_bytes
from chainrule.compiler.native.conv_depthwise import depthwise_sums
from chainrule.compiler.native.conv_emit import (
    far,
    flat,
    load_lanes,
    move,
    store_lanes,
    unravel,
)
from chainrule.compiler.native.conv_finish import SPILL, Along, Finished, ImageFinish
from chainrule.compiler.native.conv_pack import PackWeights
from chainrule.compiler.native.conv_plan import Axis, Line, Tile, axes_of, collides, pieces, tiles
from chainrule.compiler.native.conv_rows import Rows, suits
from chainrule.compiler.native.conv_weight import partial_sums
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Buffers, Kernel
from chainrule.compiler.native.microkernel import Level, Sums, contract, literal_mask, prefetch
from chainrule.compiler.native.microkernel import Tile as Registers
from chainrule.compiler.native.text import Function, Module, Reg, i64, type_of
from chainrule.graph import Array, Shape

FEW = 4  # images of up to that many channels are read where they lie
NARROW = 8  # rows with fewer outputs than that are taken from several images at once
UNIT_FLOPS = 200_000  # a unit is not cut below that
NEARBY = 20_000  # bytes of weights that may stay in the first-level cache


class Bases(NamedTuple):
    """Pointers into input, weight and output; and the place there: image, channel, outer axes."""

    x: Reg
    w: Reg
    y: Reg
    image: Reg
    channel: Reg
    outer: tuple[Reg, ...] = ()


class Channels(NamedTuple):
    """`blocks` blocks of output channels alike, from channel `start`: vectors, and the lanes of the
    last that exist."""

    start: int
    blocks: int
    vectors: int
    last: int


def is_depthwise(weight: Value, groups: int) -> bool:
    """Whether each channel is convolved with a kernel of its own."""
    return groups > 1 and weight.shape[0] == groups and weight.shape[1] == 1


class Gather(Finished):
    """`conv` or `conv_input`, given the packed weight.

    Arguments:
        finish: what is done with finished tiles in place of storing them.
    """

    family = "conv"

    def __init__(self, op: Op, packed: Value, finish: ImageFinish | None = None):
        self.take(op, packed, finish)
        x, w = op.inputs
        self.x, self.y = x, op.output
        self.axes = axes_of(op)
        groups: int = op.params["groups"]
        self.depthwise = is_depthwise(w, groups)
        self.groups = 1 if self.depthwise else groups
        self.inside = 1 if self.depthwise else x.shape[1] // groups
        self.outside = self.y.shape[1] // self.groups
        n, rows = x.shape[0], math.prod(axis.out for axis in self.axes[:-1])
        self.together = _together(n, self.axes[-1])
        blocks = n // self.together
        work = op.primitive.flops(op.outputs, *op.inputs, **op.params)
        most = max(1, work // max(1, blocks) // UNIT_FLOPS)
        self.rows, self.parts = rows, min(rows, most, max(1, -(-32 // max(1, blocks))))
        self.units = blocks * self.parts
        # Copies of a unit's images, for those whose channels are not contiguous.
        self.copies = self.parts <= 2
        self.room = [packed_bytes(v.shape, v.dtype.itemsize) for v in (x, self.y)]
        # At most; see `_Emitter`.
        self.scratch = self.together * sum(self.room) * self.copies + SPILL

    def runs_along(self, strides: Sequence[int], shape: Shape) -> bool:
        return strides[1] == 1 or shape[1] == 1

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        _Emitter(self, module, name, buffers).emit()


def _together(n: int, axis: Axis) -> int:
    """How many images share a tile: a divisor of n, so that a tile has at least NARROW outputs."""
    width = max(line.count for line in axis.lines)
    fitting = [t for t in range(1, n + 1) if n % t == 0 and t * width <= 14]
    enough = [t for t in fitting if t * width >= NARROW]
    return min(enough) if enough else max(fitting, default=1)


class _Emitter:
    def __init__(self, kernel: Gather, module: Module, name: str, buffers: Buffers):
        self.kernel, self.module, self.name = kernel, module, name
        self.type = type_of(kernel.x.dtype)
        self.lanes = module.target.lanes(kernel.x.dtype)
        self.w = buffers[kernel.packed]
        # Images as they lie, and as they are read and written.
        self.finish = kernel.finish
        if self.finish is not None:
            self.finish.buffers = buffers
        self.lying = [buffers[kernel.x], buffers[kernel.writes[0]]]
        few = kernel.inside <= FEW and not kernel.depthwise
        # Planes that collide in the cache are worth a copy in any case.
        apart = kernel.units > kernel.parts and any(map(collides, self.lying))
        strided = [b.strides[1] != 1 and (kernel.copies or apart) for b in self.lying]
        self.copied = [strided[0] and not few, strided[1] and kernel.y.shape[1] > 1]
        self.copied[1] &= self.finish is None  # which writes to where its values lie
        room = kernel.room[0] * any(self.copied) + kernel.room[1] * self.copied[1]
        self.spill = kernel.together * room
        kernel.scratch = self.spill + SPILL * (self.finish is not None)
        if self.copied[1] or (apart and self.copied[0]):  # what is copied are whole images
            kernel.units, kernel.parts = kernel.units // kernel.parts, 1
        self.x, self.y = (
            packed(b) if copied else b for b, copied in zip(self.lying, self.copied, strict=True)
        )
        self.outer, self.inner = kernel.axes[:-1], kernel.axes[-1]
        self.written: dict[object, str] = {}
        # strides of the packed weight: group, taps, input channel
        self.w_group, *self.w_taps, self.w_in, _ = self.w.strides
        # Small weights stay in the first-level cache: then all channels of an output are computed
        # before the next output, so that images are read and written from front to back.
        self.nearby = kernel.depthwise or kernel.packed.nbytes // kernel.groups <= NEARBY
        self.accumulators, self.vectors = self._registers()

    def _registers(self) -> tuple[int, int]:
        """The accumulators of a tile, and its vectors of output channels."""
        target = self.module.target
        rows, vectors = target.tile
        if self.kernel.depthwise:
            return rows * vectors, 1
        once = all(axis.kernel == 1 for axis in self.kernel.axes)
        if once and self.nearby and target.registers >= 32 and self.kernel.outside > self.lanes * 3:
            return 24, 4  # little is computed for each output: better read the input only once
        return rows * vectors, vectors

    def emit(self) -> None:
        kernel, module = self.kernel, self.module
        tables = [self._table(number) for number in range(len(self.outer))]
        f = Function(module, self.name, PARAMETERS)
        images, outputs, w = (b.pointer(f) for b in (*self.lying, self.w))
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            block, part = f.udiv(unit.index, kernel.parts), f.urem(unit.index, kernel.parts)
            first = f.udiv(f.mul(part, kernel.rows), kernel.parts)
            last = f.udiv(f.mul(f.add(part, 1), kernel.rows), kernel.parts)
            image = f.mul(block, kernel.together)
            x, y = (
                move(f, pointer, f.mul(image, b.strides[0]), self.type)
                for pointer, b in zip((images, outputs), self.lying, strict=True)
            )
            scratch, lying_y = f.arg("scratch"), y
            if self.copied[0]:
                self._copy(f, (x, self.lying[0]), (scratch, self.x))
                x = scratch
            if self.copied[1]:
                y = move(f, scratch, kernel.together * kernel.room[0], "i8")
            with f.loop(0, kernel.groups, hint="group") as group:
                g = group.index
                channel = f.mul(g, kernel.outside)
                bases = Bases(
                    move(f, x, f.mul(g, kernel.inside * self.x.strides[1]), self.type),
                    move(f, w, f.mul(g, self.w_group), self.type),
                    move(f, y, f.mul(channel, self.y.strides[1]), self.type),
                    image, channel,
                )  # fmt: skip
                rows = first, last
                if self.nearby:
                    self._rows(f, bases, rows, tables, self._channels())
                for block in [] if self.nearby else self._channels():
                    with f.loop(0, block.blocks, hint="channels") as number:
                        there = self._block(f, bases, block, number.index)
                        self._rows(f, there, rows, tables, [block._replace(start=0, blocks=1)])
            if self.copied[1]:
                self._copy(f, (y, self.y), (lying_y, self.lying[1]))
        f.finish()

    def _copy(self, f: Function, source: tuple[Reg, Buffer], target: tuple[Reg, Buffer]) -> None:
        """Copy a unit's images."""
        (x, a), (y, b) = source, target
        with f.loop(0, self.kernel.together, hint="image") as n:
            copy_image(
                f, self.type, self.lanes, a.shape[1:],
                (move(f, x, f.mul(n.index, a.strides[0]), self.type), a.strides[1:]),
                (move(f, y, f.mul(n.index, b.strides[0]), self.type), b.strides[1:]),
            )  # fmt: skip

    def _channels(self) -> list[Channels]:
        outside, lanes = self.kernel.outside, self.lanes
        tail = outside - (math.ceil(outside / lanes) - 1) * lanes
        blocks = [
            (start * lanes, vectors, lanes)
            for start, vectors in pieces(math.ceil(outside / lanes), self.vectors)
        ]
        # A copy has room for whole vectors, unless another group's channels follow.
        room = self.copied[1] and self.kernel.groups == 1
        blocks[-1] = (*blocks[-1][:2], lanes if room and not self.kernel.depthwise else tail)
        alike = [(key, list(run)) for key, run in itertools.groupby(blocks, lambda b: b[1:])]
        return [Channels(run[0][0], len(run), *key) for key, run in alike]

    def _block(self, f: Function, bases: Bases, channels: Channels, number: Reg) -> Bases:
        """The pointers of block `number` of these."""
        o = f.add(f.mul(number, channels.vectors * self.lanes), channels.start)
        x, w, y, image, channel, outer = bases
        if self.kernel.depthwise:
            x = move(f, x, f.mul(o, self.x.strides[1]), self.type)
        w, y = move(f, w, o, self.type), move(f, y, f.mul(o, self.y.strides[1]), self.type)
        return Bases(x, w, y, image, f.add(channel, o), outer)

    def _table(self, number: int) -> Reg:
        """For each position of an outer axis: taps lo, hi, offset in the input and the weight."""
        axis = self.outer[number]
        entries: list[int] = []
        stride, tap = self.x.strides[2 + number], self.w_taps[number]
        for position in range(axis.out):
            line = axis.lines[position % len(axis.lines)]
            j = position // len(axis.lines)
            entries += [*line.met(j), line.at(j, 0) * stride, line.first * tap]
        return self.module.table(f"{self.name}.axis{number}", "i64", [str(e) for e in entries])

    def _rows(
        self, f: Function, bases: Bases, rows: tuple[Reg, Reg], tables: list[Reg],
        blocks: list[Channels],
    ) -> None:  # fmt: skip
        x, w, y, *_ = bases
        with f.loop(*rows, hint="row") as row:
            index = unravel(f, row.index, [axis.out for axis in self.outer])
            y = move(f, y, flat(f, index, self.y.strides[2:-1]), self.type)
            ranges: list[Reg] = []
            for table, i in zip(tables, index, strict=True):
                entry = f.at(table, f.mul(i, 4), "i64")
                lo, hi, ox, ow = (f.load(f.at(entry, k, "i64"), "i64") for k in range(4))
                x, w = move(f, x, ox, self.type), move(f, w, ow, self.type)
                ranges += [lo, hi]
            for line in self.inner.lines:
                here = bases._replace(x=x, w=w, y=y, outer=tuple(index))
                self._line(f, line, here, ranges, blocks)

    def _line(
        self, f: Function, line: Line, bases: Bases, ranges: list[Reg], blocks: list[Channels]
    ) -> None:
        """The outputs of one line of the innermost axis, tile by tile."""
        together = self.kernel.together
        most = max(1, self.accumulators // max(block.vectors for block in blocks))
        images = max(t for t in range(1, together + 1) if together % t == 0 and t <= most)
        widest = max(1, most // images) if images > 1 else most
        xw, yw = self.x.strides[-1], self.y.strides[-1]
        alike = itertools.groupby(tiles(line, widest), key=lambda t: (t.width, t.spans))
        for _, run in alike:
            tiled = list(run)
            first, shape = tiled[0], (together // images, len(tiled))
            with f.loop(0, math.prod(shape), hint="tile") as number:
                image, j = unravel(f, number.index, shape)
                image, j = f.mul(image, images), f.add(f.mul(j, first.width), first.start)
                at_x = f.add(f.mul(j, line.step * xw), f.mul(image, self.x.strides[0]))
                place = f.add(f.mul(j, line.spacing), line.start)
                at_y = f.add(f.mul(place, yw), f.mul(image, self.y.strides[0]))
                here = bases._replace(
                    x=move(f, bases.x, at_x, self.type), y=move(f, bases.y, at_y, self.type),
                    image=f.add(bases.image, image), outer=(*bases.outer, place),
                )  # fmt: skip
                for block in blocks:
                    function = self._tile(line, first, images, block.vectors, block.last)
                    with f.loop(0, block.blocks, hint="channels") as channel:
                        there = self._block(f, here, block, channel.index)
                        arguments = [*there[:3], *ranges]
                        if self.finish is not None:
                            spill = move(f, f.arg("scratch"), self.spill, "i8")
                            arguments += [f.arg("table"), spill, *there[3:5], *there.outer]
                        f.run(function, *arguments)

    def _tile(self, line: Line, tile: Tile, images: int, vectors: int, last: int) -> str:
        """The function that computes tiles like this one; its name."""
        key = (line, tile.width, tile.spans, images, vectors, last)
        if key in self.written:
            return self.written[key]
        name = self.written[key] = f"{self.name}.tile{len(self.written)}"
        bounds = [f"i64 %{end}{n}" for n in range(len(self.outer)) for end in ("lo", "hi")]
        head = ["ptr noalias %x", "ptr noalias %w", "ptr noalias %y", *bounds]
        head += [] if self.finish is None else self.finish.place
        f = Function(self.module, name, ", ".join(head))
        pixels = [(t, c) for t in range(images) for c in range(tile.width)]
        zero = f.zero(f"<{self.lanes} x {self.type}>" if self.lanes > 1 else self.type)
        sums: Sums = [[zero] * vectors for _ in pixels]
        finish, axes = self.finish, ()
        if finish is not None:
            axes = self._along(f, images, tile.width, line.spacing)
            finish.ahead(f, finish.channel, axes, self.lanes, vectors)
        if self.kernel.depthwise and self.outer and far((self.kernel.x, self.kernel.y)):
            self._ahead(f, line, pixels)
        sums = self._taps(f, line, tile, pixels, sums, 0, i64(0), i64(0), last)
        if finish is not None:
            masks = {} if last == self.lanes else {vectors - 1: literal_mask(self.lanes, last)}
            finish.tile(f, finish.channel, axes, sums, masks)
            return f.finish()
        for (t, c), row in zip(pixels, sums, strict=True):
            for v, value in enumerate(row):
                at = t * self.y.strides[0] + c * line.spacing * self.y.strides[-1]
                at += v * self.lanes * self.y.strides[1]
                count = last if v == vectors - 1 else self.lanes
                address = move(f, f.arg("y"), at, self.type)
                store_lanes(f, value, address, self.type, self.y.strides[1], count)
        f.finish()
        return name

    def _ahead(self, f: Function, line: Line, pixels: list[tuple[int, int]]) -> None:
        """Ask for what the next row reads and writes: memory is slower than so few
        multiplications."""
        for t, c in pixels:
            if self.finish is None and self.y.strides[1] == 1:
                at = t * self.y.strides[0] + c * line.spacing * self.y.strides[-1]
                prefetch(f, move(f, f.arg("y"), at + self.y.strides[-2], self.type))
            if not self.copied[0]:
                at = t * self.x.strides[0] + c * line.step * self.x.strides[-1]
                at += self.outer[-1].kernel * self.x.strides[-2]
                prefetch(f, move(f, f.arg("x"), at, self.type))

    def _along(self, f: Function, images: int, width: int, spacing: int) -> tuple[Along, ...]:
        """The axes of a tile behind which something is fused."""
        assert self.finish is not None
        return (
            Along(self.finish.image, f.arg("image"), images, 1),
            Along(self.finish.spatial[-1], self.finish.at(f, -1), width, spacing),
        )

    def _taps(self, f, line, tile, pixels, sums: Sums, axis: int, ox, ow, last) -> Sums:
        """Loops over the taps of the outer axes, then the innermost axis' taps one by one."""
        if axis < len(self.outer):
            shape = self.outer[axis].lines[0]
            if (
                shape.taps == 1
                and self.outer[axis].kernel == 1
                and len(self.outer[axis].lines) == 1
            ):
                met = {shape.met(j) for j in range(shape.count)}
                if met == {(0, 1)}:
                    return self._taps(f, line, tile, pixels, sums, axis + 1, ox, ow, last)
            width = len(sums[0])
            carry = [x for row in sums for x in row]
            lo, hi = f.arg(f"lo{axis}"), f.arg(f"hi{axis}")
            with f.loop(lo, hi, carry=carry, hint="tap") as tap:
                inner = [tap.carried[i : i + width] for i in range(0, len(carry), width)]
                step = self.outer[axis].lines[0]
                ox = f.add(ox, f.mul(tap.index, step.delta * self.x.strides[2 + axis]))
                ow = f.add(ow, f.mul(tap.index, step.jump * self.w_taps[axis]))
                inner = self._taps(f, line, tile, pixels, inner, axis + 1, ox, ow, last)
                tap.next = [x for row in inner for x in row]
            return [tap.results[i : i + width] for i in range(0, len(carry), width)]
        if self.kernel.depthwise:
            return self._depthwise(f, line, tile, pixels, sums, ox, ow, last)
        sums, i = list(sums), 0
        for (lo, hi), run in itertools.groupby(tile.spans):
            taps = len(list(run))
            met = [p for p, (_, c) in enumerate(pixels) if lo <= c < hi]
            if met:
                self._run(f, line, (i, taps), pixels, met, sums, ox, ow)
            i += taps
        return sums

    def _run(self, f, line: Line, run: tuple[int, int], pixels, met, sums: Sums, ox, ow) -> None:
        """Neighbouring taps of the innermost axis, `run` = (first, how many), which meet inputs for
        the same outputs, and all input channels."""
        first, taps = run
        x = move(f, f.arg("x"), f.add(ox, line.at(0, first) * self.x.strides[-1]), self.type)
        tap = (line.first + line.jump * first) * self.w_taps[-1]
        w = move(f, f.arg("w"), f.add(ow, tap), self.type)
        offsets = [
            pixels[p][0] * self.x.strides[0] + pixels[p][1] * line.step * self.x.strides[-1]
            for p in met
        ]
        columns = tuple(v * self.lanes for v in range(len(sums[0])))
        block = Registers(self.type, self.lanes, tuple(offsets), columns, self.lanes)
        some: Sums = [sums[p] for p in met]
        inside, x_in, w_in = self.kernel.inside, self.x.strides[1], self.w_in
        x_tap, w_tap = line.delta * self.x.strides[-1], line.jump * self.w_taps[-1]
        if (x_tap, w_tap) == (inside * x_in, inside * w_in):
            taps, inside = 1, taps * inside
        # Loops even where they are short: written out, LLVM loads all weights first, and spills.
        levels = [Level(taps, x_tap, w_tap), Level(inside, x_in, w_in)]
        some = contract(f, block, x, w, levels, some)
        for p, row in zip(met, some, strict=True):
            sums[p] = row

    def _depthwise(self, f, line: Line, tile: Tile, pixels, sums: Sums, ox, ow, last) -> Sums:
        """All taps of the innermost axis of a depthwise convolution: each input is loaded once."""
        stride = self.x.strides[1]
        uses: dict[int, list[tuple[int, int]]] = {}
        for p, (t, c) in enumerate(pixels):
            for i, (lo, hi) in enumerate(tile.spans):
                if lo <= c < hi:
                    at = t * self.x.strides[0] + line.at(c, i) * self.x.strides[-1]
                    uses.setdefault(at, []).append((p, i))
        weights = []
        for i in range(line.taps):
            tap = (line.first + line.jump * i) * self.w_taps[-1]
            w = move(f, f.arg("w"), f.add(ow, tap), self.type)
            weights.append(load_lanes(f, w, self.type, self.lanes))
        x = move(f, f.arg("x"), ox, self.type)
        sums = [list(row) for row in sums]
        for at, meetings in uses.items():
            here = move(f, x, at, self.type)
            value = load_lanes(f, here, self.type, self.lanes, stride, last)
            for p, i in meetings:
                sums[p][0] = f.fma(value, weights[i], sums[p][0])
        return sums


def gather(op: Op, finish: ImageFinish | None = None) -> list[Kernel]:
    """The kernels of a `conv` or `conv_input`: weights packed, then the product, and what is done
    with its result."""
    groups, weight = op.params["groups"], op.inputs[1]
    depthwise = is_depthwise(weight, groups)
    pack = PackWeights(weight, groups, op.name == "conv_input", depthwise)
    along = not depthwise and suits(op, op.output.shape[1] // groups)
    return [pack, (Rows if along else Gather)(op, pack.packed, finish)]


def supports(op: Op) -> bool:
    """Whether `kernels` can make an operation: any convolution of values that are not empty."""
    return op.name in ("conv", "conv_input", "conv_weight") and all(
        value.size and value.dtype.name in ("float32", "float64")
        for value in (*op.inputs, *op.outputs)
    )


def takes(first: Op, op: Op) -> bool:
    """Whether arithmetic can be done on the result of a convolution before it is written."""
    if first.name not in ("conv", "conv_input") or op.output.shape != first.output.shape:
        return False
    # Outputs some places apart are no vectors, where rows run over lanes.
    spaced = any(line.spacing > 1 for line in axes_of(first)[-1].lines)
    groups: int = first.params["groups"]
    if not spaced or is_depthwise(first.inputs[1], groups):
        return True
    return not suits(first, first.output.shape[1] // groups)


def lower(
    op: Op, ops: Sequence[Op], outputs: Sequence[Value], constants: Mapping[Value, Array]
) -> list[Kernel]:
    """The kernels of a convolution and what is fused with it.

    Arguments:
        ops: the convolution and operations on its result, in order.
        outputs: the values that others read.
    """
    if list(outputs) == [op.output]:
        return kernels(op)
    return gather(op, ImageFinish(op, ops, outputs, constants))


def kernels(op: Op) -> list[Kernel]:
    """The kernels of a convolution in any of its three directions, in their order. What they write
    for each other are temporary values, which lie row-major."""
    if op.name == "conv_weight":
        if is_depthwise(op.output, op.params["groups"]):
            return depthwise_sums(op)
        return partial_sums(op, conv_weight_rows.suits(op))
    return gather(op)
