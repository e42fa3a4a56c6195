"""Linear and bilinear maps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule.errors import ShapeError
from chainrule.nn.functional._common import as_input, check_float, same_dtype
from chainrule.primitives import elementwise, movement
from chainrule.primitives.linalg import matmul, transpose

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["bilinear", "linear"]


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """y = x W^T + b.

    Arguments:
        input: x, of shape (..., in_features).
        weight: W, of shape (out_features, in_features), or (in_features,) for one output without
            an axis.
        bias: b, of shape (out_features,), or None.

    Returns:
        y, of shape (..., out_features).

    Raises:
        ShapeError: if the last axis of x does not have in_features elements.
        DTypeError: if x and W differ in dtype.
    """
    x, w = as_input(input), as_input(weight)
    if not x.ndim or x.shape[-1] != w.shape[-1]:
        raise _unfit(x.shape, w.shape)
    if x.dtype != w.dtype:
        same_dtype("linear", x, w)
    if w.ndim == 1:
        y = xp.matmul(x, w)
        return y if bias is None else y + bias
    rows = x if x.ndim == 2 else movement.reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1]))
    y = matmul(rows, transpose(w))
    if bias is not None:
        b = as_input(bias)
        y = elementwise.add(y, movement.broadcast_to(b, shape=y.shape))
    return y if x.ndim == 2 else movement.reshape(y, shape=(*x.shape[:-1], w.shape[0]))


def _unfit(shape: tuple[int, ...], weight: tuple[int, ...]) -> ShapeError:
    features = weight[-1]
    if len(shape) > 2 and math.prod(shape[1:]) == features:
        fix = " Put nn.Flatten() before it: each example has as many elements in all."
    elif len(shape) > 1 and math.prod(shape) == features:
        fix = " One example of that size has no batch axis: x.reshape(1, -1)."
    elif len(shape) == 2 and shape[0] == features:
        fix = " The examples stand in the rows: pass x.T."
    elif len(shape) > 2:
        size = math.prod(shape[1:])
        fix = f" If the input should be flattened, nn.Flatten() makes it {size} features."
    else:
        fix = ""
    last = f"{shape[-1]} features" if shape else "no axes"
    return ShapeError(
        f"linear got an input of shape {shape} with {last}, but its weight {weight} takes "
        f"{features} features in the last axis.{fix}"
    )


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Tensor:
    """y_k = x1^T W_k x2 + b_k.

    Arguments:
        input1, input2: x1 of shape (..., in1) and x2 of shape (..., in2), with equal leading axes.
        weight: W, of shape (out, in1, in2).
        bias: b, of shape (out,), or None.

    Returns:
        y, of shape (..., out).
    """
    x1, x2, w = as_input(input1), as_input(input2), as_input(weight)
    check_float("bilinear", x1)
    same_dtype("bilinear", x1, w)
    same_dtype("bilinear", x2, w)
    if not x1.ndim or x1.shape[:-1] != x2.shape[:-1] or (x1.shape[-1], x2.shape[-1]) != w.shape[1:]:
        raise ShapeError(
            f"bilinear got inputs of shapes {x1.shape} and {x2.shape} and a weight of shape "
            f"{w.shape}; it expects (..., {w.shape[1]}) and (..., {w.shape[2]}) with equal leading "
            "axes."
        )
    lead, (out, in1, in2) = x1.shape[:-1], w.shape
    n = math.prod(lead)
    rows = xp.matmul(
        xp.reshape(x1, (n, in1)), xp.reshape(xp.permute_dims(w, (1, 0, 2)), (in1, out * in2))
    )
    y = xp.matmul(xp.reshape(rows, (n, out, in2)), xp.reshape(x2, (n, in2, 1)))
    y = xp.reshape(y, (*lead, out))
    return y if bias is None else y + bias
