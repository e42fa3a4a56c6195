"""Dropout: parts of the input, drawn anew each time from the default generator, are set aside."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chainrule import random
from chainrule.array._core import as_float
from chainrule.errors import ArgumentError, ShapeError
from chainrule.nn.functional._checks import warn_once
from chainrule.nn.functional.activation import SELU_ALPHA, SELU_SCALE

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout",
]  # fmt: skip


def check_probability(p: float) -> None:
    """Refuse a probability outside [0, 1]."""
    if not 0 <= p <= 1:
        raise ArgumentError(f"dropout needs a probability p from 0 to 1, got {p}.")


def _keep(p: float, shape: tuple[int, ...], dtype: Any) -> Any:
    """1 with probability 1 - p, else 0."""
    return random.bernoulli(1 - p, shape, dtype=dtype)


def _drop(input: Any, p: float, shape: tuple[int, ...], inplace: bool) -> Tensor:
    """x m / (1 - p) with a mask m of this shape, which broadcasts."""
    x = as_float(input)
    scale = 1 / (1 - p) if p < 1 else 0.0
    z = x * (_keep(p, shape, x.dtype) * scale)
    return input._rebind(z) if inplace else z


def _features(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(N, C, 1, ..., 1): one draw for each sample and channel."""
    return shape[:2] + (1,) * (len(shape) - 2)


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """x m / (1 - p), m being 0 with probability p and else 1, for each element.

    The division keeps the expected value. Without `training`, x itself. Srivastava et al. (2014).
    """
    check_probability(p)
    x = as_float(input)
    return _drop(input, p, x.shape, inplace) if training and p > 0 else x


def _drop_channels(
    name: str, input: Any, p: float, training: bool, inplace: bool, batched: int
) -> Tensor:
    check_probability(p)
    x = as_float(input)
    if x.ndim not in (batched - 1, batched):
        raise ShapeError(
            f"{name} takes inputs (N, C, ...) of {batched} axes or (C, ...) of {batched - 1}, got "
            f"shape {x.shape}."
        )
    shape = _features(x.shape) if x.ndim == batched else x.shape[:1] + (1,) * (x.ndim - 1)
    return _drop(input, p, shape, inplace) if training and p > 0 else x


def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels. Shapes: (N, C, L) or (C, L). Tompson et al. (2015)."""
    return _drop_channels("dropout1d", input, p, training, inplace, 3)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels. Shapes: (N, C, H, W), or (N, C, L). Tompson et al. (2015).

    Three axes are taken as (N, C, L), with a warning, as in PyTorch.
    """
    x = as_float(input)
    if x.ndim == 3:
        warn_once(
            "dropout2d",
            f"dropout2d takes an input of 3 axes, here {x.shape}, as (N, C, L) and drops for each "
            "of the first two; for a picture (C, H, W) write x[None], for signals use dropout1d.",
        )
        return _drop_channels("dropout2d", input, p, training, inplace, 3)
    if x.ndim != 4:
        raise ShapeError(f"dropout2d takes inputs (N, C, H, W) or (N, C, L), got shape {x.shape}.")
    return _drop_channels("dropout2d", input, p, training, inplace, 4)


def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels. Shapes: (N, C, D, H, W) or (C, D, H, W), kept."""
    return _drop_channels("dropout3d", input, p, training, inplace, 5)


def _alpha(input: Any, p: float, shape: tuple[int, ...], inplace: bool) -> Tensor:
    """a (x m + low (1 - m)) + b: where m is 0 the lowest value of selu stands, not 0.

    a = ((1 - p) (1 + p low^2))^(-1/2) and b = -a p low restore mean 0 and variance 1.
    """
    x = as_float(input)
    low = -SELU_SCALE * SELU_ALPHA
    if p == 1:
        z = x * 0.0
    else:
        a = 1 / math.sqrt((1 - p) * (1 + p * low**2))
        keep = _keep(p, shape, x.dtype)
        z = x * (a * keep) + (a * low) * (1 - keep) - a * p * low
    return input._rebind(z) if inplace else z


def alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout that keeps mean 0 and variance 1, for networks of selu. Klambauer et al. (2017)."""
    check_probability(p)
    x = as_float(input)
    return _alpha(input, p, x.shape, inplace) if training and p > 0 else x


def feature_alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels. Shapes: (N, C, ...)."""
    check_probability(p)
    x = as_float(input)
    if x.ndim < 2:
        raise ShapeError(f"feature_alpha_dropout takes inputs (N, C, ...), got shape {x.shape}.")
    return _alpha(input, p, _features(x.shape), inplace) if training and p > 0 else x
