"""The whole table of operations: what runs eagerly runs compiled, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from operations import OPERATIONS, Case, Operation

import chainrule as cr


def prepared(case: Case, dtype: str) -> list[np.ndarray]:
    narrow = {"f": dtype, "c": {"float32": "complex64", "float64": "complex128"}[dtype]}
    return [np.array(a, dtype=narrow.get(a.dtype.kind, a.dtype)) for a in case.args]


def listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple | list) else [result]


def is_float(x: Any) -> bool:
    return x.dtype.kind == "f"


def assert_same(got: Any, expected: Any, exact: bool) -> None:
    """Equal; in native code to 1e-12 of the element, or of the largest."""
    got, expected = got.detach().numpy(), expected.detach().numpy()
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if exact or expected.dtype.kind in "bui":
        np.testing.assert_array_equal(got, expected)
        return
    finite = np.abs(expected[np.isfinite(expected)])
    largest = finite.max() if finite.size else 0.0
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * largest)


backends = pytest.mark.parametrize("backend", ["numpy", "native"])


@backends
@pytest.mark.parametrize("op", OPERATIONS, ids=str)
def test_forward(op: Operation, backend: str) -> None:
    for case in op.cases[: None if backend == "numpy" else 3]:
        arrays = prepared(case, "float64")
        function = cr.compile(lambda *xs, case=case: op.call(*xs, **case.params), backend=backend)
        tensors = [cr.asarray(a) for a in arrays]
        for _ in range(2):
            results, expected = listed(function(*tensors)), listed(op.call(*tensors, **case.params))
            assert len(results) == len(expected)
            for z, value in zip(results, expected, strict=True):
                assert_same(z, value, backend == "numpy")
        assert function.traces == 1


@backends
@pytest.mark.parametrize("op", [op for op in OPERATIONS if op.derivative], ids=str)
def test_gradient(op: Operation, backend: str) -> None:
    for case in op.cases[: 4 if backend == "numpy" else 1]:
        arrays = prepared(case, "float64")
        if not any(map(is_float, arrays)):
            continue

        def gradients(*xs: Any, case: Case = case) -> list[Any]:
            leaves = [x.detach().requires_grad_() if is_float(x) else x for x in xs]
            outputs = [z for z in listed(op.call(*leaves, **case.params)) if z.requires_grad]
            weights = [cr.asarray(np.cos(np.arange(z.size)).reshape(z.shape)) for z in outputs]
            cr.autograd.backward(outputs, weights)
            return [x.grad for x in leaves if is_float(x) and x.grad is not None]

        tensors = [cr.asarray(a) for a in arrays]
        function = cr.compile(gradients, backend=backend)
        results, expected = function(*tensors), gradients(*tensors)
        assert function.traces == 1
        assert len(results) == len(expected)
        for z, value in zip(results, expected, strict=True):
            assert_same(z, value, backend == "numpy")
