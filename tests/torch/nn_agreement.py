"""One function or layer of both frameworks on the same numbers: values and two derivatives."""

from __future__ import annotations

import numpy as np
import torch

import chainrule as cr

TIGHT = {"rtol": 1e-11, "atol": 1e-12}


def rng(seed=0):
    return np.random.default_rng(seed)


def same(mine, other, message="", **tolerance):
    np.testing.assert_allclose(
        mine.detach().numpy(),
        other.detach().numpy(force=True),
        err_msg=message,
        **(tolerance or TIGHT),
    )
    assert tuple(mine.shape) == tuple(other.shape), message


def _both(x):
    """An array in both frameworks; floats ask for gradients."""
    if isinstance(x, np.ndarray):
        ours, theirs = cr.asarray(x), torch.from_numpy(x.copy())
        if x.dtype.kind == "f":
            ours, theirs = cr.tensor(x, requires_grad=True), theirs.requires_grad_()
        return ours, theirs
    return x, x


def agree(ours, theirs, *args, second=True, constant=(), **tolerance):
    """Assert that two functions agree on `args` in value, gradient and gradient of the gradient.

    Arguments:
        args: float64 arrays get gradients, unless their position is in `constant`.
        second: compare second derivatives too; PyTorch lacks some.
    """
    pairs = [_both(x) for x in args]
    for i in constant:
        pairs[i] = (pairs[i][0].detach(), pairs[i][1].detach())
    mine, other = ours(*[a for a, _ in pairs]), theirs(*[b for _, b in pairs])
    same(mine, other, "value", **tolerance)
    leaves = [(a, b) for a, b in pairs if isinstance(b, torch.Tensor) and b.requires_grad]
    if not leaves:
        return
    seed = np.asarray(rng(1).standard_normal(mine.shape))
    g_mine = cr.autograd.grad(
        mine, [a for a, _ in leaves], cr.asarray(seed), create_graph=second, allow_unused=True
    )
    g_other = torch.autograd.grad(
        other, [b for _, b in leaves], torch.from_numpy(seed), create_graph=second,
        allow_unused=True,
    )  # fmt: skip
    total_mine, total_other = 0.0, 0.0
    for i, (a, b) in enumerate(zip(g_mine, g_other, strict=True)):
        assert (a is None) == (b is None), f"input {i}: one framework has no gradient"
        if a is None:
            continue
        same(a, b, f"gradient by input {i}", **tolerance)
        v = np.asarray(rng(2 + i).standard_normal(a.shape))
        if second and b.requires_grad:
            total_other = total_other + (b * torch.from_numpy(v)).sum()
        if second and a.requires_grad:
            total_mine = total_mine + (a * v).sum()
    if not second or not isinstance(total_other, torch.Tensor):
        return
    gg_other = torch.autograd.grad(total_other, [b for _, b in leaves], allow_unused=True)
    zeros = [np.zeros(b.shape) for _, b in leaves]
    if isinstance(total_mine, float):
        gg_mine = [None] * len(leaves)
    else:
        gg_mine = cr.autograd.grad(total_mine, [a for a, _ in leaves], allow_unused=True)
    for i, (a, b) in enumerate(zip(gg_mine, gg_other, strict=True)):
        # A second derivative that is 0 everywhere may be absent in one of them.
        left = zeros[i] if a is None else a.detach().numpy()
        right = zeros[i] if b is None else b.detach().numpy(force=True)
        np.testing.assert_allclose(
            left, right, err_msg=f"second derivative by input {i}", **(tolerance or TIGHT)
        )
