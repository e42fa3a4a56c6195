"""Schedules against their closed forms, over 200 epochs; resuming; bad arguments."""

import functools
import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import optim
from chainrule.errors import ArgumentError, ChainruleError, CheckpointError, DTypeError
from chainrule.optim import lr_scheduler as sched
from chainrule.serialize import load_state, save_state

EPOCHS = 200
BASES = (0.5, 0.02)


def make_optimizer(cls=optim.SGD, **options):
    params = [{"params": [cr.zeros(1, requires_grad=True)], "lr": lr} for lr in BASES]
    return cls(params, **({"momentum": 0.9} if cls is optim.SGD else {}), **options)


def rates(scheduler, epochs=EPOCHS, measure=None):
    """The rates of both groups in every epoch."""
    rows = []
    for t in range(epochs):
        rows.append([g["lr"] for g in scheduler.optimizer.param_groups])
        assert t == 0 or scheduler.get_last_lr() == rows[-1]
        scheduler.step() if measure is None else scheduler.step(measure(t))
    return np.array(rows)


def half_cosine(t, period, low, lr):
    return low + (lr - low) * (1 + math.cos(math.pi * t / period)) / 2


def warm_restarts(t, lr, first=10, ratio=2, low=0.001):
    period = first
    while t >= period:
        t, period = t - period, period * ratio
    return half_cosine(t, period, low, lr)


def one_cycle(t, top, total=EPOCHS, share=0.3, div=25, final=1e4, three=False):
    def between(a, b, x):
        return b + (a - b) * (1 + math.cos(math.pi * x)) / 2

    low, up = top / div, share * total - 1
    if t <= up:
        return between(low, top, t / up)
    if three and t <= 2 * up:
        return between(top, low, (t - up) / up)
    begin, high = (2 * up, low) if three else (up, top)
    return between(high, low / final, (t - begin) / (total - 1 - begin))


def triangle(t, low, high, up=20, down=30, scale=lambda cycle, t: 1):
    cycle, t_in = divmod(t, up + down)
    height = t_in / up if t_in <= up else 1 - (t_in - up) / down
    return low + (high - low) * height * scale(cycle, t)


# name, schedule, rate of a group with base rate lr in epoch t
CASES = {
    "lambda": (
        lambda o: sched.LambdaLR(o, lambda t: 1 / (1 + t)),
        lambda t, lr: lr / (1 + t),
    ),
    "lambda for each group": (
        lambda o: sched.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1.0]),
        lambda t, lr: lr * 0.9**t if lr == BASES[0] else lr,
    ),
    "multiplicative": (
        lambda o: sched.MultiplicativeLR(o, lambda t: 1 - 1 / (t + 1)),
        lambda t, lr: lr / (t + 1),
    ),
    "step": (lambda o: sched.StepLR(o, 30, 0.3), lambda t, lr: lr * 0.3 ** (t // 30)),
    "multi-step": (
        lambda o: sched.MultiStepLR(o, [20, 80, 80, 150], 0.5),
        lambda t, lr: lr * 0.5 ** ((t >= 20) + 2 * (t >= 80) + (t >= 150)),
    ),
    "constant": (
        lambda o: sched.ConstantLR(o, 0.25, 40),
        lambda t, lr: lr * (0.25 if t < 40 else 1),
    ),
    "linear warm-up": (
        lambda o: sched.LinearLR(o, 0.1, 1.0, 50),
        lambda t, lr: lr * (0.1 + 0.9 * min(t, 50) / 50),
    ),
    "linear decay": (
        lambda o: sched.LinearLR(o, 1.0, 0.0, 150),
        lambda t, lr: lr * (1 - min(t, 150) / 150),
    ),
    "exponential": (lambda o: sched.ExponentialLR(o, 0.97), lambda t, lr: lr * 0.97**t),
    "polynomial": (
        lambda o: sched.PolynomialLR(o, 120, 2.5),
        lambda t, lr: lr * (1 - min(t, 120) / 120) ** 2.5,
    ),
    "cosine": (
        lambda o: sched.CosineAnnealingLR(o, 70, 0.001),
        lambda t, lr: half_cosine(t, 70, 0.001, lr),
    ),
    "cosine to zero": (
        lambda o: sched.CosineAnnealingLR(o, EPOCHS),
        lambda t, lr: half_cosine(t, EPOCHS, 0, lr),
    ),
    "warm restarts": (
        lambda o: sched.CosineAnnealingWarmRestarts(o, 10, 2, 0.001),
        lambda t, lr: warm_restarts(t, lr),
    ),
    "warm restarts, equal": (
        lambda o: sched.CosineAnnealingWarmRestarts(o, 15),
        lambda t, lr: half_cosine(t % 15, 15, 0, lr),
    ),
    "one cycle": (
        lambda o: sched.OneCycleLR(o, list(BASES), EPOCHS),
        lambda t, lr: one_cycle(t, lr),
    ),
    "one cycle in three phases": (
        lambda o: sched.OneCycleLR(
            o, list(BASES), epochs=20, steps_per_epoch=10, pct_start=0.2, three_phase=True
        ),
        lambda t, lr: one_cycle(t, lr, share=0.2, three=True),
    ),
    "triangular": (
        lambda o: sched.CyclicLR(o, 0.001, list(BASES), 20, 30),
        lambda t, lr: triangle(t, 0.001, lr),
    ),
    "triangular2": (
        lambda o: sched.CyclicLR(o, 0.001, list(BASES), 20, 30, mode="triangular2"),
        lambda t, lr: triangle(t, 0.001, lr, scale=lambda cycle, t: 0.5**cycle),
    ),
    "exp_range": (
        lambda o: sched.CyclicLR(o, 0.001, list(BASES), 20, 30, mode="exp_range", gamma=0.99),
        lambda t, lr: triangle(t, 0.001, lr, scale=lambda cycle, t: 0.99**t),
    ),
    "cyclic, own scale": (
        lambda o: sched.CyclicLR(o, 0.001, list(BASES), 20, 30, scale_fn=lambda c: 1 / c),
        lambda t, lr: triangle(t, 0.001, lr, scale=lambda cycle, t: 1 / (cycle + 1)),
    ),
    "chained": (
        lambda o: sched.ChainedScheduler(
            [sched.LinearLR(o, 0.1, 1, 20), sched.ExponentialLR(o, 0.98)]
        ),
        lambda t, lr: lr * (0.1 + 0.9 * min(t, 20) / 20) * 0.98**t,
    ),
    "sequential": (
        lambda o: sched.SequentialLR(
            o,
            [
                sched.LinearLR(o, 0.1, 1, 20),
                sched.CosineAnnealingLR(o, 100),
                sched.ConstantLR(o, 0.5),
            ],
            [20, 120],
        ),
        lambda t, lr: (
            lr * (0.1 + 0.9 * t / 20) if t < 20
            else half_cosine(t - 20, 100, 0, lr) if t < 120
            else lr * (0.5 if t < 125 else 1)
        ),
    ),
    "sequential, first chained": (
        lambda o: sched.SequentialLR(
            o,
            [
                sched.ChainedScheduler([sched.ExponentialLR(o, 0.9), sched.StepLR(o, 5, 0.5)]),
                sched.ExponentialLR(o, 0.99),
            ],
            [12],
        ),
        lambda t, lr: lr * (0.9**t * 0.5 ** (t // 5) if t < 12 else 0.99 ** (t - 12)),
    ),
    "sequential in a sequential": (
        lambda o: sched.SequentialLR(
            o,
            [
                sched.SequentialLR(o, [sched.StepLR(o, 3, 0.5), sched.ExponentialLR(o, 0.9)], [7]),
                sched.ConstantLR(o, 0.1, 1000),
            ],
            [20],
        ),
        lambda t, lr: lr * (0.5 ** (t // 3) if t < 7 else 0.9 ** (t - 7) if t < 20 else 0.1),
    ),
}  # fmt: skip
BY_CASE = pytest.mark.parametrize("case", CASES)


@BY_CASE
def test_closed_form(case):
    make, formula = CASES[case]
    expected = [[formula(t, lr) for lr in BASES] for t in range(EPOCHS)]
    np.testing.assert_allclose(rates(make(make_optimizer())), expected, rtol=1e-10, atol=1e-13)


@BY_CASE
@pytest.mark.parametrize("epoch", [1, 19, 20, 71])
def test_resuming_is_exact(case, epoch, tmp_path):
    make, _ = CASES[case]
    expected = rates(make(make_optimizer()))
    opt = make_optimizer()
    scheduler = make(opt)
    rates(scheduler, epoch)
    save_state([opt.state_dict(), scheduler.state_dict()], tmp_path / "state.ckpt")
    loaded = load_state(tmp_path / "state.ckpt")

    opt = make_optimizer()
    scheduler = make(opt)
    opt.load_state_dict(loaded[0])
    scheduler.load_state_dict(loaded[1])
    assert [g["lr"] for g in opt.param_groups] == list(expected[epoch])
    assert scheduler.get_last_lr() == list(expected[epoch])
    np.testing.assert_array_equal(rates(scheduler, EPOCHS - epoch), expected[epoch:])


STEP_BY_STEP = ("multiplicative", "chained", "sequential")


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith(STEP_BY_STEP)])
def test_jumping_to_an_epoch(case):
    make, formula = CASES[case]
    scheduler = make(make_optimizer())
    for epoch in (80, 3, 150, 20):
        scheduler.step(epoch)
        expected = [formula(epoch, lr) for lr in BASES]
        np.testing.assert_allclose(scheduler.get_last_lr(), expected, rtol=1e-10, atol=1e-13)


def test_going_on_with_last_epoch():
    opt = make_optimizer()
    first = sched.CosineAnnealingLR(opt, 70)
    expected = rates(sched.CosineAnnealingLR(make_optimizer(), 70), 60)
    rates(first, 30)
    again = sched.CosineAnnealingLR(opt, 70, last_epoch=first.last_epoch - 1)
    np.testing.assert_allclose(rates(again, 30), expected[30:], rtol=1e-12)
    with pytest.raises(ArgumentError, match="initial_lr"):
        sched.CosineAnnealingLR(make_optimizer(), 70, last_epoch=5)


def test_a_rate_changed_by_hand_stays_changed():
    opt = make_optimizer()
    scheduler = sched.ExponentialLR(opt, 0.5)
    opt.param_groups[0]["lr"] = 8.0
    scheduler.step()
    assert opt.param_groups[0]["lr"] == 4.0


def test_warm_restarts_within_an_epoch():
    scheduler = sched.CosineAnnealingWarmRestarts(make_optimizer(), 10, 2, 0.001)
    for t in (0.25, 9.9, 10.5, 29.75, 30.25, 69.5, 100.125):
        scheduler.step(t)
        expected = [warm_restarts(t, lr) for lr in BASES]
        np.testing.assert_allclose(scheduler.get_last_lr(), expected, rtol=1e-10)
        assert scheduler.last_epoch == math.floor(t)


@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.Lion])
def test_momentum_moves_against_the_rate(cls):
    def momentum(group):
        return group["momentum"] if cls is optim.SGD else group["betas"][0]

    opt = make_optimizer(cls)
    scheduler = sched.OneCycleLR(opt, 1.0, 100, base_momentum=0.7, max_momentum=0.95)
    row = []
    for _ in range(100):
        row.append(momentum(opt.param_groups[0]))
        scheduler.step()
    expected = [
        0.95 - 0.25 * (1 - math.cos(math.pi * (t / 29 if t <= 29 else 1 - (t - 29) / 70))) / 2
        for t in range(100)
    ]
    np.testing.assert_allclose(row, expected, rtol=1e-12)

    opt = make_optimizer(cls)
    scheduler = sched.CyclicLR(opt, 0.1, 1.0, 20, 30, base_momentum=0.7, max_momentum=0.95)
    for t in range(100):
        assert momentum(opt.param_groups[1]) == pytest.approx(
            1.65 - triangle(t, 0.7, 0.95), rel=1e-12
        )
        scheduler.step()
    if cls is not optim.SGD:
        assert opt.param_groups[0]["betas"][1] == opt.defaults["betas"][1]


def test_one_cycle_ends():
    scheduler = sched.OneCycleLR(make_optimizer(), 1.0, 10)
    for _ in range(10):
        scheduler.step()
    with pytest.raises(ArgumentError, match="made for 10 steps"):
        scheduler.step()


# --- plateau --------------------------------------------------------------------------------------


def test_plateau_counts_bad_epochs():
    opt = make_optimizer()
    scheduler = sched.ReduceLROnPlateau(opt, factor=0.5, patience=2, cooldown=3, min_lr=[0.2, 0.0])
    measures = [5, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 3, math.nan, 3, 3, 3]
    falls = []
    for epoch, measure in enumerate(measures):
        before = opt.param_groups[1]["lr"]
        scheduler.step(measure)
        if opt.param_groups[1]["lr"] < before:
            falls.append(epoch)
    # Epochs 2, 3, 4 are bad; 5, 6, 7 do not count; 8, 9, 10 are bad; 11 is best; 12 and 13 do not
    # count, as the second cooldown is on.
    assert falls == [4, 10]
    assert [g["lr"] for g in opt.param_groups] == [0.2, 0.005]


@pytest.mark.parametrize(
    ("options", "measures", "better"),
    [
        ({"mode": "min", "threshold": 0.1}, [10, 9.5, 8.9], [True, False, True]),
        ({"mode": "max", "threshold": 0.1}, [10, 10.5, 11.1], [True, False, True]),
        (
            {"mode": "min", "threshold": 1, "threshold_mode": "abs"},
            [10, 9.5, 8.9],
            [True, False, True],
        ),
        (
            {"mode": "max", "threshold": 1, "threshold_mode": "abs"},
            [-9, -8.5, -7.9],
            [True, False, True],
        ),
    ],
)
def test_plateau_thresholds(options, measures, better):
    scheduler = sched.ReduceLROnPlateau(make_optimizer(), **options)
    for measure, expected in zip(measures, better, strict=True):
        bad = scheduler.num_bad_epochs
        scheduler.step(cr.asarray(measure))
        assert (scheduler.num_bad_epochs == 0) == expected, (measure, bad)


def test_plateau_resumes(tmp_path):
    measures = [math.sin(t / 9) + 2 for t in range(100)]

    def make():
        opt = make_optimizer()
        return opt, sched.ReduceLROnPlateau(opt, factor=0.7, patience=3, cooldown=2)

    _, scheduler = make()
    expected = rates(scheduler, 100, measures.__getitem__)
    opt, scheduler = make()
    rates(scheduler, 45, measures.__getitem__)
    save_state([opt.state_dict(), scheduler.state_dict()], tmp_path / "state.ckpt")
    loaded = load_state(tmp_path / "state.ckpt")
    opt, scheduler = make()
    opt.load_state_dict(loaded[0])
    scheduler.load_state_dict(loaded[1])
    rest = rates(scheduler, 55, lambda t: measures[45 + t])
    np.testing.assert_array_equal(rest, expected[45:])
    assert len(np.unique(expected[:, 0])) > 5


def test_plateau_with_a_group_added_later():
    opt = make_optimizer()
    scheduler = sched.ReduceLROnPlateau(opt, factor=0.5, patience=0)
    listed = sched.ReduceLROnPlateau(opt, factor=0.5, patience=0, min_lr=[0.0, 0.0])
    opt.add_param_group({"params": [cr.zeros(1, requires_grad=True)], "lr": 1.0})
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert [g["lr"] for g in opt.param_groups] == [0.25, 0.01, 0.5]
    listed.step(1.0)
    with pytest.raises(ArgumentError, match="3 groups now"):
        listed.step(1.0)


# --- states and errors ----------------------------------------------------------------------------


class Warm:
    """A schedule function with a state of its own."""

    def __init__(self, speed):
        self.speed = speed

    def __call__(self, t):
        return min(1.0, self.speed * (t + 1))


def test_functions_are_not_saved_and_objects_are():
    state = sched.LambdaLR(make_optimizer(), [Warm(0.1), lambda t: 1.0]).state_dict()
    assert state["lr_lambdas"] == [{"speed": 0.1}, None]
    scheduler = sched.LambdaLR(make_optimizer(), [Warm(0.7), lambda t: 2.0])
    scheduler.load_state_dict(state)
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5 * 0.2, 0.02 * 2.0]
    partial = functools.partial(lambda a, t: a, 3.0)
    assert sched.LambdaLR(make_optimizer(), partial).state_dict()["lr_lambdas"] == [{}, {}]


def test_states_of_other_schedules_are_refused():
    step = sched.StepLR(make_optimizer(), 3).state_dict()
    with pytest.raises(CheckpointError, match="T_max, eta_min, gamma, step_size"):
        sched.CosineAnnealingLR(make_optimizer(), 3).load_state_dict(step)
    opt = make_optimizer()
    chained = sched.ChainedScheduler([sched.StepLR(opt, 3)])
    with pytest.raises(CheckpointError, match="0 schedules"):
        chained.load_state_dict(step)


OTHER = make_optimizer()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda o: sched.StepLR(None, 3), "needs an optimiser"),
        (lambda o: sched.StepLR(o, 0), "step_size >= 1"),
        (lambda o: sched.ConstantLR(o, 0.0), "factor"),
        (lambda o: sched.LinearLR(o, 0.0), "start_factor"),
        (lambda o: sched.LinearLR(o, 0.5, 1.5), "end_factor"),
        (lambda o: sched.PolynomialLR(o, 0), "total_iters"),
        (lambda o: sched.CosineAnnealingLR(o, 0), "T_max"),
        (lambda o: sched.CosineAnnealingWarmRestarts(o, 0), "T_0"),
        (lambda o: sched.CosineAnnealingWarmRestarts(o, 5, 0.5), "T_mult"),
        (lambda o: sched.OneCycleLR(o, 0.1), "total_steps, or epochs and steps_per_epoch"),
        (lambda o: sched.OneCycleLR(o, 0.1, 0), "total_steps > 0"),
        (lambda o: sched.OneCycleLR(o, 0.1, 10, pct_start=1.5), "pct_start"),
        (lambda o: sched.OneCycleLR(o, 0.1, 10, anneal_strategy="exp"), "anneal_strategy"),
        (lambda o: sched.OneCycleLR(o, [0.1], 10), "one max_lr for each of the 2 groups"),
        (lambda o: sched.OneCycleLR(optim.Adagrad([cr.zeros(1)]), 0.1, 10), "momentum or betas"),
        (lambda o: sched.CyclicLR(o, 0.1, 1.0, mode="square"), "mode"),
        (lambda o: sched.LambdaLR(o, 0.5), "function"),
        (lambda o: sched.LambdaLR(o, [lambda t: 1.0]), "each of the 2 groups"),
        (lambda o: sched.ReduceLROnPlateau(o, factor=1.0), "factor < 1"),
        (lambda o: sched.ReduceLROnPlateau(o, mode="up"), "mode"),
        (lambda o: sched.ReduceLROnPlateau(o, min_lr=[0.1]), "one min_lr"),
        (lambda o: sched.ChainedScheduler([]), "at least one"),
        (lambda o: sched.ChainedScheduler([sched.ReduceLROnPlateau(o)]), "ReduceLROnPlateau"),
        (lambda o: sched.SequentialLR(o, [sched.StepLR(o, 3)], [2]), "milestone"),
        (
            lambda o: sched.SequentialLR(o, [sched.StepLR(o, 3), sched.StepLR(OTHER, 3)], [2]),
            "one optimiser",
        ),
        (
            lambda o: sched.SequentialLR(
                o, [sched.StepLR(o, 3), sched.ChainedScheduler([sched.StepLR(o, 3)])], [2]
            ),
            "only come first",
        ),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ChainruleError, match=words) as caught:
        make(make_optimizer())
    assert isinstance(caught.value, ArgumentError | DTypeError)


def test_names_stand_in_optim_too():
    for name in sched.__all__:
        assert getattr(optim, name) is getattr(sched, name)
