"""The usual call of a compiled function as a function of CPython, in LLVM IR.

A step is called a thousand times in the same way. Python needs 3 to 15 microseconds to see that
nothing has changed but numbers; a loop over addresses needs a fraction of one. So `compiler.fast`
writes down, as words in one record, what a call has to look at and to do, and the function here
(a builtin with CPython's fast calling convention, see `builtin`) goes through the record:

1. the arguments: their types, shapes, dtypes and memory, which goes into the program's table;
   numbers among them are read in 3;
2. memory for what is returned and for gradients, and the tensors that are returned;
3. the world: words of memory, entries of dictionaries and contents of lists that must be what they
   were; step counters and what is computed from them;
4. the program;
5. gradients and counters are handed out.

Whatever is not as usual makes it return `unusual`, with nothing changed, and the way through Python
(`Version.holds`, `Version.run`) takes over; that one says what a call means. Python code can run in
1 and 2 only (a finaliser, when something is allocated), so that no other thread comes between 3 and
4 where the program keeps Python's lock.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from chainrule.compiler.native import cache, cache_keys
from chainrule.compiler.native.jit import Library, assemble, immortal
from chainrule.compiler.native.runtime_objects import Layout, layout
from chainrule.compiler.native.target import Target, host
from chainrule.graph import Array

_LISTS = """words checks arguments captured entries contents given sources steps guards fills
counters outputs gradients modes"""
_FIELDS = """tensor value ndarray none zero true false values dirty turn renew run late job pool
enter status failed unusual single calls"""
RECORD = {name: 8 * n for n, name in enumerate(_FIELDS.split())}
LISTS = {name: 8 * len(RECORD) + 16 * n for n, name in enumerate(_LISTS.split())}
"""Each list is an address and a count."""
RECORD_WORDS = len(RECORD) + 2 * len(LISTS)

ROWS = {
    "checks": ("method",),
    "arguments": ("dtype", "ndim", "shape", "needs", "table"),
    "captured": ("tensor",),
    "words": ("address", "mask", "expected"),
    "entries": ("dict", "key", "expected"),
    "contents": ("object", "dict", "count", "expected"),
    "given": ("argument", "position"),
    "sources": ("dict", "key", "position", "first"),
    "steps": ("function", "result", "count", "x", "y", "z"),
    "guards": ("position", "told"),
    "fills": ("position", "kind", "address"),
    "counters": ("dict", "key", "position"),
    "outputs": ("pool", "take", "table", "node"),
    "gradients": ("slot", "table", "first", "second", "first_data", "second_data"),
    "modes": ("object", "name", "expected"),
}
"""The fields of the lists' rows."""
NUMBER = (1 << 64) - 1
"""In the place of an argument's dimensions: it is a number, and `dtype` is its type."""
KINDS = {"float32": 0, "float64": 1, "int64": 2}
"""The dtypes that a number can be filled in as."""

PYTHON = {
    "PyDict_GetItemWithError": ("ptr", "ptr", "ptr"),
    "PyDict_SetItem": ("i32", "ptr", "ptr", "ptr"),
    "PyDict_Next": ("i32", "ptr", "ptr", "ptr", "ptr"),
    "PyDict_Size": ("i64", "ptr"),
    "PyErr_Clear": ("void",),
    "PyErr_Occurred": ("ptr",),
    "PyFloat_AsDouble": ("double", "ptr"),
    "PyList_GetItem": ("ptr", "ptr", "i64"),
    "PyList_SetItem": ("i32", "ptr", "i64", "ptr"),
    "PyList_Size": ("i64", "ptr"),
    "PyLong_AsLongLong": ("i64", "ptr"),
    "PyObject_CallNoArgs": ("ptr", "ptr"),
    "PyObject_GetAttr": ("ptr", "ptr", "ptr"),
    "PyObject_RichCompareBool": ("i32", "ptr", "ptr", "i32"),
    "PyObject_Vectorcall": ("ptr", "ptr", "ptr", "i64", "ptr"),
    "PyTuple_New": ("ptr", "i64"),
    "PyTuple_SetItem": ("i32", "ptr", "i64", "ptr"),
    "PyType_GenericAlloc": ("ptr", "ptr", "i64"),
    "PyType_IsSubtype": ("i32", "ptr", "ptr"),
    "Py_DecRef": ("void", "ptr"),
    "Py_IncRef": ("void", "ptr"),
}
"""What is called of CPython's interface: the result's type and the arguments'."""
EQUAL = 2  # of CPython's comparisons


def imports() -> dict[str, int]:
    """The addresses of CPython's functions."""
    found = {}
    for name in PYTHON:
        function = getattr(ctypes.pythonapi, name)
        found[name] = ctypes.cast(function, ctypes.c_void_p).value or 0
    return found


class _Method(ctypes.Structure):
    """CPython's `PyMethodDef`."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("code", ctypes.c_void_p), ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )  # fmt: skip


FAST = 0x80  # METH_FASTCALL: the arguments come as an array and a count


class Builtins:
    """The native function of this process, and the builtin functions of Python that it makes."""

    def __init__(self, target: Target, places: Layout):
        from chainrule.compiler.native.runtime_call_ir import usual

        key = cache_keys.key(target, "call", repr(places))
        entry = cache.load(key)
        code = assemble(usual(target, places), target) if entry is None else entry.code
        if entry is None:
            cache.store(key, cache.Entry(b"", code, b""), "calls")
        self._library = Library(code, ["usual"], target, imports())
        self._method = _Method(b"usual", self._library.addresses["usual"], FAST, None)
        objects = ctypes.c_void_p, ctypes.py_object, ctypes.py_object
        make = ctypes.PYFUNCTYPE(ctypes.py_object, *objects)
        self._make = make(("PyCFunction_NewEx", ctypes.pythonapi))
        # Functions may be called to the very end of the process.
        immortal(self._library)
        immortal(self._method)

    def make(self, record: Array, held: Any) -> Callable[..., Any]:
        """A function that goes through a record; it keeps the record and `held` alive."""
        return self._make(ctypes.addressof(self._method), record, held)


@functools.cache
def builtins() -> Builtins | None:
    """This process's; None where calls have to go through Python."""
    places = layout()
    return None if places is None else Builtins(host(), places)
