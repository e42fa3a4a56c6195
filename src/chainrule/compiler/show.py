"""Graphs as text and as pictures, and the plan of memory as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from chainrule.compiler.ir import Graph, Op, Value
    from chainrule.compiler.native.kernel import Kernel
    from chainrule.compiler.plan import Plan


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


def comment(op: Op) -> str:
    """The layer and the line that an operation comes from."""
    told = "  ".join(filter(None, (op.where, op.line)))
    return f"  # {told}" if told else ""


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
        lines.append(f"  {format_op(op)}{comment(op)}")
    results = [
        f"%{value.number}"
        + (f" -> %{graph.inputs[graph.updates[i]].number}" if i in graph.updates else "")
        for i, value in enumerate(graph.outputs)
    ]
    lines.append(f"}} -> ({', '.join(results)})")
    return "\n".join(lines)


# --- pictures -------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _label(op: Op) -> str:
    shown = [f"{name}={format_param(value)}" for name, value in op.params.items()]
    kind = ", ".join(f"{z.dtype.name}{list(z.shape)}" for z in op.outputs)
    return "\n".join([op.name, *shown, kind])


MOST = 400
"""Operations that one picture shows; of larger graphs it shows the kernels."""


def dot(graph: Graph, kernels: Sequence[Kernel] = ()) -> str:
    """The graph in Graphviz's language, for `dot -Tsvg`; operations of one kernel in one box.

    An operation that several kernels do, each for itself, stands in the first of them. Of a graph
    with more than 400 operations the kernels are shown, and what they hand to each other.
    """
    if kernels and len(graph.ops) > MOST:
        return _kernels_dot(graph, kernels)
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        '  node [shape=box, fontname="monospace", fontsize=10];',
        '  edge [fontname="monospace", fontsize=9];',
    ]
    names: dict[Value, str] = {}
    for value in graph.inputs:
        names[value] = f"v{value.number}"
        lines.append(f"  {names[value]} [label={_quoted(_named(value))}, shape=ellipse];")
    for value, array in graph.constants.items():
        names[value] = f"v{value.number}"
        known = array.size and not any(array.strides)
        text = str(array[(0,) * array.ndim]) if known else repr(value)
        lines.append(f"  {names[value]} [label={_quoted(text)}, shape=plain];")
    number = {op: i for i, op in enumerate(graph.ops)}
    for op, i in number.items():
        names.update(dict.fromkeys(op.outputs, f"op{i}"))
    drawn: set[Op] = set()
    for k, kernel in enumerate(kernels):
        inside = [op for op in kernel.ops if op in number and op not in drawn]
        drawn.update(inside)
        if inside:
            title = _quoted(f"{k}: {kernel.family}")
            lines.append(f"  subgraph cluster{k} {{ label={title}; style=rounded;")
            lines += [f"    op{number[op]} [label={_quoted(_label(op))}];" for op in inside]
            lines.append("  }")
    lines += [
        f"  op{i} [label={_quoted(_label(op))}];" for op, i in number.items() if op not in drawn
    ]
    for op, i in number.items():
        lines += [f"  {names[x]} -> op{i} [label={_quoted(f'%{x.number}')}];" for x in op.inputs]
    for position, value in enumerate(graph.outputs):
        replaced = graph.updates.get(position)
        told = (
            f"output {position}" if replaced is None else f"next {_named(graph.inputs[replaced])}"
        )
        lines.append(f"  out{position} [label={_quoted(told)}, shape=ellipse];")
        lines.append(f"  {names[value]} -> out{position};")
    return "\n".join([*lines, "}"]) + "\n"


def _kernels_dot(graph: Graph, kernels: Sequence[Kernel]) -> str:
    """A node for each kernel: its operations, and the states it gives their next values."""
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        "  graph [splines=line, nslimit=1, nslimit1=1, mclimit=0.2];  // or it takes minutes",
        '  node [shape=box, style=rounded, fontname="monospace", fontsize=10];',
    ]
    made: dict[Value, int] = {}
    for k, kernel in enumerate(kernels):
        made.update(dict.fromkeys(kernel.writes, k))
    updates = {graph.outputs[i]: graph.inputs[n] for i, n in graph.updates.items()}
    for k, kernel in enumerate(kernels):
        own = {value for op in kernel.ops for value in op.outputs}
        names = [op.name for op in kernel.ops]
        layers = dict.fromkeys(op.where for op in kernel.ops if op.where)
        states = [f"next {updates[v].name}" for v in own if v in updates and updates[v].name]
        label = [
            f"{k}: {kernel.family}", " ".join(names[:6]),
            f"and {len(names) - 6} more" if len(names) > 6 else "",
            *list(layers)[:2], *sorted(states)[:4],
        ]  # fmt: skip
        lines.append(f"  k{k} [label={_quoted(chr(10).join(filter(None, label)))}];")
        before = dict.fromkeys(made.get(x, k) for x in kernel.reads)
        lines += [f"  k{other} -> k{k};" for other in before if other != k]
    return "\n".join([*lines, "}"]) + "\n"


WIDTH, HEIGHT = 1200, 360


def memory_svg(plan: Plan) -> str:
    """The arena as a picture: steps from left to right, addresses from top to bottom."""
    from html import escape

    arena, count = plan.arena, max(len(plan.steps), 1)
    across, down = WIDTH / count, HEIGHT / max(arena.nbytes, 1)
    boxes = []
    for number, life in enumerate(arena.lives):
        top = arena.offsets[life.values[0]]
        told = ", then ".join(map(repr, life.values))
        told += f": {life.nbytes} bytes from {top}, steps {life.first} to {life.last}"
        boxes.append(
            f'<rect x="{life.first * across:.1f}" y="{top * down:.1f}" '
            f'width="{(life.last - life.first + 1) * across:.1f}" '
            f'height="{max(life.nbytes * down, 0.5):.1f}" '
            f'fill="hsl({number * 47 % 360},55%,72%)" stroke="#0004"><title>{escape(told)}</title>'
            "</rect>"
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" '
        f'aria-label="values in the arena over the steps of the program">{"".join(boxes)}</svg>'
        f"<p>{arena.nbytes} bytes in {len(arena.lives)} places; at the fullest {arena.needed} are "
        f"alive at once. Steps run from left to right, addresses from top to bottom.</p>"
    )
