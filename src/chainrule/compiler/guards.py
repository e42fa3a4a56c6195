"""What a compiled function finds by name, and whether it is still what it was.

A function reads more than its arguments: globals, variables of the function around it, attributes
of the object that it is a method of. Tensors among these are inputs of the program wherever they
are found (`compiler.trace`), but *which* tensor, model or number a name stands for is decided while
the function is traced. So the names are looked at before each call: where one stands for something
else, the function is traced again.

Models and optimisers are looked into as well (which parts, in which mode, which hooks), but only
after something in the process has changed such a structure (`graph.structure.epoch`).
"""

from __future__ import annotations

import collections
import dis
import functools
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.compiler.traced import ABSENT
from chainrule.errors import ChainruleWarning, warn_at_users_line
from chainrule.graph import Value, structure

_SIMPLE = (bool, int, float, complex, str, bytes, type(None))
_OPAQUE = (types.ModuleType, type, types.BuiltinFunctionType, types.MethodDescriptorType)
MISSING: Any = object()
PLAIN = (*_SIMPLE, tuple)
"""Attributes of a module of these types are its settings: a program is compiled for them."""
_CONTAINERS = (list, dict, set, collections.deque)
_READING = frozenset({"copy", "count", "get", "index", "items", "keys", "values"})
LARGEST = 256  # entries of a container or attributes of an object that are looked at
SMALL = 1 << 20  # bytes of a NumPy array that are compared


def same(was: Any, now: Any) -> bool:
    """Whether a name stands for what it stood for: the same object, or an equal plain value."""
    return was is now or (type(was) is type(now) and isinstance(now, _SIMPLE) and was == now)


class Name:
    """A name that a function reads, and what it stood for.

    `room` is a function's globals (a dictionary and a key), a cell, or an object's attributes.
    """

    __slots__ = ("key", "label", "room", "was")

    def __init__(self, label: str, room: Any, key: Any):
        self.label, self.room, self.key = label, room, key
        self.was = self.now()

    def now(self) -> Any:
        if type(self.room) is types.CellType:
            try:
                return self.room.cell_contents
            except ValueError:
                return MISSING
        return self.room.get(self.key, MISSING)

    def holds(self) -> bool:
        return same(self.was, self.now())

    def reason(self) -> str:
        """What changed, in words."""
        return f"{self.label} was {self.was!r:.60} and is {self.now()!r:.60}"


class Contents:
    """A list, tuple or dictionary that a function reads: the same things at the same places."""

    __slots__ = ("label", "room", "was")

    def __init__(self, label: str, room: Any):
        self.label, self.room = label, room
        self.was = self.now()

    def now(self) -> list[Any]:
        return [*self.room, *self.room.values()] if isinstance(self.room, dict) else [*self.room]

    def holds(self) -> bool:
        now = self.now()
        return len(now) == len(self.was) and all(map(same, self.was, now))

    def reason(self) -> str:
        """What changed, in words."""
        return f"what is in {self.label!r} changed"


class Elements(Contents):
    """A NumPy array from outside, which is a constant: that tracing leaves its numbers alone."""

    __slots__ = ()

    def now(self) -> Any:
        return self.room.tobytes()

    def holds(self) -> bool:
        return self.was == self.now()


class Object:
    """A model or an optimiser, and what its own `_structure()` said when it was looked at."""

    __slots__ = ("object", "was")

    def __init__(self, object: Any):
        self.object = object
        self.was: list[Any] = []

    def look(self) -> None:
        """Take the structure as it is."""
        self.was = list(self.object._structure())

    def holds(self) -> bool:
        now = list(self.object._structure())
        return len(now) == len(self.was) and all(map(same, self.was, now))

    def reason(self) -> str:
        """What changed, in words."""
        return (
            f"the structure of a {type(self.object).__name__} changed: train() or eval(), a part, "
            "a hook, a setting"
        )


def underlying(function: Any) -> Any:
    """The Python function in a method, a partial or a decorated function; None if there is none."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return function if isinstance(function, types.FunctionType) else None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions written inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


@functools.lru_cache(512)
def reads(code: types.CodeType) -> tuple[list[tuple[str, ...]], frozenset[str]]:
    """The names that a code reads, each with the attributes after it; those that it assigns to."""
    stores = {i.argval for i in dis.get_instructions(code) if i.opname in _STORES}
    return list(dict.fromkeys(chains(code))), frozenset(stores)


def chains(code: types.CodeType) -> Iterator[tuple[str, ...]]:
    """The names that a code reads, with the attributes after them: ("self", "model", "weight")."""
    chain: list[str] = []
    for instruction in dis.get_instructions(code):
        operation = instruction.opname
        if operation in ("LOAD_ATTR", "LOAD_METHOD") and chain:
            chain.append(instruction.argval)
            continue
        if chain and operation not in ("CACHE", "PUSH_NULL"):
            yield tuple(chain)
            chain = []
        if operation.startswith(("LOAD_FAST", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF")):
            name = instruction.argval
            chain = [name[-1] if isinstance(name, tuple) else name]
    if chain:
        yield tuple(chain)


class Names:
    """Everything that a function, and the user's functions that it calls, find by name.

    Attributes:
        checks: to be looked at before each call.
        called: containers of which a method is called that may change them (`kept.append(x)`), and
            NumPy arrays: to be looked at after the trace.
        objects: models and optimisers among what the names stand for.
        tensors: the tensors among it, by identity.
    """

    def __init__(self, function: Any):
        self.checks: list[Name | Contents] = []
        self.called: list[Contents] = []
        self.objects: list[Any] = []
        self.tensors: set[int] = set()
        self._seen: set[Any] = set()
        while isinstance(function, functools.partial):
            for value in (*function.args, *function.keywords.values()):
                self._look_into("an argument of partial", value)
            function = function.func
        if not isinstance(function, types.FunctionType | types.MethodType):
            self._look_into("the function", function)
        self._look_into("the function", function)

    def settle(self, function: str, counted: list[str]) -> None:
        """After the trace: warn of what it has changed itself, and take it as it is."""
        checks = [*self.checks, *self.called]
        changed = [check for check in checks if not check.holds()]
        for check in changed:
            check.was = check.now()
        for label in (*[check.label for check in changed], *counted):
            warn_at_users_line(
                f"{function} changed {label} while it was compiled. In a compiled function that is "
                "done once, and not at each call. Return the value, or keep it in a tensor and "
                "assign to that: with cr.no_grad(): kept.copy_(value)."
            )
        self.called.clear()

    def _read(self, function: types.FunctionType, owner: Any = MISSING) -> None:
        """Look at what a function reads; `owner` is the object that it is a method of."""
        if (id(function), id(owner)) in self._seen:
            return
        self._seen.add((id(function), id(owner)))
        code = function.__code__
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for part in _codes(code):
            found, assigned = reads(part)
            for name, *attributes in found:
                if name in assigned and not attributes:
                    continue  # of these `warn_of_assignments` tells
                if name in cells:
                    value = self._name(name, cells[name], name)
                elif owner is not MISSING and part is code and name == code.co_varnames[0]:
                    value = owner
                elif name in code.co_varnames or name not in function.__globals__:
                    continue
                else:
                    value = self._name(name, function.__globals__, name)
                self._follow(name, value, attributes)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._look_into("a default", default)

    def _follow(self, label: str, value: Any, attributes: list[str]) -> None:
        """Look at value.a.b.c, as far as it can be looked at."""
        for name in attributes:
            if value is MISSING or isinstance(value, _SIMPLE):
                break
            if type(value) in (list, tuple, dict) and name in _READING:
                break
            if isinstance(value, _CONTAINERS):
                self.called.append(Contents(label, value))
                return
            if hasattr(value, "_structure"):
                self._look_into(label, value)
                if not hasattr(value, "_modules"):
                    return
            room = getattr(value, "__dict__", None)
            label = f"{label}.{name}"
            if isinstance(value, types.ModuleType):
                if _is_library(value.__name__):
                    return
                value = self._name(label, room, name)
            elif type(room) is dict and name in room:
                # The plain settings of a module are in its structure.
                of_module = hasattr(value, "_modules") and isinstance(room[name], PLAIN)
                value = room[name] if of_module else self._name(label, room, name)
            elif name in getattr(value, "_modules", ()):
                value = value._modules[name]
            else:
                value = self._of_class(label, value, name)
        self._look_into(label, value)

    def _of_class(self, label: str, owner: Any, name: str) -> Any:
        """Look at an attribute that an object has from its class."""
        found = getattr(type(owner), name, MISSING)
        method = found.fget if isinstance(found, property) else found
        if isinstance(method, types.FunctionType):
            if not _is_library(method.__module__):
                self._read(method, owner)
            return MISSING
        room = getattr(owner, "__dict__", None)
        if type(room) is dict and isinstance(found, _SIMPLE) and not hasattr(owner, "_modules"):
            self._name(label, room, name)  # the object may get one of its own
            self._name(label, type(owner).__dict__, name)
        return found

    def _name(self, label: str, room: Any, key: Any) -> Any:
        check = Name(label, room, key)
        if not isinstance(check.was, types.ModuleType) and (id(room), key) not in self._seen:
            self._seen.add((id(room), key))
            self.checks.append(check)
        return check.was

    def _look_into(self, label: str, value: Any) -> None:
        if isinstance(value, Value):
            self.tensors.add(id(value))
        elif isinstance(value, np.ndarray) and value.dtype.kind != "O":
            if value.nbytes <= SMALL:
                self.called.append(Elements(label, value))
        elif isinstance(value, (*_OPAQUE, *_SIMPLE)):
            return
        elif isinstance(value, types.MethodType):
            owner, called = value.__self__, underlying(value)
            self._look_into(label, owner)
            if called is not None and not _is_library(called.__module__):
                self._read(called, owner)
        elif isinstance(value, types.FunctionType | functools.partial):
            called = underlying(value)
            if called is not None and not _is_library(called.__module__):
                self._read(called)
        elif hasattr(value, "_structure"):
            if id(value) not in self._seen:
                self._seen.add(id(value))
                self.objects.append(value)
                self._look_into_parts(value)
        elif type(value) in (list, tuple, dict) and len(value) <= LARGEST:
            if id(value) not in self._seen:
                self._seen.add(id(value))
                self.checks.append(Contents(label, value))
                for part in value.values() if type(value) is dict else value:
                    self._look_into(label, part)
        else:
            call = vars(type(value)).get("__call__")
            if isinstance(call, types.FunctionType) and not _is_library(call.__module__):
                self._read(call, value)

    def _look_into_parts(self, value: Any) -> None:
        """Look at what the user's own modules read in `forward`, in a model."""
        if not hasattr(value, "_modules"):
            return
        parts = list(value.modules())
        self._seen.update(map(id, parts))
        for part in parts:
            forward = getattr(type(part), "forward", None)
            if isinstance(forward, types.FunctionType) and not _is_library(forward.__module__):
                self._read(forward, part)


_STORES = ("STORE_GLOBAL", "STORE_DEREF")


def _is_library(name: str | None) -> bool:
    """Whether a module is one that does not change while a program runs."""
    return (name or "").split(".")[0] in _LIBRARIES


_LIBRARIES = frozenset({"chainrule", "numpy", "scipy", *sys.stdlib_module_names} - {"__main__"})


def settings(module: Any) -> dict[str, Any]:
    """The plain attributes of a module."""
    return {name: value for name, value in vars(module).items() if isinstance(value, PLAIN)}


def put_setting(module: Any, name: str, value: Any) -> None:
    """Give a module a plain attribute, or take it away."""
    if value is ABSENT:
        vars(module).pop(name, None)
    else:
        vars(module)[name] = value
    structure.epoch += 1


def warn_of_assignments(function: Any) -> None:
    """Warn of assignments to globals and to variables outside: they are made once."""
    plain = underlying(function)
    if plain is None:
        return
    for code in _codes(plain.__code__):
        line = code.co_firstlineno
        for instruction in dis.get_instructions(code):
            where = instruction.positions
            line = (where.lineno if where is not None else None) or line
            outer = instruction.opname == "STORE_DEREF" and instruction.argval in (
                plain.__code__.co_freevars
            )
            if instruction.opname == "STORE_GLOBAL" or outer:
                warnings.warn_explicit(
                    f"{plain.__qualname__} assigns to {instruction.argval!r}, a variable outside "
                    "of it. In a compiled function that is done once, while it is compiled, and "
                    "not at each call. Return the value instead, or keep it in a tensor and assign "
                    "to that: with cr.no_grad(): kept.copy_(value).",
                    ChainruleWarning, code.co_filename, line, registry={},
                )  # fmt: skip
                return
