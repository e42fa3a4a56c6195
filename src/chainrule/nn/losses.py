"""Losses of regression and classification, as layers.

Formulas, shapes and sources stand with the functions of `nn.functional`. Common to all:

    reduction: "mean" (default), "sum", or "none" for the single losses.
    size_average, reduce: PyTorch's older flags for reduction.

Input and target must have exactly the shapes that belong together: nothing broadcasts in silence.
"""

from __future__ import annotations

import math
from typing import Any

from chainrule.array._core import as_tensor
from chainrule.errors import ArgumentError
from chainrule.nn import functional as F
from chainrule.nn.functional._checks import REDUCTIONS, check_reduction, legacy_reduction
from chainrule.nn.linear import Linear
from chainrule.nn.module import Module
from chainrule.tensor import Tensor

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CrossEntropyLoss", "GaussianNLLLoss",
    "HalfSquaredErrorLoss", "HuberLoss", "KLDivLoss", "L1Loss", "LinearCrossEntropyLoss",
    "MSELoss", "NLLLoss", "PoissonNLLLoss", "SmoothL1Loss", "ZeroOneLoss",
]  # fmt: skip

Flag = bool | None
WITH_BATCHMEAN = ("none", "batchmean", "sum", "mean")


class Loss(Module):
    """Base of the losses: keeps the reduction."""

    reductions: tuple[str, ...] = REDUCTIONS

    def __init__(
        self, size_average: Flag = None, reduce: Flag = None, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        check_reduction(self.reduction, self.reductions)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class WeightedLoss(Loss):
    """Base of the losses with weights, which are a buffer: saved with the model, not trained."""

    def __init__(
        self, weight: Any = None, size_average: Flag = None, reduce: Flag = None,
        reduction: str = "mean",
    ) -> None:  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self._register_weight("weight", weight)

    def _register_weight(self, name: str, weight: Any) -> None:
        self.register_buffer(name, None if weight is None else as_tensor(weight))


# --- regression -----------------------------------------------------------------------------------


class L1Loss(Loss):
    """|x - y|: the mean absolute error (MAE)."""

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class MSELoss(Loss):
    """(x - y)^2: the mean squared error; with reduction="sum" the sum of squared errors."""

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class HalfSquaredErrorLoss(Loss):
    """1/2 sum (x - y)^2, whose derivative is the error itself.

    reduction: "sum" (default); "batchmean" for `1/(2N) sum (x - y)^2`, N the length of the first
        axis; "mean"; "none".
    """

    reductions = WITH_BATCHMEAN

    def __init__(self, reduction: str = "sum"):
        super().__init__(reduction=reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.half_squared_error_loss(input, target, self.reduction)


class HuberLoss(Loss):
    """1/2 d^2 where |d| <= delta, delta (|d| - delta/2) elsewhere; d = x - y. Default: delta=1."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.huber_loss(input, target, self.reduction, self.delta)


class SmoothL1Loss(Loss):
    """1/2 d^2 / beta where |d| < beta, |d| - beta/2 elsewhere; d = x - y. Default: beta=1."""

    def __init__(
        self, size_average: Flag = None, reduce: Flag = None, reduction: str = "mean",
        beta: float = 1.0,
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class PoissonNLLLoss(Loss):
    """e^x - y x for counts y, x the logarithm of the rate; see `functional.poisson_nll_loss`.

    Arguments:
        log_input: x is a logarithm (default); else x is the rate, and the loss x - y ln(x + eps).
        full: add Stirling's approximation of ln y!.
    """

    def __init__(
        self, log_input: bool = True, full: bool = False, size_average: Flag = None,
        eps: float = 1e-8, reduce: Flag = None, reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.poisson_nll_loss(
            input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction
        )


class GaussianNLLLoss(Loss):
    """1/2 (ln v + (x - y)^2 / v), v = max(var, eps); see `functional.gaussian_nll_loss`.

    Arguments:
        full: add 1/2 ln(2 pi).
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.full, self.eps = full, eps

    def forward(self, input: Any, target: Any, var: Any) -> Tensor:
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


# --- classification -------------------------------------------------------------------------------


class CrossEntropyLoss(WeightedLoss):
    """-ln softmax(x)_y: the log loss of scores (logits), not probabilities, for labels y.

    Shapes: scores (N, C, ...) or (C,); labels (N, ...) or (), or probabilities of the scores'
    shape.

    Arguments:
        weight: (C,), a weight for each class.
        ignore_index: places with this label do not count. Default: -100.
        label_smoothing: s: the target becomes (1 - s) t + s/C. Default: 0.
    """

    def __init__(
        self, weight: Any = None, size_average: Flag = None, ignore_index: int = -100,
        reduce: Flag = None, reduction: str = "mean", label_smoothing: float = 0.0,
    ):  # fmt: skip
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError(f"label_smoothing must be from 0 to 1, got {label_smoothing}.")

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.cross_entropy(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class LinearCrossEntropyLoss(WeightedLoss):
    """`CrossEntropyLoss` of the scores of a linear layer of its own.

    Shapes: input (N, in_features) or (in_features,); target as `CrossEntropyLoss` for scores
    (N, num_classes, *out_features).

    Arguments:
        in_features, num_classes: sizes of the linear layer.
        out_features: (d1, ...), for as many decisions for each example. Default: ().
        bias: give the linear layer a bias. Default: False.
        options: must be None; see `functional.linear_cross_entropy`.
        The others as `CrossEntropyLoss`.

    Attributes:
        linear: the layer, with num_classes d1 ... outputs.
    """

    def __init__(
        self, in_features: int, num_classes: int, *, out_features: tuple[int, ...] = (),
        bias: bool = False, device: Any = None, dtype: Any = None, reduction: str = "mean",
        weight: Any = None, ignore_index: int | None = None, label_smoothing: float = 0.0,
        options: None = None,
    ):  # fmt: skip
        super().__init__(weight, reduction=reduction)
        self.num_classes, self.out_features = num_classes, tuple(out_features)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.options = options
        outputs = math.prod(self.out_features, start=num_classes)
        self.linear = Linear(in_features, outputs, bias=bias, device=device, dtype=dtype)

    def forward(self, input: Any, target: Any) -> Tensor:
        scores = (self.num_classes, *self.out_features)
        weight, bias = self.linear.weight, self.linear.bias
        return F.linear_cross_entropy(
            input, weight.reshape((*scores, self.linear.in_features)), target,
            linear_bias=None if bias is None else bias.reshape(scores), weight=self.weight,
            reduction=self.reduction, ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing, options=self.options,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"in_features={self.linear.in_features}, num_classes={self.num_classes}, "
            f"out_features={self.out_features}, bias={self.linear.bias is not None}, "
            f"reduction={self.reduction!r}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing}"
        )


class NLLLoss(WeightedLoss):
    """-x_y for log-probabilities x; after `LogSoftmax` this is the cross entropy.

    Shapes and arguments as `CrossEntropyLoss` with labels.
    """

    def __init__(
        self, weight: Any = None, size_average: Flag = None, ignore_index: int = -100,
        reduce: Flag = None, reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.nll_loss(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class BCELoss(WeightedLoss):
    """-(y ln x + (1 - y) ln(1 - x)) for probabilities x, with logarithms of at least -100.

    Shapes: input and target of one shape; weight broadcasts to it.
    """

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(WeightedLoss):
    """`BCELoss` of the sigmoid of scores x, without overflow.

    Arguments:
        weight: of the losses; broadcasts to their shape.
        pos_weight: a factor of the positive part, such as one for each class; broadcasts.
    """

    def __init__(
        self, weight: Any = None, size_average: Flag = None, reduce: Flag = None,
        reduction: str = "mean", pos_weight: Any = None,
    ):  # fmt: skip
        super().__init__(weight, size_average, reduce, reduction)
        self._register_weight("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(Loss):
    """t (ln t - x) for log-probabilities x and probabilities t (log_target: their logarithms).

    reduction: "mean" (default, over all elements); "batchmean", the divergence as it is defined,
        its mean over the first axis; "sum"; "none".
    """

    reductions = WITH_BATCHMEAN

    def __init__(
        self, size_average: Flag = None, reduce: Flag = None, reduction: str = "mean",
        log_target: bool = False,
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class ZeroOneLoss(Loss):
    """1 where the prediction is wrong, else 0; see `functional.zero_one_loss`. No gradient."""

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction=reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.zero_one_loss(input, target, self.reduction)


class CTCLoss(Loss):
    """-ln P(labels), summed over all alignments with time; see `functional.ctc_loss`.

    Arguments:
        blank: the class of the blank. Default: 0.
        zero_infinity: 0 in place of the infinite losses of impossible alignments.
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        super().__init__(reduction=reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    def forward(
        self, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any
    ) -> Tensor:
        return F.ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction,
            self.zero_infinity,
        )  # fmt: skip
