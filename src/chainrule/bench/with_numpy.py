"""The matrix products in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.bench.workloads import Workload


def step_of(workload: Workload, weights: Any, dtype: str, variant: str) -> Callable[[], Any]:
    """A function that multiplies into memory of its own."""
    a, b = workload.batch(dtype)
    a, b = (a.T if workload.layout == "TN" else a), (b.T if workload.layout == "NT" else b)
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    return lambda: np.matmul(a, b, out=out)
