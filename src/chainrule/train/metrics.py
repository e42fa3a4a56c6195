"""Metrics: what is measured beside the loss, added up batch by batch.

A metric sees the model's outputs and the targets as NumPy arrays. Metrics of classification take
scores of shape (n, classes, ...), of which the largest decides, or (n,) or (n, 1) for two classes,
where what is above a threshold (0, for logits) is class 1; targets are class indices, or scores of
the outputs' shape themselves. Targets below 0, such as cross entropy's `ignore_index`, are passed
over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.errors import ArgumentError, ShapeError, unknown_name

Array = np.ndarray[Any, Any]


class Metric:
    """Base of metrics: `reset`, `update(outputs, targets)` for each batch, `compute`.

    Attributes:
        name: the key in the history.
        higher_is_better: which way is up, for callbacks that keep the best.
        threshold: above it a single score stands for class 1; 0 for logits, 0.5 for probabilities.
    """

    name = "metric"
    higher_is_better = True
    threshold = 0.0

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        raise NotImplementedError(f"{type(self).__name__} needs reset()")

    def update(self, outputs: Array, targets: Array) -> None:
        """Take one more batch into account."""
        raise NotImplementedError(f"{type(self).__name__} needs update()")

    def compute(self) -> float:
        """The value over all batches since `reset`; NaN if there were none."""
        raise NotImplementedError(f"{type(self).__name__} needs compute()")

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, for checkpoints in the middle of an epoch."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such sums."""
        vars(self).update(state)


def predicted_classes(outputs: Array, threshold: float = 0.0) -> Array:
    """The class that each row of scores decides for."""
    if outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1):
        return (outputs.reshape(-1) > threshold).astype(np.int64)
    return outputs.argmax(axis=1)


def true_classes(targets: Array, outputs: Array) -> Array:
    """Targets as class indices, in the shape of the predicted ones.

    Raises:
        ShapeError: if there are not as many as the outputs need.
    """
    single = outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)
    wanted = outputs.shape[:1] if single else (outputs.shape[0], *outputs.shape[2:])
    if not single and targets.shape == outputs.shape:
        return targets.argmax(axis=1)
    if targets.shape != wanted and targets.shape != (*wanted, 1):
        raise ShapeError(
            f"outputs of shape {outputs.shape} need targets of shape {wanted}, got {targets.shape}."
        )
    return targets.reshape(wanted).astype(np.int64)


class _Mean(Metric):
    """A mean over samples (or positions)."""

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: Array) -> None:
        self.total += float(np.sum(values, dtype=np.float64))
        self.count += values.size

    def compute(self) -> float:
        return self.total / self.count if self.count else float("nan")


class Accuracy(_Mean):
    """The share of samples whose class is right."""

    name = "accuracy"

    def update(self, outputs: Array, targets: Array) -> None:
        true = true_classes(targets, outputs)
        self.add((predicted_classes(outputs, self.threshold) == true)[true >= 0])


class TopK(_Mean):
    """The share of samples whose class is among the k highest scores."""

    def __init__(self, k: int = 5):
        if k < 1:
            raise ArgumentError(f"top-k needs k >= 1, got {k}.")
        super().__init__()
        self.k = k
        self.name = f"top{k}"

    def update(self, outputs: Array, targets: Array) -> None:
        if outputs.ndim != 2 or self.k > outputs.shape[1]:
            raise ShapeError(
                f"top-{self.k} needs scores of shape (n, classes) with at least {self.k} classes, "
                f"got {outputs.shape}."
            )
        best = np.argpartition(-outputs, self.k - 1, axis=1)[:, : self.k]
        true = true_classes(targets, outputs)
        self.add((best == true[:, None]).any(axis=1)[true >= 0])


class ConfusionMatrix(Metric):
    """counts[i, j]: samples of class i taken for class j. `compute` gives the accuracy."""

    name = "confusion"

    def reset(self) -> None:
        self.counts = np.zeros((0, 0), dtype=np.int64)

    def update(self, outputs: Array, targets: Array) -> None:
        guess = predicted_classes(outputs, self.threshold).reshape(-1)
        true = true_classes(targets, outputs).reshape(-1)
        guess, true = guess[true >= 0], true[true >= 0]
        scores = outputs.shape[1] if outputs.ndim > 1 and outputs.shape[1] > 1 else 2
        n = max(scores, len(self.counts), int(true.max(initial=-1)) + 1)
        grown = np.zeros((n, n), dtype=np.int64)
        grown[: len(self.counts), : len(self.counts)] = self.counts
        np.add.at(grown, (true, guess), 1)
        self.counts = grown

    def compute(self) -> float:
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")


def _ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(a.shape), where=b != 0)


class _FromConfusion(ConfusionMatrix):
    """A score of each class, put together by `average`.

    Arguments:
        average: `"macro"` (default), the mean over the classes that occur or are guessed;
            `"micro"`, over all samples; `"binary"`, that of class 1 alone.
    """

    def __init__(self, average: str = "macro"):
        if average not in ("macro", "micro", "binary"):
            raise unknown_name("average", average, ("macro", "micro", "binary"))
        super().__init__()
        self.average = average
        if average != "macro":
            self.name = f"{self.name}_{average}"

    def scores(self, hits: Array, guessed: Array, true: Array) -> Array:
        raise NotImplementedError

    def compute(self) -> float:
        if not self.counts.sum():
            return float("nan")
        hits = np.diag(self.counts).astype(float)
        guessed, true = self.counts.sum(axis=0), self.counts.sum(axis=1)
        if self.average == "micro":
            return float(self.scores(*(np.array([v.sum()]) for v in (hits, guessed, true)))[0])
        scores = self.scores(hits, guessed.astype(float), true.astype(float))
        if self.average == "binary":
            return float(scores[1])
        # Classes that neither occur nor are guessed say nothing.
        return float(scores[(guessed + true) > 0].mean())


class Precision(_FromConfusion):
    """Of the samples taken for a class, the share that are of it."""

    name = "precision"

    def scores(self, hits: Array, guessed: Array, true: Array) -> Array:
        return _ratio(hits, guessed)


class Recall(_FromConfusion):
    """Of the samples of a class, the share that are taken for it."""

    name = "recall"

    def scores(self, hits: Array, guessed: Array, true: Array) -> Array:
        return _ratio(hits, true)


class F1(_FromConfusion):
    """The harmonic mean of precision and recall: 2 hits / (guessed + true)."""

    name = "f1"

    def scores(self, hits: Array, guessed: Array, true: Array) -> Array:
        return _ratio(2 * hits, guessed + true)


def _same_shape(outputs: Array, targets: Array) -> None:
    if outputs.shape != targets.shape:
        raise ShapeError(
            f"a regression metric needs outputs and targets of one shape, got {outputs.shape} and "
            f"{targets.shape}; reshape one of them."
        )


class MAE(_Mean):
    """The mean absolute error."""

    name = "mae"
    higher_is_better = False

    def update(self, outputs: Array, targets: Array) -> None:
        _same_shape(outputs, targets)
        self.add(np.abs(outputs - targets))


class MSE(_Mean):
    """The mean squared error."""

    name = "mse"
    higher_is_better = False

    def update(self, outputs: Array, targets: Array) -> None:
        _same_shape(outputs, targets)
        self.add(np.square(outputs - targets, dtype=np.float64))


class R2(Metric):
    """The coefficient of determination, 1 - sum (y - yhat)^2 / sum (y - mean y)^2.

    Of several outputs, (n, outputs), the mean over them. For a target that is constant it is 1 if
    every output is right and else 0, as in scikit-learn; NaN for less than two samples.
    """

    name = "r2"

    def reset(self) -> None:
        self.count, self.residual, self.mean, self.spread = 0, 0.0, 0.0, 0.0

    def update(self, outputs: Array, targets: Array) -> None:
        _same_shape(outputs, targets)
        n = len(targets)
        if not n:
            return
        y, guess = (v.reshape(n, -1).astype(np.float64) for v in (targets, outputs))
        mean, total = y.mean(axis=0), self.count + n
        # Chan, Golub and LeVeque (1983): means and spreads of parts combine without cancellation.
        shift = mean - self.mean
        self.residual = self.residual + np.square(guess - y).sum(axis=0)
        self.spread = (
            self.spread + np.square(y - mean).sum(axis=0) + shift**2 * (self.count * n / total)
        )
        self.mean, self.count = self.mean + shift * (n / total), total

    def compute(self) -> float:
        if self.count < 2:
            return float("nan")
        residual, spread = np.asarray(self.residual), np.asarray(self.spread)
        share = np.divide(residual, spread, out=(residual > 0).astype(float), where=spread > 0)
        return float(1 - share.mean())


class Perplexity(_Mean):
    """e^(mean cross entropy), of logits (n, classes, ...) and class indices (n, ...)."""

    name = "perplexity"
    higher_is_better = False

    def update(self, outputs: Array, targets: Array) -> None:
        true = true_classes(targets, outputs)
        scores = np.moveaxis(outputs, 1, -1).astype(np.float64)[true >= 0]
        top = scores.max(axis=-1, keepdims=True)
        logsum = np.log(np.exp(scores - top).sum(axis=-1)) + top[..., 0]
        self.add(logsum - np.take_along_axis(scores, true[true >= 0][:, None], axis=-1)[:, 0])

    def compute(self) -> float:
        return float(np.exp(super().compute()))


METRICS: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy,
    "confusion": ConfusionMatrix,
    "f1": F1,
    "mae": MAE,
    "mse": MSE,
    "perplexity": Perplexity,
    "precision": Precision,
    "r2": R2,
    "recall": Recall,
    "top3": lambda: TopK(3),
    "top5": TopK,
}


def make_metric(metric: str | Metric) -> Metric:
    """A metric by name (`"accuracy"`), or the metric itself."""
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str) and metric.startswith("top") and metric[3:].isdecimal():
        return TopK(int(metric[3:]))
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    return METRICS[metric]()


def make_metrics(
    metrics: str | Metric | Sequence[str | Metric], threshold: float = 0.0
) -> list[Metric]:
    """Metrics by name, with this threshold, or as they are; no two of one name."""
    made = []
    for metric in [metrics] if isinstance(metrics, str | Metric) else metrics:
        made.append(make_metric(metric))
        if isinstance(metric, str):
            made[-1].threshold = threshold
    names = [metric.name for metric in made]
    for name in names:
        if names.count(name) > 1 or name == "loss":
            raise ArgumentError(
                f"metrics are told apart by their names, and {name!r} comes twice (the loss is "
                "'loss'); set another on one of them: metric.name = ..."
            )
    return made
