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
    Place,
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

    `source` and `target` are offsets in what is bound to slot 2, in elements.
    """
    f = Function(module, name, PARAMETERS)
    data = f.load(f.at(f.arg("table"), 2, "ptr"), "ptr")
    with f.loop(f.arg("lo"), f.arg("hi")) as u:
        other = f.urem(f.add(f.mul(u.index, 7), 3), units)
        x = f.load(f.at(f.at(data, source, "i64"), other, "i64"), "i64")
        with f.loop(0, delay, carry=[x]) as wait:
            wait.next = [f.op("xor", wait.carried[0], Reg("0", "i64"))]
        y = f.add(f.mul(wait.results[0], FACTOR), u.index)
        f.store(y, f.at(f.at(data, target, "i64"), u.index, "i64"))
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
    """A program of so many phases, an even number, on one array of 2 units numbers."""
    steps: list[Phase | HostCall] = [
        Phase((Task(p % 2, units, units * cost, chunk),)) for p in range(phases)
    ]
    place = Place(2, (2 * units,), "int64")
    tables = Tables(steps, [place], [place], kernels=[Label("there"), Label("back")])
    program = Program(code_of(units, delay), tables, **more)
    program.bind(2, np.zeros(2 * units, np.int64))
    return program


def result(program: Program, units: int) -> np.ndarray:
    return program.bound(2)[:units]


def run(program: Program, units: int, seed: int = 0) -> np.ndarray:
    program.bound(2)[:] = seed
    program.call()
    program.raise_late()
    return result(program, units).copy()


def expected(units: int, phases: int, seed: int = 0) -> np.ndarray:
    x = np.full(units, seed, np.int64)
    u = np.arange(units)
    for _ in range(phases):
        x = x[(7 * u + 3) % units] * np.int64(FACTOR) + u
    return x
