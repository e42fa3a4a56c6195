"""Rows of the elementwise operations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

import chainrule as cr
from chainrule.primitives import elementwise as p

from .table import (
    Case,
    Draw,
    Operation,
    binary_cases,
    fractional,
    grid,
    interval,
    normal,
    one_of,
    signed,
    unary_cases,
    whole,
)

INTEGERS = whole(-5, 6)
BOOLS = one_of(True, False)
PAIR = (INTEGERS, INTEGERS)


def complex_numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex128)


def unary(
    name: str,
    draw: Draw,
    numpy: Any,
    jax: Any,
    *others: Draw,
    primitive: Any = None,
    **options: Any,
) -> Operation:
    return Operation(
        name, getattr(cr, name), unary_cases(name, draw, others), numpy, jax,
        getattr(p, name, None) if primitive is None else primitive, jax_cases=2, **options,
    )  # fmt: skip


def binary(
    name: str, x: Draw, y: Draw, numpy: Any, jax: Any, primitive: Any,
    *others: tuple[Draw, Draw], **options: Any,
) -> Operation:  # fmt: skip
    return Operation(
        name, getattr(cr, name), binary_cases(name, x, y, others), numpy, jax, primitive,
        jax_cases=1, **options,
    )  # fmt: skip


def predicate(name: str, draw: Draw, numpy: Any, primitive: Any = None, *others: Draw) -> Operation:
    return unary(name, draw, numpy, None, *others, primitive=primitive, derivative=False)


def comparison(name: str, numpy: Any, primitive: Any) -> Operation:
    halves = one_of(-0.5, 0.0, 0.5, np.nan, np.inf)
    return binary(
        name, halves, halves, numpy, None, primitive, PAIR, (BOOLS, BOOLS), derivative=False
    )


def bitwise(name: str, numpy: Any, primitive: Any) -> Operation:
    small = whole(0, 200, "uint8")
    cases = binary_cases(name, INTEGERS, INTEGERS, [(small, small), (BOOLS, BOOLS)])
    return Operation(name, getattr(cr, name), cases, numpy, None, primitive, derivative=False)


def logical(name: str, numpy: Any, primitive: Any) -> Operation:
    cases = binary_cases(name, BOOLS, BOOLS, [PAIR])
    return Operation(name, getattr(cr, name), cases, numpy, None, primitive, derivative=False)


def shift(name: str, numpy: Any, primitive: Any) -> Operation:
    cases = binary_cases(name, INTEGERS, whole(0, 8))
    return Operation(name, getattr(cr, name), cases, numpy, None, primitive, derivative=False)


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, np.zeros((), x.dtype))


SPECIAL = one_of(0.0, -0.0, 1.5, np.inf, -np.inf, np.nan)
MIDDLE = interval(-3, 3)

UNARY = (
    unary("abs", signed(0.1, 3), np.abs, jnp.abs, INTEGERS, complex_numbers),
    unary("acos", interval(-0.9, 0.9), np.arccos, jnp.arccos),
    unary("acosh", interval(1.1, 4), np.arccosh, jnp.arccosh),
    unary("asin", interval(-0.9, 0.9), np.arcsin, jnp.arcsin),
    unary("asinh", MIDDLE, np.arcsinh, jnp.arcsinh),
    unary("atan", MIDDLE, np.arctan, jnp.arctan),
    unary("atanh", interval(-0.9, 0.9), np.arctanh, jnp.arctanh),
    unary("ceil", fractional, np.ceil, jnp.ceil, INTEGERS),
    unary("cos", MIDDLE, np.cos, jnp.cos, INTEGERS),
    unary("cosh", MIDDLE, np.cosh, jnp.cosh),
    unary("erf", interval(-2.5, 2.5), scipy.special.erf, jax.scipy.special.erf),
    unary("erfinv", interval(-0.95, 0.95), scipy.special.erfinv, jax.scipy.special.erfinv),
    unary("exp", MIDDLE, np.exp, jnp.exp, INTEGERS, complex_numbers),
    unary("expm1", MIDDLE, np.expm1, jnp.expm1),
    unary("floor", fractional, np.floor, jnp.floor, INTEGERS),
    unary("log", interval(0.1, 5), np.log, jnp.log),
    unary("log10", interval(0.1, 5), np.log10, jnp.log10),
    unary("log1p", interval(-0.9, 5), np.log1p, jnp.log1p),
    unary("log2", interval(0.1, 5), np.log2, jnp.log2),
    unary("negative", MIDDLE, np.negative, jnp.negative, INTEGERS, primitive=p.neg),
    unary("positive", MIDDLE, np.positive, jnp.positive, INTEGERS),
    unary("reciprocal", signed(0.3, 3), np.reciprocal, jnp.reciprocal),
    unary("relu", signed(0.1, 3), _relu, jax.nn.relu, INTEGERS),
    unary("round", fractional, np.round, jnp.round, INTEGERS),
    unary("rsqrt", interval(0.2, 5), lambda x: 1 / np.sqrt(x), jax.lax.rsqrt),
    unary("sigmoid", interval(-5, 5), scipy.special.expit, jax.nn.sigmoid),
    unary("sign", signed(0.1, 3), np.sign, jnp.sign, INTEGERS),
    unary("sin", MIDDLE, np.sin, jnp.sin),
    unary("sinh", MIDDLE, np.sinh, jnp.sinh),
    unary("sqrt", interval(0.1, 5), np.sqrt, jnp.sqrt),
    unary("square", MIDDLE, np.square, jnp.square, INTEGERS),
    unary("tan", interval(-1.3, 1.3), np.tan, jnp.tan, rtol=(2e-6, 4e-15)),
    unary("tanh", MIDDLE, np.tanh, jnp.tanh),
    unary("trunc", fractional, np.trunc, jnp.trunc, INTEGERS),
)

BINARY = (
    binary("add", MIDDLE, MIDDLE, np.add, jnp.add, p.add, PAIR),
    binary("atan2", signed(0.2, 3), signed(0.2, 3), np.arctan2, jnp.arctan2, p.atan2),
    binary("copysign", signed(0.1, 3), signed(0.1, 3), np.copysign, jnp.copysign, p.copysign),
    binary("divide", MIDDLE, signed(0.3, 3), np.divide, jnp.divide, p.div),
    binary(
        "floor_divide", fractional, one_of(-3.0, -2.0, 2.0, 3.0), np.floor_divide,
        jnp.floor_divide, p.floor_divide, (INTEGERS, one_of(-3, -2, 2, 3)),
    ),
    binary("hypot", signed(0.2, 3), signed(0.2, 3), np.hypot, jnp.hypot, p.hypot),
    binary("logaddexp", MIDDLE, MIDDLE, np.logaddexp, jnp.logaddexp, p.logaddexp),
    binary("maximum", grid(0.0), grid(0.125), np.maximum, jnp.maximum, p.maximum, PAIR),
    binary("minimum", grid(0.0), grid(0.125), np.minimum, jnp.minimum, p.minimum, PAIR),
    binary("multiply", MIDDLE, MIDDLE, np.multiply, jnp.multiply, p.mul, PAIR),
    binary(
        "nextafter", grid(0.0), grid(0.125), np.nextafter, jnp.nextafter, p.nextafter,
        differentiable=False,
    ),
    binary(
        "pow", interval(0.3, 2.5), interval(-2, 2), np.power, jnp.power, p.pow,
        (INTEGERS, whole(0, 4)),
    ),
    binary(
        "remainder", fractional, one_of(-3.0, -2.0, 2.0, 3.0), np.remainder, jnp.remainder,
        p.remainder, (INTEGERS, one_of(-3, -2, 2, 3)),
    ),
    binary("subtract", MIDDLE, MIDDLE, np.subtract, jnp.subtract, p.sub, PAIR),
)  # fmt: skip

PREDICATES = (
    predicate("isfinite", SPECIAL, np.isfinite, None, INTEGERS),
    predicate("isinf", SPECIAL, np.isinf, None, INTEGERS),
    predicate("isnan", SPECIAL, np.isnan, None, INTEGERS),
    predicate("signbit", SPECIAL, np.signbit),
    predicate("logical_not", SPECIAL, np.logical_not, None, BOOLS),
    predicate("bitwise_invert", INTEGERS, np.invert, None, BOOLS),
    predicate("real", complex_numbers, np.real),
    predicate("imag", complex_numbers, np.imag),
    predicate("conj", complex_numbers, np.conj),
    comparison("equal", np.equal, p.eq),
    comparison("not_equal", np.not_equal, p.ne),
    comparison("less", np.less, p.lt),
    comparison("less_equal", np.less_equal, p.le),
    comparison("greater", np.greater, p.gt),
    comparison("greater_equal", np.greater_equal, p.ge),
    logical("logical_and", np.logical_and, p.logical_and),
    logical("logical_or", np.logical_or, p.logical_or),
    logical("logical_xor", np.logical_xor, p.logical_xor),
    bitwise("bitwise_and", np.bitwise_and, p.bitwise_and),
    bitwise("bitwise_or", np.bitwise_or, p.bitwise_or),
    bitwise("bitwise_xor", np.bitwise_xor, p.bitwise_xor),
    shift("bitwise_left_shift", np.left_shift, p.bitwise_left_shift),
    shift("bitwise_right_shift", np.right_shift, p.bitwise_right_shift),
)


def _other_float(x: Any) -> str:
    return "float64" if x.dtype == "float32" else "float32"


def _masked(*shapes: tuple[int, ...]) -> Case:
    mask = normal(*shapes[0], seed=9) > 0
    return Case((mask, *(normal(*s, seed=i) for i, s in enumerate(shapes[1:]))))


STEPS = np.arange(-6, 6).reshape(3, 4) / 4 + 0.0625


def _rational(x: Any) -> Any:
    return (2 * x + 1) / (3 - 0.5 * x) - x / 4


CHOICE = (
    Operation(
        "where", cr.where,
        (
            _masked((2, 3), (2, 3), (2, 3)), _masked((3,), (2, 1), (2, 3)),
            _masked((2, 1), (3,), (1, 1)), _masked((0, 3), (3,), (1, 3)),
        ),
        np.where, jnp.where, p.where,
    ),
    Operation(
        "clip", cr.clip,
        (
            Case((STEPS,), {"min": -1, "max": 1}), Case((STEPS,), {"min": -0.5}),
            Case((STEPS,), {"max": 0.25}),
            Case((np.arange(-6, 6),), {"min": -2, "max": 3}),
        ),
        lambda x, min=None, max=None: np.clip(x, min, max),
        lambda x, min=None, max=None: jnp.clip(x, min, max),
    ),
    Operation(
        "clip_by_tensors", cr.clip,
        (Case((np.array([[-2.0, 0.5, 3.0], [-1.0, 2.5, 0.0]]), np.array([-1.5, 0.0, 1.0]),
               np.array([[1.0], [2.0]]))),),
        np.clip, jnp.clip,
    ),
    Operation(
        "astype", lambda x: x.astype(_other_float(x)), unary_cases("astype", grid(0.125)),
        lambda x: x.astype(_other_float(x)), lambda x: x.astype(_other_float(x)), p.cast,
        differences=False, jax_cases=1,
    ),
    Operation(
        "cast_to_integers", lambda x: cr.astype(x, "int32"), unary_cases("cast", fractional),
        lambda x: x.astype(np.int32), None, derivative=False,
    ),
    *(
        Operation(
            f"pow_{n}", lambda x, n=n: x**n, unary_cases(f"pow_{n}", signed(0.3, 2)),
            lambda x, n=n: x**n, lambda x, n=n: x**n, jax_cases=1,
        )
        for n in (0, 1, 2, 3, 4, 5, -1, -2)
    ),
    Operation(
        "pow_of_scalar", lambda y: 2.5**y, unary_cases("pow_of_scalar", MIDDLE),
        lambda y: np.power(y.dtype.type(2.5), y), lambda y: 2.5**y, jax_cases=1,
    ),
    Operation(
        "scalars", _rational, unary_cases("scalars", MIDDLE), _rational, _rational, jax_cases=1,
        rtol=(3e-6, 4e-15),
    ),
)  # fmt: skip

ROWS = (*UNARY, *BINARY, *PREDICATES, *CHOICE)
