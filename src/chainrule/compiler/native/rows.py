"""Copying, filling and adding regions of memory: what kernels of indices are made of.

A region is a shape with the strides in which it lies in each of several buffers. Axes that follow
each other without a gap in all of them are one (`merge`), so that most regions are single runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler.native.kernel import Buffer
from chainrule.compiler.native.text import Function, Int, Reg, i64, type_of, vector

BYTES = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "float": 4, "double": 8}
UNIT = 16384
"""Elements in one unit of work."""


class Side(NamedTuple):
    """One buffer of a region: an address, and elements from one index to the next."""

    pointer: Reg
    strides: tuple[int, ...]


class Moved(NamedTuple):
    """A buffer as elements that are only moved: integers of the same width, complex128 as two."""

    type: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def moved(buffer: Buffer) -> Moved:
    """How a buffer's elements are moved, whatever their dtype."""
    size = np.dtype(buffer.dtype).itemsize  # type: ignore[arg-type]
    if size <= 8:
        return Moved(f"i{8 * size}", buffer.shape, buffer.strides)
    return Moved("i64", (*buffer.shape, 2), (*(2 * s for s in buffer.strides), 1))


def merge(
    shape: Sequence[int], *strides: Sequence[int]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The same region with as few axes as its strides in all buffers allow."""
    axes: list[list[int]] = []  # length, then the stride in each buffer
    for n, *steps in zip(shape, *strides, strict=True):
        if n == 1:
            continue
        last = axes[-1] if axes else None
        if last and all(s == t * n for s, t in zip(last[1:], steps, strict=True)):
            axes[-1] = [last[0] * n, *steps]
        else:
            axes.append([n, *steps])
    merged = tuple(axis[0] for axis in axes)
    return merged, [tuple(axis[i + 1] for axis in axes) for i in range(len(strides))]


def unravel(f: Function, index: Reg, shape: Sequence[int]) -> list[Reg]:
    """A flat index as one for each axis, row-major."""
    result: list[Reg] = []
    for n in reversed(shape[1:]):
        result.append(f.urem(index, n))
        index = f.udiv(index, n)
    return [*([index] if shape else []), *reversed(result)]


def offset(f: Function, index: Sequence[Int], strides: Sequence[int]) -> Reg:
    """sum of index * stride."""
    total: Reg = i64(0)
    for i, stride in zip(index, strides, strict=True):
        total = f.add(total, f.mul(i, stride))
    return total


def index_at(f: Function, pointer: Reg, at: Int, dtype: Any, limit: int) -> Reg:
    """An index from memory as i64, held to 0 <= index < limit whatever stands there."""
    dtype = np.dtype(dtype)
    x = f.load(f.at(pointer, at, type_of(dtype)), type_of(dtype))
    if dtype.itemsize < 8:
        x = f.convert("sext" if dtype.kind == "i" else "zext", x, "i64")
    if dtype.kind == "u":
        return f.call("llvm.umin.i64", "i64", x, i64(limit - 1))
    return f.smin(f.smax(x, 0), limit - 1)


class Lines:
    """The lines of several buffers of one shape along an axis.

    Attributes:
        count, length: how many there are, and elements in each.
        across: lines that follow each other in the axes after the axis.
        gapless: whether those lie side by side in every buffer.
        steps: from one element of a line to the next, for each buffer.
    """

    def __init__(self, buffers: Sequence[Buffer], axis: int):
        shape = buffers[0].shape
        self.length, self.across = shape[axis], math.prod(shape[axis + 1 :])
        self.count = math.prod(shape[:axis]) * self.across
        self.steps = [b.strides[axis] for b in buffers]
        self.types = [type_of(b.dtype) for b in buffers]
        self._outer = merge(shape[:axis], *(b.strides[:axis] for b in buffers))
        self._inner = merge(shape[axis + 1 :], *(b.strides[axis + 1 :] for b in buffers))
        self.gapless = self._inner[0] == () or all(s == (1,) for s in self._inner[1])

    def block(self, f: Function, pointers: Sequence[Reg], number: Reg) -> list[Reg]:
        """Where a group of `across` lines starts."""
        return self._moved(f, pointers, number, self._outer)

    def inside(self, f: Function, pointers: Sequence[Reg], number: Reg) -> list[Reg]:
        """Where a line of a group starts."""
        return self._moved(f, pointers, number, self._inner)

    def line(self, f: Function, pointers: Sequence[Reg], number: Reg) -> list[Reg]:
        """Where any line starts."""
        start = self.block(f, pointers, f.udiv(number, self.across))
        return self.inside(f, start, f.urem(number, self.across))

    def _moved(self, f: Function, pointers: Sequence[Reg], number: Reg, axes: Any) -> list[Reg]:
        shape, strides = axes
        index = unravel(f, number, shape)
        return [
            f.at(p, offset(f, index, s), t)
            for p, s, t in zip(pointers, strides, self.types, strict=True)
        ]


def units_of(lines: int, width: int) -> tuple[int, int]:
    """(units, lines in each) for lines of so many elements."""
    each = max(1, min(lines, UNIT // max(width, 1)))
    return -(-lines // each), each


def runs(
    f: Function,
    shape: Sequence[Int],
    sides: Sequence[Side],
    type: str,
    body: Callable[[Int, list[Side]], None],
) -> None:
    """Call body(n, sides) for each innermost run of a merged region, inside loops over the rest."""
    if len(shape) <= 1:
        n: Int = shape[0] if shape else 1
        body(n, [Side(s.pointer, s.strides or (1,)) for s in sides])
        return
    with f.loop(0, shape[0]) as loop:
        inner = [
            Side(f.at(s.pointer, f.mul(loop.index, s.strides[0]), type), s.strides[1:])
            for s in sides
        ]
        runs(f, shape[1:], inner, type, body)


def along(
    f: Function, n: Int, sides: Sequence[Side], type: str, step: Callable[[int, list[Reg]], None]
) -> None:
    """Call step(lanes, addresses) along a run: by vectors where all sides lie without gaps."""
    gapless = all(s.strides[0] == 1 for s in sides)
    lanes = f.target.vector_bytes // BYTES[type] if gapless else 1
    whole: Int = 0
    if lanes > 1:
        if isinstance(n, int):
            whole = n - n % lanes
        else:
            whole = f.sub(n, f.op("and", n, i64(lanes - 1)))
        if whole != 0:
            with f.loop(0, whole, lanes) as loop:
                step(lanes, [f.at(s.pointer, loop.index, type) for s in sides])
    if not isinstance(n, int) or n != whole:
        with f.loop(whole, n) as loop:
            step(1, [f.at(s.pointer, f.mul(loop.index, s.strides[0]), type) for s in sides])


def copy(f: Function, shape: Sequence[Int], to: Side, of: Side, type: str) -> None:
    """Copy a region whose axes have been merged."""

    def run(n: Int, sides: list[Side]) -> None:
        along(f, n, sides, type, one)

    def one(lanes: int, at: list[Reg]) -> None:
        f.store(f.load(at[1], vector(type, lanes)), at[0])

    runs(f, shape, [to, of], type, run)


def fill(f: Function, shape: Sequence[Int], to: Side, type: str) -> None:
    """Fill a region with zeros."""

    def run(n: Int, sides: list[Side]) -> None:
        along(f, n, sides, type, lambda lanes, at: f.store(f.zero(vector(type, lanes)), at[0]))

    runs(f, shape, [to], type, run)


def accumulate(f: Function, shape: Sequence[Int], to: Side, of: Side, type: str) -> None:
    """Add a region to another."""
    opcode = "fadd" if type in ("float", "double") else "add"

    def run(n: Int, sides: list[Side]) -> None:
        along(f, n, sides, type, one)

    def one(lanes: int, at: list[Reg]) -> None:
        x, y = (f.load(a, vector(type, lanes)) for a in at)
        f.store(f.op(opcode, x, y), at[0])

    runs(f, shape, [to, of], type, run)
