"""Layers, losses and what holds them together, with PyTorch's names, arguments and defaults."""

from chainrule.nn import functional
from chainrule.nn.containers import *  # noqa: F403
from chainrule.nn.module import *  # noqa: F403
from chainrule.nn.parameter import *  # noqa: F403
