"""Functions of one's own: `forward`, and `backward` given the upstream gradient."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from chainrule.autograd.modes import _GradMode
from chainrule.errors import GradError, ShapeError
from chainrule.graph import Node, Value, make, state, wrap_outputs


class Context:
    """What `forward` leaves for `backward`.

    Attributes:
        saved_tensors: the tensors given to `save_for_backward`, in order.
        needs_input_grad: for each argument of `forward`, whether a gradient is asked for it.

    Any other attribute may be set, for values that are not tensors.
    """

    needs_input_grad: tuple[bool, ...]

    def __init__(self) -> None:
        self._saved: tuple[Any, ...] = ()
        self._output_slots: dict[int, int] = {}
        self._node: Callable[[], Any] = lambda: None
        self.non_differentiable: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors (inputs, outputs or anything computed) for `backward`."""
        for t in tensors:
            if t is not None and not isinstance(t, Value):
                raise GradError(
                    f"save_for_backward takes tensors, but got {type(t).__name__}; keep other "
                    "values as attributes: ctx.name = value."
                )
        self._saved = tensors

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Say which outputs carry no gradient."""
        self.non_differentiable = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved, with the values it had then."""
        node = self._node()
        return tuple(
            make(t._array, node, self._output_slots[i])
            if node is not None and i in self._output_slots
            else t
            for i, t in enumerate(self._saved)
        )

    def _seal(self, results: tuple[Any, ...], node: Any) -> None:
        """After `forward`: hold on to the saved values, whatever becomes of the tensors.

        A saved output is rebuilt from the node when it is read (through a weak reference, since the
        node holds this context), so that a second derivative finds its way through it.
        """
        slots = {id(result): slot for slot, result in enumerate(results)}
        inputs = self._saved
        self._output_slots = {i: slots[id(t)] for i, t in enumerate(inputs) if id(t) in slots}
        self._saved = tuple(
            None if t is None else make(t._array, t._node, t._slot) for t in inputs
        )
        if node is not None:
            self._node = weakref.ref(node)

    def release(self) -> None:
        """Let the saved values go."""
        self._saved = ()


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
        results = self.function.backward(self.context, *gradients)
        results = results if isinstance(results, tuple) else (results,)
        expected = len(self.context.needs_input_grad)
        if len(results) != expected:
            raise GradError(
                f"{self.name}.backward returned {len(results)} gradient(s) but {self.name}.forward "
                f"takes {expected} input(s); return one for each, None where there is none."
            )
        chosen = [results[i] for i in self.positions]
        for i, (result, spec) in enumerate(zip(chosen, inputs, strict=True)):
            if result is None:
                continue
            if not isinstance(result, Value):
                raise GradError(
                    f"{self.name}.backward returned {type(result).__name__} for input {i}; "
                    "return a tensor or None."
                )
            if result.shape != spec.shape:
                raise ShapeError(
                    f"{self.name}.backward returned a gradient of shape {result.shape} for input "
                    f"{i}, which has shape {spec.shape}; they must be equal."
                )
        return chosen


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

    `forward` runs without recording. `backward` receives dL/d(output), one for each output, and
    returns dL/d(input), one for each argument of `forward` (None where there is none). If it is
    written in tensor operations it can itself be differentiated.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a Function needs a static method forward(ctx, *inputs)")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("a Function needs a static method backward(ctx, *gradients)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Call `forward` and record the application."""
        context = Context()
        positions = tuple(i for i, a in enumerate(args) if isinstance(a, Value))
        tensors = tuple(args[i] for i in positions)
        context.needs_input_grad = tuple(
            isinstance(a, Value) and a._node is not None for a in args
        )
        with _GradMode(False):
            result = cls.forward(context, *args, **kwargs)
        several = isinstance(result, tuple)
        results = result if several else (result,)
        for output in results:
            if not isinstance(output, Value):
                raise GradError(
                    f"{cls.__name__}.forward returned {type(output).__name__}; return a tensor or "
                    "a tuple of tensors."
                )
        arrays = tuple(output._array for output in results)
        primitive = _FunctionPrimitive(cls, context, positions)
        recording = state.grad_enabled and any(t._node is not None for t in tensors)
        node = Node(primitive, {}, tensors, arrays) if recording else None
        outputs = tuple(
            make(output._array) if any(output is t for t in context.non_differentiable) else wrapped
            for output, wrapped in zip(results, wrap_outputs(arrays, node), strict=True)
        )
        context._seal(results, node)
        return outputs if several else outputs[0]
