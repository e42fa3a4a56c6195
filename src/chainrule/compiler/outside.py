"""The books on tensors that were there before a trace: what they hold, and where to find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chainrule.compiler.slots import array_slot, node_slot
from chainrule.compiler.traced import ABSENT, Traced
from chainrule.graph import Array, Leaf, Node


class Edge(Leaf):
    """Where a gradient leaves a compiled function: the tensor was computed, outside of it."""

    __slots__ = ()


class Outside:
    """The tracer's books on a tensor that was there before the trace.

    Attributes:
        tensor: it.
        place: how a call finds it: None (it is this very tensor), ("argument", n), (dict, key) of
            an optimiser's state, ("grad", its owner's books), or ("random", generator).
        input: its value on entry, an input of the graph; None if it was not read.
        array: what it holds now.
        leaf: where its gradient ends, in the trace, as long as nothing is assigned to it.
        node, index: where its gradient goes now.
        grad: its gradient now; `ABSENT` if nobody asked or assigned.
        had_grad: whether it had one on entry; None if nobody asked before assigning.
        cut: whether it had a graph of its own, which ends at the compiled function's edge.
    """

    __slots__ = (
        "array", "cut", "entry", "grad", "had_grad", "index", "input", "leaf", "needs_gradient",
        "node", "place", "position", "tensor",
    )  # fmt: skip

    def __init__(self, tensor: Any, place: Any):
        self.tensor = tensor
        self.place = place
        self.entry: Array = array_slot.__get__(tensor)
        self.input: Traced | None = None
        self.position = -1
        self.array: Any = ABSENT
        node = node_slot.__get__(tensor)
        self.cut = isinstance(node, Node)
        self.leaf: Any = None if node is None else (Edge if self.cut else Leaf)(tensor)
        self.node: Any = self.leaf
        self.index = 0
        if isinstance(node, Leaf):
            self.node.hooks = node.hooks
        self.grad: Any = ABSENT
        self.had_grad: bool | None = None
        self.needs_gradient = self.node is not None

    @property
    def changed(self) -> bool:
        return self.array is not ABSENT and self.array is not self.input


Find = Callable[[Sequence[Any]], Any]
"""Finds a tensor, given the tensors among the call's arguments."""


def finder(books: Outside) -> Find:
    """How a call finds a tensor from outside. (The books themselves are let go after the trace.)"""
    place, tensor = books.place, books.tensor
    if place is None:
        return lambda leaves: tensor
    kind, what = place
    if kind == "argument":
        return lambda leaves: leaves[what]
    if kind == "random":
        return lambda leaves: what._state
    if kind == "grad":
        owner = finder(what)
        return lambda leaves: owner(leaves).grad
    return lambda leaves: dict.__getitem__(kind, what)
