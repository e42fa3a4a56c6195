"""Sliding windows: their sum, its adjoint, and where their maximum stands.

Average pooling is a window sum divided; max pooling takes what `window_argmax` points at, and its
derivative goes back to where that was. Windows may run past the input on the high side (ceil mode):
what lies outside counts as nothing.
"""

from __future__ import annotations

from typing import Any

from chainrule import dtypes
from chainrule.errors import ShapeError
from chainrule.graph import Primitive, Shape, Spec
from chainrule.primitives._rules import check_kind
from chainrule.primitives.kernels import pool as kernels

output_shape = kernels.pool_output_shape


def _infer_window(x: Any, out: Shape, **how: Any) -> Spec:
    check_kind("pooling", "real", x)
    return Spec((*x.shape[:2], *out), x.dtype)


window_argmax = Primitive(
    "window_argmax", "the flat spatial index of the maximum of each window", ("x",),
    lambda x, out, **how: Spec(_infer_window(x, out).shape, dtypes.int64),
    lambda x, out, kernel, stride, padding, dilation: kernels.max_pool_argmax(
        x, kernel, stride, padding, dilation, out
    ),
    flops=lambda outputs, x, kernel, **how: outputs[0].size * _volume(kernel),
)  # fmt: skip

window_sum = Primitive(
    "window_sum", "the sum of each window", ("x",), _infer_window,
    lambda x, out, kernel, stride, padding, dilation: kernels.window_sum(
        x, kernel, stride, padding, dilation, out
    ),
    (lambda g, z, x, out, **how: window_spread(g, spatial=x.shape[2:], **how),),
    flops=lambda outputs, x, kernel, **how: outputs[0].size * _volume(kernel),
)  # fmt: skip

window_spread = Primitive(
    "window_spread", "the adjoint of window_sum: each window's value added to all its elements",
    ("y",),
    lambda y, spatial, **how: Spec((*y.shape[:2], *spatial), y.dtype),
    lambda y, spatial, kernel, stride, padding, dilation: kernels.window_spread(
        y, kernel, stride, padding, dilation, spatial
    ),
    (lambda g, z, y, spatial, **how: window_sum(g, out=y.shape[2:], **how),),
    flops=lambda outputs, y, kernel, **how: y.size * _volume(kernel),
)  # fmt: skip


def _infer_take(x: Any, index: Any, **how: Any) -> Spec:
    check_kind("window_take's index", "integer", index)
    if index.shape[:2] != x.shape[:2] or index.ndim != x.ndim:
        raise ShapeError(f"window_take got {x.shape} and an index of shape {index.shape}.")
    return Spec(index.shape, x.dtype)


def _infer_route(y: Any, index: Any, spatial: Shape, **how: Any) -> Spec:
    if y.shape != index.shape or len(spatial) != y.ndim - 2:
        raise ShapeError(
            f"window_route got {y.shape} and an index of shape {index.shape} into {spatial}."
        )
    return Spec((*y.shape[:2], *spatial), y.dtype)


window_take = Primitive(
    "window_take", "the element that an index points at, flat, within each window", ("x", "index"),
    _infer_take,
    lambda x, index, kernel, stride, padding, dilation: kernels.window_take(x, index),
    (lambda g, z, x, index, **how: window_route(g, index, spatial=x.shape[2:], **how), None),
    reads="index", flops=0,
)  # fmt: skip

window_route = Primitive(
    "window_route", "the adjoint of window_take: each value added where its window's index points",
    ("y", "index"), _infer_route,
    lambda y, index, spatial, kernel, stride, padding, dilation: kernels.window_route(
        y, index, spatial
    ),
    (lambda g, z, y, index, spatial, **how: window_take(g, index, **how), None),
    reads="index", flops=lambda outputs, y, *rest, **params: y.size,
)  # fmt: skip


def _volume(kernel: Shape) -> int:
    volume = 1
    for n in kernel:
        volume *= n
    return volume
