"""Other shapes, orders and groupings, against NumPy; gradients against central differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.autograd import gradcheck, gradgradcheck
from chainrule.errors import ArgumentError, DTypeError, IndexingError, ShapeError

SHAPES = st.lists(st.integers(0, 3), min_size=0, max_size=4).map(tuple)


def numbers(shape):
    return np.arange(float(np.prod(shape))).reshape(shape)


def same(actual, expected):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual.numpy(), expected)


@given(SHAPES, st.data())
@settings(max_examples=60, deadline=None)
def test_orders_of_axes(shape, data):
    x = numbers(shape)
    a, n = cr.asarray(x), len(shape)
    order = data.draw(st.permutations(range(n)))
    signed = tuple(data.draw(st.sampled_from([i, i - n])) for i in order)
    same(cr.permute_dims(a, signed), np.transpose(x, order))
    if n > 1:
        same(cr.matrix_transpose(a), np.swapaxes(x, -1, -2))
        same(a.mT, np.swapaxes(x, -1, -2))
        same(cr.swapaxes(a, signed[0], signed[1]), np.swapaxes(x, signed[0], signed[1]))
    if n:
        k = data.draw(st.integers(1, n))
        places = data.draw(st.permutations(range(n)))[:k]
        same(cr.moveaxis(a, order[:k], places), np.moveaxis(x, order[:k], places))
        same(cr.moveaxis(a, signed[0], places[0]), np.moveaxis(x, order[0], places[0]))
    axes = tuple(data.draw(st.lists(st.sampled_from(range(n)), unique=True))) if n else ()
    same(cr.flip(a), np.flip(x))
    same(cr.flip(a, axis=axes), np.flip(x, axes))


@given(SHAPES, st.data())
@settings(max_examples=60, deadline=None)
def test_shapes(shape, data):
    x = numbers(shape)
    a, n = cr.asarray(x), len(shape)
    target = data.draw(st.permutations(shape)) if shape else [1]
    same(cr.reshape(a, tuple(target)), x.reshape(target))
    if x.size:
        same(cr.reshape(a, (-1,)), x.reshape(-1))
        hole = data.draw(st.integers(0, len(target) - 1))
        holed = tuple(-1 if i == hole else m for i, m in enumerate(target))
        same(a.reshape(*holed), x.reshape(holed))
    axis = data.draw(st.integers(-n - 1, n))
    same(cr.expand_dims(a, axis=axis), np.expand_dims(x, axis))
    same(cr.squeeze(cr.expand_dims(a, axis), axis), x)
    same(cr.expand_dims(a, (0, -1)), np.expand_dims(x, (0, -1)))
    same(a.expand_dims(0).squeeze(0).reshape(shape), x)
    if n:
        start = data.draw(st.integers(0, n - 1))
        end = data.draw(st.integers(start, n - 1))
        merged = (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])
        same(cr.flatten(a, start, end), x.reshape(merged))
        same(cr.unflatten(cr.flatten(a, start, end), start, shape[start : end + 1]), x)


@given(SHAPES, st.data())
@settings(max_examples=60, deadline=None)
def test_joining_and_parting(shape, data):
    x, y = numbers(shape), numbers(shape) + 100
    a, b, n = cr.asarray(x), cr.asarray(y), len(shape)
    axis = data.draw(st.integers(-n - 1, n))
    same(cr.stack([a, b, a], axis=axis), np.stack([x, y, x], axis))
    same(cr.concat([a, b], axis=None), np.concatenate([x, y], axis=None))
    if n:
        axis = data.draw(st.integers(-n, n - 1))
        same(cr.concat((a, b), axis=axis), np.concatenate([x, y], axis))
        parts = cr.unstack(a, axis=axis)
        assert isinstance(parts, tuple)
        assert len(parts) == shape[axis]
        for i, part in enumerate(parts):
            same(part, np.take(x, i, axis))
        cut = data.draw(st.integers(0, shape[axis]))
        first, second = cr.split(a, (cut, shape[axis] - cut), axis=axis)
        same(first, np.split(x, [cut], axis)[0])
        same(second, np.split(x, [cut], axis)[1])
        shift = data.draw(st.integers(-7, 7))
        same(cr.roll(a, shift, axis=axis), np.roll(x, shift, axis))
    same(cr.roll(a, 3), np.roll(x, 3))


@given(SHAPES, st.data())
@settings(max_examples=60, deadline=None)
def test_repetition(shape, data):
    x = numbers(shape)
    a, n = cr.asarray(x), len(shape)
    times = tuple(data.draw(st.lists(st.integers(0, 3), max_size=4)))
    same(cr.tile(a, times), np.tile(x, times))
    count = data.draw(st.integers(0, 3))
    same(cr.repeat(a, count), np.repeat(x, count))
    if n:
        axis = data.draw(st.integers(-n, n - 1))
        counts = data.draw(st.lists(st.integers(0, 3), min_size=shape[axis], max_size=shape[axis]))
        kind = data.draw(st.sampled_from(["uint8", "uint64", "int64"]))
        same(cr.repeat(a, count, axis=axis), np.repeat(x, count, axis))
        if counts:
            repeats = cr.asarray(counts, dtype=kind)
            same(cr.repeat(a, repeats, axis=axis), np.repeat(x, counts, axis))
    wide = (2, *(3 if m == 1 else m for m in shape))
    same(cr.broadcast_to(a, wide), np.broadcast_to(x, wide))


def test_rolls_along_several_axes():
    x = numbers((3, 4))
    same(cr.roll(cr.asarray(x), (1, -2), axis=(0, 1)), np.roll(x, (1, -2), (0, 1)))
    same(cr.roll(cr.asarray(x), 1, axis=(0, 1)), np.roll(x, 1, (0, 1)))
    same(cr.roll(cr.asarray(x), (1, 1), axis=(0, 0)), np.roll(x, (1, 1), (0, 0)))


def test_broadcast_arrays():
    x, y, z = numbers((2, 1)), numbers((3,)), np.asarray(5.0)
    made = cr.broadcast_arrays(*map(cr.asarray, (x, y, z)))
    assert isinstance(made, list)
    for a, b in zip(made, np.broadcast_arrays(x, y, z), strict=True):
        same(a, b)
    assert cr.broadcast_arrays() == []


def test_pad_and_crop():
    x = numbers((2, 3))
    same(
        cr.pad(cr.asarray(x), ((1, 0), (2, 3)), value=7.0),
        np.pad(x, ((1, 0), (2, 3)), constant_values=7),
    )
    same(cr.pad(cr.asarray(x), ((-1, 1), (1, -2))), np.pad(x[1:, :1], ((0, 1), (1, 0))))
    with pytest.raises(ShapeError, match="2 pairs"):
        cr.pad(cr.asarray(x), ((1, 1),))


def test_reshape_copies_or_refuses_to():
    x = cr.asarray(numbers((2, 3)))
    assert np.shares_memory(cr.reshape(x, (6,)).numpy(), x.numpy())
    assert not np.shares_memory(cr.reshape(x, (6,), copy=True).numpy(), x.numpy())
    assert np.shares_memory(cr.reshape(x, (3, 2), copy=False).numpy(), x.numpy())
    with pytest.raises(ArgumentError, match="not contiguous"):
        cr.reshape(cr.matrix_transpose(x), (6,), copy=False)


OPERATIONS = {
    "broadcast_to": lambda x: cr.broadcast_to(x, (4, 2, 3)),
    "concat": lambda x: cr.concat([x, x * x, x[:1]], axis=0),
    "concat flat": lambda x: cr.concat([x, x * x], axis=None),
    "expand_dims": lambda x: cr.expand_dims(x, axis=1),
    "flip": lambda x: cr.flip(x, axis=1),
    "moveaxis": lambda x: cr.moveaxis(x, 0, 1),
    "pad": lambda x: cr.pad(x, ((1, 2), (0, 1)), value=3.0),
    "permute_dims": lambda x: cr.permute_dims(x, (1, 0)),
    "repeat": lambda x: cr.repeat(x, cr.asarray([2, 0, 1]), axis=1),
    "reshape": lambda x: cr.reshape(x, (3, 2)),
    "roll": lambda x: cr.roll(x, 1, axis=1),
    "split": lambda x: cr.split(x, (1, 2), axis=1)[1],
    "squeeze": lambda x: cr.squeeze(x[None], 0),
    "stack": lambda x: cr.stack([x, x * x], axis=1),
    "tile": lambda x: cr.tile(x, (2, 1, 2)),
    "tril": lambda x: cr.tril(x),
    "unstack": lambda x: cr.unstack(x, axis=1)[2],
    "diff": lambda x: cr.diff(x, axis=1, n=2),
    "sort": lambda x: cr.sort(x, axis=1, descending=True),
    "unique": lambda x: cr.unique_values(x),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients(name, rng):
    x = cr.asarray(rng.normal(size=(2, 3)), requires_grad=True)
    assert gradcheck(OPERATIONS[name], [x])
    assert gradgradcheck(lambda x: OPERATIONS[name](x) ** 3, [x])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: cr.reshape(x, (4,)), ShapeError, r"\(2, 3\) \(6 elements\) to \(4,\)"),
        (lambda x: cr.reshape(x, (-1, -1)), ShapeError, "only one length"),
        (lambda x: cr.reshape(x, (-2, 3)), ShapeError, "negative"),
        (lambda x: cr.reshape(x, (2.5,)), DTypeError, "tuple of integers"),
        (lambda x: cr.permute_dims(x, (0,)), ArgumentError, "each axis once"),
        (lambda x: cr.permute_dims(x, (0, 0)), ArgumentError, "each axis once"),
        (lambda x: cr.permute_dims(x, (0, 2)), IndexingError, "axis 2 is out of bounds"),
        (lambda x: cr.expand_dims(x, axis=4), IndexingError, "axis 4 is out of bounds"),
        (lambda x: cr.squeeze(x, 0), ValueError, "length is not 1"),
        (lambda x: cr.squeeze(x, 2), IndexingError, "axis 2"),
        (lambda x: cr.concat([]), ArgumentError, "at least one"),
        (lambda x: cr.concat([x, x[0]]), ShapeError, "cannot concatenate"),
        (lambda x: cr.concat([x, x[:, :2]]), ShapeError, "all other axes"),
        (lambda x: cr.concat([x[0, 0], x[0, 0]]), ShapeError, "use stack"),
        (lambda x: cr.stack([x, x[0]]), ShapeError, "equal shapes"),
        (lambda x: cr.moveaxis(x, (0, 0), (0, 1)), ArgumentError, "twice"),
        (lambda x: cr.moveaxis(x, (0, 1), (0,)), ArgumentError, "2 axes and 1 places"),
        (lambda x: cr.broadcast_to(x, (2, 2)), ShapeError, "cannot broadcast"),
        (lambda x: cr.repeat(x, -1), ArgumentError, "0 or more"),
        (lambda x: cr.repeat(x, 1.5), ArgumentError, "0 or more"),
        (lambda x: cr.repeat(x, [1, 2], axis=1), ShapeError, "pass one number, or 3"),
        (lambda x: cr.tile(x, (-1,)), ArgumentError, "0 times or more"),
        (lambda x: cr.roll(x, (1, 2, 3), axis=(0, 1)), ArgumentError, "3 shifts for 2 axes"),
        (lambda x: cr.split(x, 2, axis=1), ArgumentError, "length 3 into 2"),
        (lambda x: cr.split(x, (1, 1), axis=1), ArgumentError, "do not add up"),
        (lambda x: cr.split(x, (4, -1), axis=1), ArgumentError, "do not add up"),
        (lambda x: cr.matrix_transpose(x[0]), ShapeError, "at least two axes"),
        (lambda x: x[0].T, ShapeError, r"x\.mT"),
        (lambda x: cr.flip(x, axis=(0, 0)), ArgumentError, "twice"),
        (lambda x: cr.unflatten(x, 1, (2, 2)), ShapeError, "cannot split"),
    ],
)
def test_misuse(call, error, message):
    with pytest.raises(error, match=message):
        call(cr.ones((2, 3)))
