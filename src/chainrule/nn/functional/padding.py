"""Padding: more room around the input, filled from a number or from the input itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule.array._core import as_tensor
from chainrule.errors import ArgumentError, ShapeError, unknown_name

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["channel_shuffle", "pad"]

MODES = ("constant", "reflect", "replicate", "circular")


def pad(
    input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """The input with `pad[0]` elements before and `pad[1]` after it on the last axis, and so on.

    Arguments:
        input: any shape; one pair of widths for each of its last axes that is padded.
        pad: (before, after) of the last axis, then of the one before it, ... A negative width cuts
            elements off.
        mode: "constant" fills with `value`; "reflect" mirrors about the edge element
            (dcb|abcd|cba); "replicate" repeats the edge element (aaa|abcd|ddd); "circular" goes on
            at the other end (bcd|abcd|abc).
        value: of "constant"; default 0.

    Raises:
        ShapeError: for more pairs than axes, a reflection as long as the axis or longer, or a
            circular padding longer than the axis.
    """
    x = as_tensor(input)
    widths = tuple(int(n) for n in pad)
    if len(widths) % 2 or len(widths) > 2 * x.ndim:
        raise ShapeError(
            f"pad takes a pair (before, after) for each of the last axes, at most {x.ndim} pairs "
            f"for shape {x.shape}, got {tuple(pad)}."
        )
    if mode not in MODES:
        raise unknown_name("padding mode", mode, MODES)
    # pairs[i] belongs to axis i of the input.
    pairs = [(0, 0)] * (x.ndim - len(widths) // 2)
    pairs += list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    if mode == "constant":
        return xp.pad(x, pairs, value=0 if value is None else value)
    if value is not None:
        raise ArgumentError(f"padding mode {mode!r} takes no value, got {value}.")
    for axis, (low, high) in enumerate(pairs):
        if low or high:
            x = _padded(x, axis, low, high, mode)
    return x


def _padded(x: Any, axis: int, low: int, high: int, mode: str) -> Any:
    """One axis padded from the input itself; negative widths cut."""
    cut = [(0, 0)] * x.ndim
    cut[axis] = (min(low, 0), min(high, 0))
    low, high = max(low, 0), max(high, 0)
    if mode == "circular":
        x = xp.pad(x, cut)  # what is cut off is not gone on with
    n = x.shape[axis]
    longest = {"reflect": n - 1, "replicate": 0 if n == 0 else max(low, high), "circular": n}[mode]
    if max(low, high) > longest:
        raise ShapeError(
            f"{mode} padding by ({low}, {high}) needs widths of at most {max(longest, 0)} on axis "
            f"{axis} of shape {x.shape}, whose length is {n}."
        )
    before, after = _SIDES[mode](x, axis, n, low, high)
    x = xp.concat([side for side in (before, x, after) if side is not None], axis=axis)
    return x if mode == "circular" else xp.pad(x, cut)


def _part(x: Any, axis: int, start: int, stop: int) -> Any:
    """x[start:stop] along an axis; None if that is nothing."""
    return None if start == stop else x[(slice(None),) * axis + (slice(start, stop),)]


def _reflected(x: Any, axis: int, n: int, low: int, high: int) -> tuple[Any, Any]:
    sides = _part(x, axis, 1, 1 + low), _part(x, axis, n - 1 - high, n - 1)
    before, after = (None if side is None else xp.flip(side, axis=axis) for side in sides)
    return before, after


def _replicated(x: Any, axis: int, n: int, low: int, high: int) -> tuple[Any, Any]:
    def repeated(side: Any, width: int) -> Any:
        shape = tuple(width if i == axis else m for i, m in enumerate(x.shape))
        return xp.broadcast_to(side, shape) if width else None

    return repeated(_part(x, axis, 0, 1), low), repeated(_part(x, axis, n - 1, n), high)


def _wrapped(x: Any, axis: int, n: int, low: int, high: int) -> tuple[Any, Any]:
    return _part(x, axis, n - low, n), _part(x, axis, 0, high)


_SIDES = {"reflect": _reflected, "replicate": _replicated, "circular": _wrapped}


def channel_shuffle(input: Any, groups: int) -> Tensor:
    """Channels dealt out in turn from `groups` equal groups: (g, C/g) becomes (C/g, g).

    Shapes: (N, C, ...) to the same. Zhang et al., ShuffleNet (2018).
    """
    x = as_tensor(input)
    if x.ndim < 3:
        raise ShapeError(
            f"channel_shuffle takes inputs (N, C, ...) of 3 axes or more, got {x.shape}."
        )
    channels = x.shape[1]
    if groups < 1 or channels % groups:
        raise ArgumentError(
            f"channel_shuffle cannot divide {channels} channels by {groups} groups."
        )
    dealt = xp.swapaxes(xp.unflatten(x, 1, (groups, channels // groups)), 1, 2)
    return xp.reshape(dealt, x.shape)
