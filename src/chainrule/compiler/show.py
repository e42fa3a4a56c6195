"""Graphs as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from chainrule.compiler.ir import Graph, Op, Value


def format_param(value: Any) -> str:
    if isinstance(value, np.dtype):
        return value.name
    if hasattr(value, "ops") and hasattr(value, "inputs"):
        return f"{{{len(value.ops)} operations}}"
    return repr(value)


def format_op(op: Op) -> str:
    """`%3: float32[32, 10] = matmul(%0, %2)`."""
    arguments = [f"%{x.number}" for x in op.inputs]
    arguments += [f"{name}={format_param(value)}" for name, value in op.params.items()]
    made = ", ".join(map(repr, op.outputs))
    return f"{made} = {op.name}({', '.join(arguments)})"


def _named(value: Value) -> str:
    return f"{value!r} {value.name!r}" if value.name else repr(value)


def format_graph(graph: Graph) -> str:
    """The whole graph, a line for each operation; constants of one number are shown."""
    lines = [f"{graph.name} ("]
    lines += [f"  {_named(value)}," for value in graph.inputs]
    lines.append(") {")
    for value, array in graph.constants.items():
        shown = array.flat[0] if array.size and not any(array.strides) else "..."
        lines.append(f"  {value!r} = constant({shown})")
    for op in graph.ops:
        comment = (
            "  # " + "  ".join(filter(None, (op.where, op.line))) if op.where or op.line else ""
        )
        lines.append(f"  {format_op(op)}{comment}")
    results = [
        f"%{value.number}"
        + (f" -> %{graph.inputs[graph.updates[i]].number}" if i in graph.updates else "")
        for i, value in enumerate(graph.outputs)
    ]
    lines.append(f"}} -> ({', '.join(results)})")
    return "\n".join(lines)
