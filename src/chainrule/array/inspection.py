"""What can be asked of dtypes, and of the namespace itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.array._core import API_VERSIONS, SCALARS, check_device
from chainrule.dtypes import DType, as_dtype
from chainrule.errors import ArgumentError, DTypeError, unknown_name
from chainrule.graph import Value

__array_api_version__ = API_VERSIONS[-1]

KINDS = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "c",
    "numeric": "iufc",
}


def _dtype_of(x: Any) -> DType:
    """The dtype that an array has or that is named."""
    return as_dtype(x.dtype if isinstance(x, Value | np.ndarray | np.generic) else x)


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype of an operation on these arrays, dtypes and Python numbers (which are weak).

    Within a kind the smallest dtype that holds both; across kinds the higher kind, in its own
    precision: int64 with float32 gives float32. The order does not matter.

    Raises:
        DTypeError: for uint64 with a signed integer, which no dtype holds both.
    """
    scalars = [x for x in arrays_and_dtypes if isinstance(x, SCALARS)]
    known = [_dtype_of(x) for x in arrays_and_dtypes if not isinstance(x, SCALARS)]
    return dtypes.result_type(known, scalars)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion leads from one dtype (or that of an array) to another."""
    source, target = _dtype_of(from_), as_dtype(to)
    try:
        return dtypes.promote(source, target) == target
    except DTypeError:
        return False


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind.

    kind: a dtype, one of "bool", "signed integer", "unsigned integer", "integral",
        "real floating", "complex floating", "numeric", or a tuple of these for any of them.
    """
    dtype = as_dtype(dtype)
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if not isinstance(kind, str):
        return dtype == as_dtype(kind)
    if kind not in KINDS:
        raise unknown_name("kind of dtype", kind, KINDS)
    return dtype.kind in KINDS[kind]


@dataclass(frozen=True)
class FloatInfo:
    """The limits of a floating-point dtype, of its parts if it is complex.

    Attributes:
        bits: the number of bits of one real number.
        eps: the distance from 1 to the next larger number.
        max, min: the largest and the smallest (most negative) finite number.
        smallest_normal: the smallest positive number in full precision.
        dtype: the real dtype.
    """

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class IntegerInfo:
    """The limits of an integer dtype: its bits, its largest and smallest number, itself."""

    bits: int
    max: int
    min: int
    dtype: DType


def finfo(type: Any, /) -> FloatInfo:
    """The limits of a floating-point or complex dtype, or of the dtype of an array."""
    dtype = _dtype_of(type)
    if dtype.kind not in "fc":
        raise DTypeError(f"finfo is for floating-point dtypes, not {dtype.name}; use cr.iinfo.")
    info = np.finfo(dtype)
    return FloatInfo(
        info.bits, float(info.eps), float(info.max), float(info.min),
        float(info.smallest_normal), as_dtype(info.dtype),
    )  # fmt: skip


def iinfo(type: Any, /) -> IntegerInfo:
    """The limits of an integer dtype, or of the dtype of an array."""
    dtype = _dtype_of(type)
    if dtype.kind not in "ui":
        raise DTypeError(f"iinfo is for integer dtypes, not {dtype.name}; use cr.finfo for floats.")
    info = np.iinfo(dtype)
    return IntegerInfo(info.bits, int(info.max), int(info.min), dtype)


class NamespaceInfo:
    """What this namespace offers, after the standard's inspection functions."""

    def capabilities(self) -> dict[str, Any]:
        """What is optional in the standard and whether it is here."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """Where tensors are made unless told otherwise."""
        return "cpu"

    def devices(self) -> list[str]:
        """All devices there are."""
        return ["cpu"]

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """What Python numbers become, and what indices are."""
        check_device(device)
        return {
            "real floating": dtypes.DEFAULT[float],
            "complex floating": dtypes.DEFAULT[complex],
            "integral": dtypes.DEFAULT[int],
            "indexing": dtypes.int64,
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """All dtypes by name, or those of a kind (see `isdtype`)."""
        check_device(device)
        wanted = tuple(KINDS) if kind is None else kind
        if not isinstance(wanted, str | tuple):
            raise ArgumentError(f"a kind is a string or a tuple of strings, got {kind!r}.")
        return {dtype.name: dtype for dtype in dtypes.ALL if isdtype(dtype, wanted)}


def __array_namespace_info__() -> NamespaceInfo:
    """The inspection functions: `capabilities`, `devices`, `default_dtypes`, `dtypes` ..."""
    return NamespaceInfo()
