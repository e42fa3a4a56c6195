"""From operations to kernels."""

from __future__ import annotations

from chainrule.compiler.ir import Graph, Op
from chainrule.compiler.native.host import HostKernel
from chainrule.compiler.native.kernel import Kernel
from chainrule.compiler.native.target import Target


def kernel_of(op: Op, target: Target | None) -> Kernel:
    """A kernel for one operation alone; NumPy's if no family has one, or without a target."""
    return HostKernel(op)


def kernels(graph: Graph, target: Target | None) -> list[Kernel]:
    """The kernels of a graph."""
    return [kernel_of(op, target) for op in graph.ops]
