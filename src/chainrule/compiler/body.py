"""Writing down the body of a loop or a branch: one function, traced once, as a graph.

The function is called with tensors that have a shape and a dtype and no numbers. What it does with
them is written into a graph; what it does with tensors from outside alone is done outside, once,
before the loop; and where the two meet, the tensor from outside becomes an input of the graph.

Derivatives are taken of the graph, later. Two things that Python knows and a graph would not are
written into it: where the function cuts the way back (`detach`, `no_grad`), as the primitive
`detach`, and where it draws random numbers, as a state that goes in and comes out.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from chainrule.compiler.ir import Graph, Op, Value
from chainrule.dtypes import is_float
from chainrule.errors import TraceError, users_line
from chainrule.graph import Array, Leaf, Primitive, Spec, apply, make, state
from chainrule.primitives.checks import check
from chainrule.primitives.control import scan
from chainrule.primitives.movement import alias, detach

RANDOM_STATE = Spec((2,), np.dtype(np.uint64))


def _no_numbers(*args: Any, **kwargs: Any) -> NoReturn:
    error = TraceError(
        "the value of a tensor was asked for where only its shape and dtype are known, inside the "
        "body of cr.scan, cr.cond or cr.while_loop, which is traced once for all steps. Use "
        "cr.where or cr.cond in place of Python's if, and return what you want to look at."
    )
    error.line = users_line()
    raise error


def _no_tensor_any_more() -> NoReturn:
    error = TraceError(
        "a tensor from the body of another cr.scan, cr.cond or cr.while_loop, or from an earlier "
        "trace of this one, is used; it has no numbers outside of it. Carry it over, return it, or "
        "in a cr.autograd.Function keep it with ctx.save_for_backward and not as an attribute."
    )
    error.line = users_line()
    raise error


class Placeholder(np.ndarray):
    """The array of a tensor that is traced: a shape and a dtype; asked for numbers it raises."""

    def __new__(cls, spec: Spec) -> Placeholder:
        steps = (0,) * len(spec.shape)
        return super().__new__(cls, spec.shape, spec.dtype, bytes(spec.dtype.itemsize), 0, steps)

    def __array_finalize__(self, other: Any) -> None:
        if other is not None:  # a view of a placeholder
            _no_numbers()

    def __repr__(self) -> str:
        return f"<{self.dtype.name}{list(self.shape)}, traced>"


for _name in (
    "__array_ufunc__", "__array_function__", "__bool__", "__complex__", "__contains__", "__float__",
    "__format__", "__getitem__", "__index__", "__int__", "__iter__", "__setitem__", "__str__",
    "item", "tobytes", "tolist",
):  # fmt: skip
    setattr(Placeholder, _name, _no_numbers)


class BodyTracer:
    """Writes the applications that depend on its inputs into `graph`; a context manager.

    Arguments:
        differentiable: whether a derivative of the graph may be taken.
        cells: tensors from outside that the function assigns to, which go in and come out, and
            whether a gradient may go through them.

    Attributes:
        assigned: the tensors that were assigned to and are not known to be made inside, what they
            were before, and whether gradients were recorded then.
    """

    def __init__(self, differentiable: bool, cells: Sequence[tuple[Any, bool]] = ()):
        self.graph = Graph(name="body")
        self.cells = [x for x, _ in cells]
        self._flows = [flows for _, flows in cells]
        self.assigned: dict[int, tuple[weakref.ref[Any], Any, bool]] = {}
        self._before: list[Any] = []
        self.differentiable = differentiable
        self.parent: Any = None
        self.captured: dict[tuple[int, int, int], tuple[Value, Any]] = {}
        self.generators: dict[Any, tuple[Value, Any]] = {}  # -> its state inside, and before
        self._values: dict[int, Value] = {}  # by the identity of the placeholder
        self._literals: dict[int, Array] = {}
        self._kept: list[Any] = []  # so that no identity is used twice
        self._connected: set[Value] = set()  # values through which derivatives go
        self._stopped: dict[Value, Value] = {}

    def __enter__(self) -> BodyTracer:
        self.parent, state.tracer = state.tracer, self
        self._observers = state.observers
        self._before = [(x._array, x._node, x._slot) for x in self.cells]
        return self

    def enter_cells(self) -> list[Value]:
        """Let the cells hold what stands for their values; those."""
        values = []
        for cell, flows in zip(self.cells, self._flows, strict=True):
            x = self.input(Spec(cell.shape, cell.dtype), connected=flows)
            values.append(self.value(x))
            inside = alias(x)
            cell._array, cell._node, cell._slot = inside._array, inside._node, inside._slot
        return values

    def __exit__(self, *exception: object) -> None:
        state.tracer, state.observers = self.parent, self._observers
        for generator, (_, before) in self.generators.items():
            generator.state = before
        touched = [(one(), before) for one, before, _ in self.assigned.values()]
        for x, before in [*touched, *zip(self.cells, self._before, strict=True)]:
            if x is not None:
                x._array, x._node, x._slot = before

    # --- called by graph.apply and graph.constant -------------------------------------------------

    def record(
        self, primitive: Primitive, inputs: Sequence[Any], params: dict[str, Any], specs: Any
    ) -> Any:
        """Write an application down and give its placeholders; None if all is from outside."""
        # Observers see what is computed, not what is written down.
        state.observers = self._observers
        if not any(id(x._array) in self._values for x in inputs):
            return self.parent and self.parent.record(primitive, inputs, params, specs)
        state.observers = ()
        values = [self.value(x) for x in inputs]
        several = not isinstance(specs, Spec)
        # Lines take a while to find, and are for those who look.
        line = users_line() if self._observers or self.parent is not None else None
        op = Op(primitive, values, params, specs if several else (specs,), line)
        self.graph.ops.append(op)
        if (
            self.differentiable
            and primitive.derivatives is not None
            and any(v in self._connected for v in values)
        ):
            self._connected.update(z for z in op.outputs if is_float(z.dtype))
        placeholders = tuple(self._placeholder(z) for z in op.outputs)
        return placeholders if several else placeholders[0]

    def made(self, array: Array) -> None:
        """Note a constant of one number: it becomes a constant of the graph."""
        self._literals[id(array)] = array
        if self.parent is not None:
            self.parent.made(array)

    def stateful(self, generator: Any) -> None:
        """Called before a generator is drawn from: its state goes in, and comes out."""
        if generator not in self.generators:
            before = generator.state
            generator.state = self.input(RANDOM_STATE)
            self.generators[generator] = (self.value(generator.state), before)

    def rebinds(self, tensor: Any) -> None:
        """Called before a tensor is assigned to."""
        before = (tensor._array, tensor._node, tensor._slot)
        known = self.assigned.get(id(tensor), (weakref.ref(tensor), before, False))
        self.assigned[id(tensor)] = (*known[:2], known[2] or state.grad_enabled)

    def found(self) -> list[tuple[Any, bool]]:
        """The tensors that were assigned to and are still there; whether gradients flow."""
        found = [(one(), flows) for one, _, flows in self.assigned.values()]
        return [(x, flows) for x, flows in found if x is not None]

    # --- values -----------------------------------------------------------------------------------

    def _placeholder(self, value: Value) -> Placeholder:
        array = Placeholder(value.spec)
        self._values[id(array)] = value
        self._kept.append(array)
        return array

    def input(self, spec: Spec, connected: bool = False) -> Any:
        """A tensor that stands for an input; `connected`: it requires a gradient."""
        value = Value(spec)
        x = make(self._placeholder(value))
        if connected and self.differentiable and is_float(spec.dtype):
            x._node = Leaf(x)
            self._connected.add(value)
            self._kept.append(x)
        return x

    def seen(self, x: Any) -> Value | None:
        """The graph's value of a tensor that depends on its inputs."""
        return self._values.get(id(x._array))

    def value(self, x: Any) -> Value:
        """The graph's value of a tensor, cut off if the tensor is."""
        value = self._values.get(id(x._array))
        if value is None:
            return self._capture(x)
        cut = x._node is None or not state.grad_enabled
        if value in self._connected:
            return self._cut(value) if cut else value
        return value

    def _cut(self, value: Value) -> Value:
        if value not in self._stopped:
            op = Op(detach, (value,), {})
            self.graph.ops.append(op)
            self._stopped[value] = op.output
        return self._stopped[value]

    def _capture(self, x: Any) -> Value:
        """An input (or, of one number made inside, a constant) for a tensor from outside."""
        array, node = x._array, x._node if state.grad_enabled and self.differentiable else None
        if isinstance(array, Placeholder) and not self._is_of_a_parent(array):
            _no_tensor_any_more()
        key = (id(array), id(node), x._slot)
        if key not in self.captured:
            self._kept.append((array, node))
            if node is None and id(array) in self._literals:
                value, tensor = self.graph.constant(array), None
            else:
                value, tensor = Value(Spec(x.shape, x.dtype)), make(array, node, x._slot)
            if node is not None:
                self._connected.add(value)
            self.captured[key] = (value, tensor)
        return self.captured[key][0]

    def _is_of_a_parent(self, array: Placeholder) -> bool:
        """Whether the tensor is one of a body around this one."""
        parent = self.parent
        while isinstance(parent, BodyTracer):
            if id(array) in parent._values:
                return True
            parent = parent.parent
        return False

    def from_outside(self) -> dict[Value, Any]:
        """What was captured: the inputs' values and the tensors that they stand for."""
        return {value: x for value, x in self.captured.values() if x is not None}


@dataclass
class Body:
    """A function as a graph.

    `graph.inputs` are what was captured from outside (`outside`: those tensors), then the states of
    the generators that it draws from and of the tensors from outside that it assigns to (`cells`),
    then the function's own arguments; `graph.outputs` the states afterwards, then what it returned,
    which `results` holds too, as it was returned.
    """

    graph: Graph
    outside: list[Any]
    generators: list[Any]
    cells: list[Any]
    results: Any

    @property
    def states(self) -> int:
        """How many states go in and come out."""
        return len(self.generators) + len(self.cells)


def trace(
    function: Callable[..., Any], specs: Sequence[Spec], connected: Sequence[bool],
    leaves_of: Callable[[Any], list[Any]],
) -> Body:  # fmt: skip
    """Trace `function(*tensors of specs)`.

    If it assigns to tensors from outside it is traced again, with those as states.

    Arguments:
        connected: which of them may require gradients.
        leaves_of: takes what the function returned apart into tensors (and checks it).
    """

    def once(cells: Sequence[Any]) -> tuple[Body, list[tuple[Any, bool]]]:
        with BodyTracer(state.grad_enabled, cells) as tracer:
            return _traced(tracer, function, specs, connected, leaves_of)

    body, found = once(())
    if not found:
        return body
    _check_cells(found)
    # What was made inside is another tensor each time, and is not assigned to in a second trace.
    again, second = once(found)
    cells = [pair for pair in found if any(pair[0] is y for y, _ in second)]
    if len(cells) < len(found):
        return once(cells)[0] if cells else body
    return again


def _traced(
    tracer: BodyTracer, function: Callable[..., Any], specs: Sequence[Spec],
    connected: Sequence[bool], leaves_of: Callable[[Any], list[Any]],
) -> tuple[Body, list[tuple[Any, bool]]]:  # fmt: skip
    """One trace, and the tensors that were assigned to in it."""
    arguments = list(map(tracer.input, specs, connected))
    own = [tracer.value(x) for x in arguments]
    cells = tracer.enter_cells()
    # The function gets tensors of its own, to which it may assign.
    returned = function(*[alias(x) for x in arguments])
    outputs = [tracer.value(x) for x in leaves_of(returned)]
    generators = list(tracer.generators)
    states = [value for value, _ in tracer.generators.values()]
    after = [tracer.value(generator.state) for generator in generators]
    after += [tracer.value(cell) for cell in tracer.cells]
    for cell, z in zip(cells, after[len(states) :], strict=True):
        if cell.spec != z.spec:
            raise TraceError(
                f"a tensor of {cell.spec} from outside became one of {z.spec} inside the body of "
                "a loop or branch; every step must leave it with the shape and dtype it had."
            )
    outside = tracer.from_outside()
    tracer.graph.outputs = [*after, *outputs]
    graph = pruned(tracer.graph)
    used = {x for op in graph.ops for x in op.inputs} | set(graph.outputs)
    kept = {value: x for value, x in outside.items() if value in used}
    graph.inputs = [*kept, *states, *cells, *own]
    return Body(graph, list(kept.values()), generators, tracer.cells, returned), tracer.found()


def _check_cells(cells: Sequence[tuple[Any, bool]]) -> None:
    if any(isinstance(x._node, Leaf) for x, _ in cells):
        raise TraceError(
            "a tensor that requires a gradient is assigned to inside the body of a loop or branch; "
            "carry its value through the loop instead, and assign to it once, behind the loop."
        )


def replay(ops: Iterable[Op], known: dict[Value, Any]) -> None:
    """Apply operations again, to tensors; `known` maps values to them and takes in the results."""
    for op in ops:
        made = apply(op.primitive, *[known[x] for x in op.inputs], **op.params)
        known.update(zip(op.outputs, made if isinstance(made, tuple) else (made,), strict=True))


def needed(
    ops: Sequence[Op], outputs: Iterable[Value], given: Iterable[Value] = ()
) -> list[Op]:  # fmt: skip
    """The operations that the outputs depend on, in order; `given` are values known already."""
    wanted, kept, known = set(outputs), [], set(given)
    for op in reversed(ops):
        if any(z in wanted and z not in known for z in op.outputs):
            wanted.update(op.inputs)
            kept.append(op)
    return kept[::-1]


def extract(
    ops: Sequence[Op], inputs: Sequence[Value], outputs: Sequence[Value],
    constants: dict[Value, Array],
) -> tuple[Graph, dict[Value, Value]]:  # fmt: skip
    """A graph of its own of some operations; `inputs` may be values that other operations make.

    Returns it, and what each old value is in it.
    """
    graph = Graph(name="body")
    now: dict[Value, Value] = {}
    for value in inputs:
        now[value] = graph.input(value.spec)

    def at(value: Value) -> Value:
        if value not in now:  # else every value is made before it is read
            now[value] = graph.constant(constants[value])
        return now[value]

    for op in needed(ops, outputs, inputs):
        fresh = Op(
            op.primitive, [at(x) for x in op.inputs], op.params, [z.spec for z in op.outputs],
            op.line, op.where,
        )  # fmt: skip
        graph.ops.append(fresh)
        for old, new in zip(op.outputs, fresh.outputs, strict=True):
            now.setdefault(old, new)
    graph.outputs = [at(z) for z in outputs]
    return graph, now


def pruned(graph: Graph) -> Graph:
    """The same function without aliases and without what no output and no check depends on."""
    now: dict[Value, Value] = {}
    ops: list[Op] = []
    for op in graph.ops:
        inputs = tuple(now.get(x, x) for x in op.inputs)
        if op.primitive is alias:
            now[op.output] = inputs[0]
            continue
        if inputs != op.inputs:
            fresh = Op(
                op.primitive, inputs, op.params, [z.spec for z in op.outputs], op.line, op.where
            )
            now.update(zip(op.outputs, fresh.outputs, strict=True))
            op = fresh
        ops.append(op)
    outputs = [now.get(z, z) for z in graph.outputs]
    checks = [op.output for op in ops if op.primitive is check]
    ops = needed(ops, [*outputs, *checks])
    used = {x for op in ops for x in op.inputs} | set(outputs)
    constants = {value: array for value, array in graph.constants.items() if value in used}
    return Graph(list(graph.inputs), constants, ops, outputs, {}, graph.name)


def without_unread(body: Graph) -> Graph:
    """A body whose inner loops no longer give what nobody reads: what a derivative would save."""
    read = {x for op in body.ops for x in op.inputs} | set(body.outputs)
    now: dict[Value, Value] = {}
    ops = []
    for op in body.ops:
        inputs = tuple(now.get(x, x) for x in op.inputs)
        kept = [i for i, z in enumerate(op.outputs) if z in read or i < op.params.get("carries", 0)]
        params = op.params
        if op.primitive is scan and len(kept) < len(op.outputs):
            inner: Graph = params["body"]
            outputs = [inner.outputs[i] for i in kept]
            lean = Graph(inner.inputs, inner.constants, inner.ops, outputs, {}, inner.name)
            params = {**params, "body": pruned(lean)}
        elif inputs == op.inputs:
            ops.append(op)
            continue
        else:
            kept = list(range(len(op.outputs)))
        specs = [op.outputs[i].spec for i in kept]
        fresh = Op(op.primitive, inputs, params, specs, op.line, op.where)
        now.update(zip([op.outputs[i] for i in kept], fresh.outputs, strict=True))
        ops.append(fresh)
    outputs = [now.get(z, z) for z in body.outputs]
    return Graph(list(body.inputs), body.constants, ops, outputs, {}, body.name)
