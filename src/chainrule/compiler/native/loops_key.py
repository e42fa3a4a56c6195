"""What a nest's code depends on, as a key: nests with equal keys are the same code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.compiler.ir import Value
from chainrule.compiler.native.expressions import Node
from chainrule.compiler.native.index import Form, Quotient, Var
from chainrule.compiler.native.loops_plan import Nest, reachable


class Likeness:
    """The key of some nests, in which values, variables and nodes are numbered as they are met.

    Attributes:
        values: the values, by their numbers.
    """

    def __init__(self, nests: Sequence[Nest]):
        self.values: dict[Value, int] = {}
        self._vars: dict[Var, int] = {}
        self._nodes: dict[Node, int] = {}
        self.key = tuple([self._nest(nest) for nest in nests])

    def _nest(self, nest: Nest) -> Any:
        for var in (*nest.rows, *nest.inner):
            self._vars[var] = len(self._vars)
        block = None if nest.block is None else self._vars[nest.block]
        extents = tuple(v.extent for v in nest.rows), tuple(v.extent for v in nest.inner)
        facts = [self._new(node) for node in reachable([node for *_, node in nest.outputs])]
        outputs = [
            (self._value(z), self._index(index), self._nodes[node])
            for z, index, node in nest.outputs
        ]
        stages = [[self._nodes[n] for n in stage] for stage in nest.stages]
        return extents, block, tuple(facts), tuple(outputs), tuple(map(tuple, stages))

    def _value(self, value: Value) -> Any:
        return self.values.setdefault(value, len(self.values)), value.shape, value.dtype.str

    def _index(self, index: Sequence[Form]) -> Any:
        return tuple([self._form(f) for f in index])

    def _form(self, form: Form) -> Any:
        return form.const, tuple([(self._var(v), c) for v, c in form.terms])

    def _var(self, var: Var) -> Any:
        if isinstance(var, Quotient):
            return self._form(var.form), var.divisor
        return self._vars[var]

    def _new(self, node: Node) -> Any:
        self._nodes.setdefault(node, len(self._nodes))
        return self._fact(node)

    def _fact(self, node: Node) -> Any:
        data: Any = None
        match node.kind:
            case "literal":
                data = node.data[0]
            case "position":
                data = self._form(node.data)
            case "load":
                value, index, guard = node.data
                data = self._value(value), self._index(index), self._guard(guard)
            case "choice":
                data = self._guard(node.data)
            case "apply":
                data = node.data.primitive.name, repr(sorted(node.data.params.items()))
            case "reduce":
                name, over, place = node.data
                over = tuple([self._vars[v] for v in over])
                data = name, over, None if place is None else self._form(place)
        return node.kind, node.dtype.str, tuple([self._nodes[x] for x in node.inputs]), data

    def _guard(self, guard: Any) -> Any:
        return tuple([(self._form(f), low, high) for f, low, high in guard])
