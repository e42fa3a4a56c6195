"""Programs for another processor, linked with a small C program and run under QEMU."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.compiler import build, passes
from chainrule.compiler.ir import Graph
from chainrule.compiler.native.kernel import ARENA, CONSTANTS
from chainrule.compiler.native.program import KERNELS, HostCall
from chainrule.compiler.native.target import foreign
from chainrule.compiler.plan import plan, tables

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
MAIN = Path(__file__).with_name("emulate.c")


def available() -> bool:
    """Whether the cross compiler and the emulator are installed (gcc-aarch64-linux-gnu, libc6-dev-
    arm64-cross and qemu-user of Debian)."""
    return shutil.which(COMPILER) is not None and shutil.which(EMULATOR) is not None


class Emulated:
    """A program for NEON, with the `run` of `Program`.

    Raises:
        NotImplementedError: if a part of the graph runs in NumPy.
    """

    def __init__(self, graph: Graph, folder: Path):
        target = foreign("neon")
        planned = plan(*build.schedule(passes.run(graph), target))
        if planned.hosts or not planned.natives:
            raise NotImplementedError("NumPy takes part in this program")
        made = folder / "program.o"
        made.write_bytes(build.emit(planned, target))
        self.executable, self.planned, self.tables = folder / "program", planned, tables(planned)
        subprocess.run(
            [COMPILER, "-O1", "-static", f"-DKERNELS={KERNELS}", MAIN, made, "-o", self.executable],
            check=True,
        )

    def run(self, arrays: list[Any], outputs: Any = None) -> list[np.ndarray[Any, Any]]:
        """Run on inputs; the outputs, those that replace an input included."""
        t = self.tables
        buffers = {ARENA: bytes(t.arena), CONSTANTS: self.planned.constants}
        for place, array in zip(t.inputs, arrays, strict=True):
            buffers[place.slot] = np.ascontiguousarray(array).tobytes()
        for place in t.outputs:
            nbytes = int(np.prod(place.shape, dtype=np.int64)) * np.dtype(place.dtype).itemsize
            buffers.setdefault(place.slot, bytes(nbytes))
        calls = [
            (task.kernel, task.units)
            for step in t.steps
            if not isinstance(step, HostCall)
            for task in step.tasks
        ]
        parts = [struct.pack("<4q", max(buffers) + 1, t.scratch, len(calls), len(buffers))]
        for slot, data in buffers.items():
            parts += [struct.pack("<2q", slot, len(data)), data]
        parts += [struct.pack("<2q", *call) for call in calls]
        done = subprocess.run(
            [EMULATOR, self.executable], input=b"".join(parts), capture_output=True, check=False
        )
        assert done.returncode == 0, f"exit {done.returncode}: {done.stderr.decode()}"
        found, start = {}, 0
        for slot, data in buffers.items():
            found[slot] = done.stdout[start : start + len(data)]
            start += len(data)
        results = [np.frombuffer(found[p.slot], p.dtype).reshape(p.shape).copy() for p in t.outputs]
        for position, j in self.planned.schedule.graph.updates.items():
            arrays[j] = results[position]
        return results
