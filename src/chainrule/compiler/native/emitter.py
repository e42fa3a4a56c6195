"""From nodes to instructions, each at the outermost loop that knows what it needs.

The loops around the place that is being written form a stack of levels. A node is written at the
level of the innermost variable on which it depends: in front of the loop inside that level (its
*preheader*), once, however deep it is asked for. Addresses are put together the same way, so that
an innermost loop adds one register and a constant.

One variable may run over the lanes of vectors (`lane`). What depends on it is a vector, everything
else a scalar that is spread where a vector needs it. Several *instances* of a loop's body, at
distances of one vector, may be written side by side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chainrule.compiler.ir import Value
from chainrule.compiler.native import scalar
from chainrule.compiler.native.expressions import Expressions, Guard, Node
from chainrule.compiler.native.index import Datum, Form, Index, Quotient, Var
from chainrule.compiler.native.kernel import Buffers
from chainrule.compiler.native.text import (
    Function,
    Int,
    Loop,
    Reg,
    i64,
    lanes_of,
    suffix,
    type_of,
    vector,
)

SMALL = 1 << 28
"""Arrays of fewer bytes are indexed in vectors of 32 bits."""


class Level:
    """One loop (or block) of the stack, and what has been written in front of it.

    Attributes:
        regs: the variables that it opens.
        memo: what has been written in it, by node and instance.
        lines, block: the preheader, and the basic block at its end.
    """

    def __init__(self, lines: list[str], block: str):
        self.regs: dict[Var, Reg] = {}
        self.memo: dict[Any, Reg] = {}
        self.lines, self.block = lines, block


class Emitter:
    """Writes nodes into a function.

    Arguments:
        merged: variables that another one stands for: to that one, or to None if it has no part in
            any form (because the one inside it runs over both).
        lane: the variable that may run over lanes.
    """

    def __init__(
        self,
        f: Function,
        buffers: Buffers,
        expressions: Expressions,
        lane: Var | None = None,
        merged: Mapping[Var, Var | None] | None = None,
        pointers: dict[Value, Reg] | None = None,
    ):
        self.f, self.buffers, self.expressions = f, buffers, expressions
        self.lane, self.merged = lane, merged or {}
        self.lanes = 1
        self.step = 1  # each instance is so much further along one of the variables
        self._lane_names = self._along_names = self._names(lane)
        self.instance = 0
        self.masks: dict[int, Reg] = {}  # by instance; lanes that are none of the problem's
        self.levels = [Level([], "")]
        self.place: dict[Var, int] = {}
        self.given: dict[Value, Reg] = {}
        self.pointers = {} if pointers is None else pointers
        self.kept: dict[Node, Any] = {}  # nodes kept in scratch: (offset in bytes, form, written)
        read = [(v.dtype.itemsize, buffers[v]) for v in expressions.reads if v in buffers]
        sizes = [
            size * sum(abs(s) * n for n, s in zip(b.shape, b.strides, strict=True))
            for size, b in read
        ]
        self.int = "i32" if max(sizes, default=0) < SMALL else "i64"
        self._parts: dict[Any, Any] = {}
        self._offsets: dict[Any, Form] = {}
        self._writing = 0  # the level whose preheader is being written; 0: none
        self._markers: dict[str, list[str]] = {}

    # --- levels -----------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        return len(self.levels) - 1

    @contextlib.contextmanager
    def loop(
        self, var: Var, start: Int, stop: Int, step: int = 1, carry: Sequence[Reg] = ()
    ) -> Iterator[Loop]:
        """A loop over a variable, as a level of its own."""
        level = self._preheader()
        with self.f.loop(start, stop, step, carry) as loop, self._open(level, {var: loop.index}):
            yield loop

    @contextlib.contextmanager
    def block(self, regs: Mapping[Var, Reg]) -> Iterator[None]:
        """A level without a loop, in which some variables are what the registers hold."""
        level = self._preheader()
        with self._open(level, regs):
            yield

    @contextlib.contextmanager
    def wide(
        self, lanes: int, masks: Mapping[int, Reg] | None = None, along: Var | None = None
    ) -> Iterator[None]:
        """Let the lane variable run over so many lanes.

        Arguments:
            along: the variable that grows by 1 from instance to instance; None for the lane
                variable, which grows by the number of lanes.
        """
        before = self.lanes, self.masks, self.instance, self._along_names, self.step
        self.lanes, self.masks, self.instance = lanes, dict(masks or {}), 0
        self._along_names, self.step = self._lane_names, lanes
        if along is not None:
            self._along_names, self.step = self._names(along), 1
        yield
        self.lanes, self.masks, self.instance, self._along_names, self.step = before

    def _preheader(self) -> Level:
        f = self.f
        entry, body = f.label("before"), f.label("body")
        f.jump(entry)
        f.start(entry)
        level = Level([], f.block)
        marker = f"; {entry}"
        self._markers[marker] = level.lines
        f.lines.append(marker)
        f.jump(body)
        f.start(body)
        return level

    @contextlib.contextmanager
    def _open(self, level: Level, regs: Mapping[Var, Reg]) -> Iterator[None]:
        level.regs.update(regs)
        self.levels.append(level)
        before, self.place = self.place, dict(self.place)
        for var in regs:
            self.place.update(dict.fromkeys(self._names(var), self.depth))
        yield
        self.levels.pop()
        self.place = before

    @contextlib.contextmanager
    def _at(self, level: int) -> Iterator[None]:
        """Write in front of the loop inside a level, if one is open there."""
        if level >= self.depth or self._writing == level + 1:
            yield
            return
        f, inner, before = self.f, self.levels[level + 1], self._writing
        lines, block = f.lines, f.block
        f.lines, f.block, self._writing = inner.lines, inner.block, level + 1
        yield
        inner.block = f.block
        f.lines, f.block, self._writing = lines, block, before

    def finish(self) -> None:
        """Put the preheaders where they belong. To be called once, before `f.finish()`."""

        def expand(lines: list[str]) -> Iterator[str]:
            for line in lines:
                inner = self._markers.get(line)
                if inner is None:
                    yield line
                else:
                    yield from expand(inner)

        self.f.lines = list(expand(self.f.lines))

    # --- where a node belongs ---------------------------------------------------------------------

    def _names(self, var: Var | None) -> frozenset[Var]:
        """A variable, and those that it stands for in forms."""
        if var is None:
            return frozenset()
        return frozenset([var, *(v for v, other in self.merged.items() if other is var)])

    def _level(self, depends: frozenset[Var]) -> int:
        place = self.place
        return max([place.get(v, 0) for v in depends], default=0)

    def is_wide(self, depends: frozenset[Var]) -> bool:
        """Whether what depends on these is a vector here."""
        return self.lanes > 1 and not depends.isdisjoint(self._lane_names)

    def _moves(self, depends: frozenset[Var]) -> bool:
        """Whether what depends on these differs between instances."""
        return not depends.isdisjoint(self._along_names)

    def _ahead(self, form: Form) -> int:
        """How much further than the first the form is in this instance."""
        steps = sum(c for v, c in form.terms if type(v) is Var and self._moves(v.roots()))
        return steps * self.step * self.instance

    def memoised(self, key: Any, depends: frozenset[Var], write: Any) -> Reg:
        """What `write()` gives, written once at the level where it belongs."""
        level = self._level(depends)
        memo = self.levels[level].memo
        full = (key, self.instance if self._moves(depends) else 0)
        reg = memo.get(full)
        if reg is None:
            with self._at(level):
                reg = memo[full] = write()
        return reg

    # --- nodes ------------------------------------------------------------------------------------

    def scalar(self, node: Node) -> Reg:
        """A node as a register: a vector if it depends on the lane variable, else a scalar."""
        return self.memoised(node, node.depends, lambda: self._write(node))

    def vector(self, node: Node) -> Reg:
        """A node in all lanes."""
        if node.kind == "literal" and self.lanes > 1:
            return self._literal(node, self.lanes)
        reg = self.scalar(node)
        return self.spread(node, reg, node.depends)

    def spread(self, key: Any, reg: Reg, depends: frozenset[Var]) -> Reg:
        """A register in all lanes."""
        if self.lanes == 1 or lanes_of(reg.type) > 1:
            return reg
        lanes = self.lanes
        return self.memoised(("all", key, lanes), depends, lambda: self.f.splat(reg, lanes))

    def bind(self, node: Node, reg: Reg) -> None:
        """Let a node be what a register holds, at this level."""
        level = self._level(node.depends)
        instance = self.instance if self._moves(node.depends) else 0
        self.levels[level].memo[node, instance] = reg

    def _write(self, node: Node) -> Reg:
        kept = self.kept.get(node)
        if kept is not None and kept.written:
            return self._reload(node, kept)
        match node.kind:
            case "literal":
                reg = self._literal(node, 1)
            case "load":
                reg = self._load(node)
            case "position":
                reg = self._position(node)
            case "apply":
                operand = self.vector if self.is_wide(node.depends) else self.scalar
                reg = scalar.apply(
                    self.f,
                    node.data.primitive,
                    [operand(x) for x in node.inputs],
                    [x.dtype for x in node.inputs],
                    node.data.params,
                )
            case "choice":
                operand = self.vector if self.is_wide(node.depends) else self.scalar
                x, y = (operand(n) for n in node.inputs)
                reg = self.f.select(self.condition(node.data, lanes_of(x.type) > 1), x, y)
            case "given":
                reg = self.given[node.data]
            case _:
                raise AssertionError(f"{node} is wanted before it is known")
        if kept is not None:
            self._keep(reg, kept)
        return reg

    def _literal(self, node: Node, lanes: int) -> Reg:
        type = scalar.register_type(node.dtype, lanes)
        number = node.data[1]
        return self.f.number(type, float(number) if node.dtype.kind == "f" else int(number))

    def _position(self, node: Node) -> Reg:
        form: Form = node.data
        wide = self.is_wide(node.depends)
        reg = self.many(form) if wide else self.number(form)
        want = scalar.register_type(node.dtype, self.lanes if wide else 1)
        if want == reg.type:
            return reg
        bits = {"i8": 8, "i16": 16, "i32": 32, "i64": 64}
        have, need = (bits[t.split(" ")[-1].rstrip(">")] for t in (reg.type, want))
        opcode = "trunc" if have > need else "sext"
        return self.f.value(want, f"{opcode} {reg} to {want}")

    # --- whole numbers ----------------------------------------------------------------------------

    def var(self, var: Var) -> Reg:
        """A variable that does not run over lanes (or the first lane), as i64."""
        if type(var) is Var:
            var = self.merged.get(var) or var
            return self.levels[self.place[var]].regs[var]
        return self.memoised((var, "i64"), var.roots(), lambda: self._atom(var, False))

    def _atom(self, var: Var, wide: bool) -> Reg:
        f = self.f
        if isinstance(var, Quotient):
            form = self.many(var.form) if wide else self.number(var.form)
            return f.value(form.type, f"udiv {form}, {f.number(form.type, var.divisor).text}")
        assert isinstance(var, Datum)
        reg = self.vector(var.node) if wide else self.scalar(var.node)
        want = vector(self.int if wide else "i64", lanes_of(reg.type))
        if reg.type != want:
            sizes = [int(t.rstrip(">").rsplit("i", 1)[1]) for t in (reg.type, want)]
            grow = "sext" if var.node.dtype.kind == "i" else "zext"
            reg = f.value(want, f"{'trunc' if sizes[0] > sizes[1] else grow} {reg} to {want}")
        for name, limit in (("smax", 0), ("smin", var.extent - 1)):
            reg = f.call(f"llvm.{name}.{suffix(want)}", want, reg, f.number(want, limit))
        return reg

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
                numbers = ", ".join(f"{self.int} {i * steps}" for i in range(self.lanes))
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

    def _split(self, form: Form) -> tuple[int, list[tuple[Var, int]], Form]:
        """The step from lane to lane, the atoms that differ between lanes, and all but those."""
        found = self._parts.get((form, self.lanes > 1))
        if found is None:
            found = self._parts[form, self.lanes > 1] = self._parted(form)
        return found

    def _parted(self, form: Form) -> tuple[int, list[tuple[Var, int]], Form]:
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

    def condition(self, guard: Guard, wide: bool) -> Reg:
        """Whether all conditions hold: for each lane if any of them depends on it, or if `wide`."""
        depends = frozenset().union(*(c[0].roots() for c in guard))
        reg = self.memoised(("if", guard, self.lanes), depends, lambda: self._conditions(guard))
        return self.spread(("if", guard), reg, depends) if wide else reg

    def _conditions(self, guard: Guard) -> Reg:
        f = self.f
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

    # --- memory -----------------------------------------------------------------------------------

    def offset(self, value: Value, index: Index) -> Form:
        """Where an element lies, in elements from the buffer's first."""
        found = self._offsets.get((value, index))
        if found is None:
            found = self._offsets[value, index] = self._offset(value, index)
        return found

    def _offset(self, value: Value, index: Index) -> Form:
        total = Form(0)
        for form, step in zip(index, self.buffers[value].strides, strict=True):
            if step and form != Form(0):
                total = total + form.scale(step)
        return total

    def base(self, value: Value) -> Reg:
        """The address of a buffer's first element, taken once at the function's head."""
        if value not in self.pointers:
            with self._at(0):
                self.pointers[value] = self.buffers[value].pointer(self.f)
        return self.pointers[value]

    def address(self, key: Any, base: Reg, form: Form, type: str) -> Reg:
        """The address of the element at a form's place, put together level by level."""
        parts: dict[int, list[tuple[Var, int]]] = {}
        plain = not any(
            isinstance(v, Quotient | Datum) and self._moves(v.roots()) for v, _ in form.terms
        )
        for var, c in self._terms(form):
            parts.setdefault(self._level(var.roots()), []).append((var, c))
        reg, taken = base, []
        for level in sorted(parts):
            terms = parts[level]
            taken += terms
            depends = frozenset().union(*(v.roots() for v, _ in taken))

            def write(reg: Reg = reg, terms: Any = tuple(terms)) -> Reg:
                return self._step(reg, self.number(Form(0, terms)), type)

            if plain:  # the instance is a constant, and comes last
                instance, self.instance = self.instance, 0
            else:
                instance = self.instance
            reg = self.memoised(("address", key, tuple(taken)), depends, write)
            self.instance = instance
        return self._step(reg, i64(form.const + (self._ahead(form) if plain else 0)), type)

    def _step(self, base: Reg, index: Reg, type: str) -> Reg:
        if index.literal == 0:
            return base
        return self.f.value("ptr", f"getelementptr {type}, {base}, {index}")

    def _load(self, node: Node) -> Reg:
        value, index, guard = node.data
        form = self.offset(value, index)
        type = type_of(value.dtype)
        base = self.base(value)
        if not self.is_wide(node.depends):
            at = self.address(value, base, form, type)
            if guard:
                at = self.f.select(self.condition(guard, False), at, base)
            return self.from_memory(self.f.load(at, type), value)
        steps, atoms, rest = self._split(form)
        at = self.address(value, base, rest, type)
        mask = self._mask(guard)
        return self.from_memory(self._lanes(at, type, steps, atoms, mask), value)

    def _lanes(
        self, at: Reg, type: str, steps: int, atoms: list[tuple[Var, int]], mask: Reg | None
    ) -> Reg:
        """Load one vector; `steps` elements lie between lanes."""
        f, lanes = self.f, self.lanes
        whole = vector(type, lanes)
        if not atoms and steps == 1:
            return f.load(at, whole) if mask is None else f.load_masked(at, whole, mask)
        if not atoms and steps == -1 and mask is None:
            first = self._step(at, i64(1 - lanes), type)
            reg = f.load(first, whole)
            return f.shuffle(reg, Reg("poison", whole), range(lanes - 1, -1, -1))
        places = self._places(at, type, steps, atoms)
        mask = mask or f.number(f"<{lanes} x i1>", True)
        name = f"llvm.masked.gather.{suffix(whole)}.v{lanes}p0"
        align = f"i32 {f._align(type)}"
        f.module.declare(name, whole, [places.type, "i32 immarg", mask.type, whole])
        zero = f.zero(whole)
        return f.value(whole, f"call {whole} @{name}({places}, {align}, {mask}, {zero})")

    def _places(self, at: Reg, type: str, steps: int, atoms: list[tuple[Var, int]]) -> Reg:
        """The addresses of all lanes."""
        f, lanes = self.f, self.lanes
        # The first lane's place is in `at`.
        whole = f"<{lanes} x {self.int}>"
        numbers = ", ".join(f"{self.int} {i * steps}" for i in range(lanes))
        index = Reg(f"<{numbers}>", whole)
        for var, c in atoms:
            atom = self.memoised((var, whole), var.roots(), lambda v=var: self._atom(v, True))
            scaled = f.value(whole, f"mul {atom}, {f.number(whole, c).text}") if c != 1 else atom
            index = f.value(whole, f"add {index}, {scaled.text}")
        return f.value(f"<{lanes} x ptr>", f"getelementptr {type}, {at}, {index}")

    def _mask(self, guard: Guard) -> Reg | None:
        """The lanes that exist and for which the guard holds; None for all."""
        mask = self.masks.get(self.instance)
        if not guard:
            return mask
        inside = self.condition(guard, True)
        return inside if mask is None else self.f.op("and", mask, inside)

    def from_memory(self, reg: Reg, value: Value) -> Reg:
        if value.dtype.kind != "b":
            return reg
        return self.f.icmp("ne", reg, self.f.zero(reg.type))

    def place_of(self, value: Value, index: Index) -> Reg:
        """The address of an element (of the first lane's)."""
        rest = self._split(self.offset(value, index))[2]
        return self.address(value, self.base(value), rest, type_of(value.dtype))

    def store(self, value: Value, index: Index, reg: Reg) -> None:
        """Write an element, or a vector of them, to a value's buffer."""
        f, type = self.f, type_of(value.dtype)
        if value.dtype.kind == "b":
            reg = f.convert("zext", reg, "i8")
        form = self.offset(value, index)
        steps, atoms, rest = self._split(form)
        at = self.address(value, self.base(value), rest, type)
        lanes, mask = lanes_of(reg.type), self.masks.get(self.instance)
        if lanes == 1:
            f.store(reg, at)
        elif steps == 1 and not atoms:
            f.store(reg, at) if mask is None else f.store_masked(reg, at, mask)
        else:
            places = self._places(at, type, steps, atoms)
            mask = mask or f.number(f"<{lanes} x i1>", True)
            name = f"llvm.masked.scatter.{suffix(reg.type)}.v{lanes}p0"
            f.module.declare(name, "void", [reg.type, places.type, "i32 immarg", mask.type])
            f.do(f"call void @{name}({reg}, {places}, i32 {f._align(type)}, {mask})")

    # --- scratch ----------------------------------------------------------------------------------

    def _keep(self, reg: Reg, kept: Any) -> None:
        at, reg = self._kept_at(kept), self._widened(reg)
        self.f.store(reg, at)

    def _reload(self, node: Node, kept: Any) -> Reg:
        lanes = self.lanes if self.is_wide(node.depends) else 1
        reg = self.f.load(self._kept_at(kept), vector(type_of(node.dtype), lanes))
        return self.f.icmp("ne", reg, self.f.zero(reg.type)) if node.dtype.kind == "b" else reg

    def _widened(self, reg: Reg) -> Reg:
        boolean = reg.type == "i1" or reg.type.endswith("x i1>")
        return self.f.convert("zext", reg, "i8") if boolean else reg

    def _kept_at(self, kept: Any) -> Reg:
        def head() -> Reg:
            return self.f.at(self.f.arg("scratch"), kept.offset, "i8")

        base = self.memoised(("scratch", kept.offset), frozenset(), head)
        form = kept.form.shift(self.instance * kept.distance)
        return self.address(("scratch", kept.offset), base, form, kept.type)
