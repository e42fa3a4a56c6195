"""Rules of indices: what is known of their range, and picking one element of each row.

`bounds` follows a value of integers back to what limits it. An index that is known to be inside
needs no check and, if it cannot be negative, no wrapping.

    gather(flat(y), (n, label_n))      ->  sum over c of (y_nc where label_n = c, 0 elsewhere)
    scatter_add(g, (n, label_n))       ->  g_n where label_n = c, 0 elsewhere

so that picking the label's score, and its derivative, fuse with the softmax around them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.passes.rewrite import Rewriter, in_room, made_by, op_of, rule
from chainrule.errors import IndexingError
from chainrule.graph import Array, Spec
from chainrule.primitives import elementwise as e
from chainrule.primitives import movement as m
from chainrule.primitives import reduction
from chainrule.primitives.checks import check

Range = tuple[int, int]
_MOVES = ("reshape", "permute", "broadcast_to", "slice", "flip", "alias", "copy", "detach")
_COMPUTED = frozenset(one.name for one in in_room(e))
DEPTH = 12  # operations that are followed back


def bounds(g: Rewriter, value: Value, depth: int = DEPTH) -> Range | None:
    """The least and the largest number that a value of integers can hold; None if unknown."""
    array = g.constants.get(value)
    if array is not None:
        return (int(array.min()), int(array.max())) if array.size else (0, 0)
    checked = _checked(g, value)
    if checked is not None and checked[1] is None:
        return checked[0]
    op = value.op
    if op is None or not depth:
        return None
    inputs = [bounds(g, x, depth - 1) for x in op.inputs if x.dtype.kind in "ui"]
    if op.name in _MOVES or (op.name == "cast" and op.inputs[0].dtype.kind in "ui"):
        return inputs[0]
    if op.name in ("argmax", "argmin"):
        return 0, op.inputs[0].shape[op.params["axis"]] - 1
    if op.name == "where":
        return _choice(g, op, depth)
    if None in inputs:
        return None
    pairs: list[Any] = inputs
    if op.name in ("add", "sub", "mul"):
        (a, b), (c, d) = pairs
        ends = {
            "add": [a + c, b + d], "sub": [a - d, b - c], "mul": [a * c, a * d, b * c, b * d]
        }[op.name]  # fmt: skip
        limit = np.iinfo(value.dtype)
        return (min(ends), max(ends)) if min(ends) >= limit.min and max(ends) <= limit.max else None
    if op.name == "ravel_index":
        return 0, int(np.prod(op.params["dims"])) - 1
    return None


def _checked(g: Rewriter, value: Value) -> tuple[Range, int | None] | None:
    """The range that a check demands of a value, and the number that it lets pass beside it."""
    for op in g.checks.get(value, ()):
        low, high, ignore = (op.params[k] for k in ("low", "high", "ignore"))
        if np.isfinite(low) and np.isfinite(high):
            return (int(low), int(high)), None if ignore is None else int(ignore)
    return None


def _choice(g: Rewriter, op: Op, depth: int) -> Range | None:
    condition, x, y = op.inputs
    first, second = bounds(g, x, depth - 1), bounds(g, y, depth - 1)
    checked = _checked(g, y)
    if second is None and checked is not None and made_by(condition, "eq"):
        # The number that the check lets pass is the one that is replaced here.
        left, right = op_of(condition).inputs
        if left is y and g.number(right) == checked[1]:
            second = checked[0]
    if first is None or second is None:
        return None
    return min(first[0], second[0]), max(first[1], second[1])


# --- ravel_index ----------------------------------------------------------------------------------


def _refusal(n: int) -> Any:
    def refuse(index: Array) -> Exception:
        low, high = int(index.min()), int(index.max())
        bad = low if low < -n else high
        return IndexingError(f"index {bad} is out of bounds for an axis of length {n}.")

    return refuse


def inside(g: Rewriter, index: Value, n: int) -> Value:
    """The index as int64 from 0 to n - 1: checked and wrapped, as far as it needs that."""
    known = bounds(g, index)
    wide = g.make(e.cast, index, dtype=np.dtype(np.int64))
    if known is None or known[0] < -n or known[1] >= n:
        g.make(check, index, low=-n, high=n - 1, ignore=None, nan=False, refuse=_refusal(n))
    elif known[0] >= 0:
        return wide
    if index.dtype.kind == "u":
        return wide
    negative = g.make(e.lt, wide, g.full(0, wide))
    return g.make(e.where, negative, g.make(e.add, wide, g.full(n, wide)), wide)


@rule("ravel_index")
def index_arithmetic(g: Rewriter, op: Op) -> Value | None:
    if g.keeps_indices:
        return None
    flat = None
    for index, n in zip(op.inputs, op.params["dims"], strict=True):
        place = inside(g, index, n)
        if flat is not None:
            flat = g.make(e.mul, flat, g.full(n, flat))
            place = g.make(e.add, flat, place)
        flat = place
    return flat


# --- powers of integers ---------------------------------------------------------------------------


@rule("pow")
def checked_power(g: Rewriter, op: Op) -> Value | None:
    """x^n of integers: n is checked, and without signs the product is the same, modulo 2^bits."""
    if op.output.dtype.kind != "i" or g.keeps_indices:
        return None
    x, n = op.inputs
    known = bounds(g, n)
    if known is None or known[0] < 0:
        how: dict[str, Any] = {"low": 0, "high": np.inf, "ignore": None, "nan": False}
        g.make(check, n, refuse=e.negative_power, **how)
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    x, n = (g.make(e.cast, v, dtype=unsigned) for v in (x, n))
    return g.make(e.cast, g.make(e.pow, x, n), dtype=op.output.dtype)


# --- picking one element of each row --------------------------------------------------------------


def _picked(g: Rewriter, index: Value, shape: Any) -> tuple[int, Value] | None:
    """(axis, index along it) if a flat index picks one element along that axis for each place."""
    while made_by(index, "reshape"):
        index = op_of(index).inputs[0]
    if not made_by(index, "ravel_index") or op_of(index).params["dims"] != shape:
        return None
    parts, axis = op_of(index).inputs, None
    for a, part in enumerate(parts):
        if index.ndim != len(shape):
            return None
        array = g.constants.get(part)
        if index.shape[a] == shape[a] and array is not None and _counts(array, a):
            continue
        if axis is not None or index.shape[a] != 1:
            return None
        axis = a
    return None if axis is None else (axis, parts[axis])


def _counts(array: Array, axis: int) -> bool:
    """Whether each element of an array is its position along an axis."""
    line = (1,) * axis + (-1,) + (1,) * (array.ndim - axis - 1)
    return bool(np.all(array == np.arange(array.shape[axis]).reshape(line)))


def _hits(g: Rewriter, picked: tuple[int, Value], shape: Any) -> Value:
    """For each element of a shape whether it is the one that is picked."""
    axis, index = picked
    place = g.make(m.broadcast_to, inside(g, index, shape[axis]), shape=shape)
    line = (1,) * axis + (-1,) + (1,) * (len(shape) - axis - 1)
    counted = g.constant(np.arange(shape[axis], dtype=np.int64).reshape(line))
    hit = g.make(e.eq, place, g.make(m.broadcast_to, counted, shape=shape))
    g.hits[hit] = axis
    return hit


@rule("gather")
def pick_of_row(g: Rewriter, op: Op) -> Value | None:
    x, index = op.inputs
    if not made_by(x, "reshape") or x.ndim != 1 or not x.size or x.dtype.kind not in "fui":
        return None
    rows = op_of(x).inputs[0]
    if rows.op is None or rows.op.name not in _COMPUTED:
        return None  # of what lies in memory anyway one element is read sooner than a row
    picked = _picked(g, index, rows.shape)
    if picked is None:
        return None
    hit = _hits(g, picked, rows.shape)
    zeros = g.full(0, rows)
    chosen = g.make(e.where, hit, rows, zeros)
    total = g.make(reduction.sum, chosen, axes=(picked[0],))
    return g.make(m.reshape, total, shape=op.output.shape)


@rule("reshape")
def scatter_to_row(g: Rewriter, op: Op) -> Value | None:
    (x,), shape = op.inputs, op.params["shape"]
    if not made_by(x, "scatter_add") or x.ndim != 1 or not x.size:
        return None
    updates, index = op_of(x).inputs
    picked = _picked(g, index, shape)
    if picked is None:
        return None
    hit = _hits(g, picked, shape)
    narrow = tuple(1 if a == picked[0] else n for a, n in enumerate(shape))
    rows = g.make(m.reshape, updates, shape=narrow)
    spread = g.make(m.broadcast_to, rows, shape=shape)
    return g.make(e.where, hit, spread, g.full(0, Spec(shape, x.dtype)))


@rule("sum")
def sum_of_the_picked(g: Rewriter, op: Op) -> Value | None:
    """The sum of a row that is 0 but for one element, which is the same wherever it stands."""
    (x,), axes = op.inputs, op.params["axes"]
    negative = made_by(x, "neg")
    if negative:
        x = op_of(x).inputs[0]
    if not made_by(x, "where"):
        return None
    hit, value, rest = op_of(x).inputs
    if g.hits.get(hit) is None or axes != (g.hits[hit],) or g.number(rest) != 0:
        return None
    source = op_of(value).inputs[0] if made_by(value, "broadcast_to") else None
    if source is None:
        return None
    place = axes[0] - (value.ndim - source.ndim)
    if place >= 0 and source.shape[place] != 1:
        return None
    narrow = tuple(1 if a in axes else n for a, n in enumerate(value.shape))
    row = g.make(m.reshape, g.make(m.broadcast_to, source, shape=narrow), shape=op.output.shape)
    return g.make(e.neg, row) if negative else row
