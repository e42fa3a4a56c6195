"""Products of matrices and tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chainrule.array._core import (
    alike,
    as_tensor,
    broadcast_shape,
    normalize_axis,
    normalize_each,
    to_shape,
)
from chainrule.array.elementwise import conj, multiply
from chainrule.array.manipulation import moveaxis, permute_dims, reshape
from chainrule.array.reductions import sum
from chainrule.errors import ArgumentError, ShapeError
from chainrule.primitives import linalg as p
from chainrule.primitives.indexing import make_range

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def matmul(x1: Any, x2: Any, /) -> Tensor:
    """The matrix product, over the last two axes; leading axes broadcast.

    A vector on the left is a row, on the right a column, and its axis disappears from the result.
    """
    x, y = alike((x1, x2), "matmul")
    if x.ndim == y.ndim == 2:
        return p.matmul(x, y)
    if not x.ndim or not y.ndim:
        raise ShapeError(f"matmul needs at least one axis in both, got {x.shape} and {y.shape}.")
    left, right = x.ndim == 1, y.ndim == 1
    inner = (x.shape[-1], y.shape[0] if right else y.shape[-2])
    if inner[0] != inner[1]:
        raise ShapeError(
            f"matmul got shapes {x.shape} and {y.shape}: the last axis of the first ({inner[0]}) "
            f"and the {'only' if right else 'second to last'} axis of the second ({inner[1]}) "
            "must be equal."
        )
    x = reshape(x, (1, x.size)) if left else x
    y = reshape(y, (y.size, 1)) if right else y
    if y.ndim == 2 and x.ndim > 2:
        # One large product instead of many small ones with the same right side.
        z = p.matmul(reshape(x, (math.prod(x.shape[:-1]), x.shape[-1])), y)
        z = reshape(z, (*x.shape[:-1], y.shape[-1]))
    else:
        lead = broadcast_shape(x.shape[:-2], y.shape[:-2])
        z = p.matmul(to_shape(x, lead + x.shape[-2:]), to_shape(y, lead + y.shape[-2:]))
    if left:
        z = reshape(z, (*z.shape[:-2], z.shape[-1]))
    return reshape(z, z.shape[:-1]) if right else z


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """sum of conj(x) y over an axis, which must be equally long in both; other axes broadcast."""
    x, y = alike((x1, x2), "vecdot")
    if not -min(x.ndim, y.ndim) <= axis < 0:
        raise ArgumentError(
            f"vecdot of shapes {x.shape} and {y.shape} needs an axis from "
            f"{-min(x.ndim, y.ndim)} to -1, got {axis}."
        )
    if x.shape[axis] != y.shape[axis]:
        raise ShapeError(f"vecdot of shapes {x.shape} and {y.shape}: axis {axis} must be equal.")
    return sum(multiply(conj(x), y), axis=axis, dtype=x.dtype)


def tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Tensor:
    """The sum over `axes` of products: the last n axes of x with the first n of y, or pairs.

    axes: a number n, or two sequences of axes, of x and of y, to be paired in order.
    """
    x, y = alike((x1, x2), "tensordot")
    if isinstance(axes, int):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise ArgumentError(
                f"tensordot of shapes {x.shape} and {y.shape} pairs from 0 to "
                f"{min(x.ndim, y.ndim)} axes, got axes={axes}."
            )
        left, right = list(range(x.ndim - axes, x.ndim)), list(range(axes))
    else:
        first, second = axes
        left, right = list(normalize_each(first, x.ndim)), list(normalize_each(second, y.ndim))
    if len(left) != len(right) or [x.shape[a] for a in left] != [y.shape[a] for a in right]:
        raise ShapeError(
            f"tensordot of shapes {x.shape} and {y.shape} over axes {left} and {right}: "
            "the paired axes must be equally long."
        )
    kept_x = [a for a in range(x.ndim) if a not in left]
    kept_y = [a for a in range(y.ndim) if a not in right]
    rows, columns = [x.shape[a] for a in kept_x], [y.shape[a] for a in kept_y]
    inner = math.prod(x.shape[a] for a in left)
    matrix_x = reshape(permute_dims(x, (*kept_x, *left)), (math.prod(rows), inner))
    matrix_y = reshape(permute_dims(y, (*right, *kept_y)), (inner, math.prod(columns)))
    return reshape(p.matmul(matrix_x, matrix_y), (*rows, *columns))


def outer(x1: Any, x2: Any, /) -> Tensor:
    """The matrix x_i y_j of two vectors."""
    x, y = alike((x1, x2), "outer")
    return multiply(reshape(x, (-1, 1)), reshape(y, (1, -1)))


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sum along a diagonal of each matrix."""
    return sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def diagonal(x: Any, /, *, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Tensor:
    """The elements with equal indices (up to `offset`) along two axes, as the last axis."""
    x = as_tensor(x)
    a, b = normalize_axis(axis1, x.ndim), normalize_axis(axis2, x.ndim)
    x = moveaxis(x, (a, b), (-2, -1))
    rows, columns = x.shape[-2:]
    start_row, start_column = (0, offset) if offset >= 0 else (-offset, 0)
    n = max(min(rows - start_row, columns - start_column), 0)
    steps = make_range(n, (n,))
    return x[..., steps + start_row, steps + start_column]
