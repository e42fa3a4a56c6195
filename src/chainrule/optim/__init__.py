"""Optimisers, schedules, clipping and averages, with PyTorch's names, arguments and formulas."""

import importlib
from typing import TYPE_CHECKING, Any

from chainrule.optim import lr_scheduler
from chainrule.optim.adam import Adam, Adamax, AdamW, AMSGrad, NAdam, RAdam
from chainrule.optim.adaptive import Adadelta, Adagrad, RMSprop
from chainrule.optim.averaging import EMA, ExponentialMovingAverage
from chainrule.optim.clipping import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
    rescale_grad_norm_,
)
from chainrule.optim.lbfgs import LBFGS
from chainrule.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from chainrule.optim.optimizer import Optimizer
from chainrule.optim.sgd import ASGD, SGD
from chainrule.optim.sign import Lion, Rprop

if TYPE_CHECKING:
    from chainrule.optim import swa_utils

__all__ = [
    "ASGD",
    "EMA",
    "LBFGS",
    "SGD",
    "AMSGrad",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "ExponentialMovingAverage",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "Lion",
    "MultiStepLR",
    "MultiplicativeLR",
    "NAdam",
    "OneCycleLR",
    "Optimizer",
    "PolynomialLR",
    "RAdam",
    "RMSprop",
    "ReduceLROnPlateau",
    "Rprop",
    "SequentialLR",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "lr_scheduler",
    "rescale_grad_norm_",
    "swa_utils",
]


def __getattr__(name: str) -> Any:
    # Imports chainrule.nn, which imports the clipping functions from here.
    if name == "swa_utils":
        return importlib.import_module("chainrule.optim.swa_utils")
    raise AttributeError(f"module 'chainrule.optim' has no attribute {name!r}")
