"""Sliding windows: their sum, its adjoint, and where their maximum stands.

Average pooling is a window sum divided; max pooling gathers what `window_argmax` points at, so its
derivative is the gather's. Windows may run past the input on the high side (ceil mode): what lies
outside counts as nothing.
"""

from __future__ import annotations

from typing import Any

from chainrule import dtypes
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


def _volume(kernel: Shape) -> int:
    volume = 1
    for n in kernel:
        volume *= n
    return volume
