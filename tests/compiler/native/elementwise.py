"""Running elementwise primitives as machine code over whole arrays, several to a module."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule.compiler.ir import Graph, Op
from chainrule.compiler.native import scalar
from chainrule.compiler.native.jit import Library, assemble
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.native.text import Function, Module
from chainrule.errors import ArgumentError
from chainrule.graph import Primitive, Spec


def targets() -> list[str]:
    """The instruction sets that this processor has."""
    found = []
    for name in ("plain", "avx2", "avx512", "neon"):
        try:
            host(name)
        except ArgumentError:
            continue
        found.append(name)
    return found


class Job(NamedTuple):
    """A primitive on inputs of some dtypes, a number of elements at a time."""

    primitive: Primitive
    dtypes: tuple[str, ...]
    lanes: int
    params: tuple[tuple[str, Any], ...] = ()

    def op(self) -> Op:
        graph = Graph()
        inputs = [graph.input(Spec((4,), np.dtype(d))) for d in self.dtypes]
        graph.add(self.primitive, *inputs, **dict(self.params))
        return graph.ops[0]


class Compiled:
    """Jobs as functions of one library."""

    def __init__(self, jobs: Sequence[Job], target: Target):
        module = Module(target)
        self.ops = {job: job.op() for job in jobs}
        self.names = {job: write(module, f"f{i}", job, self.ops[job]) for i, job in enumerate(jobs)}
        self.library = Library(assemble(module.text(), target), self.names.values(), target)

    def __call__(self, job: Job, *arrays: np.ndarray) -> np.ndarray:
        n, lanes = arrays[0].size, job.lanes
        padded = [np.concatenate([x.reshape(-1), np.ones(-n % lanes, x.dtype)]) for x in arrays]
        out = np.empty(padded[0].size, self.ops[job].output.dtype)
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(arrays) + 1), ctypes.c_int64)
        pointers = [x.ctypes.data for x in (*padded, out)]
        kind(self.library.addresses[self.names[job]])(*pointers, out.size)
        return out[:n].reshape(arrays[0].shape)


def write(module: Module, name: str, job: Job, op: Op) -> str:
    """A function that applies the operation to n elements, a multiple of the lanes."""
    inputs = [f"%x{i}" for i in range(len(op.inputs))]
    f = Function(
        module, name, ", ".join(f"ptr noalias {x}" for x in [*inputs, "%z"]) + ", i64 %n",
        internal=False,
    )  # fmt: skip

    def memory(dtype: np.dtype, lanes: int) -> str:
        return scalar.register_type(np.dtype("uint8") if dtype.kind == "b" else dtype, lanes)

    with f.loop(0, f.arg("n"), job.lanes) as loop:
        operands = []
        for x, value in zip(inputs, op.inputs, strict=True):
            address = f.at(f.arg(x[1:]), loop.index, memory(value.dtype, 1))
            loaded = f.load(address, memory(value.dtype, job.lanes))
            is_bool = value.dtype.kind == "b"
            operands.append(f.icmp("ne", loaded, f.zero(loaded.type)) if is_bool else loaded)
        result = scalar.lower(f, op, operands)
        dtype = op.output.dtype
        assert result.type == scalar.register_type(dtype, job.lanes)
        if dtype.kind == "b":
            result = f.convert("zext", result, "i8")
        f.store(result, f.at(f.arg("z"), loop.index, memory(dtype, 1)))
    return f.finish()
