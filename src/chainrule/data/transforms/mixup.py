"""Mixup: batches of blends of two samples."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from chainrule.data.collate import is_tensor, to_numpy
from chainrule.data.dataset import check_labels
from chainrule.data.draws import Draws, check_seed, fold
from chainrule.errors import ArgumentError, DataError


class Mixup:
    """Blend each sample of a batch with the one before it, labels too.

    H. Zhang et al., "mixup: Beyond empirical risk minimization", 2017 (arXiv 1710.09412):
    `x = lambda x_i + (1 - lambda) x_j`, `y = lambda y_i + (1 - lambda) y_j` with labels y as
    one-hot vectors, and one lambda from Beta(alpha, alpha) for the batch; j = i - 1, the first with
    the last (as torchvision's MixUp).

    Arguments:
        num_classes: how long the one-hot vectors are; not needed where labels are vectors already.
        alpha: of the Beta distribution; 1 means that lambda is uniform.
        seed: for calls by hand.

    Used as `DataLoader(..., batch_transform=Mixup(10))`, where lambda depends on the loader's seed,
    the epoch and the batch's number alone, or by hand: `images, labels = mixup(images, labels)`.
    The labels become float32 (N, num_classes), which `cross_entropy` takes as probabilities.
    """

    def __init__(self, num_classes: int | None = None, alpha: float = 1.0, *, seed: int = 0):
        if alpha <= 0:
            raise ArgumentError(f"alpha must be positive, but is {alpha!r}.")
        self.num_classes, self.alpha = num_classes, float(alpha)
        self.seed, self._calls, self._lock = check_seed(seed), 0, threading.Lock()

    def batch(self, batch: Any, draws: Draws) -> tuple[np.ndarray, ...]:
        """The blended batch of NumPy arrays."""
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise DataError("Mixup blends batches (inputs, labels), but got another structure.")
        inputs, labels = (to_numpy(entry) for entry in batch)
        share = np.float32(draws.generator().beta(self.alpha, self.alpha))
        soft = self._soft(labels)
        return tuple(share * v + (1 - share) * np.roll(v, 1, axis=0) for v in (inputs, soft))

    def _soft(self, labels: np.ndarray) -> np.ndarray:
        if labels.ndim == 2 and labels.dtype.kind == "f":
            return labels
        if self.num_classes is None:
            raise ArgumentError(
                "Mixup needs num_classes to turn whole-number labels into vectors: "
                "Mixup(num_classes=10)."
            )
        check_labels(labels, self.num_classes, "the batch")
        return np.eye(self.num_classes, dtype=np.float32)[labels]

    def __call__(self, *batch: Any) -> tuple[Any, ...]:
        """Blend `(inputs, labels)`, given as two arguments or as one pair; tensors give tensors."""
        entries = batch[0] if len(batch) == 1 else batch
        with self._lock:
            number, self._calls = self._calls, self._calls + 1
        mixed = self.batch(entries, Draws(fold(0, self.seed), 0, [number]))
        if any(is_tensor(entry) for entry in entries):
            from chainrule import array

            return tuple(array.asarray(entry) for entry in mixed)
        return mixed

    def __repr__(self) -> str:
        return f"Mixup(num_classes={self.num_classes}, alpha={self.alpha})"
