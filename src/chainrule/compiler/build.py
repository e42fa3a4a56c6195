"""From a graph to a program: passes, kernels, memory, code.

program = build(graph)
program.run(inputs, outputs)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.compiler.ir import Graph
from chainrule.compiler.native import cache, cache_keys, cache_program
from chainrule.compiler.native.host import HostKernel, view_of
from chainrule.compiler.native.jit import CompileError
from chainrule.compiler.native.program import Program, export_kernels, memory
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.native.text import Module
from chainrule.errors import ChainruleError, FileError, MissingExtraError, warn_at_users_line

# What simplifies, schedules and emits is imported when a program is not found on disk.
if TYPE_CHECKING:
    from chainrule.compiler.plan import Plan
    from chainrule.compiler.schedule import Schedule

REDZONE = 256
MARK = 0xA5


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        native: False evaluates every operation in NumPy.
        simplify: False leaves the graph as it was traced.
        redzones: put marked bytes around every value in the arena and look at them after each run
            (slow; for tests). `CHAINRULE_REDZONES=1` turns it on everywhere.
        target: the instruction set; None for this machine's.
        required: raise where LLVM is missing or fails.
    """

    native: bool = True
    simplify: bool = True
    redzones: bool = field(default_factory=lambda: os.environ.get("CHAINRULE_REDZONES", "0") != "0")
    target: Target | None = None
    required: bool = False


class RedZoneError(ChainruleError, RuntimeError):
    """A program that wrote outside of its buffers: a defect of a kernel."""


def build(graph: Graph, options: Options | None = None) -> Program:
    """The program of a graph.

    Where LLVM is missing or fails, every operation is evaluated in NumPy, with one warning.

    Raises:
        MissingExtraError, CompileError, OSError: if that is so and `options.required`.
    """
    options = options or Options()
    if options.native:
        try:
            return _native(graph, options.target or host(), options)
        except (OSError, MissingExtraError, CompileError) as error:
            if options.required or isinstance(error, FileError):
                raise
            _warn(error)
    return assemble(simplified(graph, options), None, options)


def simplified(graph: Graph, options: Options) -> Graph:
    from chainrule.compiler import passes

    return passes.run(graph) if options.simplify else graph


def _native(graph: Graph, target: Target, options: Options) -> Program:
    """The program from disk, or a new one, which is kept there."""
    wanted = not options.redzones and cache.folder() is not None
    key = cache_keys.graph_key(graph, target, options.simplify) if wanted else None
    if key is not None and (found := cache_program.find(key, graph, target)) is not None:
        return found
    program = assemble(simplified(graph, options), target, options)
    if key is not None:
        cache_program.keep(key, program, program.plan, graph)
    return program


_warned = False


def _warn(error: Exception) -> None:
    """Say once, at the user's line, why programs run in NumPy, and what to do."""
    global _warned
    if _warned:
        return
    _warned = True
    reason = str(error)
    if isinstance(error, OSError):
        reason = (
            f"llvmlite cannot be loaded ({error}); install it anew with: "
            "pip install --force-reinstall llvmlite"
        )
    warn_at_users_line(
        f"a compiled function runs in NumPy, because LLVM is missing or failed: {reason} "
        "(Results are the same, but slower. CHAINRULE_COMPILE=0 turns compiling off. This warning "
        "comes once.)"
    )


def assemble(graph: Graph, target: Target | None, options: Options) -> Program:
    """Kernels, memory, code and program of a graph that has been simplified."""
    from chainrule.compiler.plan import plan, tables

    planned = plan(*schedule(graph, target), redzone=REDZONE if options.redzones else 0)
    code = None
    if planned.natives:
        assert target is not None
        code = emit(planned, target)
    kind = GuardedProgram if options.redzones else Program
    calls = host_calls(planned)

    def failed(program: Program, number: int) -> Exception:
        """What the check of a number says to the values that it found."""
        check = planned.checks[number - 1]
        return check.error(program.view(view_of(check.reads[0], planned.buffers)))

    program = kind(code, tables(planned), planned.constants, calls, failed, target)
    program.plan = planned
    return program


def schedule(graph: Graph, target: Target | None) -> tuple[Schedule, dict[Any, Any]]:
    """The kernels of a graph, and the strides of what does not lie row-major."""
    from chainrule.compiler import fuse, layout
    from chainrule.compiler.looping_checks import with_checks_outside
    from chainrule.compiler.schedule import arrange, own

    graph = own(with_checks_outside(graph) if target is not None else graph)
    kernels = fuse.kernels(graph, target)
    strides = layout.choose(graph, kernels)
    settled = [part for kernel in kernels for part in kernel.settled(strides)]
    arranged = arrange(graph, settled, lambda op: fuse.kernels_of(op, target, graph))
    return arranged, strides


def emit(planned: Plan, target: Target) -> bytes:
    """The object code of all native kernels."""
    from chainrule.compiler.native import jit

    return jit.assemble(text(planned, target), target)


def text(planned: Plan, target: Target) -> str:
    """The LLVM IR of all native kernels."""
    from chainrule.compiler import sharing

    module = Module(target)
    export_kernels(module, sharing.write(planned, module))
    return module.text()


def host_calls(planned: Plan) -> list[Callable[[Program], None]]:
    """The functions that run in NumPy between phases."""
    calls = []
    for i in planned.hosts:
        kernel = planned.schedule.kernels[i]
        assert isinstance(kernel, HostKernel)
        calls.append(kernel.call(planned.buffers_of(kernel)))
    return calls


class GuardedProgram(Program):
    """A program that looks at its red zones after every run."""

    plan: Plan
    private = True

    def _call(self) -> None:
        arena = self._settle_in(memory(self.tables.arena) if self.arena is None else self.arena)
        arena[:] = MARK
        super()._call()
        for offset, nbytes in self.plan.arena.zones:
            zone = arena[offset : offset + nbytes]
            if not bool(np.all(zone == MARK)):
                at = offset + int(np.argmax(zone != MARK))
                raise RedZoneError(f"a kernel wrote to byte {at} of the arena.\n{self.plan.arena}")
