"""Shape and dtype rules that several primitives share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule import dtypes
from chainrule.dtypes import DType
from chainrule.errors import DTypeError, ShapeError
from chainrule.graph import Spec

KINDS = {
    "any": "buifc",
    "numeric": "uifc",
    "real": "uif",
    "ordered": "buif",
    "float": "fc",
    "real float": "f",
    "integer": "ui",
    "discrete": "bui",
    "bool": "b",
    "complex": "c",
}


def check_kind(name: str, kind: str, *inputs: Any) -> None:
    """Refuse inputs whose dtype is not of the kind that the primitive is defined on."""
    for x in inputs:
        if x.dtype.kind not in KINDS[kind]:
            raise DTypeError(
                f"{name} is defined for {kind} dtypes, but got {x.dtype.name}; "
                "cast with .astype() first."
            )


def elementwise_rule(
    name: str, kind: str, result: Callable[[DType], DType] | None
) -> Callable[..., Spec]:
    """The rule of elementwise primitives: equal shapes and dtypes in, the same shape out."""

    allowed = KINDS[kind]

    def infer(first: Any, *others: Any) -> Spec:
        shape, dtype = first.shape, first.dtype
        if dtype.kind not in allowed:
            check_kind(name, kind, first)
        for other in others:
            if other.shape != shape:
                raise ShapeError(f"{name} got shapes {shape} and {other.shape}, which differ.")
            if other.dtype != dtype:
                raise DTypeError(
                    f"{name} got dtypes {dtype.name} and {other.dtype.name}; "
                    "cast one of them with .astype()."
                )
        return Spec(shape, dtype if result is None else result(dtype))

    return infer


def to_bool(dtype: DType) -> DType:
    """The result dtype of predicates."""
    return dtypes.bool_


def to_real(dtype: DType) -> DType:
    """The dtype of the real part."""
    return {"complex64": dtypes.float32, "complex128": dtypes.float64}.get(dtype.name, dtype)
