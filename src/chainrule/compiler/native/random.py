"""Random bits: Philox4x32-10 by vectors of blocks, the same bits as `primitives.kernels.philox`.

units: groups of blocks of four numbers
"""

from __future__ import annotations

from chainrule.compiler.ir import Op
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, Kernel, strides_of
from chainrule.compiler.native.text import Function, Module, Reg, i64, vector
from chainrule.primitives.kernels import philox

BLOCKS = 2048  # blocks in a unit
WORDS = 4  # numbers in a block


def supports(op: Op) -> bool:
    """Bits, and the state that comes after them."""
    return op.name in ("random_bits", "advance") and op.output.size > 0


def kernels(op: Op) -> list[Kernel]:
    """The kernel of one of these operations."""
    return [RandomBits(op) if op.name == "random_bits" else Advance(op)]


class RandomBits(Kernel):
    """Number i is word i % 4 of block counter + i // 4."""

    family = "random"

    def __init__(self, op: Op):
        self.op, self.ops = op, (op,)
        self.reads, self.writes = op.inputs, (op.output,)
        self.size = op.output.size
        self.blocks = -(-self.size // WORDS)
        self.units = -(-self.blocks // BLOCKS)
        self.scratch = 8 * 64  # one vector of blocks, for the end

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        state, out = buffers[self.op.inputs[0]], buffers[self.op.output]
        if out.strides != strides_of(out.shape) and self.size > 1:
            raise ValueError(f"random bits with strides {out.strides}")
        source, z = state.pointer(f), out.pointer(f)
        key = f.load(source, "i64")
        counter = f.load(f.at(source, state.strides[0], "i64"), "i64")
        lanes = module.target.vector_bytes // 8
        keys = self._schedule(f, key, lanes)
        full = self.size // WORDS
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit") as unit:
            first = f.mul(unit.index, BLOCKS)
            last = f.smin(f.add(first, BLOCKS), self.blocks)
            # Vectors of blocks that are all wanted, and whole.
            end = f.smin(last, full)
            whole = f.sub(end, f.urem(f.sub(end, first), lanes))
            with f.loop(first, whole, lanes, hint="blocks") as loop:
                words = self._vector(f, f.add(counter, loop.index), keys, lanes)
                f.store(words, f.at(z, f.mul(loop.index, WORDS), "i32"))
            with f.when(f.icmp("slt", whole, last)):
                words = self._vector(f, f.add(counter, whole), keys, lanes)
                f.store(words, f.arg("scratch"))
                start = f.mul(whole, WORDS)
                stop = f.smin(f.mul(last, WORDS), self.size)
                with f.loop(start, stop, hint="rest") as loop:
                    at = f.at(f.arg("scratch"), f.sub(loop.index, start), "i32")
                    f.store(f.load(at, "i32"), f.at(z, loop.index, "i32"))
        f.finish()

    def _schedule(self, f: Function, key: Reg, lanes: int) -> list[tuple[Reg, Reg]]:
        """The two halves of the key for each round, in all lanes."""
        mask = i64(philox.MASK32)
        halves = [f.op("and", key, mask), f.op("lshr", key, i64(32))]
        keys = []
        for number in range(philox.ROUNDS):
            now = [
                f.op("and", f.add(half, weyl * number), mask)
                for half, weyl in zip(halves, philox.WEYL, strict=True)
            ]
            keys.append((f.splat(now[0], lanes), f.splat(now[1], lanes)))
        return keys

    def _vector(self, f: Function, block: Reg, keys: list[tuple[Reg, Reg]], lanes: int) -> Reg:
        """The numbers of `lanes` blocks from one on."""
        type = vector("i64", lanes)
        mask, half = f.number(type, philox.MASK32), f.number(type, 32)
        m0, m1 = (f.number(type, m) for m in philox.MULTIPLIERS)
        numbers = Reg("<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">", type)
        at = f.op("add", f.splat(block, lanes), numbers)
        c0, c1 = f.op("and", at, mask), f.op("lshr", at, half)
        c2 = c3 = f.zero(type)
        for k0, k1 in keys:
            p0, p1 = f.op("mul", c0, m0), f.op("mul", c2, m1)
            c0 = f.op("xor", f.op("xor", f.op("lshr", p1, half), c1), k0)
            c2 = f.op("xor", f.op("xor", f.op("lshr", p0, half), c3), k1)
            c1, c3 = f.op("and", p1, mask), f.op("and", p0, mask)
        # Two words side by side in 64 bits; then the pairs of each block side by side.
        low, high = (f.op("or", x, f.op("shl", y, half)) for x, y in ((c0, c1), (c2, c3)))
        order = [j for i in range(lanes) for j in (i, i + lanes)]
        pairs = f.shuffle(low, high, order)
        words = vector("i32", 4 * lanes)
        return f.value(words, f"bitcast {pairs} to {words}")


class Advance(Kernel):
    """(key, counter + blocks)."""

    family = "random"

    def __init__(self, op: Op):
        self.op, self.ops = op, (op,)
        self.reads, self.writes = op.inputs, (op.output,)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        state, out = buffers[self.op.inputs[0]], buffers[self.op.output]
        source, z = state.pointer(f), out.pointer(f)
        with f.loop(f.arg("lo"), f.arg("hi"), hint="unit"):
            for i, by in enumerate((0, self.op.params["blocks"])):
                x = f.load(f.at(source, i * state.strides[0], "i64"), "i64")
                f.store(f.add(x, by), f.at(z, i * out.strides[0], "i64"))
        f.finish()

    def may_overwrite(self, read: object, write: object) -> bool:
        return True
