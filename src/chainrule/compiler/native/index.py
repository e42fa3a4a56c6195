"""Indices as sums: where an element lies, as `constant + sum of coefficient * variable`.

A value's element is named by one `Form` for each axis, in the variables of the loops around it.
Movements only rewrite forms: a permutation reorders them, a slice scales and shifts them, a flip
subtracts them, a reshape flattens them and splits the sum again. Where a split does not come out
even, the quotient itself becomes a variable (`Quotient`), so that whatever is made of it is a form
again, and `n * (f / n) + (f - n * (f / n))` gives back f by plain algebra.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from chainrule.compiler.native.kernel import strides_of
from chainrule.graph import Shape

_numbers = itertools.count()


class Var:
    """A whole number between 0 and `extent` - 1: a loop's variable."""

    __slots__ = ("extent", "number")

    def __init__(self, extent: int):
        self.extent = extent
        self.number = next(_numbers)

    def roots(self) -> frozenset[Var]:
        """The loops' variables that it depends on."""
        return frozenset((self,))

    def __repr__(self) -> str:
        return f"v{self.number}[{self.extent}]"


class Quotient(Var):
    """floor(form / divisor), for a form that is never negative."""

    __slots__ = ("divisor", "form")

    def __init__(self, form: Form, divisor: int):
        super().__init__(form.high // divisor + 1)
        self.form, self.divisor = form, divisor

    def roots(self) -> frozenset[Var]:
        return self.form.roots()

    def __repr__(self) -> str:
        return f"({self.form})/{self.divisor}"


def _number(term: tuple[Var, int]) -> int:
    return term[0].number


class Form:
    """constant + sum of coefficient * variable."""

    __slots__ = ("_hash", "const", "terms")

    def __init__(self, const: int, terms: Iterable[tuple[Var, int]] = ()):
        self.const = const
        kept = [t for t in terms if t[1]]
        if len(kept) > 1:
            kept.sort(key=_number)
        self.terms = tuple(kept)
        self._hash = hash((const, self.terms))

    @property
    def low(self) -> int:
        """The smallest number that it can be."""
        return self.const + sum([c * (v.extent - 1) for v, c in self.terms if c < 0])

    @property
    def high(self) -> int:
        """The largest."""
        return self.const + sum([c * (v.extent - 1) for v, c in self.terms if c > 0])

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Form) and (self.const, self.terms) == (other.const, other.terms)

    def __add__(self, other: Form) -> Form:
        if not other.terms:
            return self if not other.const else Form(self.const + other.const, self.terms)
        total = dict(self.terms)
        for v, c in other.terms:
            total[v] = total.get(v, 0) + c
        return Form(self.const + other.const, total.items())

    def shift(self, by: int) -> Form:
        return Form(self.const + by, self.terms) if by else self

    def scale(self, by: int) -> Form:
        return self if by == 1 else Form(self.const * by, [(v, c * by) for v, c in self.terms])

    def roots(self) -> frozenset[Var]:
        """The loops' variables that it depends on."""
        return frozenset().union(*(v.roots() for v, _ in self.terms))

    def coefficient(self, var: Var) -> int:
        return next((c for v, c in self.terms if v is var), 0)

    def __repr__(self) -> str:
        parts = [f"{c} {v}" if c != 1 else f"{v}" for v, c in self.terms]
        return " + ".join(parts + [str(self.const)] * (self.const != 0 or not parts))


ZERO = Form(0)
Index = tuple[Form, ...]


def of(var: Var, scale: int = 1) -> Form:
    """A variable as a form."""
    return Form(0, ((var, scale),)) if var.extent > 1 else ZERO


class Splits:
    """Quotients, each made once, and the variables that would have to be cut to avoid them."""

    def __init__(self) -> None:
        self.quotients: dict[tuple[Form, int], Quotient] = {}
        self.wanted: tuple[Var, int] | None = None  # cut this variable by that many

    def divide(self, form: Form, n: int) -> tuple[Form, Form]:
        """Quotient and remainder of a form by n > 0."""
        if n == 1:
            return form, ZERO
        even = [(v, c // n) for v, c in form.terms if c % n == 0]
        rest = Form(form.const % n, [(v, c) for v, c in form.terms if c % n])
        quotient = Form(form.const // n, even)
        if rest.low >= 0 and rest.high < n:
            return quotient, rest
        if rest.low < 0:  # take whole multiples away until nothing is negative
            lift = -(rest.low // n)
            rest, quotient = rest.shift(lift * n), quotient.shift(-lift)
        self._want(rest, n)
        if (rest, n) not in self.quotients:
            self.quotients[rest, n] = Quotient(rest, n)
        atom = self.quotients[rest, n]
        return quotient + of(atom), rest + of(atom, -n)

    def _want(self, form: Form, n: int) -> None:
        """Note that cutting a variable in two might make this division even."""
        if self.wanted is not None:
            return
        for v, c in form.terms:
            if type(v) is Var and c > 0 and n % c == 0 and v.extent % (n // c) == 0:
                inner = n // c
                if 1 < inner < v.extent:
                    self.wanted = (v, inner)
                    return

    def unflatten(self, form: Form, shape: Shape) -> Index:
        """The index into a shape of the element at a place in row-major order."""
        index = []
        for n, step in zip(shape, strides_of(shape), strict=True):
            if n == 1:
                index.append(ZERO)
                continue
            place, form = self.divide(form, step)
            index.append(place)
        return tuple(index)

    def reshape(self, index: Index, shape: Shape, new: Shape) -> Index:
        """The index into `new` of the same element of an array reshaped from `shape`."""
        if 0 in shape:
            return (ZERO,) * len(new)
        result: list[Form] = []
        for old_axes, new_axes in blocks(shape, new):
            lengths = tuple(new[a] for a in new_axes)
            sources = [(index[a], shape[a]) for a in old_axes if shape[a] != 1]
            if len(sources) == 1 and lengths.count(1) == len(lengths) - 1:
                result += [ZERO if n == 1 else sources[0][0] for n in lengths]
            else:
                result += self.unflatten(flatten(sources), lengths)
        return tuple(result)


def flatten(parts: Sequence[tuple[Form, int]]) -> Form:
    """The place in row-major order of an index, given with the lengths of its axes."""
    total = ZERO
    for form, n in parts:
        total = total.scale(n) + form
    return total


def blocks(shape: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Runs of axes of either shape that hold the same number of elements, in order."""
    result = []
    i = j = 0
    while i < len(shape) or j < len(new):
        left, right = [], []
        a = b = 1
        if i < len(shape):
            a, left, i = shape[i], [i], i + 1
        if j < len(new):
            b, right, j = new[j], [j], j + 1
        while a != b:
            if a < b:
                a, i = a * shape[i], (left.append(i), i + 1)[1]
            else:
                b, j = b * new[j], (right.append(j), j + 1)[1]
        result.append((left, right))
    return result
