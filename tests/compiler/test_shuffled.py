"""No kernel depends on the order of its units, on its neighbours, or on what memory held before.

Programs run here without the runtime: within each phase the units of all kernels one by one in a
shuffled order, with NaN in the scratch memory before every unit and in the arena before every run.
The results are the same bits as those of units in order.
"""

from __future__ import annotations

import ctypes
from random import Random
from typing import Any

import numpy as np
import pytest
from random_graphs import draw_graph

import chainrule as cr
from chainrule import models, nn, optim
from chainrule.compiler.build import MARK, GuardedProgram, build
from chainrule.compiler.native.program import Phase, Program, memory

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
F = nn.functional


class Order:
    """Runs the parts of programs; `random` None keeps the units in order."""

    random: Random | None = None

    def run(self, program: Any) -> None:
        scratch = memory(program.tables.scratch)
        if program.arena is not None:
            zones = program.plan.arena.zones if isinstance(program, GuardedProgram) else ()
            program.arena[8:] = 0xFF
            for offset, nbytes in zones:
                program.arena[offset : offset + nbytes] = MARK
        table = ctypes.addressof(program._table)
        for step in program.tables.steps:
            if not isinstance(step, Phase):
                program._hosts[step.number](program)
                continue
            units = [(t.kernel, unit) for t in step.tasks for unit in range(t.units)]
            if self.random is not None:
                self.random.shuffle(units)
            for kernel, unit in units:
                scratch[:] = 0xFF
                KERNEL(program._kernels[kernel])(table, unit, unit + 1, scratch.ctypes.data)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Order:
    order = Order()
    monkeypatch.setattr(Program, "_run_parts", lambda program: order.run(program))
    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    return order


def step_of(model: nn.Module, x: Any, labels: Any) -> Any:
    opt = optim.SGD(model.parameters(), lr=0.0)

    @cr.compile(backend="native")
    def step(x: Any, labels: Any) -> Any:
        opt.zero_grad()
        z = model(x)
        loss = F.cross_entropy(z.reshape((-1, z.shape[-1])), labels.reshape((-1,)))
        loss.backward()
        opt.step()
        return loss

    def run() -> list[np.ndarray]:
        loss = step(x, labels)
        return [loss.detach().numpy(), *(p.grad.numpy().copy() for p in model.parameters())]

    return run


class Reader(nn.Module):
    def __init__(self, layer: Any):
        super().__init__()
        self.rnn, self.head = layer(7, 12, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.head = nn.LayerNorm(24), nn.Linear(24, 72), nn.Linear(24, 5)

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        qkv = self.qkv(self.norm(x)).reshape((n, t, 3, 2, d // 2))
        q, k, v = (qkv[:, :, i].permute_dims((0, 2, 1, 3)) for i in range(3))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + z.permute_dims((0, 2, 1, 3)).reshape((n, t, d)))


def separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.GELU(), nn.Conv2d(24, 40, 1),
        nn.ConvTranspose2d(40, 8, 2, stride=2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(800, 5),
    )  # fmt: skip


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(300, 70), nn.Tanh(), nn.Linear(70, 33), nn.Linear(33, 5))


CASES = {
    **{f"lenet {n}": (models.LeNet, (n, 1, 28, 28)) for n in (1, 7, 30, 64)},
    **{f"resnet {n}": (lambda: models.ResNet(8), (n, 3, 16, 16)) for n in (1, 5)},
    **{f"separable {n}": (separable, (n, 3, 20, 20)) for n in (1, 6)},
    "lstm": (lambda: Reader(nn.LSTM), (32, 9, 7)), "gru": (lambda: Reader(nn.GRU), (5, 9, 7)),
    "attention": (Attention, (3, 17, 24)), "dense": (dense, (129, 300)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_steps(name: str, order: Order):
    make, shape = CASES[name]
    rng = np.random.default_rng(0)
    x = cr.asarray(rng.standard_normal(shape).astype("f4"))
    cr.random.manual_seed(0)
    model = make()
    z = model(x)
    labels = cr.asarray(rng.integers(0, 5, z.shape[:-1]))
    run = step_of(model, x, labels)
    run()
    expected = run()
    assert all(np.isfinite(a).all() for a in expected)
    for seed in range(2):
        order.random = Random(seed)
        for ours, other in zip(run(), expected, strict=True):
            np.testing.assert_array_equal(ours, other)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed: int, order: Order):
    from makers import MAKERS

    names = sorted(MAKERS)
    graph, arrays, _ = draw_graph(Random(seed), names[seed * 7 % len(names)])
    program = build(graph)
    results = []
    for random in (None, Random(0), Random(1)):
        order.random = random
        given = [a.copy() for a in arrays]
        results.append(program.run(given, []))
    for others in results[1:]:
        for ours, other in zip(others, results[0], strict=True):
            np.testing.assert_array_equal(ours, other)
