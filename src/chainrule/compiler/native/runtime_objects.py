"""Where CPython and NumPy keep what a call looks at: offsets in their objects, found by trying.

A usual call looks at a hundred words: does this tensor still have that array, who else holds it, is
the argument's memory row-major. Native code reads them where they lie (`runtime_call`). NumPy's
binary interface fixes its fields; Python's slots lie where their class puts them. Nothing is taken
for granted here: each place is looked for in objects whose contents are known, and where one is not
as it should be (another interpreter, one without its lock) calls go the longer way through Python.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
import sysconfig
import types
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.compiler.native.runtime_memory import address_of
from chainrule.graph import Deferred, Value, make

WORD = 8
CONTIGUOUS = 0x1 | 0x100  # NumPy's flags: row-major, and aligned
COUNT = 0xFFFFFFFF
"""The part of an object's first word that counts the references to it."""


@dataclass(frozen=True)
class Layout:
    """Offsets in bytes: of a tensor's slots, an array's fields, a cell's and a gradient's."""

    array: int
    node: int
    index: int
    grad: int
    taken: int
    cell: int
    kind: int = 8  # of every object: its type
    data: int = 16
    ndim: int = 24
    shape: int = 32
    dtype: int = 56
    flags: int = 64


def word(address: int) -> int:
    """Eight bytes of memory."""
    return ctypes.c_uint64.from_address(address).value


@functools.cache
def layout() -> Layout | None:
    """The layout in this process; None if it is not one that native code can read."""
    if platform.python_implementation() != "CPython" or ctypes.sizeof(ctypes.c_void_p) != WORD:
        return None
    if sysconfig.get_config_var("Py_GIL_DISABLED") or sys.byteorder != "little":
        return None
    array, node, grad, mark = np.zeros((2, 3), np.float32), object(), object(), object()
    tensor: Any = make(array, node, mark)  # type: ignore[arg-type]
    tensor._grad = grad
    deferred = Deferred(array)
    deferred.taken = mark  # type: ignore[assignment]
    try:
        found = Layout(
            *(place(tensor, x, Value.__basicsize__) for x in (array, node, mark, grad)),
            taken=place(deferred, mark, Deferred.__basicsize__),
            cell=place(types.CellType(mark), mark, types.CellType.__basicsize__),
        )
    except LookupError:
        return None
    return found if _arrays_are(found) and _references_count(found) else None


def place(owner: Any, held: Any, size: int) -> int:
    """Where in an object of so many bytes another one is held."""
    places = [n for n in range(WORD, size, WORD) if word(id(owner) + n) == id(held)]
    if len(places) != 1:
        raise LookupError(owner)
    return places[0]


def _arrays_are(found: Layout) -> bool:
    """Whether NumPy's arrays are what the layout says."""
    whole = np.zeros((5, 7, 3), np.float32)
    for array in (whole, whole[1:3, :, 1:], whole.T, np.zeros(4), np.zeros((), np.int64)):
        at = id(array)
        sizes = word(at + found.shape)
        if (
            word(at + found.kind) != id(np.ndarray)
            or word(at + found.data) != address_of(array)
            or word(at + found.ndim) & COUNT != array.ndim
            or word(at + found.dtype) != id(array.dtype)
            or tuple(word(sizes + WORD * n) for n in range(array.ndim)) != array.shape
            or (word(at + found.flags) & CONTIGUOUS == CONTIGUOUS) != array.flags.c_contiguous
        ):
            return False
    return True


def _references_count(found: Layout) -> bool:
    """Whether the first word of an object counts the references to it."""
    tensor: Any = make(np.zeros(3))
    at, held = id(tensor._array), []
    counts = [word(at) & COUNT]
    for _ in range(2):
        held.append(tensor._array)
        counts.append(word(at) & COUNT)
    held.clear()
    counts.append(word(at) & COUNT)
    return counts == [1, 2, 3, 1] and word(id(tensor) + found.array) == at
