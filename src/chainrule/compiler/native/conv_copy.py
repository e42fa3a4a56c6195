"""Copying an image from one layout into another: into a halo of zeros, or channels last.

Where one axis is contiguous in the source and another one in the target, blocks are transposed in
registers, a vector square.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from chainrule.compiler.native.conv_emit import load_lanes, move, store_lanes
from chainrule.compiler.native.conv_plan import channels_last, padded
from chainrule.compiler.native.kernel import Buffer
from chainrule.compiler.native.microkernel import itemsize, prefetch
from chainrule.compiler.native.packing import transpose_parts
from chainrule.compiler.native.text import (
    Function,
    Int,
    Reg,
    element,
    lanes_of,
    type_of,
    vector,
)
from chainrule.graph import Shape

FAR = 1 << 16  # bytes of a plane that is hardly in a near cache
AHEAD = 3  # vectors further along a row that are asked for meanwhile


class Axis(NamedTuple):
    """An axis of a copy: its length, and its strides in the source and the target."""

    length: int
    source: int
    target: int


def collapsed(shape: Shape, source: tuple[int, ...], target: tuple[int, ...]) -> list[Axis]:
    """The axes from large steps in the source to small ones, merged where both continue."""
    axes = [Axis(*axis) for axis in zip(shape, source, target, strict=True) if axis[0] != 1]
    axes.sort(key=lambda axis: -abs(axis.source))
    result: list[Axis] = []
    for axis in axes:
        if result:
            length, s, t = result[-1]
            if (s, t) == (axis.length * axis.source, axis.length * axis.target):
                result[-1] = Axis(length * axis.length, axis.source, axis.target)
                continue
        result.append(axis)
    return result or [Axis(1, 1, 1)]


def packed(buffer: Buffer) -> Buffer:
    """Images of a buffer as they lie in scratch memory: channels last, with room for whole vectors
    of them at each place."""
    n, channels, *spatial = buffer.shape
    wide = padded(channels, np.dtype(buffer.dtype).itemsize)  # type: ignore[call-overload]
    return replace(buffer, strides=channels_last((n, wide, *spatial)))


def packed_bytes(shape: Shape, itemsize: int) -> int:
    """What one image takes there."""
    return padded(shape[1], itemsize) * math.prod(shape[2:]) * itemsize


def pack_image(f: Function, buffer: Buffer, source: Reg, target: Reg) -> None:
    """Copy one image of a buffer into scratch memory, as `packed` says."""
    type = type_of(buffer.dtype)
    steps = packed(buffer).strides[1:]
    lanes = f.target.lanes(buffer.dtype)  # type: ignore[arg-type]
    copy_image(f, type, lanes, buffer.shape[1:], (source, buffer.strides[1:]), (target, steps))


def copy_image(
    f: Function,
    type: str,
    lanes: int,
    shape: Shape,
    source: tuple[Reg, tuple[int, ...]],
    target: tuple[Reg, tuple[int, ...]],
) -> None:
    """target[index] = source[index]; source and target are a pointer and strides."""
    axes = collapsed(shape, source[1], target[1])
    row = next((a for a in axes if a.source == 1), axes[-1])
    column = next((a for a in axes if a.target == 1 and a is not row), None)
    if row.source != 1 or row.target == 1 or type not in ("float", "double"):
        column = None
    outer = [a for a in axes if a is not row and a is not column]
    _nest(f, type, lanes, outer, row, column, source[0], target[0])


def _nest(
    f: Function, type: str, lanes: int, outer: list[Axis], row: Axis, column: Axis | None,
    source: Reg, target: Reg,
) -> None:  # fmt: skip
    if outer:
        axis, *rest = outer
        with f.loop(0, axis.length, hint="copy") as loop:
            x = move(f, source, f.mul(loop.index, axis.source), type)
            y = move(f, target, f.mul(loop.index, axis.target), type)
            _nest(f, type, lanes, rest, row, column, x, y)
        return

    if column is not None:
        _square(f, type, lanes, row, column, source, target)
        return

    def along(at: Int, many: int) -> None:
        x = move(f, source, f.mul(at, row.source), type)
        y = move(f, target, f.mul(at, row.target), type)
        piece = load_lanes(f, x, type, lanes, row.source, many)
        store_lanes(f, piece, y, type, row.target, many)

    _strips(f, row.length, lanes, along)


def _square(
    f: Function, type: str, lanes: int, row: Axis, column: Axis, source: Reg, target: Reg
) -> None:
    """The plane of the axes contiguous in the source (`row`) and in the target (`column`). The
    inner loop goes over whichever makes a few runs of memory that are read or written from front to
    back, not many short ones."""

    far = row.length * column.length * itemsize(type) >= FAR

    def block(along: Int, many: int, across: Int, high: int) -> None:
        x = move(f, source, f.add(along, f.mul(across, column.source)), type)
        y = move(f, target, f.add(across, f.mul(along, row.target)), type)
        for c in range(high if far else 0):
            prefetch(f, move(f, x, c * column.source + AHEAD * lanes, type))
        rows = [
            load_lanes(f, move(f, x, c * column.source, type), type, lanes, 1, many)
            for c in range(high)
        ]
        rows += [f.zero(vector(type, lanes))] * (lanes - high)
        for i, piece in enumerate(transpose(f, rows)[:many]):
            store_lanes(f, piece, move(f, y, i * row.target, type), type, 1, high)

    def rows_inside(across: Int, high: int) -> None:
        _strips(f, row.length, lanes, lambda along, many: block(along, many, across, high))

    def columns_inside(along: Int, many: int) -> None:
        _strips(f, column.length, lanes, lambda across, high: block(along, many, across, high))

    if abs(column.source) > abs(row.target):
        _strips(f, column.length, lanes, rows_inside)
    else:
        _strips(f, row.length, lanes, columns_inside)


def transpose(f: Function, rows: list[Reg]) -> list[Reg]:
    """As many vectors as each has lanes, transposed: first the squares of each 128-bit part, then
    the parts among each other."""
    lanes = lanes_of(rows[0].type)
    inner = 16 // itemsize(element(rows[0].type))  # elements of 128 bits
    squares = [transpose_parts(f, rows[i : i + inner]) for i in range(0, lanes, inner)]
    result = [rows[0]] * lanes
    for c in range(inner):
        for part, x in enumerate(_exchange(f, [square[c] for square in squares], inner)):
            result[part * inner + c] = x
    return result


def _exchange(f: Function, vectors: list[Reg], inner: int) -> list[Reg]:
    """Part j of vector i becomes part i of vector j, for as many vectors as parts."""
    if len(vectors) == 1:
        return vectors

    def parts(x: Reg, y: Reg, chosen: list[int]) -> Reg:
        return f.shuffle(x, y, [p * inner + i for p in chosen for i in range(inner)])

    if len(vectors) == 2:
        x, y = vectors
        return [parts(x, y, [0, 2]), parts(x, y, [1, 3])]
    (a, b, c, d), low, high = vectors, [0, 1, 4, 5], [2, 3, 6, 7]
    (ab, cd), (ef, gh) = [(parts(a, b, p), parts(c, d, p)) for p in (low, high)]
    even, odd = [0, 2, 4, 6], [1, 3, 5, 7]
    return [parts(ab, cd, even), parts(ab, cd, odd), parts(ef, gh, even), parts(ef, gh, odd)]


def _strips(f: Function, length: int, step: int, body: Callable[[Int, int], None]) -> None:
    """body(start, step) for whole strips, body(start, rest) for the rest."""
    whole = length // step * step
    if whole:
        with f.loop(0, whole, step, hint="strip") as loop:
            body(loop.index, step)
    if length > whole:
        body(whole, length - whole)
