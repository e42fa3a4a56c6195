"""cr.cond and cr.while_loop, and what bad input to loops gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from looping import (
    assert_same,
    check,
    numbers,
)

import chainrule as cr
from chainrule.nn import functional


def test_cond_takes_one_branch_and_differentiates_it() -> None:
    x, w = numbers(3), numbers(3, seed=1)
    for p in (True, False, cr.asarray(True), cr.asarray([False])):
        taken = bool(np.asarray(p).reshape(()))

        def both(x: Any, w: Any, p: Any = p) -> Any:
            return cr.cond(
                p, lambda o: {"y": cr.sin(o[0]) * w}, lambda o: {"y": o[0] ** 2}, (x, 1)
            )["y"]

        expected = cr.sin(x) * w if taken else x**2
        assert_same([both(x, w)], [expected])
        check(both, x, w)


def test_cond_with_random_numbers_moves_the_state_of_the_branch_taken() -> None:
    for p in (True, False):
        cr.manual_seed(0)
        ours = cr.cond(p, lambda: cr.random.uniform((3,)), lambda: cr.zeros((3,)))
        state = cr.random.get_state()
        cr.manual_seed(0)
        theirs = cr.random.uniform((3,)) if p else cr.zeros((3,))
        assert_same([ours, cr.asarray(state)], [theirs, cr.asarray(cr.random.get_state())])


def test_while_loop_runs_until_the_condition_fails() -> None:
    n, x = cr.while_loop(lambda c: c[1] < 100.0, lambda c: (c[0] + 1, c[1] * 2), (0, 1.0))
    assert (int(n), float(x)) == (7, 128.0)
    n, x = cr.while_loop(lambda c: c[1] < 0.0, lambda c: (c[0] + 1, c[1] * 2), (0, 1.0))
    assert (int(n), float(x)) == (0, 1.0)
    limit = cr.asarray(20.0)
    assert float(cr.while_loop(lambda x: x < limit, lambda x: x * 3, 1.0)) == 27.0


def test_while_loop_may_draw() -> None:
    def body(c: Any) -> Any:
        return c + cr.random.uniform(())

    cr.manual_seed(1)
    ours = cr.while_loop(lambda c: c < 3.0, body, 0.0)
    cr.manual_seed(1)
    theirs = cr.asarray(0.0)
    while theirs < 3.0:
        theirs = body(theirs)
    assert_same([ours], [theirs])


def test_while_loop_has_no_derivative_and_says_so() -> None:
    x = cr.asarray(1.0, requires_grad=True)
    y = cr.while_loop(lambda x: x < 10.0, lambda x: x * 2, x)
    with pytest.raises(cr.errors.GradError, match=r"while_loop has no derivative.*cr\.scan"):
        y.backward()
    assert float(cr.while_loop(lambda x: x < 10.0, lambda x: x * 2, x.detach())) == 16


# --- what bad input gets --------------------------------------------------------------------------

BAD = [
    (lambda: cr.scan(lambda c, x: (c, c), 0.0, cr.asarray(1.0)), "first axis"),
    (lambda: cr.scan(lambda c, x: (c, c), 0.0, (cr.ones(2), cr.ones(3))), r"\[2, 3\]"),
    (lambda: cr.scan(lambda c, x: (c, c), 0.0), "length="),
    (lambda: cr.scan(lambda c, x: (c, c), 0.0, cr.ones(3), length=4), "length=4.*length 3"),
    (lambda: cr.scan(lambda c, x: (c, c), 0.0, length=-1), "length=-1"),
    (lambda: cr.scan(lambda c, x: c, 0.0, cr.ones(3)), r"must return.*\(carry, None\)"),
    (lambda: cr.scan(lambda c, x: (c[None], c), 0.0, cr.ones(3)), r"shape \(\).*shape \(1,\)"),
    (lambda: cr.scan(lambda c, x: (c + x, c), 0, cr.ones(3)), "as int64 and came out as float32"),
    (lambda: cr.scan(lambda c, x: ((c, c), c), 0.0, cr.ones(3)), "tuple|not built like"),
    (lambda: cr.scan(lambda c, x: (c, c), 0.0, cr.ones(3), checkpoint=0), "checkpoint"),
    (lambda: cr.scan(lambda c, x: (c, c), 0.0, cr.ones(3), truncate=1.5), "truncate"),
    (lambda: cr.cond(cr.ones(2) > 0, lambda: 1, lambda: 2), "one element"),
    (lambda: cr.cond(1.0, lambda: 1, lambda: 2), "bool"),
    (lambda: cr.cond(True, lambda: 1, lambda: 2.0), "dtype"),
    (lambda: cr.cond(True, lambda: cr.ones(1), lambda: cr.ones(2)), "shape"),
    (lambda: cr.cond(True, lambda: (1,), lambda: {"a": 1}), "structure"),
    (lambda: cr.while_loop(lambda c: c, lambda c: c, 1.0), "bool"),
    (lambda: cr.while_loop(lambda c: c > 0, lambda c: c[None], 1.0), "shape"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_mistakes_are_explained(call: Any, message: str) -> None:
    with pytest.raises(cr.errors.ChainruleError, match=message):
        call()


def test_a_changed_carry_names_the_function_s_line() -> None:
    def grows(c: Any, x: Any) -> Any:
        return cr.concat([c, x]), None

    line = grows.__code__.co_firstlineno
    with pytest.raises(
        cr.errors.ShapeError, match=rf"grows \(.*test_control_branches\.py:{line}\)"
    ):
        cr.scan(grows, cr.ones(2), cr.ones((3, 2)))


PEEKS = [
    lambda c: float(c), lambda c: bool(c > 0), lambda c: c.item(), lambda c: np.asarray(c.detach()),
    lambda c: c.tolist(), lambda c: str(c), lambda c: [1, 2][c.astype(cr.int64)],
]  # fmt: skip


@pytest.mark.parametrize("peek", PEEKS)
def test_looking_at_a_traced_value_is_refused(peek: Any) -> None:
    state = cr.random.get_state()
    with pytest.raises(cr.errors.TraceError, match=r"cr\.where"):
        cr.scan(lambda c, x: (peek(c) and c, None), cr.asarray(1.0), cr.ones(3))
    # and leaves nothing behind
    assert float(cr.scan(lambda c, x: (c + x, None), 0.0, cr.ones(3))[0]) == 3
    np.testing.assert_array_equal(cr.random.get_state(), state)


@pytest.mark.parametrize("compiled", [False, True])
def test_labels_and_indices_are_looked_at_in_every_step(compiled: bool) -> None:
    scores = cr.zeros((4, 2, 3))

    def loss(labels: Any) -> Any:
        return cr.scan(
            lambda c, x: (c + functional.cross_entropy(x[0], x[1]), None), 0.0, (scores, labels)
        )[0]

    def embedded(index: Any) -> Any:
        table = cr.ones((3, 2))
        return cr.scan(lambda c, i: (c + functional.embedding(i, table), None), table[:2], index)[0]

    good, bad = np.zeros((4, 2), "i8"), np.zeros((4, 2), "i8")
    bad[2, 1] = 3
    for f, message in ((loss, "label 3"), (embedded, "3")):
        run = cr.compile(f) if compiled else f
        run(cr.asarray(good))
        with pytest.raises(IndexError, match=message):
            run(cr.asarray(bad))
        run(cr.asarray(good))


def test_an_error_in_the_body_passes_through_and_random_state_is_put_back() -> None:
    def step(c: Any, x: Any) -> Any:
        cr.random.uniform(())
        raise KeyError("mine")

    state = cr.random.get_state()
    with pytest.raises(KeyError, match="mine"):
        cr.scan(step, 0.0, cr.ones(3))
    np.testing.assert_array_equal(cr.random.get_state(), state)
    assert float(cr.asarray(1.0) + 1) == 2
