"""Object code in this process: loaded, unloaded, refused."""

from __future__ import annotations

import ctypes
import gc

import pytest

from chainrule.compiler.native.jit import CompileError, Library, assemble, assembly
from chainrule.compiler.native.target import host
from chainrule.compiler.native.text import Function, Module


def square() -> str:
    module = Module(host())
    f = Function(module, "square", "i64 %x", "i64", internal=False)
    f.finish(f.mul(f.arg("x"), f.arg("x")))
    return module.text()


def test_functions_run_while_their_library_lives():
    library = Library(assemble(square(), host()), ["square"], host())
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.addresses["square"])
    assert function(12) == 144


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
