"""Checks of values as kernels: a number in the program's status if one element does not pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.compiler.ir import Op
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, Kernel, strides_of
from chainrule.compiler.native.text import Function, Module, Reg, lanes_of, type_of, vector
from chainrule.errors import ChainruleError

LANES = 8


def supports(op: Op) -> bool:
    """Checks of real numbers."""
    return op.name == "check" and op.inputs[0].dtype.kind in "fiu"


class CheckKernel(Kernel):
    """One check: runs over the elements, and writes `number` if one is refused.

    Attributes:
        number: what the status becomes, 1 for the first check of a program; set by the schedule.
        status: the slot and the offset in bytes of the status.
    """

    family = "check"

    def __init__(self, op: Op):
        self.op, self.ops = op, (op,)
        self.reads, self.writes = op.inputs, op.outputs
        self.number = 0
        self.status: tuple[int, int] = (0, 0)

    def error(self, array: np.ndarray[Any, Any]) -> Exception:
        """What is raised when this check has failed for these values."""
        error = self.op.params["refuse"](array)
        if isinstance(error, ChainruleError) and error.line is None:
            error.line = self.op.line
        return error

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        (x,) = self.reads
        buffer = buffers[x]
        f = Function(module, name, PARAMETERS)
        type = type_of(x.dtype)
        start = buffer.pointer(f)
        repeated = bool(x.size) and not any(buffer.strides)
        if not repeated and buffer.strides != strides_of(x.shape) and x.size > 1:
            raise ValueError(f"a check of {x} with strides {buffer.strides}")
        size = 1 if repeated else x.size
        whole = size - size % LANES
        bad = f.number(vector("i1", LANES), 0)
        if whole:
            with f.loop(0, whole, LANES, carry=[bad]) as loop:
                values = f.load(f.at(start, loop.index, type), vector(type, LANES))
                loop.next = [f.op("or", loop.carried[0], self._refused(f, values))]
            bad = loop.results[0]
        total = _any(f, bad)
        for i in range(whole, size):
            one = f.load(f.at(start, i, type), type)
            total = f.op("or", total, self._refused(f, one))
        with f.when(total):
            slot, offset = self.status
            base = f.load(f.at(f.arg("table"), slot, "ptr"), "ptr")
            place, number = f.at(base, offset, "i8"), Reg(str(self.number), "i64")
            before = f.load(place, "i64")
            # Of several that fail the first one speaks, as eagerly.
            first = f.op("or", f.icmp("eq", before, Reg("0", "i64")), f.icmp("ugt", before, number))
            with f.when(first):
                f.store(number, place)
        f.store(Reg("1", "i8"), buffers[self.writes[0]].pointer(f))
        f.finish()

    def _refused(self, f: Function, x: Reg) -> Reg:
        """Which of some elements do not pass."""
        how, dtype = self.op.params, self.op.inputs[0].dtype
        low, high, ignore = how["low"], how["high"], how["ignore"]
        floating = dtype.kind == "f"
        refused = f.number(vector("i1", lanes_of(x.type)), 0)
        if floating and not how["nan"]:
            refused = f.op("or", refused, f.fcmp("uno", x, x))
        for bound, below in ((low, True), (high, False)):
            if math.isinf(bound) and (bound < 0) == below:
                continue
            refused = f.op("or", refused, _beyond(f, x, dtype, bound, below))
        if ignore is not None and _representable(ignore, dtype):
            number = f.number(x.type, ignore if floating else int(ignore))
            other = f.fcmp("une", x, number) if floating else f.icmp("ne", x, number)
            refused = f.op("and", refused, other)
        return refused


def _representable(number: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return bool(dtype.type(number) == number)
    limit = np.iinfo(dtype)
    return number == int(number) and limit.min <= number <= limit.max


def _beyond(f: Function, x: Reg, dtype: np.dtype[Any], bound: float, below: bool) -> Reg:
    """Which elements are below, or above, a bound."""
    if dtype.kind == "f":
        return f.fcmp("olt" if below else "ogt", x, f.number(x.type, bound))
    limit, always = np.iinfo(dtype), f.number(vector("i1", lanes_of(x.type)), 1)
    never = f.number(vector("i1", lanes_of(x.type)), 0)
    if math.isinf(bound):
        return always
    whole = math.ceil(bound) if below else math.floor(bound)
    if whole < limit.min or whole > limit.max:
        return always if (whole > limit.max) == below else never
    sign = "u" if dtype.kind == "u" else "s"
    return f.icmp(f"{sign}{'lt' if below else 'gt'}", x, f.number(x.type, whole))


def _any(f: Function, bits: Reg) -> Reg:
    whole = f.value(f"i{LANES}", f"bitcast {bits} to i{LANES}")
    return f.icmp("ne", whole, Reg("0", whole.type))
