"""A model, an optimiser and a step that are changed between calls: for the tests of usual calls."""

from __future__ import annotations

import random

import numpy as np

import chainrule as cr
from chainrule import nn, optim

F = nn.functional


def numbers(shape, seed=0):
    return cr.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def usual_calls(step):
    """How many calls have been made natively since one was made otherwise."""
    return sum(usual.calls() for usual in step._usuals)


def is_usual(step, *args):
    """Whether a call is made natively."""
    before = usual_calls(step)
    step(*args)
    return usual_calls(step) == before + 1


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = [1.0, 2.0]
        self.settings = {"scale": 0.5, "names": ["a", "b"]}
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(4)
        self.drop, self.last = nn.Dropout(0.25), nn.Linear(6, 3)

    def forward(self, x):
        x = self.drop(self.first(self.norm(x)))
        for part in self.parts:
            x = cr.tanh(x) * part * self.settings["scale"]
        return self.last(x)


class World:
    """A model, its optimiser and a step; two of them are the same, and one is compiled."""

    def __init__(self, make):
        self.model = Net()
        self.opt = make(self.model.parameters())
        self.kept = []

        def step(x, y):
            self.opt.zero_grad()
            loss = F.mse_loss(self.model(x), y)
            loss.backward()
            self.opt.step()
            return loss

        self.eager = step


def adam(parameters):
    return optim.Adam(parameters, lr=0.01)


def momentum(parameters):
    return optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01)


MAKERS = {"adam": adam, "momentum": momentum}

ACTIONS = {
    "learning rate": lambda w: w.opt.param_groups[0].update(lr=w.opt.param_groups[0]["lr"] * 0.9),
    "weight decay": lambda w: w.opt.param_groups[0].update(weight_decay=0.02),
    "assigned": lambda w: _assign(w.model.first.weight, 0.5),
    "one element": lambda w: _one_element(w.model.last.bias),
    "held": lambda w: w.kept.append([p.detach() for p in w.model.parameters()]),
    "viewed": lambda w: w.kept.append([p.detach().numpy() for p in w.model.parameters()]),
    "let go": lambda w: w.kept.clear(),
    "gradients read": lambda w: w.kept.append([p.grad for p in w.model.parameters()]),
    "gradient set": lambda w: setattr(w.model.last.bias, "grad", cr.ones((3,))),
    "zeroed": lambda w: w.opt.zero_grad(),
    "a list": lambda w: w.model.parts.__setitem__(0, w.model.parts[0] + 0.25),
    "longer": lambda w: w.model.parts.append(1.5) if len(w.model.parts) < 4 else None,
    "a dictionary": lambda w: w.model.settings.update(scale=w.model.settings["scale"] + 0.125),
    "mode": lambda w: w.model.train(not w.model.training),
    "state": lambda w: _step_back(w.opt),
    "seed": lambda w: cr.random.manual_seed(7),
    "saved": lambda w: w.model.load_state_dict(w.model.state_dict()),
    "frozen": lambda w: w.model.first.bias.requires_grad_(not w.model.first.bias.requires_grad),
}  # fmt: skip


def _assign(p, by):
    with cr.no_grad():
        p.copy_(p * by)


def _one_element(p):
    with cr.no_grad():
        p[0] = p[0] + 1


def _step_back(opt):
    for entries in opt.state.values():
        if "step" in entries:
            entries["step"] = max(1, entries["step"] - 2)


def snapshot(world, loss):
    """What a call has left, and what somebody has kept of earlier ones."""
    held = [[None if v is None else np.array(v) for v in values] for values in world.kept]
    gradients = [p._grad is None for p in world.model.parameters()]
    numbers = [entries.get("step") for entries in world.opt.state.values()]
    values = [p.detach().numpy().copy() for p in world.model.parameters()]
    return [loss, *values, *[b.numpy().copy() for b in world.model.buffers()]], [
        gradients, numbers, held
    ]  # fmt: skip


def play(seed, maker, wrap):
    """60 calls with random changes between them; what each has left, and how many were usual."""
    draw = random.Random(seed)
    cr.random.manual_seed(seed)
    world = World(MAKERS[maker])
    step = wrap(world.eager)
    left, usual = [], 0
    for n in range(60):
        if n % 3 == 2:
            ACTIONS[draw.choice(list(ACTIONS))](world)
        size = 5 if draw.random() < 0.8 else 3
        before = usual_calls(step) if wrap is not plain else 0
        loss = float(step(numbers((size, 4), n), numbers((size, 3), n + 100)))
        usual += wrap is not plain and usual_calls(step) == before + 1
        left.append(snapshot(world, loss))
    return left, usual


def plain(function):
    return function
