"""What is fused behind a convolution: elementwise operations on each tile of its images."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import index as ix
from chainrule.compiler.native import loops
from chainrule.compiler.native.conv_emit import Keyed, far, key_of
from chainrule.compiler.native.emitter import Emitter
from chainrule.compiler.native.epilogue import UNROLLED, Epilogue, Masks
from chainrule.compiler.native.index import Var
from chainrule.compiler.native.kernel import Kernel, strides_of
from chainrule.compiler.native.microkernel import prefetch
from chainrule.compiler.native.text import Function, Reg, element, lanes_of
from chainrule.graph import Array, Shape

SPILL = 64 * 64
"""Bytes of scratch for a tile that is finished in memory: 32 registers of 64 bytes, with room."""


class Along(NamedTuple):
    """An axis of a tile: `many` places of a variable from `start`, `step` apart."""

    var: Var
    start: Reg
    many: int
    step: int


class ImageFinish(Epilogue):
    """The operations behind one convolution, at (image, channel, *spatial).

    Arguments:
        op: the convolution.
        ops: the operations that may be followed from the outputs back to it.
        outputs: the values to write, all of the convolution's shape.
    """

    def __init__(
        self,
        op: Op,
        ops: Collection[Op],
        outputs: Sequence[Value],
        constants: Mapping[Value, Array],
    ):
        super().__init__(op, ops, outputs, constants)
        self.ops = tuple(ops)
        self.image, self.channel, *self.spatial = (Var(n) for n in op.output.shape)
        every = (self.image, self.channel, *self.spatial)
        self.follow(tuple(map(ix.of, every)), frozenset(every))

    @property
    def place(self) -> list[str]:
        """The parameters of a function that finishes a tile, beside its own: the place of its first
        output."""
        axes = [f"i64 %at{axis}" for axis in range(len(self.spatial))]
        return ["ptr noalias %table", "ptr noalias %spill", "i64 %image", "i64 %channel", *axes]

    def at(self, f: Function, axis: int) -> Reg:
        """The tile's place along a spatial axis, in such a function."""
        return f.arg(f"at{axis % len(self.spatial)}")

    def tile(
        self,
        f: Function,
        lane: Var,
        axes: Sequence[Along],
        sums: Sequence[Sequence[Reg]],
        masks: Masks,
    ) -> None:
        """Finish a tile.

        Arguments:
            lane: the variable that runs over lanes.
            axes: its other axes; the variables that are neither are the same in all of it.
            sums: for each place, row-major, its vectors.
        """
        with self._tile(f, lane, axes, lanes_of(sums[0][0].type), masks) as em:
            if self._cost(axes) * sum(map(len, sums)) <= UNROLLED:
                self._written_out(em, axes, iter(sums))
            else:
                self._looped(em, axes, sums)

    def ahead(
        self, f: Function, lane: Var, axes: Sequence[Along], lanes: int, vectors: int
    ) -> None:
        """Ask for what finishing a tile will read, or else for where it will write: it comes while
        the tile is computed."""
        values = self.streams or (self.wanted if far(self.wanted) else [])
        if not values:
            return
        with self._tile(f, lane, axes, lanes, {}) as em:
            self._asked_for(em, values, axes, vectors)

    @contextlib.contextmanager
    def _tile(
        self, f: Function, lane: Var, axes: Sequence[Along], lanes: int, masks: Masks
    ) -> Iterator[Emitter]:
        """An emitter that knows what is the same in all of a tile."""
        em = Emitter(f, self.buffers, self.expressions, lane)
        fixed = {self.image: f.arg("image"), self.channel: f.arg("channel")}
        fixed |= {var: self.at(f, axis) for axis, var in enumerate(self.spatial)}
        start = fixed[lane]
        fixed = {v: reg for v, reg in fixed.items() if v not in (lane, *(a.var for a in axes))}
        with em.block(fixed), em.block({lane: start}), em.wide(lanes, masks):
            yield em
        em.finish()

    def _asked_for(
        self, em: Emitter, values: Sequence[Value], axes: Sequence[Along], vectors: int
    ) -> None:
        if not axes:
            for value in values:
                for em.instance in range(vectors):
                    prefetch(em.f, em.place_of(value, self.index))
            em.instance = 0
            return
        axis, *inner = axes
        for i in range(axis.many):
            with em.block({axis.var: em.f.add(axis.start, i * axis.step)}):
                self._asked_for(em, values, inner, vectors)

    def _cost(self, axes: Sequence[Along]) -> int:
        """Instructions for each vector, without what is the same in all places of the tile."""
        moving = frozenset(a.var for a in axes)
        nodes = [n for n in self.costly() if n.depends & moving]
        return sum(n.cost for n in nodes) + len(self.outputs)

    def _written_out(
        self, em: Emitter, axes: Sequence[Along], sums: Iterator[Sequence[Reg]]
    ) -> None:
        if not axes:
            self.vectors(em, next(sums))
            return
        axis, *inner = axes
        for i in range(axis.many):
            with em.block({axis.var: em.f.add(axis.start, i * axis.step)}):
                self._written_out(em, inner, sums)

    def _looped(self, em: Emitter, axes: Sequence[Along], sums: Sequence[Sequence[Reg]]) -> None:
        """Put the tile into scratch and go over it."""
        f, spill, wide = em.f, em.f.arg("spill"), len(sums[0])
        kind = sums[0][0].type
        for number, reg in enumerate(itertools.chain.from_iterable(sums)):
            f.store(reg, f.at(spill, number * lanes_of(kind), element(kind)))
        self._loop(em, axes, f.add(0, 0), kind, wide)

    def _loop(self, em: Emitter, axes: Sequence[Along], number: Reg, kind: str, wide: int) -> None:
        """Go over the axes; `number` is that of the place so far."""
        f = em.f
        if not axes:
            row = f.at(f.arg("spill"), f.mul(number, wide * lanes_of(kind)), element(kind))
            places = [f.at(row, j * lanes_of(kind), element(kind)) for j in range(wide)]
            self.vectors(em, [f.load(at, kind) for at in places])
            return
        (var, start, many, step), *inner = axes
        with em.loop(var, start, f.add(start, many * step), step) as loop:
            place = f.udiv(f.sub(loop.index, start), step)
            self._loop(em, inner, f.add(f.mul(number, many), place), kind, wide)


class Finished(Keyed):
    """A convolution's kernel that may have operations fused behind it."""

    op: Op
    packed: Value
    finish: ImageFinish | None

    def __init__(self, op: Op, packed: Value, finish: ImageFinish | None = None):
        raise NotImplementedError

    def take(self, op: Op, packed: Value, finish: ImageFinish | None) -> None:
        """Say what the kernel reads and writes."""
        self.op, self.packed, self.finish, self.key = op, packed, finish, key_of(op)
        reads = [op.inputs[0], packed]
        self.ops: Sequence[Op] = (op,)
        self.writes: Sequence[Value] = (op.output,)
        if finish is not None:
            reads += finish.reads
            self.ops, self.writes = finish.ops, tuple(finish.wanted)
        self.reads: Sequence[Value] = tuple(dict.fromkeys(reads))

    def likeness(self) -> tuple[Any, Sequence[Value]] | None:
        return None if self.finish is not None else super().likeness()

    def may_overwrite(self, read: Value, write: Value) -> bool:
        """What only the fused operations read, and where the result then goes."""
        if self.finish is None or read in (self.op.inputs[0], self.packed):
            return False
        return self.finish.reads_only_here(read)

    def settled(self, strides: Mapping[Value, tuple[int, ...]]) -> Sequence[Kernel]:
        """Apart from the operations behind it, if their values lie otherwise than vectors run."""
        finish = self.finish
        if finish is None:
            return [self]
        images = [v for v in (*finish.reads, *finish.wanted) if v.shape == self.op.output.shape]
        if all(self.runs_along(strides.get(v) or strides_of(v.shape), v.shape) for v in images):
            return [self]
        rest = [op for op in finish.ops if op is not self.op]
        apart = [z for z in finish.wanted if z is not self.op.output]
        plain = type(self)(self.op, self.packed)
        after = loops.kernels(rest, apart, finish.expressions.constants)
        return [plain, *(part for kernel in after for part in kernel.settled(strides))]

    def runs_along(self, strides: Sequence[int], shape: Shape) -> bool:
        """Whether vectors are contiguous in an image that lies so."""
        raise NotImplementedError
