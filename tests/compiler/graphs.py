"""Random graphs of primitives, with inputs, and how far their results may be off.

A maker for each primitive adds one application of it to a graph, with operands found among the
values that are there or made for it. Values are `exact` if every way to compute them gives the same
bits (small integers, copies, comparisons of such): only exact values are compared, rounded, sorted
or cast to integers, where one rounding more would change everything.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np

from chainrule.compiler.ir import Graph, Value
from chainrule.graph import Primitive, Spec
from chainrule.primitives import (
    bits,
    checks,
    control,
    convolution,
    elementwise,
    indexing,
    linalg,
    movement,
    pooling,
    reduction,
    sorting,
)

Array = np.ndarray[Any, Any]
ROOMS = (
    elementwise, movement, reduction, indexing, linalg, convolution, pooling, sorting, bits, checks,
    control,
)  # fmt: skip
PRIMITIVES = {p.name: p for room in ROOMS for p in vars(room).values() if isinstance(p, Primitive)}
FLOATS, INTS = ("float32", "float64"), ("int64", "int32", "uint8")
SIZES = (1, 1, 2, 3, 4, 5, 8, 17, 33)
LARGEST = 4096  # elements of a value


class Maker:
    """A graph being made.

    Attributes:
        graph, arrays: what comes out: the graph, and an array for each input.
        exact: the values that are the same bits however they are computed.
        numbers: what each value is, to keep operands where functions are tame.
    """

    def __init__(self, random: Random):
        self.random = random
        self.graph = Graph()
        self.arrays: list[Array] = []
        self.exact: set[Value] = set()
        self.numbers: dict[Value, Array] = {}
        self.pool: list[Value] = []

    # --- leaves -----------------------------------------------------------------------------------

    def shape(self, low: int = 0, high: int = 4) -> tuple[int, ...]:
        r = self.random
        while True:
            shape = tuple(r.choice(SIZES) for _ in range(r.randint(low, high)))
            if r.random() < 0.04 and shape:
                at = r.randrange(len(shape))
                shape = (*shape[:at], 0, *shape[at + 1 :])
            if math.prod(shape) <= LARGEST:
                return shape

    def draw(self, shape: Any, dtype: Any, low: int = -4, high: int = 5) -> Array:
        """Quarters in floats and whole numbers in integers: exact, with ties and zeros."""
        rng = np.random.default_rng(self.random.randrange(1 << 32))
        dtype = np.dtype(dtype)
        if dtype.kind == "b":
            return rng.integers(0, 2, shape).astype(bool)
        if dtype.kind == "u":
            return rng.integers(0, max(high, 1), shape).astype(dtype)
        if dtype.kind == "i":
            return rng.integers(low, high, shape).astype(dtype)
        if dtype.kind == "c":
            return (rng.integers(-4, 5, shape) + 1j * rng.integers(-4, 5, shape)).astype(dtype)
        return (rng.integers(4 * low, 4 * high, shape) / 4).astype(dtype)

    def leaf(self, array: Array) -> Value:
        """An array as an input, or now and then as a constant."""
        if self.random.random() < 0.25:
            value = self.graph.constant(array)
        else:
            value = self.graph.input(Spec(array.shape, array.dtype))
            self.arrays.append(array)
        self.numbers[value] = array
        self.exact.add(value)
        self.pool.append(value)
        return value

    def splat(self, number: Any, like: Spec | Value) -> Value:
        array = np.broadcast_to(np.asarray(number, like.dtype), like.shape)
        value = self.graph.constant(array)
        self.numbers[value] = array
        self.exact.add(value)
        return value

    # --- operands ---------------------------------------------------------------------------------

    def find(self, kinds: str, low: int = 0, high: int = 4, exact: bool = False) -> Value:
        """A value of some kinds of dtype and some number of axes; a new one if there is none."""
        fits = [
            v for v in self.pool
            if v.dtype.kind in kinds and low <= v.ndim <= high and (v in self.exact or not exact)
            and v.dtype.name != "uint64"
        ]  # fmt: skip
        if fits and self.random.random() < 0.8:
            return self.random.choice(fits[-6:] if self.random.random() < 0.7 else fits)
        return self.fresh(kinds, self.shape(low, high))

    def fresh(self, kinds: str, shape: Any, low: int = -4, high: int = 5) -> Value:
        names = [n for n in (*FLOATS, *INTS, "bool", "complex64") if np.dtype(n).kind in kinds]
        name = "float32" if "float32" in names and self.random.random() < 0.7 else None
        return self.leaf(self.draw(shape, name or self.random.choice(names), low, high))

    def like(self, x: Value, exact: bool = False, dtype: Any = None) -> Value:
        """Another value of the same shape and dtype."""
        spec = Spec(x.shape, np.dtype(dtype or x.dtype))
        fits = [v for v in self.pool if v.spec == spec and (v in self.exact or not exact)]
        chance = self.random.random()
        if fits and chance < 0.5:
            return self.random.choice(fits)
        if chance < 0.65:
            return self.splat(self.draw((), spec.dtype), spec)
        if chance < 0.85 and x.ndim:
            narrow = tuple(1 if self.random.random() < 0.6 else n for n in x.shape)
            cut = self.random.randint(0, x.ndim)
            small = self.leaf(self.draw(narrow[cut:], spec.dtype))
            return self.add(movement.broadcast_to, small, shape=x.shape)
        return self.leaf(self.draw(spec.shape, spec.dtype))

    def tame(self, x: Value, low: float, high: float) -> Value:
        """The value, or if its numbers are not in [low, high] another one like it that is."""
        array = self.numbers[x]
        if array.size == 0 or bool(np.all((array >= low) & (array <= high))):
            return x
        if low <= -1 and high >= 1 and x.dtype.kind == "f":
            return self.add(elementwise.tanh, x)
        if x.dtype.kind == "f":
            rng = np.random.default_rng(self.random.randrange(1 << 32))
            return self.leaf(rng.uniform(low, high, x.shape).astype(x.dtype))
        return self.leaf(self.draw(x.shape, x.dtype, math.ceil(low), math.floor(high) + 1))

    # --- operations -------------------------------------------------------------------------------

    def add(self, primitive: Primitive, *inputs: Value, exact: bool | None = None, **params: Any):
        """Append an operation; its output is exact if its inputs are and it is made so."""
        result = self.graph.add(primitive, *inputs, **params)
        with np.errstate(all="ignore"):
            arrays = primitive.evaluate(*[self.numbers[x] for x in inputs], **params)
        outputs = result if isinstance(result, tuple) else (result,)
        for value, array in zip(
            outputs, arrays if isinstance(arrays, tuple) else (arrays,), strict=True
        ):
            array = np.asarray(array)
            self.numbers[value] = array
            self.pool.append(value)
            if exact is None:
                exact = primitive.name in EXACT
            if exact and all(x in self.exact for x in inputs) and _small(array):
                self.exact.add(value)
        return result


def _small(array: Array) -> bool:
    """Whether all numbers are multiples of 1/1024 below 4096: exact in float32 after a few sums."""
    if array.dtype.kind not in "fc":
        return True
    if not np.all(np.isfinite(array)) or np.any(np.abs(array) >= 4096):
        return False
    scaled = array * 1024
    # Whether a zero is -0 depends on the order of a sum.
    return bool(np.all(scaled == np.round(scaled))) and not bool(
        np.any((array == 0) & np.signbit(array.real))
    )


EXACT = frozenset({
    "add", "sub", "mul", "neg", "abs", "sign", "maximum", "minimum", "relu", "where", "cast",
    "floor", "ceil", "trunc", "round", "reshape", "permute", "broadcast_to", "flip", "slice", "pad",
    "concat", "alias", "copy", "detach", "sum", "max", "min", "all", "any", "argmax", "argmin",
    "cumulative_sum", "gather", "scatter_add", "scatter_set", "slice_set", "ravel_index", "argsort",
    "searchsorted", "random_bits", "advance", "eq", "ne", "lt", "le", "gt", "ge", "logical_and",
    "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor",
    "bitwise_invert", "bitwise_left_shift", "bitwise_right_shift", "isnan", "isinf", "isfinite",
    "signbit", "real", "imag", "conj", "window_argmax", "window_take",
    "copysign",
})  # fmt: skip
