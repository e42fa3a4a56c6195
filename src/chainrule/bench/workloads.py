"""What is measured: shapes, optimisers and data of each workload, without any framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Workload:
    """One step that every contestant takes.

    Attributes:
        name: on the command line.
        what: one line for the table.
        model: the model's name in each contestant's file.
        shape: the shape of a batch of inputs (of both factors for `gemm`).
        target: the ratio (fastest peer's time over ours) that the project aims at.
        optimizer: name and hyperparameters; None where no update is made.
        classes: labels are below this number; 0 for no labels.
        tokens: inputs are integers below this number; 0 for numbers in [0, 1).
        trains: False for inference.
        group: rows with the same group share one line of the summary (gemm).
        sizes: dimensions that the model needs.
        expected: a peer, and the seconds it took in earlier measurements on a processor of the
            kind the targets were set on; a peer that is far slower than that is set up wrongly.
        cold: the most seconds that chainrule's first call should take.
    """

    name: str
    what: str
    model: str
    shape: tuple[int, ...]
    target: float
    optimizer: tuple[str, dict[str, float]] | None = None
    classes: int = 10
    tokens: int = 0
    trains: bool = True
    group: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    expected: tuple[str, float] | None = None
    cold: float | None = None

    def batch(self, dtype: str = "float32", seed: int = 0) -> tuple[Any, ...]:
        """Inputs and labels as NumPy arrays, the same for every contestant."""
        rng = np.random.default_rng(seed)
        if self.model == "gemm":
            m, k, n = self.shape
            left = (k, m) if self.layout == "TN" else (m, k)
            right = (n, k) if self.layout == "NT" else (k, n)
            return tuple(rng.standard_normal(s).astype(dtype) for s in (left, right))
        if self.tokens:
            text = rng.integers(0, self.tokens, (self.shape[0], self.shape[1] + 1))
            return text[:, :-1].copy(), text[:, 1:].copy()
        x = rng.random(self.shape).astype(dtype)
        return (x, rng.integers(0, self.classes, self.shape[:1])) if self.classes else (x,)

    @property
    def layout(self) -> str:
        return self.name.rsplit("-", 1)[-1]


def _gemm(m: int, k: int, n: int, layout: str) -> Workload:
    square = m == k == n
    size = str(m) if square else f"{m}x{k}x{n}"
    return Workload(
        f"gemm-{size}-{layout}", f"{m}x{k} times {k}x{n}, {layout}", "gemm", (m, k, n),
        0.97 if square and m >= 1024 else 1.2, trains=False, group="gemm",
    )  # fmt: skip


_SGD, _MOMENTUM = ("sgd", {"lr": 0.1}), ("sgd", {"lr": 0.01, "momentum": 0.9})
_RECURRENT = dict(inputs=64, hidden=128)

_ROWS = [
    Workload(
        "mlp-digits", "784-16-16-10, sigmoid, batch 32, SGD", "mlp_digits", (32, 784), 4, _SGD,
        expected=("jax", 66e-6), cold=0.5,
    ),
    Workload(
        "mlp-wide", "784-512-512-10, ReLU, batch 128, Adam", "mlp_wide", (128, 784), 1.7,
        ("adam", {"lr": 1e-3}),
    ),
    Workload(
        "lenet", "LeNet, 28x28, batch 64, SGD with momentum", "lenet", (64, 1, 28, 28), 2.5,
        _MOMENTUM, expected=("torch", 2.05e-3), cold=1.5,
    ),
    Workload(
        "lenet-inference", "LeNet, one picture, inference", "lenet", (1, 1, 28, 28), 5,
        trains=False,
    ),
    Workload(
        "resnet20", "ResNet-20, 3x32x32, batch 64, SGD with momentum", "resnet20",
        (64, 3, 32, 32), 1.3, _MOMENTUM, expected=("torch", 55e-3), cold=4,
    ),
    Workload(
        "lstm", "LSTM 64 to 128, 100 steps, batch 32, Adam", "lstm", (32, 100, 64), 1.4,
        ("adam", {"lr": 1e-3}), sizes=_RECURRENT, expected=("torch", 6.7e-3), cold=1.5,
    ),
    Workload(
        "gru", "GRU 64 to 128, 100 steps, batch 32, Adam", "gru", (32, 100, 64), 3,
        ("adam", {"lr": 1e-3}), sizes=_RECURRENT, expected=("torch", 16.6e-3),
    ),
    Workload(
        "gpt-small", "4 pre-norm blocks, 4 heads, d = 128, T = 128, batch 16, AdamW", "gpt",
        (16, 128), 2.2, ("adamw", {"lr": 3e-4}), classes=65, tokens=65,
        sizes=dict(depth=4, heads=4, width=128), expected=("torch", 72e-3), cold=3,
    ),
    Workload(
        "mobilenet-block", "depthwise 3x3, 1x1, batch norm, ReLU, 64x32x32, batch 64", "mobilenet",
        (64, 64, 32, 32), 1.5, classes=0, sizes=dict(channels=64),
    ),
]  # fmt: skip

_SHAPES = [
    *((n, n, n) for n in (256, 512, 1024, 2048)),
    (32, 784, 16), (128, 784, 512), (128, 512, 512), (2048, 128, 512), (2048, 512, 128),
]  # fmt: skip

WORKLOADS: dict[str, Workload] = {
    row.name: row
    for row in [*(_gemm(*s, layout) for s in _SHAPES for layout in ("NN", "TN", "NT")), *_ROWS]
}

STUDIED: dict[str, Workload] = {
    row.name: row
    for row in (
        Workload(
            "mlp-deep", "dense layers of 128 units, ReLU, batch 64, SGD", "mlp_deep", (64, 128), 1,
            ("sgd", {"lr": 0.01}), sizes=dict(depth=8, width=128),
        ),
        Workload(
            "attention", "causal attention, 4 heads of 32, forward and backward", "attention",
            (1, 256, 128), 1, classes=0, sizes=dict(heads=4),
        ),
    )
}  # fmt: skip
"""Workloads of the studies alone: cost by depth, and by length."""


def named(name: str, shape: Sequence[int], sizes: dict[str, int]) -> Workload:
    """A workload by name, with another shape and other sizes."""
    found = WORKLOADS[name] if name in WORKLOADS else STUDIED[name]
    return replace(found, shape=tuple(shape), sizes=dict(sizes))


def variants(workload: Workload, peer: str) -> list[str]:
    """The ways in which a peer runs a workload; the fastest of them counts."""
    if peer == "numpy":
        return ["matmul"] if workload.model == "gemm" else []
    if peer == "jax":
        return ["jit"]
    if workload.model == "gemm":
        return ["eager"]
    images = workload.model in ("lenet", "resnet20", "mobilenet")
    return ["eager", "compiled", *(["channels-last", "compiled-channels-last"] if images else [])]


def chosen(names: list[str]) -> list[Workload]:
    """The workloads of some names or groups; all for an empty list."""
    from chainrule.errors import unknown_name

    if not names:
        return list(WORKLOADS.values())
    found: dict[str, Workload] = {}
    for name in names:
        matching = [w for w in WORKLOADS.values() if name in (w.name, w.group)]
        if not matching:
            raise unknown_name("workload", name, [*WORKLOADS, "gemm"])
        found.update((w.name, w) for w in matching)
    return list(found.values())
