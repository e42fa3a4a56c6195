"""The keyed random numbers behind augmentation."""

from __future__ import annotations

import numpy as np
from scipy import stats

from chainrule.data.draws import Draws


def draws(n):
    return Draws(1, 0, np.arange(n))


def test_draws_are_uniform_and_independent():
    u = draws(2000).uniform(6)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(u.T) - np.eye(6)).max() < 0.1
    child = draws(2000).child(0).uniform(6)
    assert abs(np.corrcoef(u.ravel(), child.ravel())[0, 1]) < 0.05
    assert u.min() > 0 and u.max() < 1


def test_draws_are_philox():
    """Word by word Philox of (index, epoch and repetition, block, index's upper half)."""
    from chainrule.primitives.kernels.philox import philox_rounds

    index, epoch, repeat, key = 2**33 + 5, 7, 3, 0x1234_5678_9ABC_DEF0
    got = Draws(key, epoch, [index], [repeat]).words(8)[0]
    for block in range(2):
        counter = (index & 0xFFFFFFFF, epoch + (repeat << 20), block, index >> 32)
        words = tuple(np.array([c], np.uint64) for c in counter)
        philox_rounds(words, key)
        assert got[4 * block : 4 * block + 4].tolist() == [int(w[0]) for w in words]
