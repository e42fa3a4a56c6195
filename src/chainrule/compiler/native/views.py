"""Views: a value that is another one in memory, seen through movements that only change strides.

`permute`, `broadcast_to`, `slice`, `flip`, `alias` and most `reshape`s need no copy: the kernel
that reads their result can read their input with other strides. `resolve` follows such operations
back to a value that lies in a buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.kernel import Buffers
from chainrule.graph import Shape

Strides = tuple[int, ...]
MOVEMENTS = frozenset({"permute", "broadcast_to", "slice", "flip", "reshape", "alias"})


@dataclass(frozen=True)
class View:
    """The elements of `base` at `offset + sum of index * stride`, all in elements of its buffer."""

    base: Value
    offset: int
    shape: Shape
    strides: Strides


def resolve(value: Value, buffers: Buffers) -> View | None:
    """The value as a view of one that has a buffer; None if a copy would be needed."""
    if value in buffers:
        buffer = buffers[value]
        return View(value, 0, buffer.shape, buffer.strides)
    if value.op is None or value.op.name not in MOVEMENTS:
        return None
    source = resolve(value.op.inputs[0], buffers)
    return None if source is None else move(source, value.op)


def base_of(value: Value) -> Value:
    """The value behind a chain of movements, whether or not its strides allow a view."""
    while value.op is not None and value.op.name in MOVEMENTS:
        value = value.op.inputs[0]
    return value


def move(view: View, op: Op) -> View | None:
    """The view after one movement; None if it needs a copy."""
    params: dict[str, Any] = op.params
    shape = op.output.shape
    offset, strides = view.offset, view.strides
    match op.name:
        case "alias":
            pass
        case "permute":
            strides = tuple(strides[axis] for axis in params["axes"])
        case "broadcast_to":
            lead = len(shape) - len(strides)
            strides = (0,) * lead + tuple(
                0 if n == 1 and m != 1 else s
                for n, m, s in zip(view.shape, shape[lead:], strides, strict=True)
            )
        case "slice":
            starts, steps = params["starts"], params["steps"]
            offset += sum(a * s for a, s in zip(starts, strides, strict=True))
            strides = tuple(a * s for a, s in zip(steps, strides, strict=True))
        case "flip":
            axes = params["axes"]
            offset += sum((view.shape[a] - 1) * strides[a] for a in axes if view.shape[a])
            strides = tuple(-s if a in axes else s for a, s in enumerate(strides))
        case "reshape":
            regrouped = regroup(view.shape, strides, shape)
            if regrouped is None:
                return None
            strides = regrouped
    return View(view.base, offset, shape, strides)


def regroup(shape: Shape, strides: Strides, new: Shape) -> Strides | None:
    """Strides under which the same elements have another shape, in the same order; None if none."""
    if 0 in shape or 0 in new:
        return tuple(0 for _ in new)
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result: list[int] = []
    block, step = 1, 0  # what is left to split of the innermost axes taken so far
    for n in reversed(new):
        if n == 1:
            result.append(0)
            continue
        if block == 1:
            if not old:
                return None
            block, step = old.pop()
        while block % n:  # merge the next outer axis, if it continues this one
            if not old:
                return None
            outer, outer_step = old.pop()
            if outer_step != step * block:
                return None
            block *= outer
        result.append(step)
        block, step = block // n, step * n
    return tuple(reversed(result)) if block == 1 and not old else None
