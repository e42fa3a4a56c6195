"""`cr.save` and `cr.load`: a dictionary of tensors in a safetensors file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from chainrule.errors import ArgumentError, DTypeError
from chainrule.graph import Value, make
from chainrule.serialize import container
from chainrule.serialize.container import Array, PathLike
from chainrule.tensor import Tensor

_OTHER_FORMATS = {
    ".bin", ".gguf", ".h5", ".hdf5", ".json", ".keras", ".npy", ".npz", ".onnx", ".pickle", ".pkl",
    ".pt", ".pth", ".yaml",
}  # fmt: skip


def save(
    tensors: Mapping[str, Any], path: PathLike, metadata: Mapping[str, str] | None = None
) -> None:
    """Store named tensors, such as `model.state_dict()`, in a safetensors file.

    The file appears in one step: whatever happens meanwhile, `path` holds the old file or the new
    one. Equal arguments give equal bytes. PyTorch, JAX and others read it with the safetensors
    library.

    Arguments:
        tensors: names with tensors or NumPy arrays, in any layout, of bool, integer or real dtype.
        path: the file, named `*.safetensors` by custom. Missing folders are made.
        metadata: text to store with them, such as `{"accuracy": "0.99"}`.

    Raises:
        DTypeError: if something is no tensor, or complex; the message names it.
        ArgumentError: if the name of the file promises another format.
        FileError: if the file cannot be written (full disk, read-only folder, ...).
    """
    suffix = Path(path).suffix.lower()
    if suffix in _OTHER_FORMATS:
        raise ArgumentError(
            f"cr.save writes the safetensors format, but {os.fspath(path)!r} ends in {suffix}, "
            f"which promises another; name it {Path(path).with_suffix('.safetensors').name!r}."
        )
    if not isinstance(tensors, Mapping):
        hint = " Pass model.state_dict()." if hasattr(tensors, "state_dict") else ""
        raise DTypeError(
            f"cr.save takes a dictionary of names and tensors, but got {_kind(tensors)}.{hint}"
        )
    arrays = {_check_name(name): _stored(name, value) for name, value in tensors.items()}
    container.write(path, arrays, _check_metadata(metadata), "weights")


@overload
def load(path: PathLike, *, metadata: Literal[False] = False) -> dict[str, Tensor]: ...
@overload
def load(
    path: PathLike, *, metadata: Literal[True]
) -> tuple[dict[str, Tensor], dict[str, str]]: ...
def load(path: PathLike, *, metadata: bool = False) -> Any:
    """Read a safetensors file as a dictionary of tensors.

    float16 and bfloat16 become float32, without loss; other dtypes stay. Files that `cr.save` wrote
    are checked against their checksum.

    Arguments:
        path: the file; what counts is what is in it, not its suffix.
        metadata: return a tuple of the tensors and of the text stored with them.

    Raises:
        FileError: if the file cannot be read.
        CheckpointError: if it is another format (pickles are never read), damaged or cut off, or
            holds an array of a dtype that does not exist here, such as float8.
    """
    contents = container.read(path)
    if contents.kind == "state":
        raise container.refuse(
            path,
            "it holds the state of a run and not weights alone; read it with "
            "chainrule.serialize.load_state, and take the model's part of it.",
        )
    tensors = {name: make(array) for name, array in contents.arrays.items()}
    return (tensors, contents.metadata) if metadata else tensors


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise DTypeError(f"names in cr.save are strings, but one is {name!r}.")
    if name == "__metadata__":
        raise ArgumentError("'__metadata__' is the one name that safetensors keeps for itself.")
    return name


def _stored(name: object, value: object) -> Array:
    if isinstance(value, Value):
        array = value._array
    elif isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
    else:
        nested = isinstance(value, Mapping | list | tuple)
        advice = (
            "chainrule.serialize.save_state stores nested ones, such as an optimiser's state"
            if nested
            else "make it a tensor with cr.asarray, or put it into the metadata as text"
        )
        raise DTypeError(
            f"cr.save takes tensors and NumPy arrays, but {name!r} is {_kind(value)}; {advice}."
        )
    return native(f"{name!r}", array)


def native(where: str, array: Array) -> Array:
    """The array in the machine's byte order, if its dtype can be stored."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if container.storable(array.dtype):
        return array
    advice = (
        "store its real and imaginary parts under two names"
        if array.dtype.kind == "c"
        else "cast it to one of chainrule's dtypes first, such as float32"
    )
    raise DTypeError(f"{where} is {array.dtype}, which cannot be stored here; {advice}.")


def _check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    metadata = dict(metadata or {})
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise DTypeError(
                f"metadata is text by name, but {key!r} is {text!r}; write str(...) around it."
            )
        if key.startswith(container.PREFIX):
            raise ArgumentError(
                f"metadata {key!r} begins with {container.PREFIX!r}, which chainrule uses itself."
            )
    return metadata
