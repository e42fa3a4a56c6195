"""Reverse mode: the chain rule, walked from the loss back to the leaves.

For a node z = f(x, y) and a loss L, given g = dL/dz, each input receives dL/dx = g dz/dx by the
primitive's rule, and what reaches a value along several paths is added up. Nodes are visited in
the opposite order of their making, which is a topological order: when a node's turn comes, all that
its outputs were used for has been visited. The walk is a loop over a sorted list, so that a graph
may be as deep as memory allows.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from chainrule.autograd.modes import _GradMode
from chainrule.errors import ChainruleError, GradError, GraphFreedError, ShapeError
from chainrule.graph import Leaf, Node, Value, at_one_line, constant, make, state

Target = tuple[Node | Leaf, int]


def backward(
    outputs: Sequence[Any],
    gradients: Sequence[Any],
    *,
    inputs: Sequence[Any] | None = None,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> None:
    """Add dL/dx to `x.grad` for every leaf x (or for `inputs` alone)."""
    state.backwards += 1
    targets = None
    if inputs is not None:
        _require_nodes(inputs)
        targets = {(x._node, x._slot): x for x in inputs}
    found = run(outputs, gradients, targets, retain_graph=retain_graph, create_graph=create_graph)
    for (node, slot), gradient in found.items():
        if targets is not None:
            accumulate(targets[node, slot], gradient)
        elif isinstance(node, Leaf) and (leaf := node.tensor()) is not None:
            accumulate(leaf, gradient)


def _require_nodes(inputs: Sequence[Any]) -> None:
    for x in inputs:
        if x._node is None:
            raise GradError(
                "a gradient was asked for a tensor that does not require one; make it with "
                "requires_grad=True before it is used."
            )


def accumulate(tensor: Any, gradient: Any) -> None:
    """`tensor.grad += gradient`, as a new tensor: who holds the old one keeps it unchanged."""
    tensor.grad = handed_out(gradient) if tensor.grad is None else tensor.grad + gradient


def handed_out(x: Any) -> Any:
    """x as a tensor of its own: who gets it may assign to it while the walk still needs x."""
    return make(x._array, x._node, x._slot)


def gradients_of(
    outputs: Sequence[Any],
    inputs: Sequence[Any],
    gradients: Sequence[Any],
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """dL/dx for each x in `inputs`; None for one that the outputs do not depend on, if allowed."""
    retain = create_graph if retain_graph is None else retain_graph
    _require_nodes(inputs)
    keys = [(x._node, x._slot) for x in inputs]
    found = run(
        outputs, gradients, dict.fromkeys(keys), retain_graph=retain, create_graph=create_graph
    )
    for position, key in enumerate(keys):
        if key not in found and not allow_unused:
            raise GradError(
                f"the outputs do not depend on inputs[{position}]; pass allow_unused=True to get "
                "None for it."
            )
    return tuple(handed_out(found[key]) if key in found else None for key in keys)


def run(
    outputs: Sequence[Any],
    gradients: Sequence[Any],
    targets: Any,
    *,
    retain_graph: bool,
    create_graph: bool,
) -> dict[Target, Any]:
    """The walk. Returns the gradients of `targets` (of all leaves if None) by (node, slot)."""
    pending: dict[Node | Leaf, dict[int, Any]] = {}
    found: dict[Target, Any] = {}
    with _GradMode(create_graph), at_one_line():
        for z, g in zip(outputs, gradients, strict=True):
            _add(pending, z._node, z._slot, g)
        order = reachable(pending)
        wanted = None if targets is None else _needed(order, targets)
        for node in order:
            received = pending.pop(node, None)
            if received is None:
                continue
            if node.hooks:
                _run_hooks(node, received)
            if isinstance(node, Leaf):
                if targets is None or (node, 0) in targets:
                    found[node, 0] = received[0]
                continue
            if node.retained:
                _fill_retained(node, received)
            if targets is not None:
                found.update(
                    ((node, slot), g) for slot, g in received.items() if (node, slot) in targets
                )
            _propagate(node, received, pending, wanted, retain_graph)
    return found


def _add(pending: dict[Any, dict[int, Any]], node: Any, slot: int, g: Any) -> None:
    slots = pending.get(node)
    if slots is None:
        pending[node] = {slot: g}
    else:
        slots[slot] = slots[slot] + g if slot in slots else g


def reachable(roots: Iterable[Node | Leaf]) -> list[Node | Leaf]:
    """The roots and all nodes behind them, the last made first."""
    seen: set[Node | Leaf] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            if isinstance(node, Node):
                stack.extend([edge[0] for edge in node.edges if edge is not None])
    return sorted(seen, key=_sequence, reverse=True)


_sequence = operator.attrgetter("sequence")


def _needed(order: list[Node | Leaf], targets: Iterable[Target]) -> set[Node | Leaf]:
    """The nodes from which a target can be reached, and the targets."""
    needed = {node for node, _ in targets}
    for node in reversed(order):
        if isinstance(node, Node) and any(e is not None and e[0] in needed for e in node.edges):
            needed.add(node)
    return needed


def _run_hooks(node: Node | Leaf, received: dict[int, Any]) -> None:
    for slot, hooks in node.hooks.items():
        for hook in list(hooks.values()):
            if slot in received and (replaced := hook(handed_out(received[slot]))) is not None:
                _check_replacement(replaced, received[slot])
                received[slot] = handed_out(replaced)


def _check_replacement(replaced: Any, gradient: Any) -> None:
    if not isinstance(replaced, Value) or replaced.shape != gradient.shape:
        what = replaced.shape if isinstance(replaced, Value) else type(replaced).__name__
        raise ShapeError(
            f"a hook returned {what} in place of a gradient of shape {gradient.shape}; return a "
            "tensor of the same shape, or None."
        )


def _fill_retained(node: Node, received: dict[int, Any]) -> None:
    for slot, reference in node.retained.items():
        if slot in received and (tensor := reference()) is not None:
            accumulate(tensor, received[slot])


def _propagate(
    node: Node,
    received: dict[int, Any],
    pending: dict[Node | Leaf, dict[int, Any]],
    wanted: set[Node | Leaf] | None,
    retain_graph: bool,
) -> None:
    """Apply the node's rules and add the results to what its inputs have received."""
    needs = tuple([e is not None and (wanted is None or e[0] in wanted) for e in node.edges])
    if True not in needs:
        return
    if node.freed:
        raise GraphFreedError(
            f"the graph behind this tensor was used already and its saved values "
            f"(first met: {node.primitive.name}) are freed; pass retain_graph=True to the "
            "earlier backward() or grad() if you need it twice."
        )
    gradients = _input_gradients(node, received, needs)
    for edge, needed, g in zip(node.edges, needs, gradients, strict=True):
        if needed and g is not None:
            _add(pending, *edge, g)  # type: ignore[misc]  # needed: there is an edge
    if not retain_graph:
        node.free()


def _input_gradients(
    node: Node, received: dict[int, Any], needs: tuple[bool, ...]
) -> Sequence[Any]:
    """dL/d(input) for each input that needs it, by the rules of the node's primitive."""
    if len(node.outputs) == 1:
        g = received[0]
    else:
        g = tuple(
            received[slot] if slot in received else constant(0, z.shape, z.dtype)
            for slot, z in enumerate(node.outputs)
        )
    z, inputs = node.output_values(), node.input_values()
    rules = node.primitive.derivatives
    try:
        if not isinstance(rules, tuple):
            return rules(needs, g, z, *inputs, **node.params)
        return [
            rule(g, z, *inputs, **node.params) if needed and rule is not None else None
            for rule, needed in zip(rules, needs, strict=True)
        ]
    except ChainruleError as error:
        applied = f", applied at {node.line}" if node.line else ""
        message = error.args[0] if error.args else ""
        error.args = (f"in the derivative of {node.primitive.name}{applied}: {message}",)
        raise


def seed(output: Any, gradient: Any) -> Any:
    """The gradient to start from: 1 for a scalar output, what was passed for any other."""
    if not isinstance(output, Value) or output._node is None:
        raise GradError(
            "this tensor does not require a gradient, so there is nothing to walk back through; "
            "was it computed under no_grad(), from integers, or from tensors without "
            "requires_grad=True?"
        )
    if gradient is None:
        if output.size != 1:
            raise GradError(
                f"backward() of a tensor of shape {output.shape} needs the gradient of the loss "
                "with respect to it; reduce it to a scalar first, for example with .sum(), or pass "
                f"gradient= of shape {output.shape}."
            )
        return constant(1, output.shape, output.dtype)
    if gradient.shape != output.shape:
        raise ShapeError(
            f"the gradient has shape {gradient.shape} but the output has shape {output.shape}; "
            "they must be equal."
        )
    if gradient.dtype != output.dtype:
        from chainrule.primitives.elementwise import cast

        return cast(gradient, dtype=output.dtype)
    return gradient
