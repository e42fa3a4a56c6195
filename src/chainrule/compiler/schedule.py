"""From a graph to kernels, in an order in which they may run.

1. `own` sees to it that every output is memory of its own: what is an input, a constant, or an
   output already, is copied.
2. `fuse.kernels` cuts the graph into kernels.
3. `arrange` says which kernel must be done before which: those that make what it reads, those that
   read the state that it writes over, and all checks before anything is written over.

A state is written over its old value where it stands if that is safe, that is if no kernel that
reads the old value depends on the one that writes the new one; else it is copied there at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from chainrule.compiler.ir import Graph, Op, Value
from chainrule.compiler.native.kernel import Kernel
from chainrule.compiler.passes.cleaning import CHECK
from chainrule.primitives.movement import identity_copy

Maker = Callable[[Op], Sequence[Kernel]]


@dataclass
class Schedule:
    """Kernels, and what must be done before what.

    Attributes:
        graph: the graph whose operations they are.
        kernels: in a legal order.
        before: for each kernel the positions of those that must be done first.
        commits: the positions of those that write over state.
    """

    graph: Graph
    kernels: list[Kernel]
    before: list[set[int]]
    commits: set[int]

    def __str__(self) -> str:
        lines = [f"{self.graph.name}: {len(self.kernels)} kernels"]
        for number, (kernel, before) in enumerate(zip(self.kernels, self.before, strict=True)):
            after = f"  after {', '.join(map(str, sorted(before)))}" if before else ""
            lines.append(f"  {number}: {kernel}{after}")
        return "\n".join(lines)


def own(graph: Graph) -> Graph:
    """Let each output be made by an operation, once; a state that stays as it is may be its input.

    Returns a graph of its own, whose lists may be changed.
    """
    made = {z for op in graph.ops for z in op.outputs}
    ops, outputs, seen = list(graph.ops), [], set()
    for position, value in enumerate(graph.outputs):
        unchanged = position in graph.updates and graph.inputs[graph.updates[position]] is value
        if not unchanged and (value not in made or value in seen):
            op = Op(identity_copy, (value,), {})
            ops.append(op)
            value = op.output
        seen.add(value)
        outputs.append(value)
    constants, updates = dict(graph.constants), dict(graph.updates)
    return Graph(list(graph.inputs), constants, ops, outputs, updates, graph.name)


def sort(kernels: Iterable[Kernel]) -> list[Kernel]:
    """The kernels in an order in which each comes after those that it reads from."""
    kernels = list(kernels)
    maker = {value: kernel for kernel in kernels for value in kernel.writes}
    done: set[int] = set()
    result: list[Kernel] = []
    for first in kernels:
        stack = [first]
        while stack:
            kernel = stack[-1]
            waiting = [
                maker[value] for value in kernel.reads
                if value in maker and id(maker[value]) not in done and maker[value] is not kernel
            ]  # fmt: skip
            if waiting:
                if len(stack) > len(kernels):
                    raise ValueError("kernels that wait for each other")
                stack.extend(waiting)
                continue
            stack.pop()
            if id(kernel) not in done:
                done.add(id(kernel))
                result.append(kernel)
    return result


def arrange(graph: Graph, kernels: Sequence[Kernel], copy: Maker) -> Schedule:
    """Say what must be done before what, and copy the states that cannot be written in place.

    Arguments:
        graph: from `own`; outputs that are copied are changed in it.
        copy: makes the one kernel of a copy.
    """
    kernels = sort(kernels)
    maker = {value: i for i, kernel in enumerate(kernels) for value in kernel.writes}
    before = [
        {maker[v] for v in kernel.reads if v in maker} - {i} for i, kernel in enumerate(kernels)
    ]
    readers: dict[Value, list[int]] = {}
    for i, kernel in enumerate(kernels):
        for value in kernel.reads:
            readers.setdefault(value, []).append(i)
    # Whatever may refuse its values must have agreed before state is written over.
    checks = {i for i, kernel in enumerate(kernels) if may_fail(kernel)}
    after: list[set[int]] = [set() for _ in kernels]
    for i, first in enumerate(before):
        for j in first:
            after[j].add(i)
    commits: set[int] = set()
    for position, replaced in graph.updates.items():
        value, old = graph.outputs[position], graph.inputs[replaced]
        if value is old:
            continue
        writer = maker[value]
        first = (checks | set(readers.get(old, ()))) - {writer}
        here = old not in kernels[writer].reads or kernels[writer].may_overwrite(old, value)
        if not here or writer in checks or _reaches(writer, first, after):
            op = Op(identity_copy, (value,), {})
            graph.ops.append(op)
            graph.outputs[position] = op.output
            (kernel,) = copy(op)
            kernels.append(kernel)
            before.append({writer})
            after.append(set())
            after[writer].add(len(kernels) - 1)
            readers.setdefault(value, []).append(len(kernels) - 1)
            first = (checks | set(readers.get(old, ()))) - {len(kernels) - 1}
            writer = len(kernels) - 1
        before[writer] |= first
        for i in first:
            after[i].add(writer)
        commits.add(writer)
    return Schedule(graph, kernels, before, commits)


def may_fail(kernel: Kernel) -> bool:
    """Whether a kernel may end the program because of the values that it finds."""
    return kernel.family == "host" or any(op.name == CHECK for op in kernel.ops)


def _reaches(start: int, goals: set[int], after: Sequence[set[int]]) -> bool:
    """Whether one of the goals must come after `start`."""
    stack, seen = [start], {start}
    while stack:
        for i in after[stack.pop()]:
            if i in goals:
                return True
            if i not in seen:
                seen.add(i)
                stack.append(i)
    return False
