"""Optimisers, schedules, clipping and averages against PyTorch's."""

import copy
import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.optim.line_search import Point, strong_wolfe
from chainrule.serialize import load_state, save_state

torch = pytest.importorskip("torch")

STEPS = 50
RNG = np.random.default_rng(11)
DATA, TARGET = RNG.normal(size=(8, 4)), RNG.normal(size=(8, 3))
STARTS = [RNG.normal(size=(4, 5)), RNG.normal(size=5), RNG.normal(size=(5, 3)), np.array(0.3)]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*scalar.*:UserWarning"),
]


@pytest.fixture(autouse=True)
def double_precision():
    """PyTorch keeps some scalars of the state (NAdam's, ASGD's) in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def leaves(lib):
    if lib is cr:
        return [cr.asarray(w.copy(), requires_grad=True) for w in STARTS]
    return [torch.tensor(w, requires_grad=True) for w in STARTS]


def loss_of(lib, params):
    """A small network with a scalar parameter: a loss that is not convex."""
    a, b, c, d = params
    x, y = (cr.asarray(v) if lib is cr else torch.tensor(v) for v in (DATA, TARGET))
    return (((lib.tanh(x @ a + b) @ c) * lib.exp(d) - y) ** 2).mean()


def closure_of(lib, opt, params):
    # What is maximised is bounded, or rounding would grow without bounds too.
    sign = -1 if opt.param_groups[0].get("maximize") else 1

    def closure():
        opt.zero_grad()
        loss = sign * loss_of(lib, params)
        loss.backward()
        return loss

    return closure


def values(params):
    return [p.detach().numpy().copy() for p in params]


def assert_close(ours, theirs, rtol=1e-12, atol=1e-14):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def run(lib, make, steps=STEPS):
    """The parameters after every step."""
    params = leaves(lib)
    opt = make(params)
    closure = closure_of(lib, opt, params)
    path = []
    for _ in range(steps):
        opt.step(closure)
        path.append(values(params))
    return path, opt, params


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


def to_torch(value):
    """Our state as PyTorch takes it: tensors of its own."""
    if isinstance(value, dict):
        return {k: to_torch(v) for k, v in value.items()}
    if isinstance(value, list):
        return [to_torch(v) for v in value]
    return torch.tensor(value.numpy()) if isinstance(value, cr.Tensor) else value


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


# --- schedules ------------------------------------------------------------------------------------

SCHEDULES = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, [lambda t: 0.95**t, lambda t: 1 / (t + 1)]),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda t: 0.99),
    "StepLR": lambda s, o: s.StepLR(o, 30, 0.3),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [20, 80, 80, 150], 0.5),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.25, 40),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.1, 0.7, 50),
    "LinearLR to 0": lambda s, o: s.LinearLR(o, 1.0, 0.0, 150),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.97),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 120, 2.5),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 35, 0.001),
    "CosineAnnealingLR of one": lambda s, o: s.CosineAnnealingLR(o, 1, 0.001),
    "WarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 7, 2, 0.001),
    "WarmRestarts, equal": lambda s, o: s.CosineAnnealingWarmRestarts(o, 7),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, [0.5, 1.0], 200),
    "OneCycleLR, linear": lambda s, o: s.OneCycleLR(
        o, 0.5, epochs=20, steps_per_epoch=10, pct_start=0.4, anneal_strategy="linear",
        three_phase=True, div_factor=10.0, final_div_factor=50.0, base_momentum=[0.7, 0.8],
    ),
    "OneCycleLR, momentum stays": lambda s, o: s.OneCycleLR(o, 0.5, 200, cycle_momentum=False),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.001, [0.5, 0.3], 20, 30),
    "CyclicLR 2": lambda s, o: s.CyclicLR(o, 0.001, 0.5, 13, mode="triangular2"),
    "CyclicLR exp": lambda s, o: s.CyclicLR(o, 0.001, 0.5, 13, mode="exp_range", gamma=0.99),
    "CyclicLR own": lambda s, o: s.CyclicLR(
        o, 0.001, 0.5, 13, scale_fn=lambda t: 1 / (1 + t), scale_mode="iterations",
        cycle_momentum=False,
    ),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler(
        [s.LinearLR(o, 0.1, total_iters=20), s.ExponentialLR(o, 0.99), s.StepLR(o, 50)]
    ),
    "Chained cosine": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, 0.5, 10), s.CosineAnnealingLR(o, 30, 0.01)]
    ),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o,
        [s.LinearLR(o, 0.1, total_iters=20), s.CosineAnnealingLR(o, 100), s.ExponentialLR(o, 0.9)],
        [20, 120],
    ),
    "SequentialLR, restarts": lambda s, o: s.SequentialLR(
        o,
        [s.ConstantLR(o, 0.1, 5), s.CosineAnnealingWarmRestarts(o, 10, 2), s.PolynomialLR(o, 50)],
        [8, 100],
    ),
}  # fmt: skip
BY_SCHEDULE = pytest.mark.parametrize("name", SCHEDULES)


def scheduled(lib, name, optimizer="SGD"):
    params = leaves(lib)
    groups = [{"params": params[:1], "lr": 0.5}, {"params": params[1:], "lr": 0.02}]
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    opt = getattr(lib.optim, optimizer)(groups, **options)
    return opt, SCHEDULES[name](lib.optim.lr_scheduler, opt)


def settings(opt):
    return [(g["lr"], g["betas"][0] if "betas" in g else g["momentum"]) for g in opt.param_groups]


@BY_SCHEDULE
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_schedule(name, optimizer):
    ours, mine = scheduled(cr, name, optimizer)
    theirs, other = scheduled(torch, name, optimizer)
    for epoch in range(200):
        np.testing.assert_allclose(
            settings(ours), settings(theirs), rtol=1e-15, atol=1e-17, err_msg=f"epoch {epoch}"
        )
        np.testing.assert_allclose(mine.get_last_lr(), other.get_last_lr(), rtol=1e-15, atol=1e-17)
        ours.step()
        theirs.step()
        mine.step()
        other.step()


@BY_SCHEDULE
def test_states_of_schedules_go_both_ways(name):
    ours, mine = scheduled(cr, name)
    theirs, other = scheduled(torch, name)
    for _ in range(33):
        other.step()
    mine.load_state_dict(copy.deepcopy(other.state_dict()))
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    again, third = scheduled(torch, name)
    third.load_state_dict(copy.deepcopy(mine.state_dict()))
    again.load_state_dict(copy.deepcopy(to_torch(ours.state_dict())))
    for _ in range(60):
        np.testing.assert_allclose(settings(ours), settings(theirs), rtol=1e-14, atol=1e-17)
        np.testing.assert_allclose(settings(again), settings(theirs), rtol=1e-14, atol=1e-17)
        mine.step()
        other.step()
        third.step()


STEP_BY_STEP = ("Multiplicative", "Chained", "Sequential")  # PyTorch's cannot jump either


@pytest.mark.parametrize("name", [n for n in SCHEDULES if not n.startswith(STEP_BY_STEP)])
def test_jumps(name):
    ours, mine = scheduled(cr, name)
    theirs, other = scheduled(torch, name)
    for epoch in (80, 3, 150, 20):
        mine.step(epoch)
        other.step(epoch)
        np.testing.assert_allclose(settings(ours), settings(theirs), rtol=1e-15, atol=1e-17)


PLATEAU = [
    {}, {"factor": 0.5, "patience": 2, "cooldown": 3}, {"threshold_mode": "abs", "patience": 1},
    {"mode": "max", "patience": 3, "threshold": 0.01},
    {"factor": 0.3, "patience": 0, "min_lr": [0.1, 0.001], "eps": 1e-3},
]  # fmt: skip


@pytest.mark.parametrize("options", PLATEAU, ids=lambda o: "-".join(o) or "defaults")
def test_plateau(options):
    rng = np.random.default_rng(4)
    measures = [2 + math.sin(t / 11) + 0.1 * rng.normal() for t in range(200)]
    measures[17] = math.nan
    SCHEDULES["plateau"] = lambda s, o: s.ReduceLROnPlateau(o, **options)
    try:
        ours, mine = scheduled(cr, "plateau")
        theirs, other = scheduled(torch, "plateau")
        for epoch, measure in enumerate(measures):
            mine.step(measure)
            other.step(measure)
            assert settings(ours) == settings(theirs), epoch
            if epoch == 100:
                state = other.state_dict()
                ours, mine = scheduled(cr, "plateau")
                ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
                mine.load_state_dict(copy.deepcopy(state))
        assert mine.state_dict() == {
            k: v for k, v in other.state_dict().items() if not k.startswith("_get")
        }
    finally:
        del SCHEDULES["plateau"]


# --- clipping and averages ------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf, 0.0])
@pytest.mark.parametrize("bound", [0.05, 1.0, 1e4])
def test_clipping_by_norm(p, bound):
    mine, theirs = leaves(cr), leaves(torch)
    loss_of(cr, mine).backward()
    loss_of(torch, theirs).backward()
    a = nn.utils.clip_grad_norm_(mine, bound, p)
    b = torch.nn.utils.clip_grad_norm_(theirs, bound, p)
    assert a.item() == pytest.approx(b.item(), rel=1e-13)
    assert_close([x.grad.numpy() for x in mine], [x.grad.numpy() for x in theirs])


def test_clipping_by_value():
    mine, theirs = leaves(cr), leaves(torch)
    loss_of(cr, mine).backward()
    loss_of(torch, theirs).backward()
    nn.utils.clip_grad_value_(mine, 0.05)
    torch.nn.utils.clip_grad_value_(theirs, 0.05)
    assert_close([x.grad.numpy() for x in mine], [x.grad.numpy() for x in theirs])


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 10])
def test_swa_schedule(strategy, epochs):
    rows = []
    for lib in (cr, torch):
        opt = lib.optim.SGD([{"params": leaves(lib)}], lr=0.5)
        schedule = lib.optim.swa_utils.SWALR(opt, 0.05, epochs, strategy)
        row = []
        for _ in range(20):
            row.append(opt.param_groups[0]["lr"])
            schedule.step()
        rows.append(row)
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-14)


@pytest.mark.parametrize("fading", [False, True])
def test_averaged_model(fading):
    averages = []
    for lib in (cr, torch):
        model = lib.nn.Linear(4, 3)
        options = {"avg_fn": lib.optim.swa_utils.get_ema_avg_fn(0.8)} if fading else {}
        averaged = lib.optim.swa_utils.AveragedModel(model, **options)
        for seed in range(4):
            new = np.random.default_rng(seed).normal(size=(3, 4))
            with lib.no_grad():
                weight = cr.asarray(new) if lib is cr else torch.tensor(new)
                model.weight.copy_(weight)
            averaged.update_parameters(model)
        averages.append(averaged.module.weight.detach().numpy())
        assert averaged.n_averaged.item() == 4
    np.testing.assert_allclose(averages[0], averages[1], rtol=1e-5)
