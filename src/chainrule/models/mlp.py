"""The multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from chainrule import nn
from chainrule.errors import ArgumentError, unknown_name

ACTIVATIONS = {
    "gelu": nn.GELU, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "silu": nn.SiLU, "tanh": nn.Tanh,
}  # fmt: skip


class MLP(nn.Sequential):
    """Dense layers with an activation between: a_l = g(W_l a_(l-1) + b_l), the last one linear.

    Arguments:
        sizes: units of the input, of each hidden layer and of the output; (784, 16, 16, 10) is the
            digit network of the lectures, with 13,002 parameters.
        activation: `"sigmoid"` (default), `"tanh"`, `"relu"`, `"gelu"` or `"silu"`.
        dropout: the share of hidden units dropped in training.

    Shapes: (n, sizes[0]), or (n, ...) with as many numbers a sample, to (n, sizes[-1]).
    """

    def __init__(
        self,
        sizes: Sequence[int] = (784, 16, 16, 10),
        activation: str = "sigmoid",
        dropout: float = 0.0,
    ):
        if len(sizes) < 2:
            raise ArgumentError(f"an MLP needs at least an input and an output size, got {sizes}.")
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, ACTIVATIONS)
        layers: list[Any] = []
        for i, (n, m) in enumerate(itertools.pairwise(sizes)):
            if i:
                layers.append(ACTIVATIONS[activation]())
                if dropout:
                    layers.append(nn.Dropout(dropout))
            layers.append(nn.Linear(n, m))
        super().__init__(*layers)

    def forward(self, input: Any) -> Any:
        return super().forward(input.flatten(1) if input.ndim > 2 else input)
