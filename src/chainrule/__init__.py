"""chainrule: deep learning that shows its work."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

from chainrule import autograd, random
from chainrule.array import *  # noqa: F403
from chainrule.autograd.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from chainrule.autograd.transforms import grad, hessian, jacobian, jvp, value_and_grad, vjp
from chainrule.compiler import compile
from chainrule.dtypes import bool_ as bool
from chainrule.dtypes import (
    complex64,
    complex128,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from chainrule.random import manual_seed
from chainrule.tensor import Tensor

if TYPE_CHECKING:
    from chainrule import data, models, nn, optim, recipes, train
    from chainrule.nn.summary import summary
    from chainrule.serialize import load, save
    from chainrule.train import History, Trainer

__version__ = "0.1.0"

e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None

# Rooms above the first floor are opened when they are entered: `import chainrule` stays light.
_ROOMS = ("data", "models", "nn", "optim", "recipes", "train")
_LAZY = {
    "History": "chainrule.train",
    "Trainer": "chainrule.train",
    "load": "chainrule.serialize",
    "save": "chainrule.serialize",
    "summary": "chainrule.nn.summary",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"chainrule.{name}")
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'chainrule' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *_LAZY})
