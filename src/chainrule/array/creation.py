"""Creation functions: from numbers, from other libraries' arrays, and from a shape."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array._core import as_shape, as_tensor, check_device, distinct, filled, to_shape
from chainrule.dtypes import DType, as_dtype
from chainrule.errors import ArgumentError, DTypeError, RangeError, ShapeError
from chainrule.graph import Symbol, Value, constant, make
from chainrule.primitives import elementwise as p
from chainrule.primitives.movement import identity_copy

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

Array = np.ndarray[Any, Any]


def asarray(
    obj: Any,
    /,
    *,
    dtype: Any = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Turn numbers, nested sequences, buffers or arrays of other libraries into a tensor.

    Arguments:
        obj: a scalar, a nested list or tuple, a NumPy array, a tensor, or anything with the buffer,
            `__array__` or `__dlpack__` protocol.
        dtype: the result's dtype. Default: that of a typed `obj`; else bool, int64, float32 or
            complex64 by the kind of the Python numbers.
        copy: True copies; False never does, and raises where it would have to; None (default)
            copies only if needed. Without a copy, writing to a NumPy array changes the tensor.
        requires_grad: make a leaf that gradients are recorded for.

    Raises:
        DTypeError: for elements that are no numbers, or of a dtype that does not exist here.
        RangeError: for a Python integer outside the range of the dtype.
        ShapeError: for nested lists of unequal lengths.
        ArgumentError: if `copy=False` and a copy is needed.
    """
    check_device(device)
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(obj, Value):
        made = _from_tensor(obj, wanted, copy)
        made = distinct(made, obj) if requires_grad else made
    elif isinstance(obj, list | tuple):
        made = _from_sequence(obj, wanted, copy)
    elif isinstance(obj, Symbol):
        made = obj.tensor(wanted or dtypes.scalar_dtype(obj))
    else:
        made = make(_from_other(obj, wanted, copy))
    return made.requires_grad_() if requires_grad else made


def tensor(
    obj: Any, /, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Like `asarray`, but always in memory of its own and without a graph."""
    made = asarray(obj, dtype=dtype, device=device, copy=True).detach()
    return made.requires_grad_() if requires_grad else made


def _from_tensor(x: Any, wanted: DType | None, copy: bool | None) -> Any:
    if wanted is None or wanted == x.dtype:
        return identity_copy(x) if copy else x
    if copy is False:
        raise ArgumentError(f"{x.dtype.name} as {wanted.name} needs a copy; pass copy=None.")
    from chainrule.array.manipulation import astype

    return astype(x, wanted)


def _from_sequence(obj: Any, wanted: DType | None, copy: bool | None) -> Any:
    """A nested sequence. With tensors in it, it is stacked, so that gradients reach them."""
    types = _leaf_types(obj)
    if any(issubclass(t, Value) for t in types):
        _no_copy_asked(copy, "a sequence of tensors")
        from chainrule.array.manipulation import stack

        return stack([asarray(x, dtype=wanted) for x in obj])
    typed = any(hasattr(t, "__array__") and not issubclass(t, Symbol) for t in types)
    _no_copy_asked(copy, f"a {type(obj).__name__}")
    if any(issubclass(t, Symbol) for t in types):
        from chainrule.array.manipulation import stack

        wanted = wanted or _from_numbers(_without_symbols(obj), None, typed).dtype
        return stack([asarray(x, dtype=wanted) for x in obj])
    return make(_from_numbers(obj, wanted, typed))


def _without_symbols(obj: Any) -> Any:
    """The same nested sequence with some number of its kind in the place of each symbol."""
    if isinstance(obj, list | tuple):
        return [_without_symbols(x) for x in obj]
    return obj.kind(1) if issubclass(type(obj), Symbol) else obj


def _leaf_types(obj: Any) -> set[type]:
    """The types of the elements of a nested sequence."""
    types = set(map(type, obj))
    nested = {t for t in types if issubclass(t, list | tuple)}
    inner = (_leaf_types(x) for x in obj if type(x) in nested) if nested else ()
    return (types - nested).union(*inner)


def _no_copy_asked(copy: bool | None, what: str) -> None:
    if copy is False:
        raise ArgumentError(f"{what} needs a copy to be a tensor of this dtype; pass copy=None.")


def _from_other(obj: Any, wanted: DType | None, copy: bool | None) -> Array:
    array = _shared(obj, copy)
    if array is None:
        _no_copy_asked(copy, f"a {type(obj).__name__}")
        return _from_numbers(obj, wanted, typed=False)
    target = wanted or as_dtype(array.dtype)
    if array.dtype != target:
        _no_copy_asked(copy, f"an array of {array.dtype.name}")
        _check_real(array, target)
    with np.errstate(all="ignore"):
        return np.array(array, dtype=target, copy=True if copy else None)


def _check_real(array: Array, target: DType) -> None:
    if array.dtype.kind == "c" and target.kind != "c":
        raise DTypeError(
            f"complex numbers have no value in {target.name}; take their real or imaginary parts."
        )


def _shared(obj: Any, copy: bool | None) -> Array | None:
    """The array that lies behind a typed object, without a copy; None for plain Python numbers."""
    try:
        if hasattr(obj, "__array__") or hasattr(obj, "__array_interface__"):
            array = np.asarray(obj, copy=False if copy is False else None)
        elif hasattr(obj, "__dlpack__"):
            array = np.from_dlpack(obj)
        else:
            array = np.asarray(memoryview(obj))
    except ValueError:
        _no_copy_asked(copy, f"a {type(obj).__name__}")
        raise
    except TypeError:  # no buffer
        return None
    if array.dtype.kind not in "buifc":
        raise DTypeError(
            f"cannot make a tensor of {array.dtype.name} elements; only bools and numbers are "
            "tensors. Text becomes numbers by an encoding, missing values by a choice of yours."
        )
    return array


def _from_numbers(obj: Any, wanted: DType | None, typed: bool) -> Array:
    """The array of a Python number or a nested sequence (`typed`: with NumPy's values among it)."""
    try:
        # Asked for an integer dtype, NumPy checks the range of each number and wraps none around.
        integer = wanted is not None and wanted.kind in "ui"
        array = np.asarray(obj, dtype=wanted if integer else None)
    except OverflowError:
        name = "int64" if wanted is None else wanted.name
        raise RangeError(f"an integer is outside the range of {name} (overflow).") from None
    except (ValueError, TypeError) as error:
        raise ShapeError(
            f"cannot make a tensor of {type(obj).__name__}: {error}. Nested lists must be regular: "
            "all rows of one length, and hold numbers."
        ) from None
    if array.dtype.kind == "O" and wanted is not None and wanted.kind in "fc":
        array = array.astype(wanted)  # integers of more than 64 bits
    if array.dtype.kind not in "buifc":
        raise DTypeError(
            f"cannot make a tensor of {type(obj).__name__}: its elements are no numbers, or "
            "integers beyond 64 bits; only bools and numbers are tensors."
        )
    target = wanted or (as_dtype(array.dtype) if typed else _DEFAULT[array.dtype.kind])
    _check_real(array, target)
    if target == dtypes.int64 and array.dtype == dtypes.uint64:
        raise RangeError(
            "an integer is outside the range of int64 (overflow); pass dtype='uint64' or a float."
        )
    with np.errstate(all="ignore"):
        return array.astype(target, copy=False)


_DEFAULT = {
    "b": dtypes.bool_, "i": dtypes.int64, "u": dtypes.int64, "f": dtypes.float32,
    "c": dtypes.complex64,
}  # fmt: skip


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of another library's array, through DLPack.

    With `copy=None` (the default) memory is shared where it can be, and writing to x then changes
    the tensor; `copy=True` copies; `copy=False` raises where sharing is impossible.
    """
    check_device(device)
    if isinstance(x, Value):
        return asarray(x, copy=copy)
    if not hasattr(x, "__dlpack__"):
        raise DTypeError(
            f"from_dlpack needs an array with the __dlpack__ method, but got {type(x).__name__}; "
            "use cr.asarray."
        )
    array = np.from_dlpack(x) if copy is None else np.from_dlpack(x, copy=copy)
    return make(array.astype(as_dtype(array.dtype), copy=False))


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor whose elements are all `fill_value`. dtype: by default that of a Python scalar."""
    check_device(device)
    chosen = None if dtype is None else as_dtype(dtype)
    if isinstance(fill_value, Value | np.ndarray):
        fill = asarray(fill_value)
        chosen, fill_value = chosen or fill.dtype, fill.item()
    one = filled(fill_value, (), chosen or dtypes.scalar_dtype(fill_value))
    if isinstance(fill_value, Symbol):
        return to_shape(one, _length(shape))
    return make(np.full(_length(shape), one._array))


def _length(shape: Any) -> tuple[int, ...]:
    """A shape whose lengths are not negative."""
    lengths = as_shape(shape)
    if any(n < 0 for n in lengths):
        raise ShapeError(f"lengths cannot be negative, got shape {shape}.")
    return lengths


def zeros(
    shape: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros, float32 by default."""
    check_device(device)
    made = make(np.zeros(_length(shape), dtypes.float32 if dtype is None else as_dtype(dtype)))
    return made.requires_grad_() if requires_grad else made


def ones(
    shape: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones, float32 by default."""
    made = full(shape, 1, dtype=dtypes.float32 if dtype is None else dtype, device=device)
    return made.requires_grad_() if requires_grad else made


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of unspecified elements (here: zeros, so that no two runs differ)."""
    return zeros(shape, dtype=dtype, device=device)


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`full` with the shape and dtype of x."""
    x = as_tensor(x)
    return full(x.shape, fill_value, dtype=dtype or x.dtype, device=device)


def zeros_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros with the shape and dtype of x."""
    x = as_tensor(x)
    return zeros(x.shape, dtype=x.dtype if dtype is None else dtype, device=device)


def ones_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones with the shape and dtype of x."""
    return full_like(x, 1, dtype=dtype, device=device)


def empty_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`empty` with the shape and dtype of x."""
    return zeros_like(x, dtype=dtype, device=device)


def arange(
    start: Any,
    /,
    stop: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """start, start + step, ... below `stop` (or 0, 1, ... below `start` if that is all there is).

    dtype: int64 if all arguments are integers, else float32.
    """
    check_device(device)
    if stop is None:
        start, stop = 0, start
    start, stop, step = _number(start), _number(stop), _number(step)
    if step == 0:
        raise ArgumentError("arange needs a step other than 0.")
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        chosen = dtypes.int64 if dtype is None else as_dtype(dtype)
        return make(_integers(range(start, stop, step), chosen))
    chosen = dtypes.float32 if dtype is None else as_dtype(dtype)
    steps = (stop - start) / step
    if not math.isfinite(steps):
        raise ArgumentError(f"arange from {start} to {stop} by {step} has no end.")
    n = max(math.ceil(steps), 0)
    return make((np.arange(n, dtype=np.float64) * step + start).astype(chosen))


def _number(value: Any) -> Any:
    """A Python number for a NumPy scalar or a tensor of one element."""
    return value.item() if hasattr(value, "item") else value


def _integers(values: range, dtype: DType) -> Array:
    """A range as an array, exact to the last integer."""
    low, high = (min(values[0], values[-1]), max(values[0], values[-1])) if values else (0, 0)
    if dtype.kind in "ui" and not (np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max):
        raise RangeError(f"{values} leaves the range of {dtype.name} (overflow).")
    if np.iinfo(np.int64).min <= low and high <= np.iinfo(np.int64).max:
        steps = np.arange(len(values), dtype=np.int64)
        return (steps * values.step + values.start if values else steps).astype(dtype)
    return np.asarray(values, dtype=dtype)


def linspace(
    start: Any,
    stop: Any,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Tensor:
    """`num` numbers evenly spaced from `start` to `stop` (included if `endpoint`).

    dtype: float32 by default, complex64 for complex ends. Integers are rounded down.
    """
    check_device(device)
    start, stop, num = _number(start), _number(stop), operator.index(num)
    complex_ = isinstance(start, complex) or isinstance(stop, complex)
    default = dtypes.complex64 if complex_ else dtypes.float32
    chosen = default if dtype is None else as_dtype(dtype)
    if num < 0:
        raise ArgumentError(f"linspace needs num >= 0, got {num}.")
    parts = max(num - 1 if endpoint else num, 1)
    if chosen.kind in "ui" and isinstance(start, int) and isinstance(stop, int):
        values = [start + (stop - start) * i // parts for i in range(num)]
        return make(_from_numbers(values, chosen, typed=False))
    if complex_ and chosen.kind != "c":
        raise DTypeError(f"complex ends have no place in {chosen.name}; pass a complex dtype.")
    wide = np.complex128 if chosen.kind == "c" else np.float64
    step = (stop - start) / parts
    t = np.arange(num, dtype=np.float64)
    if np.isfinite(step):
        values = t * step + start
    else:  # the ends are further apart than the largest float
        values = start * (1 - t / parts) + stop * (t / parts)
    values = np.asarray(values, dtype=wide)
    if endpoint and num > 1:
        values[-1] = stop
    return make(values.astype(chosen))


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Ones on the k-th diagonal, zeros elsewhere."""
    check_device(device)
    chosen = dtypes.float32 if dtype is None else as_dtype(dtype)
    rows, columns = _length((n_rows, n_rows if n_cols is None else n_cols))
    return make(np.eye(rows, columns, k=_diagonal(k, rows, columns), dtype=chosen))


def _diagonal(k: int, rows: int, columns: int) -> int:
    """The diagonal k, or the nearest one without elements: however far k lies beyond a corner."""
    return max(-rows, min(operator.index(k), columns))


def _band(x: Any, k: int, lower: bool) -> Tensor:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"tril and triu need at least two axes, got shape {x.shape}.")
    rows, columns = x.shape[-2:]
    last = _diagonal(k if lower else k - 1, rows, columns)
    inside = np.tri(rows, columns, k=last, dtype=bool)
    mask = make(np.broadcast_to(inside if lower else ~inside, x.shape))
    return p.where(mask, x, constant(0, x.shape, x.dtype))


def tril(x: Any, /, *, k: int = 0) -> Tensor:
    """The lower triangle of each matrix, up to the k-th diagonal; zeros above."""
    return _band(x, k, lower=True)


def triu(x: Any, /, *, k: int = 0) -> Tensor:
    """The upper triangle of each matrix, from the k-th diagonal; zeros below."""
    return _band(x, k, lower=False)


def meshgrid(*arrays: Any, indexing: str = "xy") -> list[Tensor]:
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
    lines = [tuple(n if place[i] == a else 1 for a, n in enumerate(shape)) for i in range(len(xs))]
    return [broadcast_to(reshape(x, line), shape) for x, line in zip(xs, lines, strict=True)]
