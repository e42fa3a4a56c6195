"""A small problem for the optimisers of both frameworks."""

import numpy as np
import torch

import chainrule as cr

STEPS = 50
RNG = np.random.default_rng(11)
DATA, TARGET = RNG.normal(size=(8, 4)), RNG.normal(size=(8, 3))
STARTS = [RNG.normal(size=(4, 5)), RNG.normal(size=5), RNG.normal(size=(5, 3)), np.array(0.3)]


def leaves(lib):
    if lib is cr:
        return [cr.asarray(w.copy(), requires_grad=True) for w in STARTS]
    return [torch.tensor(w, requires_grad=True) for w in STARTS]


def loss_of(lib, params):
    """A small network with a scalar parameter: a loss that is not convex."""
    a, b, c, d = params
    x, y = (cr.asarray(v) if lib is cr else torch.tensor(v) for v in (DATA, TARGET))
    return (((lib.tanh(x @ a + b) @ c) * lib.exp(d) - y) ** 2).mean()


def closure_of(lib, opt, params):
    # What is maximised is bounded, or rounding would grow without bounds too.
    sign = -1 if opt.param_groups[0].get("maximize") else 1

    def closure():
        opt.zero_grad()
        loss = sign * loss_of(lib, params)
        loss.backward()
        return loss

    return closure


def values(params):
    return [p.detach().numpy().copy() for p in params]


def assert_close(ours, theirs, rtol=1e-12, atol=1e-14):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def run(lib, make, steps=STEPS):
    """The parameters after every step."""
    params = leaves(lib)
    opt = make(params)
    closure = closure_of(lib, opt, params)
    path = []
    for _ in range(steps):
        opt.step(closure)
        path.append(values(params))
    return path, opt, params


def to_torch(value):
    """Our state as PyTorch takes it: tensors of its own."""
    if isinstance(value, dict):
        return {k: to_torch(v) for k, v in value.items()}
    if isinstance(value, list):
        return [to_torch(v) for v in value]
    return torch.tensor(value.numpy()) if isinstance(value, cr.Tensor) else value
