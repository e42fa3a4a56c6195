"""Short ways to make graphs for the passes, and numbers to compare them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.compiler.ir import Graph, Value, evaluate
from chainrule.compiler.passes import run
from chainrule.graph import Spec

F, D, N, B = (np.dtype(x) for x in ("float32", "float64", "int64", "bool"))
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 3.0, np.inf, -np.inf, np.nan, 1e-45, -2e38], F)


class G(Graph):
    """A graph with short ways to make one."""

    def x(self, *shape: int, dtype: Any = F) -> Value:
        return self.input(Spec(shape, np.dtype(dtype)))

    def full(self, number: Any, like: Value) -> Value:
        return self.constant(np.broadcast_to(np.asarray(number, like.dtype), like.shape))


def names(graph: Graph) -> list[str]:
    return [op.name for op in graph.ops]


def simplified(make: Callable[[G], Value]) -> tuple[Graph, Graph]:
    g = G()
    g.outputs = [make(g)]
    return g, run(g, check=True)


def special(spec: Any, seed: int = 0) -> np.ndarray:
    """Numbers with all that is special among them."""
    rng = np.random.default_rng(seed)
    if spec.dtype.kind == "b":
        return rng.integers(0, 2, spec.shape).astype(bool)
    if spec.dtype.kind in "iu":
        return rng.integers(-3, 4, spec.shape).astype(spec.dtype)
    return rng.choice(SPECIAL, spec.shape).astype(spec.dtype)


def assert_same(g: Graph, h: Graph, rtol: float = 0.0, seeds: int = 4) -> None:
    """Equal results on special numbers: bit for bit, zeros' signs included, unless `rtol`."""
    for seed in range(seeds):
        arrays = [special(x, seed + 10 * i) for i, x in enumerate(g.inputs)]
        for a, b in zip(evaluate(g, arrays), evaluate(h, arrays), strict=True):
            np.testing.assert_allclose(b, a, rtol=rtol, atol=0)
            if a.dtype.kind == "f" and not rtol:
                known = ~np.isnan(a)
                np.testing.assert_array_equal(np.signbit(a[known]), np.signbit(b[known]))
