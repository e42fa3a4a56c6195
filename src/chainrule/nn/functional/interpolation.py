"""Resizing images, volumes and signals.

Along each axis an output element is a weighted sum of a few input elements: nearest takes one,
linear two, cubic four, and with antialiasing as many as the output element covers. The axes are
resized one after another.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import array as xp
from chainrule.errors import ArgumentError, ArgumentTypeError, ShapeError, unknown_name
from chainrule.graph import make
from chainrule.nn.functional._common import Ints, as_input, check_float, ints
from chainrule.nn.functional.adaptive import _adaptive_avg_pool

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["interpolate"]

Taps = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # (out, k) places and their weights

# How many spatial axes each mode is defined for.
_AXES = {
    "nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "area": (1, 2, 3), "linear": (1,),
    "bilinear": (2,), "bicubic": (2,), "lanczos": (2,), "trilinear": (3,),
}  # fmt: skip


def interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:  # fmt: skip
    """The input in another size.

    Output element i has its centre at (i + 1/2) scale - 1/2 of the input, with scale the input's
    size over the output's (or 1 / `scale_factor`); with `align_corners` at
    i (n_in - 1) / (n_out - 1), so that the outermost elements' centres meet.

    Arguments:
        input: of shape (batch, channels, ...) with one, two or three spatial axes.
        size: the output's spatial size: a number, or one for each axis.
        scale_factor: or a factor instead, rounded down to a size; or one for each axis.
        mode: "nearest" (the element at floor(i scale)), "nearest-exact" (at the centre),
            "linear", "bilinear" and "trilinear" (1, 2 and 3 axes), "bicubic" (2 axes; Keys' with
            a = -0.75), "area" (the mean, as adaptive average pooling), "lanczos" (2 axes,
            antialiased).
        align_corners: of the linear and cubic modes; None is False.
        recompute_scale_factor: take the scale from the rounded sizes and not from `scale_factor`.
        antialias: widen the filter when shrinking ("bilinear", "bicubic" with a = -0.5, "lanczos").

    Raises:
        ArgumentError: for both or neither of size and scale_factor, or options that the mode lacks.
    """
    x = as_input(input)
    check_float("interpolate", x)
    n = x.ndim - 2
    if mode not in _AXES:
        raise unknown_name("interpolation mode", mode, _AXES)
    if n not in _AXES[mode]:
        fits = [m for m in _AXES if n in _AXES[m]]
        raise ShapeError(
            f"interpolate got an input of shape {x.shape}, and mode {mode!r} is defined for inputs "
            f"(batch, channels, ...) of {' or '.join(str(a + 2) for a in _AXES[mode])} axes."
            + (f" For this one: {', '.join(fits)}." if fits else "")
        )
    _check_options(mode, align_corners, antialias)
    out, factors = _sizes(x.shape[2:], size, scale_factor, bool(recompute_scale_factor), mode)
    if any(m < 1 for m in (*out, *x.shape[2:])):
        raise ShapeError(f"interpolate from size {x.shape[2:]} to {out}: sizes must be at least 1.")
    if mode == "area":
        return _adaptive_avg_pool(n, x, out)
    for axis, (n_in, n_out, factor) in enumerate(zip(x.shape[2:], out, factors, strict=True), 2):
        place = _Axis(n_in, n_out, factor, bool(align_corners), x.dtype)
        x = _resampled(x, axis, *place.taps(mode, antialias))
    return x


def _check_options(mode: str, align_corners: bool | None, antialias: bool) -> None:
    if mode in ("nearest", "nearest-exact", "area") and align_corners is not None:
        raise ArgumentError(
            f"align_corners is an option of the linear and cubic modes, not of {mode!r}."
        )
    if antialias and mode not in ("bilinear", "bicubic", "lanczos"):
        raise ArgumentError(
            f"antialias is offered for bilinear, bicubic and lanczos, not {mode!r}."
        )
    if mode == "lanczos" and (align_corners or not antialias):
        raise ArgumentError("mode 'lanczos' needs antialias=True and no align_corners.")


def _sizes(
    spatial: Ints, size: Any, scale_factor: Any, recompute: bool, mode: str
) -> tuple[Ints, list[float | None]]:
    """The output's size, and the factor that positions are computed with where one was given."""
    n = len(spatial)
    if (size is None) == (scale_factor is None):
        raise ArgumentError("interpolate needs either size or scale_factor, and not both.")
    if size is not None:
        if recompute:
            raise ArgumentError("recompute_scale_factor says nothing when a size is given.")
        if isinstance(size, tuple | list) and len(size) != n:
            raise ArgumentError(f"size {tuple(size)} does not fit {n} spatial axes {spatial}.")
        return ints(size, n, "size"), [None] * n
    several = isinstance(scale_factor, tuple | list)
    try:
        factors = [float(f) for f in (scale_factor if several else (scale_factor,) * n)]
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"scale_factor is a number, got {scale_factor!r}.") from None
    if len(factors) != n:
        raise ArgumentError(f"scale_factor {scale_factor} does not fit {n} spatial axes {spatial}.")
    out = tuple(math.floor(m * f) for m, f in zip(spatial, factors, strict=True))
    return out, [None] * n if recompute or mode == "area" else list(factors)


class _Axis:
    """One axis: the two sizes, and where the elements of one stand in the other."""

    def __init__(
        self, n_in: int, n_out: int, factor: float | None, align_corners: bool, dtype: Any
    ):
        self.n_in, self.n_out, self.align_corners = n_in, n_out, align_corners
        # Positions are computed in the precision of the elements, as they would be on a device.
        self.number = dtype.type
        if align_corners:
            self.scale = self.number((n_in - 1) / (n_out - 1) if n_out > 1 else 0)
        else:
            self.scale = self.number(n_in / n_out if factor is None else 1 / factor)

    def taps(self, mode: str, antialias: bool) -> Taps:
        """The places that each output element reads, (n_out, k), and their weights."""
        if mode in ("nearest", "nearest-exact"):
            return self._nearest(0.0 if mode == "nearest" else 0.5)
        kind = "cubic" if mode == "bicubic" else "lanczos" if mode == "lanczos" else "linear"
        if antialias:
            return self._widened(*_FILTERS[kind])
        if self.n_in == self.n_out and self.scale == 1:
            return np.arange(self.n_out)[:, None], np.ones((self.n_out, 1), self.number)
        return self._cubic() if kind == "cubic" else self._linear()

    def _centres(self) -> Any:
        i = np.arange(self.n_out, dtype=self.number)
        half = self.number(0.5)
        return i * self.scale if self.align_corners else (i + half) * self.scale - half

    def _nearest(self, offset: float) -> Taps:
        # Rounding decides to which side a position on the edge between two elements falls: the
        # centre is rounded to the dtype (one fused multiply and add), the edge to single precision.
        centre = (np.arange(self.n_out) + offset) * np.float64(self.scale) - offset
        edge = (centre.astype(self.number) + self.number(offset)).astype(np.float32)
        at = np.minimum(np.floor(edge).astype(np.int64), self.n_in - 1)
        return at[:, None], np.ones((self.n_out, 1), self.number)

    def _linear(self) -> Taps:
        at = np.maximum(self._centres(), 0)
        low = np.minimum(at.astype(np.int64), self.n_in - 1)
        t = np.clip(at - low.astype(self.number), 0, 1)
        high = np.minimum(low + 1, self.n_in - 1)
        return np.stack([low, high], axis=1), np.stack([1 - t, t], axis=1)

    def _cubic(self) -> Taps:
        at = self._centres()
        low = np.floor(at)
        t = np.clip(at - low, 0, 1).astype(self.number)
        weights = [_keys(t + 1, -0.75), _keys(t, -0.75), _keys(1 - t, -0.75), _keys(2 - t, -0.75)]
        places = low.astype(np.int64)[:, None] + np.arange(-1, 3)
        return np.clip(places, 0, self.n_in - 1), np.stack(weights, axis=1)

    def _widened(self, kernel: Any, reach: float) -> Taps:
        """A filter that is `reach` wide on each side, widened by the scale when shrinking."""
        stretch = max(float(self.scale), 1.0)
        support = reach * stretch
        centre = (np.arange(self.n_out) + 0.5) * float(self.scale)
        start = np.maximum((centre - support + 0.5).astype(np.int64), 0)
        stop = np.minimum((centre + support + 0.5).astype(np.int64), self.n_in)
        places = start[:, None] + np.arange(max(int((stop - start).max()), 1))
        weights = kernel((places - centre[:, None] + 0.5) / stretch)
        weights = np.where(places < stop[:, None], weights, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.minimum(places, self.n_in - 1), weights.astype(self.number)


def _keys(t: Any, a: float) -> Any:
    """Keys' cubic kernel (1981), which is 1 at 0, and 0 at all other integers and beyond 2."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


# Filter and reach for antialiased resizing.
_FILTERS = {
    "linear": (lambda t: np.maximum(1 - np.abs(t), 0), 1.0),
    "cubic": (lambda t: _keys(t, -0.5), 2.0),
    "lanczos": (lambda t: np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0), 3.0),
}


def _resampled(x: Any, axis: int, places: Any, weights: Any) -> Any:
    """sum over k of weights[i, k] x[places[i, k]], along one axis."""
    n_out, k = places.shape
    if k == 1 and (weights == 1).all():
        if n_out == x.shape[axis] and (places[:, 0] == np.arange(n_out)).all():
            return x
        return xp.take(x, make(places[:, 0].astype(np.int64)), axis=axis)
    shape = [1] * x.ndim
    shape[axis] = n_out
    y = None
    for j in range(k):
        if not weights[:, j].any():
            continue
        taken = xp.take(x, make(places[:, j].astype(np.int64)), axis=axis)
        term = taken * make(np.ascontiguousarray(weights[:, j], dtype=x.dtype).reshape(shape))
        y = term if y is None else y + term
    return y
