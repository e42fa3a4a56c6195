"""Indexing, order, running sums and random numbers in compiled functions, natively."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import IndexingError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, 33)).astype(np.float32)
INDEX = RNG.integers(-64, 64, (5, 7))
ALONG = RNG.integers(0, 33, (64, 4))

FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "gather": (lambda x, i: x[i] * 2, (X, INDEX)),
    "gather of two": (lambda x, i: x[i, cr.abs(i) % 33], (X, INDEX)),
    "take_along_axis": (lambda x, i: cr.take_along_axis(x, i, axis=1), (X, ALONG)),
    "scatter_add": (lambda x, i, u: cr.scatter_add(x, i, u, axis=1), (X, ALONG, X[:, :4])),
    "slice": (lambda x: _assigned(x, (slice(3, 20, 4), slice(None, 9))), (X,)),
    "places": (lambda x, i: _assigned(x, i), (X, INDEX)),
    "mask": (lambda x: cr.where(x > 0, x, -x), (X,)),
    "sort": (lambda x: cr.sort(x, axis=0), (X,)),
    "argsort": (lambda x: cr.argsort(-x, axis=1, descending=True), (X,)),
    "cumulative_sum": (lambda x: cr.cumulative_sum(x, axis=0) + cr.cumulative_sum(x, axis=1), (X,)),
    "searchsorted": (lambda x, v: cr.searchsorted(x, v), (np.sort(X[0]), X)),
}


def _assigned(x: Any, key: Any) -> Any:
    z = x + 0
    z[key] = 7.5
    return z


@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_eagerly(name: str) -> None:
    function, arrays = FUNCTIONS[name]
    compiled = cr.compile(function, backend="native")
    for _ in range(2):
        tensors = [cr.asarray(a) for a in arrays]
        np.testing.assert_array_equal(compiled(*tensors).numpy(), function(*tensors).numpy())


@pytest.mark.parametrize("bad", [64, -65, 2**40])
def test_an_index_out_of_bounds(bad: int) -> None:
    compiled = cr.compile(lambda x, i: x[i], backend="native")
    x, good = cr.asarray(X), cr.asarray(INDEX)
    for _ in range(2):
        compiled(x, good)
        with pytest.raises(
            IndexingError, match=f"index {bad} is out of bounds for an axis of length 64"
        ):
            compiled(x, cr.asarray(np.where(INDEX[2, 3] == INDEX, bad, INDEX)))
    np.testing.assert_array_equal(compiled(x, good).numpy(), X[INDEX])


def test_random_numbers_are_the_same() -> None:
    def draw(x: Any) -> Any:
        return x + cr.random.uniform((100, 7)) + cr.random.normal((100, 7))

    x = cr.zeros((100, 7))
    compiled = cr.compile(draw, backend="native")
    cr.random.manual_seed(3)
    eager = [draw(x).numpy() for _ in range(3)]
    cr.random.manual_seed(3)
    for want in eager:
        np.testing.assert_allclose(compiled(x).numpy(), want, rtol=2e-6, atol=2e-6)


def test_gradients_of_an_embedding() -> None:
    def loss(table: Any, i: Any) -> Any:
        return (table[i] ** 2).sum()

    table, i = cr.asarray(X), cr.asarray(INDEX)
    step = cr.compile(cr.grad(loss), backend="native")
    want = np.zeros_like(X)
    np.add.at(want, INDEX, 2 * X[INDEX])
    np.testing.assert_allclose(step(table, i).numpy(), want, rtol=1e-5)


def test_a_reshape_that_must_not_copy_is_any_reshape():
    """Where nothing has memory yet there is nothing to copy."""
    x = cr.asarray(np.arange(6.0).reshape(2, 3))
    f = cr.compile(lambda x: cr.reshape(x.T, (6,), copy=False) + cr.reshape(x, (6,), copy=False))
    np.testing.assert_array_equal(f(x), x.numpy().T.ravel() + x.numpy().ravel())
