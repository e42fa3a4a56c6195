"""Passes that take operations out or move them: dead code, common subexpressions, order."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.autograd.function import CALLED
from chainrule.compiler.ir import Graph, Op, Value, rebuild

CHECK = "check"
"""The primitive that refuses bad values at run time; it stands even if nothing reads it."""


def calls(graph: Graph) -> Graph:
    """Take out what stands for the way back of a user's function: it gives what it is given."""
    called = [op for op in graph.ops if op.name == CALLED]
    if not called:
        return graph
    replaced: dict[Value, Value] = {}
    for op in called:
        replaced.update(zip(op.outputs, op.inputs[op.params["results"]], strict=True))
    return rebuild(graph, [op for op in graph.ops if op.name != CALLED], replaced)


def dead(graph: Graph) -> Graph:
    """Leave out the operations that no output and no check depends on."""
    needed = set(graph.outputs)
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if op.name == CHECK or any(z in needed for z in op.outputs):
            kept.append(op)
            needed.update(op.inputs)
    return rebuild(graph, reversed(kept))


def frozen(value: Any) -> Any:
    """A parameter as a key: equal keys mean the same operation."""
    if isinstance(value, tuple | list):
        return tuple(map(frozen, value))
    if isinstance(value, float | complex):
        return repr(value)  # 0.0 and -0.0 are equal and not the same; NaN is itself
    if isinstance(value, np.generic):
        return value.dtype.str, value.tobytes()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


def _constant_key(array: np.ndarray[Any, Any]) -> Any:
    if array.size and not any(array.strides):
        return array.dtype.str, array.shape, array[(0,) * array.ndim].tobytes()
    if array.nbytes <= 1 << 16:
        return array.dtype.str, array.shape, array.strides, array.tobytes()
    return id(array)


def common(graph: Graph) -> Graph:
    """Keep one of all operations with the same inputs and parameters, and of equal constants."""
    replaced: dict[Value, Value] = {}
    constants: dict[Any, Value] = {}
    for value, array in graph.constants.items():
        first = constants.setdefault(_constant_key(array), value)
        if first is not value:
            replaced[value] = first
    known: dict[Any, Op] = {}
    kept: list[Op] = []
    for op in graph.ops:
        inputs = tuple([replaced.get(x, x) for x in op.inputs])
        parameters = tuple([(name, frozen(value)) for name, value in sorted(op.params.items())])
        first = known.setdefault((op.name, id(op.primitive), inputs, parameters), op)
        if first is op:
            kept.append(op)
        else:
            replaced.update(zip(op.outputs, first.outputs, strict=True))
    return rebuild(graph, kept, replaced)


def order(graph: Graph) -> Graph:
    """Bring checks, and what they need, to the front: nothing is computed from refused values."""
    checks = [op for op in graph.ops if op.name == CHECK]
    if not checks:
        return graph
    needed = {x for op in checks for x in op.inputs}
    first: list[Op] = []
    for op in reversed(graph.ops):
        if op.name == CHECK or any(z in needed for z in op.outputs):
            first.append(op)
            needed.update(op.inputs)
    front = set(map(id, first))
    ops = [*reversed(first), *(op for op in graph.ops if id(op) not in front)]
    return rebuild(graph, ops)
