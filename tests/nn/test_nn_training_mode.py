"""A model that is evaluated in training mode by mistake: one warning."""

from __future__ import annotations

import warnings

import pytest

import chainrule as cr
from chainrule import data, nn, optim
from chainrule.errors import ChainruleWarning
from chainrule.nn.functional import _checks
from chainrule.optim.swa_utils import update_bn


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(_checks, "_warned", set())


LAYERS = [
    (nn.Dropout(), (4, 3)), (nn.Dropout2d(), (4, 3, 2, 2)), (nn.AlphaDropout(), (4, 3)),
    (nn.BatchNorm1d(3), (4, 3)), (nn.BatchNorm2d(3), (4, 3, 2, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_one_warning(layer, shape):
    x = cr.ones(shape)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer(x)
        with cr.no_grad():
            layer.eval()(x)
        assert caught == []
        with cr.no_grad():
            layer.train()(x)
            layer(x)
    assert [w.category for w in caught] == [ChainruleWarning]
    text = str(caught[0].message)
    assert type(layer).__name__ in text and "model.eval()" in text


def test_where_it_is_meant():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    inputs = cr.random.normal((8, 2)).numpy()
    update_bn(data.DataLoader(data.TensorDataset(inputs), 4), model)
    optimizer = optim.SGD(model.parameters())
    trainer = cr.Trainer(model, optimizer, nn.MSELoss(), progress=False)
    loader = data.DataLoader(data.TensorDataset(inputs, cr.zeros((8, 3)).numpy()), 4)
    trainer.fit(loader, loader)
    trainer.predict(inputs)
    with cr.no_grad():
        nn.Dropout(0.0)(cr.ones((2, 2)))
        nn.functional.dropout(cr.ones((2, 2)), 0.5, training=True)
