"""Layers, losses and what holds them together, with PyTorch's names, arguments and defaults."""

from chainrule.nn import functional
from chainrule.nn.activations import *  # noqa: F403
from chainrule.nn.adaptive_softmax import *  # noqa: F403
from chainrule.nn.containers import *  # noqa: F403
from chainrule.nn.distance import *  # noqa: F403
from chainrule.nn.dropout import *  # noqa: F403
from chainrule.nn.embedding import *  # noqa: F403
from chainrule.nn.losses import *  # noqa: F403
from chainrule.nn.losses_margin import *  # noqa: F403
from chainrule.nn.module import *  # noqa: F403
from chainrule.nn.padding import *  # noqa: F403
from chainrule.nn.parameter import *  # noqa: F403
