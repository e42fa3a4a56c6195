"""DLPack with PyTorch: memory shared both ways."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr

torch = pytest.importorskip("torch")

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "float32", "float64", "complex64",
    "complex128",
)  # fmt: skip


def address(x):
    return x.numpy().__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_both_ways_without_a_copy(dtype, shape):
    t = torch.ones(shape, dtype=getattr(torch, dtype))
    x = cr.from_dlpack(t)
    assert x.dtype == np.dtype(dtype)
    assert x.shape == shape
    assert address(x) == t.data_ptr()
    back = torch.from_dlpack(x)
    assert back.data_ptr() == t.data_ptr()
    assert back.dtype == t.dtype
    t.zero_()
    assert not x.numpy().any()


def test_transposed_memory_keeps_its_strides():
    t = torch.arange(6.0).reshape(2, 3).T
    x = cr.from_dlpack(t)
    assert x.tolist() == t.tolist()
    assert torch.from_dlpack(x).stride() == t.stride()


def test_asarray_shares_too():
    t = torch.arange(3.0)
    assert address(cr.asarray(t)) == t.data_ptr()
    assert address(cr.asarray(t, copy=True)) != t.data_ptr()


def test_constants_are_copied_because_pytorch_could_write_to_them():
    x = cr.broadcast_to(cr.asarray([1.0]), (3,))
    t = torch.from_dlpack(x)
    t[0] = 5.0
    assert x.tolist() == [1.0, 1.0, 1.0]
    assert t.tolist() == [5.0, 1.0, 1.0]


def test_a_copy_is_independent():
    x = cr.asarray(np.arange(3.0))
    t = torch.from_dlpack(x, copy=True)
    t[0] = 5.0
    assert x.tolist() == [0.0, 1.0, 2.0]


def test_a_tensor_that_requires_a_gradient_is_refused():
    with pytest.raises(cr.errors.GradError, match="detach"):
        torch.from_dlpack(cr.ones((2,), requires_grad=True))
