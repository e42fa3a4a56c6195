"""Pooling layers; the formulas stand in `functional/pooling.py` and `functional/adaptive.py`."""

from __future__ import annotations

from typing import Any, ClassVar

from chainrule.errors import ArgumentError
from chainrule.nn import functional
from chainrule.nn.functional._common import ints
from chainrule.nn.module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "GlobalAvgPool3d",
    "GlobalMaxPool1d",
    "GlobalMaxPool2d",
    "GlobalMaxPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]


class _Pool(Module):
    """A layer that calls one function; `spatial_axes` says which of the three."""

    spatial_axes: ClassVar[int]

    @classmethod
    def _function(cls, name: str) -> Any:
        return getattr(functional, f"{name}{cls.spatial_axes}d")


class _MaxPool(_Pool):
    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode
        ints(kernel_size, self.spatial_axes, "kernel_size", 1)

    def forward(self, input: Any) -> Any:
        return self._function("max_pool")(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
            self.return_indices,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class _AvgPool(_Pool):
    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        ints(kernel_size, self.spatial_axes, "kernel_size", 1)

    def forward(self, input: Any) -> Any:
        return self._function("avg_pool")(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPoolByAnyDivisor(_AvgPool):
    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ):  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        if divisor_override == 0:
            raise ArgumentError("an average cannot be divided by divisor_override=0.")
        self.divisor_override = divisor_override

    def forward(self, input: Any) -> Any:
        return self._function("avg_pool")(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad, self.divisor_override,
        )  # fmt: skip


class _LPPool(_Pool):
    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ):
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode
        ints(kernel_size, self.spatial_axes, "kernel_size", 1)

    def forward(self, input: Any) -> Any:
        return self._function("lp_pool")(
            input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        )

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class _MaxUnpool(_Pool):
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        super().__init__()
        n = self.spatial_axes
        self.kernel_size = ints(kernel_size, n, "kernel_size", 1)
        self.stride = self.kernel_size if stride is None else ints(stride, n, "stride", 1)
        self.padding = ints(padding, n, "padding", 0)

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:
        return self._function("max_unpool")(
            input, indices, self.kernel_size, self.stride, self.padding, output_size
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AdaptiveAvgPool(_Pool):
    def __init__(self, output_size: Any):
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Any) -> Any:
        return self._function("adaptive_avg_pool")(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveMaxPool(_Pool):
    def __init__(self, output_size: Any, return_indices: bool = False):
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Any) -> Any:
        return self._function("adaptive_max_pool")(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _FractionalMaxPool(_Pool):
    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Any = None,
    ):  # fmt: skip
        super().__init__()
        n = self.spatial_axes
        self.kernel_size = ints(kernel_size, n, "kernel_size", 1)
        if (output_size is None) == (output_ratio is None):
            raise ArgumentError(
                f"{type(self).__name__} needs either output_size or output_ratio, and not both."
            )
        self.output_size = None if output_size is None else ints(output_size, n, "output_size", 1)
        several = isinstance(output_ratio, tuple | list)
        ratios = tuple(output_ratio) if several else (output_ratio,) * n
        self.output_ratio = None if output_ratio is None else ratios
        if self.output_ratio is not None and not all(0 < r < 1 for r in ratios):
            raise ArgumentError(f"output_ratio must be between 0 and 1, got {output_ratio!r}.")
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input: Any) -> Any:
        return self._function("fractional_max_pool")(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
            self._random_samples,
        )  # fmt: skip


class _GlobalPool(_Pool):
    """One value for each channel, of images of any size."""

    kind: ClassVar[str]

    def __init__(self, keepdim: bool = True):
        super().__init__()
        self.keepdim = keepdim

    def forward(self, input: Any) -> Any:
        y = self._function(self.kind)(input, 1)
        return y if self.keepdim else y.reshape(y.shape[: -self.spatial_axes])

    def extra_repr(self) -> str:
        return "" if self.keepdim else "keepdim=False"


class _GlobalAvgPool(_GlobalPool):
    kind = "adaptive_avg_pool"


class _GlobalMaxPool(_GlobalPool):
    kind = "adaptive_max_pool"


_SHAPES = tuple(
    f"""
    Shapes: (batch, channels, {axes}), or the same without batch.
    """
    for axes in ("", "length", "height, width", "depth, height, width")
)

_MAX = """The largest element of each window.

    Arguments:
        kernel_size: the size of a window.
        stride: the distance between neighbouring windows; kernel_size if None.
        padding: how far windows may reach over the edge; at most half of the kernel.
        dilation: the distance between neighbouring elements of a window.
        return_indices: return (values, indices), for max unpooling.
        ceil_mode: also windows that fit only in part at the end.
"""

_AVG = """The mean of each window.

    Arguments:
        kernel_size: the size of a window.
        stride: the distance between neighbouring windows; kernel_size if None.
        padding: zeros around the input; at most half of the kernel.
        ceil_mode: also windows that fit only in part at the end.
        count_include_pad: divide by the number of elements and zeros of padding; else without them.
"""

_DIVISOR = """        divisor_override: divide by this number instead.
"""

_LP = """(sum of x^p)^(1/p) over each window.

    Arguments:
        norm_type: p.
        kernel_size: the size of a window.
        stride: the distance between neighbouring windows; kernel_size if None.
        ceil_mode: also windows that fit only in part at the end.
"""

_UNPOOL = """The way back from max pooling with `return_indices=True`, with zeros elsewhere.

    Arguments:
        kernel_size, stride, padding: those of the pooling.

    `layer(x, indices, output_size=...)` chooses among the sizes that the pooling leaves open.
"""

_ADAPTIVE_AVG = """The mean of each of `output_size` nearly equal windows.

    Arguments:
        output_size: a number, or one for each axis; None keeps the input's size.
"""

_ADAPTIVE_MAX = """The largest element of each of `output_size` nearly equal windows.

    Arguments:
        output_size: a number, or one for each axis; None keeps the input's size.
        return_indices: return (values, indices).
"""

_FRACTIONAL = """The largest element of each of `output_size` windows at random distances.

    Arguments:
        kernel_size: the size of a window.
        output_size: how many windows, for each axis; or
        output_ratio: their number as a share of the input's size, between 0 and 1.
        return_indices: return (values, indices).

    Source: Graham, "Fractional max-pooling", 2014.
"""

_GLOBAL_AVG = """The mean of each channel over all positions, for inputs of any size.

    Arguments:
        keepdim: keep the spatial axes, with length 1.
"""

_GLOBAL_MAX = """The largest element of each channel over all positions, for inputs of any size.

    Arguments:
        keepdim: keep the spatial axes, with length 1.
"""


class MaxPool1d(_MaxPool):
    __doc__ = _MAX + _SHAPES[1]
    spatial_axes = 1


class MaxPool2d(_MaxPool):
    __doc__ = _MAX + _SHAPES[2]
    spatial_axes = 2


class MaxPool3d(_MaxPool):
    __doc__ = _MAX + _SHAPES[3]
    spatial_axes = 3


class AvgPool1d(_AvgPool):
    __doc__ = _AVG + _SHAPES[1]
    spatial_axes = 1

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.kernel_size = ints(self.kernel_size, 1, "kernel_size", 1)
        self.stride = ints(self.stride, 1, "stride", 1)
        self.padding = ints(padding, 1, "padding", 0)


class AvgPool2d(_AvgPoolByAnyDivisor):
    __doc__ = _AVG + _DIVISOR + _SHAPES[2]
    spatial_axes = 2


class AvgPool3d(_AvgPoolByAnyDivisor):
    __doc__ = _AVG + _DIVISOR + _SHAPES[3]
    spatial_axes = 3


class LPPool1d(_LPPool):
    __doc__ = _LP + _SHAPES[1]
    spatial_axes = 1


class LPPool2d(_LPPool):
    __doc__ = _LP + _SHAPES[2]
    spatial_axes = 2


class LPPool3d(_LPPool):
    __doc__ = _LP + _SHAPES[3]
    spatial_axes = 3


class MaxUnpool1d(_MaxUnpool):
    __doc__ = _UNPOOL + _SHAPES[1]
    spatial_axes = 1


class MaxUnpool2d(_MaxUnpool):
    __doc__ = _UNPOOL + _SHAPES[2]
    spatial_axes = 2


class MaxUnpool3d(_MaxUnpool):
    __doc__ = _UNPOOL + _SHAPES[3]
    spatial_axes = 3


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    __doc__ = _ADAPTIVE_AVG + _SHAPES[1]
    spatial_axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    __doc__ = _ADAPTIVE_AVG + _SHAPES[2]
    spatial_axes = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    __doc__ = _ADAPTIVE_AVG + _SHAPES[3]
    spatial_axes = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    __doc__ = _ADAPTIVE_MAX + _SHAPES[1]
    spatial_axes = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    __doc__ = _ADAPTIVE_MAX + _SHAPES[2]
    spatial_axes = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    __doc__ = _ADAPTIVE_MAX + _SHAPES[3]
    spatial_axes = 3


class FractionalMaxPool2d(_FractionalMaxPool):
    __doc__ = _FRACTIONAL + _SHAPES[2]
    spatial_axes = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    __doc__ = _FRACTIONAL + _SHAPES[3]
    spatial_axes = 3


class GlobalAvgPool1d(_GlobalAvgPool):
    __doc__ = _GLOBAL_AVG + _SHAPES[1]
    spatial_axes = 1


class GlobalAvgPool2d(_GlobalAvgPool):
    __doc__ = _GLOBAL_AVG + _SHAPES[2]
    spatial_axes = 2


class GlobalAvgPool3d(_GlobalAvgPool):
    __doc__ = _GLOBAL_AVG + _SHAPES[3]
    spatial_axes = 3


class GlobalMaxPool1d(_GlobalMaxPool):
    __doc__ = _GLOBAL_MAX + _SHAPES[1]
    spatial_axes = 1


class GlobalMaxPool2d(_GlobalMaxPool):
    __doc__ = _GLOBAL_MAX + _SHAPES[2]
    spatial_axes = 2


class GlobalMaxPool3d(_GlobalMaxPool):
    __doc__ = _GLOBAL_MAX + _SHAPES[3]
    spatial_axes = 3
