"""cr.scan, cr.cond and cr.while_loop against Python loops and JAX, and what bad input gets."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.graph import observe
from chainrule.nn import functional

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)


def numbers(*shape: int, seed: int = 0) -> cr.Tensor:
    rng = np.random.default_rng([seed, *shape])
    return cr.asarray(rng.standard_normal(shape), requires_grad=True)


def values(tree: Any) -> list[np.ndarray]:
    leaves = cr.autograd.tree.flatten(tree)[0] if not isinstance(tree, list) else tree
    return [np.asarray(x.detach()) if isinstance(x, cr.Tensor) else np.asarray(x) for x in leaves]


def assert_same(ours: Any, theirs: Any, rtol: float = 1e-12) -> None:
    for x, y in zip(values(ours), values(theirs), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)


def looped(f: Any, init: Any, xs: Any, reverse: bool = False, truncate: int | None = None) -> Any:
    """What scan means."""
    carry, ys, n = init, [], len(xs)
    for k, t in enumerate(reversed(range(n)) if reverse else range(n)):
        if truncate and k and k % truncate == 0:
            carry = carry.detach()
        carry, y = f(carry, xs[t])
        ys.append(y)
    return carry, cr.stack(ys[::-1] if reverse else ys)


def squashed(result: Any) -> Any:
    """A scalar in which everything counts, differently."""
    return sum(
        (cr.sin(x) * (i + 1.3)).sum() for i, x in enumerate(cr.autograd.tree.flatten(result)[0])
    )


W, B, H, X = numbers(3, 3), numbers(3), numbers(2, 3), numbers(7, 2, 3)


def cell(w: Any, b: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = cr.tanh(x + h @ w.T + b)
        return h, h * x

    return step


def derivatives(loop: Any, args: Any) -> Any:
    """Value, gradients, and the gradients of a function of the gradients."""
    gradient = cr.grad(lambda *a: squashed(loop(*a)), argnums=tuple(range(len(args))))
    second = cr.grad(lambda *a: squashed(gradient(*a)), argnums=tuple(range(len(args))))
    return loop(*args), gradient(*args), second(*args)


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


# --- derivatives of all kinds of bodies -----------------------------------------------------------


def check(loop: Any, *args: Any) -> None:
    assert cr.autograd.gradcheck(loop, args)
    assert cr.autograd.gradgradcheck(loop, args)


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


# --- what the loop does with memory and time ------------------------------------------------------


def applied(function: Any) -> list[tuple[str, Any]]:
    """(name, operations of the body) of what a function applies."""
    seen = []

    def note(primitive: Any, inputs: Any, outputs: Any, params: Any) -> None:
        body = params.get("body")
        seen.append((primitive.name, body and [op.name for op in body.ops]))

    with observe(note):
        function()
    return seen


def test_the_gradient_of_a_weight_is_one_product_behind_the_loop() -> None:
    w = W.detach().requires_grad_()
    loss = squashed(cr.scan(cell(w, B.detach()), H.detach(), X.detach()))
    back = applied(loss.backward)
    loops = [ops for name, ops in back if name == "scan"]
    assert len(loops) == 1
    assert loops[0].count("matmul") == 1  # g W, and not the product that gives dW
    assert [name for name, _ in back].count("matmul") == 1


def test_the_loop_back_reads_what_the_loop_saved() -> None:
    w = W.detach().requires_grad_()
    loss = squashed(cr.scan(cell(w, B.detach()), H.detach(), X.detach()))
    (ops,) = [ops for name, ops in applied(loss.backward) if name == "scan"]
    assert "tanh" not in ops
    loss = squashed(cr.scan(cell(w, B.detach()), H.detach(), X.detach(), checkpoint=3))
    loops = [ops for name, ops in applied(loss.backward) if name == "scan"]
    assert any("scan" in ops for ops in loops)  # each run of steps is computed again


def test_checkpoints_save_memory() -> None:
    x = cr.zeros((64, 8, 8))
    w = cr.zeros((8, 8), requires_grad=True)

    def saved(**how: Any) -> int:
        h, _ = cr.scan(lambda h, x: (cr.tanh(h @ w + x), None), x[0], x, **how)
        seen, size, todo = set(), 0, [h._node]
        while todo:
            node = todo.pop()
            if node is None or node in seen or not hasattr(node, "edges"):
                continue
            seen.add(node)
            size += sum(a.nbytes for a in node.outputs if isinstance(a, np.ndarray))
            todo += [e[0] for e in node.edges if e is not None]
        return size

    assert saved(checkpoint=8) < saved() / 3


def test_nothing_is_saved_where_nothing_is_recorded() -> None:
    with cr.no_grad():
        seen = []
        with observe(lambda p, i, outputs, params: seen.append((p.name, len(outputs)))):
            cr.scan(cell(W, B), H, X)
    assert ("scan", 2) in seen


def test_counts_operations() -> None:
    total = 0

    def count(primitive: Any, inputs: Any, outputs: Any, params: Any) -> None:
        nonlocal total
        total += primitive.flops(outputs, *inputs, **params)

    with cr.no_grad(), observe(count):
        cr.scan(lambda h, x: (h @ W + x, None), H, X)
    assert total == 7 * (2 * 2 * 3 * 3 + 2 * 3)


def test_a_nan_is_traced_into_the_loop() -> None:
    def step(c: Any, x: Any) -> Any:
        return cr.log(c) * x, None  # at step 1 of 1, at step 2 of 0

    line = step.__code__.co_firstlineno + 1
    with (
        cr.autograd.detect_anomaly(),
        pytest.raises(
            cr.errors.NonFiniteError,
            match=r"infinity was made by log .* at step 1 of a scan from x float32 \(\) from 0 to"
            rf" 0.*test_control\.py:{line}\]",
        ),
    ):
        cr.scan(step, 1.0, cr.ones(4))
    with (
        cr.autograd.detect_anomaly(),
        pytest.raises(cr.errors.NonFiniteError, match=r"made by sqrt .* at step 0 of a while_loop"),
    ):
        cr.while_loop(lambda c: c < 1, lambda c: cr.cond(c < 0, cr.sqrt, cr.exp, c), -1.0)


# --- cond and while_loop --------------------------------------------------------------------------


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
    with pytest.raises(cr.errors.ShapeError, match=rf"grows \(.*test_control\.py:{line}\)"):
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
