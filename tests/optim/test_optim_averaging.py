"""Averages of weights."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ArgumentError, CheckpointError, DTypeError
from chainrule.serialize import load_state, save_state


def set_to(p, value):
    with cr.no_grad():
        p.copy_(cr.full(p.shape, value, dtype=p.dtype))


def test_moving_average_is_the_weighted_sum():
    values = np.random.default_rng(0).normal(size=(21, 3))
    p = cr.asarray(values[0].copy(), requires_grad=True)
    ema = optim.ExponentialMovingAverage([p], decay=0.9)
    for value in values[1:]:
        with cr.no_grad():
            p.copy_(cr.asarray(value))
        ema.update()
    weights = 0.1 * 0.9 ** np.arange(19, -1, -1)
    expected = 0.9**20 * values[0] + weights @ values[1:]
    np.testing.assert_allclose(ema.averages[0].numpy(), expected, rtol=1e-12)
    np.testing.assert_array_equal(p.detach().numpy(), values[-1])
    assert optim.EMA is optim.ExponentialMovingAverage


def test_warm_up_follows_soon():
    p = cr.zeros(1, dtype="float64", requires_grad=True)
    ema = optim.EMA([p], decay=0.99, warm_up=True)
    set_to(p, 1.0)
    average = 0.0
    for n in range(5):
        ema.update()
        decay = (1 + n) / (10 + n)
        average = decay * average + (1 - decay)
        assert ema.averages[0].item() == pytest.approx(average, rel=1e-12)


def test_applied_gives_the_averages_and_puts_the_weights_back():
    model = nn.Linear(2, 1)
    ema = optim.EMA(model, decay=0.5)
    begin = [p.detach().tolist() for p in model.parameters()]
    for p in model.parameters():
        set_to(p, 8.0)
    ema.update()
    x = cr.ones((1, 2))
    with ema.applied():
        inside = [p.detach().numpy() for p in model.parameters()]
        for got, was in zip(inside, begin, strict=True):
            np.testing.assert_allclose(got, np.array(was) / 2 + 4, rtol=1e-6)
        assert model(x).item() != 24.0
        with pytest.raises(ArgumentError, match="update\\(\\) outside"):
            ema.update()
        with pytest.raises(ArgumentError, match="nested"), ema.applied():
            pass
    assert model(x).item() == 24.0
    with pytest.raises(ZeroDivisionError), ema.applied():
        raise ZeroDivisionError
    assert model(x).item() == 24.0
    assert all(p.requires_grad for p in model.parameters())


def test_copy_to():
    p, q = cr.zeros(2, requires_grad=True), cr.zeros(2, requires_grad=True)
    ema = optim.EMA([("weight", p)], decay=0.5)
    set_to(p, 2.0)
    ema.update()
    ema.copy_to([q])
    ema.copy_to()
    assert p.detach().tolist() == q.detach().tolist() == [1.0, 1.0]
    with pytest.raises(ArgumentError, match="same shapes"):
        ema.copy_to([cr.zeros(3, requires_grad=True)])


def test_resuming(tmp_path):
    p = cr.zeros(2, requires_grad=True)
    ema = optim.EMA([p], decay=0.9, warm_up=True)
    for value in (1.0, 2.0):
        set_to(p, value)
        ema.update()
    save_state(ema.state_dict(), tmp_path / "ema.ckpt")
    other = optim.EMA([p], decay=0.9, warm_up=True)
    other.load_state_dict(load_state(tmp_path / "ema.ckpt"))
    set_to(p, 3.0)
    ema.update()
    other.update()
    assert other.averages[0].tolist() == ema.averages[0].tolist()
    with pytest.raises(CheckpointError, match="shapes"):
        optim.EMA([cr.zeros(3)]).load_state_dict(ema.state_dict())


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: optim.EMA([], 0.9), ArgumentError),
        (lambda: optim.EMA([cr.zeros(1)], 1.5), ArgumentError),
        (lambda: optim.EMA(3, 0.9), DTypeError),
    ],
)
def test_bad_arguments(make, error):
    with pytest.raises(error):
        make()


# --- stochastic weight averaging ------------------------------------------------------------------


def test_averaged_model_is_the_mean():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    averaged = optim.swa_utils.AveragedModel(model)
    for value in (1.0, 4.0, 7.0):
        for p in model.parameters():
            set_to(p, value)
        set_to(model[1].running_mean, value)
        averaged.update_parameters(model)
    assert averaged.n_averaged.item() == 3
    assert averaged.module[0].weight.detach().tolist() == [[4.0, 4.0]] * 3
    assert averaged.module[1].running_mean.tolist() == [7.0] * 3
    assert "module.0.weight" in averaged.state_dict()
    with_buffers = optim.swa_utils.AveragedModel(model, use_buffers=True)
    for value in (1.0, 3.0):
        set_to(model[1].running_mean, value)
        with_buffers.update_parameters(model)
    assert with_buffers.module[1].running_mean.tolist() == [2.0] * 3


def test_averaged_model_with_a_fading_memory():
    model = nn.Linear(1, 1)
    averaged = optim.swa_utils.AveragedModel(model, avg_fn=optim.swa_utils.get_ema_avg_fn(0.75))
    for value in (0.0, 4.0):
        for p in model.parameters():
            set_to(p, value)
        averaged.update_parameters(model)
    assert averaged(cr.ones((1, 1))).item() == 2.0


def test_update_bn_takes_the_mean_over_all_batches():
    rng = np.random.default_rng(0)
    batches = [rng.normal(i, 1 + i, size=(8, 3)).astype("float32") for i in range(3)]
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)).eval()
    model(cr.asarray(batches[0]))
    optim.swa_utils.update_bn([(cr.asarray(b), None) for b in batches], model)
    norm = model[0]
    np.testing.assert_allclose(
        norm.running_mean.numpy(), np.mean([b.mean(0) for b in batches], axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        norm.running_var.numpy(), np.mean([b.var(0, ddof=1) for b in batches], axis=0), rtol=1e-5
    )
    assert norm.momentum == 0.1 and not model.training


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_swa_schedule(strategy):
    opt = optim.SGD([cr.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = optim.swa_utils.SWALR(opt, 0.1, 5, strategy)
    for t in range(10):
        share = min(1, t / 5)
        if strategy == "cos":
            share = (1 - np.cos(np.pi * share)) / 2
        assert opt.param_groups[0]["lr"] == pytest.approx(1 + (0.1 - 1) * share, rel=1e-12)
        scheduler.step()
