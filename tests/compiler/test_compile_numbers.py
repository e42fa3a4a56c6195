"""Python's numbers among the arguments, wherever operations, NumPy and Python take numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

import chainrule as cr

F = cr.nn.functional
X = np.random.default_rng(0).standard_normal((4, 5))
LABELS = np.array([1, 2, 0, -100])

CASES = {
    "a list of them": (lambda a, b: cr.asarray([a, b, 1]) * 2, (3, 4), (5, 6)),
    "a list with a float": (lambda a, b: cr.asarray([[a, b], [1, 2.5]]), (3, 4.0), (1, 0.5)),
    "lengths": (
        lambda x, n, m: F.ctc_loss(F.log_softmax(x[:, None], 1)[:, None, 0], [[1, 2]], n, m),
        (X, (4,), (2,)),
        (X, (3,), (1,)),
    ),
    "ignore_index": (
        lambda x, t, i: F.cross_entropy(x, t, ignore_index=i),
        (X, LABELS, -100),
        (X, LABELS, -100),
    ),
    "num_classes": (lambda t, n: F.one_hot(t, n), ([1, 2], 3), ([1, 2], 5)),
    "clip": (cr.clip, (X, -0.5, 0.5), (X, -0.1, 0.2)),
    "full": (lambda n, v: cr.full((n, 2), v), (3, 1.5), (2, 0.5)),
    "linspace": (lambda a, b: cr.linspace(a, b, 5), (0.0, 3.0), (1.0, 2.0)),
    "a place": (lambda x, i: x[i], (X, 2), (X, -1)),
    "a slice": (lambda x, i: x[:, i : i + 2], (X, 1), (X, 3)),
    "roll": (lambda x, i: cr.roll(x, i), (X, 1), (X, 3)),
    "repeat": (lambda x, n: cr.repeat(x, n, axis=0), (X, 2), (X, 3)),
    "pad": (lambda x, n: F.pad(x, (n, 1), value=n * 1.0), (X, 1), (X, 2)),
    "a NumPy function": (lambda x, p: x * np.sqrt(p), (X, 2.0), (X, 3.0)),
    "a NumPy array": (lambda x, p: x * np.array([p, 1, 2, 3, 4.0]), (X, 2.0), (X, 3.0)),
    "a NumPy number": (lambda x, p: x * (np.float64(2) * p), (X, 2.0), (X, 3.0)),
    "math": (lambda x, p: x * math.exp(p) + max(p, 1.0), (X, 2.0), (X, 0.5)),
    "format": (lambda x, p: x * float(f"{p:.1f}"), (X, 1.26), (X, 2.0)),
    "draws": (lambda n, p: cr.random.bernoulli(p, (n,)), (20, 0.3), (20, 0.7)),
}


def tensors(values):
    return [cr.asarray(v) if isinstance(v, np.ndarray) else v for v in values]


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("name", CASES)
def test_numbers_are_taken_where_numbers_are_taken(name, backend):
    function, *calls = CASES[name]
    compiled = cr.compile(function, backend=backend)
    for values in calls * 2:
        found = []
        for f in (compiled, function):
            cr.manual_seed(1)
            found.append(f(*tensors(values)))
        assert found[0].dtype == found[1].dtype
        np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
