"""cr.scan against the loop in Python: values, structures, steps, random numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from looping import (
    B,
    H,
    W,
    X,
    assert_same,
    cell,
    derivatives,
    looped,
    squashed,
)

import chainrule as cr
from chainrule.nn import functional


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("checkpoint", [None, 1, 2, 3, 6, 7, 9])
def test_scan_is_the_loop(reverse: bool, checkpoint: int | None) -> None:
    ours = derivatives(
        lambda w, b, h, x: cr.scan(cell(w, b), h, x, reverse=reverse, checkpoint=checkpoint),
        (W, B, H, X),
    )
    theirs = derivatives(lambda w, b, h, x: looped(cell(w, b), h, x, reverse), (W, B, H, X))
    assert_same(ours, theirs)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("truncate", [1, 2, 3, 6, 7, 8])
def test_truncated_backpropagation_cuts_between_runs(reverse: bool, truncate: int) -> None:
    ours = derivatives(
        lambda w, b, h, x: cr.scan(cell(w, b), h, x, reverse=reverse, truncate=truncate),
        (W, B, H, X),
    )
    theirs = derivatives(
        lambda w, b, h, x: looped(cell(w, b), h, x, reverse, truncate), (W, B, H, X)
    )
    assert_same(ours, theirs)


def test_truncation_and_checkpoints_together() -> None:
    ours = derivatives(
        lambda w, b, h, x: cr.scan(cell(w, b), h, x, truncate=4, checkpoint=2), (W, B, H, X)
    )
    theirs = derivatives(lambda w, b, h, x: looped(cell(w, b), h, x, truncate=4), (W, B, H, X))
    assert_same(ours, theirs)


def test_only_what_is_asked_for_is_differentiated() -> None:
    for wanted in ((0,), (1,), (2,), (3,), (0, 3)):
        for pick in (0, 1):
            ours, theirs = (
                cr.grad(lambda *a, f=loop, i=pick: squashed(f(*a)[i]), argnums=wanted)(W, B, H, X)
                for loop in (
                    lambda w, b, h, x: cr.scan(cell(w, b), h, x),
                    lambda w, b, h, x: looped(cell(w, b), h, x),
                )
            )
            assert_same(ours, theirs)


def test_backward_fills_the_gradients_of_what_was_closed_over() -> None:
    grads = []
    for loop in (cr.scan, looped):
        w, b = W.detach().requires_grad_(), B.detach().requires_grad_()
        squashed(loop(cell(w, b), H.detach(), X.detach())).backward()
        grads.append((w.grad, b.grad))
    assert_same(*grads)


def test_steps_of_one_and_of_none() -> None:
    for n in (0, 1):
        carry, ys = cr.scan(cell(W, B), H, X[:n])
        assert ys.shape == (n, 2, 3)
        if n == 0:
            np.testing.assert_array_equal(carry.detach(), H.detach())
        gs = cr.grad(
            lambda w, b, h, x: squashed(cr.scan(cell(w, b), h, x)), argnums=(0, 1, 2, 3)
        )(W, B, H, X[:n])  # fmt: skip
        if n == 0:
            assert not np.any(gs[0].detach().numpy())
            assert gs[3].shape == (0, 2, 3)
        else:
            theirs = cr.grad(
                lambda w, b, h, x: squashed(looped(cell(w, b), h, x)), argnums=(0, 1, 2, 3)
            )(W, B, H, X[:n])  # fmt: skip
            assert_same(gs, theirs)


class Pair(NamedTuple):
    first: Any
    second: Any


def test_structures_go_in_and_come_out() -> None:
    def step(carry: Any, x: Any) -> Any:
        a, n = carry["a"], carry["n"]
        return {"a": a + x.first * x.second[0], "n": n + 1}, (Pair(a, [n]), None)

    xs = Pair(cr.arange(4.0), (cr.arange(4.0) + 1,))
    carry, (pair, nothing) = cr.scan(step, {"a": 0.5, "n": 0}, xs)
    assert nothing is None
    assert list(carry) == ["a", "n"]
    assert float(carry["a"]) == 0.5 + 0 + 2 + 6 + 12
    assert int(carry["n"]) == 4
    assert carry["n"].dtype == cr.int64
    assert isinstance(pair, Pair)
    assert pair.first.tolist() == [0.5, 0.5, 2.5, 8.5]
    assert pair.second[0].tolist() == [0, 1, 2, 3]


def test_without_xs_a_length_is_needed() -> None:
    carry, ys = cr.scan(lambda c, x: (c * 2, (x, c)), 1, length=5)
    assert int(carry) == 32
    assert ys[0] is None
    assert ys[1].tolist() == [1, 2, 4, 8, 16]


def test_the_body_is_traced_once() -> None:
    calls = []

    def step(c: Any, x: Any) -> Any:
        calls.append(x.shape)
        return c + x, c

    cr.scan(step, cr.zeros((2,)), cr.ones((1000, 2)))
    assert calls == [(2,)]


# --- random numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
def test_random_numbers_are_those_of_the_loop(own: bool) -> None:
    generator = cr.random.Generator(5) if own else None

    def step(c: Any, x: Any) -> Any:
        keep = cr.random.bernoulli(0.5, x.shape, dtype=x.dtype, generator=generator)
        c = c * 0.5 + x * keep
        return c, cr.random.uniform((2,), generator=generator)

    found = []
    for loop in (cr.scan, looped):
        cr.manual_seed(3)
        if generator is not None:
            generator.manual_seed(4)
        result = loop(step, cr.zeros((2, 3), dtype=cr.float64), X)
        found.append((*result, cr.random.uniform((3,), generator=generator)))
        found[-1] += (cr.asarray(cr.random.get_state()),)
    assert_same(*found)
    drawn = np.asarray(found[0][1])
    assert len(np.unique(drawn)) == drawn.size


def test_dropout_in_the_body_is_differentiated_with_the_masks_that_were_drawn() -> None:
    grads = []
    for loop in (cr.scan, looped):
        cr.manual_seed(0)
        grads.append(
            cr.grad(
                lambda x, loop=loop: squashed(
                    loop(lambda c, x: (c + functional.dropout(x, 0.5),) * 2, H.detach(), x)
                )
            )(X)
        )
    assert_same(*grads)


def test_checkpointed_dropout_draws_the_same_masks_again() -> None:
    found = []
    for k in (None, 3):
        cr.manual_seed(0)
        found.append(
            cr.value_and_grad(
                lambda x, k=k: squashed(
                    cr.scan(
                        lambda c, x: (c * functional.dropout(x, 0.5) + x,) * 2, H.detach(), x,
                        checkpoint=k,
                    )
                )
            )(X)
        )  # fmt: skip
    assert_same(*found)
