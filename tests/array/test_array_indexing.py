"""Indexing against NumPy: random keys read and assigned, and the gradients of both."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.autograd import gradcheck, gradgradcheck
from chainrule.errors import DTypeError, IndexingError, RangeError, ShapeError

SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=4).map(tuple)


@st.composite
def slices(draw, n):
    bounds = st.none() | st.integers(-n - 2, n + 2)
    step = draw(st.none() | st.integers(-3, 3).filter(bool))
    return slice(draw(bounds), draw(bounds), step)


@st.composite
def keys(draw, shape):
    """A key that NumPy takes for this shape: every kind of entry, in any mixture."""
    batch = draw(st.lists(st.integers(1, 3), min_size=0, max_size=2).map(tuple))
    entries, axis = [], 0
    while axis < len(shape):
        n = shape[axis]
        choices = ["slice", "none"] + ["int", "index", "index"] * (n > 0) + ["mask"]
        kind = draw(st.sampled_from([*choices, "stop"]))
        if kind == "none":
            entries.append(None)
            if len(entries) > 7:
                break
            continue
        if kind == "stop":
            break
        if kind == "slice":
            entries.append(draw(slices(n)))
        elif kind == "int":
            i = draw(st.integers(-n, n - 1))
            entries.append(draw(st.sampled_from([i, np.int64(i), np.asarray(i)])))
        elif kind == "index":
            lead = draw(st.sampled_from([batch, batch[1:], tuple(1 for _ in batch)]))
            size = int(np.prod(lead))
            values = draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
            entries.append(np.asarray(values, dtype=np.int64).reshape(lead))
        else:
            part = shape[axis : axis + draw(st.integers(1, len(shape) - axis))]
            mask = np.random.default_rng(draw(st.integers(0, 9))).random(part) < 0.5
            entries.append(mask)
            axis += mask.ndim - 1
        axis += 1
    if draw(st.booleans()):
        entries.insert(draw(st.integers(0, len(entries))), Ellipsis)
    if len(entries) == 1 and draw(st.booleans()):
        return entries[0]
    return tuple(entries)


def as_tensors(key):
    """The same key with index tensors in place of NumPy's arrays."""
    if isinstance(key, tuple):
        return tuple(map(as_tensors, key))
    return cr.asarray(key) if isinstance(key, np.ndarray) else key


def test_an_empty_ellipsis_parts_indices():
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    for key in ((slice(None), [0, 1], Ellipsis, 0, 1), (Ellipsis, [0], 0, slice(None), 1)):
        np.testing.assert_array_equal(cr.asarray(x)[key].numpy(), x[key])


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_reading_agrees_with_numpy(data):
    shape = data.draw(SHAPES)
    key = data.draw(keys(shape))
    x = np.arange(float(np.prod(shape))).reshape(shape)
    try:
        expected = x[key]
    except (IndexError, ValueError) as error:
        with pytest.raises(IndexError if isinstance(error, IndexError) else ValueError):
            cr.asarray(x)[as_tensors(key)]
        return
    for form in (key, as_tensors(key)):
        found = cr.asarray(x)[form]
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.numpy(), expected)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_assigning_agrees_with_numpy(data):
    shape = data.draw(SHAPES)
    key = data.draw(keys(shape))
    x = np.zeros(shape)
    try:
        part = x[key].shape
    except (IndexError, ValueError):
        return
    whole = 1.0 + np.arange(float(np.prod(part))).reshape(part)
    value = data.draw(st.sampled_from([whole, whole[:1] if part else whole, 7.0, np.asarray(7)]))
    if np.ndim(value) and np.shape(value) != part and np.shape(value)[0] != 1:
        value = 7.0
    expected = x.copy()
    expected[key] = value
    made = cr.asarray(x, copy=True)
    before = made[...]
    made[as_tensors(key)] = cr.asarray(value, dtype=cr.float64) if np.ndim(value) else value
    np.testing.assert_array_equal(made.numpy(), expected)
    assert not before.numpy().any()


@pytest.mark.parametrize(
    "key",
    [
        1, -1, (0, 2), slice(None, None, -2), (slice(1, None), None, -1), Ellipsis, None,
        (Ellipsis, np.asarray([0, 0, 3])), np.asarray([[1, 0], [1, 1]]),
        (np.asarray([0, 1, 1]), slice(None), np.asarray([3, 0, 3])),
        (1, slice(None), np.asarray([2, 2])), (slice(None), np.asarray([True, False, True])),
        (np.asarray([0, 1]), None, slice(None, None, -1)), True, (slice(None), 5 * [1]),
    ],
)  # fmt: skip
def test_gradients_of_reading_and_assigning(key):
    x = cr.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), requires_grad=True)
    assert gradcheck(lambda x: x[key], [x])
    assert gradgradcheck(lambda x: x[key] ** 3, [x])
    shape = x.detach()[key].shape
    v = cr.asarray(np.random.default_rng(1).normal(size=shape), requires_grad=True)

    def assign(x, v):
        z = x * 1
        z[key] = v * v
        return z * z

    assert gradcheck(assign, [x, v])
    assert gradgradcheck(assign, [x, v])


def test_of_equal_places_the_last_value_stands_and_has_the_gradient():
    v = cr.asarray([1.0, 2.0, 3.0], requires_grad=True)
    z = cr.zeros((2,))
    z[cr.asarray([0, 1, 0])] = v
    assert z.tolist() == [3.0, 2.0]
    cr.sum(z * cr.asarray([10.0, 100.0])).backward()
    assert v.grad.tolist() == [0.0, 100.0, 10.0]


def test_assigning_by_a_mask_gives_the_number_its_gradient():
    x = cr.asarray([[1.0, -2.0], [-3.0, 4.0]], requires_grad=True)
    v = cr.asarray(5.0, requires_grad=True)
    z = x * 1
    z[x < 0] = v
    assert z.tolist() == [[1.0, 5.0], [5.0, 4.0]]
    cr.sum(z).backward()
    assert x.grad.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert v.grad.item() == 2.0
    z[cr.asarray([True, False])] = 0.0
    assert z.tolist() == [[0.0, 0.0], [5.0, 4.0]]


def test_masks_of_length_zero():
    x = cr.ones((3, 2))
    assert x[cr.zeros((0,), dtype=cr.bool)].shape == (0, 2)
    assert x[cr.zeros((3, 0), dtype=cr.bool)].shape == (0,)


@pytest.mark.parametrize(
    "key, message",
    [
        (3, "index 3 is out of bounds for axis 0 of length 2"),
        ((0, -4), "index -4 is out of bounds for axis 1 of length 3"),
        (([0, 2],), "index 2 is out of bounds"),
        ((0, 0, 0), "too many indices"),
        ((Ellipsis, 0, Ellipsis), "one '...' only"),
        (1.5, "float32"),
        ("a", "'a' is no index"),
        (slice(0, 2, 0), "step cannot be 0"),
        (slice(0.5, 2), "made of integers"),
        (cr.asarray([True, False, True]), "a mask of shape"),
        (cr.ones((2, 3, 1), dtype=cr.bool), "too many indices"),
        (([0, 1], [0, 1, 2]), "do not broadcast"),
        ((2, []), "index 2 is out of bounds"),
        (([2], []), "index 2 is out of bounds"),
    ],
)
def test_keys_that_do_not_fit(key, message):
    x = cr.ones((2, 3))
    with pytest.raises(IndexingError, match=message):
        x[key]
    with pytest.raises(IndexingError, match=message):
        x[key] = 1.0


def test_values_that_do_not_fit():
    x, real = cr.zeros((2, 3), dtype=cr.int8), cr.zeros((2,))
    with pytest.raises(DTypeError, match="cannot assign float32 values to a tensor of int8"):
        x[0] = 1.5
    with pytest.raises(RangeError, match="300 is outside the range of int8"):
        x[0] = 300
    with pytest.raises(ShapeError, match=r"shape \(2,\) to x\[key\] of shape \(3,\)"):
        x[0] = cr.asarray([1, 2])
    with pytest.raises(DTypeError, match="complex64 values to a tensor of float32"):
        real[0] = 1j
    assert not x.numpy().any()


def test_assigning_to_a_temporary_is_refused():
    x = cr.zeros((2, 2))
    with pytest.raises(IndexingError, match=r"x\[i, j\] = v"):
        x[0][1] = 1.0
    with pytest.raises(IndexingError, match=r"x\[i, j\] = v"):
        x[0][:1] = 1.0


def test_assigning_to_what_somebody_holds_is_not_refused():
    class Holder:
        def __init__(self):
            self.value = cr.zeros((3,))

    def close():
        y = cr.zeros((3,))

        def assign():
            y[0] = 1.0
            y.__setitem__(1, 1.0)
            operator.setitem(y, 2, 1.0)
            return y

        return assign()

    holder, listed, named = Holder(), [cr.zeros((3,))], {"a": cr.zeros((3,))}
    for i in range(3):
        holder.value[i] = listed[0][i] = named["a"][i] = 1.0
    for x in (holder.value, listed[0], named["a"], close()):
        assert x.tolist() == [1.0, 1.0, 1.0]


def test_assignment_keeps_the_dtype_and_other_names_of_old_values():
    x = cr.zeros((3,))
    part, whole = x[:2], x[...]
    x[1] = 5
    x[2] = cr.asarray(7.0, dtype=cr.float64)
    assert x.dtype == cr.float32
    assert x.tolist() == [0.0, 5.0, 7.0]
    assert part.tolist() == [0.0, 0.0]
    assert whole.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_take(axis, rng):
    x = rng.normal(size=(3, 4, 2))
    for indices in (np.asarray([1, 0, 1]), np.asarray([[0], [-1]]), np.zeros((0,), np.int64)):
        found = cr.take(cr.asarray(x), cr.asarray(indices), axis=axis)
        np.testing.assert_array_equal(found.numpy(), np.take(x, indices, axis=axis))
    a = cr.asarray(x, requires_grad=True)
    assert gradcheck(lambda x: cr.take(x, cr.asarray([1, 1, 0]), axis=axis), [a])
    with pytest.raises(ShapeError, match="needs an axis"):
        cr.take(a, cr.asarray([0]))
    with pytest.raises(IndexError, match="out of bounds"):
        cr.take(a, cr.asarray([9]), axis=axis)
    assert cr.take(cr.arange(3), cr.asarray([2, 0], dtype=cr.uint8)).tolist() == [2, 0]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_take_along_axis(axis, rng):
    x = rng.normal(size=(3, 4, 2))
    shape = list(x.shape)
    shape[axis] = 5
    indices = rng.integers(-x.shape[axis], x.shape[axis], shape)
    found = cr.take_along_axis(cr.asarray(x), cr.asarray(indices), axis=axis)
    np.testing.assert_array_equal(found.numpy(), np.take_along_axis(x, indices, axis=axis))
    a = cr.asarray(x, requires_grad=True)
    assert gradcheck(lambda x: cr.take_along_axis(x, cr.asarray(indices), axis=axis), [a])
    line = np.moveaxis(np.zeros((1, 1, 2), np.int64), -1, axis)
    found = cr.take_along_axis(cr.asarray(x), cr.asarray(line), axis=axis)
    np.testing.assert_array_equal(found.numpy(), np.take_along_axis(x, line, axis=axis))
    with pytest.raises(DTypeError, match="integer indices"):
        cr.take_along_axis(a, cr.asarray([[[1.0]]]))
    with pytest.raises(ShapeError, match="as many axes"):
        cr.take_along_axis(a, cr.asarray([0]))


def test_scatter_add():
    x = cr.asarray(np.zeros((2, 3)), requires_grad=True)
    u = cr.asarray(np.arange(1.0, 7.0).reshape(2, 3), requires_grad=True)
    index = cr.asarray([[0, 0, 1], [1, 0, 1]])
    found = cr.scatter_add(x, index, u, axis=0)
    expected = np.zeros((2, 3))
    np.add.at(expected, (index.numpy(), np.arange(3)), u.detach().numpy())
    np.testing.assert_array_equal(found.detach().numpy(), expected)
    assert gradcheck(lambda x, u: cr.scatter_add(x, index, u, axis=0) ** 2, [x, u])


def test_a_tensor_indexes_python_sequences():
    assert [10, 20, 30][cr.asarray(1)] == 20
    assert list(range(cr.asarray(3))) == [0, 1, 2]
    with pytest.raises(TypeError, match="only an integer tensor"):
        [10, 20][cr.asarray(1.0)]
    with pytest.raises(TypeError, match="only an integer tensor"):
        [10, 20][cr.asarray([1])]


def test_iteration_and_membership():
    x = cr.asarray([[1.0, 2.0], [3.0, 4.0]])
    assert [row.tolist() for row in x] == [[1.0, 2.0], [3.0, 4.0]]
    assert len(x) == 2
    assert 3.0 in x
    assert 5 not in x
    for call in (len, iter):
        with pytest.raises(TypeError):
            call(cr.asarray(1.0))


def test_numbers_of_one_element():
    assert float(cr.asarray([2.5])) == 2.5
    assert int(cr.asarray(-2.5)) == -2
    assert complex(cr.asarray(1 + 2j)) == 1 + 2j
    assert bool(cr.asarray([[0.0]])) is False
    with pytest.raises(ShapeError, match=r"\.any\(\) or \.all\(\)"):
        bool(cr.ones((2,)))
    with pytest.raises(DTypeError, match="complex number"):
        float(cr.asarray(1j))
    with pytest.raises(OverflowError):
        int(cr.asarray(cr.inf))
