"""Convolution in its three directions, in any number of spatial dimensions.

`conv` is linear in the input and in the weight. Its two adjoints, `conv_input` and `conv_weight`,
are linear in what they take, and among the three every derivative is again one of the three:

    conv(x, w)           d/dx -> conv_input(g, w)      d/dw -> conv_weight(x, g)
    conv_input(y, w)     d/dy -> conv(g, w)            d/dw -> conv_weight(g, y)
    conv_weight(x, y)    d/dx -> conv_input(y, g)      d/dy -> conv(x, g)

`conv_input` going forward is what layers call transposed convolution.

Layouts: x (N, C, *spatial), w (O, C / groups, *kernel), y (N, O, *output). As networks have it the
kernel is not flipped (cross-correlation):

    y[n, o, p] = sum over c, k of x[n, c, stride p + dilation k - padding] w[o, c, k]
"""

from __future__ import annotations

from math import prod
from typing import Any

from chainrule.errors import DTypeError, ShapeError
from chainrule.graph import Primitive, Shape, Spec
from chainrule.primitives._rules import check_kind
from chainrule.primitives.kernels import conv as kernels

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def output_shape(
    spatial: Shape, kernel: Shape, stride: Ints, padding: Padding, dilation: Ints
) -> Shape:
    """floor((n + low + high - dilation (k - 1) - 1) / stride) + 1 for each axis."""
    out = kernels.output_shape(spatial, kernel, stride, padding, dilation)
    if any(n < 1 for n in out):
        raise ShapeError(
            f"a kernel of {tuple(kernel)} with dilation {dilation} does not fit into an input of "
            f"{tuple(spatial)} with padding {padding}; use a smaller kernel or more padding."
        )
    return out


def _check(x: Any, channels: int, w_shape: Shape, groups: int, dtype: Any) -> None:
    check_kind("convolution", "real float", x)
    if x.dtype != dtype:
        raise DTypeError(
            f"convolution got an input of {x.dtype.name} and a weight of {dtype.name}."
        )
    if len(w_shape) != x.ndim:
        raise ShapeError(
            f"convolution got an input of shape {x.shape} and a weight of shape {w_shape}: "
            f"an input needs {len(w_shape)} axes (batch, channels, {len(w_shape) - 2} spatial)."
        )
    if channels != w_shape[1] * groups or w_shape[0] % groups:
        raise ShapeError(
            f"convolution got an input of shape {x.shape} with {channels} channels and a weight "
            f"of shape {w_shape} in {groups} group(s), which takes {w_shape[1] * groups} channels."
        )


def _infer_conv(
    x: Any, w: Any, stride: Ints, padding: Padding, dilation: Ints, groups: int
) -> Spec:
    _check(x, x.shape[1] if x.ndim > 1 else 0, w.shape, groups, w.dtype)
    out = output_shape(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return Spec((x.shape[0], w.shape[0], *out), x.dtype)


def _flops(outputs: Any, n: int, w_shape: Shape, spatial: Shape) -> int:
    return 2 * n * prod(w_shape) * prod(spatial)


conv = Primitive(
    "conv", "y[p] = sum over k of x[stride p + dilation k - padding] w[k]", ("x", "w"),
    _infer_conv, kernels.conv_forward,
    (
        lambda g, z, x, w, **how: conv_input(g, w, spatial=x.shape[2:], **how),
        lambda g, z, x, w, **how: conv_weight(x, g, kernel=w.shape[2:], **how),
    ),
    reads="x w",
    flops=lambda out, x, w, **how: _flops(out, x.shape[0], w.shape, out[0].shape[2:]),
)  # fmt: skip


def _infer_conv_input(
    y: Any, w: Any, spatial: Shape, stride: Ints, padding: Padding, dilation: Ints, groups: int
) -> Spec:
    check_kind("convolution", "real float", y)
    expected = output_shape(spatial, w.shape[2:], stride, padding, dilation)
    if y.dtype != w.dtype:
        raise DTypeError(
            f"convolution got an input of {y.dtype.name} and a weight of {w.dtype.name}."
        )
    if y.ndim != w.ndim or y.shape[1] != w.shape[0] or y.shape[2:] != expected:
        raise ShapeError(
            f"transposed convolution got an input of shape {y.shape} and a weight of shape "
            f"{w.shape}; it expects (batch, {w.shape[0]}, {', '.join(map(str, expected))})."
        )
    return Spec((y.shape[0], w.shape[1] * groups, *spatial), y.dtype)


conv_input = Primitive(
    "conv_input", "the adjoint of conv in x: x[stride p + dilation k - padding] += y[p] w[k]",
    ("y", "w"), _infer_conv_input,
    lambda y, w, spatial, stride, padding, dilation, groups: kernels.conv_backward_input(
        y, w, spatial, stride, padding, dilation, groups
    ),
    (
        lambda g, z, y, w, spatial, **how: conv(g, w, **how),
        lambda g, z, y, w, spatial, **how: conv_weight(g, y, kernel=w.shape[2:], **how),
    ),
    reads="y w",
    flops=lambda out, y, w, **how: _flops(out, y.shape[0], w.shape, y.shape[2:]),
)  # fmt: skip


def _infer_conv_weight(
    x: Any, y: Any, kernel: Shape, stride: Ints, padding: Padding, dilation: Ints, groups: int
) -> Spec:
    if x.dtype != y.dtype or x.shape[0] != y.shape[0] or x.ndim != y.ndim:
        raise ShapeError(f"conv_weight got {x.shape} and {y.shape}, which do not go together.")
    return Spec((y.shape[1], x.shape[1] // groups, *kernel), x.dtype)


conv_weight = Primitive(
    "conv_weight", "the adjoint of conv in w: w[k] += x[stride p + dilation k - padding] y[p]",
    ("x", "y"), _infer_conv_weight,
    lambda x, y, kernel, stride, padding, dilation, groups: kernels.conv_backward_weight(
        x, y, kernel, stride, padding, dilation, groups
    ),
    (
        lambda g, z, x, y, kernel, **how: conv_input(y, g, spatial=x.shape[2:], **how),
        lambda g, z, x, y, kernel, **how: conv(x, g, **how),
    ),
    reads="x y",
    flops=lambda out, x, y, **how: _flops(out, x.shape[0], out[0].shape, y.shape[2:]),
)  # fmt: skip
