"""The functions in a program's code: each with its LLVM IR, its assembly, and what it calls."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_DEFINED = re.compile(r'^define [^\n]*?@"?([\w.$]+)"?\([^\n]*\n.*?^}', re.MULTILINE | re.DOTALL)
_CALLED = re.compile(r'@"?([\w.$]+)"?\(')
_LABEL = re.compile(r'^_?"?([A-Za-z][\w.$]*)"?:', re.MULTILINE)
_END = re.compile(r"^\.Lfunc_end|^\s*\.(?:section|size|cfi_endproc)\b", re.MULTILINE)


@dataclass(frozen=True)
class Code:
    """A module's functions by name.

    Attributes:
        llvm, assembly: the text of each.
    """

    llvm: dict[str, str]
    assembly: dict[str, str]

    @functools.cached_property
    def calls(self) -> dict[str, list[str]]:
        """For each function those of the module that it calls, in the order in which it does."""
        return {
            name: [
                called
                for called in dict.fromkeys(_CALLED.findall(text))
                if called in self.llvm and called != name
            ]
            for name, text in self.llvm.items()
        }

    def reached(self, name: str) -> list[str]:
        """A function and all that it calls, and they call, each once."""
        found: dict[str, None] = {}
        todo = [name]
        while todo:
            one = todo.pop(0)
            if one not in found:
                found[one] = None
                todo += self.calls[one]
        return list(found)


def code_of(llvm: str, assembly: str) -> Code:
    """Take the text of a module and of its assembly apart."""
    functions = {found[1]: found[0] for found in _DEFINED.finditer(llvm)}
    labels = [found for found in _LABEL.finditer(assembly) if found[1] in functions]
    parts = {}
    for n, label in enumerate(labels):
        stop = labels[n + 1].start() if n + 1 < len(labels) else len(assembly)
        end = _END.search(assembly, label.end(), stop)
        parts[label[1]] = assembly[label.start() : end.start() if end else stop].rstrip()
    return Code(functions, parts)
