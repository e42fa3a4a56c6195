"""Reductions, running sums, sorting and sets against NumPy; gradients of what has them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.autograd import gradcheck, gradgradcheck
from chainrule.errors import ArgumentError, ChainruleError, DTypeError, ShapeError

SIGNED, UNSIGNED = ("int8", "int16", "int32", "int64"), ("uint8", "uint16", "uint32", "uint64")
FLOATS, COMPLEX = ("float32", "float64"), ("complex64", "complex128")
AXES = (None, 0, -1, (0, 2), (), (2, 1, 0))


def sample(rng, dtype, shape=(3, 2, 4)):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "ui":
        return rng.integers(0, 5, shape).astype(dtype)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if dtype.kind == "c" else x).astype(dtype)


def same(actual, expected, rtol=0.0):
    expected = np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=rtol, atol=rtol)


def summed_dtype(dtype):
    kind = np.dtype(dtype).kind
    return {"b": "int64", "i": "int64", "u": "uint64"}.get(kind, dtype)


@pytest.mark.parametrize("dtype", ["bool", *SIGNED, *UNSIGNED, *FLOATS, *COMPLEX])
def test_sums_and_products(dtype, rng):
    x = sample(rng, dtype)
    a, wide = cr.asarray(x), summed_dtype(dtype)
    rtol = 0 if np.dtype(dtype).kind in "bui" else 20 * np.finfo(dtype).eps
    for axis, keepdims in itertools.product(AXES, (False, True)):
        kw = {"axis": axis, "keepdims": keepdims}
        same(cr.sum(a, **kw), np.sum(x, dtype=wide, **kw), rtol)
        same(cr.prod(a, **kw), np.prod(x, dtype=wide, **kw), rtol)
        same(cr.count_nonzero(a, **kw), np.asarray(np.sum(x != 0, dtype="int64", **kw)))
        same(cr.all(a, **kw), np.all(x != 0, **kw))
        same(cr.any(a, **kw), np.any(x != 0, **kw))
    for axis, initial in itertools.product((0, 1, -1), (False, True)):
        kw = {"axis": axis, "include_initial": initial}
        same(cr.cumulative_sum(a, **kw), np.cumulative_sum(x, dtype=wide, **kw), rtol)
        same(cr.cumulative_prod(a, **kw), np.cumulative_prod(x, dtype=wide, **kw), rtol)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float64", "complex128"])
def test_the_dtype_of_a_sum_can_be_chosen(dtype):
    x = cr.asarray([200, 100], dtype=cr.uint8)
    for name in ("sum", "prod"):
        reference = getattr(np, name)(x.numpy(), dtype=dtype)
        same(getattr(cr, name)(x, dtype=dtype), reference)
    same(cr.cumulative_sum(x, dtype=dtype), np.cumsum(x.numpy(), dtype=dtype))
    same(cr.cumulative_prod(x, dtype=dtype), np.cumprod(x.numpy(), dtype=dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_statistics(dtype, rng):
    x = sample(rng, dtype)
    a, rtol = cr.asarray(x), 20 * np.finfo(dtype).eps
    for axis, keepdims in itertools.product((None, 0, -1, (0, 2)), (False, True)):
        kw = {"axis": axis, "keepdims": keepdims}
        same(cr.mean(a, **kw), np.mean(x, **kw), rtol)
        for correction in (0, 1, 0.5):
            same(cr.var(a, correction=correction, **kw), np.var(x, ddof=correction, **kw), 4 * rtol)
            same(cr.std(a, correction=correction, **kw), np.std(x, ddof=correction, **kw), 4 * rtol)
        reference = np.log(np.sum(np.exp(x.astype("float64")), **kw)).astype(dtype)
        same(cr.logsumexp(a, **kw), reference, 4 * rtol)
    assert math.isinf(cr.logsumexp(cr.asarray([-cr.inf, -cr.inf])).item())
    assert cr.logsumexp(cr.asarray([1000.0, 1000.0])).item() == pytest.approx(1000 + math.log(2))
    assert cr.mean(cr.asarray([1, 2])).dtype == cr.float32


@pytest.mark.parametrize("dtype", [*SIGNED, *UNSIGNED, *FLOATS])
def test_extremes(dtype, rng):
    x = sample(rng, dtype)
    a = cr.asarray(x)
    for axis, keepdims in itertools.product((None, 0, -1, (0, 2)), (False, True)):
        kw = {"axis": axis, "keepdims": keepdims}
        same(cr.max(a, **kw), np.max(x, **kw))
        same(cr.min(a, **kw), np.min(x, **kw))
        if not isinstance(axis, tuple):
            same(cr.argmax(a, **kw), np.argmax(x, **kw).astype("int64"))
            same(cr.argmin(a, **kw), np.argmin(x, **kw).astype("int64"))


def test_reductions_of_no_elements():
    x = cr.zeros((0, 3))
    assert cr.sum(x, axis=0).tolist() == [0.0, 0.0, 0.0]
    assert cr.prod(x, axis=0).tolist() == [1.0, 1.0, 1.0]
    assert cr.max(x, axis=1).shape == (0,)
    assert cr.cumulative_sum(x, axis=0, include_initial=True).shape == (1, 3)
    assert cr.cumulative_prod(x, axis=0).shape == (0, 3)
    for name in ("max", "min", "argmax", "argmin"):
        with pytest.raises(ShapeError, match="no elements"):
            getattr(cr, name)(x)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: cr.sum(x, axis=2), IndexError, "axis 2 is out of bounds"),
        (lambda x: cr.sum(x, axis=(0, 0)), ArgumentError, "twice"),
        (lambda x: cr.sum(x, axis=0.5), DTypeError, "an axis is an integer"),
        (lambda x: cr.cumulative_sum(x), ArgumentError, "needs an axis"),
        (lambda x: cr.cumulative_prod(x[0, 0]), ChainruleError, "needs"),
        (lambda x: cr.var(x * 1j), DTypeError, "real dtypes"),
        (lambda x: cr.max(x * 1j), DTypeError, "ordered"),
        (lambda x: cr.sort(x[0, 0]), ShapeError, "no axis to sort"),
        (lambda x: cr.argsort(x, axis=2), IndexError, "out of bounds"),
        (lambda x: cr.argsort(x * 1j), DTypeError, "ordered"),
        (lambda x: cr.searchsorted(x, x), ShapeError, "one-dimensional"),
        (lambda x: cr.searchsorted(x[0], x, side="up"), ArgumentError, "'left' or 'right'"),
        (lambda x: cr.nonzero(x[0, 0]), ShapeError, "at least one axis"),
        (lambda x: cr.diff(x, n=-1), ArgumentError, "n=-1"),
        (lambda x: cr.diff(x[0, 0]), ShapeError, "at least one axis"),
        (lambda x: cr.diff(x, prepend=x[:, :0][:1]), ShapeError, "cannot concatenate"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(cr.ones((2, 3)))
    assert isinstance(caught.value, ChainruleError)


def test_diff(rng):
    for dtype in ("int8", "uint64", "float32", "complex128"):
        x = sample(rng, dtype, (3, 4))
        for axis, n in itertools.product((0, 1, -1), (0, 1, 2, 5)):
            same(cr.diff(cr.asarray(x), axis=axis, n=n), np.diff(x, n, axis))
        y = x[:, :2] + 1
        found = cr.diff(cr.asarray(x), prepend=cr.asarray(y), append=cr.asarray(x[:, :1]), n=2)
        same(found, np.diff(x, 2, prepend=y, append=x[:, :1]))
        same(
            cr.diff(cr.asarray(x), append=cr.asarray(1, dtype=dtype)),
            np.diff(x, append=x.dtype.type(1)),
        )


NUMBERS = st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5, math.inf, -math.inf])


@given(st.lists(NUMBERS, max_size=9), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_sorting_is_stable_in_both_directions(values, descending, stable):
    x = cr.asarray(values, dtype=cr.float64)
    order = cr.argsort(x, descending=descending, stable=stable)
    assert order.dtype == cr.int64
    assert order.tolist() == sorted(range(len(values)), key=values.__getitem__, reverse=descending)
    ordered = cr.sort(x, descending=descending, stable=stable)
    assert ordered.tolist() == sorted(values, reverse=descending)


def test_sorting_along_axes(rng):
    for dtype in ("bool", *SIGNED, *UNSIGNED, *FLOATS):
        x = sample(rng, dtype)
        for axis in (0, 1, -1):
            same(cr.sort(cr.asarray(x), axis=axis), np.sort(x, axis))
            down = np.flip(np.sort(x, axis), axis)
            same(cr.sort(cr.asarray(x), axis=axis, descending=True), down)
            order = np.argsort(x, axis, kind="stable").astype("int64")
            same(cr.argsort(cr.asarray(x), axis=axis), order)
    assert cr.sort(cr.asarray([cr.nan, 1.0, -1.0])).tolist()[:2] == [-1.0, 1.0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(side, rng):
    x = rng.integers(0, 9, 7)
    values = rng.integers(-1, 11, (2, 3))
    expected = np.searchsorted(np.sort(x), values, side=side).astype("int64")
    same(cr.searchsorted(cr.sort(cr.asarray(x)), cr.asarray(values), side=side), expected)
    order = cr.argsort(cr.asarray(x))
    same(cr.searchsorted(cr.asarray(x), cr.asarray(values), side=side, sorter=order), expected)
    mixed = cr.searchsorted(cr.asarray([0.5, 1.5]), cr.asarray([1, 2]), side=side)
    assert mixed.tolist() == [1, 2]
    assert cr.searchsorted(cr.asarray([1, 2]), 1.5, side=side).item() == 1


def test_nonzero(rng):
    for dtype in ("bool", "int8", "float32", "complex64"):
        x = sample(rng, dtype) * (rng.random((3, 2, 4)) < 0.5)
        found = cr.nonzero(cr.asarray(x))
        assert isinstance(found, tuple)
        for a, b in zip(found, np.nonzero(x), strict=True):
            same(a, b.astype("int64"))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float32", "complex128"])
@pytest.mark.parametrize("shape", [(), (0,), (9,), (3, 2, 4)])
def test_unique(dtype, shape, rng):
    x = sample(rng, dtype, shape)
    found = cr.unique_all(cr.asarray(x))
    values, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True
    )
    same(found.values, values)
    same(found.indices, first.astype("int64"))
    same(found.inverse_indices, inverse.reshape(shape).astype("int64"))
    same(found.counts, counts.astype("int64"))
    same(found.values[found.inverse_indices], x)
    same(cr.unique_values(cr.asarray(x)), values)
    for few in (cr.unique_counts(cr.asarray(x)), cr.unique_inverse(cr.asarray(x))):
        assert set(few._fields) < set(found._fields)
        for name in few._fields:
            same(getattr(few, name), getattr(found, name).numpy())


def test_each_nan_is_unique_and_zeros_are_one():
    found = cr.unique_all(cr.asarray([cr.nan, 0.0, -0.0, cr.nan]))
    assert found.counts.tolist() == [2, 1, 1]
    assert found.values[0].item() == 0.0
    assert cr.sum(cr.isnan(found.values)).item() == 2


SMOOTH = {
    "sum": lambda x: cr.sum(x, axis=(0, 2)),
    "prod": lambda x: cr.prod(x, axis=1),
    "mean": lambda x: cr.mean(x, axis=0, keepdims=True),
    "var": lambda x: cr.var(x, axis=(0, 1), correction=1),
    "std": lambda x: cr.std(x, axis=-1),
    "max": lambda x: cr.max(x, axis=1),
    "min": lambda x: cr.min(x),
    "logsumexp": lambda x: cr.logsumexp(x, axis=(0, 2)),
    "cumulative_sum": lambda x: cr.cumulative_sum(x, axis=1, include_initial=True),
    "cumulative_prod": lambda x: cr.cumulative_prod(x, axis=-1),
    "diff": lambda x: cr.diff(x, axis=0, prepend=x[:1] * x[:1]),
    "sort": lambda x: cr.sort(x, axis=-1),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients(name, rng):
    x = cr.asarray(rng.normal(size=(2, 3, 4)), requires_grad=True)
    assert gradcheck(SMOOTH[name], [x])
    assert gradgradcheck(lambda x: SMOOTH[name](x) ** 2, [x])


@pytest.mark.parametrize("zeros", [[], [1], [0, 2]])
def test_gradients_of_products_with_zeros(zeros):
    values = np.asarray([2.0, 3.0, -1.0, 0.5])
    values[zeros] = 0
    x = cr.asarray(values, requires_grad=True)
    assert gradcheck(cr.prod, [x])
    assert gradgradcheck(cr.prod, [x])
    assert gradcheck(lambda x: cr.cumulative_prod(x), [x])


def test_sort_sends_gradients_home():
    x = cr.asarray([3.0, 1.0, 2.0], requires_grad=True)
    cr.sum(cr.sort(x) * cr.asarray([1.0, 10.0, 100.0])).backward()
    assert x.grad.tolist() == [100.0, 1.0, 10.0]
