"""Forms as registers: whole numbers, one or one for each lane, and conditions on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chainrule.compiler.native.emitter_levels import Levels
from chainrule.compiler.native.expressions import Guard
from chainrule.compiler.native.index import Form, Quotient, Var
from chainrule.compiler.native.lanes import Pair, Steps, offsets
from chainrule.compiler.native.text import Function, Reg, i64, lanes_of, vector


class Numbers(Levels):
    """Writes forms.

    Attributes:
        int: the type of whole numbers in vectors.
    """

    def __init__(
        self, f: Function, lane: Var | None, merged: Mapping[Var, Var | None], integer: str,
        pair: Pair | None = None,
    ):  # fmt: skip
        super().__init__(f, lane, merged, pair)
        self.int = integer
        self._parts: dict[Any, Any] = {}

    def spread(self, key: Any, reg: Reg, depends: frozenset[Var]) -> Reg:
        """A register in all lanes."""
        if self.lanes == 1 or lanes_of(reg.type) > 1:
            return reg
        lanes = self.lanes
        return self.memoised(("all", key, lanes), depends, lambda: self.f.splat(reg, lanes))

    def var(self, var: Var) -> Reg:
        """A variable that does not run over lanes (or the first lane), as i64."""
        if type(var) is Var:
            var = self.merged.get(var) or var
            return self.levels[self.place[var]].regs[var]
        return self.memoised((var, "i64"), var.roots(), lambda: self._atom(var, False))

    def _atom(self, var: Var, wide: bool) -> Reg:
        assert isinstance(var, Quotient)
        form = self.many(var.form) if wide else self.number(var.form)
        divisor = self.f.number(form.type, var.divisor)
        return self.f.value(form.type, f"udiv {form}, {divisor.text}")

    def number(self, form: Form) -> Reg:
        """A form as i64, at the first lane."""

        def write() -> Reg:
            total = i64(form.const + self._ahead(form))
            for var, c in self._terms(form):
                total = self.f.add(self.f.mul(self.var(var), c), total)
            return total

        return self.memoised(("number", form), form.roots(), write)

    def many(self, form: Form) -> Reg:
        """A form in all lanes of vectors of whole numbers."""

        def write() -> Reg:
            f, type = self.f, vector(self.int, self.lanes)
            steps, atoms, rest = self._split(form)
            first = self.number(rest)
            if self.int == "i32":
                first = (
                    Reg(first.text, "i32")
                    if first.literal is not None
                    else f.value("i32", f"trunc {first} to i32")
                )
            total = f.splat(first, self.lanes)
            if steps:
                numbers = ", ".join(f"{self.int} {n}" for n in offsets(steps, self.lanes))
                total = f.value(type, f"add {type} <{numbers}>, {total.text}")
            for var, c in atoms:
                atom = self.memoised((var, type), var.roots(), lambda v=var: self._atom(v, True))
                scaled = f.value(type, f"mul {atom}, {f.number(type, c).text}") if c != 1 else atom
                total = f.value(type, f"add {total}, {scaled.text}")
            return total

        return self.memoised(("many", form, self.lanes), form.roots(), write)

    def _terms(self, form: Form) -> Iterator[tuple[Var, int]]:
        """The terms of a form in the variables that there are."""
        for var, c in form.terms:
            if type(var) is not Var or self.merged.get(var, var) is not None:
                yield var, c

    def _split(self, form: Form) -> tuple[Steps, list[tuple[Var, int]], Form]:
        """The steps from lane to lane, the atoms that differ between lanes, and all but those."""
        found = self._parts.get((form, self.lanes > 1))
        if found is None:
            found = self._parts[form, self.lanes > 1] = self._parted(form)
        return found

    def _parted(self, form: Form) -> tuple[Steps, list[tuple[Var, int]], Form]:
        if self.pair is not None and self.lanes > 1:
            return self._paired(self.pair, form)
        steps, atoms, rest = 0, [], []
        for var, c in self._terms(form):
            if not self.is_wide(var.roots()):
                rest.append((var, c))
            elif type(var) is Var:
                steps = c
                rest.append((var, c))
            else:
                atoms.append((var, c))
        return steps, atoms, Form(form.const, rest)

    def _paired(self, pair: Pair, form: Form) -> tuple[Steps, list[tuple[Var, int]], Form]:
        atoms = []
        for v, c in form.terms:
            own = v.roots()
            if type(v) is not Var and self.is_wide(own) and not own <= pair.inner_names:
                atoms.append((v, c))
        found = pair.parted(Form(form.const, [t for t in form.terms if t not in atoms]), self.lanes)
        assert found is not None
        steps, first = found
        return steps, atoms, Form(first.const, self._terms(first))

    def condition(self, guard: Guard, wide: bool) -> Reg:
        """Whether all conditions hold: for each lane if any of them depends on it, or if `wide`."""
        depends = frozenset().union(*(c[0].roots() for c in guard))
        reg = self.memoised(("if", guard, self.lanes), depends, lambda: self._conditions(guard))
        return self.spread(("if", guard), reg, depends) if wide else reg

    def bits(self, guard: Guard) -> tuple[bool, ...] | None:
        """In which lanes all conditions hold, if that is the same wherever a vector begins."""
        if not guard:
            return (True,) * self.lanes
        return self.pair.bits(guard, self.lanes) if self.pair is not None else None

    def _conditions(self, guard: Guard) -> Reg:
        f = self.f
        known = self.bits(guard) if self.lanes > 1 else None
        if known is not None:
            bits = ", ".join(f"i1 {'true' if bit else 'false'}" for bit in known)
            return Reg(f"<{bits}>", f"<{self.lanes} x i1>")
        scalars, vectors = [], []
        for form, low, high in guard:
            wide = self.is_wide(form.roots())
            reg = self.many(form) if wide else self.number(form)
            tests = []
            if form.low < low:
                tests.append(("sge", low))
            if form.high >= high:
                tests.append(("slt", high))
            for how, limit in tests:
                test = f.icmp(how, reg, f.number(reg.type, limit))
                (vectors if wide else scalars).append(test)
        total = None
        for test in (*scalars, *vectors):
            if total is None:
                total = test
                continue
            if total.type != test.type:
                total = f.splat(total, lanes_of(test.type))
            total = f.op("and", total, test)
        assert total is not None
        return total
