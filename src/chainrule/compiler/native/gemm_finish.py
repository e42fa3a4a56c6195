"""What is fused behind a product: elementwise operations on each vector of C as it is finished.

The operations are followed by `Expressions`, in which the product's value is `given`: cheap ones
are computed on a tile's registers (a bias, an activation, the step of an optimiser); for dearer
ones the tile is put into scratch, where it stays in the first-level cache, and a loop goes over it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import caches
from chainrule.compiler.native import index as ix
from chainrule.compiler.native.emitter import Emitter
from chainrule.compiler.native.expressions import Expressions
from chainrule.compiler.native.index import Form, Var
from chainrule.compiler.native.kernel import Buffers
from chainrule.compiler.native.microkernel import (
    lanes_in,
    literal_mask,
    load_vector,
    prefetch,
)
from chainrule.compiler.native.text import Function, Int, Reg
from chainrule.graph import Array, Shape

UNROLLED = 120
"""Up to so many instructions for a tile are written out on its registers."""

PLACE = "ptr noalias %table, i64 %batch, i64 %row, i64 %column"
"""The arguments of a function that finishes a tile, beside its own: the tile's place in C."""


Masks = Mapping[int, Reg]
"""Which lanes exist, for the vectors of a row that are not full."""


class Finish:
    """The operations behind one product.

    Arguments:
        op: the product.
        ops: the operations that may be followed from the outputs back to it.
        outputs: the values to write, all of the product's shape.
        batch: the batch axes that are not part of the rows.
        swapped: the product is computed as C^T: its rows are the columns of what is computed.
    """

    def __init__(
        self,
        op: Op,
        ops: Collection[Op],
        outputs: Sequence[Value],
        constants: Mapping[Value, Array],
        batch: Shape,
        swapped: bool,
    ):
        self.op, self.batch_shape = op, batch
        shape = op.output.shape
        merged = shape[:-1] if not batch else shape[-2:-1]
        self.expressions = Expressions([o for o in ops if o is not op], constants)
        size = 1
        for n in merged:
            size *= n
        first, last = Var(size), Var(shape[-1])
        self.row, self.column = (last, first) if swapped else (first, last)
        self.batch = [Var(n) for n in batch]
        rows = self.expressions.splits.unflatten(ix.of(first), merged)
        self.index: tuple[Form, ...] = (*map(ix.of, self.batch), *rows, ix.of(last))
        variables = frozenset((self.row, self.column, *self.batch))
        self.expressions.give(op.output, variables)
        self.given = self.expressions.at(op.output, self.index)
        self.outputs = [(z, self.expressions.at(z, self.index)) for z in outputs]
        self.buffers: Buffers = {}

    @property
    def reads(self) -> list[Value]:
        return list(self.expressions.reads)

    def reads_only_here(self, value: Value) -> bool:
        """Whether a value is read at no other index than that at which the outputs are written."""
        loads = [n for n in self.expressions.nodes() if n.kind == "load" and n.data[0] is value]
        return all(n.data[1:] == (self.index, ()) for n in loads)

    def in_registers(self, vectors: int) -> bool:
        """Whether a tile of so many vectors is finished on its registers."""
        plain = ("given", "literal", "position")
        cost = sum(n.cost for n in self.expressions.nodes() if n.kind not in plain)
        return vectors * (cost + len(self.outputs)) <= UNROLLED

    @property
    def streams(self) -> list[Value]:
        """What is read element by element along with C, if it is more than a cache holds."""
        loads = [n.data for n in self.expressions.nodes() if n.kind == "load"]
        found = dict.fromkeys(v for v, index, guard in loads if index == self.index and not guard)
        return list(found) if sum(v.nbytes for v in found) > caches.second() // 2 else []

    # --- writing --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _columns(self, f: Function, lanes: int, masks: Masks) -> Iterator[Emitter]:
        """An emitter that knows the batch and the column of the tile at hand."""
        em = Emitter(f, self.buffers, self.expressions, self.column)
        number = f.arg("batch")
        regs: dict[Var, Reg] = {}
        for var in reversed(self.batch):
            regs[var], number = f.urem(number, var.extent), f.udiv(number, var.extent)
        with em.block(regs), em.block({self.column: f.arg("column")}), em.wide(lanes, masks):
            yield em
        em.finish()

    def _vectors(self, em: Emitter, given: Sequence[Reg]) -> None:
        for j, x in enumerate(given):
            em.instance = j
            em.bind(self.given, x)
            results = [(z, em.vector(node)) for z, node in self.outputs]
            # Only now, since what is written may lie where something was read.
            for z, reg in results:
                em.store(z, self.index, reg)
        em.instance = 0

    def elements(
        self,
        f: Function,
        rows: tuple[Reg, Reg],
        lanes: int,
        given: Callable[[Reg, Reg, Reg | None], Reg],
    ) -> None:
        """Finish all of some rows: `given(row, column, mask)` is a vector of C."""
        em = Emitter(f, self.buffers, self.expressions, self.column)
        whole, rest = divmod(self.column.extent, lanes)
        with em.loop(self.row, *rows) as row:
            if whole:
                with em.loop(self.column, 0, whole * lanes, lanes) as column, em.wide(lanes):
                    self._vectors(em, [given(row.index, column.index, None)])
            if rest:
                mask, start = literal_mask(lanes, rest), f.add(whole * lanes, 0)
                with em.block({self.column: start}), em.wide(lanes, {0: mask}):
                    self._vectors(em, [given(row.index, start, mask)])
        em.finish()

    def registers(
        self, f: Function, sums: Sequence[Sequence[Reg]], lanes: int, masks: Masks
    ) -> None:
        """Finish a tile that is in registers: for each row its vectors."""
        with self._columns(f, lanes, masks) as em:
            for i, row in enumerate(sums):
                with em.block({self.row: f.add(f.arg("row"), i)}):
                    self._vectors(em, row)

    def memory(
        self, f: Function, c: Reg, step: int, shape: tuple[Int, int], type: str, masks: Masks
    ) -> None:
        """Finish a tile in scratch.

        Arguments:
            c, step: where it lies, and the elements from row to row.
            shape: its rows and vectors.
        """
        high, wide = shape
        lanes = lanes_in(f.target, type)
        with self._columns(f, lanes, masks) as em:
            first = f.arg("row")
            with em.loop(self.row, first, f.add(first, high)) as loop:
                row = f.at(c, f.mul(f.sub(loop.index, first), step), type)
                places = [f.at(row, j * lanes, type) for j in range(wide)]
                self._vectors(em, [load_vector(f, at, type) for at in places])

    def ahead(self, f: Function, shape: tuple[Int, int], lanes: int) -> None:
        """Ask for what finishing a tile will read: it comes while the tile is computed."""
        high, wide = shape
        with self._columns(f, lanes, {}) as em:
            first = f.arg("row")
            with em.loop(self.row, first, f.add(first, high)):
                for value in self.streams:
                    for em.instance in range(wide):
                        prefetch(f, em.place_of(value, self.index))
            em.instance = 0
