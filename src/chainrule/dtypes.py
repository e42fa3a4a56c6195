"""The dtypes, their kinds, and how two of them become one.

A dtype is an instance of `numpy.dtype`, so that `x.dtype == np.float32` says what it seems to say.
Promotion follows the array API standard within a kind; across kinds the higher kind wins and keeps
its precision (int64 with float32 gives float32), as in PyTorch and JAX. Python scalars are weak:
they take the dtype of the array that they meet, unless their kind is higher than the array's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from chainrule.errors import DTypeError, unknown_name

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
_SUPPORTED = frozenset(ALL)
_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
_SCALAR_RANK = {bool: 0, int: 1, float: 2, complex: 3}


def as_dtype(dtype: Any) -> DType:
    """Turn a name, a NumPy type, a Python type or a dtype into one of the dtypes above.

    Raises:
        UnknownNameError: for a name that is not a dtype here.
        DTypeError: for a NumPy dtype without an equal here, such as float16 or strings.
    """
    if isinstance(dtype, np.dtype) and dtype in _SUPPORTED:
        return dtype.newbyteorder("=")
    if dtype in DEFAULT:
        return DEFAULT[dtype]
    if isinstance(dtype, str) and dtype not in _BY_NAME:
        raise unknown_name("dtype", dtype, _BY_NAME)
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise DTypeError(
            f"expected a dtype, such as cr.float32 or 'float32', but got {dtype!r}."
        ) from None
    if found not in _SUPPORTED:
        raise DTypeError(
            f"dtype {found.name} does not exist here; "
            f"cast to one of {', '.join(_BY_NAME)} first, for example with .astype('float32')."
        )
    return found


def rank(dtype: DType) -> int:
    """0 for bool, 1 for integers, 2 for real floats, 3 for complex numbers."""
    return _RANK[dtype.kind]


def is_float(dtype: DType) -> bool:
    """Whether `dtype` is a real floating-point dtype: the only ones with derivatives."""
    return dtype.kind == "f"


def default_float(dtype: DType) -> DType:
    """`dtype` itself if it is floating or complex, the default float otherwise."""
    return dtype if dtype.kind in "fc" else float32


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


def promote_scalar(dtype: DType, scalar: bool | int | float | complex) -> DType:
    """The dtype of an operation between an array of `dtype` and a (weak) Python scalar."""
    kind = _SCALAR_RANK[_scalar_type(scalar)]
    if kind <= rank(dtype):
        return dtype
    if kind == 3 and dtype == float64:
        return complex128
    return DEFAULT[_scalar_type(scalar)]


def _scalar_type(scalar: Any) -> type:
    for kind in (bool, int, float, complex):
        if isinstance(scalar, kind):
            return kind
    raise DTypeError(f"expected a Python scalar but got {type(scalar).__name__}.")


def scalar_dtype(scalar: bool | int | float | complex) -> DType:
    """The dtype that a Python scalar has on its own."""
    return DEFAULT[_scalar_type(scalar)]
