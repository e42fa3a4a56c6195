"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document
recognition", 1998)."""

from __future__ import annotations

from typing import Any

from chainrule import nn


class LeNet(nn.Module):
    """Two convolutions with pooling, three dense layers: 61,706 parameters at 28x28.

        5x5 convolution to 6 - g - 2x2 pool - 5x5 convolution to 16 - g - 2x2 pool
            - 120 - g - 84 - g - 10

    Arguments:
        classes: units of the last layer.
        channels: channels of the input.
        size: height and width of the input, 28 or 32 for the original. The first convolution is
            padded by 2 unless the size is 32, where the pictures bring their own margin.
        classic: the form of 1998, with tanh and average pooling; else ReLU and max pooling.

    Shapes: (n, channels, size, size) to (n, classes).
    """

    def __init__(self, classes: int = 10, channels: int = 1, size: int = 28, classic: bool = False):
        super().__init__()
        activation = nn.Tanh if classic else nn.ReLU
        pool: Any = nn.AvgPool2d if classic else nn.MaxPool2d
        padding = 0 if size == 32 else 2
        side = ((size + 2 * padding - 4) // 2 - 4) // 2
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=padding), activation(), pool(2),
            nn.Conv2d(6, 16, 5), activation(), pool(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * side * side, 120), activation(),
            nn.Linear(120, 84), activation(),
            nn.Linear(84, classes),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.classifier(self.features(x))
