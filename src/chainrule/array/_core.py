"""What every array function needs: operands made alike, axes made plain, devices checked."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.dtypes import DType
from chainrule.errors import ArgumentError, DeviceError, DTypeError, IndexingError, ShapeError
from chainrule.graph import Shape, Value, constant, make, state
from chainrule.primitives import elementwise as p
from chainrule.primitives import movement

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

API_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")
SCALARS = (bool, int, float, complex)


def check_device(device: Any) -> None:
    """Refuse every device but the CPU."""
    if device is None or device == "cpu":
        return
    raise DeviceError(
        f"device {str(device)!r} is not here: chainrule computes on 'cpu'. Leave device out, or "
        "install a framework for that device, such as JAX, and exchange arrays through DLPack."
    )


def is_operand(x: Any) -> bool:
    """Whether x can stand beside a tensor in an expression."""
    return isinstance(x, (Value, bool, int, float, complex, np.ndarray, np.generic))


def as_tensor(x: Any) -> Any:
    """x as a tensor, if it is not one."""
    if isinstance(x, Value):
        return x
    from chainrule.array.creation import asarray

    return asarray(x)


def to_dtype(x: Any, dtype: DType) -> Any:
    """x in another dtype, if it is in another."""
    return x if x.dtype == dtype else p.cast(x, dtype=dtype)


def as_float(x: Any) -> Any:
    """x as a tensor of a floating-point (or complex) dtype, the default one for integers."""
    x = as_tensor(x)
    return x if x.dtype.kind in "fc" else p.cast(x, dtype=dtypes.float32)


def to_shape(x: Any, shape: Shape) -> Any:
    """x broadcast to a shape, if it has another."""
    return x if x.shape == shape else movement.broadcast_to(x, shape=shape)


def broadcast_shape(*shapes: Shape) -> Shape:
    """The common shape: aligned from the right, axes equal or 1."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"shapes {' and '.join(map(str, shapes))} do not broadcast: aligned from the right, "
            "each pair of axes must be equal, or one of them 1."
        ) from None


def operands(x: Any, y: Any, float_only: bool = False) -> tuple[Any, Any]:
    """Two operands as tensors of one dtype and one shape; Python scalars take the other's dtype."""
    x_scalar, y_scalar = isinstance(x, SCALARS), isinstance(y, SCALARS)
    if x_scalar and y_scalar:
        # The standard leaves this open; give the result that the scalars have as tensors.
        x, x_scalar = as_tensor(x), False
    if x_scalar:
        y = as_tensor(y)
        return operands_with_scalar(y, x, float_only)[::-1]
    if y_scalar:
        return operands_with_scalar(as_tensor(x), y, float_only)
    x, y = as_tensor(x), as_tensor(y)
    if x.dtype != y.dtype:
        dtype = dtypes.promote(x.dtype, y.dtype)
        x, y = to_dtype(x, dtype), to_dtype(y, dtype)
    if float_only and x.dtype.kind not in "fc":
        x, y = p.cast(x, dtype=dtypes.float32), p.cast(y, dtype=dtypes.float32)
    if x.shape != y.shape:
        shape = broadcast_shape(x.shape, y.shape)
        x, y = to_shape(x, shape), to_shape(y, shape)
    return x, y


def operands_with_scalar(x: Any, scalar: Any, float_only: bool) -> tuple[Any, Any]:
    """A tensor, and a Python scalar as a constant of its shape and dtype."""
    dtype = dtypes.promote_scalar(x.dtype, scalar)
    if float_only:
        dtype = dtypes.default_float(dtype)
    x = to_dtype(x, dtype)
    try:
        return x, constant(scalar, x.shape, dtype)
    except OverflowError:
        raise ArgumentError(
            f"{scalar} is outside the range of {dtype.name}; cast the tensor to a wider dtype first."
        ) from None


def normalize_axis(axis: Any, ndim: int) -> int:
    """An axis counted from the front."""
    try:
        n = operator.index(axis)
    except TypeError:
        raise DTypeError(f"an axis is an integer, but got {axis!r}.") from None
    if not -ndim <= n < ndim:
        raise IndexingError(f"axis {n} is out of bounds for a tensor with {ndim} axes.")
    return n % ndim


def normalize_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, sorted; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(normalize_axis(a, ndim) for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"axis {axis} names an axis twice.")
    return tuple(sorted(axes))


def as_shape(shape: Any) -> Shape:
    """A shape as a tuple of Python integers."""
    if not isinstance(shape, Sequence):
        shape = (shape,)
    try:
        return tuple(operator.index(n) for n in shape)
    except TypeError:
        raise DTypeError(f"a shape is a tuple of integers, but got {shape!r}.") from None


def concrete(x: Any, name: str) -> np.ndarray[Any, Any]:
    """The array behind a tensor, for results whose shape depends on the values."""
    return as_tensor(x)._array


def unrecorded(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor without a graph."""
    return make(array)


__all__ = [
    "API_VERSIONS", "SCALARS", "as_float", "as_shape", "as_tensor", "broadcast_shape",
    "check_device", "concrete", "is_operand", "normalize_axes", "normalize_axis", "operands",
    "operands_with_scalar", "state", "to_dtype", "to_shape", "unrecorded",
]  # fmt: skip
