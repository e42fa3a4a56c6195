"""The adjoint of depthwise convolution in the weight, channels in the lanes.

    w[c, k] = sum over images and outputs p of x[n, c, s p + d k - lo] y[n, c, p]

For one row of outputs and one tap of the outer axes, the taps of the innermost axis are summed in
registers over the row, each in several sums so that no addition waits for the one before. Images
whose channels are not contiguous are first copied so that they are.

    units: block of images
"""

from __future__ import annotations

import itertools
import math

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.conv_copy import pack_image, packed, packed_bytes
from chainrule.compiler.native.conv_emit import (
    Keyed,
    far,
    flat,
    key_of,
    load_lanes,
    move,
    unravel,
)
from chainrule.compiler.native.conv_plan import Tile, forward, padded, pieces, tiles
from chainrule.compiler.native.conv_weight import UNITS, WeightTotal
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, Kernel
from chainrule.compiler.native.microkernel import prefetch
from chainrule.compiler.native.text import Function, Module, Reg, i64, type_of, vector
from chainrule.graph import Spec

WIDTH = 8  # outputs of a row that are written out
SUMS = 12  # registers for sums


class DepthwiseSums(Keyed):
    """Partial sums over blocks of images: (blocks, 1, *kernel, 1, channels)."""

    family = "conv_weight"

    def __init__(self, op: Op):
        self.op, self.ops = op, (op,)
        self.x, self.y = op.inputs
        self.key = key_of(op)
        self.channels, how = self.x.shape[1], op.params
        self.axes = tuple(
            forward(size, out, k, s, lo, d)
            for size, out, k, s, (lo, _), d in zip(
                self.x.shape[2:], self.y.shape[2:], how["kernel"], how["stride"], how["padding"],
                how["dilation"], strict=True,
            )
        )  # fmt: skip
        self.units = min(self.x.shape[0], UNITS)
        row = padded(self.channels, self.x.dtype.itemsize)
        shape = (self.units, 1, *how["kernel"], 1, row)
        self.sums = Value(Spec(shape, self.x.dtype), name="partial sums")
        self.reads, self.writes = (self.x, self.y), (self.sums,)
        self.room = [packed_bytes(v.shape, v.dtype.itemsize) for v in self.reads]
        self.scratch = sum(self.room)  # at most; see `_Emitter`

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        _Emitter(self, module, name, buffers).emit()


class _Emitter:
    def __init__(self, kernel: DepthwiseSums, module: Module, name: str, buffers: Buffers):
        self.k, self.module, self.name = kernel, module, name
        self.type, self.lanes = type_of(kernel.x.dtype), module.target.lanes(kernel.x.dtype)
        # The images as they lie, and as they are read.
        self.lying = [buffers[v] for v in kernel.reads]
        self.x, self.y = [b if b.strides[1] == 1 else packed(b) for b in self.lying]
        copied = [b.strides[1] != 1 for b in self.lying]
        kernel.scratch = kernel.room[0] * any(copied) + kernel.room[1] * copied[1]
        self.sums = buffers[kernel.sums]
        *self.outer, inner = [axis.lines[0] for axis in kernel.axes]
        self.inner = inner
        self.far = bool(self.outer) and far(kernel.reads)
        self.taps = self.sums.strides[2:-2]
        self.tail = kernel.channels - (math.ceil(kernel.channels / self.lanes) - 1) * self.lanes

    def emit(self) -> None:
        k = self.k
        whole = math.ceil(k.channels / self.lanes) - (self.tail < self.lanes)
        rows = [(self._row(self.lanes), 0, whole)] if whole else []
        if self.tail < self.lanes:
            rows.append((self._row(self.tail), whole, 1))
        f = Function(self.module, self.name, PARAMETERS)
        pointers, sums = [b.pointer(f) for b in self.lying], self.sums.pointer(f)
        n, size = k.x.shape[0], math.prod(self.sums.shape[1:])
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            into = move(f, sums, f.mul(unit.index, size), self.type)
            with f.loop(0, size, self.lanes, hint="clear") as i:
                f.store(f.zero(vector(self.type, self.lanes)), move(f, into, i.index, self.type))
            first = f.udiv(f.mul(unit.index, n), k.units)
            last = f.udiv(f.mul(f.add(unit.index, 1), n), k.units)
            with f.loop(first, last, hint="image") as image:
                x, y = self._images(f, pointers, image.index)
                self._image(f, x, y, into, rows)
        f.finish()

    def _images(self, f: Function, pointers: list[Reg], number: Reg) -> list[Reg]:
        """Pointers to one image of x and of y, copied where they must be."""
        result, room = [], f.arg("scratch")
        for lying, read, pointer, size in zip(
            self.lying, (self.x, self.y), pointers, self.k.room, strict=True
        ):
            image = move(f, pointer, f.mul(number, lying.strides[0]), self.type)
            if lying is not read:
                pack_image(f, lying, image, room)
                image = room
            result.append(image)
            room = move(f, room, size, "i8")
        return result

    def _image(self, f: Function, x: Reg, y: Reg, into: Reg, rows: list[tuple[str, int, int]]):
        outs = [line.count for line in self.outer]
        with f.loop(0, math.prod(outs), hint="row") as row:
            index = unravel(f, row.index, outs)
            y = move(f, y, flat(f, index, self.y.strides[2:-1]), self.type)
            self._taps(f, index, 0, x, y, into, rows)

    def _taps(self, f: Function, index: list[Reg], axis: int, x: Reg, y: Reg, into: Reg, rows):
        """Loops over the taps of the outer axes that meet an input."""
        if axis < len(self.outer):
            line = self.outer[axis]
            start = f.add(f.mul(index[axis], line.step), line.offset)
            with f.loop(0, line.taps, hint="tap") as tap:
                at = f.add(start, f.mul(tap.index, line.delta))
                inside = f.op("and", f.icmp("sge", at, i64(0)), f.icmp("slt", at, line.size))
                with f.when(inside):
                    there = move(f, x, f.mul(at, self.x.strides[2 + axis]), self.type)
                    w = move(f, into, f.mul(tap.index, self.taps[axis]), self.type)
                    self._taps(f, index, axis + 1, there, y, w, rows)
            return
        for function, start, count in rows:
            with f.loop(start, start + count, hint="channels") as block:
                c = f.mul(block.index, self.lanes)
                f.run(
                    function,
                    move(f, x, f.mul(c, self.x.strides[1]), self.type),
                    move(f, y, f.mul(c, self.y.strides[1]), self.type),
                    move(f, into, c, self.type),
                )

    def _row(self, count: int) -> str:
        """The function that adds one row of outputs, for `count` channels; its name."""
        name = f"{self.name}.row{count}"
        f = Function(self.module, name, "ptr noalias %x, ptr noalias %y, ptr noalias %w")
        for first, many in pieces(self.inner.taps, SUMS):
            phases = max(1, SUMS // many)
            zero = f.zero(vector(self.type, self.lanes))
            sums = [[zero] * phases for _ in range(many)]
            alike = itertools.groupby(tiles(self.inner, WIDTH), key=lambda t: (t.width, t.spans))
            for _, run in alike:
                same = list(run)
                carry = [s for row in sums for s in row]
                with f.loop(0, len(same), carry=carry, hint="tile") as loop:
                    j = f.add(f.mul(loop.index, same[0].width), same[0].start)
                    flatly = list(loop.carried)
                    inner = [flatly[i : i + phases] for i in range(0, len(flatly), phases)]
                    self._tile(f, same[0], j, first, inner, count)
                    loop.next = [s for row in inner for s in row]
                sums = [loop.results[i : i + phases] for i in range(0, len(carry), phases)]
            for i, parts in enumerate(sums):
                at = move(f, f.arg("w"), (first + i) * self.taps[-1], self.type)
                total = f.load(at, vector(self.type, self.lanes))
                for part in parts:
                    total = f.fadd(total, part)
                f.store(total, at)
        return f.finish()

    def _tile(self, f: Function, tile: Tile, j: Reg, first: int, sums: list[list[Reg]], count: int):
        """Some neighbouring outputs of a row: each input is loaded once."""
        xs, ys = self.x.strides[-1], self.y.strides[-1]
        x = move(f, f.arg("x"), f.mul(j, self.inner.step * xs), self.type)
        y = move(f, f.arg("y"), f.mul(j, ys), self.type)
        if first == 0 and self.far:  # a row ahead: memory is slower than so few multiplications
            for c in range(tile.width):
                prefetch(f, move(f, y, c * ys + self.y.strides[-2], self.type))
                if self.lying[0] is self.x:
                    ahead = self.k.axes[-2].kernel * self.x.strides[-2]
                    prefetch(f, move(f, x, c * self.inner.step * xs + ahead, self.type))
        uses: dict[int, list[tuple[int, int]]] = {}
        for c in range(tile.width):
            for i, (lo, hi) in enumerate(tile.spans[first : first + len(sums)]):
                if lo <= c < hi:
                    uses.setdefault(self.inner.at(c, first + i), []).append((c, i))
        outputs: dict[int, Reg] = {}
        for at, meetings in uses.items():
            value = self._load(f, move(f, x, at * xs, self.type), self.x.strides[1], count)
            for c, i in meetings:
                if c not in outputs:
                    here = move(f, y, c * ys, self.type)
                    outputs[c] = self._load(f, here, self.y.strides[1], count)
                phase = c % len(sums[i])
                sums[i][phase] = f.fma(value, outputs[c], sums[i][phase])

    def _load(self, f: Function, address: Reg, stride: int, count: int) -> Reg:
        return load_lanes(f, address, self.type, self.lanes, stride, count)


def depthwise_sums(op: Op) -> list[Kernel]:
    """The kernels of a depthwise `conv_weight`."""
    sums = DepthwiseSums(op)
    return [sums, WeightTotal(op, sums.sums, sums.channels)]
