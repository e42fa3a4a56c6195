"""Dropout layers: active in training mode, identities in evaluation mode.

Masks are drawn from the default generator (`cr.random.manual_seed`), anew on each call.
"""

from __future__ import annotations

from typing import Any

from chainrule.nn import functional as F
from chainrule.nn.functional._checks import warn_of_training_mode
from chainrule.nn.functional.dropout import check_probability
from chainrule.nn.module import Module
from chainrule.tensor import Tensor

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    """A layer with a probability p of dropping."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        check_probability(p)
        self.p, self.inplace = p, inplace

    def _is_active(self) -> bool:
        if self.p:
            warn_of_training_mode(self, "it drops at random")
        return self.training

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """x m / (1 - p), m being 0 with probability p and else 1. Srivastava et al. (2014).

    Shapes: any, kept.

    Arguments:
        p: the probability of an element to be set to 0, from 0 to 1. Default: 0.5.
        inplace: give the result to the input's own tensor as well.
    """

    def forward(self, input: Any) -> Tensor:
        return F.dropout(input, self.p, self._is_active(), self.inplace)


class Dropout1d(_Dropout):
    """`Dropout` of whole channels. Shapes: (N, C, L) or (C, L), kept. Tompson et al. (2015)."""

    def forward(self, input: Any) -> Tensor:
        return F.dropout1d(input, self.p, self._is_active(), self.inplace)


class Dropout2d(_Dropout):
    """`Dropout` of whole channels. Shapes: (N, C, H, W) or (N, C, L). Tompson et al. (2015)."""

    def forward(self, input: Any) -> Tensor:
        return F.dropout2d(input, self.p, self._is_active(), self.inplace)


class Dropout3d(_Dropout):
    """`Dropout` of whole channels. Shapes: (N, C, D, H, W) or (C, D, H, W), kept."""

    def forward(self, input: Any) -> Tensor:
        return F.dropout3d(input, self.p, self._is_active(), self.inplace)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean 0 and variance 1, for networks of SELU. Klambauer et al. (2017)."""

    def forward(self, input: Any) -> Tensor:
        return F.alpha_dropout(input, self.p, self._is_active(), self.inplace)


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels. Shapes: (N, C, ...), kept."""

    def forward(self, input: Any) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self._is_active(), self.inplace)
