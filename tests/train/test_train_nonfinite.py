"""NaN and infinity: what is named, and that the state stays as it was before the step."""

from __future__ import annotations

import numpy as np
import pytest
from small_problem import weights

import chainrule as cr
from chainrule import data, nn, optim, train
from chainrule.errors import (
    NonFiniteError,
)


def test_nan_in_the_data_names_the_sample(problem, tmp_path):
    problem.inputs[13, 1] = np.nan
    trainer = problem.trainer(out=tmp_path)
    before = weights(trainer.model)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(data.DataLoader(problem.dataset, 10), epochs=2)
    text = str(caught.value)
    assert "epoch 1, step 2" in text and "input in row 3 of the batch, sample 13" in text
    assert "last.ckpt" in text
    assert weights(trainer.model) != before  # step 1 was done
    assert all(np.isfinite(v.numpy()).all() for v in trainer.model.state_dict().values())
    again = problem.trainer(out=tmp_path)
    problem.inputs[13, 1] = 0
    again.fit(data.DataLoader(problem.dataset, 10), epochs=1, resume=True)
    assert again.finished and np.isfinite(again.history[-1]["loss"])


def test_nan_in_a_subset_names_the_sample_of_the_whole(problem):
    problem.inputs[41, 0] = np.inf
    part = data.Subset(problem.dataset, np.arange(30, 50))
    with pytest.raises(NonFiniteError, match="row 1 of the batch, sample 41 of the data set"):
        problem.trainer().fit(data.DataLoader(part, 10, num_workers=2), epochs=1)


def test_an_exploding_rate_names_the_first_operation(problem, tmp_path):
    trainer = problem.trainer(lr=1e30, out=tmp_path)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(problem.loader(), epochs=9)
    text = str(caught.value)
    assert "epoch 1, step " in text and "first" in text and "made by" in text
    assert "Lower the learning rate" in text and str(tmp_path / "last.ckpt") in text
    assert all(np.isfinite(v.numpy()).all() for v in trainer.model.state_dict().values())
    state = train.read_checkpoint(tmp_path)
    assert all(np.isfinite(v.numpy()).all() for v in state["model"].values())


def test_an_optimisers_step_too_far(problem, tmp_path):
    """The loss and the gradients are finite, and the weights after the step would not be."""
    trainer = problem.trainer(lr=3e38, out=tmp_path)
    problem.inputs *= 1e3
    trainer.model = nn.Linear(2, 3)
    trainer.optimizer = optim.SGD(trainer.model.parameters(), lr=3e38)
    before = weights(trainer.model)
    with pytest.raises(
        NonFiniteError, match=r"step made 'weight' infinite or NaN.* epoch 1, step 1"
    ):
        trainer.fit(problem.loader(), epochs=1)
    assert weights(trainer.model) == before


def test_the_logarithm_of_zero_names_the_layer():
    class Logarithm(nn.Module):
        def forward(self, x):
            return cr.log(nn.functional.relu(x))

    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), Logarithm(), nn.Linear(3, 1))
    trainer = cr.Trainer(model, optim.SGD(model.parameters()), nn.MSELoss(), progress=False)
    before = weights(model)
    x, y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
    with cr.no_grad():
        model[0].weight[1] = -1.0
        model[0].bias[1] = 0.0
    before = weights(model)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(data.DataLoader(data.TensorDataset(x, y), 8), epochs=1)
    text = str(caught.value)
    assert "made by log" in text and "'1' (Logarithm)" in text and "epoch 1, step 1" in text
    assert weights(model) == before


def test_an_infinite_gradient_of_a_finite_loss():
    """sqrt(x) at 0: the loss is 0, its slope is not."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(cr.zeros((1,)))

        def forward(self, x):
            return cr.sqrt(self.w * self.w * x)

    model = Root()
    trainer = cr.Trainer(model, optim.SGD(model.parameters()), nn.L1Loss(), progress=False)
    ones = np.ones((4, 1), np.float32)
    with pytest.raises(NonFiniteError, match="gradient of 'w' is not finite in epoch 1, step 1"):
        trainer.fit(data.DataLoader(data.TensorDataset(ones, ones), 4), epochs=1)
    assert model.w.item() == 0


def test_batch_statistics_are_put_back_after_nan(problem):
    trainer = problem.trainer()
    trainer.fit(problem.loader(), epochs=1)
    before = weights(trainer.model)
    problem.inputs[:] = np.nan
    with pytest.raises(NonFiniteError):
        trainer.fit(problem.loader(), epochs=1)
    assert weights(trainer.model) == before


def test_a_large_finite_sum_is_no_fault(problem):
    """Numbers near the largest float32 are finite, though their sum is not."""
    assert train.nonfinite.is_finite(np.full(10, 3e38, np.float32))
    assert train.nonfinite.is_finite(np.full(10, 1e308))
    assert not train.nonfinite.is_finite(np.array([1.0, np.nan]))
    assert not train.nonfinite.is_finite(np.array([np.inf, -np.inf]))
    assert train.nonfinite.is_finite(np.array([1, 2]))
