"""The file formats of MNIST (IDX) and CIFAR-10 (fixed records), plain or compressed with gzip."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from chainrule.errors import DataError
from chainrule.files import file_error

IDX_TYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
IDX_LIMIT = 1 << 32  # bytes; no file of this kind comes near it
CIFAR_RECORD = 1 + 3 * 32 * 32


@contextlib.contextmanager
def open_data(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for reading, through gzip if it is compressed (by its content, not its name).

    Raises:
        FileError: if it cannot be opened.
        DataError: if what is read from it turns out to be damaged.
    """
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not compressed:
                yield file
                return
            with gzip.GzipFile(fileobj=file) as stream:
                yield io.BufferedReader(stream, 1 << 16)  # type: ignore[type-var]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{os.fspath(path)!r} is damaged: {str(error).rstrip('.')}. It was cut short or "
            "changed; delete it and fetch it again."
        ) from error
    except OSError as error:
        raise file_error("read", path, error) from error


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, in the machine's byte order.

    The format (Y. LeCun, the MNIST database): two zero bytes, one byte for the type, one for the
    number of dimensions, the sizes as big-endian 32-bit numbers, then the values, big-endian, the
    last dimension changing fastest.

    Raises:
        FileError: if the file cannot be opened.
        DataError: if it is no IDX file, has too few or too many bytes, or its compression is
            damaged.
    """
    name = os.fspath(path)
    with open_data(path) as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES or not magic[3]:
            raise DataError(
                f"{name!r} is not an IDX file: it begins with the bytes "
                f"{magic.hex(' ') or '(none)'}, but 00 00, a type (08 to 0e) and a number of "
                "dimensions were expected."
            )
        dtype, ndim = IDX_TYPES[magic[2]], magic[3]
        header = stream.read(4 * ndim)
        if len(header) < 4 * ndim:
            raise DataError(f"{name!r} is cut short: it ends within its header of {ndim} sizes.")
        shape = tuple(np.frombuffer(header, ">u4").tolist())
        expected = dtype.itemsize * int(np.prod(shape, dtype=object))
        if expected > IDX_LIMIT:
            raise DataError(
                f"{name!r} claims to hold {expected:,} bytes of shape {shape}, more than the limit "
                f"of {IDX_LIMIT:,}: its header is damaged."
            )
        content = stream.read(expected + 1)
    if len(content) != expected:
        wrong = "is cut short: it has" if len(content) < expected else "has bytes after its end:"
        found = f"{len(content):,}" if len(content) < expected else f"more than {expected:,}"
        raise DataError(
            f"{name!r} {wrong} {found} bytes of values, but its header says {expected:,} (shape "
            f"{shape}). Delete it and fetch it again."
        )
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_idx_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) uint8 and their labels (N,) uint8 from two IDX files, checked together."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise DataError(
            f"'{images_path}' holds {images.dtype} of shape {images.shape}, but images are uint8 "
            "of shape (N, height, width)."
        )
    if labels.shape != images.shape[:1] or labels.dtype != np.uint8:
        raise DataError(
            f"'{labels_path}' holds {labels.dtype} of shape {labels.shape}, but the {len(images)} "
            f"images of '{images_path}' need as many uint8 labels."
        )
    return images, labels


def read_cifar(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N,), uint8, from a file in CIFAR-10's binary format.

    A record has 3,073 bytes: the label, then 1,024 bytes each of red, green and blue, row by row.

    Raises:
        DataError: if the file is empty or ends within a record, or a label is above 9.
    """
    with open_data(path) as stream:
        content = np.frombuffer(stream.read(), np.uint8)
    records, rest = divmod(len(content), CIFAR_RECORD)
    if rest or not records:
        raise DataError(
            f"{os.fspath(path)!r} is not a CIFAR-10 file, or is cut short: it has {len(content):,} "
            f"bytes, which is not a whole number of records of {CIFAR_RECORD:,} bytes."
        )
    table = content.reshape(records, CIFAR_RECORD)
    labels = table[:, 0]
    if labels.max() > 9:
        wrong = int(np.argmax(labels > 9))
        raise DataError(
            f"{os.fspath(path)!r} is damaged: record {wrong} has the label {labels[wrong]}, but "
            "CIFAR-10 has the labels 0 to 9."
        )
    return table[:, 1:].reshape(records, 3, 32, 32), labels
