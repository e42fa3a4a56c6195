"""The arithmetic in NumPy: operands are arrays. Slow; it shows what the formulas compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.dtypes import DType
from chainrule.primitives.scalar.arithmetic import Arithmetic, Operand


class NumPyArithmetic(Arithmetic):
    """Arithmetic of arrays with at least one axis.

    Arguments:
        fused: whether `fma` rounds once, as processors with the instruction do.
    """

    def __init__(self, fused: bool = True):
        self.fused = fused

    def number(self, like: Operand, value: float) -> Operand:
        return np.full_like(like, value)

    def fma(self, x: Operand, y: Operand, z: Operand) -> Operand:
        if not self.fused:
            return x * y + z
        if x.dtype == np.float32:
            return self._fma32(x, np.asarray(y, np.float64), np.asarray(z, np.float64))
        # The error of the product by splitting; rounding twice differs once in thousands of times.
        product, error = NumPyArithmetic(fused=False).two_product(x, y)
        total, rest = self.two_sum(product, z)
        careful = total + (rest + error)
        return np.where(np.isfinite(careful), careful, x * y + z)

    def _fma32(self, x: Operand, y: Operand, z: Operand) -> Operand:
        # The product is exact in float64; rounding the sum to odd makes the second rounding right.
        product = x.astype(np.float64) * y
        total, error = self.two_sum(product, z)
        bits = total.view(np.int64)
        inexact = (error != 0) & np.isfinite(total) & (bits & 1 == 0)
        away = (error > 0) == (total > 0)
        return (
            np.where(inexact, np.where(away, bits + 1, bits - 1), bits)
            .view(np.float64)
            .astype(np.float32)
        )

    def abs(self, x: Operand) -> Operand:
        return np.abs(x)

    def sqrt(self, x: Operand) -> Operand:
        return np.sqrt(x)

    def floor(self, x: Operand) -> Operand:
        return np.floor(x)

    def ceil(self, x: Operand) -> Operand:
        return np.ceil(x)

    def trunc(self, x: Operand) -> Operand:
        return np.trunc(x)

    def round(self, x: Operand) -> Operand:
        return np.round(x)

    def select(self, condition: Operand, x: Operand, y: Operand) -> Operand:
        return np.where(condition, x, y)

    def bits(self, x: Operand) -> Operand:
        return np.ascontiguousarray(x).view(f"int{x.dtype.itemsize * 8}")

    def from_bits(self, x: Operand) -> Operand:
        return np.ascontiguousarray(x).view(f"float{x.dtype.itemsize * 8}")

    def cast(self, x: Operand, dtype: DType | str) -> Operand:
        return x.astype(dtype)

    def divide_integers(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        rest = np.fmod(x, y)
        return np.where(y == 0, 0, np.floor_divide(x - rest, y)), rest

    def lookup(self, name: str, table: Sequence[float], index: Operand) -> Operand:
        return np.asarray(table)[np.clip(index, 0, len(table) - 1)]

    def rarely_all(
        self,
        condition: Operand,
        slow: Callable[[], Sequence[Operand]],
        usual: Sequence[Operand],
    ) -> tuple[Operand, ...]:
        if not condition.any():
            return tuple(usual)
        return tuple(np.where(condition, x, y) for x, y in zip(slow(), usual, strict=True))

    def known(self, x: Operand) -> float | None:
        return None

    def repeat(
        self,
        unfinished: Callable[..., Operand],
        step: Callable[..., Sequence[Operand]],
        *state: Operand,
    ) -> tuple[Operand, ...]:
        values: tuple[Any, ...] = state
        while unfinished(*values).any():
            values = tuple(step(*values))
        return values
