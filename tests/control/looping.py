"""A loop in Python that means what `cr.scan` means, and a cell to try both on."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr


def numbers(*shape: int, seed: int = 0) -> cr.Tensor:
    rng = np.random.default_rng([seed, *shape])
    return cr.asarray(rng.standard_normal(shape), requires_grad=True)


def values(tree: Any) -> list[np.ndarray]:
    leaves = cr.autograd.tree.flatten(tree)[0] if not isinstance(tree, list) else tree
    return [np.asarray(x.detach()) if isinstance(x, cr.Tensor) else np.asarray(x) for x in leaves]


def assert_same(ours: Any, theirs: Any, rtol: float = 1e-12) -> None:
    for x, y in zip(values(ours), values(theirs), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)


def looped(f: Any, init: Any, xs: Any, reverse: bool = False, truncate: int | None = None) -> Any:
    """What scan means."""
    carry, ys, n = init, [], len(xs)
    for k, t in enumerate(reversed(range(n)) if reverse else range(n)):
        if truncate and k and k % truncate == 0:
            carry = carry.detach()
        carry, y = f(carry, xs[t])
        ys.append(y)
    return carry, cr.stack(ys[::-1] if reverse else ys)


def squashed(result: Any) -> Any:
    """A scalar in which everything counts, differently."""
    return sum(
        (cr.sin(x) * (i + 1.3)).sum() for i, x in enumerate(cr.autograd.tree.flatten(result)[0])
    )


W, B, H, X = numbers(3, 3), numbers(3), numbers(2, 3), numbers(7, 2, 3)


def cell(w: Any, b: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = cr.tanh(x + h @ w.T + b)
        return h, h * x

    return step


def derivatives(loop: Any, args: Any) -> Any:
    """Value, gradients, and the gradients of a function of the gradients."""
    gradient = cr.grad(lambda *a: squashed(loop(*a)), argnums=tuple(range(len(args))))
    second = cr.grad(lambda *a: squashed(gradient(*a)), argnums=tuple(range(len(args))))
    return loop(*args), gradient(*args), second(*args)


def check(loop: Any, *args: Any) -> None:
    assert cr.autograd.gradcheck(loop, args)
    assert cr.autograd.gradgradcheck(loop, args)
