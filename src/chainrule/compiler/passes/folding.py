"""Operations on constants are done once, while compiling."""

from __future__ import annotations

import numpy as np

from chainrule.compiler.ir import Graph, Op, Value
from chainrule.compiler.passes.cleaning import CHECK
from chainrule.compiler.passes.rewrite import Rewriter, in_room, is_splat, splat
from chainrule.errors import ChainruleError
from chainrule.graph import Array, Spec
from chainrule.primitives import elementwise

LARGEST = 1 << 16
"""Bytes of a result that is kept as a constant; computing a larger one is cheaper."""

_MOVED = frozenset({"reshape", "permute", "broadcast_to", "slice", "flip", "alias", "copy"})
ELEMENTWISE = frozenset(one.name for one in in_room(elementwise))


def fold(graph: Graph) -> Graph:
    """Do the operations whose inputs are all constants; results of one number are stored once."""
    writer = Rewriter(graph, {})
    writer.constants = {value: _stored(array, value) for value, array in graph.constants.items()}
    table: dict[Value, Value] = {}
    ops: list[Op] = []
    for old in graph.ops:
        inputs = tuple([table.get(x, x) for x in old.inputs])
        op = old
        if inputs != old.inputs:
            specs = [z.spec for z in old.outputs]
            op = Op(old.primitive, inputs, old.params, specs, old.line, old.where)
        arrays = _done(writer, op)
        if arrays is None:
            ops.append(op)
            table.update((a, b) for a, b in zip(old.outputs, op.outputs, strict=True) if a is not b)
        else:
            for before, array in zip(old.outputs, arrays, strict=True):
                table[before] = writer.constant(array)
    outputs = [table.get(z, z) for z in graph.outputs]
    used = {x for op in ops for x in op.inputs} | set(outputs)
    constants = {value: array for value, array in writer.constants.items() if value in used}
    return Graph(list(graph.inputs), constants, ops, outputs, dict(graph.updates), graph.name)


def _done(writer: Rewriter, op: Op) -> list[Array] | None:
    """The results of an operation on constants; None if it must wait until the program runs."""
    if op.name == CHECK:
        return None
    if not any(z.size for z in op.outputs):
        return [np.empty(z.shape, z.dtype) for z in op.outputs]
    if any(x not in writer.constants for x in op.inputs):
        return None
    numbers = [writer.number(x) for x in op.inputs]
    if op.inputs and len(op.outputs) == 1 and all(n is not None for n in numbers):
        if op.name in _MOVED and op.output.size:
            return [splat(numbers[0], op.output)]
        if op.name in ELEMENTWISE and op.output.size:
            small = [splat(n, Spec((1,), x.dtype)) for n, x in zip(numbers, op.inputs, strict=True)]
            result = _evaluated(op, small)
            return None if result is None else [splat(result[0][0], op.output)]
    size = sum(z.nbytes for z in op.outputs)
    if size > LARGEST or sum(x.size for x in op.inputs) > LARGEST:
        return None
    results = _evaluated(op, [writer.constants[x] for x in op.inputs])
    if results is None:
        return None
    return [_stored(z, value) for z, value in zip(results, op.outputs, strict=True)]


def _evaluated(op: Op, arrays: list[Array]) -> tuple[Array, ...] | None:
    try:
        with np.errstate(all="ignore"):
            result = op.primitive.evaluate(*arrays, **op.params)
    except ChainruleError:
        return None  # it is refused when the program runs, if it is reached at all
    return tuple(map(np.asarray, result if isinstance(result, tuple) else (result,)))


def _stored(array: Array, value: Value) -> Array:
    """The array to keep: one number if one number fills it, else row-major."""
    if array.size and not is_splat(array) and array.nbytes <= LARGEST:
        first = array[(0,) * array.ndim].tobytes()
        if array.tobytes() == first * array.size:
            array = array[(slice(1),) * array.ndim]
    return (
        splat(array[(0,) * array.ndim], value) if is_splat(array) else np.ascontiguousarray(array)
    )
