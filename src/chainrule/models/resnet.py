"""Residual networks for small images (He, Zhang, Ren and Sun, "Deep residual learning for image
recognition", 2016, section 4.2)."""

from __future__ import annotations

from typing import Any

from chainrule import nn
from chainrule.array import pad
from chainrule.errors import ArgumentError


class PadShortcut(nn.Module):
    """A shortcut without parameters: every second pixel, new channels filled with zeros."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.new, self.stride = channels_out - channels_in, stride

    def forward(self, x: Any) -> Any:
        x = x[:, :, :: self.stride, :: self.stride]
        return pad(x, ((0, 0), (self.new // 2, self.new - self.new // 2), (0, 0), (0, 0)))


class BasicBlock(nn.Module):
    """Res(x) = relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))"""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU()
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else PadShortcut(channels_in, channels_out, stride)

    def forward(self, x: Any) -> Any:
        z = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.shortcut(x) + self.bn2(self.conv2(z)))


class ResNet(nn.Module):
    """6 n + 2 layers with weights for images of about 32x32; ResNet-20 has n = 3.

    Three stages of n blocks with 16, 32 and 64 channels, each after the first halving the picture,
    then global average pooling and a dense layer. Shortcuts have no parameters ("option A").

    Arguments:
        depth: 20, 32, 44, 56 or 110: any 6 n + 2.
        classes: units of the last layer.
        channels: channels of the input.

    Shapes: (n, channels, height, width) to (n, classes).
    """

    def __init__(self, depth: int = 20, classes: int = 10, channels: int = 3):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ArgumentError(f"the depth is 6 n + 2 (20, 32, 44, 56, 110), got {depth}.")
        blocks = (depth - 2) // 6
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.stages = nn.Sequential(
            self._stage(16, 16, 1, blocks), self._stage(16, 32, 2, blocks),
            self._stage(32, 64, 2, blocks),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(channels_in: int, channels_out: int, stride: int, blocks: int) -> nn.Sequential:
        first = BasicBlock(channels_in, channels_out, stride)
        rest = [BasicBlock(channels_out, channels_out) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, x: Any) -> Any:
        z = self.stages(self.relu(self.bn(self.conv(x))))
        return self.fc(self.flatten(self.pool(z)))


def resnet20(classes: int = 10, channels: int = 3) -> ResNet:
    """ResNet-20: 269,722 parameters on three channels and ten classes."""
    return ResNet(20, classes, channels)
