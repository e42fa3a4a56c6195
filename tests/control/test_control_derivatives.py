"""Derivatives of all kinds of loops against loops in Python and JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from looping import (
    B,
    H,
    W,
    X,
    assert_same,
    cell,
    check,
    derivatives,
    looped,
    numbers,
    squashed,
)

import chainrule as cr
from chainrule.nn import functional

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)


def test_scans_in_scans() -> None:
    def loop(w: Any, xs: Any) -> Any:
        def outer(c: Any, row: Any) -> Any:
            def inner(c: Any, x: Any) -> Any:
                c = cr.tanh(c @ w + x)
                return c, c

            c, ys = cr.scan(inner, c, row)
            return c, ys.sum(axis=0)

        return cr.scan(outer, cr.zeros((2, 3), dtype=cr.float64), xs)

    check(loop, W, numbers(2, 3, 2, 3))


def test_cond_in_scan_takes_the_branch_of_the_step() -> None:
    def loop(w: Any, xs: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            c = cr.cond(cr.sum(x) > 0, lambda c: cr.tanh(c * w), lambda c: c + x * w, c)
            return c, c

        return cr.scan(step, cr.ones((3,), dtype=cr.float64), xs)

    xs = numbers(5, 3)
    assert {bool(s) for s in xs.sum(axis=1) > 0} == {True, False}
    check(loop, B, xs)

    def plain(w: Any, xs: Any) -> Any:
        step = lambda c, x: (2 * (cr.tanh(c * w) if float(cr.sum(x)) > 0 else c + x * w) / 2,) * 2  # noqa: E731
        return looped(step, cr.ones((3,), dtype=cr.float64), xs)

    assert_same(loop(B, xs), plain(B, xs))


def test_embeddings_convolutions_and_products_behind_the_loop() -> None:
    """Each way in which a weight's gradient is summed over time."""
    kernel = numbers(2, 2, 2)
    stack = numbers(4, 2, 3)
    index = cr.asarray([[0, 1], [3, 3], [2, 0]])

    def loop(table: Any, kernel: Any, w: Any, scale: Any) -> Any:
        def step(c: Any, i: Any) -> Any:
            e = cr.take(table, i, axis=0)  # (2, 3)
            c = functional.conv1d(c, kernel, padding=1)[:, :, :3] * scale
            c = cr.tanh(c + e @ w - cr.flip(w @ w, axis=0)[:2])
            return c, cr.matmul(c, cr.permute_dims(stack, (0, 2, 1))) + w.T[:2, :2].sum()

        return cr.scan(step, cr.ones((4, 2, 3), dtype=cr.float64), index)

    args = (numbers(4, 3), kernel, W, numbers(1))
    ours = derivatives(loop, args)

    def by_hand(table: Any, kernel: Any, w: Any, scale: Any) -> Any:
        c, ys = cr.ones((4, 2, 3), dtype=cr.float64), []
        for t in range(3):
            e = cr.take(table, index[t], axis=0)
            c = functional.conv1d(c, kernel, padding=1)[:, :, :3] * scale
            c = cr.tanh(c + e @ w - cr.flip(w @ w, axis=0)[:2])
            ys.append(cr.matmul(c, cr.permute_dims(stack, (0, 2, 1))) + w.T[:2, :2].sum())
        return c, cr.stack(ys)

    assert_same(ours, derivatives(by_hand, args), rtol=1e-10)


def test_detach_and_no_grad_inside_the_body_hold() -> None:
    def step(w: Any) -> Any:
        def inner(c: Any, x: Any) -> Any:
            with cr.no_grad():
                s = c * w
            c = c * x.detach() * w + x * s + c.detach() * w.detach()
            return c, c

        return inner

    start = cr.ones((3,), dtype=cr.float64)
    args = (B, numbers(4, 3))
    assert_same(
        derivatives(lambda w, x: cr.scan(step(w), start, x), args),
        derivatives(lambda w, x: looped(step(w), start, x), args),
    )


def test_gradients_taken_inside_the_body() -> None:
    """Gradient descent on (c - w)^4, unrolled and differentiated by w: nested derivatives."""

    def step(w: Any) -> Any:
        def inner(c: Any, rate: Any) -> Any:
            c = c - rate * cr.grad(lambda c: ((c - w) ** 4).sum())(c)
            return c, c

        return inner

    rates = cr.asarray([0.1, 0.05, 0.02], dtype=cr.float64)
    start = numbers(2)
    args = (numbers(2, seed=3), start)
    assert_same(
        derivatives(lambda w, c: cr.scan(step(w), c, rates), args),
        derivatives(lambda w, c: looped(step(w), c, rates), args),
    )


def test_forward_mode_through_a_loop() -> None:
    v = (numbers(3, 3, seed=5), numbers(7, 2, 3, seed=6))
    ours, theirs = (
        cr.jvp(lambda w, x, loop=loop: loop(cell(w, B), H, x), (W, X), v)
        for loop in (cr.scan, looped)
    )
    assert_same(ours, theirs)


def test_hessian_of_a_loop() -> None:
    ours, theirs = (
        cr.hessian(lambda b, loop=loop: squashed(loop(cell(W, b), H, X[:3])))(B)
        for loop in (cr.scan, looped)
    )
    assert_same(ours, theirs)


@settings(max_examples=8, deadline=None)
@given(
    n=st.integers(0, 5), rows=st.integers(1, 3), width=st.integers(1, 4),
    reverse=st.booleans(), k=st.none() | st.integers(1, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_against_jax(n, rows, width, reverse, k, seed) -> None:
    rng = np.random.default_rng(seed)
    arrays = [
        rng.standard_normal(s) for s in ((width, width), (rows, width), (n, rows, width))
    ]  # fmt: skip

    def loss(room: Any, scan: Any, w: Any, h: Any, xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            h, total = carry
            h = room.tanh(h @ w + x) * room.cos(h)
            return (h, total + (h * x).sum()), h

        (h, total), ys = scan(step, (h, xs.sum() * 0), xs)
        return total + room.sin(h).sum() + (ys**2).sum()

    ours = cr.value_and_grad(
        lambda *a: loss(
            cr, lambda f, i, x: cr.scan(f, i, x, reverse=reverse, checkpoint=k), *a
        ), argnums=(0, 1, 2),
    )(*map(cr.asarray, arrays))  # fmt: skip
    theirs = jax.value_and_grad(
        lambda *a: loss(jnp, lambda f, i, x: jax.lax.scan(f, i, x, reverse=reverse), *a),
        argnums=(0, 1, 2),
    )(*map(jnp.asarray, arrays))
    assert_same([*ours[1], ours[0]], [*theirs[1], theirs[0]], rtol=1e-10)
