"""The state of a run as one file: nested dictionaries and lists of numbers, text and arrays.

Arrays become arrays of a safetensors file, named by their path, like `/optimizer/state/0/exp_avg`.
All the rest is JSON in its metadata, in which every container and array is an object of one entry
that names its kind:

    {"dict": [[key, value], ...]}   keys are strings or integers, in order
    {"list": [...]}, {"tuple": [...]}
    {"array": name}, {"tensor": name}, {"scalar": name}     a NumPy array, a Tensor, a NumPy number
    {"float": "inf"}                what JSON has no number for: inf, -inf, nan

Other floats are JSON numbers with all the digits that tell them apart, so they come back exactly.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from chainrule.errors import ArgumentError, DTypeError
from chainrule.graph import Value, make
from chainrule.serialize import container
from chainrule.serialize.container import Array, PathLike
from chainrule.serialize.weights import native

_TREE = "tree"


def save_state(tree: Any, path: PathLike) -> None:
    """Store a tree of states, such as `{"model": model.state_dict(), "epoch": 3}`, in one file.

    The tree is made of dictionaries (keys: strings and integers), lists, tuples, strings, integers,
    floats, bools, None, NumPy arrays and tensors, and comes back from `load_state` exactly: dtypes,
    types and order of keys, every bit of the floats. As with `cr.save`, the file appears at once or
    not at all.

    Raises:
        DTypeError: for anything else in the tree; the message gives its path.
        FileError: if the file cannot be written.
    """
    arrays: dict[str, Array] = {}
    try:
        encoded = _encode(tree, "", arrays)
        text = json.dumps(encoded, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ArgumentError(
            "the state is nested more deeply than Python can follow, or contains itself."
        ) from None
    container.write(path, arrays, {_TREE: text}, "state")


def load_state(path: PathLike) -> Any:
    """Read what `save_state` wrote.

    Raises:
        FileError: if the file cannot be read.
        CheckpointError: if it is another format, damaged, cut off, or from a newer chainrule.
    """
    contents = container.read(path)
    if contents.kind != "state":
        raise container.refuse(
            path, "it holds weights and not the state of a run; read it with cr.load."
        )
    try:
        return _decode(json.loads(contents.metadata[_TREE]), contents.arrays)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise container.refuse(path, f"its tree of states is damaged ({error!r}).") from error


def _encode(value: Any, where: str, arrays: dict[str, Array]) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, dict):
        return {"dict": [_encode_entry(k, v, where, arrays) for k, v in value.items()]}
    if type(value) in (list, tuple):
        items = [_encode(v, f"{where}/{i}", arrays) for i, v in enumerate(value)]
        return {type(value).__name__: items}
    if isinstance(value, Value):
        return {"tensor": _keep(value._array, where, arrays)}
    if isinstance(value, np.ndarray):
        return {"array": _keep(value, where, arrays)}
    if isinstance(value, float):  # np.float64 is a float, and becomes one
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, np.generic):
        return {"scalar": _keep(np.asarray(value), where, arrays)}
    raise DTypeError(
        f"the state at {where or '/'!r} is {value!r:.80}, a {type(value).__name__}; a state is "
        "made of dictionaries, lists, tuples, text, numbers, None, NumPy arrays and tensors."
    )


def _encode_entry(key: Any, value: Any, where: str, arrays: dict[str, Array]) -> list[Any]:
    if type(key) not in (str, int):
        raise DTypeError(
            f"the state at {where or '/'!r} has the key {key!r}; keys are strings or integers."
        )
    return [key, _encode(value, f"{where}/{key}", arrays)]


def _keep(array: Array, where: str, arrays: dict[str, Array]) -> str:
    """Put an array among the arrays of the file; returns its name there."""
    # Keys with a slash in them can make two paths alike; so can keys that are not valid Unicode.
    path = (where or "/").encode(errors="replace").decode()
    name, twin = path, 1
    while name in arrays:
        twin += 1
        name = f"{path}#{twin}"
    arrays[name] = native(f"the state at {where or '/'!r}", array)
    return name


def _decode(node: Any, arrays: dict[str, Array]) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    match kind:
        case "dict":
            return {key: _decode(value, arrays) for key, value in content}
        case "list":
            return [_decode(value, arrays) for value in content]
        case "tuple":
            return tuple(_decode(value, arrays) for value in content)
        case "tensor":
            return make(arrays[content])
        case "array":
            return arrays[content].copy()  # what is read may lie in read-only memory
        case "scalar":
            return arrays[content][()]
        case "float":
            return float(content)
    raise ValueError(f"unknown kind {kind!r}")
