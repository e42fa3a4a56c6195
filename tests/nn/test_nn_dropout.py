"""Dropout: what is drawn, what is kept, and what the layers do in each mode."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, ChainruleWarning, GradError, ShapeError
from chainrule.nn import functional as F

LOW = -1.7580993408473766  # the lowest value of selu


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_with_probability_p_and_keeps_the_mean(p):
    cr.manual_seed(1)
    n = 40_000
    z = F.dropout(cr.ones((n,)), p).numpy()
    np.testing.assert_allclose(np.unique(z), [0, 1 / (1 - p)], rtol=1e-6)
    share = (z == 0).mean()
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_the_gradient_is_the_mask():
    cr.manual_seed(0)
    x = cr.tensor(np.linspace(1, 2, 50), requires_grad=True)
    z = F.dropout(x, 0.4)
    z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), z.detach().numpy() / np.linspace(1, 2, 50))
    assert 0 < np.count_nonzero(x.grad.numpy()) < 50


@pytest.mark.parametrize(
    "layer,shape",
    [
        (nn.Dropout(0.5), (3, 4)),
        (nn.Dropout1d(0.5), (2, 3, 4)),
        (nn.Dropout2d(0.5), (2, 3, 4, 5)),
        (nn.Dropout3d(0.5), (2, 3, 2, 2, 2)),
        (nn.AlphaDropout(0.5), (3, 4)),
        (nn.FeatureAlphaDropout(0.5), (2, 3, 4)),
    ],
    ids=str,
)
class TestLayers:
    def test_evaluation_is_the_identity(self, layer, shape):
        x = cr.asarray(np.random.default_rng(0).standard_normal(shape))
        before = cr.random.get_state().tolist()
        assert type(layer)(0.5).eval()(x).tolist() == x.tolist()
        assert type(layer)(0.0)(x).tolist() == x.tolist()
        assert cr.random.get_state().tolist() == before  # and nothing is drawn

    def test_everything_can_be_dropped(self, layer, shape):
        assert not type(layer)(1.0)(cr.ones(shape)).numpy().any()

    def test_the_same_seed_gives_the_same_mask_and_two_calls_do_not(self, layer, shape):
        x = (
            cr.ones((*shape[:2], *(n * 3 for n in shape[2:])))
            if len(shape) > 2
            else cr.ones((30, 40))
        )
        cr.manual_seed(5)
        first, second = layer(x), layer(x)
        cr.manual_seed(5)
        assert layer(x).tolist() == first.tolist()
        assert first.dtype == cr.float32 and first.shape == x.shape
        if len(shape) == 2:
            assert second.tolist() != first.tolist()

    def test_text_and_probability(self, layer, shape):
        assert repr(layer) == f"{type(layer).__name__}(p=0.5, inplace=False)"
        for p in (-0.1, 1.1, math.nan):
            with pytest.raises(ArgumentError, match="from 0 to 1"):
                type(layer)(p)

    def test_inplace(self, layer, shape):
        x = cr.ones(shape)
        z = type(layer)(0.5, inplace=True)(x)
        assert z is x


@pytest.mark.parametrize(
    "function,shape,mask",
    [
        (F.dropout1d, (40, 30, 3), (40, 30)), (F.dropout1d, (30, 3), (30,)),
        (F.dropout2d, (40, 30, 2, 3), (40, 30)), (F.dropout3d, (9, 30, 2, 2, 2), (9, 30)),
        (F.dropout3d, (30, 2, 2, 2), (30,)),
    ],
)  # fmt: skip
def test_whole_channels_are_dropped(function, shape, mask):
    cr.manual_seed(0)
    z = function(cr.ones(shape), 0.5).numpy().reshape(*mask, -1)
    assert set(np.unique(z)) == {0, 2}
    assert (z == z[..., :1]).all()
    assert 0.3 < (z[..., 0] == 0).mean() < 0.7


def test_three_axes_in_two_dimensions_are_signals(monkeypatch):
    monkeypatch.setattr("chainrule.nn.functional._checks._warned", set())
    with pytest.warns(ChainruleWarning, match=r"\(N, C, L\)"):
        z = F.dropout2d(cr.ones((30, 20, 4)), 0.5).numpy()
    assert (z == z[..., :1]).all() and len(np.unique(z)) == 2


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(p):
    cr.manual_seed(2)
    x = np.random.default_rng(0).standard_normal(200_000)
    z = F.alpha_dropout(cr.asarray(x), p, training=True).numpy()
    np.testing.assert_allclose(z.mean(), 0, atol=0.02)
    np.testing.assert_allclose(z.var(), 1, atol=0.02)
    # a x + b where kept and a low + b where not
    a = ((1 - p) * (1 + p * LOW**2)) ** -0.5
    b = -a * p * LOW
    dropped = np.isclose(z, a * LOW + b, rtol=0, atol=1e-12)
    np.testing.assert_allclose(z[~dropped], (a * x + b)[~dropped], rtol=1e-12, atol=1e-12)
    assert abs(dropped.mean() - p) < 0.01


def test_feature_alpha_dropout_draws_one_for_each_channel():
    cr.manual_seed(0)
    z = F.feature_alpha_dropout(cr.zeros((30, 20, 4, 2)), 0.5, training=True).numpy()
    assert (z == z[:, :, :1, :1]).all() and len(np.unique(z)) == 2


def test_errors():
    for function, shape in (
        (F.dropout1d, (3,)), (F.dropout2d, (3, 4)), (F.dropout3d, (2, 3, 4)),
        (F.feature_alpha_dropout, (3,)),
    ):  # fmt: skip
        with pytest.raises(ShapeError, match=rf"got shape \({shape[0]},"):
            function(cr.ones(shape), 0.5, True)
    with pytest.raises(ArgumentError, match=r"1\.5"):
        F.dropout(cr.ones((3,)), 1.5)
    with pytest.raises(GradError):
        F.dropout(cr.tensor([1.0], requires_grad=True), 0.5, inplace=True)
