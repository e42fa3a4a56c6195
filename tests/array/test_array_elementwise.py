"""Elementwise functions against NumPy: every function, dtype, shape, scalar and special value."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import ArgumentError, DTypeError, RangeError, ShapeError

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
SHAPES = ((), (0,), (7,), (2, 3), (3, 0, 2), (2, 1, 4))

# name: (NumPy's function, dtypes, a domain for floats)
UNARY = {
    "abs": (np.abs, INTEGERS + FLOATS + COMPLEX, (-3, 3)),
    "acos": (np.arccos, FLOATS + COMPLEX, (-1, 1)),
    "acosh": (np.arccosh, FLOATS + COMPLEX, (1, 9)),
    "asin": (np.arcsin, FLOATS + COMPLEX, (-1, 1)),
    "asinh": (np.arcsinh, FLOATS + COMPLEX, (-9, 9)),
    "atan": (np.arctan, FLOATS + COMPLEX, (-9, 9)),
    "atanh": (np.arctanh, FLOATS + COMPLEX, (-1, 1)),
    "bitwise_invert": (np.invert, ("bool", *INTEGERS), None),
    "ceil": (np.ceil, FLOATS, (-9, 9)),
    "conj": (np.conj, FLOATS + COMPLEX, (-9, 9)),
    "cos": (np.cos, FLOATS + COMPLEX, (-9, 9)),
    "cosh": (np.cosh, FLOATS + COMPLEX, (-9, 9)),
    "exp": (np.exp, FLOATS + COMPLEX, (-9, 9)),
    "expm1": (np.expm1, FLOATS + COMPLEX, (-9, 9)),
    "floor": (np.floor, FLOATS, (-9, 9)),
    "imag": (np.imag, FLOATS + COMPLEX, (-9, 9)),
    "isfinite": (np.isfinite, INTEGERS + FLOATS + COMPLEX, (-9, 9)),
    "isinf": (np.isinf, INTEGERS + FLOATS + COMPLEX, (-9, 9)),
    "isnan": (np.isnan, INTEGERS + FLOATS + COMPLEX, (-9, 9)),
    "log": (np.log, FLOATS + COMPLEX, (0, 9)),
    "log10": (np.log10, FLOATS + COMPLEX, (0, 9)),
    "log1p": (np.log1p, FLOATS + COMPLEX, (-1, 9)),
    "log2": (np.log2, FLOATS + COMPLEX, (0, 9)),
    "logical_not": (np.logical_not, ("bool", *INTEGERS, *FLOATS, *COMPLEX), (-9, 9)),
    "negative": (np.negative, INTEGERS + FLOATS + COMPLEX, (-9, 9)),
    "positive": (np.positive, INTEGERS + FLOATS + COMPLEX, (-9, 9)),
    "real": (np.real, FLOATS + COMPLEX, (-9, 9)),
    "reciprocal": (np.reciprocal, FLOATS + COMPLEX, (-9, 9)),
    "round": (np.round, INTEGERS + FLOATS + COMPLEX, (-9, 9)),
    "sign": (np.sign, INTEGERS + FLOATS + COMPLEX, (-9, 9)),
    "signbit": (np.signbit, FLOATS, (-9, 9)),
    "sin": (np.sin, FLOATS + COMPLEX, (-9, 9)),
    "sinh": (np.sinh, FLOATS + COMPLEX, (-9, 9)),
    "sqrt": (np.sqrt, FLOATS + COMPLEX, (0, 9)),
    "square": (np.square, INTEGERS + FLOATS + COMPLEX, (-9, 9)),
    "tan": (np.tan, FLOATS + COMPLEX, (-9, 9)),
    "tanh": (np.tanh, FLOATS + COMPLEX, (-9, 9)),
    "trunc": (np.trunc, FLOATS, (-9, 9)),
}
REAL = INTEGERS + FLOATS
BINARY = {
    "add": (np.add, REAL + COMPLEX, operator.add),
    "atan2": (np.arctan2, FLOATS, None),
    "bitwise_and": (np.bitwise_and, ("bool", *INTEGERS), operator.and_),
    "bitwise_left_shift": (np.left_shift, INTEGERS, operator.lshift),
    "bitwise_or": (np.bitwise_or, ("bool", *INTEGERS), operator.or_),
    "bitwise_right_shift": (np.right_shift, INTEGERS, operator.rshift),
    "bitwise_xor": (np.bitwise_xor, ("bool", *INTEGERS), operator.xor),
    "copysign": (np.copysign, FLOATS, None),
    "divide": (np.divide, FLOATS + COMPLEX, operator.truediv),
    "equal": (np.equal, ("bool", *REAL, *COMPLEX), operator.eq),
    "floor_divide": (np.floor_divide, REAL, operator.floordiv),
    "greater": (np.greater, REAL, operator.gt),
    "greater_equal": (np.greater_equal, REAL, operator.ge),
    "hypot": (np.hypot, FLOATS, None),
    "less": (np.less, REAL, operator.lt),
    "less_equal": (np.less_equal, REAL, operator.le),
    "logaddexp": (np.logaddexp, FLOATS, None),
    "logical_and": (np.logical_and, ("bool",), None),
    "logical_or": (np.logical_or, ("bool",), None),
    "logical_xor": (np.logical_xor, ("bool",), None),
    "maximum": (np.maximum, REAL, None),
    "minimum": (np.minimum, REAL, None),
    "multiply": (np.multiply, REAL + COMPLEX, operator.mul),
    "nextafter": (np.nextafter, FLOATS, None),
    "not_equal": (np.not_equal, ("bool", *REAL, *COMPLEX), operator.ne),
    "pow": (np.power, REAL + COMPLEX, operator.pow),
    "remainder": (np.remainder, REAL, operator.mod),
    "subtract": (np.subtract, REAL + COMPLEX, operator.sub),
}


def sample(rng, dtype, shape, domain=(-9, 9), least=None):
    """Random numbers of a dtype; integers over their whole range unless it is cut."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "ui":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        low = low if least is None else least
        high = high if least is None else least + 6
        return rng.integers(low, high, shape, dtype=dtype, endpoint=True)
    if dtype.kind == "f":
        return rng.uniform(*domain, shape).astype(dtype)
    return (rng.uniform(-9, 9, shape) + 1j * rng.uniform(-9, 9, shape)).astype(dtype)


def assert_same(actual, expected):
    """Equal dtype, shape and values to a few roundings; NaN equals NaN and -0 differs from 0.

    Not bit for bit: NumPy rounds an array in other loops than a number laid over an array.
    """
    expected = np.asarray(expected)
    assert isinstance(actual, cr.Tensor)
    assert actual.dtype == expected.dtype, (actual.dtype, expected.dtype)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    if expected.dtype.kind not in "fc":
        np.testing.assert_array_equal(actual.numpy(), expected)
        return
    rtol = 4 * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual.numpy(), expected, rtol=rtol, atol=0)
    if expected.dtype.kind == "f":
        defined = ~np.isnan(expected)
        signs = np.signbit(actual.numpy()), np.signbit(expected)
        np.testing.assert_array_equal(signs[0][defined], signs[1][defined])


@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_agree_with_numpy(name, rng):
    reference, dtypes, domain = UNARY[name]
    for dtype, shape in itertools.product(dtypes, SHAPES):
        x = sample(rng, dtype, shape, domain or (0, 1))
        with np.errstate(all="ignore"):
            assert_same(getattr(cr, name)(cr.asarray(x)), reference(x))


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_agree_with_numpy(name, rng):
    reference, dtypes, symbol = BINARY[name]
    pairs = ((), ()), ((3, 1), (1, 4)), ((2, 3), (3,)), ((0, 2), (1, 2)), ((4,), ()), ((5,), (5,))
    for dtype, (left, right) in itertools.product(dtypes, pairs):
        least = {"pow": 0, "bitwise_left_shift": 0, "bitwise_right_shift": 0}.get(name)
        x, y = sample(rng, dtype, left), sample(rng, dtype, right, least=least)
        with np.errstate(all="ignore"):
            expected = reference(x, y)
        a, b = cr.asarray(x), cr.asarray(y)
        assert_same(getattr(cr, name)(a, b), expected)
        if symbol is not None:
            assert_same(symbol(a, b), expected)
            assert_same(symbol(x, b), expected)
            assert_same(symbol(a, y), expected)


@pytest.mark.parametrize("name", BINARY)
def test_python_numbers_take_the_dtype_of_the_array(name, rng):
    reference, dtypes, symbol = BINARY[name]
    for dtype in dtypes:
        kind = np.dtype(dtype).kind
        numbers = {"b": [True], "u": [3], "i": [3], "f": [2, 0.5], "c": [2, 0.5, 1 - 2j]}[kind]
        x = sample(rng, dtype, (2, 3), (1, 4), least=1)
        for number in numbers:
            typed = np.asarray(number, dtype=dtype)
            with np.errstate(all="ignore"):
                right, left = reference(x, typed), reference(typed, x)
            a = cr.asarray(x)
            assert_same(getattr(cr, name)(a, number), right)
            assert_same(getattr(cr, name)(number, a), left)
            if symbol is not None:
                assert_same(symbol(a, number), right)
                assert_same(symbol(number, a), left)


@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"]
)
def test_in_place_operators_rebind_and_leave_others_alone(name):
    x = cr.asarray([[3.0, 2.0], [1.0, 4.0]])
    before, same = x[:], x
    expected = getattr(operator, name)(x, cr.asarray([[2.0, 1.0], [0.5, 3.0]]))
    x = getattr(operator, f"i{name}")(x, cr.asarray([[2.0, 1.0], [0.5, 3.0]]))
    assert x is same
    np.testing.assert_array_equal(x.numpy(), expected.numpy())
    assert before.tolist() == [[3.0, 2.0], [1.0, 4.0]]


@pytest.mark.parametrize("name", ["and_", "or_", "xor", "lshift", "rshift"])
def test_in_place_operators_on_integers(name):
    x = cr.asarray([12, 5], dtype=cr.int16)
    expected = getattr(operator, name)(np.asarray([12, 5], dtype=np.int16), np.int16(2))
    x = getattr(operator, f"i{name.rstrip('_')}")(x, 2)
    assert_same(x, expected)


def test_in_place_operators_keep_shape_and_dtype():
    x = cr.asarray([1, 2])
    with pytest.raises(DTypeError, match=r"keeps the dtype of x, int64"):
        x /= 2
    with pytest.raises(ShapeError, match=r"keeps the shape of x, \(2,\)"):
        x += cr.ones((3, 2), dtype=cr.int64)
    assert x.tolist() == [1, 2]


def test_integers_wrap_around():
    for dtype in INTEGERS:
        top = np.iinfo(dtype).max
        x = cr.full((2,), top, dtype=dtype)
        one = cr.ones((2,), dtype=dtype)
        assert (x + one).tolist() == [np.iinfo(dtype).min] * 2
    assert (cr.asarray([100], dtype=cr.int8) * 3).tolist() == [44]
    assert (-cr.asarray([1], dtype=cr.uint8)).tolist() == [255]


def test_integers_become_floats_where_a_function_needs_them():
    assert_same(cr.exp(cr.asarray([0, 1])), np.exp(np.asarray([0, 1], np.float32)))
    assert_same(cr.asarray([1, 2]) / cr.asarray([2, 4]), np.asarray([0.5, 0.5], np.float32))
    assert cr.mean(cr.asarray([1, 2])).dtype == cr.float32


def test_clip():
    x = np.asarray([-3.0, -0.5, 0.0, 2.0, np.nan, np.inf], dtype=np.float32)
    a = cr.asarray(x)
    assert_same(cr.clip(a, -1, 1.5), np.clip(x, np.float32(-1), np.float32(1.5)))
    assert_same(cr.clip(a, None, 1), np.clip(x, None, np.float32(1)))
    assert_same(cr.clip(a, min=0.25), np.clip(x, np.float32(0.25), None))
    assert_same(cr.clip(a), x)
    low, high = np.asarray([[-1.0], [0.5]], np.float32), np.asarray([[1.0], [np.nan]], np.float32)
    assert_same(cr.clip(a, cr.asarray(low), cr.asarray(high)), np.clip(x, low, high))
    y = cr.asarray([0, 7, 255], dtype=cr.uint8)
    assert cr.clip(y, -5, 300).tolist() == [0, 7, 255]
    assert cr.clip(y, cr.asarray([-9, 8, 1000]), cr.asarray(2**40)).tolist() == [0, 8, 255]
    assert cr.clip(y, 1, 9).dtype == cr.uint8
    with pytest.raises(DTypeError, match="keeps the dtype of x, uint8"):
        cr.clip(y, 0.5)


def test_where():
    x, y = np.arange(6.0).reshape(2, 3), np.asarray([-1.0, -2.0, -3.0])
    c = np.asarray([[True], [False]])
    a, b, m = cr.asarray(x), cr.asarray(y), cr.asarray(c)
    assert_same(cr.where(m, a, b), np.where(c, x, y))
    assert_same(cr.where(m, a, 7), np.where(c, x, 7))
    assert_same(cr.where(m, 0.5, b), np.where(c, 0.5, y))
    assert_same(cr.where(m, cr.asarray([1], dtype=cr.int8), 2), np.where(c, np.int8(1), np.int8(2)))
    assert cr.where(cr.asarray(True), 1, 2.5).dtype == cr.float32
    assert cr.where(m, cr.zeros((3,)), cr.zeros((4, 1, 1))).shape == (4, 2, 3)


def test_logical_functions_ask_whether_elements_are_zero():
    x, y = cr.asarray([0.0, 2.0, cr.nan]), cr.asarray([1, 0, 3])
    assert cr.logical_and(x, y).tolist() == [False, False, True]
    assert cr.logical_or(x, False).tolist() == [False, True, True]
    unlike = cr.logical_xor(cr.asarray([2], dtype=cr.uint64), cr.asarray([-1]))
    assert unlike.tolist() == [False]


def test_results_are_objects_of_their_own():
    x = cr.asarray([1.0, 2.0])
    for y in (+x, cr.real(x), cr.conj(x), x**1, cr.clip(x), cr.reshape(x, (2,)), x[:], x[...]):
        y[0] = 9.0
        assert x.tolist() == [1.0, 2.0]


def test_errors_name_what_was_passed_and_the_way_out():
    with pytest.raises(DTypeError, match="uint64 and int64 have no common integer dtype"):
        cr.asarray([1], dtype=cr.uint64) + cr.asarray([1])
    with pytest.raises(RangeError, match="300 is outside the range of int8"):
        cr.asarray([1], dtype=cr.int8) + 300
    with pytest.raises(OverflowError):
        cr.asarray([1], dtype=cr.uint8) - (-1)
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(4,\) do not broadcast"):
        cr.ones((2, 3)) * cr.ones((4,))
    with pytest.raises(ArgumentError, match="negative integer"):
        cr.asarray([2]) ** -1
    with pytest.raises(DTypeError, match="bitwise_and is defined for discrete"):
        cr.asarray([1.0]) & cr.asarray([1.0])
    with pytest.raises(DTypeError, match="lt is defined for ordered dtypes, but got complex64"):
        cr.less(cr.asarray([1j]), cr.asarray([1j]))
    with pytest.raises(TypeError):
        cr.asarray([1.0]) + "text"


def test_complex_numbers_have_no_derivatives():
    with pytest.raises(DTypeError, match="complex64"):
        cr.asarray([1j]).requires_grad_()
    with pytest.raises(DTypeError, match="complex"):
        cr.asarray([1.0], requires_grad=True) * 1j
    with pytest.raises(DTypeError, match="complex"):
        cr.astype(cr.asarray([1.0], requires_grad=True), cr.complex64)
    with cr.no_grad():
        assert (cr.asarray([1.0], requires_grad=True) * 1j).tolist() == [1j]
