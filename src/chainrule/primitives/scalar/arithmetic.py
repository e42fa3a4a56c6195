"""The vocabulary of scalar arithmetic in which elementwise primitives are written for the compiler.

A primitive's `scalar` is a function `(m, *operands, **params) -> operand` that says how one element
of the result is computed. It is run once, to write the instructions: `m` is the arithmetic and the
operands are registers of one element or of many (`chainrule.compiler.native.scalar`). Run with
`reference.NumPyArithmetic` and arrays it computes the same numbers in NumPy, without a compiler.

    scalar=lambda m, x, y: x + y
    scalar=lambda m, x: m.select(x < 0, -x, x)

Operands have a `dtype` (real, integer or bool) and the operators of Python:

    x + y, x - y, x * y, -x    integers wrap around
    x / y                      floating-point only
    x < y, x <= y, ..., x == y, x != y    give bool; comparisons with NaN are false, x != NaN true
    x & y, x | y, x ^ y, ~x    bits of integers, logic of bool
    x << n, x >> n             integers; arithmetic if signed; counts must be less than the bits

with each other (of one dtype) and with Python numbers, which take the operand's dtype. Everything
else is a method of the arithmetic. Nothing that is written here is undefined for any operand: a
function that is evaluated outside its domain gives some number, for `select` to pass over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.dtypes import DType

Operand = Any
"""A register with a dtype and operators, or an array in NumPy's arithmetic."""


class Arithmetic(ABC):
    """What can be done with operands besides Python's operators.

    Attributes:
        fused: whether `fma` rounds once.
    """

    fused: bool

    # --- what an implementation provides ----------------------------------------------------------

    @abstractmethod
    def number(self, like: Operand, value: float) -> Operand:
        """A constant of the dtype and lanes of an operand."""

    @abstractmethod
    def fma(self, x: Operand, y: Operand, z: Operand) -> Operand:
        """x y + z, rounded once where `fused`. Any but the first may be a number."""

    @abstractmethod
    def abs(self, x: Operand) -> Operand:
        """|x|; the least integer stays itself."""

    @abstractmethod
    def sqrt(self, x: Operand) -> Operand:
        """The square root, correctly rounded."""

    @abstractmethod
    def floor(self, x: Operand) -> Operand:
        """The largest whole number <= x, for floating-point x."""

    @abstractmethod
    def ceil(self, x: Operand) -> Operand:
        """The smallest whole number >= x."""

    @abstractmethod
    def trunc(self, x: Operand) -> Operand:
        """x without its fraction."""

    @abstractmethod
    def round(self, x: Operand) -> Operand:
        """The nearest whole number, halves to even."""

    @abstractmethod
    def select(self, condition: Operand, x: Operand, y: Operand) -> Operand:
        """x where the condition holds, y elsewhere; one of them may be a number."""

    @abstractmethod
    def bits(self, x: Operand) -> Operand:
        """The bits of a floating-point number, as a signed integer of its width."""

    @abstractmethod
    def from_bits(self, x: Operand) -> Operand:
        """The floating-point number with these bits."""

    @abstractmethod
    def cast(self, x: Operand, dtype: DType | str) -> Operand:
        """x in another dtype, as NumPy casts on x86 where C leaves it open.

        A float outside int32 or int64 gives the least integer; smaller dtypes take the low bits of
        int32, and uint32 those of int64; uint64 takes those of int64 below 2^63, and of x - 2^63
        with the top bit turned above. NaN counts as outside.
        """

    @abstractmethod
    def divide_integers(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        """Quotient towards zero and remainder of integers; where y is 0, both are 0.

        The least integer divided by -1 is itself, with remainder 0.
        """

    @abstractmethod
    def lookup(self, name: str, table: Sequence[float], index: Operand) -> Operand:
        """Elements of a constant table of float64 at int64 indices, which are clamped into it."""

    @abstractmethod
    def rarely_all(
        self,
        condition: Operand,
        slow: Callable[[], Sequence[Operand]],
        usual: Sequence[Operand],
    ) -> tuple[Operand, ...]:
        """slow() where the condition holds, `usual` elsewhere; skipped if it holds nowhere."""

    @abstractmethod
    def known(self, x: Operand) -> float | None:
        """The number that an operand is, if it is a constant."""

    @abstractmethod
    def repeat(
        self,
        unfinished: Callable[..., Operand],
        step: Callable[..., Sequence[Operand]],
        *state: Operand,
    ) -> tuple[Operand, ...]:
        """`state = step(*state)` as long as unfinished(*state) holds for any element.

        A step must leave alone what is finished.
        """

    # --- what is composed of it -------------------------------------------------------------------

    def rarely(self, condition: Operand, slow: Callable[[], Operand], usual: Operand) -> Operand:
        """The same for a single result."""
        return self.rarely_all(condition, lambda: (slow(),), (usual,))[0]

    def apart(
        self, name: str, function: Callable[..., Sequence[Operand]], *operands: Operand
    ) -> Sequence[Operand]:
        """function(m, *operands), one element after the other, as code that stands but once."""
        return function(self, *operands)

    def clamp(self, x: Operand, low: float, high: float) -> Operand:
        """x between two numbers; NaN stays."""
        x = self.select(x < low, self.number(x, low), x)
        return self.select(x > high, self.number(x, high), x)

    def maximum(self, x: Operand, y: Operand) -> Operand:
        """The larger; NaN if either is, and y of equals, as in NumPy."""
        if x.dtype.kind != "f":
            return self.select(x > y, x, y)
        return self.select((x > y) | (x != x), x, y)

    def minimum(self, x: Operand, y: Operand) -> Operand:
        """The smaller; NaN if either is, and y of equals, as in NumPy."""
        if x.dtype.kind != "f":
            return self.select(x < y, x, y)
        return self.select((x < y) | (x != x), x, y)

    def copysign(self, x: Operand, y: Operand) -> Operand:
        """|x| with the sign of y."""
        top = int(np.iinfo(f"int{x.dtype.itemsize * 8}").min)
        return self.from_bits((self.bits(x) & ~top) | (self.bits(y) & top))

    def isnan(self, x: Operand) -> Operand:
        """Whether x is not a number."""
        return x != x

    def polynomial(self, x: Operand, coefficients: Sequence[float]) -> Operand:
        """Horner's rule; coefficients from the constant upward."""
        *rest, last = coefficients
        value = self.number(x, last)
        for c in reversed(rest):
            value = self.fma(value, x, self.number(x, c))
        return value

    def nearest(self, x: Operand, factor: float = 1.0) -> tuple[Operand, Operand]:
        """The whole number nearest to a small x (|x| < 2^21 or 2^50): as float and as integer.

        Adding 3/2 2^23 (2^52) leaves no bits for a fraction, and the integer in the low bits. With
        a factor it is one of the whole numbers nearest to x times that.
        """
        shift = 1.5 * 2.0 ** np.finfo(x.dtype).nmant
        offset = int(np.asarray(shift, x.dtype).view(f"int{x.dtype.itemsize * 8}"))
        if factor == 1.0:
            shifted = x + shift
        else:
            shifted = self.fma(x, self.number(x, factor), self.number(x, shift))
        return shifted - shift, self.bits(shifted) - offset

    def power_of_two(self, n: Operand, dtype: DType) -> Operand:
        """2^n of an integer n for which that is a normal number."""
        info = np.finfo(dtype)
        return self.from_bits((n + (info.maxexp - 1)) << info.nmant)

    def scale(self, x: Operand, whole: Operand, n: Operand) -> Operand:
        """x 2^n, rounded once, for 1/4 <= |x| <= 4; n is given as float and as integer.

        |n| may be as large as brings x to infinity or 0: twice what the exponent holds.
        """
        half = n >> 1
        first, second = self.power_of_two(half, x.dtype), self.power_of_two(n - half, x.dtype)
        return x * first * second

    def two_sum(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        """x + y as the rounded sum and its error (Knuth)."""
        s = x + y
        v = s - x
        return s, (x - (s - v)) + (y - v)

    def fast_two_sum(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        """The same for |x| >= |y| (Dekker)."""
        s = x + y
        return s, y - (s - x)

    def two_product(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        """x y as the rounded product and its error.

        Without a fused multiply-add by Dekker's splitting, which needs |x|, |y| < 2^995.
        """
        p = x * y
        if self.fused:
            return p, self.fma(x, y, -p)
        (a, b), (c, d) = self._split(x), self._split(y)
        return p, ((a * c - p) + a * d + b * c) + b * d

    def _split(self, x: Operand) -> tuple[Operand, Operand]:
        """x as a sum of two numbers of half the digits (Veltkamp)."""
        c = x * (2.0 ** ((np.finfo(x.dtype).nmant + 2) // 2) + 1)
        high = c - (c - x)
        return high, x - high
