"""What has no native kernel and runs in NumPy between native code: as docs/compile.md lists it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from operations import OPERATIONS, Case, Operation

import chainrule as cr
from chainrule.compiler import looping_checks, passes
from chainrule.compiler.families import family_of
from chainrule.compiler.native import loops

PAGE = Path(__file__).parents[2] / "docs" / "compile.md"
KINDS = {"bools": "b", "integers": "i", "unsigned integers": "u", "floats": "f"}
DTYPES = ("bool", "int32", "uint8", "float32", "complex64")
MOVED = frozenset({"gather", "scatter_set", "slice_set"})
"""Have kernels for complex numbers: they look at no element."""


def variants(op: Operation) -> list[list[np.ndarray]]:
    """Its first inputs that are not empty, in every dtype; and its first empty ones."""
    full = [case for case in op.cases if all(a.size for a in case.args)][:2]
    empty = [case for case in op.cases if not all(a.size for a in case.args)][:1]
    found: list[Any] = [(case, [np.asarray(a) for a in case.args]) for case in op.cases[:6]]
    found += [(case, list(case.args)) for case in empty]
    for case in full:
        for dtype in DTYPES:
            for all_of_them in (False, True):
                with np.errstate(all="ignore"):
                    found.append((case, [cast(a, dtype, all_of_them) for a in case.args]))
    return found


def cast(a: np.ndarray, dtype: str, also_indices: bool) -> np.ndarray:
    if a.dtype.kind not in "fc" and not also_indices:
        return a
    a = a if dtype.startswith("c") else np.abs(a.real) if dtype.startswith("u") else a.real
    return a.astype(dtype)


def graphs(op: Operation, case: Case, arrays: list[np.ndarray]) -> list[Any]:
    """The graphs of the operation and of its derivative, if it takes these inputs."""

    def call(*xs: Any) -> Any:
        return op.call(*xs, **case.params)

    def gradient(*xs: Any) -> Any:
        leaves = [x.detach().requires_grad_() if x.dtype.kind == "f" else x for x in xs]
        results = call(*leaves)
        results = results if isinstance(results, tuple | list) else [results]
        used = [z for z in results if z.requires_grad]
        cr.autograd.backward(used, [cr.cos(z.detach()) for z in used])
        return [x.grad for x in leaves if x.requires_grad and x.grad is not None]

    found = []
    for function in (call, gradient) if op.derivative else (call,):
        compiled = cr.compile(function, backend="numpy")
        try:
            compiled(*[cr.asarray(a) for a in arrays])
        except (cr.errors.ChainruleError, TypeError, ValueError, IndexError):
            continue  # nor does it take them eagerly
        found += [version.graph for version in compiled.versions]
    return found


def without_kernels(graph: Any) -> set[tuple[str, str, bool]]:
    """Name, kinds of its values, and whether one is empty, of what is left to NumPy."""
    graph = looping_checks.with_checks_outside(passes.run(graph))
    found = set()
    for op in graph.ops:
        values = (*op.inputs, *op.outputs)
        empty = any(v.size == 0 for v in values)
        if family_of(op) is None and not loops.supports(op):
            found.add((op.name, "".join(sorted({v.dtype.kind for v in values})), empty))
    return found


@pytest.fixture(scope="module")
def left_to_numpy() -> set[tuple[str, str, bool]]:
    found: set[tuple[str, str, bool]] = set()
    for op in OPERATIONS:
        for case, arrays in variants(op):
            for graph in graphs(op, case, arrays):
                found |= without_kernels(graph)
    return found


def listed(heading: str) -> str:
    """The entry of the page's table of what runs in NumPy."""
    (row,) = re.findall(rf"^\| {heading} \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    return row


def test_real_numbers(left_to_numpy: Any) -> None:
    found = {name for name, kinds, empty in left_to_numpy if "c" not in kinds and not empty}
    assert found == set(re.findall(r"`(\w+)`", listed("real numbers")))


def test_complex_numbers(left_to_numpy: Any) -> None:
    found = {name for name, kinds, _ in left_to_numpy if "c" in kinds}
    assert not found & MOVED
    assert set(re.findall(r"`(\w+)`", listed("complex numbers"))) == MOVED
    assert {"add", "mul", "matmul", "exp", "reshape", "cast", "sum"} <= found


def test_empty_values(left_to_numpy: Any) -> None:
    found = {name for name, kinds, empty in left_to_numpy if "c" not in kinds and empty}
    assert found == set(re.findall(r"`(\w+)`", listed("values without elements")))
