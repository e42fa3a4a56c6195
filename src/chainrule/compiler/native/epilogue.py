"""What is fused behind a product or a convolution: elementwise operations on each finished vector.

The operations are followed by `Expressions`, in which the result of the product is `given`: cheap
ones are computed on a tile's registers (a bias, an activation, the step of an optimiser); for
dearer ones the tile is put into scratch, where it stays in the first-level cache, and a loop goes
over it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from chainrule.compiler.ir import Op, Value
from chainrule.compiler.native import caches
from chainrule.compiler.native.emitter import Emitter
from chainrule.compiler.native.expressions import Expressions, Node
from chainrule.compiler.native.index import Form, Var
from chainrule.compiler.native.kernel import Buffers
from chainrule.compiler.native.text import Reg
from chainrule.graph import Array

UNROLLED = 120
"""Up to so many instructions for a tile are written out on its registers."""

Masks = Mapping[int, Reg]
"""Which lanes exist, for the vectors of a row that are not full."""


class Epilogue:
    """The operations behind one result.

    Attributes:
        op: the operation whose result it is.
        index: the element at hand, in the variables of the loops around it.
        given: the node of the result's element.
        outputs: the values to write, all of the result's shape, and what each is.
        buffers: where all values lie; to be set before anything is written.
    """

    def __init__(
        self,
        op: Op,
        ops: Collection[Op],
        outputs: Sequence[Value],
        constants: Mapping[Value, Array],
    ):
        self.op, self.wanted = op, outputs
        self.expressions = Expressions([o for o in ops if o is not op], constants)
        self.buffers: Buffers = {}
        self.index: tuple[Form, ...] = ()

    def follow(self, index: tuple[Form, ...], variables: frozenset[Var]) -> None:
        """Find what the outputs are at an index, whose variables these are."""
        self.index = index
        self.expressions.give(self.op.output, variables)
        self.given = self.expressions.at(self.op.output, index)
        self.outputs = [(z, self.expressions.at(z, index)) for z in self.wanted]

    @property
    def reads(self) -> list[Value]:
        return list(self.expressions.reads)

    def reads_only_here(self, value: Value) -> bool:
        """Whether a value is read at no other index than that at which the outputs are written."""
        loads = [n for n in self.expressions.nodes() if n.kind == "load" and n.data[0] is value]
        return all(n.data[1:] == (self.index, ()) for n in loads)

    @property
    def streams(self) -> list[Value]:
        """What is read element by element along with the result, if a cache does not hold it."""
        loads = [n.data for n in self.expressions.nodes() if n.kind == "load"]
        found = dict.fromkeys(v for v, index, guard in loads if index == self.index and not guard)
        return list(found) if sum(v.nbytes for v in found) > caches.second() // 2 else []

    def costly(self) -> list[Node]:
        """The nodes that take instructions."""
        plain = ("given", "literal", "position")
        return [n for n in self.expressions.nodes() if n.kind not in plain]

    def in_registers(self, vectors: int) -> bool:
        """Whether a tile of so many vectors is finished on its registers."""
        cost = sum(n.cost for n in self.costly())
        return vectors * (cost + len(self.outputs)) <= UNROLLED

    def vectors(self, em: Emitter, given: Sequence[Reg]) -> None:
        """Finish neighbouring vectors."""
        for j, x in enumerate(given):
            em.instance = j
            em.bind(self.given, x)
            results = [(z, em.vector(node)) for z, node in self.outputs]
            # Only now, since what is written may lie where something was read.
            for z, reg in results:
                em.store(z, self.index, reg)
        em.instance = 0
