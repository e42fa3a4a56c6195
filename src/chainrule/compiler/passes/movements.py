"""Rules of movement: two in a row are one, and one that moves nothing goes. All are exact."""

from __future__ import annotations

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.passes.rewrite import Rewriter, made_by, rule
from chainrule.graph import Shape
from chainrule.primitives import movement as m


@rule("alias", "copy")
def another_name(g: Rewriter, op: Op) -> Value | None:
    return op.inputs[0]


# --- reshape --------------------------------------------------------------------------------------


@rule("reshape")
def reshape_once(g: Rewriter, op: Op) -> Value | None:
    (x,), shape = op.inputs, op.params["shape"]
    if x.shape == shape:
        return x
    if made_by(x, "reshape"):
        return g.make(m.reshape, x.op.inputs[0], shape=shape)
    return None


def _without_ones(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


@rule("reshape")
def reshape_of_repeated(g: Rewriter, op: Op) -> Value | None:
    """A repetition that only gets or loses axes of length 1 is a repetition still."""
    (x,), shape = op.inputs, op.params["shape"]
    if not made_by(x, "broadcast_to") or _without_ones(x.shape) != _without_ones(shape):
        return None
    source = x.op.inputs[0]
    lengths = (1,) * (x.ndim - source.ndim) + source.shape
    kept = [n for n, full in zip(lengths, x.shape, strict=True) if full != 1]
    inner = iter(kept)
    new = tuple(1 if n == 1 else next(inner) for n in shape)
    return g.make(m.broadcast_to, g.make(m.reshape, source, shape=new), shape=shape)


# --- permute --------------------------------------------------------------------------------------


@rule("permute")
def permute_once(g: Rewriter, op: Op) -> Value | None:
    (x,), axes = op.inputs, op.params["axes"]
    long = [a for a in axes if x.shape[a] != 1]
    if long == sorted(long):  # only axes of length 1 change places
        return g.make(m.reshape, x, shape=op.output.shape)
    if made_by(x, "permute"):
        before = x.op.params["axes"]
        return g.make(m.permute, x.op.inputs[0], axes=tuple(before[a] for a in axes))
    return None


@rule("permute")
def permute_of_repeated(g: Rewriter, op: Op) -> Value | None:
    (x,), axes = op.inputs, op.params["axes"]
    if not made_by(x, "broadcast_to"):
        return None
    source = x.op.inputs[0]
    lengths = (1,) * (x.ndim - source.ndim) + source.shape
    full = g.make(m.reshape, source, shape=lengths)
    return g.make(m.broadcast_to, g.make(m.permute, full, axes=axes), shape=op.output.shape)


# --- broadcast ------------------------------------------------------------------------------------


@rule("broadcast_to")
def broadcast_once(g: Rewriter, op: Op) -> Value | None:
    (x,), shape = op.inputs, op.params["shape"]
    if x.shape == shape:
        return x
    number = g.number(x)
    if number is not None and x in g.constants:
        return g.full(number, op.output)
    if made_by(x, "broadcast_to"):
        return g.make(m.broadcast_to, x.op.inputs[0], shape=shape)
    if made_by(x, "reshape"):
        # Leading axes of length 1 are what broadcasting adds by itself.
        source, lead = x.op.inputs[0], 0
        while lead < x.ndim and x.shape[lead] == 1:
            lead += 1
        if source.shape == x.shape[lead:]:
            return g.make(m.broadcast_to, source, shape=shape)
    return None


# --- slice, flip, pad, concat ---------------------------------------------------------------------


def _whole(op: Op) -> bool:
    return op.inputs[0].shape == op.output.shape


@rule("slice")
def slice_once(g: Rewriter, op: Op) -> Value | None:
    (x,) = op.inputs
    starts, lengths, steps = (op.params[k] for k in ("starts", "lengths", "steps"))
    if _whole(op):
        return x
    if made_by(x, "slice"):
        before = x.op.params
        return g.make(
            m.slice_, x.op.inputs[0],
            starts=tuple(
                a + b * s for a, b, s in zip(before["starts"], starts, before["steps"], strict=True)
            ),
            lengths=lengths,
            steps=tuple(s * t for s, t in zip(before["steps"], steps, strict=True)),
        )  # fmt: skip
    return None


@rule("slice")
def slice_of_padded(g: Rewriter, op: Op) -> Value | None:
    """What is cut out of a padded array, if it is none of the padding, is cut out of the array."""
    (x,) = op.inputs
    if not made_by(x, "pad") or 0 in op.output.shape:
        return None
    (source,), widths = x.op.inputs, x.op.params["widths"]
    starts, lengths, steps = (op.params[k] for k in ("starts", "lengths", "steps"))
    new_starts, new_steps = [], []
    for n, (low, _, interior), a, length, s in zip(
        source.shape, widths, starts, lengths, steps, strict=True
    ):
        gap = interior + 1
        if a < low or (a - low) % gap or (length > 1 and s % gap):
            return None
        first, step = (a - low) // gap, max(1, s // gap)
        if first + (length - 1) * step >= n:
            return None
        new_starts.append(first)
        new_steps.append(step)
    return g.make(
        m.slice_, source, starts=tuple(new_starts), lengths=lengths, steps=tuple(new_steps)
    )


@rule("slice")
def slice_of_concat(g: Rewriter, op: Op) -> Value | None:
    """A part of one of the parts."""
    (x,) = op.inputs
    if not made_by(x, "concat"):
        return None
    axis, starts = x.op.params["axis"], op.params["starts"]
    length, step = op.params["lengths"][axis], op.params["steps"][axis]
    begin = 0
    for part in x.op.inputs:
        end = begin + part.shape[axis]
        if length and begin <= starts[axis] and starts[axis] + (length - 1) * step < end:
            moved = tuple(a - begin if i == axis else a for i, a in enumerate(starts))
            return g.make(
                m.slice_, part, starts=moved, lengths=op.params["lengths"], steps=op.params["steps"]
            )
        begin = end
    return None


@rule("flip")
def flip_once(g: Rewriter, op: Op) -> Value | None:
    (x,) = op.inputs
    axes = tuple(a for a in op.params["axes"] if x.shape[a] > 1)
    if not axes:
        return x
    if made_by(x, "flip"):
        both = set(axes) ^ set(x.op.params["axes"])
        return g.make(m.flip, x.op.inputs[0], axes=tuple(sorted(both)))
    return None


@rule("pad")
def pad_once(g: Rewriter, op: Op) -> Value | None:
    (x,) = op.inputs
    if all(
        low == high == 0 and (interior == 0 or n < 2)
        for n, (low, high, interior) in zip(x.shape, op.params["widths"], strict=True)
    ):
        return x
    return None


@rule("concat")
def concat_of_one(g: Rewriter, op: Op) -> Value | None:
    axis = op.params["axis"]
    parts = [x for x in op.inputs if x.shape[axis]]
    if len(parts) == 1:
        return parts[0]
    return g.make(m.concat, *parts, axis=axis) if 0 < len(parts) < len(op.inputs) else None


@rule("slice_set")
def slice_set_whole(g: Rewriter, op: Op) -> Value | None:
    x, updates = op.inputs
    if updates.shape == x.shape:
        return updates
    return x if updates.size == 0 else None
