"""Programs made to try the runtime: every phase needs all of the one before it."""

from __future__ import annotations

import functools

import numpy as np

from chainrule.compiler.native.jit import assemble
from chainrule.compiler.native.kernel import PARAMETERS
from chainrule.compiler.native.program import (
    HostCall,
    Label,
    Phase,
    Program,
    Tables,
    Task,
    export_kernels,
)
from chainrule.compiler.native.target import host
from chainrule.compiler.native.text import Function, Module, Reg

FACTOR = 6364136223846793005
BUSY = 1000.0  # nanoseconds that a unit is said to cost, so that threads are wanted


def mixing(module: Module, name: str, units: int, source: int, target: int, delay: int) -> str:
    """target[u] = FACTOR source[(7 u + 3) % units] + u, after some idle rounds.

    `source` and `target` are offsets in the arena, in elements.
    """
    f = Function(module, name, PARAMETERS)
    arena = f.load(f.at(f.arg("table"), 0, "ptr"), "ptr")
    with f.loop(f.arg("lo"), f.arg("hi")) as u:
        other = f.urem(f.add(f.mul(u.index, 7), 3), units)
        x = f.load(f.at(f.at(arena, source, "i64"), other, "i64"), "i64")
        with f.loop(0, delay, carry=[x]) as wait:
            wait.next = [f.op("xor", wait.carried[0], Reg("0", "i64"))]
        y = f.add(f.mul(wait.results[0], FACTOR), u.index)
        f.store(y, f.at(f.at(arena, target, "i64"), u.index, "i64"))
    return f.finish()


@functools.cache
def code_of(units: int, delay: int) -> bytes:
    module = Module(host())
    names = [
        mixing(module, "there", units, 0, units, delay),
        mixing(module, "back", units, units, 0, delay),
    ]
    export_kernels(module, names)
    return assemble(module.text(), host())


def mixer(
    units: int, phases: int, delay: int = 1, cost: float = BUSY, chunk: int = 1, **more
) -> Program:
    """A program of so many phases, an even number; its result lies in the arena."""
    steps: list[Phase | HostCall] = [
        Phase((Task(p % 2, units, units * cost, chunk),)) for p in range(phases)
    ]
    tables = Tables(steps, [], [], arena=16 * units, kernels=[Label("there"), Label("back")])
    return Program(code_of(units, delay), tables, **more)


def result(program: Program, units: int) -> np.ndarray:
    return program.arena.view(np.int64)[:units]


def run(program: Program, units: int, seed: int = 0) -> np.ndarray:
    program.arena.view(np.int64)[: 2 * units] = seed
    program.call()
    return result(program, units).copy()


def expected(units: int, phases: int, seed: int = 0) -> np.ndarray:
    x = np.full(units, seed, np.int64)
    u = np.arange(units)
    for _ in range(phases):
        x = x[(7 * u + 3) % units] * np.int64(FACTOR) + u
    return x
