"""The dtypes, their kinds, and how two of them become one.

A dtype is an instance of `numpy.dtype`, so that `x.dtype == np.float32` says what it seems to say.
Promotion follows the array API standard within a kind; across kinds the higher kind wins and keeps
its precision (int64 with float32 gives float32), as in PyTorch and JAX. Python scalars are weak:
they take the dtype of the array that they meet, unless their kind is higher than the array's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from chainrule.errors import ArgumentError, DTypeError, unknown_name

DType = np.dtype[Any]

bool_ = np.dtype("bool")
int8, int16, int32, int64 = (np.dtype(f"int{n}") for n in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{n}") for n in (8, 16, 32, 64))
float32, float64 = np.dtype("float32"), np.dtype("float64")
complex64, complex128 = np.dtype("complex64"), np.dtype("complex128")

SIGNED = (int8, int16, int32, int64)
UNSIGNED = (uint8, uint16, uint32, uint64)
FLOATS = (float32, float64)
COMPLEX = (complex64, complex128)
ALL = (bool_, *SIGNED, *UNSIGNED, *FLOATS, *COMPLEX)

DEFAULT = {bool: bool_, int: int64, float: float32, complex: complex64}
"""What a Python scalar becomes when nothing else decides."""

_BY_NAME = {dtype.name: dtype for dtype in ALL}
_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}  # and of Python numbers: their place in DEFAULT


def as_dtype(dtype: Any) -> DType:
    """Turn a name, a NumPy type, a Python type or a dtype into one of the dtypes above.

    Raises:
        UnknownNameError: for a name that is not a dtype here.
        DTypeError: for a NumPy dtype without an equal here, such as float16 or strings.
    """
    if isinstance(dtype, str):
        if dtype not in _BY_NAME and dtype not in ELSEWHERE:
            raise unknown_name("dtype", dtype, _BY_NAME)
        name = dtype
    elif isinstance(dtype, type) and dtype in DEFAULT:
        return DEFAULT[dtype]
    else:
        try:
            name = np.dtype(dtype).name if dtype is not None else ""
        except TypeError:
            name = ""
        if not name:
            raise DTypeError(
                f"expected a dtype, such as cr.float32 or 'float32', but got {dtype!r}."
            )
    # One object for each dtype: platforms have several integer types of one size, and byte orders.
    found = _BY_NAME.get(name)
    if found is None:
        raise DTypeError(absent(name))
    return found


ELSEWHERE = ("float16", "bfloat16", "half", "float128", "longdouble", "complex256", "object", "str")
"""Dtypes that other libraries have; asking for one is a habit and not a slip of the pen."""


def absent(name: str) -> str:
    """The sentence that says that a dtype of another library does not exist here."""
    return (
        f"dtype {name} does not exist here; use one of {', '.join(_BY_NAME)}, "
        "for example cr.float32 or x.astype('float32')."
    )


def rank(dtype: DType) -> int:
    """0 for bool, 1 for integers, 2 for real floats, 3 for complex numbers."""
    return _RANK[dtype.kind]


def is_float(dtype: DType) -> bool:
    """Whether `dtype` is a real floating-point dtype: the only ones with derivatives."""
    return dtype.kind == "f"


@cache
def promote(a: DType, b: DType) -> DType:
    """The dtype of an operation on arrays of dtypes `a` and `b`."""
    if a == b:
        return a
    low, high = sorted((a, b), key=rank)
    if rank(low) == rank(high):
        together = np.promote_types(a, b)
        if rank(together) != rank(a):
            raise DTypeError(
                f"{a.name} and {b.name} have no common integer dtype: "
                "cast one of them with .astype() so that the result has room for both."
            )
        return together
    if rank(high) == 3 and low == float64:
        return complex128
    return high


def result_type(known: Iterable[DType], scalars: Iterable[Any] = ()) -> DType:
    """The dtype of an operation on several arrays of `known` dtypes and (weak) Python scalars.

    Dtypes of the highest kind are joined first, so that the order of the arguments does not matter.
    """
    ordered = sorted(known, key=rank, reverse=True)
    types = sorted(map(type, scalars), key=_scalar_rank, reverse=True)
    if not ordered:
        if not types:
            raise ArgumentError("result_type needs at least one array, dtype or number.")
        ordered = [_default(types[0])]
    result = ordered[0]
    for dtype in ordered[1:]:
        result = promote(result, dtype)
    for kind in types:
        result = _promote_scalar_type(result, kind)
    return result


def promote_scalar(dtype: DType, scalar: bool | int | float | complex) -> DType:
    """The dtype of an operation between an array of `dtype` and a (weak) Python scalar."""
    return _promote_scalar_type(dtype, type(scalar))


@cache
def _promote_scalar_type(dtype: DType, scalar: type) -> DType:
    if _scalar_rank(scalar) <= rank(dtype):
        return dtype
    wide = dtype == float64 and issubclass(scalar, complex)
    return complex128 if wide else _default(scalar)


@cache
def _scalar_rank(scalar: type) -> int:
    scalar = getattr(scalar, "kind", scalar)  # of a number that is traced
    for i, kind in enumerate(DEFAULT):  # bool comes before int, whose subclass it is
        if issubclass(scalar, kind):
            return i
    raise DTypeError(f"expected a Python number but got {scalar.__name__}.")


def _default(scalar: type) -> DType:
    return tuple(DEFAULT.values())[_scalar_rank(scalar)]


def scalar_dtype(scalar: Any) -> DType:
    """The dtype of a number on its own: that of a NumPy scalar, the default of a Python one."""
    if isinstance(scalar, np.generic) and not isinstance(scalar, float | complex):
        return as_dtype(scalar.dtype)
    return _default(type(scalar))
