"""The name of a compiled program on disk: a digest of everything that it is made from.

That is the graph as it was traced (so that a program found on disk skips all passes and all
emission), how it is to be built, the instruction set, the versions of what compiles, and the
sources of this compiler themselves, so that a changed kernel is never mistaken for the old one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import marshal
import os
import pkgutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.compiler.ir import Graph, Value
from chainrule.compiler.native.target import Target
from chainrule.errors import require
from chainrule.graph import Array, Primitive

SPEECH = ("refuse",)
"""Parameters that only say how an error is worded; the graph at hand is asked for those."""


class NotKept(Exception):
    """Something that has no lasting name: a program with it is not kept on disk."""


@functools.cache
def primitives() -> dict[str, Primitive]:
    """The house's own primitives by name; those of users' functions have no lasting name."""
    import chainrule.primitives as rooms

    found: dict[str, Primitive] = {}
    for room in pkgutil.iter_modules(rooms.__path__):
        if not room.ispkg:
            module = importlib.import_module(f"{rooms.__name__}.{room.name}")
            for thing in vars(module).values():
                if isinstance(thing, Primitive) and found.setdefault(thing.name, thing) != thing:
                    raise NotKept(f"two primitives are called {thing.name!r}")
    return found


def encode(value: Any) -> Any:
    """A parameter of an operation as JSON can hold it, so that equal ones look equal.

    Raises:
        NotKept: for what cannot be written down, such as a function.
    """
    match value:
        case None | bool() | int() | str() if type(value) in (type(None), bool, int, str):
            return value
        case np.generic():
            return {"scalar": [value.dtype.str, value.tobytes().hex()]}
        case float():
            return {"float": struct.pack("<d", value).hex()}
        case complex():
            return {"complex": struct.pack("<dd", value.real, value.imag).hex()}
        case np.dtype():
            return {"dtype": value.str}
        case tuple():
            return {"tuple": [encode(x) for x in value]}
        case list():
            return [encode(x) for x in value]
        case slice():
            return {"slice": [encode(x) for x in (value.start, value.stop, value.step)]}
        case Graph():
            return {"graph": describe(value)}
    raise NotKept(f"a {type(value).__name__}")


def decode(record: Any) -> Any:
    """What `encode` was given.

    Raises:
        NotKept: for a graph, of which only a digest is kept.
    """
    if isinstance(record, list):
        return [decode(x) for x in record]
    if not isinstance(record, dict):
        return record
    ((kind, content),) = record.items()
    match kind:
        case "scalar":
            return np.frombuffer(bytes.fromhex(content[1]), np.dtype(content[0]))[0]
        case "float":
            return struct.unpack("<d", bytes.fromhex(content))[0]
        case "complex":
            return complex(*struct.unpack("<dd", bytes.fromhex(content)))
        case "dtype":
            return np.dtype(content)
        case "tuple":
            return tuple(decode(x) for x in content)
        case "slice":
            return slice(*[decode(x) for x in content])
    raise NotKept(f"a {kind}")


def _digest_of(array: Array) -> bytes:
    """Of the numbers; of what is repeated along an axis, once."""
    if not array.size:
        return b""
    once = array[tuple([slice(1) if not step else slice(None) for step in array.strides])]
    if once.nbytes <= 64:
        return once.tobytes()
    return hashlib.sha256(np.ascontiguousarray(once).data).digest()


_PLAIN = frozenset({bool, int, float, str, type(None)})


def _params(params: dict[str, Any]) -> list[Any]:
    """Parameters in plain form: most are numbers, or tuples of numbers, and stay as they are."""
    return [
        (name, value)
        if type(value) in _PLAIN or (type(value) is tuple and _PLAIN.issuperset(map(type, value)))
        else (name, encode(value))
        for name, value in params.items()
        if name not in SPEECH
    ]


def describe(graph: Graph) -> list[Any]:
    """A graph in a form that is equal for graphs that compute the same in the same way.

    Values are numbered in the order in which they appear; names and lines are left out, and what
    the results of an operation are too, since its primitive, its inputs and its parameters say so.

    Raises:
        NotKept: if there is an operation without a lasting name.
    """
    number: dict[Value, int] = {}
    for value in (*graph.inputs, *graph.constants):
        number[value] = len(number)
    inputs = [(x.shape, x.dtype.str) for x in graph.inputs]
    constants = [
        (x.shape, x.dtype.str, array.strides, _digest_of(array))
        for x, array in graph.constants.items()
    ]
    known, count = primitives(), len(number)
    ops: list[Any] = []
    for op in graph.ops:
        primitive, params = op.primitive, op.params
        name = primitive.name
        if known.get(name) is not primitive:
            raise NotKept(f"the operation {name!r}")
        ops.append(name)
        ops.append([number[x] for x in op.inputs])
        ops.append(_params(params) if params else None)
        for z in op.outputs:
            number[z] = count
            count += 1
    outputs = [number[z] for z in graph.outputs]
    return [inputs, constants, ops, outputs, sorted(graph.updates.items())]


_ROOMS = (
    "compiler", "compiler/native", "compiler/passes", "primitives", "primitives/kernels",
    "primitives/scalar",
)  # fmt: skip


@functools.cache
def _sources() -> list[list[Any]]:
    """Name, size and time of change of the files that say what is compiled, and how."""
    package = Path(__file__).parents[2]
    found = []
    for room in _ROOMS:
        for file in os.scandir(package / room):
            if file.name.endswith(".py"):
                status = file.stat()
                found.append([f"{room}/{file.name}", status.st_size, status.st_mtime_ns])
    return sorted(found)


@functools.cache
def _versions() -> list[Any]:
    llvm = require("llvmlite.binding", extra=None, purpose="compile")
    llvmlite = require("llvmlite", extra=None, purpose="compile")
    pointer = struct.calcsize("P")
    versions = [llvmlite.__version__, list(llvm.llvm_version_info), np.__version__]
    python = list(sys.version_info[:2])
    return [*versions, python, sys.byteorder, pointer, sys.platform, _sources()]


@functools.cache
def _context(target: Target, versions: str) -> bytes:
    """What all keys for a target depend on."""
    return json.dumps([versions, target.name, target.triple, target.cpu, target.features]).encode()


def key(target: Target, *parts: Any) -> str:
    """The digest of plain numbers, strings, bytes and lists, for a target, these versions and
    sources.

    Raises:
        NotKept: for anything else.
    """
    try:
        # This version of the format writes equal things equally, whoever else refers to them.
        record = marshal.dumps(parts, 2)
    except ValueError as error:
        raise NotKept("something that is not plain") from error
    versions = json.dumps(_versions(), separators=(",", ":"))
    return hashlib.sha256(_context(target, versions) + record).hexdigest()


def graph_key(graph: Graph, target: Target, options: Any = None) -> str | None:
    """The digest of a graph as it was traced; None if it holds what has no lasting name.

    Arguments:
        options: whatever else decides how it is built, plain as in `key`.
    """
    try:
        return key(target, describe(graph), options)
    except NotKept:
        return None
