"""Rules of arithmetic.

Floating-point numbers are no field: x - x is not 0 where x is infinite, x * 0 is not 0 where x is
NaN, x + 0 is not x where x is -0. The rules here hold for every number, the special ones included;
those that change the rounding say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.passes.rewrite import Rewriter, in_room, made_by, op_of, rule
from chainrule.primitives import elementwise as e
from chainrule.primitives import movement as m

# --- neutral elements and signs -------------------------------------------------------------------


def _is(number: Any, wanted: float) -> bool:
    """Whether a constant is a number, with its sign of zero."""
    return (
        number is not None
        and bool(number == wanted)
        and bool(np.signbit(np.real(number)) == np.signbit(wanted))
    )


@rule("add")
def add_nothing(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    for one, other in ((x, y), (y, x)):
        number = g.number(other)
        # -0 + 0 is 0, so among floats -0 alone is neutral.
        if _is(number, 0) if x.dtype.kind in "ui" else x.dtype.kind == "f" and _is(number, -0.0):
            return one
    return None


@rule("add")
def add_negative(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    if made_by(y, "neg"):
        return g.make(e.sub, x, op_of(y).inputs[0])
    return g.make(e.sub, y, op_of(x).inputs[0]) if made_by(x, "neg") else None


@rule("sub")
def subtract_nothing(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    return x if x.dtype.kind != "c" and _is(g.number(y), 0.0) else None


@rule("sub")
def subtract_negative(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    return g.make(e.add, x, op_of(y).inputs[0]) if made_by(y, "neg") else None


@rule("neg")
def double_negation(g: Rewriter, op: Op) -> Value | None:
    (x,) = op.inputs
    return op_of(x).inputs[0] if made_by(x, "neg") else None


@rule("logical_not", "bitwise_invert")
def double_inversion(g: Rewriter, op: Op) -> Value | None:
    (x,) = op.inputs
    return op_of(x).inputs[0] if made_by(x, op.name) else None


@rule("mul")
def multiply_by_one(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    if x.dtype.kind == "c":
        return None
    for one, other in ((x, y), (y, x)):
        number = g.number(other)
        if _is(number, 1.0):
            return one
        if x.dtype.kind != "u" and _is(number, -1.0):
            return g.make(e.neg, one)
        if x.dtype.kind in "ui" and _is(number, 0):
            return other
    return None


@rule("mul", "div")
def signs_cancel(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    if made_by(x, "neg") and made_by(y, "neg") and x.dtype.kind == "f":
        return g.make(op.primitive, op_of(x).inputs[0], op_of(y).inputs[0])
    return None


@rule("mul")
def gather_factors(g: Rewriter, op: Op) -> Value | None:
    """(x a) b = x (a b) for powers of two, exact unless a factor alone leaves the range."""
    x, y = op.inputs
    for one, other in ((x, y), (y, x)):
        b = g.number(other)
        if b is None or not made_by(one, "mul") or x.dtype.kind != "f" or not _power_of_two(b):
            continue
        for inner, factor in (op_of(one).inputs, reversed(op_of(one).inputs)):
            a = g.number(factor)
            if a is not None and abs(a) <= 1 and abs(b) <= 1 and abs(a * b) > 1e-30:
                return g.make(e.mul, inner, g.full(a * b, x))
    return None


def _power_of_two(number: Any) -> bool:
    return bool(np.isfinite(number) and number != 0 and abs(np.frexp(number)[0]) == 0.5)


@rule("div")
def divide_by_power_of_two(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    number = g.number(y)
    if number is None or x.dtype.kind != "f" or not _power_of_two(number):
        return None
    with np.errstate(all="ignore"):
        inverse = 1 / number
    # Beyond these the inverse, or what it is of, is no normal number any more.
    if not 1e-30 < abs(number) < 1e30:
        return None
    return g.make(e.mul, x, g.full(inverse, y))


@rule("sub", "bitwise_xor")
def cancel_integers(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    return g.full(0, x) if x is y and x.dtype.kind in "ui" else None


# --- powers ---------------------------------------------------------------------------------------


@rule("pow")
def small_powers(g: Rewriter, op: Op) -> Value | None:
    """x^n as products, x^(1/2) as a root: the same up to the rounding of two products."""
    x, y = op.inputs
    n = g.number(y)
    if n is None or x.dtype.kind == "c":
        return None
    if n == 0:
        return g.full(1, x)
    if n == 1:
        return x
    if n == 2:
        return g.make(e.mul, x, x)
    if n == 3:
        return g.make(e.mul, g.make(e.mul, x, x), x)
    if n == 4:
        square = g.make(e.mul, x, x)
        return g.make(e.mul, square, square)
    if x.dtype.kind != "f":
        return None
    if n == -1:
        return g.make(e.div, g.full(1, x), x)
    if abs(n) == 0.5:
        # The power of -0 is that of 0, and that of -inf that of inf; the root takes neither so.
        positive = g.make(e.add, x, g.full(0.0, x))
        infinite = g.make(e.eq, x, g.full(-np.inf, x))
        root = g.make(e.sqrt, g.make(e.where, infinite, g.full(np.inf, x), positive))
        return root if n > 0 else g.make(e.div, g.full(1, x), root)
    return None


# --- choice, extremes, comparison -----------------------------------------------------------------


@rule("where")
def decided_choice(g: Rewriter, op: Op) -> Value | None:
    condition, x, y = op.inputs
    if x is y:
        return x
    decided = g.number(condition)
    if decided is not None:
        return x if decided else y
    if made_by(condition, "logical_not"):
        return g.make(e.where, op_of(condition).inputs[0], y, x)
    return None


@rule("where")
def nested_choice(g: Rewriter, op: Op) -> Value | None:
    condition, x, y = op.inputs
    if made_by(x, "where") and op_of(x).inputs[0] is condition:
        return g.make(e.where, condition, op_of(x).inputs[1], y)
    if made_by(y, "where") and op_of(y).inputs[0] is condition:
        return g.make(e.where, condition, x, op_of(y).inputs[2])
    return None


@rule("maximum", "minimum", "logical_and", "logical_or", "bitwise_and", "bitwise_or")
def of_itself(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    return x if x is y else None


@rule("logical_and", "logical_or")
def decided_logic(g: Rewriter, op: Op) -> Value | None:
    x, y = op.inputs
    neutral = op.name == "logical_and"
    for one, other in ((x, y), (y, x)):
        number = g.number(other)
        if number is not None:
            return one if bool(number) == neutral else other
    return None


# --- casts ----------------------------------------------------------------------------------------

_EXACT = {
    "float32": {"float64"},
    **{
        name: {
            other
            for other in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
            if np.can_cast(name, other)
        }
        | ({"float32"} if np.dtype(name).itemsize <= 2 else set())
        | ({"float64"} if np.dtype(name).itemsize <= 4 else set())
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}


def _keeps(source: Any, wide: Any, result: Any) -> bool:
    """Whether `result` of `wide` of a number is `result` of the number."""
    if source == wide:
        return True
    if source.kind == "b":
        return wide.kind in "uif"
    if wide.name not in _EXACT.get(source.name, ()):
        return False
    # A float beyond an integer's range has no defined cast, and each way takes its own.
    return wide.kind in "ui" or result.kind == "f"


@rule("cast")
def casts(g: Rewriter, op: Op) -> Value | None:
    (x,), dtype = op.inputs, op.params["dtype"]
    if x.dtype == dtype:
        return x
    if made_by(x, "cast") and _keeps(op_of(x).inputs[0].dtype, x.dtype, dtype):
        return g.make(e.cast, op_of(x).inputs[0], dtype=dtype)
    return None


# --- what repeats is computed once ----------------------------------------------------------------


@rule(*(one.name for one in in_room(e)))
def compute_before_repeating(g: Rewriter, op: Op) -> Value | None:
    """f(broadcast(x), broadcast(y), 2) = broadcast(f(x, y, 2))."""
    source = None
    for x in op.inputs:
        if made_by(x, "broadcast_to"):
            if source is not None and op_of(x).inputs[0].shape != source.shape:
                return None
            source = op_of(x).inputs[0]
        elif g.number(x) is None or x not in g.constants:
            return None
    if source is None or source.size == op.output.size:
        return None
    inputs = [
        op_of(x).inputs[0]
        if made_by(x, "broadcast_to")
        else g.constant(_narrow(g.constants[x], source.shape))
        for x in op.inputs
    ]
    small = g.make(op.primitive, *inputs, **op.params)
    return g.make(m.broadcast_to, small, shape=op.output.shape)


@rule(*(one.name for one in in_room(e)))
def compute_before_reshaping(g: Rewriter, op: Op) -> Value | None:
    """f(reshape(x), y) = reshape(f(x, reshape(y))), if the last axis stays as it is.

    Batches of rows, which products see as one long matrix, are then seen so by everything else.
    """
    shapes = [op_of(x).inputs[0].shape for x in op.inputs if _is_batched(x)]
    if not shapes:
        return None
    shape = min(shapes, key=lambda s: (len(s), s))
    inputs = []
    for x in op.inputs:
        if g.number(x) is not None and x in g.constants:
            inputs.append(g.constant(_narrow(g.constants[x], shape)))
        else:
            inputs.append(g.make(m.reshape, x, shape=shape))
    small = g.make(op.primitive, *inputs, **op.params)
    return g.make(m.reshape, small, shape=op.output.shape)


def _is_batched(x: Value) -> bool:
    """Whether a value is a computed one with other leading axes, and more of them."""
    if not made_by(x, "reshape"):
        return False
    source = op_of(x).inputs[0]
    return bool(
        source.op is not None
        and source.ndim > 1
        and (source.ndim, source.shape) < (x.ndim, x.shape)  # so this comes to an end
        and x.shape[-1] == source.shape[-1] > 1
    )


def _narrow(array: Any, shape: Any) -> Any:
    """The number that fills an array, filling another shape."""
    stored = array[(0,) * array.ndim].tobytes()
    return np.ndarray(shape, array.dtype, stored, 0, (0,) * len(shape))
