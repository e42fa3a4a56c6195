"""Every optimiser and every schedule, compiled against eager: the same trajectories, few traces."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import TraceError
from chainrule.optim import lr_scheduler

STEPS = 12
# name, arguments, versions that are traced: two where the first step differs from all others
OPTIMIZERS = [
    ("SGD", {"lr": 0.1}, 1),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, 1),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, 1),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "maximize": True}, 2),
    ("Adam", {"lr": 0.05}, 1),
    ("Adam", {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1}, 1),
    ("AdamW", {"lr": 0.05}, 1),
    ("AMSGrad", {"lr": 0.05}, 1),
    ("NAdam", {"lr": 0.05}, 1),
    ("RAdam", {"lr": 0.05}, 2),  # which rectifies from some step on
    ("Adamax", {"lr": 0.05}, 1),
    ("Adagrad", {"lr": 0.05, "lr_decay": 0.1}, 1),
    ("Adadelta", {"lr": 0.5}, 1),
    ("RMSprop", {"lr": 0.02}, 1),
    ("RMSprop", {"lr": 0.02, "centered": True, "momentum": 0.9}, 1),
    ("ASGD", {"lr": 0.05, "t0": 6}, 4),  # which averages from step t0 on
    ("Lion", {"lr": 0.01, "weight_decay": 0.1}, 1),
    ("Rprop", {"lr": 0.01}, 2),
]
ROWS = pytest.mark.parametrize(
    ("name", "arguments", "versions"), OPTIMIZERS,
    ids=[f"{row[0]}-{i}" for i, row in enumerate(OPTIMIZERS)],
)  # fmt: skip


def problem(make_optimizer, backend):
    """A step on a small network in float64, its optimiser and its model; no backend: eager."""
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    opt = make_optimizer(model)

    def step(x, y):
        opt.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return (cr.compile(step, backend=backend) if backend else step), opt, model


def batches():
    generator = np.random.default_rng(1)
    for _ in range(STEPS):
        yield (
            cr.asarray(generator.standard_normal((6, 4))),
            cr.asarray(generator.standard_normal((6, 2))),
        )


def flat(state):
    """The numbers of an optimiser's state, by path."""
    found = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            found[f"{index}.{name}"] = np.asarray(value)
    for i, group in enumerate(state["param_groups"]):
        found.update({f"group {i}.{k}": np.asarray(v) for k, v in group.items() if k != "params"})
    return found


def assert_same_state(opt, other):
    got, expected = flat(opt.state_dict()), flat(other.state_dict())
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(
            got[key].astype(float), value.astype(float), rtol=1e-11, atol=1e-14, err_msg=key
        )


def run(make_optimizer, between=lambda opt, i: None, backend="numpy"):
    step, opt, model = problem(make_optimizer, backend)
    eager, other, twin = problem(make_optimizer, None)
    for i, (x, y) in enumerate(batches()):
        np.testing.assert_allclose(float(step(x, y)), float(eager(x, y)), rtol=1e-12)
        between(opt, i), between(other, i)
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            np.testing.assert_allclose(
                p.detach().numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-14
            )
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12, atol=1e-14)
        assert_same_state(opt, other)
    return step, opt, other


def test_every_optimizer_is_in_the_table():
    defined = {
        name for name in optim.__all__
        if isinstance(getattr(optim, name), type)
        and issubclass(getattr(optim, name), optim.Optimizer)
    }  # fmt: skip
    assert defined - {"Optimizer", "LBFGS"} == {name for name, *_ in OPTIMIZERS}


@ROWS
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_trajectory(name, arguments, versions, backend):
    def make(model):
        return getattr(optim, name)(model.parameters(), **arguments)

    step, _, _ = run(make, backend=backend)
    assert step.traces == versions


@ROWS
def test_groups_with_numbers_of_their_own(name, arguments, versions):
    def make(model):
        first, *rest = model.parameters()
        return getattr(optim, name)(
            [{"params": [first], "lr": 0.03}, {"params": rest}], **arguments
        )

    def change(opt, i):
        opt.param_groups[i % 2]["lr"] *= 0.9
        if i == 4 and "betas" in opt.param_groups[0]:
            opt.param_groups[1]["betas"] = (0.8, 0.99)

    step, _, _ = run(make, change)
    assert step.traces <= versions + 1


@ROWS
def test_state_dicts_go_both_ways(name, arguments, versions):
    make = lambda model: getattr(optim, name)(model.parameters(), **arguments)  # noqa: E731
    step, opt, model = problem(make, "numpy")
    eager, other, twin = problem(make, None)
    for i, (x, y) in enumerate(batches()):
        step(x, y), eager(x, y)
        if i % 4 == 3:
            mine, theirs = opt.state_dict(), other.state_dict()
            opt.load_state_dict(theirs)
            other.load_state_dict(mine)
            ours = model.state_dict()
            model.load_state_dict(twin.state_dict())
            twin.load_state_dict(ours)
    assert_same_state(opt, other)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-12, atol=1e-14)
    assert step.traces <= versions + 3


SCHEDULES = {
    "StepLR": {"step_size": 2}, "MultiStepLR": {"milestones": [2, 5]}, "ConstantLR": {},
    "LinearLR": {}, "ExponentialLR": {"gamma": 0.9}, "PolynomialLR": {"total_iters": 8},
    "CosineAnnealingLR": {"T_max": 8}, "CosineAnnealingWarmRestarts": {"T_0": 3},
    "LambdaLR": {"lr_lambda": lambda t: 1 / (t + 1)},
    "MultiplicativeLR": {"lr_lambda": lambda t: 0.9},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 20},
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_schedules_do_not_compile_again(name, optimizer):
    schedules = {}

    def between(opt, i):
        if id(opt) not in schedules:
            schedules[id(opt)] = getattr(lr_scheduler, name)(opt, **SCHEDULES[name])
        schedules[id(opt)].step()

    arguments = {"lr": 0.1} | ({"momentum": 0.9} if optimizer == "SGD" else {})
    step, opt, other = run(
        lambda model: getattr(optim, optimizer)(model.parameters(), **arguments), between
    )
    assert opt.param_groups[0]["lr"] == other.param_groups[0]["lr"]
    # The schedule adds entries to the groups when it is made, after the first step.
    assert step.traces <= 2


def test_a_schedule_made_before_the_first_step_costs_one_trace():
    schedules = {}

    def make(model):
        opt = optim.Adam(model.parameters())
        schedules[id(opt)] = lr_scheduler.CosineAnnealingLR(opt, T_max=8)
        return opt

    step, _, _ = run(make, lambda opt, i: schedules[id(opt)].step())
    assert step.traces == 1


def test_plateaus():
    def between(opt, i):
        schedule = opt.__dict__.setdefault(
            "plateau", lr_scheduler.ReduceLROnPlateau(opt, patience=0)
        )
        schedule.step(1.0)

    step, opt, _ = run(lambda model: optim.SGD(model.parameters(), lr=0.1), between)
    assert opt.param_groups[0]["lr"] < 1e-3
    assert step.traces == 1


def test_schedule_stepped_inside_the_step():
    def build(compiled):
        cr.manual_seed(0)
        model = nn.Linear(3, 1).double()
        opt = optim.SGD(model.parameters(), lr=0.1)

        def step(x):
            for group in opt.param_groups:
                group["lr"] = group["lr"] * 0.5
            opt.zero_grad()
            model(x).sum().backward()
            opt.step()
            return opt.param_groups[0]["lr"]

        return (cr.compile(step, backend="numpy") if compiled else step), opt, model

    (step, opt, model), (eager, other, twin) = build(True), build(False)
    x = cr.ones((2, 3), dtype=cr.float64)
    for _ in range(3):
        assert step(x) == eager(x)
        assert opt.param_groups[0]["lr"] == other.param_groups[0]["lr"]
    np.testing.assert_allclose(model.weight.detach().numpy(), twin.weight.detach().numpy())
    assert step.traces == 1


def test_an_optimizer_of_ones_own_that_rebinds_its_state():
    class Heavy(optim.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        def update(self, p, g, state, group):
            state["n"] = state.get("n", 0) + 1
            state["m"] = 0.9 * state["m"] + g if "m" in state else g.detach()
            p.copy_(p - group["lr"] / state["n"] * state["m"])

    step, opt, _ = run(lambda model: Heavy(model.parameters()))
    assert step.traces == 2  # the first step finds no state
    assert next(iter(opt.state.values()))["n"] == STEPS


def test_gradients_are_accumulated_where_they_are_not_cleared():
    def build(compiled):
        cr.manual_seed(0)
        model = nn.Linear(3, 2).double()

        def add(x):
            loss = (model(x) ** 2).sum()
            loss.backward()
            return loss

        return (cr.compile(add, backend="numpy") if compiled else add), model

    (add, model), (eager, twin) = build(True), build(False)
    for x, _ in batches():
        add(x[:, :3]), eager(x[:, :3])
        np.testing.assert_allclose(model.weight.grad.numpy(), twin.weight.grad.numpy(), rtol=1e-12)
    assert add.traces == 2  # without a gradient, and with one


def test_clipping_and_accumulation_over_two_batches():
    def build(compiled):
        cr.manual_seed(0)
        model = nn.Linear(4, 2).double()
        opt = optim.AdamW(model.parameters(), lr=0.1)

        def step(x, y):
            opt.zero_grad()
            for part in range(2):
                rows = slice(3 * part, 3 * part + 3)
                nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
            norm = optim.clip_grad_norm_(model.parameters(), 0.5, error_if_nonfinite=True)
            optim.clip_grad_value_(model.parameters(), 0.2)
            opt.step()
            return norm

        return (cr.compile(step, backend="numpy") if compiled else step), model

    (step, model), (eager, twin) = build(True), build(False)
    for x, y in batches():
        np.testing.assert_allclose(step(x, y).numpy(), eager(x, y).numpy(), rtol=1e-12)
        np.testing.assert_allclose(
            model.weight.detach().numpy(), twin.weight.detach().numpy(), rtol=1e-12
        )
    assert step.traces == 1


def test_lbfgs_says_why_it_cannot_be_compiled():
    model = nn.Linear(3, 1)
    opt = optim.LBFGS(model.parameters())

    @cr.compile(backend="numpy")
    def step(x):
        def closure():
            opt.zero_grad()
            loss = (model(x) ** 2).sum()
            loss.backward()
            return loss

        return opt.step(closure)

    before = model.weight.detach()
    with pytest.raises(TraceError, match="LBFGS"):
        step(cr.ones((2, 3)))
    assert model.weight.detach()._array is before._array
    assert model.weight.grad is None


@pytest.mark.parametrize("name", [*SCHEDULES, "ReduceLROnPlateau"])
def test_a_schedule_inside_the_step_is_refused(name):
    model = nn.Linear(2, 1)
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = getattr(lr_scheduler, name)(opt, **SCHEDULES.get(name, {}))
    arguments = (1.0,) if name == "ReduceLROnPlateau" else ()
    before, rate = schedule.state_dict(), opt.param_groups[0]["lr"]
    f = cr.compile(lambda: schedule.step(*arguments), backend="numpy")
    with pytest.raises(TraceError, match="outside, after the compiled step"):
        f()
    assert schedule.state_dict() == before
    assert opt.param_groups[0]["lr"] == rate


@pytest.mark.parametrize("warm_up", [False, True])
def test_moving_averages_of_the_weights(warm_up):
    averages = []
    for backend in ("native", "numpy", None):
        model = nn.Linear(3, 2).double()
        with cr.no_grad():
            model.weight.fill_(1.0)
        ema = optim.ExponentialMovingAverage(model.parameters(), decay=0.9, warm_up=warm_up)

        def update(model=model, ema=ema):
            with cr.no_grad():
                model.weight.copy_(model.weight * 1.1)
            ema.update()

        f = update if backend is None else cr.compile(update, backend=backend)
        for i in range(100):
            f()
            if i == 50:
                ema.decay = 0.8
        assert ema.updates == 100
        assert backend is None or f.traces <= 3
        averages.append(ema.averages[0].numpy())
    np.testing.assert_allclose(averages[0], averages[2], rtol=1e-11)
    np.testing.assert_allclose(averages[1], averages[2], rtol=1e-13)
