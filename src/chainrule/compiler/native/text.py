"""Writing LLVM IR as text: a module, a function, typed registers, loops whose values are carried.

    module = Module(target)
    f = Function(module, "scale", "ptr noalias %x, i64 %n")
    with f.loop(0, f.arg("n")) as i:
        p = f.at(f.arg("x"), i.index, "float")
        f.store(f.fmul(f.load(p, "float"), f.number("float", 2.0)), p)
    f.finish()

No pass of LLVM's optimiser runs on kernels (they would cost ten times the time and gain nothing),
so what is written here is what the code generator sees: constants are folded in Python, values
that a loop carries are phi nodes, and nothing is kept in stack slots.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler.native.target import Target


class Reg(NamedTuple):
    """A typed operand: the name of a register (`%7`) or a literal (`3`, `zeroinitializer`)."""

    text: str
    type: str

    @property
    def literal(self) -> int | None:
        """The number that a literal integer stands for."""
        return int(self.text) if self.type == "i64" and not self.text.startswith("%") else None

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


Int = int | Reg


@functools.cache
def vector(type: str, lanes: int) -> str:
    """The type of `lanes` elements; of one element the type itself."""
    return type if lanes == 1 else f"<{lanes} x {type}>"


@functools.cache
def lanes_of(type: str) -> int:
    return int(type[1:].split(" ", 1)[0]) if type.startswith("<") else 1


@functools.cache
def element(type: str) -> str:
    """The type of a vector's elements."""
    return type[:-1].split(" x ", 1)[1] if type.startswith("<") else type


def with_element(type: str, new: str) -> str:
    """A vector type of as many elements of another type."""
    return vector(new, lanes_of(type))


def type_of(dtype: Any) -> str:
    """The type of a dtype's elements in memory (a boolean is a byte of 0 or 1)."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return {4: "float", 8: "double"}[dtype.itemsize]
    if dtype.kind not in "iub":
        raise KeyError(dtype.name)
    return f"i{8 * dtype.itemsize}"


def i64(n: int) -> Reg:
    return Reg(str(n), "i64")


_SUFFIX = {"float": "f32", "double": "f64", "ptr": "p0"}


@functools.cache
def suffix(type: str) -> str:
    """A type as intrinsic names spell it: `v16f32`."""
    inner = _SUFFIX.get(element(type), element(type))
    return inner if lanes_of(type) == 1 else f"v{lanes_of(type)}{inner}"


class Module:
    """One LLVM module, as text: functions, what they declare, and constant tables."""

    def __init__(self, target: Target):
        self.target = target
        self.functions: list[str] = []
        self.declared: dict[str, str] = {}
        self.globals: dict[str, str] = {}
        self._shared: dict[object, str] = {}

    def shared(self, hint: str, key: object) -> tuple[str, bool]:
        """A function that several kernels call: its name, and whether it is still to be written.

        Arguments:
            key: all that the function depends on.
        """
        known = self._shared.get((hint, key))
        if known is not None:
            return known, False
        name = self._shared[hint, key] = f"{hint}_{len(self._shared)}"
        return name, True

    def declare(self, name: str, returns: str, arguments: Sequence[str]) -> str:
        """Declare a function from outside (an intrinsic, or one of the C library); its name."""
        self.declared[name] = f"declare {returns} @{name}({', '.join(arguments)})"
        return name

    def table(self, name: str, type: str, numbers: Sequence[str]) -> Reg:
        """A constant array; `numbers` are literals."""
        body = ", ".join(f"{type} {x}" for x in numbers)
        self.globals[name] = (
            f"@{name} = internal constant [{len(numbers)} x {type}] [{body}], align 64"
        )
        return Reg(f"@{name}", "ptr")

    def text(self) -> str:
        parts = [*self.globals.values(), *self.declared.values(), *self.functions]
        if self.target.triple:
            parts.insert(0, f'target triple = "{self.target.triple}"')
        return "\n".join(parts) + "\n"


class Loop:
    """A loop being written: set `next` to the carried values of the next round before it closes."""

    def __init__(self, index: Reg, carried: list[Reg]):
        self.index = index
        self.carried = carried
        self.next: Sequence[Reg] = carried
        self.results: list[Reg] = []  # the carried values after the last round


class Function:
    """One function, written instruction by instruction.

    Arguments:
        parameters: as IR spells them, `"ptr noalias %x, i64 %n"`.
        internal: False for a function that is called from outside the module.
    """

    def __init__(
        self,
        module: Module,
        name: str,
        parameters: str,
        returns: str = "void",
        internal: bool = True,
        attributes: str = "noinline nounwind",
    ):
        self.module, self.name, self.returns = module, name, returns
        linkage = "internal " if internal else ""
        width = module.target.vector_bytes * 8
        self.head = (
            f"define {linkage}{returns} @{name}({parameters}) {attributes} "
            f'"prefer-vector-width"="{width}" "min-legal-vector-width"="{width}" {{'
        )
        self.arguments: dict[str, Reg] = {}
        for one in filter(None, (p.strip() for p in parameters.split(","))):
            words = one.split()
            self.arguments[words[-1][1:]] = Reg(words[-1], words[0])
        self.lines: list[str] = ["entry:"]
        self.block = "entry"
        self._counter = itertools.count()

    @property
    def target(self) -> Target:
        return self.module.target

    def arg(self, name: str) -> Reg:
        return self.arguments[name]

    # --- plumbing ---------------------------------------------------------------------------------

    def do(self, instruction: str) -> None:
        self.lines.append(f" {instruction}")

    def value(self, type: str, instruction: str) -> Reg:
        """The register that holds an instruction's result of a type."""
        name = f"%v{next(self._counter)}"
        self.lines.append(f" {name} = {instruction}")
        return Reg(name, type)

    def label(self, hint: str) -> str:
        return f"{hint}{next(self._counter)}"

    def start(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def jump(self, label: str) -> None:
        self.do(f"br label %{label}")

    def branch(self, condition: Reg, yes: str, no: str) -> None:
        self.do(f"br i1 {condition.text}, label %{yes}, label %{no}")

    def finish(self, result: Reg | None = None) -> str:
        """End with a return and hand the text to the module; returns the function's name."""
        self.do("ret void" if result is None else f"ret {result}")
        self.module.functions.append("\n".join([self.head, *self.lines, "}"]))
        return self.name

    # --- operands ---------------------------------------------------------------------------------

    def number(self, type: str, x: float | int | bool) -> Reg:
        """A literal, in all lanes of a vector type."""
        inner = element(type)
        if inner == "float":
            with np.errstate(over="ignore"):
                narrow = float(np.float32(x))
            text = f"0x{struct.unpack('<Q', struct.pack('<d', narrow))[0]:016X}"
        elif inner == "double":
            text = f"0x{struct.unpack('<Q', struct.pack('<d', x))[0]:016X}"
        else:
            text = str(int(x))
        return Reg(text if lanes_of(type) == 1 else f"splat ({inner} {text})", type)

    def zero(self, type: str) -> Reg:
        return self.number(type, 0)

    def splat(self, x: Reg, lanes: int) -> Reg:
        """A scalar in all lanes."""
        if lanes == 1:
            return x
        type = vector(x.type, lanes)
        if not x.text.startswith("%"):
            return Reg(f"splat ({x})", type)
        first = self.value(type, f"insertelement {type} poison, {x}, i32 0")
        return self.value(
            type, f"shufflevector {first}, {type} poison, <{lanes} x i32> zeroinitializer"
        )

    def extract(self, x: Reg, lane: int) -> Reg:
        return self.value(element(x.type), f"extractelement {x}, i32 {lane}")

    def insert(self, x: Reg, value: Reg, lane: int) -> Reg:
        return self.value(x.type, f"insertelement {x}, {value}, i32 {lane}")

    def shuffle(self, x: Reg, y: Reg, lanes: Sequence[int]) -> Reg:
        mask = ", ".join(f"i32 {i}" for i in lanes)
        type = vector(element(x.type), len(lanes))
        return self.value(type, f"shufflevector {x}, {y}, <{len(lanes)} x i32> <{mask}>")

    # --- integers, folded where both sides are known --------------------------------------------

    def _int(self, x: Int) -> Reg:
        return i64(x) if isinstance(x, int) else x

    def add(self, x: Int, y: Int) -> Reg:
        x, y = self._int(x), self._int(y)
        if x.literal is not None and y.literal is not None:
            return i64(x.literal + y.literal)
        if x.literal == 0:
            return y
        return x if y.literal == 0 else self.value(x.type, f"add {x}, {y.text}")

    def sub(self, x: Int, y: Int) -> Reg:
        x, y = self._int(x), self._int(y)
        if x.literal is not None and y.literal is not None:
            return i64(x.literal - y.literal)
        return x if y.literal == 0 else self.value(x.type, f"sub {x}, {y.text}")

    def mul(self, x: Int, y: Int) -> Reg:
        x, y = self._int(x), self._int(y)
        if x.literal is not None and y.literal is not None:
            return i64(x.literal * y.literal)
        if x.literal == 0 or y.literal == 0:
            return i64(0)
        if x.literal == 1:
            return y
        return x if y.literal == 1 else self.value(x.type, f"mul {x}, {y.text}")

    def udiv(self, x: Int, y: Int) -> Reg:
        x, y = self._int(x), self._int(y)
        if x.literal is not None and y.literal is not None:
            return i64(x.literal // y.literal)
        return x if y.literal == 1 else self.value(x.type, f"udiv {x}, {y.text}")

    def urem(self, x: Int, y: Int) -> Reg:
        x, y = self._int(x), self._int(y)
        if x.literal is not None and y.literal is not None:
            return i64(x.literal % y.literal)
        return i64(0) if y.literal == 1 else self.value(x.type, f"urem {x}, {y.text}")

    def smin(self, x: Int, y: Int) -> Reg:
        x, y = self._int(x), self._int(y)
        if x.literal is not None and y.literal is not None:
            return i64(min(x.literal, y.literal))
        return self.call(f"llvm.smin.{suffix(x.type)}", x.type, x, y)

    def smax(self, x: Int, y: Int) -> Reg:
        x, y = self._int(x), self._int(y)
        if x.literal is not None and y.literal is not None:
            return i64(max(x.literal, y.literal))
        return self.call(f"llvm.smax.{suffix(x.type)}", x.type, x, y)

    def icmp(self, how: str, x: Int, y: Int) -> Reg:
        x, y = self._int(x), self._int(y)
        return self.value(with_element(x.type, "i1"), f"icmp {how} {x}, {y.text}")

    # --- instructions -----------------------------------------------------------------------------

    def op(self, opcode: str, x: Reg, y: Reg) -> Reg:
        """A binary instruction of one type (`fadd`, `xor`, `shl`, ...)."""
        return self.value(x.type, f"{opcode} {x}, {y.text}")

    def fadd(self, x: Reg, y: Reg) -> Reg:
        return self.op("fadd", x, y)

    def fsub(self, x: Reg, y: Reg) -> Reg:
        return self.op("fsub", x, y)

    def fmul(self, x: Reg, y: Reg) -> Reg:
        return self.op("fmul", x, y)

    def fdiv(self, x: Reg, y: Reg) -> Reg:
        return self.op("fdiv", x, y)

    def fma(self, x: Reg, y: Reg, z: Reg) -> Reg:
        """x y + z, rounded once where the target has the instruction."""
        if not self.target.fma:  # LLVM would call the C library for it
            return self.fadd(self.fmul(x, y), z)
        return self.call(f"llvm.fma.{suffix(x.type)}", x.type, x, y, z)

    def fcmp(self, how: str, x: Reg, y: Reg) -> Reg:
        return self.value(with_element(x.type, "i1"), f"fcmp {how} {x}, {y.text}")

    def select(self, condition: Reg, x: Reg, y: Reg) -> Reg:
        return self.value(x.type, f"select {condition}, {x}, {y}")

    def convert(self, opcode: str, x: Reg, inner: str) -> Reg:
        """A conversion (`sitofp`, `fptosi`, `bitcast`, `zext`, ...) to elements of a type."""
        type = with_element(x.type, inner)
        return self.value(type, f"{opcode} {x} to {type}")

    def call(self, name: str, returns: str, *arguments: Reg) -> Reg:
        self.module.declare(name, returns, [x.type for x in arguments])
        return self.value(returns, f"call {returns} @{name}({', '.join(map(str, arguments))})")

    def run(self, name: str, *arguments: Reg) -> None:
        """Call a function of this module that returns nothing."""
        self.do(f"call void @{name}({', '.join(map(str, arguments))})")

    # --- memory -----------------------------------------------------------------------------------

    def at(self, base: Reg, index: Int, type: str) -> Reg:
        """The address of element `index` of an array of `type` at `base`."""
        index = self._int(index)
        if index.literal == 0:
            return base
        return self.value("ptr", f"getelementptr inbounds {type}, {base}, {index}")

    def load(self, address: Reg, type: str, align: int | None = None) -> Reg:
        return self.value(type, f"load {type}, {address}, align {align or self._align(type)}")

    def store(self, x: Reg, address: Reg, align: int | None = None) -> None:
        self.do(f"store {x}, {address}, align {align or self._align(x.type)}")

    def _align(self, type: str) -> int:
        """Elements are aligned to their own size, vectors need not be to theirs."""
        inner = element(type)
        if inner in ("double", "i64", "ptr"):
            return 8
        return {"float": 4, "i32": 4, "i16": 2}.get(inner, 1)

    def tail_mask(self, count: Int, lanes: int) -> Reg:
        """The mask of the first `count` lanes."""
        numbers = Reg("<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">", f"<{lanes} x i64>")
        return self.value(
            f"<{lanes} x i1>", f"icmp ult {numbers}, {self.splat(self._int(count), lanes).text}"
        )

    def load_masked(self, address: Reg, type: str, mask: Reg, other: Reg | None = None) -> Reg:
        """A vector of the lanes in the mask; nothing else is touched. `other` fills the rest."""
        name, rest = f"llvm.masked.load.{suffix(type)}.p0", other or self.zero(type)
        align = Reg(str(self._align(type)), "i32 immarg")
        self.module.declare(name, type, ["ptr", align.type, mask.type, type])
        return self.value(type, f"call {type} @{name}({address}, i32 {align.text}, {mask}, {rest})")

    def store_masked(self, x: Reg, address: Reg, mask: Reg) -> None:
        name = f"llvm.masked.store.{suffix(x.type)}.p0"
        self.module.declare(name, "void", [x.type, "ptr", "i32 immarg", mask.type])
        self.do(f"call void @{name}({x}, {address}, i32 {self._align(x.type)}, {mask})")

    # --- structure --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def loop(
        self, start: Int, stop: Int, step: int = 1, carry: Sequence[Reg] = (), hint: str = "loop"
    ) -> Iterator[Loop]:
        """`for index in range(start, stop, step)`; `carry` are the values that it hands on."""
        start, stop = self._int(start), self._int(stop)
        head, done = self.label(hint), self.label("done")
        before = self.block
        counted = start.literal is not None and stop.literal is not None
        skips = not (counted and start.literal < stop.literal)  # type: ignore[operator]
        if skips:
            self.branch(self.icmp("slt", start, stop), head, done)
        else:
            self.jump(head)
        self.start(head)
        index = Reg(f"%v{next(self._counter)}", "i64")
        carried = [Reg(f"%v{next(self._counter)}", x.type) for x in carry]
        phis = len(self.lines)
        loop = Loop(index, list(carried))
        yield loop
        following = self.add(index, step)
        last = self.block
        again = self.icmp("slt", following, stop)
        self.branch(again, head, done)
        self.lines[phis:phis] = [
            f" {register.text} = phi {register.type} [{first.text}, %{before}], "
            f"[{new.text}, %{last}]"
            for register, first, new in zip(
                [index, *carried], [start, *carry], [following, *loop.next], strict=True
            )
        ]
        self.start(done)
        loop.results = list(loop.next)
        if skips:
            loop.results = [
                self.value(
                    first.type, f"phi {first.type} [{first.text}, %{before}], [{new.text}, %{last}]"
                )
                for first, new in zip(carry, loop.next, strict=True)
            ]

    @contextlib.contextmanager
    def when(self, condition: Reg) -> Iterator[None]:
        """Run the block if the condition (i1) holds."""
        yes, done = self.label("then"), self.label("done")
        self.branch(condition, yes, done)
        self.start(yes)
        yield
        self.jump(done)
        self.start(done)
