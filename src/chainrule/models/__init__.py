"""The systems of the syllabus, by name."""

from chainrule.models.lenet import LeNet
from chainrule.models.mlp import MLP
from chainrule.models.resnet import ResNet, resnet20

MODELS = {
    "mlp": (MLP, "multilayer perceptron, 784-16-16-10 by default"),
    "lenet": (LeNet, "LeNet-5: two convolutions, three dense layers"),
    "resnet20": (resnet20, "residual network of 20 layers for small images"),
}
"""name: (what makes it, what it is)"""

__all__ = ["MLP", "MODELS", "LeNet", "ResNet", "resnet20"]
