"""Rules of reductions, products and indexing: what can be read off the structure of a value."""

from __future__ import annotations

import math

import numpy as np

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.passes.movements import matched
from chainrule.compiler.passes.rewrite import Rewriter, made_by, op_of, rule
from chainrule.primitives import elementwise as e
from chainrule.primitives import linalg, reduction
from chainrule.primitives import movement as m

# --- reductions -----------------------------------------------------------------------------------


@rule("sum", "max", "min", "all", "any")
def reduce_nothing(g: Rewriter, op: Op) -> Value | None:
    """Reducing axes of length 1 only takes the axes away."""
    (x,), axes = op.inputs, op.params["axes"]
    if not axes:
        return x
    if all(x.shape[a] == 1 for a in axes):
        return g.make(m.reshape, x, shape=op.output.shape)
    return None


@rule("sum", "max", "min", "all", "any")
def reduce_once(g: Rewriter, op: Op) -> Value | None:
    """A reduction of a reduction is one over the axes of both."""
    (x,), axes = op.inputs, op.params["axes"]
    if not made_by(x, op.name):
        return None
    (source,), before = op_of(x).inputs, op_of(x).params["axes"]
    left = [a for a in range(source.ndim) if a not in before]
    both = tuple(sorted({*before, *(left[a] for a in axes)}))
    return g.make(op.primitive, source, axes=both)


@rule("sum", "max", "min", "all", "any")
def reduce_reshaped(g: Rewriter, op: Op) -> Value | None:
    """Whole blocks of axes are reduced as they were before a reshape."""
    (x,), axes = op.inputs, op.params["axes"]
    if not made_by(x, "reshape") or not x.size:
        return None
    source = op_of(x).inputs[0]
    reduced: list[int] = []
    for old, new in matched(source.shape, x.shape):
        long = [a in axes for a in new if x.shape[a] != 1]
        if any(long) and not all(long):
            return None
        if any(long):
            reduced += [a for a in old if source.shape[a] != 1]
    total = g.make(op.primitive, source, axes=tuple(reduced))
    return g.make(m.reshape, total, shape=op.output.shape)


@rule("sum")
def sum_of_repeated(g: Rewriter, op: Op) -> Value | None:
    """The sum of n equal numbers is n times one of them; it rounds once instead of n times."""
    (x,), axes = op.inputs, op.params["axes"]
    if not made_by(x, "broadcast_to") or x.size == 0 or x.dtype.kind not in "fui":
        return None
    source = op_of(x).inputs[0]
    lead = x.ndim - source.ndim
    repeated = {a for a in axes if x.shape[a] != 1 and (a < lead or source.shape[a - lead] == 1)}
    if not repeated:
        return None
    count = math.prod(x.shape[a] for a in repeated)
    if x.dtype.kind in "ui" and count > np.iinfo(x.dtype).max:
        return None
    narrow = tuple(1 if a in repeated else n for a, n in enumerate(x.shape))
    small = g.make(m.broadcast_to, source, shape=narrow)
    total = g.make(reduction.sum, small, axes=axes)
    return g.make(e.mul, total, g.full(count, total))


@rule("max", "min")
def extreme_of_repeated(g: Rewriter, op: Op) -> Value | None:
    (x,), axes = op.inputs, op.params["axes"]
    if not made_by(x, "broadcast_to") or x.size == 0:
        return None
    source = op_of(x).inputs[0]
    lead = x.ndim - source.ndim
    repeated = {a for a in axes if x.shape[a] != 1 and (a < lead or source.shape[a - lead] == 1)}
    if not repeated:
        return None
    narrow = tuple(1 if a in repeated else n for a, n in enumerate(x.shape))
    return g.make(op.primitive, g.make(m.broadcast_to, source, shape=narrow), axes=axes)


# --- shares of a sum ------------------------------------------------------------------------------


@rule("mul")
def derivative_of_a_share(g: Rewriter, op: Op) -> Value | None:
    """(d/s + sum(-d z / s)) e = (d - sum(d z)) z for z = e / s: softmax needs its result alone.

    s is one number for each row that is summed over.
    """
    for whole, e_i in (op.inputs, op.inputs[::-1]):
        if not made_by(whole, "add"):
            continue
        for own, others in (op_of(whole).inputs, op_of(whole).inputs[::-1]):
            if not made_by(own, "div"):
                continue
            d, s = op_of(own).inputs
            z, total = _share_of_row(others, d, s)
            if z is not None and total is not None and op_of(z).inputs == (e_i, s):
                product = g.make(e.mul, d, z)
                row = g.make(reduction.sum, product, axes=op_of(total).params["axes"])
                kept = tuple(
                    1 if a in op_of(total).params["axes"] else n for a, n in enumerate(z.shape)
                )
                spread = g.make(m.broadcast_to, g.make(m.reshape, row, shape=kept), shape=z.shape)
                return g.make(e.mul, g.make(e.sub, d, spread), z)
    return None


def _share_of_row(x: Value, d: Value, s: Value) -> tuple[Value | None, Value | None]:
    """(z, sum) if x repeats sum(-(d z) / s) along the axes along which s repeats."""
    spread = _repeated(x)
    if spread is None or not made_by(spread, "sum"):
        return None, None
    (inside,), axes = op_of(spread).inputs, op_of(spread).params["axes"]
    rows = _repeated(s)
    if rows is None or rows.shape != spread.shape or not made_by(inside, "div"):
        return None, None
    if inside.shape != x.shape or not _keeps_axes(x, axes) or not _keeps_axes(s, axes):
        return None, None
    negative, divisor = op_of(inside).inputs
    z = _negative_factor(negative, d)
    if divisor is not s or z is None or not made_by(z, "div"):
        return None, None
    return z, spread


def _negative_factor(x: Value, d: Value) -> Value | None:
    """The z of x = -(d z), written -(d z) or (-d) z."""
    if made_by(x, "neg") and made_by(op_of(x).inputs[0], "mul"):
        one, other = op_of(op_of(x).inputs[0]).inputs
        return other if one is d else one if other is d else None
    if not made_by(x, "mul"):
        return None
    for one, other in (op_of(x).inputs, op_of(x).inputs[::-1]):
        if made_by(one, "neg") and op_of(one).inputs[0] is d:
            return other
    return None


def _repeated(x: Value) -> Value | None:
    """What a value repeats along new axes (which a reshape may have made of length 1)."""
    if not made_by(x, "broadcast_to"):
        return None
    narrow = op_of(x).inputs[0]
    return op_of(narrow).inputs[0] if made_by(narrow, "reshape") else narrow


def _keeps_axes(x: Value, axes: tuple[int, ...]) -> bool:
    """Whether what a value repeats has all its axes but some, in order."""
    narrow, source = op_of(x).inputs[0], _repeated(x)
    assert source is not None
    shape = (1,) * (x.ndim - narrow.ndim) + narrow.shape
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    return shape == kept and source.shape == tuple(
        n for a, n in enumerate(x.shape) if a not in axes
    )


# --- softmax --------------------------------------------------------------------------------------


@rule("div")
def note_softmax(g: Rewriter, op: Op) -> Value | None:
    """Remember z = p / sum(p) with p = e^x for the rule below."""
    powers, total = op.inputs
    if made_by(powers, "exp") and made_by(total, "broadcast_to"):
        row = op_of(total).inputs[0]
        while made_by(row, "reshape"):
            row = op_of(row).inputs[0]
        if made_by(row, "sum") and op_of(row).inputs[0] is powers:
            g.shares[powers] = op.output, total
    return None


@rule("mul")
def powers_from_softmax(g: Rewriter, op: Op) -> Value | None:
    """Where z is kept, its derivative reads p = z sum(p), and p need not be kept as well.

    The two differ in rounding; where the sum is 0 or infinite the derivative is NaN either way.
    """
    for powers, other in (op.inputs, reversed(op.inputs)):
        share = g.shares.get(powers)
        if share is not None and other is not powers:
            return g.make(e.mul, g.make(e.mul, other, share[1]), share[0])
    return None


# --- matrix products ------------------------------------------------------------------------------


def _swapped(x: Value) -> bool:
    """Whether a value is another one with its last two axes exchanged."""
    swap = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    return made_by(x, "permute") and op_of(x).params["axes"] == swap


def _turned(x: Value) -> bool:
    """Whether a value is another one with its axes permuted, the last one no longer the last."""
    return made_by(x, "permute") and op_of(x).params["axes"][-1] != x.ndim - 1


def _swap(g: Rewriter, x: Value) -> Value:
    return g.make(m.permute, x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


@rule("permute")
def transposed_product(g: Rewriter, op: Op) -> Value | None:
    """(x y)^T = y^T x^T: what follows a product then meets it in its own order."""
    (z,) = op.inputs
    axes, rows, columns = op.params["axes"], z.ndim - 2, z.ndim - 1
    if not made_by(z, "matmul") or axes[-1] != rows:
        return None
    x, y = op_of(z).inputs
    is_outer = x.shape[-1] == 1  # of a column, which turned is a row, as it lies
    if not (is_outer or _turned(x) or _turned(y)):
        return None
    product = g.make(linalg.matmul, _swap(g, y), _swap(g, x))
    others = {rows: columns, columns: rows}
    return g.make(m.permute, product, axes=tuple(others.get(a, a) for a in axes))


@rule("matmul")
def one_large_product(g: Rewriter, op: Op) -> Value | None:
    """Many products with the same right side are one, with all rows below each other."""
    x, y = op.inputs
    if x.ndim < 3 or not made_by(y, "broadcast_to") or 0 in op.output.shape:
        return None
    source = op_of(y).inputs[0]
    if source.shape[-2:] != y.shape[-2:] or math.prod(source.shape[:-2]) != 1:
        return None
    rows = math.prod(x.shape[:-1])
    flat = g.make(m.reshape, x, shape=(rows, x.shape[-1]))
    right = g.make(m.reshape, source, shape=source.shape[-2:])
    product = g.make(linalg.matmul, flat, right)
    return g.make(m.reshape, product, shape=op.output.shape)


@rule("sum")
def sum_of_products(g: Rewriter, op: Op) -> Value | None:
    """sum over b of x_b^T y_b is one product over all rows of all b."""
    (x,), axes = op.inputs, op.params["axes"]
    if not made_by(x, "matmul") or x.ndim < 3 or axes != tuple(range(x.ndim - 2)):
        return None
    left, right = op_of(x).inputs
    if not _swapped(left) or 0 in left.shape:
        return None
    source = op_of(left).inputs[0]
    rows = math.prod(source.shape[:-1])
    tall = g.make(m.reshape, source, shape=(rows, source.shape[-1]))
    other = g.make(m.reshape, right, shape=(rows, right.shape[-1]))
    return g.make(linalg.matmul, g.make(m.permute, tall, axes=(1, 0)), other)
