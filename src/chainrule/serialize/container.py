"""A safetensors file with a checksum: named arrays and a dictionary of text.

The format (https://github.com/huggingface/safetensors): eight bytes with the length of a JSON
header, the header, which gives each array's dtype, shape and place, and the arrays' bytes,
little-endian. chainrule adds three entries to the header's `__metadata__`, which other readers pass
over:

    chainrule.format    the version of what is described here, 1
    chainrule.kind      "weights" or "state"
    chainrule.sha256    over the rest of the header, as JSON with sorted keys, and the arrays' bytes

Files are written here and not by the safetensors library, because its order of the metadata differs
from call to call (equal contents shall give equal files) and because it needs the whole file in
memory. They are read through the library, which checks that the header describes the bytes without
gaps or overlaps.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize

from chainrule import dtypes
from chainrule.errors import ArgumentError, CheckpointError
from chainrule.files import atomic_path, file_error

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]

FORMAT = 1
PREFIX = "chainrule."
_LONGEST_HEADER = 100_000_000  # the library's own limit
_AGAIN = "Copy or download it again, or go back to an earlier checkpoint."

_NAMES = {
    dtypes.bool_: "BOOL",
    dtypes.int8: "I8", dtypes.int16: "I16", dtypes.int32: "I32", dtypes.int64: "I64",
    dtypes.uint8: "U8", dtypes.uint16: "U16", dtypes.uint32: "U32", dtypes.uint64: "U64",
    dtypes.float32: "F32", dtypes.float64: "F64",
}  # fmt: skip
_DTYPES = {name: dtype.newbyteorder("<") for dtype, name in _NAMES.items()}


class Contents(NamedTuple):
    """What a file holds. `kind` is None for a file that chainrule did not write."""

    arrays: dict[str, Array]
    metadata: dict[str, str]
    kind: str | None


def storable(dtype: Any) -> bool:
    """Whether arrays of this dtype can be written."""
    return dtype in _NAMES


# --- writing --------------------------------------------------------------------------------------


def write(
    path: PathLike, arrays: Mapping[str, Array], metadata: Mapping[str, str], kind: str
) -> None:
    """Write arrays (of `storable` dtypes) and metadata to `path` in one atomic step."""
    # Wider elements first, so that every array starts at a multiple of its element's size. The
    # header keeps the caller's order, in which a reader finds the arrays again.
    chunks = {name: _as_bytes(array) for name, array in arrays.items()}
    placed = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    places, end = {}, 0
    for name in placed:
        places[name] = [end, end + chunks[name].size]
        end += chunks[name].size
    header: dict[str, Any] = {
        "__metadata__": {**metadata, PREFIX + "format": str(FORMAT), PREFIX + "kind": kind}
    }
    for name, array in arrays.items():
        dtype, shape = _NAMES[array.dtype], list(array.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": places[name]}
    checksum = _checksum(header, *(chunks[name] for name in placed))
    header["__metadata__"][PREFIX + "sha256"] = checksum
    text = _header_text(path, header)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in placed:
            file.write(chunks[name].data)


def _as_bytes(array: Array) -> Array:
    """The bytes of an array in row-major order, little-endian, without a copy where possible."""
    dense = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return dense.reshape(-1).view(np.uint8)


def _checksum(header: dict[str, Any], *chunks: Any) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _header_text(path: PathLike, header: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"cannot write {os.fspath(path)!r}: a name or text is not valid Unicode ({error})."
        ) from None
    if len(text) > _LONGEST_HEADER:
        raise ArgumentError(
            f"cannot write {os.fspath(path)!r}: its names and text take {len(text):,} bytes and "
            f"the format allows {_LONGEST_HEADER:,}; store long lists of numbers as arrays."
        )
    return text + b" " * (-len(text) % 8)  # so that the arrays are aligned


# --- reading --------------------------------------------------------------------------------------


def refuse(path: PathLike, why: str) -> CheckpointError:
    """The error for a file that cannot be used."""
    return CheckpointError(f"cannot load {os.fspath(path)!r}: {why}")


def read(path: PathLike) -> Contents:
    """Read a file and check all that can be checked.

    Raises:
        FileError: if it cannot be read.
        CheckpointError: if it is another format, damaged, cut off, or newer than this chainrule.
    """
    raw = _read_bytes(path)
    length = int.from_bytes(raw[:8], "little")
    try:
        entries = dict(deserialize(raw))
        header = json.loads(raw[8 : 8 + length])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise refuse(
            path, f"it is no safetensors file, or it is damaged or cut off ({error}). {_AGAIN}"
        ) from error
    metadata = header.get("__metadata__") or {}
    kind = _check_marks(path, header, metadata, memoryview(raw)[8 + length :])
    # The header's order is the writer's; the library gives the order of the bytes.
    arrays = {name: _array(path, name, entries[name]) for name in header if name != "__metadata__"}
    own = {key: text for key, text in metadata.items() if not key.startswith(PREFIX)}
    return Contents(arrays, own, kind)


def _read_bytes(path: PathLike) -> bytes:
    """The whole file, unless its beginning shows that it is something else."""
    try:
        with open(path, "rb") as file:
            _refuse_other_formats(path, file.read(128))
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            _refuse_short(path, file.read(9), size)
            file.seek(0)
            return file.read()
    except OSError as error:
        raise file_error("read", path, error) from error


def _refuse_other_formats(path: PathLike, start: bytes) -> None:
    if start[8:9] == b"{":
        return  # A length can look like a pickle's or an archive's first bytes.
    name = Path(path).with_suffix(".safetensors").name
    store = f"store them with cr.save({{'name': array, ...}}, {name!r})."
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or b"data.pkl" in start:
        raise refuse(
            path,
            "it is a pickle, as torch.save writes it. Reading a pickle can run any program hidden "
            "in it, so chainrule does not. Convert the file once, where PyTorch is installed: "
            "import torch; from safetensors.torch import save_file; "
            f"weights = torch.load({os.fspath(path)!r}, weights_only=True); "
            f"save_file({{k: v.clone().contiguous() for k, v in weights.items()}}, {name!r})",
        )
    if start.startswith(b"\x93NUMPY") or (start.startswith(b"PK\x03\x04") and b".npy" in start):
        raise refuse(path, f"it is a NumPy file. Read its arrays with numpy.load and {store}")
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        raise refuse(path, f"it is an HDF5 file. Read its arrays with h5py and {store}")


def _refuse_short(path: PathLike, start: bytes, size: int) -> None:
    if not size:
        raise refuse(path, f"it is empty. {_AGAIN}")
    if size < 9:
        raise refuse(path, f"it is cut off after {size} bytes. {_AGAIN}")
    if start[8:] != b"{":
        raise refuse(path, "it is no safetensors file; cr.save writes those.")
    needed = int.from_bytes(start[:8], "little") + 8
    if needed > size:
        raise refuse(
            path,
            f"it is cut off: its header needs {needed:,} bytes, the file has {size:,}. {_AGAIN}",
        )


def _check_marks(
    path: PathLike, header: dict[str, Any], metadata: dict[str, str], data: memoryview
) -> str | None:
    """Check version and checksum of a file that chainrule wrote; returns its kind."""
    marks = {key: text for key, text in metadata.items() if key.startswith(PREFIX)}
    if not marks:
        return None
    version = marks.get(PREFIX + "format", "")
    if version.isdecimal() and int(version) > FORMAT:
        raise refuse(
            path,
            f"a newer chainrule wrote it (format {version}; this one knows up to {FORMAT}). "
            "Upgrade with: pip install --upgrade chainrule",
        )
    expected = metadata.pop(PREFIX + "sha256", None)
    if version != str(FORMAT) or expected is None or expected != _checksum(header, data):
        raise refuse(
            path,
            "its checksum does not fit its contents: it was damaged, or changed by another "
            f"program. {_AGAIN}",
        )
    return marks.get(PREFIX + "kind")


def _array(path: PathLike, name: str, entry: dict[str, Any]) -> Array:
    """One array; half precision becomes float32, which holds every value of it."""
    stored, shape, data = entry["dtype"], tuple(entry["shape"]), entry["data"]
    if stored == "F16":
        return np.frombuffer(data, dtype="<f2").astype(np.float32).reshape(shape)
    if stored == "BF16":
        # A bfloat16 is the upper half of the float32 of the same value.
        upper = np.frombuffer(data, dtype="<u2").astype(np.uint32)
        return (upper << np.uint32(16)).view(np.float32).reshape(shape)
    if stored not in _DTYPES:
        raise refuse(
            path,
            f"{name!r} is stored as {stored}, which has no equal here; convert it with the program "
            "that wrote it, for example to float32.",
        )
    if stored == "BOOL" and (np.frombuffer(data, dtype=np.uint8) > 1).any():
        raise refuse(path, f"{name!r} is stored as BOOL but holds bytes other than 0 and 1.")
    array = np.frombuffer(data, dtype=_DTYPES[stored]).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
