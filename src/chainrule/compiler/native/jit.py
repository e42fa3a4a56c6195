"""From text to machine code in this process: LLVM through llvmlite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chainrule.compiler.native.target import Target
from chainrule.errors import require

LEVEL = 2
"""The code generator's level: 3 takes longer and gives the same speed."""


def machine(target: Target) -> Any:
    """LLVM's code generator for a target."""
    llvm = require("llvmlite.binding", extra="full")
    if target.triple:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        chosen = llvm.Target.from_triple(target.triple)
    else:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        chosen = llvm.Target.from_default_triple()
    return chosen.create_target_machine(
        cpu=target.cpu, features=target.features, opt=LEVEL, reloc="pic"
    )


def assemble(text: str, target: Target) -> bytes:
    """The object code of a module's text."""
    llvm = require("llvmlite.binding", extra="full")
    module = llvm.parse_assembly(text)
    return machine(target).emit_object(module)


def assembly(text: str, target: Target) -> str:
    """The same, for reading."""
    llvm = require("llvmlite.binding", extra="full")
    return machine(target).emit_assembly(llvm.parse_assembly(text))


class Library:
    """Object code loaded into this process; its functions live as long as this object does."""

    _jit: Any = None
    _made = 0

    def __init__(
        self,
        code: bytes,
        names: Iterable[str],
        target: Target,
        imports: Mapping[str, int] | None = None,
    ):
        llvm = require("llvmlite.binding", extra="full")
        if Library._jit is None:
            Library._jit = llvm.create_lljit_compiler(machine(target))
        Library._made += 1
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for name, address in (imports or {}).items():
            builder.import_symbol(name, address)
        names = list(names)
        for name in names:
            builder.export_symbol(name)
        self._tracker = builder.link(Library._jit, f"chainrule{Library._made}")
        self.addresses = {name: self._tracker[name] for name in names}
