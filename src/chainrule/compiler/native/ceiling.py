"""What one core can do at most: multiply-adds in registers, and bytes from memory.

Kernels are judged by their share of these. Processors change their clock from one second to the
next, so measure a ceiling right before and after whatever is compared with it.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.compiler.native.jit import Library, assemble
from chainrule.compiler.native.microkernel import itemsize, lanes_in, multiply_add
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.native.text import Function, Module, Reg, type_of, vector

ROUNDS = 20_000
STREAM = 64 << 20
"""Bytes that the bandwidth loop reads: more than the caches hold."""


def emit_multiply_adds(module: Module, name: str, type: str) -> int:
    """Write `void @name(ptr %out, i64 %rounds)`: chains of multiply-adds that need no memory.

    Returns:
        The floating-point operations of a round.
    """
    f = Function(module, name, "ptr %out, i64 %rounds", internal=False)
    target = f.target
    lanes = lanes_in(target, type)
    wide = vector(type, lanes)
    chains = min(12, target.registers - 3)
    x = f.splat(f.load(f.arg("out"), type), lanes)
    y = f.splat(f.load(f.at(f.arg("out"), 1, type), type), lanes)
    start = [f.number(wide, float(i)) for i in range(chains)]
    with f.loop(0, f.arg("rounds"), carry=start) as loop:
        sums = list(loop.carried)
        for _ in range(2):
            sums = [multiply_add(f, z, x, y) for z in sums]
        loop.next = sums
    total: Reg = loop.results[0]
    for z in loop.results[1:]:
        total = f.fadd(total, z)
    f.store(total, f.arg("out"))
    f.finish()
    return 2 * 2 * chains * lanes


def emit_stream(module: Module, name: str) -> None:
    """Write `void @name(ptr %data, i64 %vectors)`: read memory from one end to the other."""
    f = Function(module, name, "ptr %data, i64 %vectors", internal=False)
    lanes = lanes_in(f.target, "float")
    wide = vector("float", lanes)
    with f.loop(0, f.arg("vectors"), 8, carry=[f.zero(wide)] * 8) as loop:
        at = f.at(f.arg("data"), f.mul(loop.index, lanes), "float")
        loop.next = [
            f.fadd(z, f.load(f.at(at, i * lanes, "float"), wide))
            for i, z in enumerate(loop.carried)
        ]
    total = loop.results[0]
    for z in loop.results[1:]:
        total = f.fadd(total, z)
    f.store(total, f.arg("data"))
    f.finish()


class Ceiling:
    """The loops for one instruction set and dtype, ready to be timed."""

    def __init__(self, target: Target | None = None, dtype: Any = "float32"):
        target = target or host()
        type = type_of(dtype)
        module = Module(target)
        self.flops_per_round = emit_multiply_adds(module, "multiply_adds", type)
        emit_stream(module, "stream")
        self.library = Library(assemble(module.text(), target), ["multiply_adds", "stream"], target)
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
        self._multiply_adds = kind(self.library.addresses["multiply_adds"])
        self._stream = kind(self.library.addresses["stream"])
        self.vector_bytes = target.vector_bytes
        self._size = itemsize(type)
        self._dtype = np.dtype(dtype)

    def flops(self, rounds: int = ROUNDS, repeat: int = 3, threads: int = 1) -> float:
        """Floating-point operations a second, the best of a few runs of about half a millisecond.

        Arguments:
            threads: how many run at once; the sum over them.
        """

        def run(_: int) -> None:
            out = np.full(64, 0.5, self._dtype)
            self._multiply_adds(out.ctypes.data, rounds)

        return threads * rounds * self.flops_per_round / _best(run, repeat, threads)

    def bandwidth(self, nbytes: int = STREAM, repeat: int = 3, threads: int = 1) -> float:
        """Bytes a second that a loop reads from memory (or from a cache, if they fit one)."""
        vectors = nbytes // self.vector_bytes // 8 * 8
        data = [_zeros(nbytes) for _ in range(threads)]

        def run(number: int) -> None:
            self._stream(data[number].ctypes.data, vectors)

        return threads * vectors * self.vector_bytes / _best(run, repeat, threads)


def _zeros(nbytes: int) -> np.ndarray[Any, Any]:
    array = np.empty(nbytes // 4, np.float32)
    array[:] = 0  # written, so that every page exists
    return array


def _best(run: Callable[[int], None], repeat: int, threads: int) -> float:
    """The shortest time in which `threads` calls at once are done."""
    best = float("inf")
    for _ in range(repeat + 1):
        others = [threading.Thread(target=run, args=(i,)) for i in range(1, threads)]
        start = time.perf_counter()
        for thread in others:
            thread.start()
        run(0)
        for thread in others:
            thread.join()
        best = min(best, time.perf_counter() - start)
    return best


@functools.cache
def ceiling(target: Target | None = None, dtype: str = "float32") -> Ceiling:
    """The loops for an instruction set (the widest of this machine if None) and dtype."""
    return Ceiling(target, dtype)
