"""Memory: aligned, shared among programs for what is temporary, and where arrays lie."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

from chainrule.graph import Array

ALIGNMENT = 64
LARGE = 4 << 20  # from here on memory is aligned so that large pages can serve it


def memory(nbytes: int) -> Array:
    """Fresh bytes, aligned to 64, or to a large page where that pays; never empty."""
    align = 2 << 20 if nbytes >= LARGE else ALIGNMENT
    raw = np.empty(nbytes + align, np.uint8)
    start = -raw.ctypes.data % align
    return raw[start : start + max(nbytes, 1)]


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of aligned, uninitialised memory."""
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return memory(nbytes)[:nbytes].view(dtype).reshape(shape)


_DATA = object.__basicsize__
"""Where an array object of NumPy holds the address of its elements: after what every object has."""


def _read_address(array: Array) -> int:
    return ctypes.c_size_t.from_address(id(array) + _DATA).value


def _slow_address(array: Array) -> int:
    return array.ctypes.data


_sample = np.arange(3)
# NumPy's binary interface fixes that place; `array.ctypes.data` takes five times as long.
address_of = _read_address if _read_address(_sample) == _sample.ctypes.data else _slow_address


Arena = weakref.ref[Array]
"""Memory for temporary values. They hold nothing between two runs, so programs share it; it lives
as long as one of the programs that used it last."""

free: list[Arena] = []
"""Arenas that nobody uses now. Whoever takes one off the list has it alone until it is put back."""


def take() -> Arena | None:
    """Take the arena off the list that was used last."""
    try:
        reference = free.pop()
    except IndexError:
        return None
    _mark(reference, 1)
    return reference


def put_back(reference: Arena) -> None:
    """Put an arena on the list."""
    _mark(reference, 0)
    free.append(reference)


def mark_of(memory: Array) -> int:
    """The address of an int64 behind an arena that is 0 while it is on the list."""
    return address_of(memory) + -(-memory.nbytes // ALIGNMENT) * ALIGNMENT


def _mark(reference: Arena, taken: int) -> None:
    if (memory := reference()) is not None:
        ctypes.c_int64.from_address(mark_of(memory)).value = taken


def arena(nbytes: int, first: Arena | None = None) -> Array:
    """An arena of so many bytes, off the list or new.

    Arguments:
        first: one that has been taken off the list already.
    """
    reference = first
    while True:
        found = None if reference is None else reference()
        if found is not None and found.nbytes >= nbytes:
            return found
        if (reference := take()) is None:  # the too small goes when its programs find the larger
            return _new(max(nbytes, 1))


def _new(nbytes: int) -> Array:
    made = memory(-(-nbytes // ALIGNMENT) * ALIGNMENT + ALIGNMENT)[:nbytes]
    _mark(weakref.ref(made), 1)
    return made
