"""chainrule: deep learning that shows its work."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

from chainrule import array, autograd, dtypes, random
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
    from chainrule import data as data
    from chainrule import models as models
    from chainrule import nn as nn
    from chainrule import optim as optim
    from chainrule import recipes as recipes
    from chainrule import train as train
    from chainrule.compiler.control import cond as cond
    from chainrule.compiler.control import scan as scan
    from chainrule.compiler.control import while_loop as while_loop
    from chainrule.compiler.native.runtime import get_num_threads as get_num_threads
    from chainrule.compiler.native.runtime import set_num_threads as set_num_threads
    from chainrule.nn.summary import summary as summary
    from chainrule.serialize import load as load
    from chainrule.serialize import save as save
    from chainrule.train import History as History
    from chainrule.train import Trainer as Trainer

__version__ = "0.1.0"

tensor = array.tensor  # and not the module of that name, which its import has put here

e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None

# Rooms above the first floor are opened when they are entered: `import chainrule` stays light.
_ROOMS = ("data", "models", "nn", "optim", "recipes", "train")
_LAZY = {
    "History": "chainrule.train",
    "Trainer": "chainrule.train",
    "cond": "chainrule.compiler.control",
    "get_num_threads": "chainrule.compiler.native.runtime",
    "load": "chainrule.serialize",
    "save": "chainrule.serialize",
    "scan": "chainrule.compiler.control",
    "set_num_threads": "chainrule.compiler.native.runtime",
    "summary": "chainrule.nn.summary",
    "while_loop": "chainrule.compiler.control",
}


__all__ = [
    "Tensor", "autograd", "bool", "compile", "complex64", "complex128", "dtypes", "e",
    "enable_grad", "float32", "float64", "grad", "hessian", "inf", "int8", "int16", "int32",
    "int64", "is_grad_enabled", "jacobian", "jvp", "manual_seed", "nan", "newaxis", "no_grad", "pi",
    "random", "set_grad_enabled", "uint8", "uint16", "uint32", "uint64", "value_and_grad", "vjp",
]  # fmt: skip
__all__ += array.__all__


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"chainrule.{name}")
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    hint = f": {dtypes.absent(name)}" if name in dtypes.ELSEWHERE else ""
    raise AttributeError(f"module 'chainrule' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *_LAZY})
