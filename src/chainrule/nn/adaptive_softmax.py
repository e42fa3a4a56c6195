"""Softmax over a large vocabulary, in clusters by frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule import array as xp
from chainrule.array._core import as_float, as_tensor, concrete, is_known
from chainrule.errors import ArgumentError, ShapeError
from chainrule.graph import make
from chainrule.nn import functional as F
from chainrule.nn.containers import ModuleList, Sequential
from chainrule.nn.functional._checks import check_labels
from chainrule.nn.linear import Linear
from chainrule.nn.module import Module
from chainrule.tensor import Tensor

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class AdaptiveOutput(NamedTuple):
    """The log-probability of each target, and the mean of their negatives."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """ln p(y | x) for many classes, the frequent ones first. Grave et al. (2017).

    Classes below `cutoffs[0]` and one place for each further cluster share a softmax, the head:
    `ln p(y) = ln p_head(y)`, and `ln p(y) = ln p_head(cluster) + ln p_cluster(y)` for the others.
    Cluster i first maps x to in_features / div_value^(i + 1) features. A cluster is computed only
    for those rows whose target lies in it.

    Shapes: input (N, in_features) or (in_features,); target, labels (N,) or (); `output` as the
    target, `loss` ().

    Arguments:
        n_classes: the number of classes, numbered by falling frequency.
        cutoffs: where the clusters begin, rising.
        div_value: by how much each cluster is smaller than the one before. Default: 4.
        head_bias: give the head a bias.

    Attributes:
        head, tail: a linear layer, and for each cluster two, all without bias.
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        cutoffs = list(cutoffs)
        rising = all(a < b for a, b in zip([0, *cutoffs], [*cutoffs, n_classes], strict=True))
        if not cutoffs or not rising or any(int(c) != c for c in cutoffs):
            raise ArgumentError(
                f"cutoffs are rising integers from 1 to n_classes - 1 = {n_classes - 1}, got "
                f"{cutoffs}."
            )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size, self.n_clusters = cutoffs[0], len(cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        made = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **made)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            hidden = int(in_features // div_value ** (i + 1))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(
                Sequential(
                    Linear(in_features, hidden, bias=False, **made),
                    Linear(hidden, size, bias=False, **made),
                )
            )

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters()

    def forward(self, input: Any, target: Any) -> AdaptiveOutput:
        x, y = as_float(input), as_tensor(target)
        single = y.ndim == 0
        if x.ndim != y.ndim + 1 or x.shape[:-1] != y.shape or x.ndim > 2:
            raise ShapeError(
                f"takes an input (N, in_features) with labels (N,), or (in_features,) with (), got "
                f"{x.shape} and {y.shape}."
            )
        if single:
            x, y = xp.expand_dims(x, axis=0), xp.expand_dims(y, axis=0)
        check_labels(type(self).__name__, y, self.n_classes)
        if not is_known(y):  # which rows belong to which cluster is not known yet: take all
            every = self.log_prob(x)
            output = xp.take_along_axis(every, xp.expand_dims(y, axis=1), axis=1)[:, 0]
            return AdaptiveOutput(output[0] if single else output, -xp.mean(output))
        head = F.log_softmax(self.head(x), 1)
        labels = np.asarray(concrete(y, "target"))
        cluster = np.searchsorted(self.cutoffs, labels, side="right")
        order, parts = [], []
        for i in range(self.n_clusters + 1):
            rows = np.nonzero(cluster == i)[0]
            if rows.size:
                order.append(rows)
                parts.append(self._log_p_of(i, x, head, rows, labels[rows]))
        if not parts:
            return AdaptiveOutput(head[:, 0], -xp.mean(head[:, 0]))
        places = np.argsort(np.concatenate(order), kind="stable")
        output = xp.take(xp.concat(parts), make(places), axis=0)
        return AdaptiveOutput(output[0] if single else output, -xp.mean(output))

    def _log_p_of(self, i: int, x: Any, head: Any, rows: Any, labels: Any) -> Tensor:
        """ln p(y) for rows whose labels lie in one part: 0 is the shortlist, i the i-th cluster."""
        chosen = make(rows)
        if i == 0:
            return head[chosen, make(labels)]
        inside = F.log_softmax(self.tail[i - 1](xp.take(x, chosen, axis=0)), 1)
        local = make(labels - self.cutoffs[i - 1])
        return head[chosen, self.shortlist_size + i - 1] + inside[make(np.arange(len(rows))), local]

    def log_prob(self, input: Any) -> Tensor:
        """ln p(c | x) for all classes c. Shapes: (N, in_features) to (N, n_classes)."""
        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            at = self.shortlist_size + i
            parts.append(F.log_softmax(cluster(input), 1) + head[:, at : at + 1])
        return xp.concat(parts, axis=1)

    def predict(self, input: Any) -> Tensor:
        """The likeliest class of each row. Shapes: (N, in_features) to (N,)."""
        return xp.argmax(self.log_prob(input), axis=1)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, n_classes={self.n_classes}, "
            f"cutoffs={self.cutoffs[:-1]}, div_value={self.div_value}, head_bias={self.head_bias}"
        )
