"""Running a program on the memory of tensors: where it lies, and who else holds it.

A program writes the new value of a state over the old one, in the tensor's own memory. That is only
right if nobody else can see this memory: a detached copy, a NumPy view or a saved graph must keep
the value that it had. So before a state is written, the references to its array are counted; if
there are more than those of the tensor and of these books, the tensor gets fresh memory first.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any

import numpy as np

from chainrule.compiler import ir
from chainrule.compiler.native.runtime_memory import ALIGNMENT, address_of
from chainrule.compiler.slots import binding_slot
from chainrule.graph import Array, Deferred

LARGE = 1 << 20
UNUSUAL: Any = object()
"""The answer to a call that is not a usual one; see `compiler.fast`."""


def fresh(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of aligned memory. Every view of it keeps this very array alive.

    NumPy shortens chains of views to the array that owns the memory. Here something else owns it,
    so that they end at this array, and the references to it can be counted.
    """
    dtype = np.dtype(dtype)
    nbytes = dtype.itemsize
    for n in shape:
        nbytes *= n
    if nbytes >= LARGE:  # fresh pages, which are aligned, and zeros without a write
        return np.ndarray(shape, dtype, mmap.mmap(-1, nbytes))
    owner = bytearray(nbytes + ALIGNMENT)
    start = address_of(np.frombuffer(owner, np.uint8)) or 0
    return np.ndarray(shape, dtype, owner, -start % ALIGNMENT)


class Binding:
    """The books on the memory of one tensor that programs read and write.

    Attributes:
        array: the tensor's array when it was last looked at.
        memory: the same numbers row-major; the array itself if it is.
        address: where they lie.
        stamp: counts how often another array was found.
        own: whether the array may be written to, if nobody else holds it.
    """

    __slots__ = ("address", "array", "memory", "own", "stamp")

    array: Any
    memory: Any
    address: Any

    def __init__(self) -> None:
        self.array = None
        self.stamp = 0

    def look(self, array: Array) -> None:
        """The tensor has another array."""
        self.array = array
        flags = array.flags
        contiguous = flags.c_contiguous and flags.aligned
        # One reference to the array, not two: they are counted.
        self.memory = None if contiguous else np.array(array, order="C")
        self.address = address_of(array if contiguous else self.memory)
        self.own = contiguous and flags.writeable and not isinstance(array.base, np.ndarray)
        self.stamp += 1


def binding(tensor: Any) -> Binding:
    """The books on a tensor's memory; opened if there are none."""
    try:
        return binding_slot.__get__(tensor)
    except AttributeError:
        made = Binding()
        binding_slot.__set__(tensor, made)
        return made


def make_own(tensor: Any, books: Binding) -> None:
    """Give a tensor memory that nobody else can see, with the same numbers in it."""
    old = tensor._array
    array = fresh(old.shape, old.dtype)
    array[...] = old
    tensor._array = array
    books.look(array)


def _alone() -> int:
    """What `getrefcount(tensor._array)` says if only the tensor and its books hold the array."""

    class Holder:
        __slots__ = ("_array",)
        _array: Any

    tensor, books = Holder(), Binding()
    tensor._array = fresh((1,), np.uint8)
    books.look(tensor._array)
    return getrefcount(tensor._array)


ALONE = _alone()


class InNumPy:
    """Runs a graph operation by operation, on fresh arrays.

    Attributes:
        in_place: whether states are written over where they lie.
        wants_arrays: whether a call needs the arrays, not their addresses alone.
        numbers: by the input's position, the numbers among the inputs as arrays.
    """

    in_place = False
    wants_arrays = True

    def __init__(self, graph: ir.Graph):
        self.graph = graph
        self.numbers: dict[int, Array] = {}

    def point(self, i: int, address: Any) -> None:
        """Let input i lie at an address."""

    def set_number(self, i: int, value: Any, dtype: Any) -> None:
        """Let input i be a number."""
        self.numbers[i] = np.asarray(value, dtype=dtype)

    def __call__(self, arrays: Sequence[Array] | None) -> Sequence[Array]:
        """All outputs."""
        assert arrays is not None
        return ir.evaluate(self.graph, arrays)

    def on(self, arrays: Sequence[Array]) -> Sequence[Array]:
        """All outputs, for inputs of which nothing was told before."""
        return ir.evaluate(self.graph, arrays)

    def raise_late(self) -> None:
        """Raise what a signal raised while state was written; here none is, before the end."""


class _Pool:
    """Memory for an output that belongs to the caller, used again when the caller has let it go."""

    __slots__ = ("arrays", "dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.arrays: list[Array] = []

    def take(self) -> Array:
        arrays = self.arrays
        for n in range(len(arrays)):
            if getrefcount(arrays[n]) == FREE:
                return arrays[n]
        array = fresh(self.shape, self.dtype)
        if len(arrays) < LARGEST_POOL:
            arrays.append(array)
        return array


LARGEST_POOL = 2


def _free() -> int:
    arrays = [fresh((1,), np.uint8)]
    return getrefcount(arrays[0])


FREE = _free()


class Native:
    """Runs a program in the tensors' own memory; attributes as `InNumPy`."""

    in_place = True

    def __init__(self, graph: ir.Graph, program: Any):
        tables = program.tables
        self.graph, self.program = graph, program
        self.numbers: dict[int, Array] = {}
        self.wants_arrays = bool(program._hosts)  # where Python takes part
        self._slots = [place.slot for place in tables.inputs]
        self.places = [(place.slot, place.shape, place.dtype) for place in tables.outputs]
        self._table, self._bound, self._call = program._table, program._bound, program.call
        self._results: list[Any] = [None] * len(tables.outputs)
        self._pools = [
            (n, slot, _Pool(shape, dtype))
            for n, (slot, shape, dtype) in enumerate(self.places)
            if n not in graph.updates
        ]

    def point(self, i: int, address: Any) -> None:
        self._table[self._slots[i]] = address

    def pointer(self, i: int) -> Callable[[Any], None]:
        """`point` of one input."""
        return functools.partial(self._table.__setitem__, self._slots[i])

    def set_number(self, i: int, value: Any, dtype: Any) -> None:
        buffer = self.numbers.get(i)
        if buffer is None:
            buffer = self.numbers[i] = np.zeros((), dtype)
            self.point(i, address_of(buffer))
        buffer[()] = value

    def keep(self, outputs: Sequence[int]) -> None:
        """Leave some outputs to the caller, who says by `point_output` where they go."""
        chosen = set(outputs)
        self._pools = [pool for pool in self._pools if pool[0] not in chosen]

    def make_output(self, n: int) -> Array:
        """Memory for output n."""
        _, shape, dtype = self.places[n]
        return fresh(shape, dtype)

    def point_output(self, n: int, array: Array, address: Any) -> None:
        """Let output n go to an array."""
        self._table[self.places[n][0]] = address
        self._results[n] = array if self.wants_arrays else None

    def __call__(self, arrays: Sequence[Array] | None) -> Sequence[Array]:
        results, table = self._results, self._table
        for n, slot, pool in self._pools:
            results[n] = array = pool.take()
            table[slot] = address_of(array)
        try:
            if arrays is None:
                self._call()
            else:
                self._call_with(arrays)
            return results.copy()
        finally:
            for n, _, _ in self._pools:
                results[n] = None

    def on(self, arrays: Sequence[Array]) -> Sequence[Array]:
        return self.program.run(arrays)

    def raise_late(self) -> None:
        self.program.raise_late()

    def _call_with(self, arrays: Sequence[Array]) -> None:
        bound = self._bound
        outputs = [(p[0], a) for p, a in zip(self.places, self._results, strict=True)]
        lent = [*zip(self._slots, arrays, strict=True), *[x for x in outputs if x[1] is not None]]
        for slot, array in lent:
            bound[slot] = array
        try:
            self._call()
        finally:
            for slot, _ in lent:
                bound[slot] = None


class KeptGradients:
    """Memory of the gradients that a program leaves behind, which is used again.

    There are two sets, taken in turn: what the last call has left stays whole until the next call
    has come to its end. Arrays that somebody has read are theirs, and replaced.

    Attributes:
        gradients: the tensors and the outputs that are their gradients.
        turn: the set that the next call writes into, as an array of one element.
    """

    def __init__(self, launch: Native, gradients: Sequence[tuple[Any, int]]):
        self._launch = launch
        self.gradients = gradients
        self.turn = np.zeros(1, np.int64)
        self._sets: list[list[Deferred | None]] = [[None] * len(gradients) for _ in range(2)]
        launch.keep([n for _, n in gradients])

    def whole(self, which: int) -> list[Deferred]:
        """A set that nobody has read anything of."""
        kept: Any = self._sets[which]
        for i, (_, n) in enumerate(self.gradients):
            if kept[i] is None or kept[i].taken:
                kept[i] = Deferred(self._launch.make_output(n))
        return kept

    def prepare(self) -> None:
        """Before a call: let the program write into the set whose turn it is."""
        point = self._launch.point_output
        kept = self.whole(int(self.turn[0]))
        for (_, n), deferred in zip(self.gradients, kept, strict=True):
            point(n, deferred.array, address_of(deferred.array))

    def hand_out(self) -> None:
        """After a call: these are the gradients now."""
        kept = self._sets[self.turn[0]]
        for (tensor, _), deferred in zip(self.gradients, kept, strict=True):
            tensor._grad = deferred
        self.turn ^= 1
