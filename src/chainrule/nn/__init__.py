"""Layers, losses and what holds them together, with PyTorch's names, arguments and defaults."""

import importlib
from typing import TYPE_CHECKING, Any

from chainrule.nn import functional as functional
from chainrule.nn import init as init
from chainrule.nn.activations import *  # noqa: F403
from chainrule.nn.adaptive_softmax import *  # noqa: F403
from chainrule.nn.attention import *  # noqa: F403
from chainrule.nn.cells import *  # noqa: F403
from chainrule.nn.containers import *  # noqa: F403
from chainrule.nn.conv import *  # noqa: F403
from chainrule.nn.distance import *  # noqa: F403
from chainrule.nn.dropout import *  # noqa: F403
from chainrule.nn.embedding import *  # noqa: F403
from chainrule.nn.linear import *  # noqa: F403
from chainrule.nn.losses import *  # noqa: F403
from chainrule.nn.losses_margin import *  # noqa: F403
from chainrule.nn.module import *  # noqa: F403
from chainrule.nn.normalization import *  # noqa: F403
from chainrule.nn.padding import *  # noqa: F403
from chainrule.nn.parameter import *  # noqa: F403
from chainrule.nn.pooling import *  # noqa: F403
from chainrule.nn.recurrent import *  # noqa: F403
from chainrule.nn.shaping import *  # noqa: F403

if TYPE_CHECKING:
    from chainrule.nn import utils as utils


def __getattr__(name: str) -> Any:
    # Opened when it is entered: it knows the optimisers, and training needs little of it.
    if name == "utils":
        return importlib.import_module("chainrule.nn.utils")
    raise AttributeError(f"module 'chainrule.nn' has no attribute {name!r}")
