"""What every array function needs: operands made alike, axes made plain, devices checked."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.dtypes import DType
from chainrule.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    IndexingError,
    RangeError,
    ShapeError,
    TraceError,
    users_line,
)
from chainrule.graph import Leaf, Shape, Symbol, Value, constant, make, state, told
from chainrule.primitives import elementwise as p
from chainrule.primitives import movement

API_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")
SCALARS = (bool, int, float, complex, Symbol)


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
    return isinstance(x, (Value, bool, int, float, complex, np.ndarray, np.generic, Symbol))


def as_tensor(x: Any) -> Any:
    """x as a tensor, if it is not one."""
    if isinstance(x, Value):
        return x
    from chainrule.array.creation import asarray

    return asarray(x)


def distinct(z: Any, x: Any) -> Any:
    """z, or its equal if z is the very object x, which the user may assign to later.

    Array functions that have nothing to do end with this: `y = x[:]` is a value of its own.
    """
    if z is not x:
        return z
    if isinstance(x._node, Leaf):
        return movement.alias(x)
    return make(x._array, x._node, x._slot)


def to_dtype(x: Any, dtype: DType) -> Any:
    """x in another dtype, if it is in another."""
    if x._array.dtype == dtype:
        return x
    if dtype.kind == "c" and x._node is not None and state.grad_enabled:
        raise DTypeError(
            f"a {x.dtype.name} tensor that requires a gradient met a complex number, and complex "
            "numbers have no derivatives here; use x.detach(), or compute the real and the "
            "imaginary part apart."
        )
    return p.cast(x, dtype=dtype)


def as_float(x: Any) -> Any:
    """x as a tensor of a floating-point (or complex) dtype, the default one for integers."""
    x = as_tensor(x)
    return x if x._array.dtype.kind in "fc" else p.cast(x, dtype=dtypes.float32)


def to_shape(x: Any, shape: Shape) -> Any:
    """x broadcast to a shape, if it has another."""
    return x if x._array.shape == shape else movement.broadcast_to(x, shape=shape)


def broadcast_shape(*shapes: Shape) -> Shape:
    """The common shape: aligned from the right, axes equal or 1."""
    result = shapes[0] if shapes else ()
    for shape in shapes[1:]:
        if shape == result:
            continue
        short, long = sorted((shape, result), key=len)
        padded = (1,) * (len(long) - len(short)) + short
        pairs = zip(padded, long, strict=True)
        joined = tuple([m if n == 1 else n if m in (1, n) else -1 for n, m in pairs])
        if -1 in joined:
            raise ShapeError(
                f"shapes {' and '.join(map(str, shapes))} do not broadcast: aligned from the "
                "right, each pair of axes must be equal, or one of them 1."
            )
        result = joined
    return result


def operands(x: Any, y: Any, float_only: bool = False) -> tuple[Any, Any]:
    """Two operands as tensors of one dtype and one shape; Python scalars take the other's dtype."""
    if isinstance(x, Value) and isinstance(y, Value):
        a, b = x._array, y._array
        dtype = a.dtype
        if dtype is b.dtype and a.shape == b.shape and (not float_only or dtype.kind in "fc"):
            return x, y
    if isinstance(y, SCALARS):
        # Of two numbers the standard says nothing; give the result that they have as tensors.
        return _with_scalar(as_tensor(x), y, float_only)
    if isinstance(x, SCALARS):
        return _with_scalar(as_tensor(y), x, float_only)[::-1]
    x, y = as_tensor(x), as_tensor(y)
    dtype, other = x._array.dtype, y._array.dtype
    if dtype != other:
        dtype = dtypes.promote(dtype, other)
    if float_only and dtype.kind not in "fc":
        dtype = dtypes.float32
    x, y = to_dtype(x, dtype), to_dtype(y, dtype)
    if x._array.shape != y._array.shape:
        shape = broadcast_shape(x.shape, y.shape)
        x, y = to_shape(x, shape), to_shape(y, shape)
    return x, y


def _with_scalar(x: Any, scalar: Any, float_only: bool) -> tuple[Any, Any]:
    """A tensor, and a Python scalar as a constant of its shape and dtype."""
    dtype = dtypes.promote_scalar(x._array.dtype, scalar)
    if float_only and dtype.kind not in "fc":
        dtype = dtypes.float32
    return to_dtype(x, dtype), filled(scalar, x._array.shape, dtype)


def filled(value: Any, shape: Shape, dtype: DType) -> Any:
    """A constant of one number, which must be in the range of the dtype."""
    if isinstance(value, Symbol):
        return to_shape(value.tensor(dtype), shape)
    try:
        return constant(value, shape, dtype)
    except OverflowError:
        raise RangeError(
            f"{value} is outside the range of {dtype.name} (overflow); use a wider dtype, for "
            "example by casting the tensor beside it first."
        ) from None
    except (TypeError, ValueError):
        raise DTypeError(f"{value!r} has no value in {dtype.name}; use a wider dtype.") from None


def alike(arrays: Any, name: str) -> list[Any]:
    """Tensors of one dtype, the promoted one."""
    xs = [as_tensor(a) for a in arrays]
    if not xs:
        raise ArgumentError(f"{name} needs at least one tensor.")
    dtype = xs[0]._array.dtype
    if any(x._array.dtype != dtype for x in xs):
        dtype = dtypes.result_type(x._array.dtype for x in xs)
        xs = [to_dtype(x, dtype) for x in xs]
    return xs


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
    return tuple(range(ndim)) if axis is None else tuple(sorted(normalize_each(axis, ndim)))


def normalize_each(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, in the given order, none of them twice."""
    if not isinstance(axis, tuple | list):
        return (normalize_axis(axis, ndim),)
    axes = tuple([normalize_axis(a, ndim) for a in axis])
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"{axis} names an axis twice.")
    return axes


def as_shape(shape: Any) -> Shape:
    """A shape as a tuple of Python integers."""
    if not isinstance(shape, Sequence):
        shape = tuple(shape) if isinstance(shape, np.ndarray) and shape.ndim else (shape,)
    try:
        return tuple([operator.index(n) for n in shape])
    except TypeError:
        raise DTypeError(f"a shape is a tuple of integers, but got {shape!r}.") from None


def is_known(x: Any) -> bool:
    """Whether the numbers of a tensor are there: while a function is traced they may not be."""
    return type(as_tensor(x)._array) is np.ndarray


def concrete(x: Any, name: str) -> np.ndarray[Any, Any]:
    """The array behind a tensor, for what depends on its values.

    Arguments:
        name: what wants to know, for the message where a function is traced.
    """
    x = as_tensor(told(x))
    if state.tracer is not None and not is_known(x):
        error = TraceError(
            f"what {name} returns depends on the numbers of a tensor, down to its shape, and they "
            "are not known while a function is compiled or the body of a loop is traced. Keep the "
            "shape and choose by a mask, cr.where(mask, x, 0) in place of x[mask], or between "
            "functions by cr.cond; do this part outside, on what the compiled function takes or "
            "returns; or run eagerly, without cr.compile or with CHAINRULE_COMPILE=0."
        )
        error.line = users_line()
        raise error
    return x._array


__all__ = [
    "API_VERSIONS", "SCALARS", "alike", "as_float", "as_shape", "as_tensor", "broadcast_shape",
    "check_device", "concrete", "distinct", "filled", "is_known", "is_operand", "normalize_axes",
    "normalize_axis", "normalize_each", "operands", "state", "to_dtype", "to_shape",
]  # fmt: skip
