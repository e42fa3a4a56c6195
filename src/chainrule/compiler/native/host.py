"""Operations without a native kernel: NumPy on the program's buffers, between two phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native.kernel import Buffer, Buffers, Kernel
from chainrule.compiler.native.text import Module
from chainrule.compiler.native.views import resolve
from chainrule.errors import ChainruleError
from chainrule.graph import Primitive


class HostKernel(Kernel):
    """One operation, evaluated as it is when running eagerly."""

    family = "host"

    def __init__(self, op: Op, reads: tuple[Value, ...] | None = None):
        self.ops = (op,)
        self.reads = tuple(dict.fromkeys(op.inputs if reads is None else reads))
        self.writes = op.outputs

    def may_overwrite(self, read: Value, write: Value) -> bool:
        return True  # the result is complete before it is written

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        raise NotImplementedError(f"{self} has no native code.")

    def call(self, buffers: Buffers) -> Callable[[Any], None]:
        """What the program calls, with itself as the argument."""
        (op,) = self.ops
        inputs = [view_of(x, buffers) for x in op.inputs]
        outputs = [buffers[z] for z in op.outputs]
        return calling(op.primitive, op.params, inputs, outputs, op.line)


def calling(
    primitive: Primitive,
    params: Mapping[str, Any],
    inputs: Sequence[Buffer],
    outputs: Sequence[Buffer],
    line: str | None,
) -> Callable[[Any], None]:
    """A function of a program that evaluates a primitive on its buffers."""
    evaluate = np.errstate(all="ignore")(primitive.evaluate)

    def run(program: Any) -> None:
        try:
            result = evaluate(*[program.view(x) for x in inputs], **params)
        except ChainruleError as error:
            if error.line is None:
                error.line = line
            raise
        results = result if isinstance(result, tuple) else (result,)
        for buffer, array in zip(outputs, results, strict=True):
            program.view(buffer)[...] = array

    return run


def view_of(value: Value, buffers: Buffers) -> Buffer:
    """A value that is a view of one with a buffer, as a buffer of its own."""
    view = resolve(value, buffers)
    if view is None:
        raise KeyError(f"{value} has no buffer and is no view of one.")
    base = buffers[view.base]
    offset = base.offset + view.offset * value.dtype.itemsize
    return Buffer(base.slot, offset, view.shape, view.strides, value.dtype)
