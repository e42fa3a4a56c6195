"""Small pieces of code that the kernels of convolution and pooling share."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import caches
from chainrule.compiler.native.kernel import Kernel
from chainrule.compiler.native.text import Function, Int, Reg, element, i64, lanes_of, vector


class Keyed(Kernel):
    """A kernel whose code depends on its `key`, on the shapes and dtypes of its values and on how
    they lie, and on nothing else: a network has many layers alike."""

    key: Hashable

    def likeness(self) -> tuple[Any, Sequence[Value]] | None:
        every = (*self.reads, *self.writes)
        values = list(dict.fromkeys(every))
        roles = tuple(values.index(v) for v in every)
        return (self.key, roles, tuple((v.shape, v.dtype.str) for v in values)), values


def far(values: Iterable[Value]) -> bool:
    """Whether values are more than the second-level cache holds."""
    return sum(value.nbytes for value in values) > caches.second()


def key_of(op: Op) -> Hashable:
    """What an operation is, apart from its values."""
    return op.name, tuple(sorted(op.params.items()))


def unravel(f: Function, index: Int, shape: Sequence[int]) -> list[Reg]:
    """A flat index as one for each axis, row-major."""
    result: list[Reg] = []
    rest = i64(index) if isinstance(index, int) else index
    for n in reversed(shape[1:]):
        result.append(f.urem(rest, n))
        rest = f.udiv(rest, n)
    return [*([rest] if shape else []), *reversed(result)]


def flat(f: Function, index: Sequence[Int], strides: Sequence[int]) -> Reg:
    """sum of index * stride."""
    total: Reg = i64(0)
    for i, stride in zip(index, strides, strict=True):
        total = f.add(total, f.mul(i, stride))
    return total


def move(f: Function, pointer: Reg, offset: Int, type: str) -> Reg:
    """The address `offset` elements on, which need not lie inside the buffer (yet)."""
    offset = i64(offset) if isinstance(offset, int) else offset
    if offset.literal == 0:
        return pointer
    return f.value("ptr", f"getelementptr {type}, {pointer}, {offset}")


def select_lanes(lanes: int, start: int, stop: int) -> Reg:
    """The mask of lanes start .. stop - 1, as a literal."""
    if lanes == 1:
        return Reg(str(int(start < stop)), "i1")
    bits = ", ".join(f"i1 {int(start <= lane < stop)}" for lane in range(lanes))
    return Reg(f"<{bits}>", f"<{lanes} x i1>")


def mask_lanes(f: Function, lanes: int, start: int, stop: int) -> Reg:
    """The mask of lanes start .. stop - 1, for a multiply-add that is to leave the others alone. Of
    a literal LLVM makes a shuffle, an instruction of its own; of a mask that it does not know a
    masked multiply-add, where there is one."""
    if f.target.vector_bytes < 64:
        return select_lanes(lanes, start, stop)
    bits = f"i{lanes}"
    at = f.module.table(f"mask{lanes}.{start}.{stop}", bits, [str((1 << stop) - (1 << start))])
    return f.value(f"<{lanes} x i1>", f"bitcast {f.load(at, bits)} to <{lanes} x i1>")


def load_lanes(
    f: Function,
    address: Reg,
    type: str,
    lanes: int,
    stride: int = 1,
    stop: int | None = None,
    start: int = 0,
) -> Reg:
    """A vector of elements `stride` apart; only lanes start .. stop - 1 are read, the rest is 0."""
    stop = lanes if stop is None else stop
    if lanes == 1:
        return f.load(address, type)
    kind, whole = vector(type, lanes), (start, stop) == (0, lanes)
    if stride == 1 and whole:
        return f.load(address, kind)
    if stride == 1 and f.target.masks:
        return f.load_masked(address, kind, select_lanes(lanes, start, stop))
    if stride == 0 and whole:
        return f.splat(f.load(address, type), lanes)
    if stride == 2 and start == 0 and f.target.masks and type in ("float", "double"):
        return _every_other(f, address, kind, stop)
    x = f.zero(kind)
    for lane in range(start, stop):
        x = f.insert(x, f.load(move(f, address, lane * stride, type), type), lane)
    return x


def _every_other(f: Function, address: Reg, kind: str, count: int) -> Reg:
    """`count` elements two apart: two vectors of neighbours, of which every other one is kept."""
    lanes, reach = lanes_of(kind), 2 * count - 1  # nothing behind the last element is touched
    halves = []
    for start in (0, lanes):
        here = move(f, address, start, element(kind))
        stop = min(max(reach - start, 0), lanes)
        if stop == 0:
            halves.append(f.zero(kind))
        elif stop == lanes:
            halves.append(f.load(here, kind))
        else:
            halves.append(f.load_masked(here, kind, select_lanes(lanes, 0, stop)))
    return f.shuffle(halves[0], halves[1], [2 * i for i in range(lanes)])


def store_lanes(
    f: Function, x: Reg, address: Reg, type: str, stride: int = 1, count: int | None = None
) -> None:
    """Store the first `count` lanes `stride` elements apart."""
    lanes = lanes_of(x.type)
    count = lanes if count is None else count
    if lanes == 1 or (stride == 1 and count == lanes):
        f.store(x, address)
    elif stride == 1 and f.target.masks:
        f.store_masked(x, address, select_lanes(lanes, 0, count))
    else:
        for lane in range(count):
            f.store(f.extract(x, lane), move(f, address, lane * stride, type))
