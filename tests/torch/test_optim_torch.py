"""Optimisers against PyTorch's: trajectories, states, L-BFGS and its line search."""

import copy
import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import optim
from chainrule.optim.line_search import Point, strong_wolfe
from chainrule.serialize import load_state, save_state

torch = pytest.importorskip("torch")

from optim_agreement import assert_close, closure_of, leaves, run, to_torch, values  # noqa: E402


@pytest.fixture(autouse=True)
def double_precision():
    """PyTorch keeps some scalars of the state (NAdam's, ASGD's) in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


BETAS = {"betas": (0.8, 0.9), "eps": 1e-3}
GRID = {
    "SGD": [
        {}, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.7, "dampening": 0.4, "weight_decay": 0.1},
        {"lr": 0.01, "maximize": True, "weight_decay": 0.01},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
    "Adagrad": [
        {}, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1},
        {"initial_accumulator_value": 0.5, "eps": 0.1, "maximize": True},
    ],
    "RMSprop": [
        {}, {"centered": True}, {"momentum": 0.9, "alpha": 0.9}, {"weight_decay": 0.1, "eps": 0.1},
        {"lr": 1e-3, "momentum": 0.5, "centered": True, "weight_decay": 0.1, "maximize": True},
    ],
    "Adadelta": [{}, {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}],
    "Adam": [
        {}, {"lr": 0.05, **BETAS}, {"lr": 0.05, "amsgrad": True, "betas": (0.9, 0.9)},
        {"lr": 0.05, "weight_decay": 0.1}, {"weight_decay": 0.1, "maximize": True},
        {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    "AdamW": [{}, {"lr": 0.05, "weight_decay": 0.5, "amsgrad": True, **BETAS}, {"maximize": True}],
    "NAdam": [
        {}, {"lr": 0.02, "momentum_decay": 0.3, **BETAS}, {"weight_decay": 0.1},
        {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ],
    "RAdam": [
        {}, {"lr": 0.05, **BETAS}, {"weight_decay": 0.1, "maximize": True},
        {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    "Adamax": [{}, {"lr": 0.05, "weight_decay": 0.1, **BETAS}, {"maximize": True}],
    "Rprop": [{}, {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.2)}, {"maximize": True}],
    "ASGD": [{}, {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "t0": 20, "weight_decay": 0.1}],
}  # fmt: skip
CASES = [(name, options) for name, grid in GRID.items() for options in grid]
BY_CASE = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{n}-{'-'.join(o) or 'defaults'}" for n, o in CASES]
)


@BY_CASE
def test_trajectory(name, options):
    ours, _, _ = run(cr, lambda p: getattr(optim, name)(p, **options))
    theirs, _, _ = run(torch, lambda p: getattr(torch.optim, name)(p, **options))
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12, err_msg=f"step {step}")


def test_amsgrad_is_adam_with_amsgrad():
    ours, _, _ = run(cr, lambda p: optim.AMSGrad(p, lr=0.05, betas=(0.9, 0.9)))
    theirs, _, _ = run(
        torch, lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.9, 0.9), amsgrad=True)
    )
    assert_close(ours[-1], theirs[-1])


def test_groups():
    def groups(p):
        return [{"params": p[:2], "lr": 0.1}, {"params": p[2:], "momentum": 0.5, "nesterov": True}]

    ours, _, _ = run(cr, lambda p: optim.SGD(groups(p), lr=0.02, momentum=0.9))
    theirs, _, _ = run(torch, lambda p: torch.optim.SGD(groups(p), lr=0.02, momentum=0.9))
    assert_close(ours[-1], theirs[-1])


@pytest.mark.parametrize("name", GRID)
def test_defaults_are_pytorchs(name):
    ours = getattr(optim, name)(leaves(cr)).defaults
    theirs = getattr(torch.optim, name)(leaves(torch)).defaults
    assert ours == {k: v for k, v in theirs.items() if k in ours}
    assert theirs.keys() - ours.keys() <= {"foreach", "fused", "capturable", "differentiable"}


# --- states ---------------------------------------------------------------------------------------


EXCHANGE = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}), ("SGD", {}), ("Adagrad", {"lr_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9, "centered": True}), ("Adadelta", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}), ("AdamW", {"lr": 0.05}), ("NAdam", {}),
    ("RAdam", {"betas": (0.9, 0.9)}), ("Adamax", {}), ("Rprop", {}), ("ASGD", {"t0": 5}),
    ("LBFGS", {"max_iter": 4, "history_size": 3, "line_search_fn": "strong_wolfe"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), EXCHANGE, ids=[n for n, _ in EXCHANGE])
@pytest.mark.parametrize("file", [False, True], ids=["direct", "by-file"])
def test_states_go_both_ways(name, options, file, tmp_path):
    steps = 3 if name == "LBFGS" else 10
    _, opt, params = run(torch, lambda p: getattr(torch.optim, name)(p, **options), steps)
    state = copy.deepcopy(opt.state_dict())

    # From PyTorch to here ...
    mine = leaves(cr)
    with cr.no_grad():
        for p, q in zip(mine, params, strict=True):
            p.copy_(cr.asarray(q.detach().numpy().copy()))
    ours = getattr(optim, name)(mine)
    ours.load_state_dict(state)
    if file:
        save_state(ours.state_dict(), tmp_path / "opt.ckpt")
        ours = getattr(optim, name)(mine)
        ours.load_state_dict(load_state(tmp_path / "opt.ckpt"))

    # ... and back.
    back = leaves(torch)
    with torch.no_grad():
        for p, q in zip(back, mine, strict=True):
            p.copy_(torch.tensor(q.detach().numpy()))
    theirs = getattr(torch.optim, name)(back)
    theirs.load_state_dict(to_torch(ours.state_dict()))

    for _ in range(steps):
        opt.step(closure_of(torch, opt, params))
        ours.step(closure_of(cr, ours, mine))
        theirs.step(closure_of(torch, theirs, back))
    tolerance = 1e-9 if name == "LBFGS" else 1e-12
    assert_close(values(mine), values(params), rtol=tolerance, atol=1e-13)
    assert_close(values(back), values(params), rtol=tolerance, atol=1e-13)


def test_our_state_lies_as_pytorchs_does():
    for name, options in EXCHANGE:
        _, ours, _ = run(cr, lambda p: getattr(optim, name)(p, **options), 2)  # noqa: B023
        _, theirs, _ = run(torch, lambda p: getattr(torch.optim, name)(p, **options), 2)  # noqa: B023
        ours, theirs = ours.state_dict(), theirs.state_dict()
        assert ours["state"].keys() == theirs["state"].keys()
        for index, entry in ours["state"].items():
            assert entry.keys() == theirs["state"][index].keys() - {"al"}, name
        for a, b in zip(ours["param_groups"], theirs["param_groups"], strict=True):
            assert a == {k: v for k, v in b.items() if k in a}


# --- L-BFGS ---------------------------------------------------------------------------------------

LBFGS = [
    {"max_iter": 5}, {"lr": 0.5, "max_iter": 8, "history_size": 2},
    {"line_search_fn": "strong_wolfe", "max_iter": 5},
    {"line_search_fn": "strong_wolfe", "max_iter": 3, "max_eval": 4, "history_size": 2},
    {"line_search_fn": "strong_wolfe", "lr": 30.0, "max_iter": 4},
    {"line_search_fn": "strong_wolfe", "lr": 0.001, "max_iter": 4},
    {"tolerance_grad": 0.5}, {"tolerance_change": 0.3, "line_search_fn": "strong_wolfe"},
]  # fmt: skip


@pytest.mark.parametrize("options", LBFGS, ids=lambda o: "-".join(o))
def test_lbfgs(options):
    ours, a, p = run(cr, lambda p: optim.LBFGS(p, **options), 3)
    theirs, b, q = run(torch, lambda p: torch.optim.LBFGS(p, **options), 3)
    for x, y in zip(ours, theirs, strict=True):
        assert_close(x, y, rtol=1e-8, atol=1e-10)
    for key in ("func_evals", "n_iter"):
        assert a.state[p[0]].get(key) == b.state[q[0]].get(key), key


def wavy(seed):
    """A function of one variable with many minima that falls at 0, its slope, and a first step."""
    rng = np.random.default_rng(seed)
    size, speed, phase = rng.normal(size=6), rng.uniform(0.1, 4, 6), rng.uniform(0, 7, 6)
    bowl = rng.choice([0.0, 0.01, 1.0])

    def f(t):
        return float(bowl * (t - 3) ** 2 + np.sum(size * np.sin(speed * t + phase)))

    lie = 3 * (seed % 3 == 0)  # a derivative that is wrong leads to the corners of the search

    def slope(t):
        true = 2 * bowl * (t - 3) + np.sum(size * speed * np.cos(speed * t + phase))
        return float(true + lie * np.cos(7 * t + 1))

    step = 10 ** rng.uniform(-2, 1)
    return (f, slope, step) if slope(0.0) < 0 else (lambda t: -f(t), lambda t: -slope(t), step)


def our_search(f, slope, t, max_steps):
    start = Point(0.0, f(0.0), None, slope(0.0))
    point, calls = strong_wolfe(
        lambda t: Point(t, f(t), None, slope(t)), start, t, 1.0, 1e-9, max_steps=max_steps
    )
    return point.t, calls


def their_search(f, slope, t, max_steps):
    from torch.optim.lbfgs import _strong_wolfe

    _, _, t, calls = _strong_wolfe(
        lambda x, t, d: (f(float(t)), torch.tensor([slope(float(t))])), None, t,
        torch.ones(1), f(0.0), torch.tensor([slope(0.0)]), torch.tensor(slope(0.0)),
        max_ls=max_steps,
    )  # fmt: skip
    return float(t), calls


def test_line_search():
    """Step and number of evaluations on wavy functions, but for the few where rounding decides."""
    left_out, counts = 0, set()
    for seed in range(300):
        f, slope, t = wavy(seed)
        ours, calls = our_search(f, slope, t, 3 + seed % 20)
        noisy = lambda t: f(t) + 1e-14 * math.sin(1e9 * t)  # noqa: B023, E731
        shaken, _ = our_search(noisy, slope, t, 3 + seed % 20)
        if abs(shaken - ours) > 1e-6 * ours:
            left_out += 1
            continue
        theirs = their_search(f, slope, t, 3 + seed % 20)
        assert (ours, calls) == (pytest.approx(theirs[0], rel=1e-6), theirs[1]), seed
        counts.add(calls)
    assert left_out < 10 and counts >= set(range(1, 8))
