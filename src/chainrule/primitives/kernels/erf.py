"""The error function and its inverse."""

from __future__ import annotations

import math

import numpy as np


def erf(x: np.ndarray) -> np.ndarray:
    """erf(x) = 2 / sqrt(pi) * integral of exp(-t^2) from 0 to x."""
    return np.array([math.erf(v) for v in x.reshape(-1).tolist()], x.dtype).reshape(x.shape)


def erfinv(x: np.ndarray) -> np.ndarray:
    """The y with erf(y) = x."""
    raise NotImplementedError
