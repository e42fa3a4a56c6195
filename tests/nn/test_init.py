"""Initialisers: exact values where they are exact, moments and bounds where they are random."""

import math

import numpy as np
import pytest
from scipy import stats

import chainrule as cr
from chainrule import nn
from chainrule.nn import init
from chainrule.nn.init import calculate_fan_in_and_fan_out, calculate_gain

WEIGHT = (300, 200)  # fan_in 200, fan_out 300
CONV = (64, 32, 3, 5)  # fan_in 480, fan_out 960


def drawn(initialiser, shape, *args, dtype=cr.float64, **kwargs):
    tensor = cr.zeros(shape, dtype=dtype)
    assert initialiser(tensor, *args, **kwargs, generator=cr.random.Generator(1)) is tensor
    return np.asarray(tensor).reshape(-1)


def is_uniform(x, low, high):
    assert low <= x.min()
    assert x.max() <= high
    assert stats.kstest(x, "uniform", args=(low, high - low)).pvalue > 1e-3


def is_normal(x, mean, std):
    assert stats.kstest(x, "norm", args=(mean, std)).pvalue > 1e-3


def test_constants():
    t = cr.zeros((2, 3))
    assert init.ones_(t) is t
    assert t.tolist() == [[1] * 3] * 2
    assert init.constant_(t, 2.5).tolist() == [[2.5] * 3] * 2
    assert init.zeros_(t).tolist() == [[0] * 3] * 2
    assert init.eye_(t).tolist() == [[1, 0, 0], [0, 1, 0]]
    with pytest.raises(cr.errors.ShapeError):
        init.eye_(cr.zeros(3))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_passes_channels_on(n, groups):
    layer = getattr(nn, f"Conv{n}d")(4, 4, 3, padding=1, groups=groups, bias=False)
    init.dirac_(layer.weight, groups)
    x = cr.random.normal((2, 4, *(5, 6, 4)[:n]))
    np.testing.assert_array_equal(layer(x).detach(), x)
    with pytest.raises(cr.errors.ArgumentError):
        init.dirac_(layer.weight, 3)
    with pytest.raises(cr.errors.ShapeError):
        init.dirac_(cr.zeros((2, 2)))


def test_distributions():
    is_uniform(drawn(init.uniform_, WEIGHT, -2, 5), -2, 5)
    is_normal(drawn(init.normal_, WEIGHT, 1.5, 0.3), 1.5, 0.3)
    for mean, std, a, b in ((0, 1, -2, 2), (1, 2, 0, 1.5), (0, 1, 2, 9)):
        x = drawn(init.trunc_normal_, WEIGHT, mean, std, a, b)
        assert a <= x.min()
        assert x.max() <= b
        bounds = ((a - mean) / std, (b - mean) / std, mean, std)
        assert stats.kstest(x, "truncnorm", args=bounds).pvalue > 1e-3
    with pytest.raises(cr.errors.ArgumentError):
        init.trunc_normal_(cr.zeros(3), a=2, b=1)
    with pytest.raises(cr.errors.ArgumentError, match="no mass"):
        init.trunc_normal_(cr.zeros(3), a=50, b=51)


@pytest.mark.parametrize(("shape", "fan_in", "fan_out"), [(WEIGHT, 200, 300), (CONV, 480, 960)])
def test_scaled_by_the_fans(shape, fan_in, fan_out):
    assert calculate_fan_in_and_fan_out(cr.zeros(shape)) == (fan_in, fan_out)

    def bounded(variance):
        return -math.sqrt(3 * variance), math.sqrt(3 * variance)

    glorot = 4 * 2 / (fan_in + fan_out)
    is_uniform(drawn(init.xavier_uniform_, shape, gain=2), *bounded(glorot))
    is_normal(drawn(init.xavier_normal_, shape, gain=2), 0, math.sqrt(glorot))
    is_uniform(drawn(init.lecun_uniform_, shape), *bounded(1 / fan_in))
    is_normal(drawn(init.lecun_normal_, shape), 0, math.sqrt(1 / fan_in))
    for mode, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
        for a, nonlinearity, gain2 in (
            (0, "leaky_relu", 2),
            (0.5, "leaky_relu", 1.6),
            (0, "tanh", 25 / 9),
        ):
            how = {"a": a, "mode": mode, "nonlinearity": nonlinearity}
            is_uniform(drawn(init.kaiming_uniform_, shape, **how), *bounded(gain2 / fan))
            is_normal(drawn(init.kaiming_normal_, shape, **how), 0, math.sqrt(gain2 / fan))
    with pytest.raises(cr.errors.UnknownNameError, match="fan_in"):
        init.kaiming_normal_(cr.zeros(shape), mode="fan")
    with pytest.raises(cr.errors.ShapeError):
        init.xavier_normal_(cr.zeros(3))


def test_gains():
    assert calculate_gain("relu") == math.sqrt(2)
    assert calculate_gain("tanh") == 5 / 3
    assert calculate_gain("selu") == 0.75
    assert calculate_gain("sigmoid") == calculate_gain("conv_transpose2d") == 1
    assert calculate_gain("leaky_relu") == pytest.approx(math.sqrt(2 / 1.0001))
    assert calculate_gain("leaky_relu", 1) == 1
    with pytest.raises(cr.errors.UnknownNameError, match="relu"):
        calculate_gain("rely")
    with pytest.raises(cr.errors.ArgumentError):
        calculate_gain("leaky_relu", True)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3), (1, 6), (6, 1)])
def test_orthogonal(shape):
    t = cr.zeros(shape, dtype=cr.float64)
    init.orthogonal_(t, gain=2)
    m = np.asarray(t).reshape(shape[0], -1) / 2
    product = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-12)


def test_orthogonal_is_uniform():
    """Without the choice of signs the first element of Q would be negative alone."""
    first = [
        float(init.orthogonal_(cr.zeros((2, 2)), generator=cr.random.Generator(i))[0, 0])
        for i in range(200)
    ]
    angles = np.arccos(np.clip(first, -1, 1))
    assert stats.kstest(angles, "uniform", args=(0, np.pi)).pvalue > 1e-3


def test_sparse():
    t = cr.zeros((50, 40), dtype=cr.float64)
    init.sparse_(t, 0.31, std=2, generator=cr.random.Generator(3))
    values = np.asarray(t)
    assert ((values == 0).sum(axis=0) == math.ceil(0.31 * 50)).all()
    is_normal(values[values != 0], 0, 2)
    patterns = {tuple(column) for column in (values == 0).T}
    assert len(patterns) == 40
    with pytest.raises(cr.errors.ArgumentError):
        init.sparse_(t, 1.5)
    with pytest.raises(cr.errors.ShapeError):
        init.sparse_(cr.zeros(3), 0.5)


RANDOM = [
    (init.uniform_, ()), (init.normal_, ()), (init.trunc_normal_, ()), (init.xavier_uniform_, ()),
    (init.xavier_normal_, ()), (init.kaiming_uniform_, ()), (init.kaiming_normal_, ()),
    (init.lecun_uniform_, ()), (init.lecun_normal_, ()), (init.orthogonal_, ()),
    (init.sparse_, (0.5,)),
]  # fmt: skip


@pytest.mark.parametrize(("initialiser", "args"), RANDOM, ids=[f.__name__ for f, _ in RANDOM])
def test_seeds_dtypes_and_graph(initialiser, args):
    p = nn.Parameter(cr.zeros((4, 6)))
    cr.manual_seed(3)
    first = np.array(initialiser(p, *args).detach())
    assert p.requires_grad
    assert p.is_leaf
    assert p.dtype == cr.float32
    second = np.array(initialiser(p, *args).detach())
    cr.manual_seed(3)
    np.testing.assert_array_equal(initialiser(p, *args).detach(), first)
    assert (first != second).any()
    generator = cr.random.Generator(7)
    state = cr.random.get_state()
    initialiser(p, *args, generator=generator)
    np.testing.assert_array_equal(cr.random.get_state(), state)
    with pytest.raises(cr.errors.ChainruleError):
        initialiser(np.zeros((2, 2)), *args)


def test_zero_weights_keep_units_equal():
    """Symmetry: with one value for all weights, the units of a hidden layer stay equal."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 1))
    model.apply(lambda m: init.constant_(m.weight, 0.1) if isinstance(m, nn.Linear) else None)
    init.zeros_(model[0].bias)
    for _ in range(5):
        model.zero_grad()
        model(cr.random.normal((8, 3))).square().sum().backward()
        with cr.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
    hidden = np.asarray(model[0].weight.detach())
    assert np.abs(hidden - 0.1).max() > 1e-3
    np.testing.assert_array_equal(hidden, np.broadcast_to(hidden[:1], hidden.shape))
