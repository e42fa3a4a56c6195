"""What a kernel is: some operations of a graph, cut into units of work that any thread can run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.text import Function, Module, Reg
from chainrule.graph import Shape

PARAMETERS = "ptr noalias %table, i64 %lo, i64 %hi, ptr noalias %scratch"
"""Every kernel's: the table of pointers, the units to run, and this thread's own memory."""

ARENA, CONSTANTS, FIRST = 0, 1, 2
"""Entries of the table of pointers: the arena, the constants, then inputs and outputs."""


def strides_of(shape: Shape) -> tuple[int, ...]:
    """Row-major strides, in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


@dataclass(frozen=True)
class Buffer:
    """Where a value lies when the program runs.

    Attributes:
        slot: the entry of the table of pointers.
        offset: bytes from that pointer.
        shape: the shape of the value.
        strides: elements from one index to the next, for each axis; 0 repeats.
        dtype: of the elements; booleans take a byte of 0 or 1.
    """

    slot: int
    offset: int
    shape: Shape
    strides: tuple[int, ...]
    dtype: object

    def pointer(self, f: Function) -> Reg:
        """Load the address of the first element. To be done once, at a function's head."""
        base = f.load(f.at(f.arg("table"), self.slot, "ptr"), "ptr")
        return f.at(base, self.offset, "i8")


Buffers = Mapping[Value, Buffer]


class Kernel(ABC):
    """Some operations as one native function.

    The function is called with ranges of units, `lo <= unit < hi`, by any thread in any order, and
    its result must not depend on how the units are dealt out; so units are cut by the problem's
    shape and never by the number of threads. What one unit writes no other reads or writes.

    Attributes:
        ops: the operations that it computes.
        reads, writes: the values that it reads from buffers, and those that it writes.
        looks: values whose buffers it must know beside those, though not what is in them.
        units: how many units of work there are.
        scratch: bytes of memory that each thread needs for itself, aligned to 64.
        flops: floating-point operations in all.
    """

    family: ClassVar[str]
    ops: Sequence[Op]
    reads: Sequence[Value]
    writes: Sequence[Value]
    looks: Sequence[Value] = ()
    units: int = 1
    scratch: int = 0

    @property
    def flops(self) -> int:
        return sum(op.primitive.flops(op.outputs, *op.inputs, **op.params) for op in self.ops)

    @property
    def bytes(self) -> int:
        """Bytes that must move at least: each value read or written once."""
        return sum(value.nbytes for value in (*self.reads, *self.writes))

    def may_overwrite(self, read: Value, write: Value) -> bool:
        """Whether `write` may lie where `read` lies: a unit reads an element, if at all, before it
        writes the one in its place, and no other unit reads it."""
        return False

    def settled(self, strides: Mapping[Value, tuple[int, ...]]) -> Sequence[Kernel]:
        """The kernels to be run in its place, now that it is known how values lie.

        Arguments:
            strides: of the values that do not lie row-major.
        """
        return [self]

    def likeness(self) -> tuple[Any, Sequence[Value]] | None:
        """What the kernel's code depends on but for where its values lie, and these in an order.

        Two kernels of a class with equal keys are the same code, if their values, taken in order,
        have equal strides. None: the kernel does not know.
        """
        return None

    @abstractmethod
    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        """Write `void @name(PARAMETERS)` and whatever it calls into the module."""

    def __str__(self) -> str:
        made = ", ".join(map(repr, self.writes))
        return f"{self.family}[{self.units}] {made} <- {' '.join(op.name for op in self.ops)}"
