"""Convolution and transposed convolution in one, two and three dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule.errors import ArgumentError, ShapeError
from chainrule.nn.functional._common import (
    Ints,
    add_bias,
    as_input,
    batched,
    ints,
    same_dtype,
    unbatched,
)
from chainrule.primitives.convolution import conv, conv_input

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

Pairs = tuple[tuple[int, int], ...]

_CONV = """{n}-D convolution, as networks have it (cross-correlation: the kernel is not flipped).

    y[b, o, p] = bias[o] + sum over c, k of x[b, c, stride p + dilation k - padding] w[o, c, k]

    Arguments:
        input: x, of shape (batch, in_channels, {axes}), or the same without batch.
        weight: w, of shape (out_channels, in_channels / groups, {kernel}).
        bias: of shape (out_channels,), or None.
        stride: the distance between neighbouring positions of the kernel.
        padding: zeros on both sides of each axis; or 'valid' (none), or 'same' (as many as keep the
            size; stride 1 only; an odd one goes to the end).
        dilation: the distance between neighbouring elements under the kernel.
        groups: output channel o sees the input channels of its group alone.

    Returns:
        y; each spatial axis has floor((n + 2 padding - dilation (k - 1) - 1) / stride) + 1.

    Raises:
        ShapeError: for channels that do not fit the weight, or a kernel larger than the input.
    """

_CONV_TRANSPOSE = """{n}-D transposed convolution: the adjoint of the convolution in its input.

    y[b, o, stride p + dilation k - padding] += x[b, c, p] w[c, o, k], and the bias everywhere.

    Arguments:
        input: x, of shape (batch, in_channels, {axes}), or the same without batch.
        weight: w, of shape (in_channels, out_channels / groups, {kernel}).
        bias: of shape (out_channels,), or None.
        stride, padding, dilation, groups: those of the convolution that it is the adjoint of.
        output_padding: added to the size at the end of each axis, since several input sizes of a
            convolution with a stride give the same output size; below stride or dilation.

    Returns:
        y; an axis has (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.
    """

_AXES = ("length", "height, width", "depth, height, width")
_KERNELS = ("k", "kh, kw", "kd, kh, kw")


def _documented(function: Any, text: str, n: int) -> Any:
    function.__doc__ = text.format(n=n, axes=_AXES[n - 1], kernel=_KERNELS[n - 1])
    return function


def pairs(padding: Any, kernel: Ints, stride: Ints, dilation: Ints) -> Pairs:
    """Padding as (low, high) for each axis; 'same' and 'valid' by name."""
    n = len(kernel)
    if not isinstance(padding, str):
        return tuple((p, p) for p in ints(padding, n, "padding", 0))
    if padding == "valid":
        return ((0, 0),) * n
    if padding != "same":
        raise ArgumentError(f"padding is a number or 'same' or 'valid', got {padding!r}.")
    if any(s != 1 for s in stride):
        raise ArgumentError(
            f"padding='same' is defined for stride 1 alone, got stride {stride}; give numbers."
        )
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def convolve(
    name: str, input: Any, weight: Any, bias: Any, stride: Ints, padding: Pairs, dilation: Ints,
    groups: int,
) -> Any:  # fmt: skip
    """The convolution with all arguments in full."""
    w = as_input(weight)
    x, added = batched(name, as_input(input), w.ndim - 2)
    if x.shape[1] != w.shape[1] * groups:
        raise _wrong_channels(name, x.shape[1:] if added else x.shape, w.shape, groups)
    same_dtype(name, x, w)
    y = conv(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return unbatched(y if bias is None else add_bias(y, as_input(bias)), added)


def _wrong_channels(name: str, shape: Ints, weight: Ints, groups: int) -> ShapeError:
    n, channels = len(weight) - 2, weight[1] * groups
    got = shape[-n - 1]
    if len(shape) == n + 2 and shape[-1] == channels:
        order = (0, n + 1, *range(1, n + 1))
        fix = f" Channels come first: x.permute_dims{order}."
    elif len(shape) == n + 1 and channels == 1:
        fix = " A batch of images with one channel needs an axis for it: x[:, None]."
    elif len(shape) == n + 1:
        fix = " It was read as one example without a batch axis."
    else:
        fix = ""
    return ShapeError(
        f"{name} got an input of shape {shape} with {got} channel(s), but its weight {weight} "
        + (f"in {groups} groups " if groups > 1 else "")
        + f"takes {channels} channel(s).{fix}"
    )


def _check_groups(name: str, weight: Any, groups: int) -> None:
    if groups < 1 or weight.shape[0] % groups:
        raise ArgumentError(
            f"{name} got {groups} groups, which do not divide the first axis of its weight "
            f"{weight.shape}."
        )


def _conv(
    n: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    groups: int,
) -> Any:  # fmt: skip
    name, w = f"conv{n}d", as_input(weight)
    if w.ndim != n + 2:
        raise ShapeError(f"{name} got a weight of shape {w.shape}; it needs {n + 2} axes.")
    _check_groups(name, w, groups)
    strides, dilations = ints(stride, n, "stride", 1), ints(dilation, n, "dilation", 1)
    padded = pairs(padding, w.shape[2:], strides, dilations)
    return convolve(name, input, w, bias, strides, padded, dilations, groups)


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def convolve_transposed(
    name: str, input: Any, weight: Any, bias: Any, stride: Ints, padding: Ints,
    output_padding: Ints, groups: int, dilation: Ints,
) -> Any:  # fmt: skip
    """The transposed convolution with all arguments in full."""
    w = as_input(weight)
    x, added = batched(name, as_input(input), w.ndim - 2)
    if x.shape[1] != w.shape[0]:
        shape = x.shape[1:] if added else x.shape
        raise _wrong_channels(name, shape, (w.shape[1], w.shape[0], *w.shape[2:]), 1)
    same_dtype(name, x, w)
    for extra, s, d in zip(output_padding, stride, dilation, strict=True):
        if extra >= max(s, d):
            raise ArgumentError(
                f"{name} got output_padding {output_padding}, which must be smaller than stride "
                f"{stride} or dilation {dilation}: more would be zeros alone."
            )
    # What an output beyond the last whole stride receives is cut off by less padding at that end;
    # what is still beyond it receives nothing.
    spatial, low_high, beyond = [], [], []
    for n, k, s, p, extra, d in zip(
        x.shape[2:], w.shape[2:], stride, padding, output_padding, dilation, strict=True
    ):
        outside = max(extra - p, 0) if extra >= s else 0
        high = max(p - extra, 0) if extra >= s else p
        spatial.append((n - 1) * s - 2 * p + d * (k - 1) + 1 + extra - outside)
        low_high.append((p, high))
        beyond.append((0, outside))
    if any(n < 1 for n in spatial):
        raise ShapeError(
            f"{name} of an input {x.shape} with kernel {w.shape[2:]} and padding {padding} has no "
            f"output: its size would be {tuple(spatial)}."
        )
    y = conv_input(
        x, w, spatial=tuple(spatial), stride=stride, padding=tuple(low_high), dilation=dilation,
        groups=groups,
    )  # fmt: skip
    if any(high for _, high in beyond):
        y = xp.pad(y, ((0, 0), (0, 0), *beyond))
    return unbatched(y if bias is None else add_bias(y, as_input(bias)), added)


def _conv_transpose(
    n: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Any:  # fmt: skip
    name, w = f"conv_transpose{n}d", as_input(weight)
    if w.ndim != n + 2:
        raise ShapeError(f"{name} got a weight of shape {w.shape}; it needs {n + 2} axes.")
    _check_groups(name, w, groups)
    return convolve_transposed(
        name, input, w, bias, ints(stride, n, "stride", 1), ints(padding, n, "padding", 0),
        ints(output_padding, n, "output_padding", 0), groups, ints(dilation, n, "dilation", 1),
    )  # fmt: skip


def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    return _conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    return _conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    return _conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


for _n, _functions in enumerate(
    ((conv1d, conv_transpose1d), (conv2d, conv_transpose2d), (conv3d, conv_transpose3d)), start=1
):
    _documented(_functions[0], _CONV, _n)
    _documented(_functions[1], _CONV_TRANSPOSE, _n)
