"""L-BFGS and its line search."""

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

import chainrule as cr
from chainrule import optim
from chainrule.errors import ArgumentError, DTypeError
from chainrule.optim.line_search import Point, strong_wolfe
from chainrule.serialize import load_state, save_state


def rosenbrock(x):
    return cr.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def minimise(loss, params, steps=1, **options):
    opt = optim.LBFGS(params, **{"tolerance_change": 1e-15, "tolerance_grad": 1e-9, **options})
    calls = []

    def closure():
        opt.zero_grad()
        value = loss()
        value.backward()
        calls.append(value.item())
        return value

    first = [opt.step(closure) for _ in range(steps)]
    return opt, first, calls


def quadratic(n, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    return root @ root.T + np.eye(n), rng.normal(size=n)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_a_quadratic_is_solved(search):
    a, b = quadratic(6)
    w = cr.zeros(4, dtype="float64", requires_grad=True)
    v = cr.zeros((2, 1), dtype="float64", requires_grad=True)
    a_, b_ = cr.asarray(a), cr.asarray(b)

    def loss():
        x = cr.concat([w, cr.flatten(v)])
        return 0.5 * cr.vecdot(x, a_ @ x) - cr.vecdot(b_, x)

    minimise(loss, [w, v], steps=3, line_search_fn=search, max_iter=40)
    x = np.concatenate([w.detach().numpy(), v.detach().numpy().ravel()])
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-6)


@pytest.mark.parametrize("n", [2, 10])
def test_rosenbrocks_valley(n):
    x = cr.full((n,), -1.2, dtype="float64").requires_grad_()
    opt, _, calls = minimise(
        lambda: rosenbrock(x), [x], steps=10, line_search_fn="strong_wolfe", max_iter=30
    )
    np.testing.assert_allclose(x.detach().numpy(), np.ones(n), rtol=1e-6)
    assert rosen(x.detach().numpy()) < 1e-13
    assert np.abs(rosen_der(x.detach().numpy())).max() < 1e-5
    state = opt.state[x]
    assert state["func_evals"] == len(calls)


def test_the_first_move_is_short_and_downhill():
    x = cr.asarray(np.array([3.0, -4.0]), requires_grad=True)
    minimise(lambda: cr.sum(x * x) / 2, [x], lr=0.7, max_iter=1)
    # d = -g and t = lr min(1, 1 / sum |g|)
    np.testing.assert_allclose(
        x.detach().numpy(), np.array([3.0, -4.0]) * (1 - 0.7 / 7), rtol=1e-14
    )


def test_the_second_move_is_bfgs():
    """With one pair in the history H is the BFGS update of (s'y / y'y) I."""
    a, b = quadratic(3)
    x = cr.zeros(3, dtype="float64", requires_grad=True)
    a_, b_ = cr.asarray(a), cr.asarray(b)
    minimise(lambda: 0.5 * cr.vecdot(x, a_ @ x) - cr.vecdot(b_, x), [x], max_iter=2, max_eval=9)
    g0 = -b
    x1 = -g0 * min(1, 1 / np.abs(g0).sum())
    g1 = a @ x1 - b
    s, y = x1, g1 - g0
    rho = 1 / (s @ y)
    v = np.eye(3) - rho * np.outer(y, s)
    h = v.T @ (s @ y / (y @ y) * np.eye(3)) @ v + rho * np.outer(s, s)
    np.testing.assert_allclose(x.detach().numpy(), x1 - h @ g1, rtol=1e-12)


@pytest.mark.parametrize("t", [0.01, 1.0, 30.0])
def test_line_search_ends_at_a_strong_wolfe_point(t):
    def at(t):  # many local minima along the line
        f = (t - 4) ** 2 / 20 + np.cos(2 * t)
        return Point(t, f, None, (t - 4) / 10 - 2 * np.sin(2 * t))

    start = Point(0.0, at(0.0).loss, None, at(0.0).slope)
    point, calls = strong_wolfe(at, start, t, 1.0, 1e-9, max_steps=50)
    assert point.loss <= start.loss + 1e-4 * point.t * start.slope
    assert abs(point.slope) <= 0.9 * abs(start.slope)
    assert point == at(point.t) and 1 <= calls <= 51


def test_line_search_along_a_straight_line_ends():
    point, calls = strong_wolfe(
        lambda t: Point(t, -t, None, -1.0), Point(0.0, 0.0, None, -1.0), 1.0, 1.0, 1e-9, max_steps=5
    )
    assert point.t == 10.0**5 and calls == 6


def test_stopping():
    x = cr.asarray(np.array([1.0]), requires_grad=True)
    _, _, calls = minimise(lambda: cr.sum(x * x), [x], max_iter=100, max_eval=7, lr=0.01)
    assert len(calls) == 7
    y = cr.asarray(np.array([1.0]), requires_grad=True)
    _, first, calls = minimise(lambda: cr.sum(y * y), [y], tolerance_grad=10.0)
    assert y.detach().item() == 1.0 and len(calls) == 1
    assert first[0].item() == 1.0


def test_resuming_is_exact(tmp_path):
    def fresh():
        return cr.asarray(np.array([-1.2, 1.0, 0.5]), requires_grad=True)

    options = {"line_search_fn": "strong_wolfe", "max_iter": 4, "history_size": 3}
    x = fresh()
    minimise(lambda: rosenbrock(x), [x], steps=6, **options)
    expected = x.detach().tolist()

    y = fresh()
    opt, *_ = minimise(lambda: rosenbrock(y), [y], steps=3, **options)
    save_state([y, opt.state_dict()], tmp_path / "run.ckpt")
    value, state = load_state(tmp_path / "run.ckpt")
    memory = state["state"][0]
    assert [len(memory[name]) for name in ("old_dirs", "old_stps", "ro")] == [3, 3, 3]

    z = fresh()
    z.requires_grad_(False).copy_(value).requires_grad_()
    opt = optim.LBFGS([z], **options)
    opt.load_state_dict(state)

    def closure():
        opt.zero_grad()
        loss = rosenbrock(z)
        loss.backward()
        return loss

    for _ in range(3):
        opt.step(closure)
    assert z.detach().tolist() == expected


def test_errors():
    x = cr.zeros(2, requires_grad=True)
    with pytest.raises(DTypeError, match="pass step\\(\\) a function"):
        optim.LBFGS([x]).step()
    with pytest.raises(ArgumentError, match="one group only"):
        optim.LBFGS([{"params": [x]}, {"params": [cr.zeros(1, requires_grad=True)]}])
