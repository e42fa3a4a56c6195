"""What the tests of array functions share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng():
    """Random numbers that are the same on every run."""
    return np.random.default_rng(20241201)
