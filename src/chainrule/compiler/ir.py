"""The graph of one compiled function: values, operations, and what makes a graph legal.

A `Graph` is a pure function written down once, in the order in which it may be computed:

    graph (%0: float32[32, 784], %1: float32[10, 784]) {
      %2: float32[784, 10] = permute(%1, axes=(1, 0))
      %3: float32[32, 10]  = matmul(%0, %2)
    } -> (%3)

Its operations are the primitives of floor 0 with their parameters, so that whatever runs eagerly
can be written down, and the same shape rules, formulas and evaluations serve both ways of running.
State that a step changes is an input that an output replaces: `updates[i] = j` says that output `i`
is the next value of input `j`, and may be written over it once nothing reads the old one any more.

`verify` is the written specification of a legal graph; every pass is checked against it in tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.errors import ChainruleError
from chainrule.graph import Array, Primitive, Shape, Spec

_numbers = itertools.count()


class GraphError(ChainruleError, ValueError):
    """A graph that breaks the specification: a defect of a pass, never of the user."""


class Value:
    """One value of a graph: an input, a constant, or an output of an operation; made once."""

    __slots__ = ("dtype", "name", "number", "op", "shape")

    def __init__(self, spec: Spec, op: Op | None = None, name: str = ""):
        self.shape: Shape = tuple(spec.shape)
        self.dtype = spec.dtype
        self.op = op  # the operation that makes it; None for inputs and constants
        self.name = name  # what the user calls it, for printing ("0.weight", "images")
        self.number = next(_numbers)

    @property
    def spec(self) -> Spec:
        return Spec(self.shape, self.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.spec.size

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"%{self.number}: {self.dtype.name}[{', '.join(map(str, self.shape))}]"


class Op:
    """One application of a primitive to values."""

    __slots__ = ("inputs", "line", "outputs", "params", "primitive", "where")

    def __init__(
        self,
        primitive: Primitive,
        inputs: Sequence[Value],
        params: dict[str, Any],
        specs: Sequence[Spec] | None = None,
        line: str | None = None,
        where: str = "",
    ):
        self.primitive = primitive
        self.inputs = tuple(inputs)
        self.params = params
        self.line = line  # the user's line, "train.py:12"
        self.where = where  # the layer path, "features.3 (Conv2d)"
        if specs is None:
            inferred = primitive.infer(*self.inputs, **params)
            specs = (inferred,) if isinstance(inferred, Spec) else tuple(inferred)
        # Most have one, and thousands are made while a network is traced.
        one = len(specs) == 1
        self.outputs = (Value(specs[0], self),) if one else tuple([Value(x, self) for x in specs])

    @property
    def name(self) -> str:
        return self.primitive.name

    @property
    def output(self) -> Value:
        """The only output."""
        (output,) = self.outputs
        return output

    def __repr__(self) -> str:
        from chainrule.compiler.show import format_op

        return format_op(self)


@dataclass(eq=False)
class Graph:
    """A function from input values to output values.

    Attributes:
        inputs: what the caller passes, in order.
        constants: values known when the graph was traced, with their arrays (strides of 0 where one
            number fills the array).
        ops: the operations, each after those that it reads from.
        outputs: what the caller gets, in order; inputs and constants may stand here too.
        updates: output position -> input position that it replaces (state, updated in place).
    """

    inputs: list[Value] = field(default_factory=list)
    constants: dict[Value, Array] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    updates: dict[int, int] = field(default_factory=dict)
    name: str = "graph"

    # --- making one -------------------------------------------------------------------------------

    def input(self, spec: Spec, name: str = "") -> Value:
        value = Value(spec, name=name)
        self.inputs.append(value)
        return value

    def constant(self, array: Array, name: str = "") -> Value:
        value = Value(Spec(array.shape, array.dtype), name=name)
        self.constants[value] = array
        return value

    def add(self, primitive: Primitive, *inputs: Value, **params: Any) -> Any:
        """Append an operation; returns its output (a tuple if it has several)."""
        op = Op(primitive, inputs, params)
        self.ops.append(op)
        return op.output if len(op.outputs) == 1 else op.outputs

    # --- asking it --------------------------------------------------------------------------------

    def users(self) -> dict[Value, list[Op]]:
        """For each value the operations that read it, in order (once per operation)."""
        users: dict[Value, list[Op]] = {}
        for op in self.ops:
            for value in dict.fromkeys(op.inputs):
                users.setdefault(value, []).append(op)
        return users

    def values(self) -> Iterator[Value]:
        """All values: inputs, constants, then what the operations make."""
        yield from self.inputs
        yield from self.constants
        for op in self.ops:
            yield from op.outputs

    def __str__(self) -> str:
        from chainrule.compiler.show import format_graph

        return format_graph(self)


def rebuild(
    graph: Graph,
    ops: Iterable[Op],
    replaced: dict[Value, Value] | None = None,
    constants: dict[Value, Array] | None = None,
) -> Graph:
    """The same function with other operations; `replaced` maps old values to those in their place.

    Inputs stay the same objects. Operations whose inputs were replaced are made anew.
    """
    table = dict(replaced or {})

    def now(value: Value) -> Value:
        while value in table:
            value = table[value]
        return value

    new_ops: list[Op] = []
    for op in ops:
        inputs = tuple(now(x) for x in op.inputs)
        if inputs != op.inputs:
            specs = [z.spec for z in op.outputs]
            fresh = Op(op.primitive, inputs, op.params, specs, op.line, op.where)
            for old, new in zip(op.outputs, fresh.outputs, strict=True):
                new.name = old.name
                table[old] = new
            op = fresh
        new_ops.append(op)
    outputs = [now(z) for z in graph.outputs]
    known = {**graph.constants, **(constants or {})}
    used = {x for op in new_ops for x in op.inputs} | set(outputs)
    known = {value: array for value, array in known.items() if value in used}
    return Graph(list(graph.inputs), known, new_ops, outputs, dict(graph.updates), graph.name)


def verify(graph: Graph) -> Graph:
    """Check a graph against the specification; returns it.

    1. Inputs and constants are made by no operation; every other value by exactly one, which stands
       in `ops`.
    2. Each operation reads only inputs, constants and outputs of earlier operations.
    3. Each operation's outputs have the shapes and dtypes that its primitive's rule gives.
    4. A constant's array has the value's shape and dtype.
    5. The graph's outputs are values of the graph.
    6. Each update replaces an input of the same shape and dtype, and no input is replaced twice.

    Raises:
        GraphError: naming the operation and the rule that it breaks.
    """
    known: set[Value] = set()
    for value in [*graph.inputs, *graph.constants]:
        if value.op is not None or value in known:
            raise GraphError(f"rule 1: {value} is an input or constant, and made or listed twice.")
        known.add(value)
    for value, array in graph.constants.items():
        if array.shape != value.shape or array.dtype != value.dtype:
            raise GraphError(f"rule 4: constant {value} holds {array.dtype.name}{array.shape}.")
    for op in graph.ops:
        _verify_op(op, known)
        known.update(op.outputs)
    for position, value in enumerate(graph.outputs):
        if value not in known:
            raise GraphError(f"rule 5: output {position}, {value}, is no value of the graph.")
    _verify_updates(graph)
    return graph


def _verify_op(op: Op, known: set[Value]) -> None:
    for value in op.inputs:
        if value not in known:
            raise GraphError(f"rule 2: {op} reads {value}, which is not made before it.")
    inferred = op.primitive.infer(*op.inputs, **op.params)
    specs = (inferred,) if isinstance(inferred, Spec) else tuple(inferred)
    if len(specs) != len(op.outputs):
        raise GraphError(f"rule 3: {op} has {len(op.outputs)} outputs, its rule {len(specs)}.")
    for value, spec in zip(op.outputs, specs, strict=True):
        if value.op is not op or value in known:
            raise GraphError(f"rule 1: {value} is made twice.")
        if value.shape != tuple(spec.shape) or value.dtype != spec.dtype:
            raise GraphError(f"rule 3: {op} makes {value}, its rule says {spec}.")


def _verify_updates(graph: Graph) -> None:
    if len(set(graph.updates.values())) != len(graph.updates):
        raise GraphError("rule 6: an input is replaced by two outputs.")
    for i, j in graph.updates.items():
        if not (0 <= i < len(graph.outputs) and 0 <= j < len(graph.inputs)):
            raise GraphError(f"rule 6: update {i} -> {j} is out of range.")
        if graph.outputs[i].spec != graph.inputs[j].spec:
            raise GraphError(
                f"rule 6: output {graph.outputs[i]} cannot replace input {graph.inputs[j]}."
            )


def evaluate(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """Run a graph in NumPy, operation by operation: the meaning of a graph, and its reference.

    Values are let go after their last use.
    """
    env: dict[Value, Any] = dict(zip(graph.inputs, arrays, strict=True))
    env.update(graph.constants)
    last: dict[Value, int] = {}
    for position, op in enumerate(graph.ops):
        for value in op.inputs:
            last[value] = position
    kept = {*graph.outputs, *graph.inputs, *graph.constants}
    run: Callable[..., Any] = np.errstate(all="ignore")(_evaluate_op)
    for position, op in enumerate(graph.ops):
        env.update(zip(op.outputs, run(op, env), strict=True))
        for value in (*op.inputs, *op.outputs):
            if value not in kept and last.get(value, -1) <= position:
                env.pop(value, None)
    return [np.asarray(env[value]) for value in graph.outputs]


def _evaluate_op(op: Op, env: dict[Value, Any]) -> tuple[Array, ...]:
    result = op.primitive.evaluate(*[env[x] for x in op.inputs], **op.params)
    results = result if isinstance(result, tuple) else (result,)
    return tuple(map(np.asarray, results))
