"""Gradients through a compiled call: `loss = compiled(x)`, and `loss.backward()` outside of it.

What such a call returns comes from one node of the eager graph. The derivative is traced with the
function, in the same graph; then the graph is cut in two: what the call computes, and what
`backward` computes from the values that the call has saved for it. The second program is built when
it is first needed. For derivatives of higher order the operations of both are applied anew, one by
one, so that they are recorded like any others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.autograd import engine
from chainrule.compiler import ir
from chainrule.compiler.body import extract, needed
from chainrule.compiler.trace import Outside, Tracer, finder
from chainrule.compiler.traced import Traced
from chainrule.dtypes import is_float
from chainrule.graph import Array, Leaf, Node, apply, make, state


def is_spent(tensor: Any) -> bool:
    """Whether the graph behind a tensor was used up inside the function."""
    return any(isinstance(n, Node) and n.freed for n in engine.reachable([tensor._node]))


class WayBack:
    """The derivative of what a function returned, by all tensors from outside that need gradients.

    Attributes:
        sources: for each of those tensors its value in the forward graph, and how to find it.
        saved: the values of the forward graph that the derivative reads.
        graph: the derivative: inputs are the saved values, then dL/d(returned tensors).
    """

    def __init__(self, tracer: Tracer, returned: Sequence[Any]):
        self.forward = tracer.graph
        candidates = [
            b for b in tracer.outside.values() if b.needs_gradient and b.input is not None
        ]
        mark = len(tracer.graph.ops)
        self.upstream = [ir.Value(ir.Spec(t.shape, t.dtype)) for t in returned]
        seeds = [make(Traced(tracer, value)) for value in self.upstream]  # type: ignore[arg-type]
        for seed in seeds:  # a derivative of the derivative goes on to them
            seed._node = Leaf(seed)
        found = _gradients(returned, candidates, seeds)
        pairs = [(b, g) for b, g in zip(candidates, found, strict=True) if g is not None]
        self.sources = [(b.input.value, finder(b)) for b, _ in pairs if b.input is not None]
        self.results = [tracer.value(g._array) for _, g in pairs]
        ops = tracer.graph.ops
        self.forward.ops, self._ops = ops[:mark], needed(ops[mark:], self.results)
        self.outputs = [tracer.value(t._array) for t in returned]
        made = {z for op in self._ops for z in op.outputs}
        read = dict.fromkeys(x for op in self._ops for x in op.inputs)
        read.update(dict.fromkeys(self.results))
        self.saved = [
            x for x in read
            if x not in made and x not in self.upstream and x not in tracer.graph.constants
        ]  # fmt: skip
        inputs = [*self.saved, *self.upstream]
        self.graph, _ = extract(self._ops, inputs, self.results, tracer.graph.constants)
        self.graph.name = f"derivative of {tracer.graph.name}"
        self._constants = dict(tracer.graph.constants)
        self._edges = tracer.edges
        self._launch: Any = None

    def launch(self, backend: Callable[[ir.Graph], Any]) -> Any:
        """What runs the derivative."""
        if self._launch is None:
            self._launch = backend(self.graph)
        return self._launch

    def interpret(self, inputs: dict[ir.Value, Any], gradients: Sequence[Any]) -> list[Any]:
        """The derivative in tensor operations; `inputs` are those of the forward graph."""
        known = dict(inputs)
        known.update({value: make(array) for value, array in self._constants.items()})
        known.update(zip(self.upstream, gradients, strict=True))
        ops = needed([*self.forward.ops, *self._ops], self.results)
        for op in ops:  # what was detached, or computed under no_grad, is so again
            edges = self._edges.get(op) or (False,) * len(op.inputs)
            pairs = zip([known[x] for x in op.inputs], edges, strict=True)
            made: Any = apply(
                op.primitive, *[x if on else make(x._array) for x, on in pairs], **op.params
            )
            known.update(zip(op.outputs, made if isinstance(made, tuple) else (made,), strict=True))
        return [known[value] for value in self.results]

    def read_again(self) -> list[ir.Value]:
        """The inputs of the forward graph that `interpret` reads."""
        ops = needed([*self.forward.ops, *self._ops], self.results)
        read = {x for op in ops for x in op.inputs}
        return [x for x in self.forward.inputs if x in read]


def _gradients(returned: Sequence[Any], books: Sequence[Outside], seeds: Sequence[Any]) -> Any:
    """dL/dx for each tensor from outside; its own hooks run when the gradient reaches it there."""
    hooks = [b.leaf.hooks for b in books]
    for b in books:
        b.leaf.hooks = {}
    entries: list[Any] = [make(b.input, b.leaf) for b in books]  # type: ignore[arg-type]
    try:
        return engine.gradients_of(returned, entries, seeds, create_graph=True, allow_unused=True)
    finally:
        for b, kept in zip(books, hooks, strict=True):
            b.leaf.hooks = kept


class Call:
    """In the place of a primitive in the eager graph's node: one call, with what it saved."""

    variadic = True
    reads = frozenset[str]()
    reads_output = False
    formula = "a compiled function"

    def __init__(self, name: str, back: WayBack, backend: Any, saved: Any, inputs: Any):
        self.name = name
        self._back, self._backend = back, backend
        self._saved: Sequence[Array] | None = saved
        self._inputs: dict[ir.Value, Any] | None = inputs

    def reads_inputs(self, n: int) -> tuple[bool, ...]:
        return (False,) * n

    def release(self) -> None:
        self._saved = self._inputs = None

    def derivatives(self, needs: tuple[bool, ...], g: Any, z: Any, *inputs: Any) -> Any:
        assert self._saved is not None
        assert self._inputs is not None
        gradients = g if isinstance(g, tuple) else (g,)
        if state.grad_enabled or state.tracer is not None:
            return self._back.interpret(self._inputs, gradients)
        launch = self._back.launch(self._backend)
        return [make(a) for a in launch.on([*self._saved, *[x._array for x in gradients]])]


def spent_node() -> Node:
    """A node like those whose graph was used up: `backward` through it raises."""
    leaf = make(np.zeros(()))
    leaf._node = Leaf(leaf)
    node = Node(_Spent(), {}, (leaf,), ())
    node.free()
    return node


class _Spent:
    """In the place of the primitive of a node inside a compiled function that went back already."""

    name = "a compiled function"
    formula = name
    reads_output = True
    derivatives = None

    def reads_inputs(self, n: int) -> tuple[bool, ...]:
        return (False,) * n

    def release(self) -> None:
        """Nothing was kept."""


def carries_gradient(tensor: Any) -> bool:
    """Whether a tensor that a function returned is connected to something outside."""
    return tensor._node is not None and is_float(tensor.dtype)
