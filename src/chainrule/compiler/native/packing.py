"""Bringing operands of a product into the order in which its tiles read them.

A tile reads vectors of B along a row, so a panel of B, as wide as the tile, is laid out row after
row: `panel[k, 0:width]`, zeros beyond the last column. Where B's rows are contiguous they are
copied; where its columns are (`x @ W^T` with weights kept as (out, in)), a few rows at a time are
transposed in registers; any other strides go element by element.

A is read number by number in whatever order it lies, but rows a multiple of a page apart fall on
each other in the first-level cache, and rows along k take a whole line of it for a few numbers;
then a tile's rows are packed as well, as a panel of A^T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chainrule.compiler.native.microkernel import (
    itemsize,
    lanes_in,
    literal_mask,
    load_vector,
    prefetch,
)
from chainrule.compiler.native.text import (
    Function,
    Int,
    Module,
    Reg,
    lanes_of,
    vector,
)

FAR, AHEAD = 1024, 16
"""Rows at least so many bytes apart are asked for so many rows ahead."""


class Panel(NamedTuple):
    """A panel of B to be packed: its type, strides (elements) and width.

    Attributes:
        row_step, column_step: elements of B from one k, and from one column, to the next.
        columns: how many there are; the panel is as wide as the vectors that hold them.
        vectors: the panel's width in vectors.
        whole: the depth is known to be a multiple of a vector's length; less code then.
    """

    type: str
    row_step: int
    column_step: int
    columns: int
    vectors: int
    whole: bool = False


def emit_pack(module: Module, panel: Panel) -> str:
    """Write `void @...(ptr %from, ptr %to, i64 %depth)`, which packs `depth` rows; its name.

    Panels of one kind share the function.
    """
    name, new = module.shared("pack", panel)
    if not new:
        return name
    f = Function(module, name, "ptr noalias %from, ptr noalias %to, i64 %depth")
    if panel.column_step == 1:
        _pack_rows(f, panel)
    elif panel.row_step == 1 and itemsize(panel.type) in (4, 8):
        _pack_transposed(f, panel)
    else:
        _pack_elements(f, panel)
    return f.finish()


def emit_pack_many(module: Module, panel: Panel, room: int) -> str:
    """Write `void @...(ptr %from, ptr %to, i64 %depth, i64 %count)`; its name.

    It packs `count` panels that lie side by side and whose rows are contiguous, all of them row by
    row, since a row of few numbers is a short visit to a line of memory.

    Arguments:
        room: elements from one packed panel to the next.
    """
    name, new = module.shared("packs", (panel, room))
    if not new:
        return name
    parameters = "ptr noalias %from, ptr noalias %to, i64 %depth, i64 %count"
    f = Function(module, name, parameters)
    width = panel.vectors * lanes_in(f.target, panel.type)
    with f.loop(0, f.arg("depth")) as k:
        source = f.at(f.arg("from"), f.mul(k.index, panel.row_step), panel.type)
        to = f.at(f.arg("to"), f.mul(k.index, width), panel.type)
        with f.loop(0, f.arg("count")) as i:
            start = f.at(source, f.mul(i.index, panel.columns), panel.type)
            _pack_row(f, panel, start, f.at(to, f.mul(i.index, room), panel.type))
    return f.finish()


def _pack_rows(f: Function, panel: Panel) -> None:
    width = panel.vectors * lanes_in(f.target, panel.type)
    with f.loop(0, f.arg("depth")) as k:
        source = f.at(f.arg("from"), f.mul(k.index, panel.row_step), panel.type)
        _pack_row(f, panel, source, f.at(f.arg("to"), f.mul(k.index, width), panel.type))


def _pack_row(f: Function, panel: Panel, source: Reg, to: Reg) -> None:
    lanes = lanes_in(f.target, panel.type)
    for j in range(panel.vectors):
        if abs(panel.row_step) * itemsize(panel.type) >= FAR:
            ahead = AHEAD * panel.row_step + j * lanes
            prefetch(f, f.at(source, ahead, panel.type))
        count = min(lanes, panel.columns - j * lanes)
        x = _load_first(f, f.at(source, j * lanes, panel.type), panel.type, count)
        f.store(x, f.at(to, j * lanes, panel.type))


def _load_first(f: Function, address: Reg, type: str, count: int) -> Reg:
    """The first `count` elements of a vector, zeros after them."""
    lanes = lanes_in(f.target, type)
    if count <= 0:
        return f.zero(vector(type, lanes))
    if count >= lanes:
        return f.load(address, vector(type, lanes))
    return load_vector(f, address, type, literal_mask(lanes, count))


def _pack_elements(f: Function, panel: Panel, start: Int = 0) -> None:
    """Number by number, from row `start`."""
    lanes = lanes_in(f.target, panel.type)
    width = panel.vectors * lanes
    with f.loop(start, f.arg("depth")) as k:
        source = f.at(f.arg("from"), f.mul(k.index, panel.row_step), panel.type)
        to = f.at(f.arg("to"), f.mul(k.index, width), panel.type)
        with f.loop(0, panel.columns) as j:
            x = f.load(f.at(source, f.mul(j.index, panel.column_step), panel.type), panel.type)
            f.store(x, f.at(to, j.index, panel.type))
        for j in range(panel.columns, width):
            f.store(f.zero(panel.type), f.at(to, j, panel.type))


def _pack_transposed(f: Function, panel: Panel) -> None:
    """As many rows at a time as elements fit 128 bits, one vector of columns after another."""
    lanes, inner = lanes_in(f.target, panel.type), 16 // itemsize(panel.type)
    depth, full = f.arg("depth"), panel.columns // lanes
    whole = f.sub(depth, f.urem(depth, inner))
    for first, stop in ((0, full), (full, panel.vectors)):
        if first == stop:
            continue
        columns = min(lanes, panel.columns - first * lanes)
        with f.loop(first, stop) as j:
            source = f.at(f.arg("from"), f.mul(j.index, lanes * panel.column_step), panel.type)
            to = f.at(f.arg("to"), f.mul(j.index, lanes), panel.type)
            with f.loop(0, whole, inner) as k:
                _transpose_rows(f, panel, columns, f.at(source, k.index, panel.type), to, k.index)
    if not panel.whole:
        _pack_elements(f, panel, whole)


def _transpose_rows(f: Function, panel: Panel, columns: int, source: Reg, to: Reg, k: Reg) -> None:
    """A few rows of one vector of columns.

    Each column is read 128 bits at a time, into that part of a vector in which the numbers belong;
    what is left is to transpose a small square within each part.
    """
    lanes, inner = lanes_in(f.target, panel.type), 16 // itemsize(panel.type)
    part = vector(panel.type, inner)
    block = []
    for i in range(inner):
        parts = []
        for column in range(i, lanes, inner):
            if column < columns:
                address = f.at(source, column * panel.column_step, panel.type)
                parts.append(f.load(address, part))
            else:
                parts.append(f.zero(part))
        block.append(concatenate(f, parts))
    width = panel.vectors * lanes
    for row, x in enumerate(transpose_parts(f, block)):
        f.store(x, f.at(to, f.mul(f.add(k, row), width), panel.type))


def concatenate(f: Function, parts: Sequence[Reg]) -> Reg:
    """One vector of several (a power of two), one after another."""
    while len(parts) > 1:
        lanes = range(2 * lanes_of(parts[0].type))
        parts = [f.shuffle(parts[i], parts[i + 1], lanes) for i in range(0, len(parts), 2)]
    return parts[0]


def transpose_parts(f: Function, rows: Sequence[Reg]) -> list[Reg]:
    """Transpose the square of each 128-bit part of 2 or 4 vectors, by interleaving neighbours."""
    if len(rows) == 2:
        return list(_interleave(f, rows[0], rows[1], 1, 2))
    low = _interleave(f, rows[0], rows[1], 1, 4)
    high = _interleave(f, rows[2], rows[3], 1, 4)
    return [*_interleave(f, low[0], high[0], 2, 4), *_interleave(f, low[1], high[1], 2, 4)]


def _interleave(f: Function, x: Reg, y: Reg, run: int, part: int) -> tuple[Reg, Reg]:
    """Runs of x and y in turn, from the lower and from the upper half of each part."""
    lanes = lanes_of(x.type)
    halves: list[list[int]] = [[], []]
    for start in range(0, lanes, part):
        for half in (0, 1):
            first = start + half * part // 2
            for i in range(first, first + part // 2, run):
                halves[half] += [*range(i, i + run), *range(lanes + i, lanes + i + run)]
    return f.shuffle(x, y, halves[0]), f.shuffle(x, y, halves[1])
