"""Rows of what only moves numbers: shapes, orders, slices, padding, concatenation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr
from chainrule.primitives import movement as p

from .table import Case, Operation, case, normal

X = normal(2, 3, 4)
ROW, COLUMN = normal(3), normal(2, 1)
EMPTY = np.zeros((2, 0, 3))


def each(x: Any, *params: dict[str, Any]) -> tuple[Case, ...]:
    return tuple(Case((x,), p) for p in params)


def same(name: str, call: Any, cases: tuple[Case, ...], primitive: Any = None) -> Operation:
    """A row whose expression is the same in all three libraries."""
    return Operation(name, call, cases, call, call, primitive)


def _lax_pad(x: Any, widths: Any, value: float) -> Any:
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), widths)


def _numpy_pad(x: Any, widths: Any, value: float) -> Any:
    low, high, gap = np.transpose(widths)
    length = np.array(x.shape)
    z = np.full(low + length + np.maximum(length - 1, 0) * gap + high, value, x.dtype)
    for place in np.ndindex(*x.shape):
        z[tuple(low + np.array(place) * (gap + 1))] = x[place]
    return z


def _slice_reference(x: Any, starts: Any, lengths: Any, steps: Any) -> Any:
    for axis, (start, n, step) in enumerate(zip(starts, lengths, steps, strict=True)):
        x = x.take(np.arange(n) * step + start, axis=axis)
    return x


def _split_at(lengths: Any) -> Any:
    return lengths if isinstance(lengths, int) else tuple(np.cumsum(lengths)[:-1])


PRIMITIVES = (
    Operation(
        "primitive_reshape", p.reshape, each(X, {"shape": (4, 6)}, {"shape": (24,)}),
        np.reshape, jnp.reshape, p.reshape,
    ),
    Operation(
        "primitive_permute", p.permute, each(X, {"axes": (2, 0, 1)}, {"axes": (0, 2, 1)}),
        np.transpose, jnp.transpose, p.permute,
    ),
    Operation(
        "primitive_broadcast_to", p.broadcast_to,
        (
            *each(COLUMN, {"shape": (2, 3)}, {"shape": (4, 2, 1)}), *each(ROW, {"shape": (2, 3)}),
            *each(normal(), {"shape": (2, 2)}), *each(COLUMN, {"shape": (0, 2, 5)}),
            *each(normal(1, 1, 3), {"shape": (2, 1, 3)}), *each(EMPTY, {"shape": (4, 2, 0, 3)}),
        ),
        np.broadcast_to, jnp.broadcast_to, p.broadcast_to,
    ),
    Operation(
        "primitive_flip", p.flip, each(X, {"axes": (1,)}, {"axes": (0, 2)}),
        lambda x, axes: np.flip(x, axes), lambda x, axes: jnp.flip(x, axes), p.flip,
    ),
    Operation(
        "primitive_slice", p.slice_,
        each(
            X, {"starts": (0, 1, 0), "lengths": (2, 2, 2), "steps": (1, 1, 3)},
            {"starts": (1, 0, 3), "lengths": (1, 0, 1), "steps": (2, 2, 1)},
            {"starts": (0, 0, 1), "lengths": (1, 2, 2), "steps": (1, 2, 2)},
        ),
        _slice_reference, _slice_reference, p.slice_,
    ),
    Operation(
        "primitive_pad", p.pad,
        each(
            X, {"widths": ((1, 0, 0), (0, 2, 1), (0, 0, 2)), "value": 0.0},
            {"widths": ((0, 0, 0), (1, 1, 0), (0, 0, 0)), "value": -1.5},
        ) + each(EMPTY, {"widths": ((0, 1, 1), (2, 1, 3), (0, 0, 0)), "value": 2.0}),
        _numpy_pad, _lax_pad, p.pad,
    ),
    Operation(
        "primitive_concat", p.concat,
        (Case((X, normal(2, 1, 4), X), {"axis": 1}), Case((X, X[:0]), {"axis": 0})),
        lambda *xs, axis: np.concatenate(xs, axis), lambda *xs, axis: jnp.concatenate(xs, axis),
        p.concat,
    ),
    Operation("copy", lambda x: x.clone(), each(X, {}), np.copy, jnp.copy, p.identity_copy),
    Operation("alias", p.alias, each(X, {}), np.copy, jnp.copy, p.alias),
)  # fmt: skip

SHAPES = (
    Operation(
        "reshape", cr.reshape, each(X, {"shape": (-1, 4)}, {"shape": (2, 3, 4)})
        + each(EMPTY, {"shape": (0, 7)}) + each(normal(), {"shape": (1, 1)}),
        np.reshape, jnp.reshape,
    ),
    Operation(
        "flatten", cr.flatten, each(X, {}, {"start_axis": 1}, {"end_axis": 1}),
        lambda x, start_axis=0, end_axis=-1: x.reshape(
            (*x.shape[:start_axis], -1, *x.shape[end_axis:][1:])
        ),
    ),
    Operation(
        "unflatten", cr.unflatten, each(X, {"axis": 2, "shape": (2, -1)}),
        lambda x, axis, shape: x.reshape((*x.shape[:axis], *shape)),
    ),
    Operation(
        "permute_dims", cr.permute_dims, each(X, {"axes": (1, 2, 0)}), np.transpose, jnp.transpose
    ),
    same("swapaxes", lambda x: x.swapaxes(0, -1), each(X, {})),
    Operation(
        "moveaxis", lambda x: cr.moveaxis(x, (0, 1), (-1, 0)), each(X, {}),
        lambda x: np.moveaxis(x, (0, 1), (-1, 0)), lambda x: jnp.moveaxis(x, (0, 1), (-1, 0)),
    ),
    Operation("matrix_transpose", cr.matrix_transpose, each(X, {}), lambda x: x.swapaxes(-1, -2)),
    Operation(
        "expand_dims", cr.expand_dims, each(X, {"axis": 1}, {"axis": -1}),
        np.expand_dims, jnp.expand_dims,
    ),
    Operation(
        "squeeze", cr.squeeze, each(normal(1, 3, 1), {"axis": 0}, {"axis": (0, 2)}),
        np.squeeze, jnp.squeeze,
    ),
    Operation(
        "broadcast_to", cr.broadcast_to, each(COLUMN, {"shape": (3, 2, 4)}),
        np.broadcast_to, jnp.broadcast_to,
    ),
    Operation(
        "broadcast_arrays", lambda x, y: tuple(cr.broadcast_arrays(x, y)), (Case((ROW, COLUMN)),),
        lambda x, y: tuple(np.broadcast_arrays(x, y)), jnp.broadcast_arrays,
    ),
    Operation(
        "meshgrid", lambda x, y, **how: tuple(cr.meshgrid(x, y, **how)),
        (Case((ROW, normal(2))), Case((ROW, normal(2)), {"indexing": "ij"})),
        lambda x, y, **how: tuple(np.meshgrid(x, y, **how)),
        lambda x, y, **how: tuple(jnp.meshgrid(x, y, **how)),
    ),
)  # fmt: skip

ORDERS = (
    Operation(
        "flip", cr.flip, each(X, {}, {"axis": 1}, {"axis": (0, -1)}), np.flip, jnp.flip
    ),
    Operation(
        "roll", cr.roll,
        each(X, {"shift": 2, "axis": 1}, {"shift": -5}, {"shift": (1, -1), "axis": (0, 2)}),
        np.roll, jnp.roll,
    ),
    Operation(
        "tile", lambda x, by: cr.tile(x, by), each(ROW, {"by": (2, 2)}) + each(X, {"by": (2,)}),
        lambda x, by: np.tile(x, by), lambda x, by: jnp.tile(x, by),
    ),
    Operation(
        "repeat", lambda x, repeats, axis=None: cr.repeat(x, repeats, axis=axis),
        each(X, {"repeats": 2, "axis": 1}, {"repeats": 2})
        + each(ROW, {"repeats": np.array([2, 0, 3])}),
        np.repeat, jnp.repeat,
    ),
    Operation("tril", cr.tril, each(X, {}, {"k": 1}), np.tril, jnp.tril),
    Operation("triu", cr.triu, each(X, {}, {"k": -1}), np.triu, jnp.triu),
    Operation(
        "pad", cr.pad,
        (
            case(X, widths=((1, 2), (0, 0), (3, 0))),
            case(X, widths=((0, 0), (0, 1), (1, 0)), value=2),
        ),
        lambda x, widths, value=0: np.pad(x, widths, constant_values=value),
        lambda x, widths, value=0: jnp.pad(x, widths, constant_values=value),
    ),
    Operation(
        "pad_cutting", cr.pad, each(X, {"widths": ((0, 0), (-1, 1), (1, -2))}),
        lambda x, widths: np.pad(x[:, 1:, :2], ((0, 0), (0, 1), (1, 0))),
    ),
)  # fmt: skip

JOINS = (
    Operation(
        "concat", lambda *xs, axis=0: cr.concat(xs, axis=axis),
        (
            Case((X, normal(2, 2, 4, seed=1)), {"axis": 1}), Case((ROW, X), {"axis": None}),
        ),
        lambda *xs, axis=0: np.concatenate(xs, axis),
        lambda *xs, axis=0: jnp.concatenate(xs, axis),
    ),
    Operation(
        "stack", lambda *xs, axis=0: cr.stack(xs, axis=axis),
        (Case((X, 2 * X)), Case((ROW, ROW + 1, ROW - 1), {"axis": -1})),
        lambda *xs, axis=0: np.stack(xs, axis), lambda *xs, axis=0: jnp.stack(xs, axis),
    ),
    Operation(
        "split", cr.split, each(X, {"sections": 2, "axis": -1}, {"sections": (1, 0, 2), "axis": 1}),
        lambda x, sections, axis: tuple(np.split(x, _split_at(sections), axis)),
        lambda x, sections, axis: tuple(jnp.split(x, _split_at(sections), axis)),
    ),
    Operation(
        "unstack", cr.unstack, each(X, {}, {"axis": 1}),
        lambda x, axis=0: tuple(np.moveaxis(x, axis, 0)),
        lambda x, axis=0: tuple(jnp.moveaxis(x, axis, 0)),
    ),
)  # fmt: skip

KEYS = {
    "integer": 1, "negative": (-1, -2),
    "slices": (slice(None), slice(1, None), slice(None, None, 3)),
    "backwards": (slice(None, None, -1), slice(2, 0, -1)), "new_axis": (None, 0, ..., None),
    "whole": (slice(None),), "nothing": (slice(1, 1),), "back_step": (..., slice(None, None, -2)),
}  # fmt: skip
BASIC_KEYS = tuple(
    same(f"getitem_{name}", lambda x, key: x[key], each(X, {"key": key}))
    for name, key in KEYS.items()
)

ROWS = (*PRIMITIVES, *SHAPES, *ORDERS, *JOINS, *BASIC_KEYS)
