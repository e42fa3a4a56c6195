"""Checks of values inside loops and branches: the eager error, from inside the program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.nn import functional as F

TABLE = cr.asarray(np.random.default_rng(0).standard_normal((5, 3)))
GOOD, BAD = np.array([0, 4, 2]), np.array([0, 7, 2])
YES, NO = np.array(True), np.array(False)


def rows(i: Any) -> Any:
    return F.embedding(i, TABLE)


def branch(p: Any, i: Any) -> Any:
    return cr.cond(p, lambda i: rows(i) * 2, lambda i: TABLE[:3] * 1, i)


def both_branches(p: Any, i: Any) -> Any:
    return cr.cond(p, rows, lambda i: F.one_hot(i, 6)[:, :3] * TABLE[:3], i)


def in_a_scan(p: Any, i: Any) -> Any:
    return cr.scan(lambda h, q: (h + branch(q, i), h), TABLE[:3] * 0, cr.stack([~p, p]))


def gradient_of_a_branch(p: Any, w: Any) -> Any:
    def loss(w: Any) -> Any:
        return cr.cond(
            p, lambda w: F.binary_cross_entropy(w, cr.ones_like(w)), lambda w: cr.sum(w * w), w
        )

    return cr.value_and_grad(loss)(w)


def counted(i: Any) -> Any:
    return cr.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + rows(i + c[0])), (0, TABLE[:3] * 0)
    )


def without_an_end(i: Any) -> Any:
    return cr.while_loop(
        lambda c: c[0] >= 0, lambda c: (c[0] + 1, rows(i + c[0])), (0, TABLE[:3] * 0)
    )


def signs(t: Any) -> Any:
    return cr.while_loop(
        lambda c: c[0] < 3,
        lambda c: (c[0] + 1, c[1] + F.hinge_embedding_loss(TABLE[0] + c[1], t), t),
        (0, cr.zeros((), dtype="float64"), t),
    )[:2]  # fmt: skip


def labels(t: Any) -> Any:
    return cr.while_loop(
        lambda c: c[0] < 2,
        lambda c: (c[0] + 1, c[1] + F.cross_entropy(TABLE[:3] + c[1], t - c[0], ignore_index=-3)),
        (0, cr.zeros((), dtype="float64")),
    )


def in_the_test(i: Any) -> Any:
    return cr.while_loop(
        lambda c: (rows(i + c[0]).sum() < 100) & (c[0] < 3), lambda c: (c[0] + 1, c[1]), (0, 1)
    )


PROBABILITIES = np.array([0.25, 0.5, 1.0])
CASES: dict[str, tuple[Any, list[tuple[Any, ...]], bool]] = {
    "cond": (branch, [(YES, GOOD), (YES, BAD), (NO, BAD), (YES, GOOD)], True),
    "both": (both_branches, [(YES, GOOD), (YES, BAD), (NO, BAD), (NO, GOOD + 1)], True),
    "scan": (in_a_scan, [(YES, GOOD), (YES, BAD), (NO, BAD)], True),
    "gradient": (
        gradient_of_a_branch,
        [(YES, PROBABILITIES), (YES, PROBABILITIES * 3), (NO, PROBABILITIES * 3)], True,
    ),
    "while": (counted, [(GOOD // 2,), (GOOD,), (BAD,), (-GOOD,), (GOOD // 2,)], True),
    "endless": (without_an_end, [(GOOD,), (BAD,)], True),
    "signs": (signs, [(np.array([1.0, -1, 1]),), (np.array([1.0, 0, 1]),)], True),
    "labels": (labels, [(np.array([1, 2, -3]),), (np.array([1, 2, 2]),)], True),
    "test": (in_the_test, [(GOOD // 4,), (GOOD,)], False),
}  # fmt: skip


def outcome(function: Any, arguments: tuple[Any, ...]) -> Any:
    try:
        result = function(*[cr.asarray(x) for x in arguments])
    except cr.errors.ChainruleError as error:
        return type(error), str(error.args[0]).split(" at position")[0], error.line
    return [z.detach().numpy() for z in cr.autograd.tree.flatten(result)[0]]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_what_is_refused_eagerly_is_refused_in_the_program(name: str, backend: str) -> None:
    function, calls, natively = CASES[name]
    compiled, refused = cr.compile(function, backend=backend), 0
    for arguments in calls:
        got, expected = outcome(compiled, arguments), outcome(function, arguments)
        assert type(got) is type(expected)
        if isinstance(expected, tuple):
            refused += 1
            assert got[:2] == expected[:2]
            assert __file__ in got[2]
            continue
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    assert refused
    if backend == "native" and compiled.versions:
        kernels = compiled.versions[0].launch.program.plan.schedule.kernels
        assert all(kernel.family != "host" for kernel in kernels) == natively


@pytest.mark.parametrize("name", ["cond", "while", "test"])
def test_state_stays_as_it_was(name: str) -> None:
    function, calls, _ = CASES[name]
    count = cr.zeros((2,))

    @cr.compile
    def step(*arguments: Any) -> Any:
        with cr.no_grad():
            count.copy_(count + 1)
        return function(*arguments), cr.random.normal((2,))

    step(*[cr.asarray(x) for x in calls[0]])
    state = cr.random.get_state()
    with pytest.raises(cr.errors.ChainruleError):
        step(*[cr.asarray(x) for x in calls[1]])
    assert count.tolist() == [1, 1]
    np.testing.assert_array_equal(cr.random.get_state(), state)


def test_of_several_that_fail_the_first_one_speaks() -> None:
    @cr.compile
    def looked_up(i: Any) -> Any:
        return F.embedding(i, TABLE).sum() + F.one_hot(i, 6).sum()

    looked_up(cr.asarray(GOOD))
    for _ in range(5):
        with pytest.raises(IndexError, match=r"^embedding got index 7"):
            looked_up(cr.asarray(BAD))
