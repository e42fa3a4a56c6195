"""Reading an image at any points, and the points that an affine map asks for.

Together they make a spatial transformer: Jaderberg et al., "Spatial transformer networks", 2015.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule.array._core import to_dtype
from chainrule.dtypes import int64
from chainrule.errors import ArgumentError, ShapeError, unknown_name
from chainrule.nn.functional._common import as_input, check_float, same_dtype
from chainrule.primitives.indexing import gather

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["affine_grid", "grid_sample"]

MODES, PADDING_MODES = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")


def grid_sample(
    input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """The input at the points of a grid, between its elements.

    Arguments:
        input: of shape (batch, channels, height, width) or (batch, channels, depth, height, width).
        grid: of shape (batch, *out, 2) or (batch, *out, 3): the points, as (x, y) or (x, y, z)
            with x along the width; -1 and 1 are the edges of the input.
        mode: "bilinear" (in volumes trilinear), "nearest", or "bicubic" (images; Keys, a = -0.75).
        padding_mode: what is beyond the edges: "zeros", the nearest element ("border"), or the
            input mirrored ("reflection").
        align_corners: -1 and 1 are the centres of the outermost elements, not their outer edges.
            Default: False.

    Returns:
        of shape (batch, channels, *out).
    """
    x, points = as_input(input), as_input(grid)
    n = x.ndim - 2
    check_float("grid_sample", x)
    same_dtype("grid_sample", points, x)
    if n not in (2, 3) or points.ndim != x.ndim or points.shape[-1] != n:
        raise ShapeError(
            f"grid_sample got an input of shape {x.shape} and a grid of shape {points.shape}; it "
            "expects (N, C, H, W) with (N, H', W', 2), or (N, C, D, H, W) with (N, D', H', W', 3)."
        )
    if points.shape[0] != x.shape[0] or 0 in x.shape[2:]:
        raise ShapeError(
            f"grid_sample got an input of shape {x.shape} and a grid of shape {points.shape}: the "
            "batches must be equal, and the input not empty."
        )
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    if padding_mode not in PADDING_MODES:
        raise unknown_name("padding_mode", padding_mode, PADDING_MODES)
    if mode == "bicubic" and n != 2:
        raise ArgumentError("grid_sample is bicubic for images (N, C, H, W) alone.")
    axes = []
    for axis, size in enumerate(x.shape[2:]):
        place = _Axis(size, padding_mode, bool(align_corners))
        axes.append(place.taps(place.position(points[..., n - 1 - axis]), mode))
    return _weighted(x, axes)


class _Axis:
    """One axis of the input: where a coordinate stands, and which elements it reads."""

    def __init__(self, size: int, padding_mode: str, align_corners: bool):
        self.size, self.padding_mode, self.align_corners = size, padding_mode, align_corners

    def position(self, coordinate: Any) -> Any:
        """-1 to 1 as a position among the elements, whose centres are 0, 1, ..., size - 1."""
        if self.align_corners:
            return (coordinate + 1) * ((self.size - 1) / 2)
        return ((coordinate + 1) * self.size - 1) * 0.5

    def inside(self, at: Any) -> Any:
        """A position beyond the edges brought back in, as the padding mode says."""
        if self.padding_mode == "reflection":
            at = self._reflected(at)
        return at if self.padding_mode == "zeros" else xp.clip(at, 0, self.size - 1)

    def _reflected(self, at: Any) -> Any:
        """Mirrored at the outermost centres, or at the outer edges, as often as it takes."""
        low, span = (0.0, self.size - 1) if self.align_corners else (-0.5, self.size)
        if span == 0:
            return at * 0
        distance = xp.abs(at - low)
        times = xp.floor(distance.detach() / span)
        rest = distance - times * span
        return xp.where(xp.remainder(times, 2) == 0, rest, span - rest) + low

    def taps(self, at: Any, mode: str) -> list[tuple[Any, Any]]:
        """(element, weight) pairs; elements are whole numbers, and may lie outside."""
        if mode == "nearest":
            nearest = xp.round(self.inside(at).detach())
            return [(nearest, xp.ones_like(nearest))]
        if mode == "bilinear":
            at = self.inside(at)
            low = xp.floor(at.detach())
            t = at - low
            return [(low, 1 - t), (low + 1, t)]
        low = xp.floor(at.detach())
        t = at - low
        weights = (_far(t + 1), _near(t), _near(1 - t), _far(2 - t))
        return [(self.inside(low + (i - 1)), w) for i, w in enumerate(weights)]


def _near(t: Any) -> Any:
    """Keys' cubic kernel with a = -0.75 up to distance 1."""
    return ((1.25 * t - 2.25) * t) * t + 1


def _far(t: Any) -> Any:
    """Keys' cubic kernel with a = -0.75 from distance 1 to 2."""
    return ((-0.75 * t + 3.75) * t - 6) * t + 3


def _weighted(x: Any, axes: list[list[tuple[Any, Any]]]) -> Any:
    """The sum over all combinations of taps of what stands there, times the weights."""
    n, channels, *spatial = x.shape
    # One row for each element, with its channels side by side: a gather copies whole rows.
    rows = xp.reshape(xp.moveaxis(x, 1, -1), (x.size // channels if channels else 0, channels))
    area = rows.shape[0] // n if n else 0
    out = axes[0][0][0].shape[1:]
    first = xp.reshape(xp.arange(n, dtype=int64) * area, (n, *(1,) * len(out)))
    total: Any = None
    for taps in product(*axes):
        place: Any = 0
        weight: Any = None
        for (element, w), size in zip(taps, spatial, strict=True):
            there = (element >= 0) & (element <= size - 1)
            w = xp.where(there, w, 0)
            weight = w if weight is None else weight * w
            place = place * size + to_dtype(xp.where(there, element, 0), int64)
        read = gather(rows, xp.broadcast_to(place + first, (n, *out)))
        term = read * xp.expand_dims(weight, axis=-1)
        total = term if total is None else total + term
    return xp.moveaxis(total, -1, 1)


def affine_grid(theta: Any, size: Any, align_corners: bool | None = None) -> Tensor:
    """The points theta @ (x, y, 1) for all elements (x, y) of an output, for `grid_sample`.

    Arguments:
        theta: of shape (batch, 2, 3) for images or (batch, 3, 4) for volumes.
        size: the output's shape: (batch, channels, height, width), or with depth before height.
        align_corners: as in `grid_sample`.

    Returns:
        of shape (batch, height, width, 2) or (batch, depth, height, width, 3).
    """
    maps = as_input(theta)
    check_float("affine_grid", maps)
    shape = tuple(int(m) for m in size)
    n = len(shape) - 2
    if n not in (2, 3) or maps.shape != (shape[0], n, n + 1) or min(shape) < 1:
        raise ShapeError(
            f"affine_grid got theta of shape {maps.shape} for an output of shape {shape}; it "
            "expects (N, 2, 3) for (N, C, H, W), or (N, 3, 4) for (N, C, D, H, W)."
        )
    lines = []
    for m in shape[2:]:
        edge = 1.0 if align_corners else (m - 1) / m
        line = xp.linspace(-edge, edge, m, dtype=maps.dtype) if m > 1 else xp.zeros((1,))
        lines.append(xp.astype(line, maps.dtype))
    mesh = xp.meshgrid(*lines, indexing="ij")
    # The last axis of the output is x, the first coordinate.
    columns = [*(xp.reshape(c, (-1,)) for c in reversed(mesh))]
    columns.append(xp.ones_like(columns[0]))
    points = xp.stack(columns, axis=-1)  # (elements, n + 1)
    grid = xp.matmul(points, xp.matrix_transpose(maps))
    return xp.reshape(grid, (shape[0], *shape[2:], n))
