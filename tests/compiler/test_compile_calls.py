"""`cr.compile`: arguments, results, numbers, shapes, and for what it compiles anew."""

from __future__ import annotations

import dataclasses
import warnings
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
from drawing import normal

import chainrule as cr
from chainrule import nn

compiled = cr.compile
pytestmark = pytest.mark.usefixtures("backend")


Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass
class Batch:
    x: Any
    extra: dict
    name: str = "a"


def test_nested_structures_go_in_and_come_out():
    @compiled
    def f(batch, pair, *, scale, tag):
        assert type(pair) is Pair
        assert isinstance(batch, Batch)
        return {
            "sum": batch.x + batch.extra["y"], "pair": Pair(pair.second * scale, [pair.first]),
            "batch": Batch(batch.x * 2, {}, batch.name), "tag": tag, "none": None,
        }  # fmt: skip

    x, y = normal(3), normal(3, seed=1)
    for scale in (2.0, 3.0):
        got = f(Batch(x, {"y": y}, "b"), Pair(x, y), scale=scale, tag=("t", 1.5))
        np.testing.assert_array_equal(got["sum"].numpy(), (x + y).numpy())
        assert type(got["pair"]) is Pair
        np.testing.assert_array_equal(got["pair"].first.numpy(), (y * scale).numpy())
        np.testing.assert_array_equal(got["pair"].second[0].numpy(), x.numpy())
        assert type(got["batch"]) is Batch
        assert got["batch"].name == "b"
        assert got["tag"] == ("t", 1.5)
        assert got["none"] is None
    assert f.traces == 1


def test_numpy_arrays_and_numbers_are_inputs():
    @compiled
    def f(a, n, s):
        return (a * s + n).sum(), n + 1, s / 2

    for k in range(3):
        a = np.full((2, 2), float(k))
        total, n, s = f(a, k, k + 0.5)
        assert float(total) == (a * (k + 0.5) + k).sum()
        assert (n, s) == (k + 1, (k + 0.5) / 2)
        assert type(n) is int
        assert type(s) is float
    assert f.traces == 1


def test_a_number_beside_a_tensor_is_weak():
    f = compiled(lambda x, s: x * s)
    x = cr.asarray([1.0, 2.0], dtype=cr.float32)
    assert f(x, 3.0).dtype == cr.float32
    assert f(cr.asarray([1, 2]), 3).dtype == cr.int64
    assert f(cr.asarray([1, 2]), 3.0).dtype == cr.float32
    assert f.traces == 3


def test_a_number_that_python_needs_is_compiled_for():
    @compiled
    def f(x, n):
        return x.reshape((n, -1)).sum(axis=0)

    x = normal(12)
    for n in (2, 3, 2, 3, 4):
        np.testing.assert_allclose(f(x, n).numpy(), x.numpy().reshape(n, -1).sum(0))
    assert f.traces == 3


def test_a_comparison_is_compiled_for_its_outcome():
    @compiled
    def f(x, epoch):
        return x * 2 if epoch > 3 else x

    x = cr.ones((2,))
    assert [float(f(x, n)[0]) for n in range(7)] == [1, 1, 1, 1, 2, 2, 2]
    assert f.traces == 2


@pytest.mark.parametrize(
    "expression",
    [
        lambda n: n + 1, lambda n: 2**n, lambda n: n % 3, lambda n: 7 // n, lambda n: -n / 3,
        lambda n: abs(1 - n), lambda n: (n * 0.5) ** 2, lambda n: round(n / 3, 1), lambda n: 5 - n,
        lambda n: 1 / n, lambda n: max(n, 3), lambda n: min(2, n), lambda n: int(n * 1.7),
        lambda n: float(n), lambda n: divmod(n, 2)[0] if False else n, lambda n: n.bit_length(),
    ],
)  # fmt: skip
def test_arithmetic_of_numbers_is_pythons(expression):
    f = compiled(lambda x, n: (x * expression(n), expression(n)))
    for n in (1, 2, 5):
        y, value = f(cr.ones((), dtype=cr.float64), n)
        assert float(y) == expression(n)
        assert value == expression(n)
        assert type(value) is type(expression(n))


def test_numbers_answer_to_isinstance_and_make_ranges():
    @compiled
    def f(x, n, s):
        assert isinstance(n, int)
        assert isinstance(s, float)
        assert not isinstance(n, bool)
        return cr.arange(n), cr.full((2,), s), x * (n if isinstance(n, float) else s)

    for n, s in ((3, 0.5), (3, 1.5), (4, 0.5)):
        a, b, c = f(cr.ones(()), n, s)
        assert a.dtype == cr.int64
        assert a.shape == (n,)
        np.testing.assert_array_equal(b.numpy(), s)
        assert float(c) == s
    assert f.traces == 2


def test_a_probability_as_an_argument():
    f = compiled(lambda x, p: nn.functional.dropout(x, p))
    x = cr.ones((2000,))
    for p in (0.1, 0.5, 0.9):
        share = float(cr.mean(cr.astype(f(x, p) == 0, cr.float32)))
        assert abs(share - p) < 0.05
    assert f.traces == 1
    with pytest.raises(ValueError, match="probability"):
        f(x, 1.5)


def test_numpy_arrays_that_come_back_are_the_callers():
    made = np.zeros(2)
    f = compiled(lambda: made)
    f()[:] = 7
    np.testing.assert_array_equal(f(), 0)


@pytest.mark.filterwarnings("ignore:.*changed traced while it was compiled")
def test_static_arguments():
    traced = []

    @compiled(static_argnums=1, static_argnames="mode")
    def f(x, n, mode="sum"):
        traced.append((n, mode))
        return getattr(x.reshape((n, -1)), mode)()

    x = normal(6)
    for n, mode in ((2, "sum"), (3, "sum"), (2, "mean"), (2, "sum")):
        np.testing.assert_allclose(f(x, n, mode=mode).numpy(), getattr(x, mode)().numpy())
    assert f.traces == 3
    assert traced == [(2, "sum"), (3, "sum"), (2, "mean")]


def test_other_constants_are_compiled_for_by_value():
    f = compiled(lambda x, how: x + 1 if how == "up" else x - 1)
    x = cr.zeros(())
    assert [float(f(x, how)) for how in ("up", "down", "up")] == [1, -1, 1]
    assert f.traces == 2


def test_what_comes_back_belongs_to_the_caller():
    w = normal(3)

    @compiled
    def f(x):
        with cr.no_grad():
            w.copy_(w + 1)
        return x * w, w.detach(), cr.ones((3,))

    first = f(normal(3))
    kept = [np.array(t.numpy()) for t in first]
    f(normal(3, seed=1))
    for t, value in zip(first, kept, strict=True):
        np.testing.assert_array_equal(t.numpy(), value)


def test_arguments_and_tensors_from_outside_come_back_as_themselves():
    w = normal(2).requires_grad_()
    x = normal(2)
    a, b, c = compiled(lambda x: (x, w, x * 1))(x)
    assert a is x
    assert b is w
    assert c is not x


def test_one_tensor_as_two_arguments():
    @compiled
    def f(x, y):
        with cr.no_grad():
            x += 1
        return x * y

    a, b = cr.ones((2,)), cr.ones((2,))
    np.testing.assert_array_equal(f(a, b).numpy(), [2, 2])
    np.testing.assert_array_equal(a.numpy(), [2, 2])
    np.testing.assert_array_equal(f(b, b).numpy(), [4, 4])
    np.testing.assert_array_equal(b.numpy(), [2, 2])
    np.testing.assert_array_equal(f(a, b).numpy(), [6, 6])


def test_an_argument_that_is_also_found_by_name():
    w, v = cr.ones((2,)), cr.ones((2,)) * 5

    @compiled
    def f(x):
        with cr.no_grad():
            w.copy_(w + 1)
        return x * w

    np.testing.assert_array_equal(f(w).numpy(), [4, 4])
    np.testing.assert_array_equal(f(v).numpy(), [15, 15])
    np.testing.assert_array_equal(f(w).numpy(), [16, 16])


@pytest.mark.parametrize("form", ["order", "stride", "reversed", "broadcast"])
def test_any_memory_layout_is_taken(form):
    x = np.arange(12.0).reshape(3, 4)
    given = {
        "order": np.asfortranarray(x), "stride": np.repeat(x, 2, axis=1)[:, ::2],
        "reversed": x[::-1].copy()[::-1], "broadcast": np.broadcast_to(x[:1], (3, 4)),
    }[form]  # fmt: skip
    f = compiled(lambda x: (x * 2).sum(axis=0))
    for value in (x, given, x):
        np.testing.assert_array_equal(f(cr.asarray(value)).numpy(), (value * 2).sum(axis=0))
    assert f.traces == 1


def test_shapes_and_dtypes_are_compiled_for_quietly():
    f = compiled(lambda x: x.sum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (3, 5, 3, 5):
            assert float(f(cr.ones((n,)))) == n
        f(cr.ones((3,), dtype=cr.float64))
    assert f.traces == 3
