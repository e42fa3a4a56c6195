"""Elementwise primitives as instructions: the vocabulary of `primitives.scalar` in LLVM IR.

    z = scalar.lower(f, op, [x, y])

writes what computes one element of `op`, or one vector of elements: whatever the operands hold.
Booleans are i1 in registers; the memory of one is a byte. Nothing here calls a library.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.compiler.ir import Op
from chainrule.compiler.native.text import Function, Module, Reg, element, lanes_of, suffix, vector
from chainrule.dtypes import DType
from chainrule.graph import Primitive
from chainrule.primitives.scalar import Arithmetic

_TYPES = {
    "bool": "i1", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "i8",
    "uint16": "i16", "uint32": "i32", "uint64": "i64", "float32": "float", "float64": "double",
}  # fmt: skip


def register_type(dtype: DType, lanes: int = 1) -> str:
    """The type of a register that holds elements of a dtype."""
    return vector(_TYPES[dtype.name], lanes)


def supports(op: Op) -> bool:
    """Whether `lower` can write the operation."""
    primitive, values = op.primitive, (*op.inputs, *op.outputs)
    if primitive.scalar is None or any(x.dtype.name not in _TYPES for x in values):
        return False
    # Eagerly a negative power of an integer is an error, which only a check of values can find.
    return not (primitive.name == "pow" and op.output.dtype.kind == "i")


def lower(f: Function, op: Op, operands: Sequence[Reg]) -> Reg:
    """Write one element, or one vector of elements, of the operation's output; its register."""
    return apply(f, op.primitive, operands, [x.dtype for x in op.inputs], op.params)


def apply(
    f: Function,
    primitive: Primitive,
    operands: Sequence[Reg],
    dtypes: Sequence[DType],
    params: dict[str, Any] | None = None,
) -> Reg:
    """The same for a primitive that is part of no graph."""
    assert primitive.scalar is not None, primitive
    m = Writer(f)
    inputs = [Operand(m, reg, dtype) for reg, dtype in zip(operands, dtypes, strict=True)]
    return primitive.scalar(m, *inputs, **(params or {})).reg


@dataclass(frozen=True, eq=False)
class Operand:
    """A register, with the dtype of its elements and the operators of the vocabulary."""

    m: Writer
    reg: Reg
    dtype: DType

    def _with(self, other: Any) -> Operand:
        return other if isinstance(other, Operand) else self.m.number(self, other)

    def _binary(self, other: Any, floating: str, integer: str, swapped: bool = False) -> Operand:
        x, y = (self._with(other), self) if swapped else (self, self._with(other))
        opcode = floating if self.dtype.kind == "f" else integer
        return Operand(self.m, self.m.f.op(opcode, x.reg, y.reg), self.dtype)

    def _compare(self, other: Any, how: str) -> Operand:
        y, f = self._with(other), self.m.f
        if self.dtype.kind == "f":
            reg = f.fcmp({"eq": "oeq", "ne": "une"}.get(how, f"o{how}"), self.reg, y.reg)
        else:
            sign = "" if how in ("eq", "ne") else "s" if self.dtype.kind == "i" else "u"
            reg = f.icmp(sign + how, self.reg, y.reg)
        return Operand(self.m, reg, np.dtype(bool))

    def __add__(self, other: Any) -> Operand:
        return self._binary(other, "fadd", "add")

    def __sub__(self, other: Any) -> Operand:
        return self._binary(other, "fsub", "sub")

    def __mul__(self, other: Any) -> Operand:
        return self._binary(other, "fmul", "mul")

    def __truediv__(self, other: Any) -> Operand:
        return self._binary(other, "fdiv", "")

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Operand:
        return self._binary(other, "fsub", "sub", swapped=True)

    def __rtruediv__(self, other: Any) -> Operand:
        return self._binary(other, "fdiv", "", swapped=True)

    def __neg__(self) -> Operand:
        if self.dtype.kind == "f":
            f = self.m.f
            return Operand(self.m, f.value(self.reg.type, f"fneg {self.reg}"), self.dtype)
        return 0 - self

    def __and__(self, other: Any) -> Operand:
        return self._binary(other, "", "and")

    def __or__(self, other: Any) -> Operand:
        return self._binary(other, "", "or")

    def __xor__(self, other: Any) -> Operand:
        return self._binary(other, "", "xor")

    def __invert__(self) -> Operand:
        return self ^ (1 if self.dtype.kind == "b" else -1)

    def __lshift__(self, other: Any) -> Operand:
        return self._binary(other, "", "shl")

    def __rshift__(self, other: Any) -> Operand:
        return self._binary(other, "", "ashr" if self.dtype.kind == "i" else "lshr")

    def __lt__(self, other: Any) -> Operand:
        return self._compare(other, "lt")

    def __le__(self, other: Any) -> Operand:
        return self._compare(other, "le")

    def __gt__(self, other: Any) -> Operand:
        return self._compare(other, "gt")

    def __ge__(self, other: Any) -> Operand:
        return self._compare(other, "ge")

    def __eq__(self, other: Any) -> Operand:  # type: ignore[override]
        return self._compare(other, "eq")

    def __ne__(self, other: Any) -> Operand:  # type: ignore[override]
        return self._compare(other, "ne")


class Writer(Arithmetic):
    """The vocabulary, writing into a function."""

    def __init__(self, f: Function):
        self.f = f
        self.fused = f.module.target.fma
        # The smallest of x86 processors has no instruction that rounds to a whole number.
        self._rounds = f.module.target.name != "plain"

    def _operand(self, reg: Reg, dtype: DType | str) -> Operand:
        return Operand(self, reg, np.dtype(dtype))

    def _call(self, name: str, x: Operand, *others: Operand) -> Operand:
        type = x.reg.type
        reg = self.f.call(f"llvm.{name}.{suffix(type)}", type, x.reg, *[y.reg for y in others])
        return Operand(self, reg, x.dtype)

    def number(self, like: Operand, value: float) -> Operand:
        return Operand(self, self.f.number(like.reg.type, value), like.dtype)

    def fma(self, x: Operand, y: Any, z: Any) -> Operand:
        reg = self.f.fma(x.reg, x._with(y).reg, x._with(z).reg)
        return Operand(self, reg, x.dtype)

    def abs(self, x: Operand) -> Operand:
        if x.dtype.kind == "f":
            return self._call("fabs", x)
        return x if x.dtype.kind in "ub" else self.select(x < 0, -x, x)

    def sqrt(self, x: Operand) -> Operand:
        return self._call("sqrt", x)

    def floor(self, x: Operand) -> Operand:
        if self._rounds:
            return self._call("floor", x)
        z = self.round(x)
        return self.copysign(self.select(z > x, z - 1.0, z), x)

    def ceil(self, x: Operand) -> Operand:
        if self._rounds:
            return self._call("ceil", x)
        z = self.round(x)
        return self.copysign(self.select(z < x, z + 1.0, z), x)

    def trunc(self, x: Operand) -> Operand:
        if self._rounds:
            return self._call("trunc", x)
        return self.copysign(self.floor(self.abs(x)), x)

    def round(self, x: Operand) -> Operand:
        if self._rounds:
            return self._call("rint", x)
        # From 2^23 (2^52) on all numbers are whole; smaller ones lose their fraction beside it.
        limit = 2.0 ** np.finfo(x.dtype).nmant
        size = self.abs(x)
        return self.copysign(self.select(size < limit, (size + limit) - limit, x), x)

    def select(self, condition: Operand, x: Any, y: Any) -> Operand:
        like = x if isinstance(x, Operand) else y
        reg = self.f.select(condition.reg, like._with(x).reg, like._with(y).reg)
        return Operand(self, reg, like.dtype)

    def bits(self, x: Operand) -> Operand:
        width = x.dtype.itemsize * 8
        return self._operand(self.f.convert("bitcast", x.reg, f"i{width}"), f"int{width}")

    def from_bits(self, x: Operand) -> Operand:
        inner = {4: "float", 8: "double"}[x.dtype.itemsize]
        dtype = f"float{x.dtype.itemsize * 8}"
        return self._operand(self.f.convert("bitcast", x.reg, inner), dtype)

    # --- casts ------------------------------------------------------------------------------------

    def cast(self, x: Operand, dtype: DType | str) -> Operand:
        dtype = np.dtype(dtype)
        if dtype == x.dtype:
            return x
        if dtype.kind == "b":
            return x != 0
        if x.dtype.kind == "f":
            return self._resize(x, dtype) if dtype.kind == "f" else self._truncate(x, dtype)
        if dtype.kind == "f":
            opcode = "sitofp" if x.dtype.kind == "i" else "uitofp"
            return self._convert(opcode, x, dtype)
        return self._resize(x, dtype)

    def _convert(self, opcode: str, x: Operand, dtype: DType | str) -> Operand:
        dtype = np.dtype(dtype)
        return self._operand(self.f.convert(opcode, x.reg, _TYPES[dtype.name]), dtype)

    def _resize(self, x: Operand, dtype: DType) -> Operand:
        """To another width of the same kind."""
        have, want = element(x.reg.type), _TYPES[dtype.name]
        if have == want:
            return Operand(self, x.reg, dtype)
        if dtype.kind == "f":
            return self._convert("fpext" if want == "double" else "fptrunc", x, dtype)
        if int(have[1:]) > int(want[1:]):
            return self._convert("trunc", x, dtype)
        return self._convert("sext" if x.dtype.kind == "i" else "zext", x, dtype)

    def _truncate(self, x: Operand, dtype: DType) -> Operand:
        """To an integer."""
        if dtype.name == "uint64":
            large = x >= 2.0**63
            low = self._signed(self.select(large, x - 2.0**63, x), np.dtype("int64"))
            return self._resize(self.select(large, low ^ np.iinfo("int64").min, low), dtype)
        through = "int64" if dtype.name in ("int64", "uint32") else "int32"
        return self._resize(self._signed(x, np.dtype(through)), dtype)

    def _signed(self, x: Operand, dtype: DType) -> Operand:
        least = int(np.iinfo(dtype).min)
        # In float64 the numbers between -2^31 - 1 and -2^31 are cut to the latter.
        below = x > least - 1.0 if x.dtype.itemsize > dtype.itemsize else x >= float(least)
        inside = below & (x < -float(least))
        z = self._convert("fptosi", self.select(inside, x, 0.0), dtype)
        return self.select(inside, z, least)

    # --- integers ---------------------------------------------------------------------------------

    def divide_integers(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        zero = y == 0
        safe, sign = self.select(zero, 1, y), "u"
        if x.dtype.kind == "i":
            sign = "s"
            overflow = (x == int(np.iinfo(x.dtype).min)) & (y == -1)
            safe = self.select(overflow, 1, safe)
        quotient = Operand(self, self.f.op(f"{sign}div", x.reg, safe.reg), x.dtype)
        rest = x - quotient * safe
        return self.select(zero, 0, quotient), rest

    # --- tables and branches ----------------------------------------------------------------------

    def lookup(self, name: str, table: Sequence[float], index: Operand) -> Operand:
        f, lanes = self.f, lanes_of(index.reg.type)
        literals = [f.number("double", x).text for x in table]
        base = f.module.table(name, "double", literals)
        index = self.clamp(index, 0, len(table) - 1)
        result = Reg("poison", vector("double", lanes))
        for lane in range(lanes):
            at = index.reg if lanes == 1 else f.extract(index.reg, lane)
            one = f.load(f.at(base, at, "double"), "double")
            result = one if lanes == 1 else f.insert(result, one, lane)
        return self._operand(result, "float64")

    def _any(self, condition: Operand) -> Reg:
        reg = condition.reg
        if lanes_of(reg.type) == 1:
            return reg
        return self.f.call(f"llvm.vector.reduce.or.{suffix(reg.type)}", "i1", reg)

    def rarely_all(
        self,
        condition: Operand,
        slow: Callable[[], Sequence[Operand]],
        usual: Sequence[Operand],
    ) -> tuple[Operand, ...]:
        f = self.f
        start, done, before = f.label("rare"), f.label("usual"), f.block
        f.module.globals["rare"] = '!0 = !{!"branch_weights", i32 1, i32 4000}'
        some = self._any(condition).text
        f.do(f"br i1 {some}, label %{start}, label %{done}, !prof !0")
        f.start(start)
        mixed = [self.select(condition, x, y) for x, y in zip(slow(), usual, strict=True)]
        last = f.block
        f.jump(done)
        f.start(done)
        results = []
        for x, y in zip(usual, mixed, strict=True):
            arms = f"[{x.reg.text}, %{before}], [{y.reg.text}, %{last}]"
            results.append(Operand(self, f.value(x.reg.type, f"phi {x.reg.type} {arms}"), x.dtype))
        return tuple(results)

    def apart(
        self, name: str, function: Callable[..., Sequence[Any]], *operands: Operand
    ) -> tuple[Operand, ...]:
        f, module, lanes = self.f, self.f.module, lanes_of(operands[0].reg.type)
        symbol, new = module.shared(name, tuple([x.dtype.name for x in operands]))
        known = _results.setdefault(module, {})
        if new:
            known[symbol] = _define(module, symbol, function, operands)
        dtypes = known[symbol]

        def call(arguments: Sequence[Reg]) -> list[Reg]:
            type = _together(dtypes)
            whole = f.value(type, f"call {type} @{symbol}({', '.join(map(str, arguments))})")
            return [
                f.value(register_type(dtype), f"extractvalue {whole}, {i}")
                for i, dtype in enumerate(dtypes)
            ]

        if lanes == 1:
            results = call([x.reg for x in operands])
        else:
            empty = [f.zero(register_type(dtype, lanes)) for dtype in dtypes]
            with f.loop(0, lanes, carry=empty, hint="lane") as loop:
                at = loop.index
                one = call([
                    f.value(element(x.reg.type), f"extractelement {x.reg}, {at}") for x in operands
                ])  # fmt: skip
                loop.next = [
                    f.value(x.type, f"insertelement {x}, {y}, {at}")
                    for x, y in zip(loop.carried, one, strict=True)
                ]
            results = loop.results
        return tuple([Operand(self, x, d) for x, d in zip(results, dtypes, strict=True)])

    def known(self, x: Operand) -> float | None:
        literal = x.reg.text.removeprefix(f"splat ({element(x.reg.type)} ").rstrip(")")
        if x.dtype.kind != "f" or not literal.startswith("0x"):
            return None
        return struct.unpack("<d", int(literal, 16).to_bytes(8, "little"))[0]

    def repeat(
        self,
        unfinished: Callable[..., Operand],
        step: Callable[..., Sequence[Operand]],
        *state: Operand,
    ) -> tuple[Operand, ...]:
        f = self.f
        head, body, done, before = f.label("repeat"), f.label("step"), f.label("done"), f.block
        f.jump(head)
        f.start(head)
        phis = len(f.lines)
        names = [f.label("%state") for _ in state]
        now = [
            Operand(self, Reg(n, x.reg.type), x.dtype) for n, x in zip(names, state, strict=True)
        ]
        more = self._any(unfinished(*now))
        f.branch(more, body, done)
        f.start(body)
        following = step(*now)
        last = f.block
        f.jump(head)
        f.lines[phis:phis] = [
            f" {n} = phi {x.reg.type} [{x.reg.text}, %{before}], [{y.reg.text}, %{last}]"
            for n, x, y in zip(names, state, following, strict=True)
        ]
        f.start(done)
        return tuple(now)

    # --- what some processors do in one instruction -----------------------------------------------

    def scale(self, x: Operand, whole: Operand, n: Operand) -> Operand:
        """By one instruction where AVX-512 has it."""
        name = {"<16 x float>": "ps", "<8 x double>": "pd"}.get(x.reg.type)
        if self.f.module.target.name != "avx512" or name is None:
            return super().scale(x, whole, n)
        lanes = lanes_of(x.reg.type)
        all_lanes, rounding = Reg("-1", f"i{lanes}"), Reg("4", "i32")
        reg = self.f.call(
            f"llvm.x86.avx512.mask.scalef.{name}.512", x.reg.type,
            x.reg, whole.reg, self.f.zero(x.reg.type), all_lanes, rounding,
        )  # fmt: skip
        return Operand(self, reg, x.dtype)


_results: weakref.WeakKeyDictionary[Module, dict[str, list[DType]]] = weakref.WeakKeyDictionary()
"""What the functions of a module return that are written by `apart`."""


def _together(dtypes: Sequence[DType]) -> str:
    return f"{{{', '.join([register_type(dtype) for dtype in dtypes])}}}"


def _define(
    module: Module, symbol: str, function: Callable[..., Sequence[Any]], like: Sequence[Operand]
) -> list[DType]:
    """Write function(m, *operands) as a function of single elements."""
    arguments = [Reg(f"%x{i}", register_type(x.dtype)) for i, x in enumerate(like)]
    # What it returns is known when it has been written.
    body = Function(module, symbol, ", ".join(map(str, arguments)))
    m = Writer(body)
    results = function(m, *[Operand(m, x, y.dtype) for x, y in zip(arguments, like, strict=True)])
    dtypes = [x.dtype for x in results]
    body.head = body.head.replace("void", _together(dtypes), 1)
    whole = Reg("poison", _together(dtypes))
    for i, x in enumerate(results):
        whole = body.value(whole.type, f"insertvalue {whole}, {x.reg}, {i}")
    body.finish(whole)
    return dtypes
