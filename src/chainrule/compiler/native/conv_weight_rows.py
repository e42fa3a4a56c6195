"""The adjoint of convolution in the weight for few output channels: rows in the lanes of vectors.

    w[o, c, k] = sum over images and outputs p of x[n, c, s p + d k - lo] y[n, o, p]

With output channels in the lanes (`conv_weight.WeightSums`) most would be empty. Here the lanes are
neighbouring outputs p of a row: a tile is some output channels by some rows of the weight (taps and
input channels); each round loads a vector of y for each of the former and one of x for each of the
latter, and multiplies all pairs. The tile's vectors stay in scratch memory until a unit has seen
all its images; then the lanes of each are added up.

x is copied with zeros around it, some rows at a time; y too, where its rows are not contiguous.

    units: (block of bands of images, group)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.conv_copy import copy_image
from chainrule.compiler.native.conv_emit import Keyed, key_of, load_lanes, mask_lanes, move
from chainrule.compiler.native.conv_plan import Line, forward, padded, pieces
from chainrule.compiler.native.conv_rows import GAIN, LARGEST, MOST, fullness
from chainrule.compiler.native.conv_rows_emit import spatial
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, strides_of
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Function, Module, Reg, lanes_of, type_of, vector
from chainrule.graph import Spec

BAND = 1 << 15  # bytes of x and y that are copied at once
UNITS = 16  # enough for any number of threads that helps
PARTIAL_BYTES = 1 << 21  # of all partial sums together, unless two are more than that
IRREGULAR = 64  # rows of a weight that are cut into tiles all different


def lines_of(op: Op) -> list[Line]:
    """The spatial axes, at least two: a single one is a row of an image of one row."""
    x, y = op.inputs
    how = op.params
    lines = [
        forward(size, out, k, s, lo, d).lines[0]
        for size, out, k, s, (lo, _), d in zip(
            x.shape[2:], y.shape[2:], how["kernel"], how["stride"], how["padding"],
            how["dilation"], strict=True,
        )
    ]  # fmt: skip
    return lines if len(lines) > 1 else [Line(0, 1, 1, 1, 0, 1, 0, 1, 1, 1), *lines]


def suits(op: Op) -> bool:
    """Whether the lanes of a `conv_weight` are fuller so."""
    outside, lanes = op.inputs[1].shape[1] // op.params["groups"], 64 // op.output.dtype.itemsize
    *_, inner = lines = lines_of(op)
    if outside > MOST or inner.step != 1:
        return False
    if fullness(inner.count, lanes) < GAIN * fullness(outside, lanes):
        return False
    x, y = op.inputs
    area = math.prod(line.size + line.taps for line in lines[1:-1]) * (inner.size + 2 * lanes)
    rows = 4 * lines[0].step + abs(lines[0].delta) * lines[0].taps
    return (x.shape[1] + y.shape[1]) * area * rows * x.dtype.itemsize <= LARGEST


class RowSums(Keyed):
    """Partial sums, each over a block of bands of images: (blocks, groups, *kernel, in, out)."""

    family = "conv_weight"

    def __init__(self, op: Op):
        x, y = op.inputs
        self.op, self.x, self.y, self.ops, self.key = op, x, y, (op,), key_of(op)
        self.groups: int = op.params["groups"]
        self.inside, self.outside = x.shape[1] // self.groups, y.shape[1] // self.groups
        item, lanes = x.dtype.itemsize, 64 // x.dtype.itemsize
        self.lines = lines_of(op)
        first, *others, inner = self.lines
        # The room of a row, whole vectors of outputs whatever the target.
        wide = -(-inner.count // lanes) * lanes
        self.around = [
            (max(0, -line.at(0, 0)), max(line.size, line.at(line.count - 1, line.taps - 1) + 1))
            for line in (*others, inner)
        ]
        reach = max(self.around[-1][1], inner.at(wide - 1, inner.taps - 1) + 1)
        self.around[-1] = (self.around[-1][0], reach)
        room = [lo + hi for lo, hi in self.around]
        each = self.inside * first.step * math.prod(room)
        each += self.outside * math.prod(line.count for line in others) * wide
        self.rows = min(first.count, max(4, BAND // (each * item)))  # outputs of a band
        self.bands = -(-first.count // self.rows)
        self.high = (self.rows - 1) * first.step + first.delta * (first.taps - 1) + 1
        self.x_steps = strides_of((self.inside, self.high, *room))
        self.x_bytes = -(-self.inside * self.x_steps[0] * item // 64) * 64
        shape = (self.outside, self.rows, *(line.count for line in others), wide)
        self.y_steps = strides_of(shape)
        self.y_bytes = math.prod(shape) * item
        self.kernel: tuple[int, ...] = tuple(op.params["kernel"])
        self.pairs = self.inside * math.prod(self.kernel)
        self.tile_bytes = self.outside * self.pairs * 64
        row = padded(self.outside, item)
        sums = (self.groups, *self.kernel, self.inside, row)
        most = max(2, PARTIAL_BYTES // (math.prod(sums) * item))
        self.blocks = max(1, min(x.shape[0] * self.bands, -(-UNITS // self.groups), most))
        self.sums = Value(Spec((self.blocks, *sums), x.dtype), name="partial sums")
        self.reads, self.writes = (x, y), (self.sums,)
        self.units = self.blocks * self.groups
        self.scratch = self.x_bytes + self.y_bytes + self.tile_bytes

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        _Emitter(self, module, name, buffers).emit()


class _Emitter:
    def __init__(self, kernel: RowSums, module: Module, name: str, buffers: Buffers):
        self.k, self.module, self.name = kernel, module, name
        self.type, self.lanes = type_of(kernel.x.dtype), module.target.lanes(kernel.x.dtype)
        self.kind = vector(self.type, self.lanes)
        self.x, self.y, self.sums = (buffers[v] for v in (kernel.x, kernel.y, kernel.sums))
        contiguous = self.y.strides[-1] == 1 and module.target.masks
        self.copied = not contiguous and kernel.y.shape[-1] > 1
        self.y_steps = (self.y.strides[1], *spatial(self.y.strides[2:]))
        if self.copied:
            self.y_steps = kernel.y_steps
        self.written: dict[object, str] = {}
        self.high, self.most = _choose(module.target, kernel.outside, kernel.pairs)

    def emit(self) -> None:
        k, n = self.k, self.k.x.shape[0]
        f = Function(self.module, self.name, PARAMETERS)
        x, y, sums = (b.pointer(f) for b in (self.x, self.y, self.sums))
        scratch, item = f.arg("scratch"), k.x.dtype.itemsize
        tiles = f.at(scratch, k.x_bytes + k.y_bytes, "i8")
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            block, group = f.udiv(unit.index, k.groups), f.urem(unit.index, k.groups)
            self._clear(f, scratch, (k.x_bytes + k.y_bytes * self.copied) // item)
            self._clear(f, tiles, k.outside * k.pairs * self.lanes)
            xg = move(f, x, f.mul(group, k.inside * self.x.strides[1]), self.type)
            yg = move(f, y, f.mul(group, k.outside * self.y.strides[1]), self.type)
            first, last = (
                f.udiv(f.mul(f.add(block, end), n * k.bands), k.blocks) for end in (0, 1)
            )
            with f.loop(first, last, hint="band") as band:
                image, number = f.udiv(band.index, k.bands), f.urem(band.index, k.bands)
                row = f.mul(number, k.rows)
                count = f.smin(f.sub(k.lines[0].count, row), k.rows)
                xn = move(f, xg, f.mul(image, self.x.strides[0]), self.type)
                yn = move(f, yg, f.mul(image, self.y.strides[0]), self.type)
                self._copy_x(f, xn, row, count)
                yn = self._rows_of_y(f, yn, row, count)
                self._tiles(f, yn, tiles, count)
            into = f.add(f.mul(block, self.sums.strides[0]), f.mul(group, self.sums.strides[1]))
            self._totals(f, tiles, move(f, sums, into, self.type))
        f.finish()

    def _clear(self, f: Function, at: Reg, count: int) -> None:
        with f.loop(0, count // self.lanes * self.lanes, self.lanes, hint="clear") as i:
            f.store(f.zero(self.kind), move(f, at, i.index, self.type))
        for rest in range(count // self.lanes * self.lanes, count):
            f.store(f.zero(self.type), move(f, at, rest, self.type))

    def _copy_x(self, f: Function, x: Reg, row: Reg, count: Reg) -> None:
        """Copy the rows of x that `count` rows of outputs from `row` on meet; zeros outside."""
        k = self.k
        line = k.lines[0]
        steps = (self.x.strides[1], *spatial(self.x.strides[2:]))
        shape = (k.inside, *(other.size for other in k.lines[1:]))
        inner = sum(lo * s for (lo, _), s in zip(k.around, k.x_steps[2:], strict=True))
        outer = (k.x_steps[0], *k.x_steps[2:])
        start = f.add(f.mul(row, line.step), line.at(0, 0))
        high = f.add(f.mul(f.sub(count, 1), line.step), line.delta * (line.taps - 1) + 1)
        with f.loop(0, high, hint="row") as i:
            at = f.add(start, i.index)
            to = f.add(f.mul(i.index, k.x_steps[1]), inner)
            to = move(f, f.arg("scratch"), to, self.type)
            inside = f.op("and", f.icmp("sge", at, 0), f.icmp("slt", at, line.size))
            with f.when(inside):
                source = move(f, x, f.mul(at, steps[1]), self.type)
                copy_image(
                    f, self.type, self.lanes, shape, (source, (steps[0], *steps[2:])), (to, outer)
                )
            with f.when(f.op("xor", inside, f.number("i1", True))):
                self._blank(f, to, shape, outer)

    def _blank(self, f: Function, at: Reg, shape: Sequence[int], steps: Sequence[int]) -> None:
        if len(shape) == 1:
            self._clear(f, at, shape[0])
            return
        with f.loop(0, shape[0], hint="blank") as i:
            self._blank(f, move(f, at, f.mul(i.index, steps[0]), self.type), shape[1:], steps[1:])

    def _rows_of_y(self, f: Function, y: Reg, row: Reg, count: Reg) -> Reg:
        """Where some rows of outputs lie contiguous, from `row` on."""
        k = self.k
        steps = (self.y.strides[1], *spatial(self.y.strides[2:]))
        y = move(f, y, f.mul(row, steps[1]), self.type)
        if not self.copied:
            return y
        to = f.at(f.arg("scratch"), k.x_bytes, "i8")
        shape = (k.outside, *(line.count for line in k.lines[1:]))
        with f.loop(0, count, hint="row") as i:
            copy_image(
                f, self.type, self.lanes, shape,
                (move(f, y, f.mul(i.index, steps[1]), self.type), (steps[0], *steps[2:])),
                (move(f, to, f.mul(i.index, k.y_steps[1]), self.type),
                 (k.y_steps[0], *k.y_steps[2:])),
            )  # fmt: skip
        return to

    # --- tiles ------------------------------------------------------------------------------------

    def _tiles(self, f: Function, y: Reg, tiles: Reg, count: Reg) -> None:
        """Add a band to all tiles."""
        k = self.k
        x, vectors = f.arg("scratch"), k.pairs * self.lanes
        for start, high in pieces(k.outside, self.high):
            there = move(f, y, start * self.y_steps[0], self.type)
            into = move(f, tiles, start * vectors, self.type)
            if k.pairs <= IRREGULAR or k.inside < self.most:
                offsets = [tap + c * k.x_steps[0] for tap in self._taps() for c in range(k.inside)]
                for first, many in pieces(k.pairs, self.most):
                    function = self._tile(high, tuple(offsets[first : first + many]))
                    f.run(function, x, there, move(f, into, first * self.lanes, self.type), count)
                continue
            taps = self.module.table(f"{self.name}.taps", "i64", [str(t) for t in self._taps()])
            with f.loop(0, math.prod(k.kernel), hint="taps") as tap:
                xt = move(f, x, f.load(f.at(taps, tap.index, "i64"), "i64"), self.type)
                at = move(f, into, f.mul(tap.index, k.inside * self.lanes), self.type)
                for many, run in itertools.groupby(pieces(k.inside, self.most), lambda p: p[1]):
                    alike = list(run)
                    function = self._tile(high, tuple(c * k.x_steps[0] for c in range(many)))
                    with f.loop(0, len(alike), hint="tile") as tile:
                        c = f.add(f.mul(tile.index, many), alike[0][0])
                        xc = move(f, xt, f.mul(c, k.x_steps[0]), self.type)
                        ac = move(f, at, f.mul(c, self.lanes), self.type)
                        f.run(function, xc, there, ac, count)

    def _taps(self) -> list[int]:
        """Where x lies for the first output of a band, tap by tap."""
        k = self.k
        lines = k.lines[-len(k.kernel) :]
        steps = k.x_steps[1:][-len(lines) :]
        # The copy begins with what the first output meets under the first tap, along all axes.
        return [
            sum(i * line.delta * s for i, line, s in zip(tap, lines, steps, strict=True))
            + self._start()
            for tap in itertools.product(*map(range, k.kernel))
        ]

    def _start(self) -> int:
        k = self.k
        return sum(
            (lo + line.at(0, 0)) * s
            for (lo, _), line, s in zip(k.around, k.lines[1:], k.x_steps[2:], strict=True)
        )

    def _tile(self, high: int, offsets: tuple[int, ...]) -> str:
        """The function that adds a band to a tile; its name."""
        key = high, offsets
        if key in self.written:
            return self.written[key]
        name = self.written[key] = f"{self.name}.tile{len(self.written)}"
        parameters = "ptr noalias %x, ptr noalias %y, ptr noalias %sums, i64 %rows"
        f = Function(self.module, name, parameters)
        step = self.k.pairs * self.lanes
        places = [
            move(f, f.arg("sums"), o * step + p * self.lanes, self.type)
            for o in range(high)
            for p in range(len(offsets))
        ]
        sums = [f.load(at, self.kind) for at in places]
        sums = self._over(f, high, offsets, sums, 0, f.arg("x"), f.arg("y"))
        for at, reg in zip(places, sums, strict=True):
            f.store(reg, at)
        return f.finish()

    def _over(
        self, f: Function, high: int, offsets: tuple[int, ...], sums: list[Reg], axis: int, x: Reg,
        y: Reg,
    ) -> list[Reg]:  # fmt: skip
        """Loops over the outer axes' outputs, then over the vectors of a row."""
        *outer, inner = self.k.lines
        if axis < len(outer):
            count = f.arg("rows") if axis == 0 else outer[axis].count
            with f.loop(0, count, carry=sums, hint="row") as row:
                nx = move(
                    f, x, f.mul(row.index, outer[axis].step * self.k.x_steps[1 + axis]), self.type
                )
                ny = move(f, y, f.mul(row.index, self.y_steps[1 + axis]), self.type)
                row.next = self._over(f, high, offsets, list(row.carried), axis + 1, nx, ny)
            return row.results
        whole, last = divmod(inner.count, self.lanes)
        if whole:
            with f.loop(0, whole, carry=sums, hint="vector") as loop:
                j = f.mul(loop.index, self.lanes)
                nx, ny = move(f, x, j, self.type), move(f, y, j, self.type)
                loop.next = self._round(f, high, offsets, list(loop.carried), nx, ny, self.lanes)
            sums = loop.results
        if last:
            nx, ny = (move(f, p, whole * self.lanes, self.type) for p in (x, y))
            sums = self._round(f, high, offsets, sums, nx, ny, last)
        return sums

    def _round(
        self, f: Function, high: int, offsets: tuple[int, ...], sums: list[Reg], x: Reg, y: Reg,
        count: int,
    ) -> list[Reg]:  # fmt: skip
        """One vector of outputs, of which `count` exist."""
        there = self.lanes if self.copied else count
        rows = [
            load_lanes(
                f, move(f, y, o * self.y_steps[0], self.type), self.type, self.lanes, 1, there
            )
            for o in range(high)
        ]
        mask = mask_lanes(f, self.lanes, 0, count) if count < self.lanes else None
        result = list(sums)
        for p, offset in enumerate(offsets):
            column = f.load(move(f, x, offset, self.type), self.kind)
            for o, row in enumerate(rows):
                number = o * len(offsets) + p
                new = f.fma(column, row, sums[number])
                result[number] = new if mask is None else f.select(mask, new, sums[number])
        return result

    def _totals(self, f: Function, tiles: Reg, into: Reg) -> None:
        """The lanes of each vector added up, as (taps, in, out)."""
        k = self.k
        row = k.sums.shape[-1]
        with f.loop(0, k.pairs, hint="pair") as pair:
            at = move(f, tiles, f.mul(pair.index, self.lanes), self.type)
            to = move(f, into, f.mul(pair.index, row), self.type)
            for o in range(k.outside):
                reg = f.load(move(f, at, o * k.pairs * self.lanes, self.type), self.kind)
                f.store(total(f, reg), move(f, to, o, self.type))
            for o in range(k.outside, row):
                f.store(f.zero(self.type), move(f, to, o, self.type))


def total(f: Function, reg: Reg) -> Reg:
    """The sum of all lanes: of halves, of halves of these, and so on."""
    lanes = lanes_of(reg.type)
    while lanes > 2:
        lanes //= 2
        halves = [f.shuffle(reg, reg, range(start, start + lanes)) for start in (0, lanes)]
        reg = f.fadd(*halves)
    return f.fadd(f.extract(reg, 0), f.extract(reg, 1))


def _choose(target: Target, outside: int, pairs: int) -> tuple[int, int]:
    """The output channels and the rows of the weight of a tile: registers hold its sums, vectors of
    the former, and one of x."""
    best, chosen = math.inf, (1, 1)
    for high in range(1, min(8, outside) + 1):
        most = min(pairs, max(1, (target.registers - 1 - high) // high))
        # Vectors of x lie across two lines of the cache.
        cost = max(high * most / 2, (high + 2 * most) / 2, 4)
        cost *= len(pieces(outside, high)) * len(pieces(pairs, most))
        if cost < best:
            best, chosen = cost, (high, most)
    return chosen
