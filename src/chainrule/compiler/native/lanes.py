"""Lanes over two loops at once, and what lies where lanes read.

Where the innermost axis is short (pairs of a rotary embedding, a few features beside a bias), its
loop fills no vector. Its elements and those of the loop around it do, if they lie side by side: a
vector of 16 lanes is then 8 steps of the outer loop by 2 of the inner one. In the variable `whole`
that runs over both, outer = whole / length and inner = whole mod length; as each vector begins at a
multiple of the length, what differs between its lanes is known when the code is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.compiler.native.expressions import Guard
from chainrule.compiler.native.index import Form, Quotient, Var
from chainrule.compiler.native.text import Function, Reg, vector

Steps = int | tuple[int, ...]
"""Elements between neighbouring lanes, or between the first lane and each."""


@dataclass(frozen=True)
class Pair:
    """Two neighbouring loops that lanes run over together.

    Attributes:
        whole: the variable that runs over both.
        outer, inner: the loops' variables.
        outer_names, inner_names: these, and the variables that they stand for in forms.
    """

    whole: Var
    outer: Var
    inner: Var
    outer_names: frozenset[Var]
    inner_names: frozenset[Var]

    @property
    def length(self) -> int:
        return self.inner.extent

    @property
    def names(self) -> frozenset[Var]:
        return self.outer_names | self.inner_names | {self.whole}

    def at(self, form: Form, inner: int) -> Form:
        """A form at one place of the inner loop."""
        const, rest = form.const, []
        for v, c in form.terms:
            if v in self.inner_names:
                const += c * inner
            elif isinstance(v, Quotient) and v.roots() <= self.inner_names:
                const += c * (self.at(v.form, inner).const // v.divisor)
            else:
                rest.append((v, c))
        return Form(const, rest)

    def parted(self, form: Form, lanes: int) -> tuple[Steps, Form] | None:
        """Where lanes are beside the first, and the form at the first.

        None if they are not the same in each vector.
        """
        first = self.at(form, 0)
        step = 0
        for v, c in first.terms:
            if v in self.outer_names:
                step += c
            elif not v.roots().isdisjoint(self.names):
                return None
        length = self.length
        found = [
            self.at(form, lane % length).const - first.const + lane // length * step
            for lane in range(lanes)
        ]
        if all(n == lane * found[1] for lane, n in enumerate(found)):
            return found[1], first
        return tuple(found), first

    def bits(self, guard: Guard, lanes: int) -> tuple[bool, ...] | None:
        """Where the conditions hold; None if that is not the same in each vector."""
        found = []
        for inner in range(self.length):
            forms = [(self.at(form, inner), low, high) for form, low, high in guard]
            if any(form.high < low or form.low >= high for form, low, high in forms):
                found.append(False)
            elif all(form.low >= low and form.high < high for form, low, high in forms):
                found.append(True)
            else:
                return None
        return tuple(found * (lanes // self.length))


def offsets(steps: Steps, lanes: int) -> tuple[int, ...]:
    """Where each lane is, in elements from the first."""
    return tuple(steps * lane for lane in range(lanes)) if isinstance(steps, int) else steps


def window(places: Sequence[int], bits: Sequence[bool]) -> tuple[int, int, int] | None:
    """What to load for lanes that read at some places, if that is one vector or two.

    Returns its length, a power of 2, and where the first and the last one begin; the same place for
    one. Nothing outside of the elements from the first to the last that is wanted is touched.
    """
    wanted = [place for place, bit in zip(places, bits, strict=True) if bit]
    low, high = min(wanted), max(wanted)
    span = high - low + 1
    length = 1 << (span - 1).bit_length()
    if length == span <= len(places):
        return length, low, low
    length = max(2, length // 2)
    return (length, low, high + 1 - length) if length <= min(span, len(places)) else None


def load_window(
    f: Function, at: Reg, type: str, places: Sequence[int], bits: Sequence[bool]
) -> Reg | None:
    """The elements at some places behind an address as a vector; None if they lie too far apart.

    Arguments:
        bits: lanes that read nothing have False, and may hold anything.
    """
    if not any(bits):
        return f.zero(vector(type, len(places)))
    found = window(places, bits)
    if found is None:
        return None
    length, low, high = found

    def there(place: int) -> Reg:
        return f.value("ptr", f"getelementptr {type}, {at}, i64 {place}") if place else at

    if length == 1:
        return f.splat(f.load(there(low), type), len(places))
    part = vector(type, length)
    first = f.load(there(low), part)
    last = f.load(there(high), part) if high != low else Reg("poison", part)
    shuffled = [
        0 if not bit else place - low if place < low + length else length + place - high
        for place, bit in zip(places, bits, strict=True)
    ]
    return f.shuffle(first, last, shuffled)
