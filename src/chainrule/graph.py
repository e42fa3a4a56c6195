"""Nodes and values: what a primitive is, how one is applied, and how its application is remembered.

`apply(primitive, *tensors, **params)` is the one gate through which every number passes:

1. `primitive.infer` checks shapes and dtypes and says what comes out;
2. `primitive.evaluate` computes it, in NumPy, at once; or a tracer writes it down for later;
3. if an input needs a gradient, a `Node` remembers the application: where each input came from
   (an edge of the graph) and those values, and only those, that the derivative will read.

A tensor here has *value semantics*: assigning to one replaces its array and never writes into it.
What a node has saved can therefore not change behind its back, and no version counters are needed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

from chainrule.dtypes import DType, is_float
from chainrule.errors import ChainruleError, users_line

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

T = TypeVar("T", bound="Value")
Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class Spec(NamedTuple):
    """The shape and dtype of a value that need not exist (yet, or any more)."""

    shape: Shape
    dtype: DType

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size


class Primitive:
    """One of the few operations that everything is made of, all that is known of it side by side.

    Arguments:
        name: its name in graphs and messages.
        formula: what it computes, in a line.
        inputs: the names of its inputs, in order; `("*xs",)` where their number is free.
        infer: `(*inputs, **params) -> Spec` (or a tuple of them); raises `ShapeError` or
            `DTypeError`.
        evaluate: `(*arrays, **params) -> array` (or a tuple of them), in NumPy.
        derivatives: one rule per input, `(g, z, *inputs, **params) -> tensor` where `g` is the
            gradient of the loss with respect to the output `z`; None for an input without one.
            Or a single function `(needs, g, z, *inputs, **params) -> tuple` for all inputs at once.
            Rules are written in tensor operations, so they can be differentiated again.
        reads: the names of those inputs, and `z` for the output, whose *values* the rules read. The
            rules get a `Spec` in place of any other, and its memory can be let go.
        flops: `(outputs, *inputs, **params) -> int`; one for each element of the output if None;
            0 for an operation that only moves numbers.
        scalar: for elementwise primitives, `(m, *operands, **params) -> operand`: one element in
            the compiler's arithmetic, `chainrule.primitives.scalar`.
    """

    __slots__ = (
        "derivatives", "evaluate", "flops_rule", "formula", "infer", "inputs", "name", "reads",
        "reads_output", "saves", "scalar", "variadic",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        formula: str,
        inputs: tuple[str, ...],
        infer: Callable[..., Any],
        evaluate: Callable[..., Any],
        derivatives: tuple[Callable[..., Any] | None, ...] | Callable[..., Any] | None = None,
        reads: str = "",
        flops: Callable[..., int] | Literal[0] | None = None,
        scalar: Callable[..., Any] | None = None,
    ):
        self.name = name
        self.formula = formula
        self.inputs = inputs
        self.infer = infer
        self.evaluate = evaluate
        self.derivatives = derivatives
        self.reads = frozenset(reads.split())
        self.variadic = inputs[0].startswith("*")
        self.saves = tuple(name in self.reads for name in inputs)
        self.reads_output = "z" in self.reads
        self.flops_rule = flops
        self.scalar = scalar

    def __call__(self, *inputs: Any, **params: Any) -> Any:
        return apply(self, *inputs, **params)

    def flops(self, outputs: tuple[Any, ...], *inputs: Any, **params: Any) -> int:
        """Floating-point operations of one application."""
        if self.flops_rule is None:
            return sum(z.size for z in outputs)
        return self.flops_rule(outputs, *inputs, **params) if callable(self.flops_rule) else 0

    def reads_inputs(self, n: int) -> tuple[bool, ...]:
        """For each of `n` inputs, whether the derivative reads its value."""
        return self.saves * n if self.variadic else self.saves

    def release(self) -> None:
        """A primitive keeps nothing of an application; a user's function does."""

    def __repr__(self) -> str:
        return f"<primitive {self.name}: {self.formula}>"


_spec: Any = tuple.__new__  # a Spec in a third of the time


class Leaf:
    """Where a gradient ends: a tensor that the user made and asked a gradient for."""

    __slots__ = ("__weakref__", "hooks", "sequence", "tensor")

    def __init__(self, tensor: Value):
        # A strong reference would make every leaf a cycle; a tensor that is gone needs no gradient.
        self.tensor = weakref.ref(tensor)
        self.hooks: dict[int, Any] = {}
        self.sequence = next(_sequence)


class Node:
    """One application of a primitive, as the way back needs it.

    `inputs` and `outputs` hold the arrays that the derivative reads, and the `Spec` of the others.
    """

    __slots__ = (
        "__weakref__", "edges", "freed", "hooks", "inputs", "line", "outputs", "params",
        "primitive", "retained", "sequence",
    )  # fmt: skip

    def __init__(
        self,
        primitive: Any,
        params: dict[str, Any],
        inputs: tuple[Value, ...],
        outputs: tuple[Array, ...],
    ):
        self.primitive = primitive
        self.params = params
        edges: list[Any] = []
        values: list[Any] = []
        saves = primitive.reads_inputs(len(inputs))
        for x, read in zip(inputs, saves, strict=True):
            node, array = x._node, x._array
            edges.append(None if node is None else (node, x._slot))
            values.append(array if read else _spec(Spec, (array.shape, array.dtype)))
        self.edges = tuple(edges)
        self.inputs = tuple(values)
        if not primitive.reads_output:
            outputs = tuple([_spec(Spec, (z.shape, z.dtype)) for z in outputs])
        self.outputs = outputs
        # Creation order is a topological order: a node is made after all that it depends on.
        self.sequence = next(_sequence)
        self.hooks: dict[int, Any] = {}
        self.retained: dict[int, weakref.ref[Value]] = {}
        self.line: str | None = None
        self.freed = False

    def free(self) -> None:
        """Let the saved values go; the edges stay, so that a second use can be reported."""
        self.inputs = self.outputs = ()
        self.primitive.release()
        self.freed = True

    def input_values(self) -> list[Any]:
        """The inputs as the derivative rules see them: tensors if read, specs otherwise."""
        return [
            x if isinstance(x, Spec) else (make(x) if edge is None else make(x, *edge))
            for x, edge in zip(self.inputs, self.edges, strict=True)
        ]

    def output_values(self) -> Any:
        """The output (a tuple if there are several) as the derivative rules see it."""
        values = [
            z if isinstance(z, Spec) else wrap(z, self, slot) for slot, z in enumerate(self.outputs)
        ]
        return values[0] if len(values) == 1 else tuple(values)


class Symbol:
    """A Python number of which a tracer knows where it comes from: it may differ at the next call.

    It is a weak scalar, as the number is. `kind` is the number's type, int or float.
    """

    __slots__ = ()
    kind: type

    @property
    def value(self) -> Any:
        """The number now, which what is traced then depends on."""
        raise NotImplementedError

    def tensor(self, dtype: DType) -> Tensor:
        """It as a tensor of shape ()."""
        raise NotImplementedError


def told(x: Any) -> Any:
    """A number, or nested tuples and lists of them, as plain numbers: see `Symbol.value`."""
    if issubclass(type(x), Symbol):
        return x.value
    if type(x) in (tuple, list) and not all(map(_is_plain, x)):
        return type(x)(map(told, x))
    return x


def _is_plain(x: Any) -> bool:
    return not issubclass(type(x), Symbol | tuple | list)


_NUMBERS = frozenset({bool, int, float, complex, str, type(None)})


def _need_telling(params: dict[str, Any]) -> bool:
    """Whether there may be a `Symbol` in parameters."""
    for x in params.values():
        kind = type(x)
        if not (_NUMBERS.issuperset(map(type, x)) if kind is tuple else kind in _NUMBERS):
            return True
    return False


class Deferred:
    """A gradient that a compiled step has left in its memory, until somebody reads it."""

    __slots__ = ("array", "taken")

    def __init__(self, array: Array):
        self.array = array
        self.taken = False

    def read(self) -> Tensor:
        self.taken = True
        return make(self.array)


class Value:
    """What the graph knows of a tensor: its array, its gradient, and the node that it came from.

    `_node` is None for a value that needs no gradient, a `Leaf` for one that the user asked a
    gradient for, and a `Node` for one that was computed. `_slot` says which output of the node this
    is. `_binding` is set where compiled programs keep the tensor as their state.
    """

    __slots__ = ("__weakref__", "_array", "_binding", "_grad", "_node", "_slot")

    _array: Array
    _node: Node | Leaf | None
    _slot: int
    _grad: Any

    @property
    def grad(self) -> Any:
        """dL/d(this), a tensor or None."""
        grad = self._grad
        if type(grad) is Deferred:
            grad = self._grad = grad.read()
        return grad

    @grad.setter
    def grad(self, grad: Any) -> None:
        self._grad = grad

    @property
    def shape(self) -> Shape:
        """The length of each axis, as a tuple."""
        return self._array.shape

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._array.size


class _State(threading.local):
    """What differs from thread to thread."""

    grad_enabled: bool = True
    backwards: int = 0  # calls of backward(): did one come since the optimiser's last step?
    observers: tuple[Callable[..., None], ...] = ()
    tracer: Any = None  # what writes applications down instead of computing them (floor 2)
    program: Any = None  # the outermost tracer, if it traces a whole program


class _Structure:
    """Counts the changes to what programs are compiled for, beside numbers: see `epoch`.

    A change to a model's parts, to its mode, or to an optimiser's groups counts up. A compiled
    function that finds the number it knows need not look at models and optimisers again.
    """

    epoch: int = 0


def program_tracer() -> Any:
    """The thread's tracer of a whole program: the outermost, where a loop's body is traced in it.

    None where nothing is traced, or only the body of a loop that runs eagerly.
    """
    return state.program


def at_one_line() -> contextlib.AbstractContextManager[None]:
    """Inside, what a tracer writes down is all of the line that the user's code is at now."""
    tell = getattr(state.tracer, "at_one_line", None)
    return _NOTHING if tell is None else tell()


state = _State()
structure = _Structure()
_NOTHING = contextlib.nullcontext()
_sequence = itertools.count()
_new = object.__new__
_tensor_class: type[Any] = Value
_watched = False


def register_tensor_class(cls: type[T]) -> type[T]:
    """Name the class that values are handed to the user as. Floor 1 calls this once."""
    global _tensor_class
    _tensor_class = cls
    return cls


def watch(on: bool) -> None:
    """Say whether a thread traces a program: its tracer then makes the tensors of that thread."""
    global _watched
    _watched = on


def make(array: Array, node: Node | Leaf | None = None, slot: int = 0) -> Tensor:
    """Wrap an array as a tensor."""
    if _watched and (program := state.program) is not None:
        return program.born(array, node, slot)
    tensor = _new(_tensor_class)
    tensor._array = array
    tensor._node = node
    tensor._slot = slot
    tensor._grad = None
    return tensor


def constant(value: Any, shape: Shape, dtype: DType) -> Tensor:
    """A tensor whose elements are all `value`, stored once."""
    tracer, kind = state.tracer, type(value)
    if (kind is float or kind is int) and (tracer is None or tracer is state.program):
        # 0.0 and -0.0 are equal.
        return make(_repeated(value, kind is float and math.copysign(1.0, value), shape, dtype))
    array = _splat(value, shape, dtype)
    if tracer is not None:
        tracer.made(array)
    return make(array)


def _splat(value: Any, shape: Shape, dtype: DType) -> Array:
    # Bytes are a buffer that cannot be written to, and steps of 0 repeat what is in it.
    with np.errstate(over="ignore"):  # 1e39 is infinite in float32
        stored = np.asarray(value, dtype=dtype).tobytes()
    return np.ndarray(shape, dtype, stored, 0, (0,) * len(shape))


@functools.lru_cache(1024, typed=True)
def _repeated(value: float, sign: float, shape: Shape, dtype: DType) -> Array:
    return _splat(value, shape, dtype)


def apply(primitive: Primitive, *inputs: Any, **params: Any) -> Any:
    """Apply a primitive to tensors: check, evaluate, remember. See the head of this file."""
    tracer = state.tracer
    if tracer is not None and params and _need_telling(params):
        params = {name: told(x) for name, x in params.items()}
    try:
        specs = primitive.infer(*inputs, **params)
        result = None if tracer is None else tracer.record(primitive, inputs, params, specs)
        if result is None:
            arrays = [x._array for x in inputs]
            if primitive.flops_rule == 0:
                result = primitive.evaluate(*arrays, **params)
            else:
                result = _quietly(primitive.evaluate, arrays, params)
            # NumPy gives scalars in place of arrays without axes.
            several = type(result) is tuple
            results = tuple(map(np.asarray, result)) if several else (np.asarray(result),)
        else:
            several = type(result) is tuple
            results = result if several else (result,)
    except ChainruleError as error:
        if error.line is None:
            error.line = users_line()
        raise
    node = None
    if state.grad_enabled and primitive.derivatives is not None:
        for x in inputs:
            if x._node is not None:
                node = Node(primitive, params, inputs, results)
                break
    if several:
        outputs = wrap_outputs(results, node)
        for observer in state.observers:
            observer(primitive, inputs, outputs, params)
        return outputs
    output = wrap(results[0], node)
    for observer in state.observers:
        observer(primitive, inputs, (output,), params)
    return output


Primitive.__call__ = apply  # type: ignore[method-assign]


@np.errstate(all="ignore")
def _quietly(evaluate: Callable[..., Any], arrays: list[Array], params: dict[str, Any]) -> Any:
    """Evaluate; infinities and NaN are values here, and `detect_anomaly` hunts them."""
    return evaluate(*arrays, **params)


def wrap(array: Array, node: Node | None, slot: int = 0) -> Any:
    """A tensor that an application hands out; only real floating-point ones carry gradients."""
    return make(array, node, slot) if node is not None and is_float(array.dtype) else make(array)


def wrap_outputs(arrays: tuple[Array, ...], node: Node | None) -> tuple[Any, ...]:
    """All the tensors that an application hands out."""
    return tuple(wrap(array, node, slot) for slot, array in enumerate(arrays))


@contextlib.contextmanager
def observe(callback: Callable[..., None]) -> Iterator[None]:
    """Call `callback(primitive, inputs, outputs, params)` after each application in this thread.

    Counting operations, hunting the first NaN and showing the work are all observers.
    """
    before = state.observers
    state.observers = (*before, callback)
    try:
        yield
    finally:
        state.observers = before
