"""What the functions of this room share: arguments made plain, inputs checked."""

from __future__ import annotations

import operator
from typing import Any

from chainrule.array._core import as_tensor
from chainrule.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from chainrule.graph import Value
from chainrule.primitives import elementwise, movement

Ints = tuple[int, ...]


def as_input(x: Any) -> Any:
    """x as a tensor, if it is not one."""
    return x if isinstance(x, Value) else as_tensor(x)


def ints(value: Any, n: int, name: str, least: int | None = None) -> Ints:
    """An argument given once, or once for each of `n` axes, as a tuple of `n` integers."""
    try:
        if isinstance(value, tuple | list):
            values = tuple(map(operator.index, value))
        else:
            values = (operator.index(value),) * n
    except TypeError:
        raise ArgumentTypeError(
            f"{name} is an integer or a tuple of {n} integers, got {value!r}."
        ) from None
    if len(values) == 1:
        values *= n
    if len(values) != n:
        raise ArgumentError(f"{name} needs 1 or {n} integers, got {value!r}.")
    if least is not None and any(v < least for v in values):
        raise ArgumentError(f"{name} must be at least {least} everywhere, got {value!r}.")
    return values


def same_dtype(name: str, x: Any, weight: Any) -> None:
    """Refuse an input whose dtype is not the weight's: a silent cast would hide what it costs."""
    if x.dtype != weight.dtype:
        raise DTypeError(
            f"{name} got an input of {x.dtype.name} and a weight of {weight.dtype.name}; cast the "
            f"input, x.astype(cr.{weight.dtype.name})"
            + (", or the model, model.double()." if x.dtype.name == "float64" else ".")
        )


def check_float(name: str, x: Any) -> None:
    """Refuse integers and complex numbers."""
    if x.dtype.kind != "f":
        raise DTypeError(
            f"{name} is defined for floats, but got {x.dtype.name}; cast with .astype(cr.float32)."
        )


def batched(name: str, x: Any, n: int) -> tuple[Any, bool]:
    """x as (batch, channels, n spatial axes), and whether the batch axis had to be put there."""
    if x.ndim == n + 2:
        return x, False
    if x.ndim == n + 1:
        return movement.reshape(x, shape=(1, *x.shape)), True
    axes = ("length", "height, width", "depth, height, width")[n - 1]
    raise ShapeError(
        f"{name} got an input of shape {x.shape}; it expects (batch, channels, {axes}), or the "
        f"same without batch.{' Add a channel axis: x[:, None].' if x.ndim == n else ''}"
    )


def unbatched(x: Any, was_added: bool) -> Any:
    """Take the batch axis off again if `batched` put it there."""
    return movement.reshape(x, shape=x.shape[1:]) if was_added else x


def per_channel(v: Any, x: Any) -> Any:
    """A vector with one value for each channel, broadcast to x of (batch, channels, ...)."""
    shape = (1, v.shape[0]) + (1,) * (x.ndim - 2)
    return movement.broadcast_to(movement.reshape(v, shape=shape), shape=x.shape)


def add_bias(y: Any, bias: Any) -> Any:
    """y (batch, channels, ...) with a value added to each channel."""
    return elementwise.add(y, per_channel(bias, y))
