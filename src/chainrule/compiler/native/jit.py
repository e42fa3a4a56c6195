"""From text to machine code in this process: LLVM through llvmlite."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from chainrule.compiler.native.target import Target
from chainrule.errors import ChainruleError, require

LEVEL = 2
"""The code generator's level: 3 takes longer and gives the same speed."""

LIBRARIES = 32
"""How many libraries one of LLVM's linkers loads."""


class CompileError(ChainruleError, RuntimeError):
    """LLVM refused what it was given: a fault of chainrule, never of the user."""


def _refused(what: str, error: Exception) -> CompileError:
    lines = [line.strip() for line in str(error).splitlines()]
    reason = "; ".join(line for line in lines if line.strip("^~ "))
    return CompileError(
        f"LLVM could not {what}: {reason}. This is a fault in chainrule and not in your program, "
        "which runs without compiling if CHAINRULE_COMPILE=0 is set."
    )


def machine(target: Target) -> Any:
    """LLVM's code generator for a target."""
    llvm = require("llvmlite.binding", extra=None, purpose="compile")
    if target.triple:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        chosen = llvm.Target.from_triple(target.triple)
    else:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        chosen = llvm.Target.from_default_triple()
    # The code model stays the one for code loaded at run time: code and constants may be mapped
    # more than 2 GiB apart, and "small" addresses would be cut off without a word.
    return chosen.create_target_machine(
        cpu=target.cpu, features=target.features, opt=LEVEL, reloc="pic"
    )


def _parse(text: str) -> Any:
    llvm = require("llvmlite.binding", extra=None, purpose="compile")
    try:
        return llvm.parse_assembly(text)
    except RuntimeError as error:
        raise _refused("read the code of a program", error) from error


def assemble(text: str, target: Target) -> bytes:
    """The object code of a module's text.

    Raises:
        CompileError: if LLVM refuses the text.
    """
    module = _parse(text)
    try:
        return machine(target).emit_object(module)
    except RuntimeError as error:
        raise _refused("make machine code of a program", error) from error


def assembly(text: str, target: Target) -> str:
    """The same, for reading."""
    return machine(target).emit_assembly(_parse(text))


def immortal(thing: Any) -> None:
    """Keep an object beyond the end of the interpreter."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class _Linkers:
    """LLVM's linkers into this process, one after another.

    A linker keeps about 8 KiB of each library for as long as it lives itself, which is as long as
    one of its libraries does. So each gets a number of libraries, and then there is another one: a
    process may load and drop any number of programs.
    """

    def __init__(self, target: Target):
        self._target = target
        self._linker: Any = None
        self._left = 0

    def take(self) -> Any:
        """The linker for one more library."""
        # No lock: two threads that come here at once make a linker each.
        linker = self._linker
        if self._left <= 0:
            llvm = require("llvmlite.binding", extra=None, purpose="compile")
            try:
                linker = self._linker = llvm.create_lljit_compiler(machine(self._target))
            except RuntimeError as error:
                raise _refused("load programs into this process", error) from error
            self._left = LIBRARIES
        self._left -= 1
        return linker


_linkers = functools.cache(_Linkers)


_numbers = itertools.count()


class Library:
    """Object code loaded into this process; it is unloaded when this object goes.

    Arguments:
        code: the object code.
        names: the functions and tables to look up; see `addresses`.
        imports: addresses of functions that the code calls and this process does not export.

    Raises:
        CompileError: if the code does not define a name, or calls a function that is nowhere.
    """

    def __init__(
        self,
        code: bytes,
        names: Iterable[str],
        target: Target,
        imports: Mapping[str, int] | None = None,
    ):
        llvm = require("llvmlite.binding", extra=None, purpose="compile")
        linker = _linkers(target).take()
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for name, address in (imports or {}).items():
            builder.import_symbol(name, address)
        names = list(names)
        for name in names:
            builder.export_symbol(name)
        try:
            self._tracker = builder.link(linker, f"chainrule{next(_numbers)}")
        except RuntimeError as error:
            raise _refused("load a program", error) from error
        self.addresses = {name: self._tracker[name] for name in names}
