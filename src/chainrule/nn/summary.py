"""A model at a glance, layer by layer: shapes, parameters, arithmetic, memory, receptive field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule import array as xp
from chainrule import dtypes, random
from chainrule.array._core import as_tensor
from chainrule.autograd.modes import enable_grad
from chainrule.errors import ArgumentTypeError
from chainrule.graph import Node, Value, observe
from chainrule.nn.hooks import Hook, Hooks
from chainrule.nn.module import Module
from chainrule.nn.receptive import ReceptiveFields


@dataclass
class Row:
    """One layer, or what a module computes besides its layers.

    Attributes:
        path: where it stands in the model, such as `features.3`; empty for the model itself.
        kind: its class.
        output_shape: the shape of its output; a tuple of shapes if there are several.
        parameters: how many numbers it trains itself; 0 where it is used a second time.
        flops: floating-point operations; a multiplication and an addition are two.
        activation_bytes: what it keeps for the way back, parameters and inputs apart.
        receptive_field: how many positions of the input an output sees, such as 5x5; "all", "?"
            where it cannot be told, and nothing where the input has no positions.
    """

    path: str
    kind: str
    depth: int
    output_shape: Any = ()
    parameters: int = 0
    flops: int = 0
    activation_bytes: int = 0
    receptive_field: str = ""
    is_layer: bool = True


@dataclass
class Summary:
    """What `summary` returns; its text is a table.

    Attributes:
        rows: a `Row` for each layer in the order of their running, and for each module that
            computes something or has parameters besides its layers.
        parameters, trainable_parameters: how many numbers the model holds, and trains.
        flops: floating-point operations of one evaluation.
        parameter_bytes: memory of parameters and buffers.
        activation_bytes: memory kept for the way back.
        uncalled: paths of layers with parameters that did not run.
    """

    model: str
    input_shapes: list[tuple[int, ...]]
    rows: list[Row]
    parameters: int
    trainable_parameters: int
    flops: int
    parameter_bytes: int
    activation_bytes: int
    uncalled: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return _as_text(self)

    __repr__ = __str__


def summary(model: Module, input: Any, *more: Any) -> Summary:
    """Evaluate the model once and describe each layer: print what it returns.

    >>> from chainrule import nn
    >>> print(summary(nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10)), (1, 784)))
    Sequential of (1, 784)
    layer  kind    output   parameters   FLOPs
    0      Linear  (1, 16)      12,560  25.1 k
    1      ReLU    (1, 16)           0      16
    2      Linear  (1, 10)         170     330
    12,730 parameters (49.7 KiB), 25.4 k FLOPs, 64 B kept for the way back

    Arguments:
        model: the model. It stays as it is: its mode, running averages and gradients, and the
            random state. It is evaluated in evaluation mode.
        input: a shape with its batch axis, such as (1, 784), or an example: a tensor or array.
        more: further inputs, where `forward` takes several.

    Returns:
        a `Summary`.
    """
    if not isinstance(model, Module):
        raise ArgumentTypeError(f"summary describes an nn.Module, got {type(model).__name__}.")
    inputs = [_example(x, model) for x in (input, *more)]
    recorder = _Recorder(model, inputs)
    with _unchanged(model), enable_grad():
        model.eval()
        with recorder.watching(), observe(recorder.count):
            model(*inputs)
    parameters = list(model.parameters())
    held = [*parameters, *model.buffers()]
    rows = [row for row in recorder.rows if row.is_layer or row.flops or row.parameters]
    return Summary(
        model=type(model).__name__,
        input_shapes=[x.shape for x in inputs],
        rows=rows,
        parameters=sum(p.size for p in parameters),
        trainable_parameters=sum(p.size for p in parameters if p.requires_grad),
        flops=sum(row.flops for row in rows),
        parameter_bytes=sum(t.size * t.dtype.itemsize for t in held),
        activation_bytes=sum(row.activation_bytes for row in rows),
        uncalled=recorder.uncalled(),
    )


def _example(x: Any, model: Module) -> Any:
    if isinstance(x, Value):
        return x.detach()  # type: ignore[attr-defined]
    if isinstance(x, tuple | list) and all(isinstance(n, int | np.integer) for n in x):
        floats = [p.dtype for p in model.parameters() if dtypes.is_float(p.dtype)]
        return xp.zeros(tuple(x), dtype=floats[0] if floats else dtypes.float32)
    return as_tensor(x)


@contextmanager
def _unchanged(model: Module) -> Iterator[None]:
    """Put back everything that an evaluation may change."""
    modes = [(module, module.training, module._hooks) for module in model.modules()]
    values = [(t, t._array, t._node, t._slot) for t in (*model.parameters(), *model.buffers())]
    random_state = random.get_state()
    try:
        yield
    finally:
        random.set_state(random_state)
        for module, training, hooks in modes:
            module.training, module._hooks = training, hooks
        for tensor, array, node, slot in values:
            tensor._array, tensor._node, tensor._slot = array, node, slot


class _Recorder:
    """Writes a row for each call of a module, and books each operation on the innermost one."""

    def __init__(self, model: Module, inputs: list[Any]):
        self.model = model
        self.paths = {module: path for path, module in model.named_modules()}
        self.fields = ReceptiveFields(inputs)
        self.rows: list[Row] = []
        self.stack: list[Row] = []
        self.called: set[Module] = set()
        self.counted: set[int] = set()
        # Parameters, buffers and inputs are there anyhow, and no activations.
        given = [*model.parameters(), *model.buffers(), *inputs]
        self.kept = {_memory(t._array)[0] for t in given}
        self.alive: list[Any] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Have `enter` and `leave` called around each module; the hooks of the user stay."""
        for module in self.paths:
            hooks = Hooks()
            if module._hooks is not None:
                for name, registered in vars(module._hooks).items():
                    getattr(hooks, name).update(registered)
            Hooks.add(hooks.forward_pre, Hook(self.enter), prepend=True)
            Hooks.add(hooks.forward, Hook(self.leave), prepend=False)
            module._hooks = hooks
        yield

    def enter(self, module: Module, args: Any) -> None:
        row = Row(self.paths[module], type(module).__name__, len(self.stack))
        if self.stack:
            self.stack[-1].is_layer = False
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in self.counted:
                self.counted.add(id(parameter))
                row.parameters += parameter.size
        self.called.add(module)
        self.rows.append(row)
        self.stack.append(row)

    def leave(self, module: Module, args: Any, output: Any) -> None:
        row = self.stack.pop()
        outputs = output if isinstance(output, tuple | list) else (output,)
        values = [z for z in outputs if isinstance(z, Value)]
        shapes = tuple(z.shape for z in values)
        row.output_shape = shapes[0] if len(shapes) == 1 else shapes
        row.receptive_field = self.fields.text(values[0]) if values else ""

    def count(self, primitive: Any, inputs: Any, outputs: Any, params: dict[str, Any]) -> None:
        """An observer of `graph.observe`."""
        several = outputs if isinstance(outputs, tuple) else (outputs,)
        self.fields.follow(primitive, inputs, several, params)
        if not self.stack:
            return
        row = self.stack[-1]
        if any(x.dtype.kind in "fc" for x in inputs):  # sums of indices are no arithmetic on floats
            row.flops += primitive.flops(several, *inputs, **params)
        node = several[0]._node
        if isinstance(node, Node):
            for array in (*node.inputs, *node.outputs):
                if not isinstance(array, np.ndarray):
                    continue
                start, size = _memory(array)
                if start not in self.kept:
                    self.kept.add(start)
                    self.alive.append(array)
                    row.activation_bytes += size

    def uncalled(self) -> list[str]:
        """Paths of modules with parameters of their own that did not run."""
        return [
            path
            for module, path in self.paths.items()
            if module not in self.called and any(True for _ in module.parameters(recurse=False))
        ]


def _memory(array: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Where the memory behind a view lies, and its size; constants are stored as one element."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.__array_interface__["data"][0], array.nbytes


# --- text -----------------------------------------------------------------------------------------


def _shortened(value: float, units: tuple[str, ...], step: int) -> str:
    """1,234,567 as 1.2 M."""
    power = 0
    while value >= step and power < len(units) - 1:
        value, power = value / step, power + 1
    number = f"{value:.1f}" if power else f"{value:,.0f}"
    return f"{number} {units[power]}".strip()


def _flops(n: int) -> str:
    return _shortened(n, ("", "k", "M", "G", "T", "P"), 1000)


def _bytes(n: int) -> str:
    return _shortened(n, ("B", "KiB", "MiB", "GiB", "TiB"), 1024)


def _shape(shape: Any) -> str:
    return ", ".join(map(str, shape)) if shape and isinstance(shape[0], tuple) else str(shape)


def _as_text(s: Summary) -> str:
    seen = any(row.receptive_field for row in s.rows)
    titles = ["layer", "kind", "output", "parameters", "FLOPs", *(["sees"] if seen else [])]
    lines = [titles]
    for row in s.rows:
        cells = [
            row.path or "(model)", row.kind, _shape(row.output_shape), f"{row.parameters:,}",
            _flops(row.flops), *([row.receptive_field] if seen else []),
        ]  # fmt: skip
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    text = [f"{s.model} of {', '.join(map(str, s.input_shapes))}"]
    for line in lines:
        padded = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(padded).rstrip())
    frozen = s.parameters - s.trainable_parameters
    text.append(
        f"{s.parameters:,} parameters ({_bytes(s.parameter_bytes)})"
        + (f", {frozen:,} of them frozen" if frozen else "")
        + f", {_flops(s.flops)} FLOPs, {_bytes(s.activation_bytes)} kept for the way back"
    )
    if s.uncalled:
        text.append(f"not called: {', '.join(s.uncalled)}")
    return "\n".join(text)
