"""Makers of elementwise operations, movements, reductions and order."""

from __future__ import annotations

import math

import numpy as np
from graphs import FLOATS, INTS, Maker
from making import filled, maker, primitive, region, shuffled

from chainrule.compiler.ir import Value
from chainrule.primitives import (
    elementwise,
    movement,
    reduction,
    sorting,
)

# --- elementwise ----------------------------------------------------------------------------------

# Where each function is tame: neither steep, nor near the edge of where it is defined.
DOMAINS: dict[str, tuple[float, float]] = {
    "exp": (-6, 6), "expm1": (-6, 6), "log": (0.25, 50), "log2": (0.25, 50), "log10": (0.25, 50),
    "log1p": (-0.7, 50), "sqrt": (0.01, 100), "sin": (-9, 9), "cos": (-9, 9), "tan": (-1.2, 1.2),
    "asin": (-0.9, 0.9), "acos": (-0.9, 0.9), "atan": (-50, 50), "sinh": (-5, 5), "cosh": (-5, 5),
    "tanh": (-50, 50), "asinh": (-50, 50), "acosh": (1.1, 50), "atanh": (-0.9, 0.9),
    "sigmoid": (-50, 50), "erf": (-4, 4), "erfinv": (-0.9, 0.9),
}  # fmt: skip


@maker(*DOMAINS)
def function(m: Maker, name: str) -> Value:
    return m.add(primitive(name), m.tame(m.find("f"), *DOMAINS[name]))


@maker("neg", "abs", "relu")
def simple(m: Maker, name: str) -> Value:
    return m.add(primitive(name), m.find("f" if name == "relu" else "fi"))


@maker("sign", "floor", "ceil", "trunc", "round")
def stepwise(m: Maker, name: str) -> Value:
    return m.add(primitive(name), m.find("fi", exact=True))


@maker("isnan", "isinf", "isfinite", "signbit")
def predicate(m: Maker, name: str) -> Value:
    return m.add(primitive(name), m.find("f", exact=True))


@maker("add", "sub", "mul", "maximum", "minimum")
def arithmetic(m: Maker, name: str) -> Value:
    x = m.find("fiu")
    return m.add(primitive(name), *shuffled(m, x, m.like(x)))


@maker("div")
def quotient(m: Maker) -> Value:
    y = m.tame(m.find("f"), 0.25, 50)
    return m.add(elementwise.div, m.like(y), y)


@maker("pow")
def power(m: Maker) -> Value:
    x = m.tame(m.find("f"), 0.25, 8)
    if m.random.random() < 0.6:
        exponent = m.random.choice([0, 1, 2, 3, 4, 0.5, -0.5, -1, 1.7])
        return m.add(elementwise.pow, x, m.splat(exponent, x))
    return m.add(elementwise.pow, x, m.tame(m.like(x), -2, 2))


@maker("floor_divide", "remainder")
def division(m: Maker, name: str) -> Value:
    x = m.find("fi", exact=True)
    divisor = m.splat(m.random.choice([1, 2, 3, -2, 4]), x)
    return m.add(primitive(name), x, divisor)


@maker("logaddexp", "atan2", "hypot")
def pairs(m: Maker, name: str) -> Value:
    x = m.tame(m.find("f"), 0.25, 20)
    return m.add(primitive(name), x, m.tame(m.like(x), 0.25, 20))


@maker("copysign", "nextafter")
def exact_pairs(m: Maker, name: str) -> Value:
    x = m.find("f", exact=True)
    return m.add(primitive(name), x, m.like(x, exact=True))


@maker("eq", "ne", "lt", "le", "gt", "ge")
def comparison(m: Maker, name: str) -> Value:
    x = m.find("fiub", exact=True)
    return m.add(primitive(name), x, m.like(x, exact=True))


@maker("logical_and", "logical_or", "logical_xor")
def logic(m: Maker, name: str) -> Value:
    x = m.find("b")
    return m.add(primitive(name), x, m.like(x))


@maker("logical_not")
def negation(m: Maker) -> Value:
    return m.add(elementwise.logical_not, m.find("b"))


@maker("bitwise_and", "bitwise_or", "bitwise_xor")
def bitwise(m: Maker, name: str) -> Value:
    x = m.find("iub")
    return m.add(primitive(name), x, m.like(x))


@maker("bitwise_invert")
def inversion(m: Maker) -> Value:
    return m.add(elementwise.bitwise_invert, m.find("iub"))


@maker("bitwise_left_shift", "bitwise_right_shift")
def shift(m: Maker, name: str) -> Value:
    x = m.find("iu")
    return m.add(primitive(name), x, m.splat(m.random.randrange(5), x))


@maker("real", "imag", "conj")
def complex_part(m: Maker, name: str) -> Value:
    return m.add(primitive(name), m.find("c"))


@maker("where")
def choice(m: Maker) -> Value:
    x = m.find("fiubc")
    condition = m.like(x, dtype="bool")
    return m.add(elementwise.where, condition, *shuffled(m, x, m.like(x)))


@maker("cast")
def cast(m: Maker) -> Value:
    x = m.find("fiub")
    names = [*FLOATS, *(INTS if x in m.exact and not negative(m, x) else INTS[:0])]
    if x in m.exact and negative(m, x):
        names += ["int64", "int32"]
    if x in m.exact:
        names.append("bool")
    return m.add(elementwise.cast, x, dtype=np.dtype(m.random.choice(names)))


def negative(m: Maker, x: Value) -> bool:
    return bool(np.any(m.numbers[x] < 0)) if x.dtype.kind in "fi" else False


# --- movement -------------------------------------------------------------------------------------


@maker("reshape")
def reshape(m: Maker) -> Value:
    x = m.find("fiub")
    left, shape = x.size, []
    while left > 1 and len(shape) < 4 and m.random.random() < 0.8:
        n = m.random.choice([d for d in range(1, left + 1) if left % d == 0][:8])
        shape.append(n)
        left //= n
    shape.insert(m.random.randint(0, len(shape)), left)
    return m.add(movement.reshape, x, shape=tuple(shape))


@maker("permute")
def permute(m: Maker) -> Value:
    x = m.find("fiub", 1)
    return m.add(movement.permute, x, axes=tuple(m.random.sample(range(x.ndim), x.ndim)))


@maker("broadcast_to")
def broadcast(m: Maker) -> Value:
    x = m.find("fiub", 0, 3)
    shape = tuple(m.random.choice((1, 3, 5)) if n == 1 else n for n in x.shape)
    lead = tuple(m.random.choice((1, 2, 4)) for _ in range(m.random.randint(0, 2)))
    if math.prod(lead) * math.prod(shape) > 8192:
        return x
    return m.add(movement.broadcast_to, x, shape=(*lead, *shape))


@maker("flip")
def flip(m: Maker) -> Value:
    x = m.find("fiub", 1)
    count = m.random.randint(0, x.ndim)
    return m.add(movement.flip, x, axes=tuple(sorted(m.random.sample(range(x.ndim), count))))


@maker("slice")
def slice_(m: Maker) -> Value:
    x = m.find("fiub", 1)
    return m.add(movement.slice_, x, **region(m, x))


@maker("pad")
def pad(m: Maker) -> Value:
    x = m.find("fiu", 1, 3)
    widths = tuple(tuple(m.random.choice((0, 0, 1, 3)) for _ in range(3)) for _ in x.shape)
    return m.add(movement.pad, x, widths=widths, value=m.random.choice((0, 0, 1)))


@maker("concat")
def concat(m: Maker) -> Value:
    x = m.find("fiub", 1)
    axis = m.random.randrange(x.ndim)
    parts = [x]
    for _ in range(m.random.randint(0, 2)):
        shape = tuple(m.random.choice((1, 2, 5)) if a == axis else n for a, n in enumerate(x.shape))
        parts.append(m.leaf(m.draw(shape, x.dtype)) if m.random.random() < 0.5 else x)
    return m.add(movement.concat, *shuffled(m, *parts), axis=axis)


@maker("alias", "copy", "detach")
def same(m: Maker, name: str) -> Value:
    return m.add(primitive(name), m.find("fiub"))


# --- reductions -----------------------------------------------------------------------------------


def axes_of(m: Maker, x: Value, low: int = 0) -> tuple[int, ...]:
    return tuple(sorted(m.random.sample(range(x.ndim), m.random.randint(low, x.ndim))))


@maker("sum")
def total(m: Maker) -> Value:
    x = m.find("fiu")
    return m.add(reduction.sum, x, axes=axes_of(m, x))


@maker("max", "min")
def extreme(m: Maker, name: str) -> Value:
    x = filled(m, m.find("fiu"))
    return m.add(primitive(name), x, axes=axes_of(m, x))


@maker("all", "any")
def all_or_any(m: Maker, name: str) -> Value:
    x = m.find("b")
    return m.add(primitive(name), x, axes=axes_of(m, x))


@maker("argmax", "argmin")
def arg_extreme(m: Maker, name: str) -> Value:
    x = filled(m, m.find("fi", 1, exact=True))
    return m.add(primitive(name), x, axis=m.random.randrange(x.ndim))


@maker("cumulative_sum")
def running(m: Maker) -> Value:
    x = m.find("fi", 1)
    return m.add(reduction.cumulative_sum, x, axis=m.random.randrange(x.ndim))


# --- order ----------------------------------------------------------------------------------------


@maker("argsort")
def argsort(m: Maker) -> Value:
    x = m.find("fi", 1, exact=True)
    return m.add(
        sorting.argsort, x, axis=m.random.randrange(x.ndim), descending=m.random.random() < 0.5
    )


@maker("searchsorted")
def searchsorted(m: Maker) -> Value:
    x = m.find("f", exact=True)
    table = m.leaf(np.sort(m.draw((m.random.choice((1, 5, 9)),), x.dtype)))
    return m.add(sorting.searchsorted, table, x, side=m.random.choice(("left", "right")))
