"""Random bits: a pure function of a key and a counter."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.errors import ShapeError
from chainrule.graph import Array, Primitive, Shape, Spec
from chainrule.primitives.kernels import philox

BLOCK = 4  # numbers that one counter value gives


def _infer_random_bits(state: Any, shape: Shape) -> Spec:
    if state.shape != (2,) or state.dtype != dtypes.uint64:
        raise ShapeError(f"a random state is two uint64 numbers, got {state.shape}.")
    return Spec(shape, dtypes.uint32)


def _random_bits(state: Array, shape: Shape) -> Array:
    n = Spec(shape, dtypes.uint32).size
    return philox.philox_bits(int(state[0]), int(state[1]), n).reshape(shape)


random_bits = Primitive(
    "random_bits", "Philox4x32-10 of (key, counter + i // 4), lane i % 4, for each element i",
    ("state",), _infer_random_bits, _random_bits,
)  # fmt: skip


def _infer_advance(state: Any, blocks: int) -> Spec:
    return Spec(state.shape, state.dtype)


advance = Primitive(
    "advance", "a random state (key, counter) with its counter moved on by `blocks`", ("state",),
    _infer_advance,
    lambda state, blocks: state + np.array([0, blocks], dtype=np.uint64),
)  # fmt: skip
