"""The geometry of a convolution: which inputs meet which outputs under which taps, axis by axis.

Forward convolution and its adjoint in the input are one computation here, a gather: every output
position sums over taps of the kernel what lies at some input position. Along an axis with stride s,
dilation d and padding lo,

    forward   y[j]       takes  x[s j + d k - lo]              under tap k
    adjoint   x[s j + r] takes  y[j + (r + lo - d k) / s]      under the taps k for which s divides

so an axis falls into `Line`s: one going forward, one for each residue r in the adjoint. Taps that
reach outside the input are left out, not multiplied by zeros: padding costs nothing, and an
infinite weight never meets a zero that is not there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.kernel import Buffer, strides_of
from chainrule.compiler.native.microkernel import cut
from chainrule.graph import Shape

Range = tuple[int, int]


@dataclass(frozen=True)
class Line:
    """Outputs `start + spacing j` for j < count, each the sum over i < taps of

    input `step j + offset + delta i` times the kernel's tap `first + jump i`.
    """

    start: int
    spacing: int
    count: int
    step: int
    offset: int
    delta: int
    first: int
    jump: int
    taps: int
    size: int  # of the input axis

    def met(self, j: int) -> Range:
        """The taps i (lo <= i < hi) that find an input at output j."""
        inside = [i for i in range(self.taps) if 0 <= self.at(j, i) < self.size]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)

    def at(self, j: int, i: int) -> int:
        """The input position of output j under tap i."""
        return self.step * j + self.offset + self.delta * i

    def outputs(self, i: int) -> Range:
        """The outputs j (lo <= j < hi) that find an input under tap i."""
        lo = -(self.offset + self.delta * i)
        hi = self.size - 1 - (self.offset + self.delta * i)
        first, last = max(0, -(-lo // self.step)), min(self.count - 1, hi // self.step)
        return (first, last + 1) if first <= last else (0, 0)


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a gather: its lines, and the extents of output and input."""

    lines: tuple[Line, ...]
    out: int
    size: int
    kernel: int


def forward(size: int, out: int, k: int, s: int, lo: int, d: int) -> Axis:
    """An axis of `conv`."""
    return Axis((Line(0, 1, out, s, -lo, d, 0, 1, k, size),), out, size, k)


def adjoint(size: int, out: int, k: int, s: int, lo: int, d: int) -> Axis:
    """An axis of `conv_input`: from `size` (the axis of y) to `out` (that of x)."""
    jump = s // math.gcd(s, d)
    lines = []
    for r in range(min(s, out)):
        taps = [t for t in range(k) if (r + lo - d * t) % s == 0]
        first = taps[0] if taps else 0
        offset = (r + lo - d * first) // s
        count = -(-(out - r) // s)
        lines.append(Line(r, s, count, 1, offset, -d * jump // s, first, jump, len(taps), size))
    return Axis(tuple(lines), out, size, k)


def axes_of(op: Op) -> tuple[Axis, ...]:
    """The spatial axes of a `conv` or `conv_input`."""
    params = op.params
    rule = forward if op.name == "conv" else adjoint
    return tuple(
        rule(size, out, k, s, lo, d)
        for size, out, k, s, (lo, _), d in zip(
            op.inputs[0].shape[2:], op.output.shape[2:], op.inputs[1].shape[2:], params["stride"],
            params["padding"], params["dilation"], strict=True,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """Outputs `start .. start + width` of a line; `spans[i]` are those (from the tile's start) that
    meet an input under tap i."""

    start: int
    width: int
    spans: tuple[Range, ...]


def tiles(line: Line, widest: int) -> list[Tile]:
    """Cut a line into tiles of about equal widths."""
    result = []
    for start, width in pieces(line.count, widest):
        spans = []
        for i in range(line.taps):
            lo, hi = line.outputs(i)
            lo, hi = max(lo - start, 0), min(hi - start, width)
            spans.append((lo, hi) if lo < hi else (0, 0))
        result.append(Tile(start, width, tuple(spans)))
    return result


def pieces(count: int, most: int) -> list[tuple[int, int]]:
    """(start, size) of about equal pieces of at most `most`, as few as possible."""
    parts = cut(count, most)
    return [
        (parts.start(i), parts.size if i < parts.larger else parts.size - 1)
        for i in range(parts.count)
    ]


def padded(channels: int, itemsize: int) -> int:
    """Channels rounded up to 64 bytes: the row length of packed weights, whatever the target."""
    unit = 64 // itemsize
    return -(-channels // unit) * unit


def channels_last(shape: Shape) -> tuple[int, ...]:
    """Strides of images (N, C, *spatial) that lie as (N, *spatial, C)."""
    n, channels, *spatial = shape
    n, *steps, channel = strides_of((n, *spatial, channels))
    return (n, channel, *steps)


def preferred_layout(op: Op) -> dict[Value, tuple[int, ...]]:
    """The strides under which a convolution or a sliding window is fastest, for its values that are
    images of more than FEW channels: fewer would leave vectors half empty. Any others are right as
    well; what a weight or its gradient lies like hardly matters."""
    values, roles = (*op.inputs, *op.outputs), IMAGES.get(op.name, ())
    images = [v for v, image in zip(values, roles, strict=False) if image]
    return {v: channels_last(v.shape) for v in images if v.shape[1] > FEW}


def collides(buffer: Buffer) -> bool:
    """Whether the channels of a place lie so that a cache holds few of them at a time, and writing
    them one after the other takes each from memory again."""
    step = abs(buffer.strides[1]) * np.dtype(buffer.dtype).itemsize  # type: ignore[call-overload]
    return step > 0 and step % COLLISION == 0 and buffer.shape[1] > FEW


FEW = 7
COLLISION = 4096  # bytes of a first-level cache in each of its ways


IMAGES = {
    "conv": (True, False, True), "conv_input": (True, False, True),
    "conv_weight": (True, True, False), "window_sum": (True, True), "window_spread": (True, True),
    "window_argmax": (True, True), "window_take": (True, True, True),
    "window_route": (True, True, True),
}  # fmt: skip
"""Which of an operation's inputs and outputs are images."""
