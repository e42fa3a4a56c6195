"""Object code in this process: loaded, unloaded, refused."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule.compiler import build as building
from chainrule.compiler.ir import Graph
from chainrule.compiler.native import jit
from chainrule.compiler.native.jit import CompileError, Library, assemble, assembly
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.native.text import Function, Module
from chainrule.errors import ChainruleWarning, MissingExtraError
from chainrule.graph import Spec
from chainrule.primitives.elementwise import exp


def square() -> str:
    module = Module(host())
    f = Function(module, "square", "i64 %x", "i64", internal=False)
    f.finish(f.mul(f.arg("x"), f.arg("x")))
    return module.text()


def test_functions_run_while_their_library_lives():
    library = Library(assemble(square(), host()), ["square"], host())
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.addresses["square"])
    assert function(12) == 144


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_libraries_that_were_dropped_leave_no_memory():
    def resident() -> float:
        gc.collect()
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * mmap.PAGESIZE / 2**10

    code = assemble(square(), host())
    for _ in range(200):
        Library(code, ["square"], host())
    before = resident()
    for _ in range(400):
        Library(code, ["square"], host())
    assert resident() - before < 400  # KiB: less than 1 for each; one linker for all kept 8


def test_libraries_of_the_same_names_live_side_by_side():
    code = assemble(square(), host())
    libraries = [Library(code, ["square"], host()) for _ in range(5)]
    assert len({x.addresses["square"] for x in libraries}) == 5


def test_libraries_are_unloaded():
    def executable() -> int:
        try:
            with open("/proc/self/maps", encoding="ascii") as maps:
                return sum(" r-xp " in line and " 00:00 0" in line for line in maps)
        except OSError:
            pytest.skip("no /proc here")

    code = assemble(square(), host())
    libraries = [Library(code, ["square"], host()) for _ in range(3)]
    before = executable()
    libraries += [Library(code, ["square"], host()) for _ in range(60)]
    assert executable() > before
    del libraries
    gc.collect()
    assert executable() <= before


def test_assembly_can_be_read():
    assert "square" in assembly(square(), host())


def test_llvms_refusals_are_explained():
    broken = square().replace("mul i64", "mull i64")
    with pytest.raises(CompileError, match=r"could not read .*mull i64.*CHAINRULE_COMPILE=0"):
        assemble(broken, host())
    code = assemble(square(), host())
    with pytest.raises(CompileError, match=r"could not load a program.*cube"):
        Library(code, ["cube"], host())
    with pytest.raises(CompileError, match="could not load"):
        Library(code[: len(code) // 2], ["square"], host())
    calling = "declare void @nobody_has_this()\ndefine void @f() {\n"
    calling += " call void @nobody_has_this()\n ret void\n}\n"
    with pytest.raises(CompileError, match=r"could not load.*f"):
        Library(assemble(calling, host()), ["f"], host())


@pytest.fixture
def graph() -> Graph:
    g = Graph()
    x = g.input(Spec((3,), np.dtype("float32")))
    g.outputs = [g.add(exp, x)]
    return g


def check_numpy(graph: Graph, reason: str, monkeypatch) -> None:
    """It runs in NumPy, and says why, once."""
    monkeypatch.setattr(building, "_warned", False)
    x = np.array([0, 1, 2], np.float32)
    with pytest.warns(ChainruleWarning, match=reason) as seen:
        for _ in range(2):
            program = building.build(graph)
            np.testing.assert_array_equal(program.run([x])[0], np.exp(x))
    assert len(seen) == 1 and program.code is None
    assert seen[0].filename == __file__
    with pytest.raises((MissingExtraError, CompileError, OSError)):
        building.build(graph, building.Options(required=True))


def test_without_llvm_it_runs_in_numpy(graph, monkeypatch):
    host.cache_clear()
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    try:
        reason = "in NumPy, because LLVM is missing.*'llvmlite' is needed.*pip install llvmlite "
        check_numpy(graph, reason, monkeypatch)
    finally:
        host.cache_clear()


def test_where_llvm_fails_it_runs_in_numpy(graph, monkeypatch):
    def broken(text: str, target: Target) -> bytes:
        raise CompileError("LLVM could not make machine code of a program: out of luck.")

    monkeypatch.setattr(jit, "assemble", broken)
    check_numpy(graph, "in NumPy, because LLVM .* failed: .*out of luck", monkeypatch)


def test_where_llvmlite_does_not_load_it_runs_in_numpy(graph, monkeypatch):
    def broken(name: str | None = None) -> Target:
        raise OSError("Could not find libllvmlite.so")

    monkeypatch.setattr(building, "host", broken)
    check_numpy(graph, r"cannot be loaded .*libllvmlite.*--force-reinstall llvmlite", monkeypatch)


def test_what_is_not_llvms_fault_is_not_put_on_llvm(monkeypatch):
    """A defect of the compiler is called one; with backend="native" it raises."""

    def broken(*args: object) -> bytes:
        raise RecursionError("too deep")

    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    monkeypatch.setattr(building, "assemble", broken)
    x = cr.ones((3,))
    with pytest.warns(ChainruleWarning, match="defect of chainrule") as seen:
        np.testing.assert_array_equal(cr.compile(lambda x: x * 2)(x), 2 * x.numpy())
    assert len(seen) == 1 and "LLVM" not in str(seen[0].message)
    assert seen[0].filename == __file__
    with pytest.raises(RecursionError):
        cr.compile(lambda x: x * 2, backend="native")(x)
