"""Native choices and loops of unknown length: `cond` and `while_loop` as kernels.

The graphs inside become kernels like any others, which read and write the program's own memory; one
function looks at the condition and calls those that are wanted.

A `while_loop` keeps its carry where the result goes: each step computes the next carry beside it
and copies it there.
"""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.compiler import passes
from chainrule.compiler.ir import Graph, Op, Value
from chainrule.compiler.looping import owned, runs_natively
from chainrule.compiler.native.kernel import PARAMETERS, Buffer, Buffers, Kernel, strides_of
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Function, Module, Reg
from chainrule.compiler.schedule import sort
from chainrule.graph import Array
from chainrule.primitives.control import cond, while_loop
from chainrule.primitives.movement import identity_copy


class Part:
    """A graph inside a kernel.

    Attributes:
        inputs, outputs: of the graph, each output made by an operation.
        kernels: in the order in which they are called.
        constants: those that lie in memory.
    """

    def __init__(self, body: Graph, target: Target):
        from chainrule.compiler import fuse

        body, _ = owned(passes.run(body), {}, len(body.outputs))
        self.inputs, self.outputs = body.inputs, body.outputs
        self.kernels = sort([part for k in fuse.kernels(body, target) for part in k.settled({})])
        used = {v for k in self.kernels for v in (*k.reads, *k.looks)}
        self.constants: dict[Value, Array] = {
            v: array for v, array in body.constants.items() if v in used
        }
        made = {v for k in self.kernels for v in k.writes}
        self.temporary = [v for v in made if v not in self.outputs]
        self.calls: list[tuple[str, int]] = []

    @property
    def scratch(self) -> int:
        return max((k.scratch for k in self.kernels), default=0)

    def emit(self, module: Module, name: str, places: Buffers) -> None:
        """Write the kernels; `places` says where the values of the graph lie."""
        self.calls = []
        for i, kernel in enumerate(self.kernels):
            known = dict.fromkeys((*kernel.reads, *kernel.writes, *kernel.looks))
            kernel.emit(module, f"{name}_{i}", {v: _place(v, places) for v in known})
            self.calls.append((f"{name}_{i}", kernel.units))

    def run(self, f: Function) -> None:
        """Call them, in a function with the parameters of a kernel."""
        for name, units in self.calls:
            if units:
                last = Reg(str(units), "i64")
                f.run(name, f.arg("table"), Reg("0", "i64"), last, f.arg("scratch"))


def _place(v: Value, places: Buffers) -> Buffer:
    return places.get(v) or Buffer(0, 0, v.shape, strides_of(v.shape), v.dtype)


class CondKernel(Kernel):
    """One of two graphs, by a condition."""

    family = "cond"

    def __init__(self, op: Op, graph: Graph, target: Target):
        self.ops, self.op = [op], op
        self.parts = [Part(op.params[name], target) for name in ("then", "otherwise")]
        for part in self.parts:
            graph.constants.update(part.constants)
        constants = [v for part in self.parts for v in part.constants]
        self.reads = list(dict.fromkeys([*op.inputs, *constants]))
        self.writes = [*op.outputs, *[v for part in self.parts for v in part.temporary]]
        self.scratch = max(part.scratch for part in self.parts)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        for part, which in zip(self.parts, ("then", "otherwise"), strict=True):
            places = dict(buffers)
            places.update((v, buffers[x]) for v, x in _pairs(part.inputs, self.op.inputs[1:]))
            places.update((v, buffers[x]) for v, x in _pairs(part.outputs, self.op.outputs))
            part.emit(module, f"{name}_{which}", places)
        self.scratch = max(part.scratch for part in self.parts)
        f = Function(module, name, PARAMETERS)
        taken = f.load(buffers[self.op.inputs[0]].pointer(f), "i8")
        for part, how in zip(self.parts, ("ne", "eq"), strict=True):
            with f.when(f.icmp(how, taken, Reg("0", "i8"))):
                part.run(f)
        f.finish()


def _pairs(inner: Sequence[Value], outer: Sequence[Value]) -> list[tuple[Value, Value]]:
    return list(zip(inner, outer, strict=True))


class WhileKernel(Kernel):
    """A graph again and again, as long as another one says so."""

    family = "while"

    def __init__(self, op: Op, graph: Graph, target: Target):
        self.ops, self.op = [op], op
        self.test, self.body = Part(op.params["test"], target), Part(op.params["body"], target)
        self.parts = (self.test, self.body)
        consts = op.params["consts"]
        self.fixed, self.start = op.inputs[:consts], op.inputs[consts:]
        self.starts = self._copies(self.start, target)
        self.ends = self._copies(self.body.outputs, target)
        for part in self.parts:
            graph.constants.update(part.constants)
        constants = [v for part in self.parts for v in part.constants]
        self.reads = list(dict.fromkeys([*op.inputs, *constants]))
        temporary = [v for part in self.parts for v in part.temporary]
        self.writes = [*op.outputs, *self.test.outputs, *self.body.outputs, *temporary]
        self._settle()

    def _copies(self, values: Sequence[Value], target: Target) -> Part:
        """A part that copies values to where the carry lies."""
        graph = Graph(name="copies")
        for v in values:
            graph.outputs.append(graph.add(identity_copy, graph.input(v.spec)))
        return Part(graph, target)

    def _settle(self) -> None:
        self.scratch = max(p.scratch for p in (*self.parts, self.starts, self.ends))

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        carry, consts = self.op.outputs, len(self.fixed)
        for part, what in zip(self.parts, ("test", "body"), strict=True):
            places = dict(buffers)
            places.update((v, buffers[x]) for v, x in _pairs(part.inputs[:consts], self.fixed))
            places.update((v, buffers[x]) for v, x in _pairs(part.inputs[consts:], carry))
            part.emit(module, f"{name}_{what}", places)
        for part, what, source in (
            (self.starts, "start", self.start), (self.ends, "end", self.body.outputs),
        ):  # fmt: skip
            places = {v: buffers[x] for v, x in _pairs(part.inputs, source)}
            places.update((v, buffers[x]) for v, x in _pairs(part.outputs, carry))
            part.emit(module, f"{name}_{what}", places)
        self._settle()
        f = Function(module, name, PARAMETERS)
        head, body, done = f.label("head"), f.label("body"), f.label("done")
        self.starts.run(f)
        f.jump(head)
        f.start(head)
        self.test.run(f)
        goes_on = f.load(buffers[self.test.outputs[0]].pointer(f), "i8")
        f.branch(f.icmp("ne", goes_on, Reg("0", "i8")), body, done)
        f.start(body)
        self.body.run(f)
        self.ends.run(f)
        f.jump(head)
        f.start(done)
        f.finish()


def supports(op: Op) -> bool:
    """Whether a choice or a loop has native code: all of its graphs have."""
    names = {cond: ("then", "otherwise"), while_loop: ("test", "body")}.get(op.primitive)
    return names is not None and all(
        runs_natively(op.params[name]) and op.params[name].outputs for name in names
    )


def lower(op: Op, graph: Graph, target: Target) -> list[Kernel]:
    """The kernel of a choice or of a loop of unknown length."""
    kind = CondKernel if op.primitive is cond else WhileKernel
    return [kind(op, graph, target)]
