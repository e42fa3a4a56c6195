"""What a compiled function is called with and returns: nested structures and their leaves.

Tensors, NumPy arrays and Python's ints and floats are leaves; tuples, lists, dictionaries, named
tuples and dataclasses are structure; everything else is a constant, by its value if it can be
hashed and by its identity if not.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from chainrule.compiler.numbers import Number
from chainrule.graph import Value

Build = Callable[[Iterator[Any]], Any]

LEAVES = (Value, np.ndarray, np.generic, Number)


class Same:
    """An object that is compared by identity, and kept alive so that no other can have its."""

    __slots__ = ("object",)

    def __init__(self, object: Any):
        self.object = object

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Same) and self.object is other.object

    def __hash__(self) -> int:
        return id(self.object)


def constant_key(value: Any) -> Any:
    """What stands for a constant in a key: equal keys, equal constants."""
    if value is None or type(value) in (bool, str, bytes, int, float, complex, type(...)):
        return (type(value), value)
    if isinstance(value, range | slice):
        return (type(value), repr(value))
    try:
        hash(value)
    except TypeError:
        return Same(value)
    return Same(value) if type(value).__hash__ is object.__hash__ else (type(value), value)


def take_apart(tree: Any, leaves: list[Any]) -> tuple[Any, Build]:
    """Append the leaves of a tree; returns a key of the rest, and what builds it of others."""
    kind = type(tree)
    if issubclass(kind, Number):
        leaves.append(tree)
        return kind.kind, next
    if kind is int or isinstance(tree, float):  # NumPy's float64 is one of Python's
        leaves.append(tree if kind is int else float(tree))
        return int if kind is int else float, next
    if isinstance(tree, LEAVES):
        leaves.append(tree)
        return Value, next
    if kind is tuple or kind is list:
        parts = [take_apart(item, leaves) for item in tree]
        builds = [build for _, build in parts]
        return (kind, *[key for key, _ in parts]), lambda rest: kind([b(rest) for b in builds])
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return _take_named_tuple(tree, leaves)
    if isinstance(tree, dict):
        return _take_dict(tree, leaves)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return _take_dataclass(tree, leaves)
    return constant_key(tree), lambda rest: tree


def _take_named_tuple(tree: Any, leaves: list[Any]) -> tuple[Any, Build]:
    """A named tuple; what its `_static()` says is compiled for, and handed on by `_with_static`."""
    kind = getattr(type(tree), "_plain", type(tree))
    parts = [take_apart(item, leaves) for item in tree]
    builds = [build for _, build in parts]
    static = tree._static() if hasattr(tree, "_static") else None

    def build(rest: Iterator[Any]) -> Any:
        made = kind(*[b(rest) for b in builds])
        return made if static is None else made._with_static(static)

    return (kind, static, *[key for key, _ in parts]), build


def _take_dict(tree: dict[Any, Any], leaves: list[Any]) -> tuple[Any, Build]:
    parts = {key: take_apart(value, leaves) for key, value in tree.items()}

    def build(rest: Iterator[Any]) -> Any:
        made = {key: part[1](rest) for key, part in parts.items()}
        if type(tree) is dict:
            return made
        like = copy.copy(tree)  # an ordered or a default dict stays one
        like.update(made)
        return like

    return (type(tree), *[(constant_key(k), part[0]) for k, part in parts.items()]), build


def _take_dataclass(tree: Any, leaves: list[Any]) -> tuple[Any, Build]:
    names = [field.name for field in dataclasses.fields(tree)]
    parts = [take_apart(getattr(tree, name), leaves) for name in names]

    def build(rest: Iterator[Any]) -> Any:
        made = copy.copy(tree)
        for name, (_, part) in zip(names, parts, strict=True):
            object.__setattr__(made, name, part(rest))
        return made

    return (type(tree), *[key for key, _ in parts]), build


def leaf_key(leaf: Any) -> Any:
    """What a program is compiled for, of a leaf."""
    if isinstance(leaf, Value):
        return (leaf._array.shape, leaf._array.dtype, leaf._node is not None)
    if isinstance(leaf, np.ndarray | np.generic):
        return (leaf.shape, leaf.dtype, None)
    return type(leaf)


def described(key: Any) -> str:
    """A leaf's key in words."""
    if isinstance(key, tuple):
        shape, dtype, needs = key
        grad = ", requires_grad=True" if needs else ""
        return f"{dtype.name}{list(shape)}{grad}"
    return f"a Python {key.__name__}"


def labels(names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Where each leaf of a call stands: "images", "batch['labels'][0]"."""
    found: list[str] = []
    for i, value in enumerate(args):
        _label(names[i] if i < len(names) else f"argument {i}", value, found)
    for name, value in kwargs.items():
        _label(name, value, found)
    return found


def _label(path: str, tree: Any, found: list[str]) -> None:
    if isinstance(tree, LEAVES) or type(tree) is int or isinstance(tree, float):
        found.append(path)
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for name, item in tree._asdict().items():  # type: ignore[attr-defined]
            _label(f"{path}.{name}", item, found)
    elif type(tree) in (tuple, list):
        for i, item in enumerate(tree):
            _label(f"{path}[{i}]", item, found)
    elif isinstance(tree, dict):
        for key, item in tree.items():
            _label(f"{path}[{key!r}]", item, found)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for field in dataclasses.fields(tree):
            _label(f"{path}.{field.name}", getattr(tree, field.name), found)
