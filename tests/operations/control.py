"""Rows of loops and choices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr
from chainrule.primitives import checks, control, movement

from .table import Case, Operation, case, normal

W, H, X = normal(3, 3) / 2, normal(2, 3, seed=1), normal(4, 2, 3)
TOLERANCE: dict[str, Any] = {"rtol": (4e-6, 1e-14), "jax_rtol": (1e-5, 1e-13)}


def recurrent(w: Any, h: Any, xs: Any, **how: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = cr.tanh(h @ w + x)
        return h, h * x

    return cr.scan(step, h, xs, **how)


def recurrent_numpy(w: Any, h: Any, xs: Any, reverse: bool = False, **how: Any) -> Any:
    ys = np.empty_like(xs)
    for t in range(len(xs))[:: -1 if reverse else 1]:
        h = np.tanh(h @ w + xs[t])
        ys[t] = h * xs[t]
    return h, ys


def recurrent_jax(w: Any, h: Any, xs: Any, reverse: bool = False, **how: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(h @ w + x)
        return h, h * x

    return jax.lax.scan(step, h, xs, reverse=reverse)


def looked_up(table: Any, c: Any, index: Any) -> Any:
    """An integer sequence, a gather in the loop, and a carry that counts."""

    def step(carry: Any, i: Any) -> Any:
        c, n = carry
        return (c * cr.take(table, i, axis=0), n + 1), cr.sum(c) * cr.astype(n, c.dtype)

    (c, _), ys = cr.scan(step, (c, 0), index)
    return c, ys


def looked_up_numpy(table: Any, c: Any, index: Any) -> Any:
    ys = np.empty(len(index), c.dtype)
    for t, i in enumerate(index):
        ys[t] = c.sum() * t
        c = c * table[i]
    return c, ys


def looked_up_jax(table: Any, c: Any, index: Any) -> Any:
    def step(carry: Any, i: Any) -> Any:
        c, n = carry
        return (c * table[i], n + 1), c.sum() * n

    (c, _), ys = jax.lax.scan(step, (c, 0), index)
    return c, ys


def chosen(p: Any, x: Any, y: Any) -> Any:
    return cr.cond(p, lambda x: cr.sin(x) * y, lambda x: x * x, x)


def collatz(n: Any) -> Any:
    """The number of steps from n to 1."""
    start = (n, cr.zeros_like(n))
    following = lambda c: (cr.where(c[0] % 2 == 0, c[0] // 2, 3 * c[0] + 1), c[1] + 1)  # noqa: E731
    return cr.while_loop(lambda c: c[0] != 1, following, start)[1]


def collatz_numpy(n: Any) -> Any:
    steps, value = 0, int(n)
    while value != 1:
        steps, value = steps + 1, value // 2 if value % 2 == 0 else 3 * value + 1
    return np.asarray(steps)


def refused(x: Any) -> Exception:
    return ValueError(f"refused: {x}")


LIMITS: dict[str, Any] = dict(low=-10, high=10, ignore=None, nan=False, refuse=refused)

ROWS = (
    Operation(
        "primitive_check", checks.check,
        (
            case(normal(3, 4), **LIMITS), case(np.array([3, -7, 10]), **LIMITS),
            case(np.array([1.0, np.nan]), **LIMITS | {"nan": True}),
            case(np.array([1, -100]), **LIMITS | {"ignore": -100}), case(normal(0), **LIMITS),
        ),
        lambda x, **limits: np.asarray(True), primitive=checks.check, derivative=False,
    ),
    Operation(
        "scan", recurrent,
        (
            case(W, H, X), case(W, H, X, reverse=True), case(W, H, X[:1]), case(W, H, X[:0]),
            case(W, H, X, checkpoint=2), case(W, H, X, checkpoint=3, reverse=True),
        ),
        recurrent_numpy, recurrent_jax, control.scan, **TOLERANCE,
    ),
    Operation(
        "scan_lookup", looked_up, (case(normal(4, 3), normal(3), np.array([1, 3, 3, 0])),),
        looked_up_numpy, looked_up_jax, **TOLERANCE,
    ),
    Operation(
        "cond", chosen,
        (
            case(np.array(True), normal(3), normal(3, seed=1)),
            case(np.array(False), normal(3), normal(3, seed=1)),
        ),
        lambda p, x, y: np.sin(x) * y if p else x * x,
        lambda p, x, y: jax.lax.cond(p, lambda x: jnp.sin(x) * y, lambda x: x * x, x),
        control.cond, **TOLERANCE,
    ),
    Operation(
        "while_loop", collatz, (case(np.array(7)), case(np.array(1))), collatz_numpy,
        primitive=control.while_loop, derivative=False,
    ),
    Operation(
        "primitive_detach", movement.detach, (Case((normal(2, 3),)), Case((np.array([1, 2]),))),
        lambda x: x, jax.lax.stop_gradient, movement.detach, derivative=False,
    ),
)  # fmt: skip
