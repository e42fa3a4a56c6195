"""The derivative of a body, as a graph: `pull` follows its operations' own rules once, abstractly.

For a body z = f(x) with a loss L, the pullback is the graph (what it reads of f, dL/dz) -> dL/dx.
What it reads are values of the body: inputs, and results of operations on the way, which the loop
saves at each step as further outputs (or, to save memory, computes again).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.autograd import engine
from chainrule.autograd.modes import _GradMode
from chainrule.compiler.body import BodyTracer, extract, needed, replay
from chainrule.compiler.ir import Graph, Op, Value
from chainrule.dtypes import is_float
from chainrule.graph import make
from chainrule.primitives import elementwise, movement

# Their results are cheaper to make again than to keep.
_REMADE = (movement.reshape, movement.permute, movement.broadcast_to, movement.flip)
_CHEAP = (elementwise.neg, elementwise.add, elementwise.sub, elementwise.mul)
"""Likewise, if what they are made of is kept."""


@dataclass
class Pullback:
    """The derivative of a body.

    Attributes:
        graph: its inputs stand for `reads` and then for the cotangents that were announced; its
            outputs are the gradients that exist.
        reads: the values of the body that it reads.
        gradients: for each input of the body the position of its gradient among the outputs; None
            where none was wanted, or nothing depends on it.
    """

    graph: Graph
    reads: list[Value]
    gradients: list[int | None]


def pull(
    body: Graph, wanted: Sequence[bool], received: Sequence[bool], recompute: bool = False
) -> Pullback:
    """The derivative of a body by its `wanted` inputs, given cotangents of `received` outputs.

    Arguments:
        recompute: read nothing but inputs of the body, and compute the rest again.
    """
    with _GradMode(True), BodyTracer(differentiable=True) as tracer:
        known = {
            value: tracer.input(value.spec, connected=want)
            for value, want in zip(body.inputs, wanted, strict=True)
        }
        inputs = [known[value] for value in body.inputs]
        for value, array in body.constants.items():
            tracer.made(array)
            known[value] = make(array)
        replay(body.ops, known)
        forward = len(tracer.graph.ops)
        # What the tracer calls the body's values, and back.
        old = {tracer.seen(x): value for value, x in known.items() if tracer.seen(x) is not None}
        cotangents = [
            tracer.input(z.spec, connected=True)
            for z, r in zip(body.outputs, received, strict=True) if r
        ]  # fmt: skip
        outs = [known[z] for z, r in zip(body.outputs, received, strict=True) if r]
        pairs = [(z, g) for z, g in zip(outs, cotangents, strict=True) if z._node is not None]
        found = engine.gradients_of(
            [z for z, _ in pairs], [x for x in inputs if x._node is not None],
            [g for _, g in pairs], retain_graph=True, create_graph=True, allow_unused=True,
        )  # fmt: skip
        results = iter(found)
        gradients = [next(results) if x._node is not None else None for x in inputs]
        values = [None if g is None else tracer.value(g) for g in gradients]
        constants = dict(tracer.graph.constants)
        constants.update((value, x._array) for value, x in tracer.from_outside().items())
        starts = [tracer.value(g) for g in cotangents]
    outputs = [v for v in values if v is not None]
    ops = tracer.graph.ops
    own = [tracer.seen(x) for x in inputs]
    reads = _reads(ops, forward, outputs, own, constants, recompute)
    graph, _ = extract(ops, [*reads, *starts], outputs, constants)
    position = iter(range(len(outputs)))
    places = [None if v is None else next(position) for v in values]
    return Pullback(graph, [old[value] for value in reads], places)


def _reads(
    ops: list[Op], forward: int, outputs: list[Value], inputs: list[Any], constants: Any,
    recompute: bool,
) -> list[Value]:  # fmt: skip
    """The values of the forward part that the backward part reads."""
    made = {z: op for op in ops[:forward] for z in op.outputs}
    if recompute:
        used = {x for op in needed(ops, outputs) for x in op.inputs} | set(outputs)
        return [x for x in inputs if x in used]
    after = needed(ops[forward:], outputs)
    queue = [*outputs, *[x for op in after for x in op.inputs]]
    reads: dict[Value, None] = {}
    while queue:
        value = queue.pop()
        op = made.get(value)
        if op is not None and op.primitive in _REMADE:
            queue.extend(op.inputs)
        elif op is not None or value in inputs:
            reads[value] = None
    order = {value: i for i, value in enumerate([*inputs, *made])}
    found = sorted(reads, key=order.__getitem__)
    for value in reversed(found):  # 1 - z is made again from z
        op = made.get(value)
        if op is None or op.primitive not in _CHEAP:
            continue
        if all(x in constants or (x in reads and x is not value) for x in op.inputs):
            del reads[value]
    return [value for value in found if value in reads]


def reached(body: Graph, start: set[Value]) -> set[Value]:
    """The values that depend on any of `start` in a way that a derivative can follow."""
    seen = set(start)
    for op in body.ops:
        if op.primitive.derivatives is not None and any(x in seen for x in op.inputs):
            seen.update(z for z in op.outputs if is_float(z.dtype))
    return seen


def reaching(body: Graph, end: set[Value]) -> set[Value]:
    """The values on which any of `end` depends in a way that a derivative can follow."""
    seen = set(end)
    for op in reversed(body.ops):
        if op.primitive.derivatives is not None and any(z in seen for z in op.outputs):
            seen.update(x for x in op.inputs if is_float(x.dtype))
    return seen
