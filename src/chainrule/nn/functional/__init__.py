"""Layers and losses as functions, with PyTorch's names and arguments."""

from chainrule.nn.functional.activation import *  # noqa: F403
from chainrule.nn.functional.adaptive import *  # noqa: F403
from chainrule.nn.functional.affine import *  # noqa: F403
from chainrule.nn.functional.attention import *  # noqa: F403
from chainrule.nn.functional.conv import *  # noqa: F403
from chainrule.nn.functional.distance import *  # noqa: F403
from chainrule.nn.functional.dropout import *  # noqa: F403
from chainrule.nn.functional.embedding import *  # noqa: F403
from chainrule.nn.functional.fractional import *  # noqa: F403
from chainrule.nn.functional.interpolation import *  # noqa: F403
from chainrule.nn.functional.loss_classification import *  # noqa: F403
from chainrule.nn.functional.loss_ctc import *  # noqa: F403
from chainrule.nn.functional.loss_margin import *  # noqa: F403
from chainrule.nn.functional.loss_regression import *  # noqa: F403
from chainrule.nn.functional.normalization import *  # noqa: F403
from chainrule.nn.functional.padding import *  # noqa: F403
from chainrule.nn.functional.patches import *  # noqa: F403
from chainrule.nn.functional.pooling import *  # noqa: F403
from chainrule.nn.functional.sampling import *  # noqa: F403
from chainrule.nn.functional.softmax import *  # noqa: F403
