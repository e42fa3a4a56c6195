"""The matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.errors import DTypeError, ShapeError
from chainrule.graph import Primitive, Spec
from chainrule.primitives._rules import check_kind
from chainrule.primitives.movement import permute


def transpose(x: Any) -> Any:
    """Swap the last two axes."""
    axes = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    return permute(x, axes=axes)


def _infer_matmul(x: Any, y: Any) -> Spec:
    check_kind("matmul", "numeric", x, y)
    if x.dtype != y.dtype:
        raise DTypeError(f"matmul got dtypes {x.dtype.name} and {y.dtype.name}.")
    left, right = x.shape, y.shape
    if len(left) < 2 or len(right) < 2 or left[:-2] != right[:-2]:
        raise ShapeError(f"matmul got shapes {left} and {right}: the leading axes differ.")
    if left[-1] != right[-2]:
        raise ShapeError(
            f"matmul got shapes {left} and {right}: the last axis of the first "
            f"({left[-1]}) and the second to last of the second ({right[-2]}) must be equal."
        )
    return Spec((*left[:-1], right[-1]), x.dtype)


matmul = Primitive(
    "matmul", "z_ij = sum over k of x_ik y_kj, for each leading index", ("x", "y"),
    _infer_matmul, np.matmul,
    (
        lambda g, z, x, y: matmul(g, transpose(y)),
        lambda g, z, x, y: matmul(transpose(x), g),
    ),
    reads="x y",
    flops=lambda outputs, x, y: 2 * outputs[0].size * x.shape[-1],
)  # fmt: skip
