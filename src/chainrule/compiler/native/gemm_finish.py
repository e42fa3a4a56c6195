"""What is fused behind a matrix product: the places of its tiles, and loops over them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import index as ix
from chainrule.compiler.native.emitter import Emitter
from chainrule.compiler.native.epilogue import Epilogue, Masks
from chainrule.compiler.native.index import Var
from chainrule.compiler.native.microkernel import (
    lanes_in,
    literal_mask,
    load_vector,
    prefetch,
)
from chainrule.compiler.native.text import Function, Int, Reg
from chainrule.graph import Array, Shape

PLACE = "ptr noalias %table, i64 %batch, i64 %row, i64 %column"
"""The arguments of a function that finishes a tile, beside its own: the tile's place in C."""


class Finish(Epilogue):
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
        super().__init__(op, ops, outputs, constants)
        shape = op.output.shape
        merged = shape[:-1] if not batch else shape[-2:-1]
        size = 1
        for n in merged:
            size *= n
        first, last = Var(size), Var(shape[-1])
        self.row, self.column = (last, first) if swapped else (first, last)
        self.batch = [Var(n) for n in batch]
        rows = self.expressions.splits.unflatten(ix.of(first), merged)
        variables = frozenset((self.row, self.column, *self.batch))
        self.follow((*map(ix.of, self.batch), *rows, ix.of(last)), variables)

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
                    self.vectors(em, [given(row.index, column.index, None)])
            if rest:
                mask, start = literal_mask(lanes, rest), f.add(whole * lanes, 0)
                with em.block({self.column: start}), em.wide(lanes, {0: mask}):
                    self.vectors(em, [given(row.index, start, mask)])
        em.finish()

    def registers(
        self, f: Function, sums: Sequence[Sequence[Reg]], lanes: int, masks: Masks
    ) -> None:
        """Finish a tile that is in registers: for each row its vectors."""
        with self._columns(f, lanes, masks) as em:
            for i, row in enumerate(sums):
                with em.block({self.row: f.add(f.arg("row"), i)}):
                    self.vectors(em, row)

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
                self.vectors(em, [load_vector(f, at, type) for at in places])

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
