"""Checks of values in loops: they are made behind the loop, on what all its steps looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.compiler import passes
from chainrule.compiler.ir import Graph, Op, Value
from chainrule.primitives.checks import check
from chainrule.primitives.control import scan


def with_checks_outside(graph: Graph) -> Graph:
    """The graph with the checks of values in its loops behind them, on what all steps looked at.

    A kernel holds its indices inside their axes whatever they are, so what is computed from values
    that are refused is only of no use; and no state is written before the checks.
    """
    if not any(op.primitive is scan for op in graph.ops):
        return graph
    ops: list[Op] = []
    now: dict[Value, Value] = {}
    for old in graph.ops:
        op = _renewed(old, old.params, now)
        if op.primitive is scan:
            body = with_checks_outside(passes.run(op.params["body"]))
            checks = [one for one in body.ops if one.primitive is check]
            if checks:
                params = {**op.params, "body": _without_checks(body, checks)}
                op = Op(scan, op.inputs, params, None, op.line, op.where)
            n = len(old.outputs)
            ops.append(op)
            for one, stack in zip(checks, op.outputs[n:], strict=True):
                ops.append(Op(check, (stack,), one.params, None, one.line, one.where))
        else:
            ops.append(op)
        now.update(zip(old.outputs, op.outputs, strict=False))
    outputs = [now.get(z, z) for z in graph.outputs]
    constants, updates = dict(graph.constants), dict(graph.updates)
    return Graph(list(graph.inputs), constants, ops, outputs, updates, graph.name)


def _renewed(op: Op, params: dict[str, Any], now: dict[Value, Value]) -> Op:
    """The operation on other inputs, if some of its own have been replaced."""
    inputs = tuple(now.get(x, x) for x in op.inputs)
    if inputs == op.inputs:
        return op
    specs = [z.spec for z in op.outputs]
    return Op(op.primitive, inputs, params, specs, op.line, op.where)


def _without_checks(body: Graph, checks: Sequence[Op]) -> Graph:
    """The body, which gives what they look at in place of looking at it."""
    passed = Value(checks[0].output.spec)
    now = {one.output: passed for one in checks}
    ops = []
    for old in body.ops:
        if old not in checks:
            ops.append(_renewed(old, old.params, now))
            now.update(zip(old.outputs, ops[-1].outputs, strict=True))
    outputs = [now.get(z, z) for z in (*body.outputs, *[one.inputs[0] for one in checks])]
    constants = {**body.constants, passed: np.broadcast_to(np.asarray(True), passed.shape)}
    return Graph(list(body.inputs), constants, ops, outputs, {}, body.name)
