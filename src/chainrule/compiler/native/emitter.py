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

from collections.abc import Mapping
from typing import Any

from chainrule.compiler.ir import Value
from chainrule.compiler.native import scalar
from chainrule.compiler.native.emitter_numbers import Numbers
from chainrule.compiler.native.expressions import Expressions, Guard, Node
from chainrule.compiler.native.index import Form, Index, Quotient, Var
from chainrule.compiler.native.kernel import Buffers
from chainrule.compiler.native.lanes import Pair, Steps, load_window, offsets
from chainrule.compiler.native.text import Function, Reg, i64, lanes_of, suffix, type_of, vector

DEAR = 8
"""Functions of one number that take more instructions are computed in a vector register."""

NESTED = 60
"""Expressions that are deeper than this are written piece by piece."""

SMALL = 1 << 28
"""Arrays of fewer bytes are indexed in vectors of 32 bits."""


class Emitter(Numbers):
    """Writes nodes into a function.

    Arguments:
        lane, merged, pair: see `Levels`.
        pointers: addresses of buffers that the function has taken already.
    """

    def __init__(
        self,
        f: Function,
        buffers: Buffers,
        expressions: Expressions,
        lane: Var | None = None,
        merged: Mapping[Var, Var | None] | None = None,
        pointers: dict[Value, Reg] | None = None,
        pair: Pair | None = None,
    ):
        super().__init__(f, lane, merged or {}, _integer(buffers, expressions), pair)
        self.buffers, self.expressions = buffers, expressions
        self.pointers = {} if pointers is None else pointers
        self.kept: dict[Node, Any] = {}  # nodes kept in scratch, see `loops_pass.Kept`
        self._offsets: dict[Any, Form] = {}
        self._below = False  # whether what is deep is being written piece by piece

    # --- nodes ------------------------------------------------------------------------------------

    def scalar(self, node: Node) -> Reg:
        """A node as a register: a vector if it depends on the lane variable, else a scalar."""
        if node.depth > NESTED and node.kind != "reduce" and not self._below:
            self._below = True
            self._from_below(node)
            self._below = False
        return self.memoised(node, node.depends, lambda: self._write(node))

    def _from_below(self, node: Node) -> None:
        """Write what a node is made of in steps that are no deeper than calls should be nested."""
        seen, todo, found = {node}, list(node.inputs), []
        while todo:
            one = todo.pop()
            if one.depth <= NESTED // 2 or one in seen or one.kind == "reduce":
                continue
            seen.add(one)
            kept = self.kept.get(one)
            if kept is not None and kept.written:
                continue
            if one.depth % (NESTED // 2) == 0:
                found.append(one)
            todo += one.inputs
        for one in sorted(found, key=lambda n: (n.depth, n.number)):
            self.memoised(one, one.depends, lambda n=one: self._write(n))

    def vector(self, node: Node) -> Reg:
        """A node in all lanes."""
        if node.kind == "literal" and self.lanes > 1:
            return self._literal(node, self.lanes)
        reg = self.scalar(node)
        return self.spread(node, reg, node.depends)

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
                reg = self._apply(node)
            case "choice":
                operand = self.vector if self.is_wide(node.depends) else self.scalar
                x, y = (operand(n) for n in node.inputs)
                reg = self.f.select(self.condition(node.data, lanes_of(x.type) > 1), x, y)
            case _:
                raise AssertionError(f"{node} is wanted before it is known")
        if kept is not None:
            self._keep(reg, kept)
        return reg

    def _apply(self, node: Node) -> Reg:
        wide = self.is_wide(node.depends)
        operands = [self.vector(x) if wide else self.scalar(x) for x in node.inputs]
        dtypes = [x.dtype for x in node.inputs]
        # Polynomials work on the bits of numbers: in vector registers these need not move.
        narrow = not wide and node.cost >= DEAR and all(d.kind == "f" for d in dtypes)
        if narrow:
            lanes = 16 // dtypes[0].itemsize
            operands = [self.f.splat(reg, lanes) for reg in operands]
        reg = scalar.apply(self.f, node.data.primitive, operands, dtypes, node.data.params)
        return self.f.extract(reg, 0) if narrow else reg

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
        plain = not any(isinstance(v, Quotient) and self._moves(v.roots()) for v, _ in form.terms)
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
        bits = self.bits(guard) if not atoms and self.masks.get(self.instance) is None else None
        if bits is not None and not (steps in (1, -1) and all(bits)):
            reg = load_window(self.f, at, type, offsets(steps, self.lanes), bits)
            if reg is not None:
                return self.from_memory(reg, value)
        mask = self._mask(guard)
        return self.from_memory(self._lanes(at, type, steps, atoms, mask), value)

    def _lanes(
        self, at: Reg, type: str, steps: Steps, atoms: list[tuple[Var, int]], mask: Reg | None
    ) -> Reg:
        """Load one vector whose lanes lie so many elements apart."""
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

    def _places(self, at: Reg, type: str, steps: Steps, atoms: list[tuple[Var, int]]) -> Reg:
        """The addresses of all lanes."""
        f, lanes = self.f, self.lanes
        # The first lane's place is in `at`.
        whole = f"<{lanes} x {self.int}>"
        numbers = ", ".join(f"{self.int} {n}" for n in offsets(steps, lanes))
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


def _integer(buffers: Buffers, expressions: Expressions) -> str:
    """The type of whole numbers in vectors: 32 bits where that is enough for all of them."""
    reach = 0
    for value, buffer in buffers.items():
        steps = zip(buffer.shape, buffer.strides, strict=True)
        reach = max(reach, value.dtype.itemsize * sum(abs(s) * n for n, s in steps))
    forms = [q.form for q in expressions.splits.quotients.values()]
    forms += [node.data for node in expressions.nodes() if node.kind == "position"]
    large = any(form.high >= 1 << 31 or form.low < -1 << 31 for form in forms)
    return "i64" if large or reach >= SMALL else "i32"
