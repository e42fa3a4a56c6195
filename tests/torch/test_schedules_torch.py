"""Schedules, clipping and averages against PyTorch's."""

import copy
import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn

torch = pytest.importorskip("torch")

from optim_agreement import assert_close, leaves, loss_of, to_torch  # noqa: E402

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
