"""Running one kernel on NumPy arrays, inside red zones, its units dealt out in a shuffled order."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np

from chainrule.compiler.native.jit import Library, assemble
from chainrule.compiler.native.kernel import FIRST, PARAMETERS, Buffer, Kernel, strides_of
from chainrule.compiler.native.target import Target, host
from chainrule.compiler.native.text import Function, Module

ZONE = 256  # bytes of red zone on either side of every buffer
MARK = 0xA5


class Place:
    """A piece of memory between two red zones."""

    def __init__(self, array: np.ndarray[Any, Any] | None, nbytes: int):
        self.memory = np.full(nbytes + 2 * ZONE + 64, MARK, np.uint8)
        start = ZONE + -(self.memory.ctypes.data + ZONE) % 64
        self.data = self.memory[start : start + nbytes]
        self.zones = self.memory[:start], self.memory[start + nbytes :]
        self.data[:] = 0xFF  # NaN: what is read before it was written shows in every result
        if array is not None:
            self.data[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def intact(self) -> bool:
        return all(bool((zone == MARK).all()) for zone in self.zones)


def run_kernels(
    kernels: list[Kernel],
    arrays: dict[Any, np.ndarray[Any, Any]],
    strides: dict[Any, tuple[int, ...]] | None = None,
    target: Target | None = None,
    pieces: int = 3,
    seed: int = 0,
) -> dict[Any, np.ndarray[Any, Any]]:
    """Run kernels one after another; returns what they wrote, by value.

    Arguments:
        arrays: what the values that are read and not written hold.
        strides: strides (elements) of values that do not lie row-major; such a value's memory is
            as large as its largest index needs.
        pieces: each kernel's units are run in that many ranges, in a shuffled order.
    """
    target = target or host()
    strides = strides or {}
    rng = np.random.default_rng(seed)
    values = list(dict.fromkeys(v for k in kernels for v in (*k.reads, *k.writes)))
    places, buffers = {}, {}
    for slot, value in enumerate(values):
        steps = strides.get(value, strides_of(value.shape))
        extent = 1 + sum((n - 1) * s for n, s in zip(value.shape, steps, strict=True))
        place = Place(None, max(0, extent if 0 not in value.shape else 0) * value.dtype.itemsize)
        if value in arrays:
            view(place, value, steps)[...] = arrays[value]
        places[value] = place
        buffers[value] = Buffer(FIRST + slot, 0, value.shape, steps, value.dtype)
    module = Module(target)
    entries = []
    for number, kernel in enumerate(kernels):
        kernel.emit(module, f"kernel{number}", buffers)
        f = Function(module, f"entry{number}", PARAMETERS, internal=False)
        f.run(f"kernel{number}", *(f.arg(x) for x in ("table", "lo", "hi", "scratch")))
        entries.append(f.finish())
    library = Library(assemble(module.text(), target), entries, target)
    table = (ctypes.c_void_p * (FIRST + len(values)))()
    for slot, value in enumerate(values):
        table[FIRST + slot] = places[value].data.ctypes.data
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    for kernel, entry in zip(kernels, entries, strict=True):
        scratch = Place(None, kernel.scratch)
        function = kind(library.addresses[entry])
        cuts = np.unique(np.linspace(0, kernel.units, pieces + 1).astype(int))
        ranges = list(itertools.pairwise(cuts))
        rng.shuffle(ranges)
        for lo, hi in ranges:
            function(ctypes.addressof(table), int(lo), int(hi), scratch.data.ctypes.data)
        assert scratch.intact(), f"{kernel} wrote outside its scratch"
        for value in values:
            assert places[value].intact(), f"{kernel} wrote outside {value}"
    written = dict.fromkeys(v for k in kernels for v in k.writes)
    return {v: view(places[v], v, strides.get(v, strides_of(v.shape))).copy() for v in written}


def view(place: Place, value: Any, strides: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A place as an array of the value's shape."""
    steps = tuple(s * value.dtype.itemsize for s in strides)
    return np.ndarray(value.shape, value.dtype, place.data.data, 0, steps)
