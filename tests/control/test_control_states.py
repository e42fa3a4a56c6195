"""Bodies that change what lies outside of them: running statistics, accumulators, buffers."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn


def numbers(*shape: int, seed: int = 0) -> cr.Tensor:
    rng = np.random.default_rng([seed, *shape])
    return cr.asarray(rng.standard_normal(shape), requires_grad=True)


def looped(f: Any, init: Any, xs: Any) -> Any:
    carry, ys = init, []
    for t in range(len(xs)):
        carry, y = f(carry, xs[t])
        ys.append(y)
    return carry, cr.stack(ys)


def run(loop: Any, compiled: bool, recorded: bool) -> list[np.ndarray]:
    """A body with batch norm, an accumulator from outside and a buffer of its own."""
    norm = nn.BatchNorm1d(3).double()
    total = cr.zeros((3,), dtype=cr.float64)

    def whole(x: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            own = cr.zeros((2, 3), dtype=cr.float64)
            own[0] = x[0]
            own[1] = c
            with contextlib.nullcontext() if recorded else cr.no_grad():
                total.copy_(total * 0.5 + cr.sum(x, axis=0))
            return c + cr.sum(norm(x), axis=0) * total, own

        c, ys = loop(step, cr.ones((3,), dtype=cr.float64), x)
        loss = (c**2).sum() + (ys**3).sum()
        (gradient,) = cr.autograd.grad(loss, [x])
        return loss.detach(), gradient

    x = numbers(5, 4, 3)
    results = (cr.compile(whole) if compiled else whole)(x)
    return [np.asarray(t.detach()) for t in (*results, *norm.buffers(), total)]


@pytest.mark.parametrize(("compiled", "recorded"), [(False, False), (False, True), (True, False)])
def test_states_move_on_as_in_a_loop(compiled: bool, recorded: bool) -> None:
    for mine, other in zip(
        run(cr.scan, compiled, recorded), run(looped, False, recorded), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12)


def test_loops_in_loops_move_them_too() -> None:
    found = []
    for loop in (cr.scan, looped):
        norm = nn.BatchNorm1d(3).double()

        def outer(c: Any, row: Any, norm: Any = norm, loop: Any = loop) -> Any:
            c, ys = loop(lambda c, x: (c + cr.sum(norm(x), axis=0),) * 2, c, row)
            return c, ys

        c, _ = loop(outer, cr.zeros((3,), dtype=cr.float64), numbers(3, 2, 4, 3))
        found.append([c, *norm.buffers()])
    for mine, other in zip(*found, strict=True):
        np.testing.assert_allclose(mine.detach(), other.detach(), rtol=1e-12)


def test_branches_and_while_loops_move_them() -> None:
    for taken in (True, False):
        count = cr.zeros((), dtype=cr.int64)

        def add(n: Any, count: Any = count) -> Any:
            count.copy_(count + n)
            return n * 2

        result = cr.cond(taken, add, lambda n: n, cr.asarray(3))
        assert int(result) == (6 if taken else 3)
        assert int(count) == (3 if taken else 0)
    count = cr.zeros((), dtype=cr.int64)

    def step(x: Any) -> Any:
        count.copy_(count + 1)
        return x / 2

    assert float(cr.while_loop(lambda x: x > 1, step, 20.0)) == 0.625
    assert int(count) == 5


class Counter(nn.Module):
    """Adds up what it sees, in a buffer that it sets anew."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", cr.zeros(3))

    def forward(self, x: Any) -> Any:
        self.total = self.total + x
        return x * self.total


@pytest.mark.parametrize("compiled", [False, True])
def test_buffers_may_be_set_anew(compiled: bool) -> None:
    xs = cr.asarray(np.arange(12.0, dtype="f4").reshape(4, 3))
    found = []
    for loop in (cr.scan, looped):
        counter = Counter()

        def whole(xs: Any, counter: Any = counter, loop: Any = loop) -> Any:
            return loop(lambda c, x: (c + counter(x),) * 2, cr.zeros(3), xs)

        result = (cr.compile(whole) if compiled and loop is cr.scan else whole)(xs)
        found.append([*result, counter.total])
    for mine, other in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_parameters_are_not_assigned_to_inside() -> None:
    w = nn.Parameter(cr.ones(3))

    def step(c: Any, x: Any) -> Any:
        with cr.no_grad():
            w.copy_(w * 0.5)
        return c + x * w, None

    with pytest.raises(cr.errors.TraceError, match="behind the loop"):
        cr.scan(step, cr.zeros(3), cr.ones((4, 3)))
    np.testing.assert_array_equal(w.detach(), np.ones(3))


def test_an_error_puts_everything_back() -> None:
    total = cr.zeros(3)

    def step(c: Any, x: Any) -> Any:
        total.copy_(total + x)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        cr.scan(step, 0.0, cr.ones((4, 3)))
    np.testing.assert_array_equal(total, np.zeros(3))
