"""How the elements of a value are found from the elements of one that is computed from it."""

from __future__ import annotations

from chainrule.compiler.ir import Op
from chainrule.compiler.native.expressions import REDUCTIONS
from chainrule.graph import Shape

MOVEMENTS = frozenset({
    "reshape", "permute", "broadcast_to", "slice", "flip", "pad", "concat", "alias", "copy",
    "detach",
})  # fmt: skip

Axes = tuple[int | None, ...]
"""For each axis of a value the axis of its reader that runs along it; None if of length 1."""


def visited(op: Op) -> Shape:
    """The shape whose elements an operation goes through."""
    return op.inputs[0].shape if op.name in REDUCTIONS else op.output.shape


def straight(shape: Shape) -> Axes:
    """The axes of the element itself."""
    return tuple(a if n != 1 else None for a, n in enumerate(shape))


def long(shape: Shape) -> Shape:
    """A shape without its axes of length 1."""
    return tuple(n for n in shape if n != 1)


def count(shape: Shape) -> int:
    """How many elements a shape has."""
    total = 1
    for n in shape:
        total *= n
    return total


def through(op: Op, axes: Axes) -> Axes | None:
    """How the axes of an operation's output run through its (first) input; None if not straight."""
    x, z = op.inputs[0], op.output
    if op.name not in MOVEMENTS:
        return axes
    if op.name in ("alias", "copy", "detach"):
        return axes
    if op.name == "permute":
        found: list[int | None] = [None] * x.ndim
        for axis, source in zip(axes, op.params["axes"], strict=True):
            found[source] = axis
        return tuple(found)
    if op.name == "broadcast_to":
        last = axes[z.ndim - x.ndim :]
        return tuple(None if n == 1 else a for a, n in zip(last, x.shape, strict=True))
    if op.name == "reshape" and long(x.shape) == long(z.shape):
        rest = iter([a for a, n in zip(axes, z.shape, strict=True) if n != 1])
        return tuple(next(rest) if n != 1 else None for n in x.shape)
    return None
