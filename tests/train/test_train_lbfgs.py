"""L-BFGS in the trainer: several evaluations of one function in a step."""

import numpy as np

import chainrule as cr
from chainrule import nn, optim


def test_dropout_draws_the_same_masks_in_all_evaluations_of_a_step():
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1))
    x, y = cr.random.normal((32, 4)), cr.random.normal((32, 1))
    losses = []

    class Watched(nn.MSELoss):
        def forward(self, input, target):
            loss = super().forward(input, target)
            losses.append(loss.item())
            return loss

    # Steps too small to move the loss: only other masks could.
    optimizer = optim.LBFGS(
        model.parameters(), lr=1e-9, max_iter=4, tolerance_grad=0, tolerance_change=0
    )
    trainer = cr.Trainer(model, optimizer, Watched(), progress=False)
    trainer.fit([(x, y)], epochs=2)
    assert len(losses) == 8
    np.testing.assert_allclose(losses[:4], losses[0], rtol=1e-6)
    np.testing.assert_allclose(losses[4:], losses[4], rtol=1e-6)
    assert abs(losses[4] - losses[0]) > 1e-3 * losses[0]  # the next step draws others
