"""Writing kernels that are alike once: equal operations on values of equal shapes and strides.

A network of equal blocks has equal kernels, which differ only in where their values lie. Of such
kernels one is written; it takes its pointers from a table of its own, which a few instructions in
front of it fill from the program's:

    kernel7(table, ...):  own = [table[0] + 4096, table[5], ...];  body3(own, ...)
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Kernel
from chainrule.compiler.native.text import Function, Module, Reg
from chainrule.compiler.passes.cleaning import frozen
from chainrule.compiler.plan import Plan

ALONE = frozenset({"check", "host", "scan", "cond", "while"})
"""Families whose kernels use the program's own table."""


class _Signature:
    """What a kernel's code depends on, with values numbered as they are met."""

    def __init__(self, kernel: Kernel, plan: Plan):
        self.plan = plan
        known = kernel.likeness()
        if known is not None:
            key, values = known
            self.values: dict[Value, int] = {value: number for number, value in enumerate(values)}
            self.key = (type(kernel), key, tuple([plan.buffers[v].strides for v in values]))
            return
        self.ends = {*kernel.reads, *kernel.looks}
        self.values = {}
        self.facts: list[Any] = []
        self.seen: dict[Op, int] = {}
        for op in kernel.ops:
            self._op(op)
        parts = {name: self.of(part) for name, part in sorted(vars(kernel).items())}
        self.key = (type(kernel), tuple(self.facts), tuple(parts.items()))

    def _op(self, op: Op) -> int:
        if op not in self.seen:
            inputs = tuple([self._value(x) for x in op.inputs])
            number = self.seen[op] = len(self.seen)
            parameters = tuple([(k, frozen(v)) for k, v in sorted(op.params.items())])
            for z in op.outputs:
                self._number(z)
            self.facts.append((op.name, id(op.primitive), inputs, parameters, number))
        return self.seen[op]

    def _value(self, value: Value) -> int:
        if value not in self.values and value.op is not None and value not in self.ends:
            self._op(value.op)
        return self._number(value)

    def _number(self, value: Value) -> int:
        if value not in self.values:
            self.values[value] = len(self.values)
            buffer = self.plan.buffers.get(value)
            array = self.plan.schedule.graph.constants.get(value)
            self.facts.append((
                value.shape, value.dtype.name, None if buffer is None else buffer.strides,
                None if array is None else _content(array),
            ))  # fmt: skip
        return self.values[value]

    def of(self, part: Any) -> Any:
        """A kernel's attribute as a key; what is made from its other attributes by its type."""
        if isinstance(part, Value):
            return "value", self._value(part)
        if isinstance(part, Op):
            return "op", self._op(part)
        if isinstance(part, int | float | str | bool | np.dtype | None):
            return frozen(part)
        if isinstance(part, tuple | list):
            return tuple([self.of(x) for x in part])
        if isinstance(part, Kernel):
            return type(part), tuple([self.of(x) for x in (*part.reads, *part.writes)])
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            fields = dataclasses.fields(part)
            return type(part), tuple([self.of(getattr(part, f.name)) for f in fields])
        return type(part)


def _content(array: np.ndarray[Any, Any]) -> Any:
    if array.size and not any(array.strides):
        return array[(0,) * array.ndim].tobytes()
    return array.tobytes() if array.nbytes <= 4096 else id(array)


def write(plan: Plan, module: Module) -> list[str]:
    """Write all native kernels of a plan into a module; their names, in order."""
    kernels = [plan.schedule.kernels[i] for i in plan.natives]
    signatures = [None if k.family in ALONE else _Signature(k, plan) for k in kernels]
    often = Counter(s.key for s in signatures if s is not None)
    bodies: dict[Any, tuple[str, Kernel]] = {}
    names = []
    for number, (kernel, signature) in enumerate(zip(kernels, signatures, strict=True)):
        name = f"kernel{number}"
        names.append(name)
        if signature is None or often[signature.key] == 1:
            kernel.emit(module, name, plan.buffers_of(kernel))
            continue
        own = [v for v in signature.values if v in plan.buffers_of(kernel)]
        if signature.key not in bodies:
            bodies[signature.key] = f"body{number}", kernel
            kernel.emit(module, f"body{number}", _own_buffers(own, plan))
        body, first = bodies[signature.key]
        kernel.units, kernel.scratch = first.units, first.scratch  # settled when it was written
        _call(module, name, body, [plan.buffers[v] for v in own])
    return names


def _own_buffers(values: list[Value], plan: Plan) -> dict[Value, Buffer]:
    """The values' buffers in a table of their own, in which each has an entry."""
    return {
        value: dataclasses.replace(plan.buffers[value], slot=slot, offset=0)
        for slot, value in enumerate(values)
    }


def _call(module: Module, name: str, body: str, buffers: list[Buffer]) -> None:
    f = Function(module, name, PARAMETERS)
    own = f.value("ptr", f"alloca [{len(buffers)} x ptr], align 8")
    for slot, buffer in enumerate(buffers):
        f.store(buffer.pointer(f), f.at(own, slot, "ptr"))
    f.run(body, Reg(own.text, "ptr"), f.arg("lo"), f.arg("hi"), f.arg("scratch"))
    f.finish()
