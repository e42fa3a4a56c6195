"""Rewriting by rules: one walk over a graph that writes it anew.

A rule belongs to a primitive's name. It is asked for each application of it, and answers with a
value that is equal, or with None:

    @rule("neg")
    def double_negation(g, op):
        (x,) = op.inputs
        return x.op.inputs[0] if made_by(x, "neg") else None

What a rule makes by `g.make(...)` goes through the rules itself. Each rule must lead to something
cheaper (fewer operations, or operations nearer to memory), so that the walk ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.compiler.ir import Graph, Op, Value
from chainrule.graph import Array, Primitive, Spec

Rule = Callable[["Rewriter", Op], "Value | None"]
RULES: dict[str, list[Rule]] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for some primitives. Rules of one primitive are asked in file order."""

    def register(one: Rule) -> Rule:
        for name in names:
            RULES.setdefault(name, []).append(one)
        return one

    return register


def made_by(value: Value, *names: str) -> bool:
    """Whether a value is the output of one of some primitives."""
    return value.op is not None and value.op.name in names


def op_of(value: Value) -> Op:
    """The operation that makes a value which is known to be made by one."""
    assert value.op is not None, f"{value} is an input or a constant."
    return value.op


def in_room(room: Any) -> list[Primitive]:
    """The primitives of one file."""
    return [one for one in vars(room).values() if isinstance(one, Primitive)]


def splat(number: Any, spec: Any) -> Array:
    """An array that one number fills, stored once (steps of 0)."""
    with np.errstate(over="ignore"):
        stored = np.asarray(number, dtype=spec.dtype).tobytes()
    return np.ndarray(spec.shape, spec.dtype, stored, 0, (0,) * len(spec.shape))


def is_splat(array: Array) -> bool:
    """Whether one number fills the array by its strides, or it has only one."""
    return array.size == 1 or (array.size > 0 and not any(array.strides))


class Rewriter:
    """The graph that is being written.

    Attributes:
        constants: those known so far.
        ops: the operations written so far.
        checks: for each value the checks of it.
        hits: values that are true at exactly one place along an axis -> that axis.
        shares: for e^x of a softmax the quotient, and the sum that it was divided by.
        here: the operation of the old graph that is being rewritten.
        keeps_indices: whether `ravel_index` stands as it is, for rules that know it.
    """

    def __init__(self, graph: Graph, rules: dict[str, list[Rule]]):
        self.rules = rules
        self.constants = dict(graph.constants)
        self.ops: list[Op] = []
        self.checks: dict[Value, list[Op]] = {}
        self.hits: dict[Value, int] = {}
        self.shares: dict[Value, tuple[Value, Value]] = {}
        self.here: Op | None = None
        self.keeps_indices = True

    def make(self, primitive: Primitive, *inputs: Value, **params: Any) -> Any:
        """Apply a primitive; the value that stands for it after the rules."""
        line, where = (None, "") if self.here is None else (self.here.line, self.here.where)
        return self.write(Op(primitive, inputs, params, None, line, where))

    def write(self, op: Op) -> Any:
        if len(op.outputs) == 1:
            for one in self.rules.get(op.name, ()):
                better = one(self, op)
                if better is not None:
                    return better
        if op.name == "check":
            self.checks.setdefault(op.inputs[0], []).append(op)
        self.ops.append(op)
        return op.outputs[0] if len(op.outputs) == 1 else op.outputs

    def number(self, value: Value) -> Any:
        """The number that fills a constant, as a NumPy scalar; None for anything else."""
        array = self.constants.get(value)
        if array is None or not is_splat(array):
            return None
        return array[(0,) * array.ndim]

    def full(self, number: Any, like: Value | Spec) -> Value:
        """A constant of the shape and dtype of a value, filled with a number."""
        return self.constant(splat(number, like))

    def constant(self, array: Array) -> Value:
        value = Value(Spec(array.shape, array.dtype))
        self.constants[value] = array
        return value


def rewrite(graph: Graph, rules: dict[str, list[Rule]], keeps_indices: bool = True) -> Graph:
    """The graph after one walk with some rules."""
    writer = Rewriter(graph, rules)
    writer.keeps_indices = keeps_indices
    table: dict[Value, Value] = {}
    for old in graph.ops:
        op = old
        inputs = tuple([table.get(x, x) for x in old.inputs])
        writer.here = old
        if inputs != old.inputs:
            specs = [z.spec for z in old.outputs]
            op = Op(old.primitive, inputs, old.params, specs, old.line, old.where)
        result = writer.write(op)
        results = result if isinstance(result, tuple) else (result,)
        for before, after in zip(old.outputs, results, strict=True):
            if after is not before:
                table[before] = after
                if before.name and after.op is not None:
                    after.name = after.name or before.name
    outputs = [table.get(z, z) for z in graph.outputs]
    used = {x for op in writer.ops for x in op.inputs} | set(outputs)
    constants = {value: array for value, array in writer.constants.items() if value in used}
    inputs_ = list(graph.inputs)
    return Graph(inputs_, constants, writer.ops, outputs, dict(graph.updates), graph.name)


def simplify(graph: Graph) -> Graph:
    """Apply the rules of algebra, movement, structure and indexing."""
    return rewrite(graph, _all_rules())


def indices(graph: Graph) -> Graph:
    """The same, and indices that no rule has used are computed by arithmetic, with checks."""
    return rewrite(graph, _all_rules(), keeps_indices=False)


def _all_rules() -> dict[str, list[Rule]]:
    # The files of rules register themselves when they are first read.
    from chainrule.compiler.passes import algebra, indexing, movements, structure  # noqa: F401

    return RULES
