"""Instruction sets: what the generators need to know of a processor, as parameters.

`CHAINRULE_TARGET` chooses one by name (`avx512`, `avx2`, `neon`, `plain`) in place of the widest
that this processor has.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.errors import ArgumentError, require


@dataclass(frozen=True)
class Target:
    """One instruction set.

    Attributes:
        name: `avx512`, `avx2`, `neon` or `plain`.
        triple: LLVM's name of the machine; empty for this one.
        cpu, features: what LLVM is told.
        vector_bytes: the width of a vector register.
        registers: how many there are.
        tile: rows and vectors of the GEMM's register tile: `rows * vectors` accumulators, `vectors`
            operands and one broadcast must fit into the registers.
        masks: whether masked loads and stores are instructions (they never touch what is masked).
        fma: whether a fused multiply-add is an instruction.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    tile: tuple[int, int]
    masks: bool
    fma: bool

    def lanes(self, dtype: np.dtype[Any] | str) -> int:
        """Elements of a dtype in one vector register."""
        return max(1, self.vector_bytes // np.dtype(dtype).itemsize)


_X86_AVX2 = "+avx2,+fma,+bmi2,+f16c,+sse4.2,+avx"
_TARGETS = {
    "avx2": Target("avx2", "", "x86-64-v3", _X86_AVX2, 32, 16, (6, 2), True, True),
    "neon": Target(
        "neon", "aarch64-unknown-linux-gnu", "generic", "+neon", 16, 32, (6, 4), False, True
    ),
    "plain": Target("plain", "", "generic", "", 16, 16, (4, 2), False, False),
}


@functools.cache
def host(name: str | None = None) -> Target:
    """The target to compile for: `name`, `CHAINRULE_TARGET`, or the widest this machine has.

    Raises:
        ArgumentError: if the name is unknown or this processor lacks the instructions.
        MissingExtraError: if llvmlite is not installed.
    """
    llvm = require("llvmlite.binding", extra=None, purpose="compile")
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features()
    flat = features.flatten()
    arm = llvm.get_process_triple().startswith(("aarch64", "arm64"))
    known = dict(_TARGETS)
    # Without `prefer-256-bit` LLVM keeps 512-bit vectors whole.
    known["avx512"] = Target(
        "avx512", "", cpu, f"{flat},-prefer-256-bit", 64, 32, (14, 2), True, True
    )
    has = {
        "avx512": all(features.get(x) for x in ("avx512f", "avx512dq", "avx512bw", "avx512vl")),
        "avx2": bool(features.get("avx2") and features.get("fma")),
        "neon": arm,
        "plain": True,
    }
    wanted = name or os.environ.get("CHAINRULE_TARGET", "")
    if not wanted:
        wanted = next(x for x in ("avx512", "avx2", "neon", "plain") if has[x])
    if wanted not in known:
        raise ArgumentError(
            f"CHAINRULE_TARGET={wanted!r} names no instruction set; known: {', '.join(has)}."
        )
    if not has[wanted]:
        raise ArgumentError(
            f"this processor ({cpu}) cannot run {wanted}; it can run "
            f"{', '.join(x for x in has if has[x])}."
        )
    return known[wanted]


def foreign(name: str) -> Target:
    """A target to generate code for without running it."""
    return _TARGETS[name]
