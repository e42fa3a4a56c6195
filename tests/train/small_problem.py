"""A small problem that trains in milliseconds."""

from __future__ import annotations

import numpy as np

import chainrule as cr
from chainrule import data, nn, optim


class Problem:
    """Three noisy classes in the plane, a model with dropout and batch norm, and what trains it."""

    def __init__(self, seed: int = 0, samples: int = 50):
        generator = np.random.default_rng(seed)
        self.labels = generator.integers(0, 3, samples)
        noise = generator.normal(size=(samples, 2))
        self.inputs = (noise + 2 * np.eye(3)[self.labels][:, :2]).astype(np.float32)

    @property
    def dataset(self):
        return data.TensorDataset(self.inputs, self.labels)

    def loader(self, batch_size: int = 16, **options):
        return data.DataLoader(self.dataset, batch_size, shuffle=True, **options)

    def model(self):
        cr.random.manual_seed(1)
        return nn.Sequential(
            nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
        )

    def trainer(self, metrics=("accuracy",), callbacks=(), lr=0.05, **options):
        model = self.model()
        optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        options = {"progress": False, "seed": 7, **options}
        return cr.Trainer(model, optimizer, metrics=metrics, callbacks=callbacks, **options)


def weights(model) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
