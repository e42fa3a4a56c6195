"""The loops that measure what a core can do: they do what they are said to."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.compiler.native.ceiling import Ceiling, ceiling
from chainrule.compiler.native.target import host
from chainrule.errors import ArgumentError


def available(name):
    try:
        return host(name)
    except ArgumentError:
        return None


TARGETS = [x for x in map(available, ("avx512", "avx2", "plain")) if x is not None]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_loops(target, dtype):
    found = Ceiling(target, dtype)
    out = np.full(64, 0.5, dtype)
    found._multiply_adds(out.ctypes.data, 3)
    lanes = target.lanes(dtype)
    chains = found.flops_per_round // (2 * 2 * lanes)
    expected = sum(i / 64 + 1 - 1 / 64 for i in range(chains))  # z <- z / 2 + 1 / 2, six times
    np.testing.assert_allclose(out[:lanes], expected, rtol=1e-6)
    assert np.all(out[lanes:] == 0.5)
    floats = target.lanes("float32")
    data = np.arange(24 * floats, dtype=np.float32)
    sums = data.reshape(24, floats).sum(axis=0)
    found._stream(data.ctypes.data, 24)
    np.testing.assert_array_equal(data[:floats], sums)


def test_figures():
    found = ceiling()
    assert found is ceiling()
    for threads in (1, 2):
        assert 1e7 < found.flops(rounds=2000, threads=threads) < 1e14
        assert 1e6 < found.bandwidth(1 << 20, threads=threads) < 1e13
