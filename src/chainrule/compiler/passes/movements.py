"""Rules of movement: two in a row are one, and one that moves nothing goes. All are exact."""

from __future__ import annotations

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.passes.rewrite import Rewriter, made_by, op_of, rule
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
        return g.make(m.reshape, op_of(x).inputs[0], shape=shape)
    return None


def matched(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """The axes of a reshape in blocks of equal products, as short as can be: old axes, new axes."""
    if 0 in old or 0 in new:
        return [(list(range(len(old))), list(range(len(new))))]
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right, n, m_ = [], [], 1, 1
        while n != m_ or not (left or right):
            if j >= len(new) or (n <= m_ and i < len(old)):
                left.append(i)
                n *= old[i]
                i += 1
            else:
                right.append(j)
                m_ *= new[j]
                j += 1
        # Axes of length 1 that follow belong to this block, so that none is left alone.
        while i < len(old) and old[i] == 1:
            left.append(i)
            i += 1
        while j < len(new) and new[j] == 1:
            right.append(j)
            j += 1
        blocks.append((left, right))
    return blocks


@rule("reshape")
def reshape_of_repeated(g: Rewriter, op: Op) -> Value | None:
    """A repetition along whole blocks of axes is a repetition in the new shape too."""
    (x,), shape = op.inputs, op.params["shape"]
    if not made_by(x, "broadcast_to") or not x.size:
        return None
    source = op_of(x).inputs[0]
    lengths = (1,) * (x.ndim - source.ndim) + source.shape
    new = [1] * len(shape)
    for old_axes, new_axes in matched(x.shape, shape):
        long = [a for a in old_axes if x.shape[a] != 1]
        if all(lengths[a] == 1 for a in long):
            continue
        if any(lengths[a] == 1 for a in long):
            return None
        for b in new_axes:
            new[b] = shape[b]
    return g.make(m.broadcast_to, g.make(m.reshape, source, shape=tuple(new)), shape=shape)


# --- permute --------------------------------------------------------------------------------------


@rule("permute")
def permute_once(g: Rewriter, op: Op) -> Value | None:
    (x,), axes = op.inputs, op.params["axes"]
    long = [a for a in axes if x.shape[a] != 1]
    if long == sorted(long):  # only axes of length 1 change places
        return g.make(m.reshape, x, shape=op.output.shape)
    if made_by(x, "permute"):
        before = op_of(x).params["axes"]
        return g.make(m.permute, op_of(x).inputs[0], axes=tuple(before[a] for a in axes))
    return None


@rule("permute")
def permute_of_repeated(g: Rewriter, op: Op) -> Value | None:
    (x,), axes = op.inputs, op.params["axes"]
    if not made_by(x, "broadcast_to"):
        return None
    source = op_of(x).inputs[0]
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
        return g.make(m.broadcast_to, op_of(x).inputs[0], shape=shape)
    if made_by(x, "reshape"):
        # Leading axes of length 1 are what broadcasting adds by itself.
        source, lead = op_of(x).inputs[0], 0
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
        before = op_of(x).params
        return g.make(
            m.slice_, op_of(x).inputs[0],
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
    (source,), widths = op_of(x).inputs, op_of(x).params["widths"]
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
    axis, starts = op_of(x).params["axis"], op.params["starts"]
    length, step = op.params["lengths"][axis], op.params["steps"][axis]
    begin = 0
    for part in op_of(x).inputs:
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
        both = set(axes) ^ set(op_of(x).params["axes"])
        return g.make(m.flip, op_of(x).inputs[0], axes=tuple(sorted(both)))
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
