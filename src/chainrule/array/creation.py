"""Creation functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array._core import as_shape, as_tensor, check_device
from chainrule.dtypes import DType, as_dtype
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.graph import Value, constant, make
from chainrule.primitives import elementwise as p

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def _infer_dtype(array: np.ndarray[Any, Any], typed: bool) -> DType:
    """The dtype of what NumPy made; nested Python numbers (not `typed`) take the defaults."""
    if array.dtype.kind not in "buifc":
        raise DTypeError(
            f"cannot make a tensor of {array.dtype.name} elements; only bools and numbers are "
            "tensors. Are the nested lists of equal lengths, and free of text?"
        )
    if typed:
        return as_dtype(array.dtype)
    return {
        "b": dtypes.bool_, "i": dtypes.int64, "u": dtypes.uint64,
        "f": dtypes.float32, "c": dtypes.complex64,
    }[array.dtype.kind]  # fmt: skip


def _any_typed(obj: Any) -> bool:
    """Whether a nested sequence holds NumPy values or tensors, which know their dtype."""
    while isinstance(obj, list | tuple) and obj:
        obj = obj[0]
    return isinstance(obj, np.ndarray | np.generic) or hasattr(obj, "__array__")


def asarray(
    obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Turn numbers, nested sequences, buffers or arrays of other libraries into a tensor.

    Arguments:
        obj: a scalar, a nested list or tuple, a NumPy array, a tensor, or anything with the buffer,
            `__array__` or `__dlpack__` protocol.
        dtype: the result's dtype. Default: that of a typed `obj`; else bool, int64, float32 or
            complex64 by the kind of the Python numbers.
        copy: True copies; False never does, and raises where it would have to; None (default)
            copies only if needed. Without a copy, writing to a NumPy array changes the tensor.
        requires_grad: make a leaf that gradients are recorded for.
    """
    check_device(device)
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(obj, Value):
        return _from_tensor(obj, wanted, copy, requires_grad)
    if isinstance(obj, list | tuple) and _holds_tensors(obj):
        if copy is False:
            raise ValueError("a sequence of tensors cannot become one tensor without a copy.")
        return _from_sequence(obj, wanted, requires_grad)
    array, typed = _as_ndarray(obj, wanted)
    target = wanted or _infer_dtype(array, typed)
    if copy is False and (not _shares(obj) or array.dtype != target):
        raise ValueError(f"{type(obj).__name__} as {target.name} needs a copy; pass copy=None.")
    result = _cast(array, target, copy=bool(copy))
    tensor = make(result)
    if requires_grad:
        tensor.requires_grad_()
    return tensor


def tensor(
    obj: Any, /, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Like `asarray`, but always in memory of its own."""
    made = asarray(obj, dtype=dtype, device=device, copy=True)
    made = made.detach()
    return made.requires_grad_() if requires_grad else made


def _shares(obj: Any) -> bool:
    return isinstance(obj, np.ndarray) or hasattr(obj, "__dlpack__") or _is_buffer(obj)


def _is_buffer(obj: Any) -> bool:
    try:
        memoryview(obj)
    except TypeError:
        return False
    return True


def _as_ndarray(obj: Any, wanted: DType | None) -> tuple[np.ndarray[Any, Any], bool]:
    if isinstance(obj, np.ndarray | np.generic):
        return np.asarray(obj), True
    if hasattr(obj, "__array__"):
        return np.asarray(obj), True
    if hasattr(obj, "__dlpack__"):
        return np.from_dlpack(obj), True
    try:
        # A Python int beyond int64 is legal for uint64 and for floats alone.
        if wanted is not None and wanted.kind == "u" and not _any_typed(obj):
            return np.asarray(obj, dtype=wanted), True
        array = np.asarray(obj)
    except OverflowError:
        raise
    except (ValueError, TypeError) as error:
        raise ShapeError(
            f"cannot make a tensor of {type(obj).__name__}: {error}. Nested lists must be regular: "
            "all rows of one length."
        ) from None
    if array.dtype.kind == "O" and wanted is not None and wanted.kind in "fc":
        array = array.astype(wanted)
    return array, _any_typed(obj) or _is_buffer(obj)


def _cast(array: np.ndarray[Any, Any], dtype: DType, copy: bool) -> np.ndarray[Any, Any]:
    with np.errstate(all="ignore"):
        return np.array(array, dtype=dtype, copy=True) if copy else np.asarray(array, dtype=dtype)


def _holds_tensors(obj: Any) -> bool:
    return any(
        isinstance(x, Value) or (isinstance(x, list | tuple) and _holds_tensors(x)) for x in obj
    )


def _from_sequence(obj: Any, wanted: DType | None, requires_grad: bool) -> Tensor:
    from chainrule.array.manipulation import stack

    rows = [asarray(x, dtype=wanted) for x in obj]
    result = stack(rows)
    return result.requires_grad_() if requires_grad else result


def _from_tensor(
    x: Any, wanted: DType | None, copy: bool | None, requires_grad: bool
) -> Tensor:
    if wanted is not None and wanted != x.dtype:
        if copy is False:
            raise ValueError(f"{x.dtype.name} as {wanted.name} needs a copy; pass copy=None.")
        x = p.cast(x, dtype=wanted)
    elif copy:
        x = copied(x)
    return x.requires_grad_() if requires_grad else x


def copied(x: Any) -> Tensor:
    """x in memory of its own, connected to the graph."""
    from chainrule.primitives.movement import identity_copy

    return identity_copy(x)


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor whose elements are all `fill_value`. dtype: by default that of a Python scalar."""
    check_device(device)
    if isinstance(fill_value, Value):
        fill_value = fill_value.item()
    chosen = dtypes.scalar_dtype(fill_value) if dtype is None else as_dtype(dtype)
    return constant(fill_value, as_shape(shape), chosen)


def zeros(
    shape: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros, float32 by default."""
    return _filled(shape, 0.0, dtype, device, requires_grad)


def ones(
    shape: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones, float32 by default."""
    return _filled(shape, 1.0, dtype, device, requires_grad)


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of unspecified elements (here: zeros, so that no two runs differ)."""
    return zeros(shape, dtype=dtype, device=device)


def _filled(shape: Any, value: float, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    made = full(shape, value, dtype=dtypes.float32 if dtype is None else dtype, device=device)
    return made.requires_grad_() if requires_grad else made


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`full` with the shape and dtype of x."""
    x = as_tensor(x)
    return full(x.shape, fill_value, dtype=dtype or x.dtype, device=device)


def zeros_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros with the shape and dtype of x."""
    return full_like(x, 0, dtype=dtype, device=device)


def ones_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones with the shape and dtype of x."""
    return full_like(x, 1, dtype=dtype, device=device)


def empty_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`empty` with the shape and dtype of x."""
    return zeros_like(x, dtype=dtype, device=device)


def arange(
    start: float, /, stop: float | None = None, step: float = 1, *, dtype: Any = None,
    device: Any = None,
) -> Tensor:  # fmt: skip
    """start, start + step, ... below `stop` (or 0, 1, ... below `start` if that is all there is).

    dtype: int64 if all arguments are integers, else float32.
    """
    check_device(device)
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ArgumentError("arange needs a step other than 0.")
    integral = all(isinstance(v, int) for v in (start, stop, step))
    chosen = as_dtype(dtype) if dtype is not None else dtypes.int64 if integral else dtypes.float32
    n = max(math.ceil((stop - start) / step), 0)
    if integral:
        n = max(-((start - stop) // step), 0)  # exact beyond 2^53
        values = np.arange(n, dtype=np.int64) * step + start if n else np.zeros(0, np.int64)
    else:
        values = np.arange(n, dtype=np.float64) * step + start
    return make(np.asarray(values).astype(chosen))


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None,
    endpoint: bool = True,
) -> Tensor:  # fmt: skip
    """`num` numbers evenly spaced from `start` to `stop` (included if `endpoint`)."""
    check_device(device)
    complex_ = isinstance(start, complex) or isinstance(stop, complex)
    chosen = as_dtype(dtype) if dtype is not None else (
        dtypes.complex64 if complex_ else dtypes.float32
    )  # fmt: skip
    if num < 0:
        raise ArgumentError(f"linspace needs num >= 0, got {num}.")
    wide = np.complex128 if complex_ or chosen.kind == "c" else np.float64
    return make(np.linspace(start, stop, num, endpoint=endpoint, dtype=wide).astype(chosen))


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None,
    device: Any = None,
) -> Tensor:  # fmt: skip
    """Ones on the k-th diagonal, zeros elsewhere."""
    check_device(device)
    chosen = dtypes.float32 if dtype is None else as_dtype(dtype)
    return make(np.eye(n_rows, n_cols, k=k, dtype=chosen))


def _band(x: Any, k: int, lower: bool) -> Tensor:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"tril and triu need at least two axes, got shape {x.shape}.")
    inside = np.tri(*x.shape[-2:], k=k if lower else k - 1, dtype=bool)
    mask = make(np.broadcast_to(inside if lower else ~inside, x.shape))
    return p.where(mask, x, constant(0, x.shape, x.dtype))


def tril(x: Any, /, *, k: int = 0) -> Tensor:
    """The lower triangle of each matrix, up to the k-th diagonal; zeros above."""
    return _band(x, k, lower=True)


def triu(x: Any, /, *, k: int = 0) -> Tensor:
    """The upper triangle of each matrix, from the k-th diagonal; zeros below."""
    return _band(x, k, lower=False)


def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinate matrices from coordinate vectors; `indexing` "xy" (Cartesian) or "ij" (matrix)."""
    from chainrule.array.manipulation import broadcast_to, reshape

    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"indexing is 'xy' or 'ij', not {indexing!r}.")
    xs = [as_tensor(a) for a in arrays]
    for x in xs:
        if x.ndim != 1:
            raise ShapeError(f"meshgrid takes one-dimensional tensors, got shape {x.shape}.")
    order = list(range(len(xs)))
    if indexing == "xy" and len(xs) > 1:
        order[:2] = [1, 0]
    shape = tuple(xs[i].size for i in order)
    place = {i: position for position, i in enumerate(order)}
    return tuple(
        broadcast_to(
            reshape(x, tuple(x.size if place[i] == axis else 1 for axis in range(len(xs)))), shape
        )
        for i, x in enumerate(xs)
    )


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of another library's array, through DLPack."""
    check_device(device)
    if isinstance(x, Value):
        return asarray(x, copy=copy)
    array = np.from_dlpack(x, copy=copy) if copy is not None else np.from_dlpack(x)
    return asarray(array)
