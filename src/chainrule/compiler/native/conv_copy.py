"""Copying an image from one layout into another: into a halo of zeros, or channels last."""

from __future__ import annotations

from chainrule.compiler.native.conv_emit import load_lanes, move, store_lanes
from chainrule.compiler.native.text import Function, Int, Reg
from chainrule.graph import Shape


def copy_image(
    f: Function,
    type: str,
    lanes: int,
    shape: Shape,
    source: Reg,
    source_strides: tuple[int, ...],
    target: Reg,
    target_strides: tuple[int, ...],
) -> None:
    """target[index] = source[index], vectors along the axis that the source has contiguous."""
    order = sorted(range(len(shape)), key=lambda a: (shape[a] == 1, -abs(source_strides[a])))
    order = [a for a in order if shape[a] > 1] or [0]
    *outer, inner = order
    _nest(
        f, type, lanes, [(shape[a], source_strides[a], target_strides[a]) for a in outer],
        (shape[inner], source_strides[inner], target_strides[inner]), source, target,
    )  # fmt: skip


def _nest(f, type: str, lanes: int, outer, inner, source: Reg, target: Reg) -> None:
    if outer:
        (count, ss, ts), *rest = outer
        with f.loop(0, count, hint="copy") as loop:
            x = move(f, source, f.mul(loop.index, ss), type)
            y = move(f, target, f.mul(loop.index, ts), type)
            _nest(f, type, lanes, rest, inner, x, y)
        return
    count, ss, ts = inner
    whole = count // lanes * lanes
    with f.loop(0, whole, lanes, hint="copy") as loop:
        _piece(f, type, lanes, ss, ts, source, target, loop.index, lanes)
    if count > whole:
        _piece(f, type, lanes, ss, ts, source, target, whole, count - whole)


def _piece(f, type: str, lanes: int, ss: int, ts: int, source, target, at: Int, many: int) -> None:
    x = load_lanes(f, move(f, source, f.mul(at, ss), type), type, lanes, ss, many)
    store_lanes(f, x, move(f, target, f.mul(at, ts), type), type, ts, many)
