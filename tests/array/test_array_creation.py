"""Creation: what becomes a tensor, of which dtype, in whose memory."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import (
    ArgumentError,
    ChainruleError,
    DeviceError,
    DTypeError,
    RangeError,
    ShapeError,
)


def address(x):
    return x.__array_interface__["data"][0] if isinstance(x, np.ndarray) else address(x.numpy())


@pytest.mark.parametrize(
    "obj, dtype",
    [
        (True, "bool"), (3, "int64"), (2.5, "float32"), (1j, "complex64"),
        ([1, 2], "int64"), ([1, 2.5], "float32"), ([True, False], "bool"), ([True, 2], "int64"),
        ([[1, 2j]], "complex64"), ([], "float32"), ([[], []], "float32"),
        (np.float64(1.5), "float64"), (np.int8(3), "int8"), (np.ones(2), "float64"),
        ([np.float64(1), 2.0], "float64"), ([np.ones(2), np.zeros(2)], "float64"),
        (range(3), "int64"), (array.array("d", [1, 2]), "float64"), (b"ab", "uint8"),
        (memoryview(b"ab"), "uint8"), (np.ones(2, ">i4"), "int32"),
    ],
)  # fmt: skip
def test_asarray_infers_the_dtype(obj, dtype):
    made = cr.asarray(obj)
    assert made.dtype == np.dtype(dtype)
    reference = list(obj) if isinstance(obj, bytes | memoryview) else obj
    np.testing.assert_array_equal(made.numpy(), np.asarray(reference, dtype=dtype))


def test_asarray_shares_memory_unless_told_otherwise():
    source = np.arange(3.0)
    shared, copied = cr.asarray(source), cr.asarray(source, copy=True)
    never = cr.asarray(source, copy=False)
    assert address(shared) == address(never) == address(source) != address(copied)
    source[0] = 7.0
    assert shared.tolist() == [7.0, 1.0, 2.0]
    assert copied.tolist() == [0.0, 1.0, 2.0]
    assert cr.tensor(source).tolist() == shared.tolist()
    assert address(cr.tensor(source)) != address(source)
    buffer = array.array("i", [1, 2])
    assert address(cr.asarray(buffer, copy=False)) == buffer.buffer_info()[0]


def test_asarray_of_a_tensor():
    x = cr.asarray([1.0, 2.0])
    assert cr.asarray(x) is x
    assert cr.asarray(x, copy=False) is x
    twin = cr.asarray(x, copy=True)
    x[0] = 5.0
    assert twin.tolist() == [1.0, 2.0]
    assert cr.asarray(x, dtype=cr.float64).dtype == cr.float64
    leaf = cr.asarray(x, requires_grad=True)
    assert leaf.requires_grad
    assert leaf.is_leaf
    assert not x.requires_grad
    with pytest.raises(ArgumentError, match="float32 as float64 needs a copy"):
        cr.asarray(x, dtype=cr.float64, copy=False)


def test_a_sequence_of_tensors_is_stacked_and_differentiates():
    a, b = cr.asarray(2.0, requires_grad=True), cr.asarray(3.0, requires_grad=True)
    z = cr.asarray([[a, b], [1.0, a]])
    assert z.tolist() == [[2.0, 3.0], [1.0, 2.0]]
    cr.sum(z * cr.asarray([[1.0, 10.0], [100.0, 1000.0]])).backward()
    assert (a.grad.item(), b.grad.item()) == (1001.0, 10.0)


def test_copy_false_raises_where_a_copy_is_needed():
    for obj in ([1.0], 2.0, [cr.ones((2,))]):
        with pytest.raises(ArgumentError, match="needs a copy"):
            cr.asarray(obj, copy=False)
    with pytest.raises(ValueError, match="float64 needs a copy"):
        cr.asarray(np.ones(2), dtype=cr.float32, copy=False)


def test_asarray_with_a_dtype():
    assert cr.asarray([1.7, -1.7], dtype=cr.int32).tolist() == [1, -1]
    assert cr.asarray([2**64 - 1], dtype=cr.uint64).tolist() == [2**64 - 1]
    assert cr.asarray([2**80], dtype=cr.float64).tolist() == [2.0**80]
    assert cr.asarray([0, 2, math.nan], dtype=cr.bool).tolist() == [False, True, True]
    assert cr.asarray([1, True], dtype=cr.complex128).tolist() == [1, 1]


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: cr.asarray([[1], [2, 3]]), ShapeError, "all rows of one length"),
        (lambda: cr.asarray("text"), DTypeError, "no numbers"),
        (lambda: cr.asarray(["a", "b"]), DTypeError, "no numbers"),
        (lambda: cr.asarray({1: 2}), DTypeError, "no numbers"),
        (lambda: cr.asarray(None), DTypeError, "no numbers"),
        (lambda: cr.asarray(np.asarray(["a"])), DTypeError, "Text becomes numbers"),
        (lambda: cr.asarray(np.zeros(2, np.float16)), DTypeError, "float16 does not exist here"),
        (lambda: cr.asarray([2**63]), RangeError, "outside the range of int64"),
        (lambda: cr.asarray([300], dtype=cr.int8), RangeError, "outside the range of int8"),
        (lambda: cr.asarray(-1, dtype=cr.uint8), OverflowError, "outside the range of uint8"),
        (lambda: cr.asarray([1j], dtype=cr.float32), DTypeError, "complex numbers have no value"),
        (lambda: cr.asarray(np.ones(2) * 1j, dtype=cr.int8), DTypeError, "complex numbers"),
        (lambda: cr.asarray([1.0], device="cuda"), DeviceError, "chainrule computes on 'cpu'"),
        (lambda: cr.asarray([1], requires_grad=True), DTypeError, "only real floating-point"),
        (lambda: cr.full((2,), 300, dtype=cr.int8), RangeError, "300 is outside"),
        (lambda: cr.full((2,), math.nan, dtype=cr.int8), DTypeError, "nan has no value in int8"),
        (lambda: cr.full((2,), 1j, dtype=cr.float32), DTypeError, "has no value in float32"),
        (lambda: cr.zeros((2, -1)), ShapeError, "cannot be negative"),
        (lambda: cr.ones((2.5,)), DTypeError, "tuple of integers"),
        (lambda: cr.arange(0, 300, dtype=cr.uint8), RangeError, "leaves the range of uint8"),
        (lambda: cr.arange(0, 1, 0), ArgumentError, "step other than 0"),
        (lambda: cr.arange(math.inf), ArgumentError, "has no end"),
        (lambda: cr.linspace(0, 1, -1), ArgumentError, "num >= 0"),
        (lambda: cr.linspace(0, 1j, 3, dtype=cr.float32), DTypeError, "complex"),
        (lambda: cr.tril(cr.ones((3,))), ShapeError, "at least two axes"),
        (lambda: cr.meshgrid(cr.ones((2, 2))), ShapeError, "one-dimensional"),
        (lambda: cr.meshgrid(cr.ones((2,)), indexing="yx"), ArgumentError, "'xy' or 'ij'"),
        (lambda: cr.from_dlpack([1.0]), DTypeError, "__dlpack__"),
    ],
)
def test_misuse(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert isinstance(caught.value, ChainruleError)


SHAPES = ((), 3, (0,), (2, 3), (2, 0), [2, 1])


@pytest.mark.parametrize("dtype", [None, "bool", "int8", "uint64", "float32", "complex128"])
@pytest.mark.parametrize("shape", SHAPES)
def test_filled_tensors(shape, dtype):
    chosen = np.dtype("float32" if dtype is None else dtype)
    for name, value in (("zeros", 0), ("ones", 1), ("empty", None)):
        made = getattr(cr, name)(shape, dtype=dtype)
        assert made.dtype == chosen
        assert made.shape == np.zeros(shape).shape
        if value is not None:
            np.testing.assert_array_equal(made.numpy(), np.full(shape, value, chosen))
        like = getattr(cr, f"{name}_like")(made)
        assert (like.shape, like.dtype) == (made.shape, made.dtype)
        assert getattr(cr, f"{name}_like")(made, dtype=cr.int16).dtype == cr.int16
        assert made.numpy().flags.c_contiguous


def test_full_takes_the_dtype_of_its_value():
    for value, dtype in ((True, "bool"), (3, "int64"), (2.5, "float32"), (1j, "complex64")):
        made = cr.full((2, 1), value)
        assert made.dtype == np.dtype(dtype)
        assert made.tolist() == [[value], [value]]
    assert cr.full(2, np.float64(1.5)).tolist() == [1.5, 1.5]
    assert cr.full((2,), cr.asarray(1.5, dtype=cr.float64)).dtype == cr.float64
    assert cr.full((2,), np.int8(4)).dtype == cr.int8
    assert cr.full_like(cr.ones((2,), dtype=cr.int8), 3).tolist() == [3, 3]
    assert cr.full_like(cr.ones((2,)), 3, dtype=cr.uint8).dtype == cr.uint8


@given(
    st.integers(-(2**40), 2**40), st.integers(-60, 60),
    st.integers(-7, 7).filter(bool), st.sampled_from([None, "int64", "float64"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_arange_of_integers(start, length, step, dtype):
    made = cr.arange(start, start + length, step, dtype=dtype)
    assert made.dtype == np.dtype(dtype or "int64")
    np.testing.assert_array_equal(made.numpy(), np.arange(start, start + length, step))


def test_arange_at_the_ends_of_the_integers():
    top = 2**64 - 1
    assert cr.arange(top - 3, top, dtype=cr.uint64).tolist() == [top - 3, top - 2, top - 1]
    assert cr.arange(2**63 - 2, 2**63 - 1).tolist() == [2**63 - 2]
    assert cr.arange(-(2**63), -(2**63) + 2).tolist() == [-(2**63), -(2**63) + 1]
    assert cr.arange(0, 256, 51, dtype=cr.uint8).tolist() == [0, 51, 102, 153, 204, 255]
    assert cr.arange(5, 0).shape == (0,)


def test_arange_of_floats():
    np.testing.assert_array_equal(
        cr.arange(0.5, 3, 0.75).numpy(), np.float32([0.5, 1.25, 2.0, 2.75])
    )
    tenths = cr.arange(1.0, 0.0, -0.1, dtype=cr.float64)
    np.testing.assert_allclose(tenths.numpy(), np.arange(10, 0, -1) / 10, rtol=0, atol=3e-16)
    assert cr.arange(3.0).dtype == cr.float32
    assert cr.arange(np.int64(3)).dtype == cr.int64
    assert cr.arange(cr.asarray(3)).tolist() == [0, 1, 2]
    assert cr.arange(0, 3, 0.5, dtype=cr.int64).tolist() == [0, 0, 1, 1, 2, 2]


@given(
    st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(0, 9), st.booleans(),
    st.sampled_from([None, "float64", "complex128"]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_linspace(start, stop, num, endpoint, dtype):
    made = cr.linspace(start, stop, num, dtype=dtype, endpoint=endpoint)
    reference = np.linspace(start, stop, num, endpoint=endpoint)
    tolerance = 1e-7 if dtype is None else 1e-14
    np.testing.assert_allclose(
        made.numpy(), reference, rtol=tolerance, atol=tolerance * max(abs(start), abs(stop), 1e-30)
    )
    if num:
        assert made[0].item() == np.dtype(dtype or "float32").type(start)
    if num > 1 and endpoint:
        assert made[-1].item() == np.dtype(dtype or "float32").type(stop)
    open_ended = cr.linspace(start, stop, num + 1, dtype=dtype)[:-1]
    same = cr.linspace(start, stop, num, dtype=dtype, endpoint=False)
    assert open_ended.tolist() == same.tolist()


def test_linspace_of_integers_and_extremes():
    big = 2**62
    made = cr.linspace(big + 1, big + 9, 5, dtype=cr.int64)
    assert made.tolist() == [big + 1, big + 3, big + 5, big + 7, big + 9]
    assert cr.linspace(0, 5, 3, dtype=cr.int64).tolist() == [0, 2, 5]
    assert cr.linspace(5, 0, 3, dtype=cr.int64).tolist() == [5, 2, 0]
    assert cr.linspace(-1.7e308, 1.7e308, 3, dtype=cr.float64).tolist() == [-1.7e308, 0, 1.7e308]
    assert cr.linspace(0, 2j, 3).tolist() == [0, 1j, 2j]
    assert cr.linspace(2.0, 3.0, 1).tolist() == [2.0]


def test_eye_tril_triu():
    for rows, columns, k in ((3, None, 0), (2, 4, 1), (4, 2, -1), (3, 3, 9), (0, 2, 0), (2, 2, -9)):
        made = cr.eye(rows, columns, k=k, dtype=cr.int8)
        np.testing.assert_array_equal(made.numpy(), np.eye(rows, columns, k, dtype=np.int8))
    assert cr.eye(3, k=10**30).numpy().sum() == 0
    x = np.arange(24.0).reshape(2, 3, 4)
    for k in (-4, -1, 0, 2, 5):
        np.testing.assert_array_equal(cr.tril(cr.asarray(x), k=k).numpy(), np.tril(x, k))
        np.testing.assert_array_equal(cr.triu(cr.asarray(x), k=k).numpy(), np.triu(x, k))
    assert cr.triu(cr.ones((2, 0, 3))).shape == (2, 0, 3)
    assert cr.tril(cr.ones((2, 2), dtype=cr.bool)).tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("indexing", ["xy", "ij"])
def test_meshgrid(indexing):
    vectors = np.arange(2.0), np.arange(3.0), np.arange(4.0)
    for n in range(4):
        made = cr.meshgrid(*map(cr.asarray, vectors[:n]), indexing=indexing)
        reference = np.meshgrid(*vectors[:n], indexing=indexing)
        assert isinstance(made, list)
        assert len(made) == n
        for a, b in zip(made, reference, strict=True):
            np.testing.assert_array_equal(a.numpy(), b)


def test_devices():
    x = cr.ones((2,), device="cpu")
    assert x.device == "cpu"
    assert x.to_device("cpu").tolist() == [1.0, 1.0]
    for call in (
        lambda: x.to_device("gpu"),
        lambda: x.to("cuda:0"),
        lambda: cr.eye(2, device="tpu"),
    ):
        with pytest.raises(DeviceError, match="Leave device out"):
            call()
    with pytest.raises(ArgumentError, match="no streams"):
        x.to_device("cpu", stream=1)
    assert x.__array_namespace__() is cr
    assert x.__array_namespace__(api_version="2023.12") is cr
    with pytest.raises(ArgumentError, match=r"2020\.1"):
        x.__array_namespace__(api_version="2020.1")
