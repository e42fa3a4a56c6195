"""Tensors that are made while a function is traced: in it, after it, and beside it."""

from __future__ import annotations

import inspect
import threading
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import TraceError


def compiled(function):
    return cr.compile(function, backend="numpy")


@pytest.fixture
def kept():
    """A place outside, to which the functions here append; that is warned of, and meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield []


def test_tensors_with_known_numbers_are_ordinary_ones_afterwards(kept):
    @compiled
    def first(x):
        table = cr.arange(3, dtype=cr.float32) * 2
        kept.append(table)
        return x + table

    np.testing.assert_array_equal(first(cr.ones((3,))).numpy(), [1, 3, 5])
    (table,) = kept
    assert type(table) is cr.Tensor
    second = compiled(lambda x: x + table)
    np.testing.assert_array_equal(second(cr.ones((3,))).numpy(), [1, 3, 5])
    with cr.no_grad():
        table.copy_(cr.zeros((3,)))
    np.testing.assert_array_equal(second(cr.ones((3,))).numpy(), [1, 1, 1])
    assert second.traces == 1


def test_a_traced_tensor_that_is_assigned_known_numbers_is_an_ordinary_one_afterwards(kept):
    @compiled
    def first(x):
        y = x * 2
        with cr.no_grad():
            y.copy_(cr.full((3,), 5.0))
        kept.append(y)
        return y + x

    np.testing.assert_array_equal(first(cr.ones((3,))).numpy(), [6, 6, 6])
    (y,) = kept
    assert type(y) is cr.Tensor
    second = compiled(lambda x: x + y)
    np.testing.assert_array_equal(second(cr.ones((3,))).numpy(), [6, 6, 6])
    y += 1
    np.testing.assert_array_equal(second(cr.ones((3,))).numpy(), [7, 7, 7])


@pytest.mark.parametrize("use", [
    lambda y, x: y + x, lambda y, x: y.copy_(x), lambda y, x: x.copy_(y), lambda y, x: y,
    lambda y, x: cr.where(x > 0, x, y), lambda y, x: y.reshape((3, 1)),
])  # fmt: skip
def test_a_tensor_without_numbers_is_refused_by_the_next_trace(kept, use):
    @compiled
    def first(x):
        kept.append(x * 2)
        return x

    first(cr.ones((3,)))
    with pytest.raises(TraceError, match="kept by a compiled function"):
        compiled(lambda x: use(kept[0], x * 1))(cr.ones((3,)))


def test_a_tensor_without_numbers_can_be_given_some(kept):
    @compiled
    def first(x):
        kept.append(x * 2)
        return x

    first(cr.ones((3,)))
    with cr.no_grad():
        kept[0].copy_(cr.ones((3,)))
    np.testing.assert_array_equal((kept[0] + 1).numpy(), [2, 2, 2])
    second = compiled(lambda x: x + kept[0])
    np.testing.assert_array_equal(second(cr.ones((3,))).numpy(), [2, 2, 2])
    kept[0] += 1
    np.testing.assert_array_equal(second(cr.ones((3,))).numpy(), [3, 3, 3])


def test_tensors_of_other_threads_are_ordinary_ones(kept):
    def work():
        kept.append(cr.full((3,), 2.0) * 3)

    @compiled
    def first(x):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return x * 2

    first(cr.ones((3,)))
    (y,) = kept
    assert type(y) is cr.Tensor
    np.testing.assert_array_equal(y.numpy(), [6, 6, 6])
    second = compiled(lambda x: x + y)
    second(cr.ones((3,)))
    y += 1
    np.testing.assert_array_equal(second(cr.ones((3,))).numpy(), [8, 8, 8])


def test_after_a_trace_that_fails_nothing_of_it_is_left(kept):
    @compiled
    def first(x):
        kept.append(cr.zeros((3,)) + 1)
        return float(x.sum())

    with pytest.raises(TraceError):
        first(cr.ones((3,)))
    assert type(kept[0]) is cr.Tensor
    assert type(cr.ones((2,))) is cr.Tensor


def test_arrays_of_the_users_that_are_repeated_stay_as_they_were():
    array = np.arange(3, dtype=np.float32)
    add = compiled(lambda x: x + cr.broadcast_to(cr.asarray(array), (2, 3)))
    x = cr.zeros((2, 3))
    expected = np.tile(np.arange(3.0), (2, 1))
    np.testing.assert_array_equal(add(x).numpy(), expected)
    array[:] = 7
    np.testing.assert_array_equal(add(x).numpy(), expected)


def test_repeated_constants_are_kept_once():
    mask = compiled(
        lambda x: cr.where(cr.broadcast_to(cr.tril(cr.ones((4, 4))) > 0, (8, 4, 4)), x, 0)
    )
    x = np.random.default_rng(0).standard_normal((8, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(mask(cr.asarray(x)).numpy(), np.tril(x))
    sizes = [np.prod(a.shape) for a in mask.versions[0].graph.constants.values() if any(a.strides)]
    assert sizes == [16]


def test_numbers_that_are_equal_are_not_taken_for_one_another():
    cr.full((2,), 0.0)
    assert np.signbit(cr.full((2,), -0.0).numpy()).all()
    assert not np.signbit(cr.full((2,), 0.0).numpy()).any()
    for dtype in (cr.int64, cr.float32, cr.bool):
        for value in (1, True, 1.0):
            made = cr.full((2,), value, dtype=dtype)
            assert made.dtype == dtype
            assert (made.numpy() == 1).all()
    with pytest.raises(cr.errors.RangeError):
        cr.ones((2,), dtype=cr.int8) * 1000
    assert not np.isfinite((cr.ones((2,)) * 1e39).numpy()).any()
    assert np.isnan((cr.ones((2,)) * float("nan")).numpy()).all()


class Mine(nn.Module):
    def forward(self, x):
        y = x + 1
        return cr.tanh(y) * 2


def test_operations_are_of_the_users_lines_in_layers_of_the_house_too():
    model = nn.Sequential(nn.Linear(3, 3), Mine(), nn.BatchNorm1d(3))

    def step(x):
        z = model(x)
        loss = (z * z).sum()
        loss.backward()
        return loss

    step_ = compiled(step)
    step_(cr.ones((4, 3)))
    lines = {}
    for op in step_.versions[0].graph.ops:
        lines.setdefault(op.line, set()).add((op.where, op.name))

    def line_of(function, text):
        source, first = inspect.getsourcelines(function)
        (offset,) = [n for n, line in enumerate(source) if text in line]
        return f"{__file__}:{first + offset}"

    call = {where for where, _ in lines[line_of(step, "model(x)")]}
    assert call == {"Linear", "BatchNorm1d"}
    assert lines[line_of(Mine, "x + 1")] == {("Mine", "add")}
    assert ("Mine", "tanh") in lines[line_of(Mine, "tanh")]
    assert {where for where, _ in lines[line_of(step, "z * z")]} == {""}
    assert any(name == "matmul" for _, name in lines[line_of(step, "backward()")])
