"""DLPack: memory shared both ways with NumPy and JAX, read-only where the protocol can say so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import ArgumentError, ExchangeError, GradError

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32",
    "float64", "complex64", "complex128",
)  # fmt: skip


def address(x):
    return x.__array_interface__["data"][0]


def aligned(values):
    """A float32 array at an address that JAX takes without a copy."""
    memory = np.empty(4 * len(values) + 64, np.uint8)
    start = -address(memory) % 64
    array = memory[start : start + 4 * len(values)].view(np.float32)
    array[:] = values
    return array


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 2)])
def test_numpy_both_ways(dtype, shape):
    array = np.ones(shape, dtype)
    x = cr.from_dlpack(array)
    assert x.dtype == array.dtype
    assert x.shape == shape
    back = np.from_dlpack(x)
    assert address(x.numpy()) == address(array) == address(back)
    assert not back.flags.writeable
    np.testing.assert_array_equal(back, array)


def test_numpy_strides_survive():
    array = np.arange(12.0).reshape(3, 4)[::2, ::-1].T
    x = cr.from_dlpack(array)
    back = np.from_dlpack(x)
    assert back.strides == array.strides
    assert address(back) == address(array)
    np.testing.assert_array_equal(back, array)


def test_jax_both_ways():
    array = aligned([1.0, 2.0, 3.0])
    there = jax.dlpack.from_dlpack(cr.asarray(array))
    assert there.unsafe_buffer_pointer() == address(array)
    here = cr.from_dlpack(there)
    assert address(here.numpy()) == address(array)
    assert here.tolist() == [1.0, 2.0, 3.0]
    # JAX's arrays are read-only, and so is what comes from them; sent back it is copied.
    own = cr.from_dlpack(jnp.arange(3.0))
    again = jax.dlpack.from_dlpack(own)
    np.testing.assert_array_equal(np.asarray(again), [0.0, 1.0, 2.0])


def test_read_only_memory():
    array = np.arange(3.0)
    array.flags.writeable = False
    x = cr.asarray(array)
    assert address(x.numpy()) == address(array)
    assert address(np.from_dlpack(x)) == address(array)
    # A consumer of the first protocol cannot be told, and gets memory of its own or an error.
    x.__dlpack__()
    with pytest.raises(ExchangeError, match="read-only memory"):
        x.__dlpack__(copy=False)
    x.__dlpack__(copy=False, max_version=(1, 0))


def test_values_that_share_one_place_are_copied():
    for x in (cr.broadcast_to(cr.asarray([1.0]), (3,)), cr.asarray(1.0) * cr.ones((1,)) + 0.0):
        back = np.from_dlpack(x)
        assert 0 not in back.strides
        np.testing.assert_array_equal(back, x.numpy())


def test_copies_on_demand():
    array = np.arange(3.0)
    x = cr.from_dlpack(array, copy=True)
    assert address(x.numpy()) != address(array)
    y = cr.from_dlpack(array, copy=False)
    assert address(y.numpy()) == address(array)
    copied = np.from_dlpack(y, copy=True)
    assert address(copied) != address(array)
    copied[0] = 9.0
    assert y.tolist() == [0.0, 1.0, 2.0]
    assert cr.from_dlpack(y) is y
    assert cr.from_dlpack(y, copy=True).tolist() == y.tolist()


def test_writing_to_the_source_changes_the_tensor():
    array = np.arange(3.0)
    x = cr.from_dlpack(array)
    array[0] = 5.0
    assert x.tolist() == [5.0, 1.0, 2.0]
    x[0] = 1.0  # and a tensor's assignment never reaches the source
    assert array[0] == 5.0


def test_protocol():
    x = cr.ones((2,))
    assert x.__dlpack_device__() == (1, 0)
    for version in (None, (0, 0), (0, 8), (1, 0), (1, 1), (2, 0)):
        for copy in (None, True, False):
            capsule = x.__dlpack__(max_version=version, dl_device=(1, 0), copy=copy)
            assert "dltensor" in repr(capsule)
    with pytest.raises(ExchangeError, match=r"\(2, 0\) is not here"):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(ArgumentError, match="no streams"):
        x.__dlpack__(stream=1)
    with pytest.raises(GradError, match=r"x\.detach\(\)"):
        cr.ones((2,), requires_grad=True).__dlpack__()


def test_numpy_protocols():
    x = cr.asarray([1.0, 2.0])
    seen = np.asarray(x)
    assert address(seen) == address(x.numpy())
    assert not seen.flags.writeable
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert address(np.array(x, copy=True)) != address(seen)
    with pytest.raises(ValueError, match="copy=False"):
        np.array(x, dtype=np.float64, copy=False)
    assert isinstance(np.ones(2) * x, cr.Tensor)
    assert isinstance(np.float64(2) * x, cr.Tensor)
    assert (np.asarray([1.0, 5.0]) == x).tolist() == [True, False]
    with pytest.raises(GradError, match="detach"):
        np.asarray(cr.ones((2,), requires_grad=True))
