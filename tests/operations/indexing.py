"""Rows of gather, scatter, indexing by tensors and assignment."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

import chainrule as cr
from chainrule.primitives import indexing as p

from .table import Array, Case, Operation, case, normal

X = normal(4, 3)
CUBE = normal(2, 3, 4)
TWICE = np.array([1, 3, 1, 0, 1])
PLACES = np.array([[0, 2, 1], [3, 3, 0]])
EMPTY = np.zeros(0, np.int64)


def _numpy_scatter_add(updates: Array, index: Array, length: int) -> Array:
    z = np.zeros((length, *updates.shape[index.ndim :]), updates.dtype)
    np.add.at(z, index, updates)
    return z


def _jax_scatter_add(updates: Any, index: Any, length: int) -> Any:
    z = jnp.zeros((length, *updates.shape[index.ndim :]), updates.dtype)
    return z.at[index].add(updates)


def _numpy_scatter_set(x: Array, updates: Array, index: Array) -> Array:
    z = x.copy()
    for place in np.ndindex(*index.shape):
        z[index[place]] = updates[place]
    return z


def _numpy_take_along(x: Array, indices: Array, axis: int) -> Array:
    return np.take_along_axis(x, indices, axis)


def _numpy_add_along(x: Array, indices: Array, updates: Array, axis: int) -> Array:
    z = x.copy()
    for place in np.ndindex(*indices.shape):
        target = list(place)
        target[axis] = indices[place]
        z[tuple(target)] += updates[place]
    return z


def _jax_add_along(x: Any, indices: Any, updates: Any, axis: int) -> Any:
    grids = list(jnp.meshgrid(*map(jnp.arange, indices.shape), indexing="ij"))
    grids[axis] = indices
    return x.at[tuple(grids)].add(updates)


def _assigned(x: Any, value: Any, key: Any) -> Any:
    z = x.clone() if isinstance(x, cr.Tensor) else x.copy()
    z[key] = value
    return z


def _jax_assigned(x: Any, value: Any, key: Any) -> Any:
    return x.at[key].set(value)


def _slices(lengths: Any, starts: Any, steps: Any) -> tuple[slice, ...]:
    return tuple(slice(a, a + n * s, s) for a, n, s in zip(starts, lengths, steps, strict=True))


PRIMITIVES = (
    Operation(
        "ravel_index", p.ravel_index,
        (
            case(np.array([1, 0, -1]), np.array([2, -3, 0]), dims=(2, 3)),
            case(np.array([[1, -4]]), dims=(4,)), case(EMPTY, EMPTY, dims=(2, 3)),
        ),
        lambda *indices, dims: np.ravel_multi_index(
            [i % n for i, n in zip(indices, dims, strict=True)], dims
        ).astype(np.int64) if indices[0].size else EMPTY,
        None, p.ravel_index, derivative=False,
    ),
    Operation(
        "gather", p.gather,
        (
            case(X, TWICE), case(X, PLACES), case(X, np.array(2)), case(X, EMPTY),
            case(normal(4), PLACES), case(normal(70, 40), np.array([5, 5, 69])),
        ),
        lambda x, index: x[index], lambda x, index: x[index], p.gather,
    ),
    Operation(
        "primitive_scatter_add", p.scatter_add,
        (
            case(normal(5, 3), TWICE, length=4), case(normal(2, 3), PLACES, length=5),
            case(normal(3), np.array(1), length=2), case(np.zeros((0, 3)), EMPTY, length=2),
            case(normal(5, 40), TWICE, length=4), case(np.arange(5), TWICE, length=4),
        ),
        _numpy_scatter_add, _jax_scatter_add, p.scatter_add,
    ),
    Operation(
        "primitive_scatter_set", p.scatter_set,
        (
            case(X, normal(5, 3, seed=1), TWICE), case(X, normal(2, 3, 3), PLACES),
            case(normal(4), normal(2, 3), PLACES), case(X, np.zeros((0, 3)), EMPTY),
            case(np.arange(4), np.arange(5) + 10, TWICE),
        ),
        _numpy_scatter_set, None, p.scatter_set,
    ),
)  # fmt: skip

KEYS: dict[str, Any] = {
    "duplicates": (TWICE % 2,),
    "two_tensors": (np.array([[0], [1]]), np.array([0, 2, 2])),
    "apart": (np.array([0, 1, 1]), slice(None), np.array([3, 0, 0])),
    "in_the_middle": (slice(None), np.array([[2, 0], [0, 1]])),
    "with_slices": (slice(None, None, -1), np.array([2, 0, 2]), slice(1, 3)),
    "mask": (CUBE > 0,),
    "mask_of_rows": (slice(None), np.array([True, False, True])),
    "no_axes_mask": (np.array(True), 0),
    "integer_and_tensor": (1, np.array([0, 0, 2])),
    "list": ([1, 0, 1],),
    "empty": (EMPTY,),
    "tensor_new_axis": (np.array([1, 0]), None, 2),
}
READS = tuple(
    Operation(
        f"getitem_{name}", lambda x, key: x[key], (Case((CUBE,), {"key": key}),),
        lambda x, key: x[key],
        None if name in ("list", "no_axes_mask") else lambda x, key: x[key],
    )
    for name, key in KEYS.items()
)  # fmt: skip

ASSIGNMENTS = tuple(
    Operation(f"setitem_{name}", _assigned, cases, _assigned, jax)
    for name, cases, jax in (
        (
            "basic",
            (
                case(CUBE, normal(3, 4, seed=2), key=0),
                case(CUBE, normal(2, 1), key=(..., slice(None, None, 2), slice(0, None, -2))),
                case(CUBE, normal(2, 2), key=(..., slice(None, None, 2), slice(None, None, -2))),
                case(CUBE, np.float64(2.5), key=(slice(None), 1)),
                case(CUBE, normal(1, 1, 2), key=(0, slice(1, 2), slice(0, 2))),
                case(CUBE, normal(2, 0), key=(slice(0, 2), 0, slice(3, 3))),
            ),
            None,
        ),
        ("simple", (case(CUBE, normal(3, 4, seed=2), key=0),), _jax_assigned),
        (
            "duplicates",
            (
                case(X, normal(5, 3, seed=1), key=TWICE),
                case(X, normal(2, 3, seed=1), key=(PLACES, np.array([0, 1, 0]))),
                case(X, np.float64(-1.0), key=(TWICE,)),
            ),
            None,
        ),
        (
            "mask",
            (case(X, np.float64(0.5), key=(X > 0,)), case(X, normal(3), key=X[:, 0] > 0)),
            None,
        ),
    )
)

COMPOSED = (
    Operation(
        "take", cr.take,
        (
            case(CUBE, TWICE % 3, axis=1), case(CUBE, PLACES, axis=-1), case(normal(4), TWICE),
            case(CUBE, np.array([-1, 0]), axis=0), case(CUBE, EMPTY, axis=0),
        ),
        np.take, jnp.take,
    ),
    Operation(
        "take_along_axis", cr.take_along_axis,
        (
            case(X, np.array([[1, 1, 0], [3, 0, 3]]), axis=0),
            case(X, np.array([[2, 2], [0, 1], [1, 1], [0, 0]]), axis=1),
            case(X, np.array([[2, 0]]), axis=1),
        ),
        _numpy_take_along, jnp.take_along_axis,
    ),
    Operation(
        "scatter_add", cr.scatter_add,
        (
            case(X, np.array([[1, 1, 0], [1, 3, 0]]), normal(2, 3), axis=0),
            case(X, np.array([[2, 2], [0, 1], [1, 1], [0, 0]]), normal(4, 2), axis=1),
        ),
        _numpy_add_along, _jax_add_along,
    ),
)  # fmt: skip

SLICE_SET = Operation(
    "slice_set", p.slice_set,
    (
        case(CUBE, normal(2, 1, 2, seed=1), starts=(0, 1, 1), steps=(1, 2, 2)),
        case(X, normal(0, 2), starts=(0, 0), steps=(1, 1)),
        case(X, X + 1, starts=(0, 0), steps=(1, 1)),
    ),
    lambda x, u, starts, steps: _assigned(x, u, _slices(u.shape, starts, steps)),
    lambda x, u, starts, steps: _jax_assigned(x, u, _slices(u.shape, starts, steps)),
    p.slice_set,
)  # fmt: skip

ROWS = (*PRIMITIVES, SLICE_SET, *READS, *ASSIGNMENTS, *COMPOSED)
