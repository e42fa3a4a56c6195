"""Rows of products of matrices and tensors."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

import chainrule as cr
from chainrule.primitives import linalg

from .table import Case, Operation, case, normal

A, B = normal(2, 3), normal(3, 4)
STACK, OTHER = normal(2, 3, 2), normal(2, 2, 3)
VECTOR = normal(3)
TOLERANCE: dict[str, Any] = {"rtol": (2e-6, 4e-15), "jax_rtol": (4e-6, 1e-14)}

EINSUMS = {
    "matmul": ("ij,jk->ik", A, B),
    "batched": ("bij,bjk->bik", STACK, OTHER),
    "trace": ("ii->", normal(3, 3)),
    "diagonal": ("bii->bi", normal(2, 3, 3)),
    "transpose": ("ijk->kij", STACK),
    "outer": ("i,j->ij", VECTOR, normal(2)),
    "bilinear": ("bi,oij,bj->bo", A, normal(2, 3, 4), normal(2, 4)),
    "ellipsis": ("...ij,...jk->...ik", STACK, normal(2, 2)),
    "implicit": ("ij,kj", A, normal(2, 3, seed=1)),
    "sum": ("ij->j", A),
    "attention": ("bqhd,bkhd->bhqk", normal(2, 2, 2, 2), normal(2, 3, 2, 2)),
}

ROWS = (
    Operation(
        "primitive_matmul", linalg.matmul,
        (
            case(A, B), case(STACK, OTHER), case(normal(0, 3), B), case(normal(2, 0), normal(0, 3)),
            case(np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)),
            case(normal(1, 1), normal(1, 1)),
        ),
        np.matmul, jnp.matmul, linalg.matmul, **TOLERANCE,
    ),
    Operation(
        "matmul", cr.matmul,
        (
            case(A, B), case(VECTOR, VECTOR), case(VECTOR, B), case(A, VECTOR), case(STACK, A),
            case(normal(2, 1, 2, 3), normal(3, 3, 2)), case(normal(3, 2), OTHER),
            case(STACK, normal(2)),
        ),
        np.matmul, jnp.matmul, **TOLERANCE,
    ),
    Operation(
        "vecdot", cr.vecdot,
        (case(A, VECTOR), case(STACK, OTHER.swapaxes(1, 2)), case(A.T, A.T, axis=-2)),
        np.vecdot, jnp.vecdot, **TOLERANCE,
    ),
    Operation(
        "tensordot", cr.tensordot,
        (
            case(STACK, OTHER, axes=1), case(STACK, OTHER, axes=0),
            case(A, normal(2, 3, 2), axes=2), case(STACK, OTHER, axes=((0, 2), (1, 0))),
        ),
        np.tensordot, jnp.tensordot, **TOLERANCE,
    ),
    Operation("outer", cr.outer, (case(VECTOR, normal(2)),), np.outer, jnp.outer),
    Operation(
        "trace", cr.trace, (case(normal(3, 4)), case(normal(3, 4), offset=-1)),
        np.trace, jnp.trace, **TOLERANCE,
    ),
    Operation(
        "diagonal", cr.diagonal,
        (
            case(normal(3, 4)), case(normal(3, 4), offset=2), case(normal(3, 4), offset=-1),
            case(normal(2, 3, 2), axis1=0, axis2=2), case(normal(2, 2), offset=5),
        ),
        lambda x, offset=0, axis1=-2, axis2=-1: np.diagonal(x, offset, axis1, axis2),
        lambda x, offset=0, axis1=-2, axis2=-1: jnp.diagonal(x, offset, axis1, axis2),
    ),
    *(
        Operation(
            f"einsum_{name}", lambda *xs, by: cr.einsum(by, *xs), (Case(tuple(xs), {"by": by}),),
            lambda *xs, by: np.einsum(by, *xs), lambda *xs, by: jnp.einsum(by, *xs), **TOLERANCE,
        )
        for name, (by, *xs) in EINSUMS.items()
    ),
)  # fmt: skip
