"""Functions of one's own: `forward`, and `backward` given the upstream gradient."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from chainrule.autograd.engine import handed_out
from chainrule.autograd.modes import _GradMode
from chainrule.dtypes import is_float
from chainrule.errors import GradError, GraphFreedError, ShapeError
from chainrule.graph import Node, Primitive, Spec, Value, make, program_tracer, state, wrap_outputs
from chainrule.primitives.elementwise import cast

CALLED = "called"
"""The primitive that stands in graphs of loops and branches for a function's way back."""


class Context:
    """What `forward` leaves for `backward`.

    Attributes:
        saved_tensors: the tensors given to `save_for_backward`, in order.
        needs_input_grad: for each argument of `forward`, whether a gradient is asked for it.

    Any other attribute may be set, for values that are not tensors.
    """

    needs_input_grad: tuple[bool, ...]

    def __init__(self) -> None:
        self._given: tuple[Any, ...] = ()
        self._saved: tuple[Any, ...] | None = ()
        self._output_slots: dict[int, int] = {}
        self._node: Callable[[], Any] = lambda: None
        self._non_differentiable: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors (inputs, outputs or anything computed), with the values they have now."""
        for t in tensors:
            if t is not None and not isinstance(t, Value):
                raise GradError(
                    f"save_for_backward takes tensors, but got {type(t).__name__}; keep other "
                    "values as attributes: ctx.name = value."
                )
        self._given = tensors
        self._saved = tuple(None if t is None else handed_out(t) for t in tensors)

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Say which outputs carry no gradient."""
        self._non_differentiable = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved, with the values it had then."""
        if self._saved is None:
            raise GraphFreedError(
                "the saved tensors of this function are freed, because its graph was used already; "
                "pass retain_graph=True to the earlier backward() or grad() if you need it twice."
            )
        return tuple(None if t is None else self._rebuilt(i, t) for i, t in enumerate(self._saved))

    def _rebuilt(self, position: int, saved: Any) -> Any:
        node = self._node()
        if node is None or position not in self._output_slots:
            return handed_out(saved)
        return make(saved._array, node, self._output_slots[position])

    def _seal(self, inputs: Sequence[Any], results: Sequence[Any], node: Any) -> None:
        """After `forward`: note which of the saved tensors are outputs.

        A saved output is rebuilt from the node when it is read (through a weak reference, since the
        node holds this context), so that a second derivative finds its way through it.
        """
        constants = (*inputs, *self._non_differentiable)
        slots = {
            id(result): slot
            for slot, result in enumerate(results)
            if is_float(result.dtype) and all(result is not t for t in constants)
        }
        self._output_slots = {i: slots[id(t)] for i, t in enumerate(self._given) if id(t) in slots}
        self._given = ()
        self._node = weakref.ref(node)

    def release(self) -> None:
        """Let the saved values go."""
        self._saved = None


class _FunctionPrimitive:
    """A user's function in the place of a primitive. Its context belongs to one application."""

    variadic = True
    reads = frozenset[str]()
    reads_output = False

    def __init__(self, function: type[Function], context: Context, positions: tuple[int, ...]):
        self.name = function.__name__
        self.formula = (function.__doc__ or "").strip().split("\n")[0]
        self.function = function
        self.context = context
        self.positions = positions

    def reads_inputs(self, n: int) -> tuple[bool, ...]:
        return (False,) * n

    def release(self) -> None:
        self.context.release()

    def derivatives(self, needs: tuple[bool, ...], g: Any, z: Any, *inputs: Any) -> Any:
        gradients = g if isinstance(g, tuple) else (g,)
        returned = self.function.backward(self.context, *map(handed_out, gradients))
        results = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
        expected = len(self.context.needs_input_grad)
        if len(results) < expected or any(r is not None for r in results[expected:]):
            raise GradError(
                f"{self.name}.backward returned {len(results)} gradient(s) but {self.name}.forward "
                f"takes {expected} input(s); return one for each, None where there is none."
            )
        return [
            self._checked(results[position], spec, position) if needed else None
            for position, spec, needed in zip(self.positions, inputs, needs, strict=True)
        ]

    def _checked(self, result: Any, spec: Any, position: int) -> Any:
        if result is None:
            return None
        if not isinstance(result, Value):
            raise GradError(
                f"{self.name}.backward returned {type(result).__name__} for input {position}; "
                "return a tensor or None."
            )
        if result.shape != spec.shape:
            raise ShapeError(
                f"{self.name}.backward returned a gradient of shape {result.shape} for input "
                f"{position}, which has shape {spec.shape}; they must be equal."
            )
        return result if result.dtype == spec.dtype else cast(result, dtype=spec.dtype)


def _written_down(
    needs: tuple[bool, ...], g: Any, z: Any, *inputs: Any, function: type[Function],
    context: Context, positions: tuple[int, ...], saved: tuple[int | None, ...],
) -> list[Any]:  # fmt: skip
    """`backward` for an application in a graph; see `Function._write_down`."""
    values = [*inputs, *(z if isinstance(z, tuple) else (z,))]
    own = copy.copy(context)
    own._saved = tuple(None if i is None else handed_out(values[i]) for i in saved)
    n = len(positions)
    primitive = _FunctionPrimitive(function, own, positions)
    results = primitive.derivatives(needs[:n], g, z, *inputs[:n])
    return [*results, *[None] * (len(inputs) - n)]


_called = Primitive(
    CALLED, "the results of a function whose derivative is written by hand", ("*inputs",),
    lambda *inputs, results, **how: tuple(Spec(x.shape, x.dtype) for x in inputs[results]),
    lambda *inputs, results, **how: inputs[results],
    lambda needs, g, z, *inputs, results, **how: _written_down(needs, g, z, *inputs, **how),
    flops=0,
)  # fmt: skip
_called.saves, _called.reads_output = (True,), True


class Function:
    """Base of functions with a derivative written by hand.

    ```python no-run (a fragment)
    class Multiply(cr.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, grad):
            x, y = ctx.saved_tensors
            return y * grad, x * grad

    z = Multiply.apply(x, y)
    ```

    `forward` runs without recording. `backward` receives dL/d(output), one for each output (zeros
    for one that the loss does not depend on), and returns dL/d(input), one for each argument of
    `forward` (None where there is none). If it is written in tensor operations it can itself be
    differentiated.

    Where `forward` should not see the context, leave `ctx` out and define
    `setup_context(ctx, inputs, output)` beside it.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a Function needs a static method forward(ctx, *inputs)")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("a Function needs a static method backward(ctx, *gradients)")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        raise NotImplementedError("setup_context(ctx, inputs, output) is called if it is defined")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Call `forward` and record the application.

        Tensors that need gradients are passed by position; keyword arguments are constants.
        """
        context = Context()
        positions = tuple(i for i, a in enumerate(args) if isinstance(a, Value))
        tensors = tuple(args[i] for i in positions)
        context.needs_input_grad = tuple(isinstance(a, Value) and a._node is not None for a in args)
        recording = state.grad_enabled and any(context.needs_input_grad)
        cls._refuse_keywords(kwargs)
        with _GradMode(False):
            if cls.setup_context is Function.setup_context:
                result = cls.forward(context, *args, **kwargs)
            else:
                result = cls.forward(*args, **kwargs)
                cls.setup_context(context, args, result)
        several = isinstance(result, tuple | list)
        results = tuple(result) if several else (result,)
        for output in results:
            if not isinstance(output, Value):
                raise GradError(
                    f"{cls.__name__}.forward returned {type(output).__name__}; return a tensor or "
                    "a tuple of tensors."
                )
        if recording and state.tracer is not program_tracer():  # in the body of a loop or branch
            results = cls._write_down(context, positions, tensors, results)
            return results if several else results[0]
        arrays = tuple(output._array for output in results)
        node = None
        if recording:
            node = Node(_FunctionPrimitive(cls, context, positions), {}, tensors, arrays)
            context._seal(tensors, results, node)
        constants = context._non_differentiable
        outputs = tuple(
            make(output._array) if any(output is t for t in constants) else wrapped
            for output, wrapped in zip(results, wrap_outputs(arrays, node), strict=True)
        )
        return outputs if several else outputs[0]

    @classmethod
    def _write_down(
        cls, context: Context, positions: tuple[int, ...], tensors: Any, results: Any
    ) -> tuple[Any, ...]:
        """The outputs, where derivatives are taken later, of the graph that is written here.

        What `forward` did stands in the graph, with no way back. One operation more gives the
        results again; its inputs are the tensors, the results and what was saved, and its
        derivative is `backward`.
        """
        constants = context._non_differentiable
        inputs = [*tensors, *[make(z._array) for z in results]]
        span = slice(len(tensors), len(inputs))
        carries = [is_float(z.dtype) and all(z is not t for t in constants) for z in results]
        where = {id(t): i for i, t in enumerate(tensors)}
        for i, (z, carrying) in enumerate(zip(results, carries, strict=True)):
            if carrying:
                where[id(z)] = i - len(results)  # counted from the end, where the outputs stand
        for t in context._given:
            if t is not None and id(t) not in where:
                where[id(t)] = len(inputs)
                inputs.append(make(t._array))
        places = tuple(None if t is None else where[id(t)] for t in context._given)
        context._given = context._saved = ()
        made = _called(
            *inputs, results=span, function=cls, context=context, positions=positions, saved=places
        )
        return tuple(
            y if carrying else make(z._array)
            for y, z, carrying in zip(made, results, carries, strict=True)
        )

    @classmethod
    def _refuse_keywords(cls, kwargs: dict[str, Any]) -> None:
        for name, value in kwargs.items():
            if state.grad_enabled and isinstance(value, Value) and value._node is not None:
                raise GradError(
                    f"{cls.__name__}.apply got {name}=, a tensor that requires a gradient, by "
                    "keyword, where its gradient would be lost; pass it by position, or pass "
                    f"{name}.detach()."
                )
