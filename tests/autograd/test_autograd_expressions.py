"""Random expressions: value, gradient and Hessian-vector product are JAX's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import chainrule as cr

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)

# Functions that are smooth and bounded enough to be stacked; each takes the module as its last.
UNARY = (
    lambda x, m: m.sin(x),
    lambda x, m: m.tanh(x),
    lambda x, m: m.exp(-x * x),
    lambda x, m: m.log1p(x * x),
    lambda x, m: m.sqrt(1.5 + m.cos(x)),
    lambda x, m: x / (1.0 + x * x),
    lambda x, m: m.sum(x, axis=0, keepdims=True) * 0.5,
    lambda x, m: m.mean(x, axis=1, keepdims=True),
    lambda x, m: m.var(x, axis=1, keepdims=True),
    lambda x, m: m.cumulative_sum(x, axis=1) * 0.3,
    lambda x, m: m.flip(x, axis=1) - 0.5,
    lambda x, m: m.concat([x[:, 1:], x[:, :1] ** 2], axis=1),
    lambda x, m: m.tanh(x @ x.T @ x),
    lambda x, m: m.take(x, m.asarray([1, 0, 1]), axis=1),
    lambda x, m: m.reshape(x, (3, 2)).T * 0.7,
    lambda x, m: m.pow(m.abs(x) + 0.5, 1.5),
    lambda x, m: m.prod(m.tanh(x), axis=0, keepdims=True),
    lambda x, m: m.logaddexp(x, -x),
)
BINARY = (
    lambda x, y, m: x + y,
    lambda x, y, m: x - 2.0 * y,
    lambda x, y, m: x * y,
    lambda x, y, m: x / (2.0 + m.cos(y)),
    lambda x, y, m: m.atan2(x, 1.5 + m.sin(y)),
    lambda x, y, m: m.hypot(x + 2.0, y),
    lambda x, y, m: m.where(m.sin(50 * x) > 0, x, y),
    lambda x, y, m: m.matmul(x, y.T) @ x * 0.2,
    lambda x, y, m: m.pow(1.5 + m.sin(x), y),
)
SHAPE = (2, 3)

nodes = st.tuples(
    st.booleans(),
    st.integers(0, max(len(UNARY), len(BINARY)) - 1),
    st.integers(0, 100),
    st.integers(0, 100),
)


def evaluate(program: Any, inputs: Any, m: Any) -> Any:
    """Each node applies a function to earlier values; the result is a sum over all of the last."""
    values = list(inputs)
    for binary, which, i, j in program:
        x, y = values[-1 - i % min(3, len(values))], values[j % len(values)]
        if binary:
            z = BINARY[which % len(BINARY)](x, y, m)
        else:
            z = UNARY[which % len(UNARY)](x, m)
        values.append(m.broadcast_to(z, SHAPE))
    return m.sum(values[-1] * values[-1] + values[-2])


@settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.lists(nodes, min_size=5, max_size=15), st.integers(0, 2**32 - 1))
def test_random_expressions_agree_with_jax(program: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-1.5, 1.5, SHAPE) for _ in range(2)]
    tangents = [rng.standard_normal(SHAPE) for _ in range(2)]

    def ours(*xs: Any) -> Any:
        return evaluate(program, xs, cr)

    def theirs(*xs: Any) -> Any:
        return evaluate(program, xs, jnp)

    gradient = cr.grad(ours, argnums=(0, 1))
    value = ours(*map(cr.asarray, arrays))
    got, hvp = cr.jvp(gradient, arrays, tangents)

    jax_grad = jax.grad(theirs, argnums=(0, 1))
    # Not compiled as a whole: the parts are compiled once and met again in other expressions.
    expected, expected_hvp = jax.jvp(jax_grad, tuple(arrays), tuple(tangents))
    np.testing.assert_allclose(value.numpy(), theirs(*arrays), rtol=1e-10)
    # Sums of large terms of either sign may cancel: measure against the largest element.
    for ours_, theirs_ in ((got, expected), (hvp, expected_hvp)):
        scale = max(float(np.abs(t).max()) for t in theirs_) + 1e-3
        for a, b in zip(ours_, theirs_, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-9, atol=1e-9 * scale)
