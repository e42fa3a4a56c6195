"""From operations to kernels."""

from __future__ import annotations

from chainrule.compiler.ir import Graph, Op
from chainrule.compiler.native import checks, conv, matmul, pool
from chainrule.compiler.native.host import HostKernel
from chainrule.compiler.native.kernel import Kernel
from chainrule.compiler.native.target import Target


def kernels_of(op: Op, target: Target | None) -> list[Kernel]:
    """The kernels of one operation alone; NumPy's if no family has one, or without a target."""
    if target is None:
        return [HostKernel(op)]
    if matmul.supports([op]):
        return matmul.lower([op], target=target)
    if conv.supports(op):
        return conv.kernels(op)
    if pool.supports(op):
        return pool.kernels(op)
    if checks.supports(op):
        return [checks.CheckKernel(op)]
    return [HostKernel(op)]


def kernels(graph: Graph, target: Target | None) -> list[Kernel]:
    """The kernels of a graph."""
    return [kernel for op in graph.ops for kernel in kernels_of(op, target)]
