"""Random loops: native, in NumPy and as Python's own loop, values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

import chainrule as cr

WIDTHS = (1, 3, 4, 8, 17)


class Maker:
    """A random body over values (rows, width), written down as calls that can be made again."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.rows = int(self.rng.choice([1, 2, 8, 16, 24, 30]))
        self.width = int(self.rng.choice(WIDTHS))
        self.steps = int(self.rng.integers(1, 6))
        self.carries = int(self.rng.integers(0, 4))
        self.slices = int(self.rng.integers(0 if self.carries else 1, 3))
        n = self.width
        self.weights = [self.normal(n, n) / n, self.normal(n), self.normal(self.rows, n)]
        self.calls = [self.call() for _ in range(int(self.rng.integers(2, 9)))]
        count = self.carries + self.slices + len(self.calls)
        pick = lambda k: [int(i) for i in self.rng.integers(0, count, k)]  # noqa: E731
        self.after, self.given = pick(self.carries), pick(int(self.rng.integers(1, 4)))
        self.how = {
            "reverse": bool(self.rng.random() < 0.3),
            "checkpoint": int(self.rng.integers(1, 4)) if self.rng.random() < 0.2 else None,
        }

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape)

    def call(self) -> tuple[str, list[int], int]:
        kinds = (
            "tanh", "sigmoid", "exp", "add", "mul", "sub", "matmul", "transposed", "bias", "whole",
            "softmax", "center", "halves", "swap", "maximum", "relu", "batch", "cumulative",
            "rows", "detach", "choose", "inner",
        )  # fmt: skip
        return str(self.rng.choice(kinds)), list(self.rng.integers(0, 99, 2)), 0

    def apply(self, kind: str, x: Any, y: Any, weights: Any) -> Any:
        """Of values (rows, width) one more, of size about 1."""
        w, b, whole = weights
        half = self.width // 2
        match kind:
            case "tanh" | "sigmoid" | "relu":
                return getattr(cr, kind)(x)
            case "exp":
                return cr.exp(-x * x)
            case "add":
                return (x + y) * 0.5
            case "sub":
                return 0.5 * x - y * 0.25
            case "mul":
                return cr.tanh(x) * y
            case "matmul":
                return x @ w
            case "transposed":
                return cr.tanh(x @ w.T + y)
            case "bias":
                return cr.tanh(x + b)
            case "whole":
                return cr.tanh(x * whole)
            case "softmax":
                return cr.nn.functional.softmax(x, 1) * y
            case "center":
                return x - cr.mean(x, axis=1, keepdims=True)
            case "batch":
                return x - cr.mean(x, axis=0, keepdims=True)
            case "halves":
                return cr.concat([y[:, half:], x[:, :half]], axis=1)
            case "swap":
                return cr.flip(x, axis=1)
            case "maximum":
                return cr.maximum(x, y)
            case "cumulative":
                return cr.tanh(cr.cumulative_sum(x, axis=1))
            case "rows":
                return cr.tanh(x @ cr.tanh(y.T @ x))
            case "detach":
                return x.detach() * 0.5 + y
            case "choose":
                large = cr.sum(x * x) > 0.4 * x.size
                return cr.cond(large, lambda: cr.tanh(y), lambda: x * 0.5)
            case "inner":
                stack = cr.stack([x, y])
                return cr.scan(lambda c, z: (cr.tanh(c + z * b), None), x, stack)[0]
        raise AssertionError(kind)

    def step(self, weights: Any) -> Any:
        def f(carry: Any, xs: Any) -> Any:
            values = [*carry, *xs]
            for kind, (i, j), _ in self.calls:
                one, other = values[i % len(values)], values[j % len(values)]
                values.append(self.apply(kind, one, other, weights))
            return tuple(values[i] for i in self.after), [values[i] for i in self.given]

        return f

    def inputs(self) -> list[cr.Tensor]:
        shape = (self.rows, self.width)
        arrays = [*self.weights, *[self.normal(*shape) for _ in range(self.carries)]]
        arrays += [self.normal(self.steps, *shape) for _ in range(self.slices)]
        return [cr.asarray(a) for a in arrays]

    def split(self, inputs: Any) -> tuple[Any, Any, Any]:
        n = 3 + self.carries
        return inputs[:3], tuple(inputs[3:n]), tuple(inputs[n:])

    def scanned(self, *inputs: Any) -> Any:
        weights, init, xs = self.split(inputs)
        return cr.scan(self.step(weights), init, xs, length=self.steps, **self.how)

    def looped(self, *inputs: Any) -> Any:
        weights, carry, xs = self.split(inputs)
        f, ys = self.step(weights), [None] * self.steps
        order = range(self.steps)
        for t in reversed(order) if self.how["reverse"] else order:
            carry, ys[t] = f(carry, [x[t] for x in xs])  # type: ignore[call-overload]
        return carry, [cr.stack([y[i] for y in ys]) for i in range(len(self.given))]

    def gradients(self, function: Any) -> Any:
        def scalar(*inputs: Any) -> Any:
            results = cr.autograd.tree.flatten(function(*inputs))[0]
            return sum((cr.sin(z) * (i + 1)).sum() for i, z in enumerate(results))

        count = 3 + self.carries + self.slices
        return lambda *inputs: (function(*inputs), cr.grad(scalar, tuple(range(count)))(*inputs))


def check(seed: int) -> None:
    maker = Maker(seed)
    inputs = maker.inputs()
    expected = cr.autograd.tree.flatten(maker.gradients(maker.looped)(*inputs))[0]
    function = maker.gradients(maker.scanned)
    runs = {"eager": function} | {
        name: cr.compile(function, backend=name) for name in ("numpy", "native")
    }
    for name, run in runs.items():
        results = cr.autograd.tree.flatten(run(*inputs))[0]
        assert len(results) == len(expected)
        for i, (mine, other) in enumerate(zip(results, expected, strict=True)):
            a, b = np.asarray(mine.detach()), np.asarray(other.detach())
            np.testing.assert_allclose(
                a, b, rtol=1e-9, atol=1e-10 * (1 + np.abs(b).max()),
                err_msg=f"seed {seed}, {name}, result {i}",
            )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_random_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    monkeypatch.setenv("CHAINRULE_REDZONES", "1")
    check(seed)


@pytest.mark.slow
def test_many_random_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    for seed in range(100, 400):
        check(seed)
