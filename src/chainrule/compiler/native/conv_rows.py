"""Convolution with few output channels: neighbouring outputs of a row in the lanes of a vector.

With channels in the lanes (`conv.Gather`) six of them would leave ten lanes of sixteen empty. Here
a tile is some output channels by some vectors of a row (of several rows, where they are short).
Each round loads the inputs under one tap, as vectors, and for each output channel one number of the
packed weight, repeated in all lanes: the same register tile with its operands changed over.

A unit's inputs are copied into scratch memory first, rows contiguous. Taps that lie outside the
image at some lanes are added at the others only.

    units: (image, band of rows)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.conv_finish import SPILL, Finished, ImageFinish
from chainrule.compiler.native.conv_plan import Axis, Line, axes_of
from chainrule.compiler.native.conv_rows_emit import Emitter
from chainrule.compiler.native.kernel import Buffers, strides_of
from chainrule.compiler.native.text import Module
from chainrule.graph import Shape

MOST = 15  # output channels of a group
GAIN = 1.25  # so much fuller than with channels in them must the lanes be
BAND = 1 << 16  # bytes of inputs that a unit copies at once, if it has more than a few rows
LARGEST = 1 << 20  # bytes that the copy of the fewest rows may take
UNIT_FLOPS = 200_000  # a unit is not cut below that
UNITS = 16  # ... nor where there are so many


def with_rows(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """At least two axes: a single one is a row of an image of one row."""
    if len(axes) > 1:
        return axes
    return (Axis((Line(0, 1, 1, 1, 0, 1, 0, 1, 1, 1),), 1, 1, 1), *axes)


def fullness(count: int, lanes: int) -> float:
    """The share of lanes that are not empty."""
    return count / (-(-count // lanes) * lanes)


def suits(op: Op, outside: int) -> bool:
    """Whether a `conv` or `conv_input` with so many output channels a group has fuller lanes so."""
    axes, lanes = with_rows(axes_of(op)), 64 // op.output.dtype.itemsize
    inner = axes[-1]
    if outside > MOST or any(line.step != 1 for line in inner.lines):
        return False
    along = min(fullness(line.count, lanes) for line in inner.lines)
    if along < GAIN * fullness(outside, lanes):
        return False
    area = math.prod(a.size for a in axes[:-2]) * (axes[-1].size + 2 * lanes)
    channels = op.inputs[0].shape[1] + op.output.shape[1]
    return channels * area * op.output.dtype.itemsize * (axes[-2].kernel + 4) <= LARGEST


class Rows(Finished):
    """`conv` or `conv_input`, given the packed weight.

    Arguments:
        finish: what is done with finished tiles in place of storing them.
    """

    family = "conv"

    def __init__(self, op: Op, packed: Value, finish: ImageFinish | None = None):
        self.take(op, packed, finish)
        self.x, self.y = op.inputs[0], op.output
        self.axes = with_rows(axes_of(op))
        self.groups: int = op.params["groups"]
        self.inside = self.x.shape[1] // self.groups
        self.outside = self.y.shape[1] // self.groups
        images, item = self.x.shape[0], self.x.dtype.itemsize
        rows, inner = self.axes[-2], self.axes[-1]
        # Bands: small enough for the first-level cache, and enough of them for all threads.
        row = math.prod(a.size for a in self.axes[:-2]) * inner.size * self.x.shape[1] * item
        step = max(line.step / line.spacing for line in rows.lines)
        many = -(-rows.out // max(4, int(BAND / row / step)))
        wanted = -(-UNITS // images) if images < UNITS else 1
        work = op.primitive.flops(op.outputs, *op.inputs, **op.params)
        wanted = min(wanted, max(1, work // images // UNIT_FLOPS))
        self.parts = min(rows.out, max(many, wanted))
        self.units = images * self.parts
        self.bands = [
            (rows.out * p // self.parts, rows.out * (p + 1) // self.parts)
            for p in range(self.parts)
        ]
        self._lay_out()

    def _lay_out(self) -> None:
        """The copies in scratch memory: of a band of x, and of y unless its rows are contiguous.
        Rows have room for whole vectors, whatever the target."""
        *outer, rows, inner = self.axes
        item, lines = self.x.dtype.itemsize, inner.lines
        lanes = 64 // item
        ends = [(line, i) for line in lines for i in (0, line.taps - 1)]
        self.before = max(0, -min(line.at(0, i) for line, i in ends))
        reach = max(line.at(-(-line.count // lanes) * lanes - 1, i) for line, i in ends)
        met = [self._met(rows.lines, start, stop) for start, stop in self.bands]
        self.met = [(min(places), max(places) + 1) if places else (0, 0) for places in met]
        high = max(1, *(hi - lo for lo, hi in self.met))
        pitch = self.before + max(reach + 1, inner.size)
        shape = (self.x.shape[1], *(axis.size for axis in outer), high, pitch)
        self.x_steps = strides_of(shape)
        self.x_bytes = -(-math.prod(shape) * item // 64) * 64
        band = max(stop - start for start, stop in self.bands)
        wide = -(-inner.out // lanes) * lanes
        shape = (self.y.shape[1], *(axis.out for axis in outer), band, wide)
        self.y_steps = strides_of(shape)
        self.y_bytes = math.prod(shape) * item
        self.scratch = self.x_bytes + self.y_bytes + SPILL  # at most; see `Emitter`

    def _met(self, lines: tuple[Line, ...], start: int, stop: int) -> list[int]:
        """The first and last input rows that outputs start .. stop - 1 meet, line by line."""
        places = []
        for line in lines:
            for j in range(line.count):
                lo, hi = line.met(j)
                if start <= line.start + line.spacing * j < stop and lo < hi:
                    places += [line.at(j, lo), line.at(j, hi - 1)]
        return places

    def runs_along(self, strides: Sequence[int], shape: Shape) -> bool:
        return strides[-1] == 1 or shape[-1] == 1

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        Emitter(self, module, name, buffers).emit()
