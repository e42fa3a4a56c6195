"""What a row of the table of operations says, and how inputs are drawn for it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.graph import Primitive

Array = np.ndarray
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Case:
    """Inputs of an operation. Arrays of float64 stand for any real floating-point dtype."""

    args: tuple[Array, ...]
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """A row.

    Arguments:
        name: unique in the table.
        call: `(*tensors, **params)` -> a tensor, or a tuple of them.
        cases: inputs that it is tried on. Those of at most 64 elements are differentiated too.
        numpy: the reference, `(*arrays, **params)`, evaluated in float64.
        jax: the same function in JAX, forward and differentiated; None where JAX has none or means
            something else.
        primitive: the primitive that the row is the row of, if it is one's.
        derivative: whether derivatives exist and are compared. Else none may be recorded.
        differences: whether central differences can tell the derivative.
        differentiable: whether a derivative of JAX exists to be compared with.
        jax_cases: how many of the cases JAX is asked for (compiling each takes it a while).
        rtol: the relative error allowed forward in float32 and in float64, against NumPy.
        jax_rtol: the same against JAX, whose own elementary functions are less exact.
    """

    name: str
    call: Callable[..., Any]
    cases: tuple[Case, ...]
    numpy: Callable[..., Any]
    jax: Callable[..., Any] | None = None
    primitive: Primitive | None = None
    derivative: bool = True
    differences: bool = True
    differentiable: bool = True
    jax_cases: int = 1000
    rtol: tuple[float, float] = (1e-6, 4e-15)
    jax_rtol: tuple[float, float] = (4e-6, 1e-13)

    def __str__(self) -> str:
        return self.name


def generator(name: str) -> np.random.Generator:
    """Each row draws from its own stream, so that adding one leaves the others as they are."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def case(*args: Any, **params: Any) -> Case:
    """A case; lists of numbers become arrays."""
    return Case(tuple(np.asarray(a) for a in args), params)


def normal(*shape: int, seed: int = 0) -> Array:
    """Normal numbers rounded to 1/64, so that they are the same in float32 and float64."""
    drawn = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return np.round(drawn * 64) / 64


def distinct(*shape: int, seed: int = 0) -> Array:
    """Different numbers at least 1/8 apart, in random order, some of them negative."""
    n = int(np.prod(shape))
    order = np.random.default_rng([seed, *shape]).permutation(n)
    return (order.reshape(shape) - n // 3) / 8


# --- domains of elementwise operations ------------------------------------------------------------


def interval(low: float, high: float) -> Draw:
    """Anywhere between two numbers."""
    return lambda rng, shape: rng.uniform(low, high, shape)


def signed(low: float, high: float) -> Draw:
    """Magnitudes in an interval with random signs: away from 0."""
    return lambda rng, shape: rng.uniform(low, high, shape) * rng.choice([-1.0, 1.0], shape)


def fractional(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Away from whole numbers and from halves."""
    fraction = rng.uniform(0.1, 0.4, shape) + rng.choice([0.0, 0.5], shape)
    return rng.integers(-3, 3, shape) + fraction


def whole(low: int, high: int, dtype: str = "int64") -> Draw:
    """Integers in [low, high)."""
    return lambda rng, shape: rng.integers(low, high, shape).astype(dtype)


def one_of(*values: Any) -> Draw:
    """Any of some values."""
    return lambda rng, shape: rng.choice(np.array(values), shape)


def grid(offset: float) -> Draw:
    """Multiples of 1/4 with an offset: two different offsets never tie."""
    return lambda rng, shape: rng.integers(-8, 8, shape) / 4 + offset


SHAPES = ((2, 3), (), (0,), (2, 0, 3), (3, 1, 67))
BROADCAST = (((2, 3), (3,)), ((2, 1), (1, 3)), ((0, 3), (3,)), ((), (2, 2)))


def unary_cases(name: str, draw: Draw, others: Sequence[Draw] = ()) -> tuple[Case, ...]:
    """One input, in several shapes; then in other dtypes, drawn by `others`."""
    rng = generator(name)
    floats = [Case((draw(rng, shape),)) for shape in SHAPES]
    return (*floats, *(Case((other(rng, (2, 3)),)) for other in others))


def binary_cases(
    name: str, x: Draw, y: Draw, others: Sequence[tuple[Draw, Draw]] = ()
) -> tuple[Case, ...]:
    """Two inputs, in equal and in broadcasting shapes; then in other dtypes."""
    rng = generator(name)
    pairs = [(shape, shape) for shape in SHAPES] + list(BROADCAST)
    floats = [Case((x(rng, first), y(rng, second))) for first, second in pairs]
    return (*floats, *(Case((a(rng, (2, 3)), b(rng, (2, 3)))) for a, b in others))
