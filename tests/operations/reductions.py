"""Rows of reductions, running sums, order and search."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

import chainrule as cr
from chainrule.primitives import reduction, sorting

from .table import Array, Case, Operation, case, distinct, normal

AXES = ({}, {"axis": 0}, {"axis": -1, "keepdims": True}, {"axis": (0, 2)})


def over_axes(x: Array, *more: Case) -> tuple[Case, ...]:
    """All of x, some axes of it, no axis, an axis of length 1; a number; nothing along an axis."""
    return (
        *(Case((x,), params) for params in AXES),
        Case((x,), {"axis": ()}),
        Case((x[:, :1],), {"axis": 1}),
        Case((x[0, 0, 0],)),
        Case((x[:0],), {"axis": 1}),
        *more,
    )


def of_nothing(x: Array) -> tuple[Case, ...]:
    """Reductions with an identity take no elements too."""
    return (Case((x[:0],), {"axis": 0}), Case((x[:0],)))


X = normal(2, 3, 2)
TIMES = distinct(2, 3, 2)
WITH_ZEROS = np.where(np.arange(12).reshape(2, 3, 2) % 5 == 2, 0.0, X)
TWO_ZEROS = np.array([[0.5, 0.0, -1.5, 0.0], [2.0, 1.0, 0.0, -0.75]])
INTEGERS = np.arange(12).reshape(2, 3, 2) - 4
COUNTS = Case((INTEGERS,), {"axis": 1})
SMALL = Case((INTEGERS.astype(np.int8),), {"axis": 1})


def reduction_row(name: str, cases: tuple[Case, ...], numpy: Any, jax: Any, **options: Any) -> Any:
    primitive = getattr(reduction, name, None)
    if name in ("all", "any"):
        primitive = getattr(reduction, name + "_")
    return Operation(
        name, getattr(cr, name), cases, numpy, jax, primitive, jax_cases=len(AXES), **options
    )


def _numpy_sum(x: Array, **params: Any) -> Array:
    return np.sum(x, dtype=np.int64 if x.dtype.kind == "i" else x.dtype, **params)


def _numpy_var(x: Array, correction: float = 0, **params: Any) -> Array:
    return np.var(x, ddof=correction, **params)


def _numpy_std(x: Array, correction: float = 0, **params: Any) -> Array:
    return np.std(x, ddof=correction, **params)


def _numpy_cumulative(function: Any) -> Any:
    def reference(x: Array, axis: int | None = None, include_initial: bool = False) -> Array:
        z = function(x, axis=0 if axis is None else axis)
        if include_initial:
            first = np.full_like(np.take(z, [0], axis=axis), 0 if function is np.cumsum else 1)
            z = np.concatenate([first, z], axis=axis)
        return z

    return reference


def _cumulative_jax(name: str) -> Any:
    function = getattr(jnp, name)
    return lambda x, axis=None, **options: function(x, axis=0 if axis is None else axis, **options)


def running(x: Array) -> tuple[Case, ...]:
    return (
        Case((x,), {"axis": 1}),
        Case((x,), {"axis": -1, "include_initial": True}),
        Case((x[0, :, 0],)),
        Case((x[:, :0],), {"axis": 1}),
        Case((INTEGERS,), {"axis": 0}),
    )


def _numpy_sort(x: Array, axis: int = -1, descending: bool = False) -> Array:
    z = np.sort(x, axis=axis)
    return np.flip(z, axis) if descending else z


def _numpy_argsort(x: Array, axis: int = -1, descending: bool = False) -> Array:
    # A stable sort downwards is a stable sort of what is negated.
    return np.argsort(-x if descending else x, axis=axis, kind="stable")


ORDERS = tuple(
    Case((TIMES,), params) for params in ({}, {"axis": 0}, {"axis": 1, "descending": True})
)
TIES = np.array([[1.0, 0.0, 1.0, 0.0, 1.0], [2.0, 2.0, -1.0, -1.0, 2.0]])
NAMED = tuple(Case((TIMES,), params) for params in ({}, {"axis": 1}, {"axis": 0, "keepdims": True}))

ROWS = (
    reduction_row("sum", over_axes(X, *of_nothing(X), COUNTS, SMALL), _numpy_sum, jnp.sum),
    reduction_row("max", over_axes(TIMES, COUNTS), np.max, jnp.max),
    reduction_row("min", over_axes(TIMES, COUNTS), np.min, jnp.min),
    reduction_row(
        "all", (*over_axes(WITH_ZEROS, *of_nothing(X)), COUNTS), np.all, None, derivative=False
    ),
    reduction_row(
        "any", (*over_axes(WITH_ZEROS, *of_nothing(X)), COUNTS), np.any, None, derivative=False
    ),
    reduction_row("argmax", (*NAMED, case(TIES, axis=1)), np.argmax, None, derivative=False),
    reduction_row("argmin", (*NAMED, case(TIES, axis=1)), np.argmin, None, derivative=False),
    reduction_row("mean", over_axes(X), np.mean, jnp.mean),
    reduction_row(
        "var", over_axes(X, Case((X,), {"axis": 1, "correction": 1})), _numpy_var,
        lambda x, correction=0, **params: jnp.var(x, ddof=correction, **params),
    ),
    reduction_row(
        "std",
        # Not of single elements: their standard deviation is at the corner of the square root.
        (*(Case((X,), p) for p in AXES), Case((X,), {"axis": 1, "correction": 1.5})), _numpy_std,
        lambda x, correction=0, **params: jnp.std(x, ddof=correction, **params),
    ),
    reduction_row(
        "prod",
        over_axes(
            X, *of_nothing(X), Case((WITH_ZEROS,), {"axis": 1}), Case((TWO_ZEROS,), {"axis": 1}),
            Case((TWO_ZEROS[:, :1],), {"axis": 0}), COUNTS,
        ),
        np.prod, jnp.prod,
    ),
    reduction_row(
        "logsumexp", over_axes(X, Case((X * 300,), {"axis": 1})),
        scipy.special.logsumexp, jax.scipy.special.logsumexp,
    ),
    reduction_row(
        "count_nonzero", (*over_axes(WITH_ZEROS, *of_nothing(X)), COUNTS),
        np.count_nonzero, None, derivative=False,
    ),
    reduction_row(
        "cumulative_sum", running(X), _numpy_cumulative(np.cumsum),
        _cumulative_jax("cumulative_sum"),
    ),
    reduction_row(
        "cumulative_prod",
        (*running(X), Case((TWO_ZEROS,), {"axis": 1}), Case((WITH_ZEROS,), {"axis": 1})),
        _numpy_cumulative(np.cumprod), _cumulative_jax("cumulative_prod"),
    ),
    Operation(
        "diff", cr.diff,
        (Case((X,), {"axis": 1}), Case((X,), {"axis": 0, "n": 1}), Case((TWO_ZEROS,), {"n": 2})),
        np.diff, jnp.diff,
    ),
    Operation(
        "sort", cr.sort, (*ORDERS, Case((TIMES[:0],))), _numpy_sort,
        lambda x, axis=-1, descending=False: jnp.sort(x, axis=axis, descending=descending),
    ),
    Operation(
        "argsort", cr.argsort,
        (*ORDERS, case(TIES), case(TIES, descending=True), case(INTEGERS, axis=1)),
        _numpy_argsort, None, sorting.argsort, derivative=False,
    ),
    Operation(
        "searchsorted", cr.searchsorted,
        (
            case(np.array([-1.0, 0.0, 0.0, 2.0]), np.array([[0.0, 5.0], [-3.0, 1.0]])),
            case(np.array([-1.0, 0.0, 0.0, 2.0]), np.array([0.0, 2.0]), side="right"),
            case(np.array([1, 4, 9]), np.array(4)),
        ),
        np.searchsorted, None, sorting.searchsorted, derivative=False,
    ),
)  # fmt: skip
