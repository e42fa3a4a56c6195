"""The passes over a row: what each reduces and writes, and what is kept from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chainrule.compiler.native import index as ix
from chainrule.compiler.native.expressions import Node, product
from chainrule.compiler.native.index import ZERO, Form, Var
from chainrule.compiler.native.loops_order import Order
from chainrule.compiler.native.loops_plan import Nest
from chainrule.compiler.native.reduce import RUN, Accumulator, Regs
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Int, Reg, i64, type_of

if TYPE_CHECKING:
    from chainrule.compiler.native.loops_emit import NestWriter

FLAT_VECTORS = 8  # a row of at most so many vectors is written without loops,
FLAT_COST = 200  # ... if that takes at most so many instructions
DEAR = 8  # what takes more instructions is kept in scratch between passes

State = list[list[Regs]]
"""For each instance the accumulators of each reduction."""


@dataclass
class Kept:
    """A node whose numbers are kept in scratch from one pass to the next."""

    first: int  # the pass that computes it
    offset: int
    form: Form
    type: str
    distance: int  # elements between instances
    end: int  # where its bytes end
    written: bool = False


class RowPlan:
    """What happens in each pass over a row.

    Attributes:
        passes: (reductions, outputs by number) of each.
        row_outputs: the outputs with one element for each row.
        instances: how many vectors are worked on side by side.
        flat: whether a whole row is a few vectors, all of them instances.
        scratch: bytes that are needed to keep what is dear.
    """

    def __init__(self, nest: Nest, order: Order, target: Target, limit: int):
        self.nest, self.order, self.limit = nest, order, limit
        self.inner = frozenset(nest.inner)
        self.row_outputs: list[int] = []
        per_pass: list[list[int]] = [[] for _ in range(len(nest.stages) + 1)]
        for number, (_, index, node) in enumerate(nest.outputs):
            if self.inner & node.depends.union(*(f.roots() for f in index)):
                per_pass[node.stage].append(number)
            else:
                self.row_outputs.append(number)
        passes = zip([*nest.stages, []], per_pass, strict=True)
        self.passes = [p for p in passes if p[0] or p[1]]
        self.nodes = [self._nodes(*p) for p in self.passes]
        self.instances = self._instances()
        self.flat = self._is_flat(target)
        self.blocked: Var | None = None
        if nest.block is not None:
            self.blocked = max(order.inner, key=lambda v: v.extent)

    def length(self, var: Var) -> int:
        """How far an inner variable runs in one go: its extent, or that of a block."""
        if var is not self.blocked or self.nest.block is None:
            return var.extent
        length = -(-var.extent // self.nest.block.extent)
        if var is self.order.lane:
            step = self.order.lanes * self.instances
            length = -(-length // step) * step
        return length

    def _nodes(self, reduces: Sequence[Node], outputs: Sequence[int]) -> list[Node]:
        """What a pass computes for each element, from its results inwards."""
        found: dict[Node, None] = {}
        todo = [r.inputs[0] for r in reduces] + [self.nest.outputs[i][2] for i in outputs]
        while todo:
            node = todo.pop()
            if node not in found and node.depends & self.inner:
                found[node] = None
                todo += node.inputs
        return list(found)

    def _instances(self) -> int:
        order = self.order
        if order.lane is None:
            return 1
        vectors = max(1, order.lane.extent // order.lanes)
        if self.passes and order.lane_in_rows:
            most = 8 if self.nest.cost <= 4 else 4 if self.nest.cost <= 24 else 2
            # What is done once for each row is written for each instance, too.
            most = min(most, 8 if (extra := self.nest.row_cost) <= 8 else 4 if extra <= 80 else 2)
            return max(u for u in range(1, most + 1) if vectors % u == 0)
        cost = max(map(len, self.nodes), default=self.nest.cost)
        return min(4 if cost <= 8 else 2 if cost <= 20 else 1, vectors)

    def _is_flat(self, target: Target) -> bool:
        order = self.order
        if order.lane is None or order.lane_in_rows or order.inner != [order.lane]:
            return False
        if self.nest.block is not None:
            return False
        vectors = -(-order.lane.extent // order.lanes)
        fits = vectors <= FLAT_VECTORS and vectors * self.nest.cost <= FLAT_COST
        return fits and (target.masks or order.lane.extent % order.lanes == 0)

    # --- scratch ----------------------------------------------------------------------------------

    def keep(self, instances: Sequence[int]) -> dict[Node, Kept]:
        """The nodes that are dear and needed in more than one pass, with places in scratch."""
        order, lanes = self.order, self.order.lanes
        first: dict[Node, int] = {}
        form, size, distance = ZERO, 1, 0
        if order.lane_in_rows:
            size, distance = lanes * self.instances, lanes
        for var in reversed(order.inner):
            form = form + ix.of(var, size)
            size *= -(-var.extent // lanes) * lanes if var is order.lane else var.extent
        result: dict[Node, Kept] = {}
        offset = 0
        for number in range(len(self.passes)):
            for node in self._wanted(number, result):
                if node not in first:
                    first[node] = number
                elif first[node] < number and node not in result and self._dear(node, result):
                    nbytes = -(-size * node.dtype.itemsize // 64) * 64
                    if offset + nbytes <= self.limit:
                        type = type_of(node.dtype)
                        result[node] = Kept(
                            first[node], offset, form, type, distance, offset + nbytes
                        )
                        offset += nbytes
        return result

    def _wanted(self, number: int, kept: dict[Node, Kept]) -> list[Node]:
        """What a pass computes, outermost first, without what is under kept nodes."""
        reduces, outputs = self.passes[number]
        found: dict[Node, None] = {}
        todo = [r.inputs[0] for r in reduces] + [self.nest.outputs[i][2] for i in outputs]
        while todo:
            node = todo.pop()
            if node in found or not node.depends & self.inner:
                continue
            found[node] = None
            if node not in kept:
                todo += node.inputs
        return sorted(found, key=lambda n: -n.number)

    def _dear(self, node: Node, kept: dict[Node, Kept]) -> bool:
        total, seen, todo = 0, set(), [node]
        while todo:
            one = todo.pop()
            if one in seen or not one.depends & self.inner or one in kept:
                continue
            seen.add(one)
            total += one.cost
            todo += one.inputs
        return total > DEAR


class Pass:
    """One run through a row's elements."""

    def __init__(
        self,
        writer: NestWriter,
        reduces: Sequence[Node],
        outputs: Sequence[int],
        instances: Sequence[int],
    ):
        self.writer, self.em, self.f = writer, writer.em, writer.f
        self.order, self.plan = writer.order, writer.plan
        self.outputs, self.instances = outputs, instances
        self.reduces = [Accumulator(node, self.em.int) for node in reduces]
        self.across = self.order.lane is not None and not self.order.lane_in_rows
        if self.across and not self.plan.flat:
            self.instances = range(self.plan.instances)
        # Without masks the last elements of a row are reduced one by one beside the rest.
        lane = self.order.lane
        self.odd = (
            self.across and not self.f.target.masks and lane is not None
            and lane.extent % self.order.lanes != 0
        )  # fmt: skip

    # --- the whole pass ---------------------------------------------------------------------------

    def flat(self) -> None:
        """A row whose vectors are all instances."""
        self._bind(self.body([None] * len(self.instances), self.instances))

    def run(self) -> None:
        inner = self.order.inner
        counts = [self.plan.length(v) for v in inner]
        if self.across:
            counts[-1] = -(-counts[-1] // (self.order.lanes * len(self.instances)))
        if product(counts) <= 2 * RUN or not any(a.sums for a in self.reduces):
            self._bind(self._loops(0, self._start()))
            return
        at, below = len(counts) - 1, 1
        while below * counts[at] <= RUN:
            below *= counts[at]
            at -= 1
        state = [self._start(), self._totals()]
        self._bind(self._joined(self._runs(0, at, RUN // below, state)))

    def _start(self) -> State:
        state = [self._nothing(self.order.lanes if self.across else self.em.lanes)
                 for _ in self.instances]  # fmt: skip
        return state + [self._nothing(1)] * self.odd

    def _nothing(self, lanes: int) -> list[Regs]:
        return [a.start(self.f, lanes if self.across or self._wide(a) else 1) for a in self.reduces]

    def _wide(self, a: Accumulator) -> bool:
        """Whether a reduction's operand is a vector here."""
        place = frozenset() if a.position is None else a.position.roots()
        return self.em.is_wide(a.node.inputs[0].depends | place)

    def _bind(self, state: State) -> None:
        """Merge the accumulators, and let the reductions' nodes be known."""
        em, f = self.em, self.f
        for number, a in enumerate(self.reduces):
            regs = [one[number] for one in state]
            if not self.across:
                for k, one in zip(self.instances, regs, strict=True):
                    em.instance = k
                    em.bind(a.node, a.result(f, one))
                em.instance = 0
                continue
            odd = [regs.pop()] * self.odd if self.odd else []
            while len(regs) > 1:
                pairs = list(zip(regs[::2], regs[1::2], strict=False))
                regs = [a.merge(f, x, y) for x, y in pairs] + regs[2 * len(pairs) :]
            result = a.across(f, regs[0])
            for one in odd:
                result = a.merge(f, result, one)
            em.bind(a.node, a.result(f, result))

    # --- loops ------------------------------------------------------------------------------------

    def _loops(self, depth: int, state: State) -> State:
        """The loops from a depth on, around the body."""
        inner = self.order.inner
        if depth == len(inner):
            return self.body(state, self.instances)
        var = inner[depth]
        start, stop = self.writer.range_of(var)
        if self.across and var is self.order.lane:
            return self._rest(start, stop, self._main(start, stop, state))
        return self._loop(var, start, stop, 1, state, lambda s: self._loops(depth + 1, s))

    def _loop(
        self, var: Var, start: Int, stop: Int, step: int, state: Any, body: Callable[[Any], Any]
    ) -> Any:
        """A loop that hands on a state: lists and tuples of registers."""
        with self.em.loop(var, start, stop, step, flattened(state)) as loop:
            loop.next = flattened(body(shaped(iter(loop.carried), state)))
        return shaped(iter(loop.results), state)

    def _main(self, start: Int, stop: Int, state: State) -> State:
        """Lanes along the row: as far as all instances are whole."""
        lane, lanes, f = self.order.lane, self.order.lanes, self.f
        assert lane is not None
        step = lanes * len(self.instances)
        count = f.sub(stop, start)
        end = f.add(start, f.mul(f.udiv(count, step), step))
        if end.literal is not None and end.literal == start:
            return state

        def body(s: State) -> State:
            with self.em.wide(lanes):
                return self.body(s, self.instances)

        return self._loop(lane, start, end, step, state, body)

    def _rest(self, start: Int, stop: Int, state: State) -> State:
        """Lanes along the row: what is left for fewer instances, a mask, or single elements."""
        from chainrule.compiler.native.loops_emit import mask, running_mask

        em, f, lane, lanes = self.em, self.f, self.order.lane, self.order.lanes
        assert lane is not None
        step = lanes * len(self.instances)
        masks = f.target.masks
        if isinstance(start, int) and isinstance(stop, int):
            full = start + (stop - start) // step * step
            whole, tail = divmod(stop - full, lanes)
            if whole or (tail and masks):
                ragged = {whole: mask(lanes, tail)} if tail and masks else {}
                with em.block({lane: i64(full)}), em.wide(lanes, ragged):
                    state = self.body(state, range(whole + len(ragged)))
            first: Int = stop - tail
        else:
            count = f.sub(stop, start)
            first = f.add(start, f.mul(f.udiv(count, step), step))
            if not self.odd:

                def body(s: State) -> State:
                    left = f.sub(stop, em.var(lane))
                    whole = lane.extent % lanes == 0
                    ragged = {} if whole else {0: running_mask(f, left, lanes)}
                    with em.wide(lanes, ragged):
                        return self.body(s, [0])

                return self._loop(lane, first, stop, lanes, state, body)
            tail = 1
        if tail and not masks:
            odd = len(state) - 1
            state = self._loop(lane, first, stop, 1, state, lambda s: self.body(s, [odd]))
        return state

    # --- runs: float32 sums that go into float64 again and again ----------------------------------

    def _runs(self, depth: int, at: int, block: int, state: list[State]) -> list[State]:
        """The loops from a depth on; that at depth `at` is cut into runs."""
        inner = self.order.inner
        var = inner[depth]
        start, stop = self.writer.range_of(var)
        if depth < at:
            return self._loop(
                var, start, stop, 1, state, lambda s: self._runs(depth + 1, at, block, s)
            )
        along = self.across and var is self.order.lane
        step = self.order.lanes * len(self.instances) if along else 1
        f, end = self.f, self.f.add(stop, 0)
        if along:
            end = f.add(start, f.mul(f.udiv(f.sub(stop, start), step), step))
        run = Var(var.extent)

        def body(s: list[State]) -> list[State]:
            first = self.em.var(run)
            last = f.smin(f.add(first, block * step), end)
            accumulators = self._fresh(s[0])
            if along:
                accumulators = self._main(first, last, accumulators)
            else:
                accumulators = self._loop(
                    var, first, last, 1, accumulators, lambda a: self._loops(depth + 1, a)
                )
            return self._emptied(accumulators, s[1])

        state = self._loop(run, start, end, block * step, state, body)
        if along:
            return self._emptied(self._rest(start, stop, self._fresh(state[0])), state[1])
        return state

    def _totals(self) -> State:
        """Zeros in float64, where sums are made in runs."""
        return [
            [tuple(a.wide_zero(self.f, r) for r in regs) if a.sums else ()
             for a, regs in zip(self.reduces, one, strict=True)]
            for one in self._start()
        ]  # fmt: skip

    def _fresh(self, state: State) -> State:
        """Sums begin at 0 again; everything else goes on."""
        return [
            [new if a.sums else old for a, new, old in zip(self.reduces, zero, one, strict=True)]
            for zero, one in zip(self._start(), state, strict=True)
        ]

    def _emptied(self, state: State, totals: State) -> list[State]:
        """Add the sums of a run to the totals."""
        f = self.f
        added = [
            [tuple(f.fadd(t, a.widen(f, r)) for t, r in zip(total, regs, strict=True))
             if a.sums else () for a, total, regs in zip(self.reduces, sums, one, strict=True)]
            for sums, one in zip(totals, state, strict=True)
        ]  # fmt: skip
        return [self._fresh(state), added]

    def _joined(self, state: list[State]) -> State:
        """The totals where there are some, else the accumulators."""
        return [
            [total or regs for regs, total in zip(one, totals, strict=True)]
            for one, totals in zip(*state, strict=True)
        ]

    # --- one element of each instance -------------------------------------------------------------

    def body(self, state: Any, instances: Sequence[int]) -> State:
        """What happens at one place: into the accumulators, and out to the buffers.

        Arguments:
            state: None in place of accumulators that begin here.
        """
        em, f = self.em, self.f
        state = list(state)
        for position, k in enumerate(instances):
            slot = k if self.across else position
            em.instance = k if em.lanes > 1 or not self.across else 0
            regs = []
            ragged = em.masks.get(em.instance) if self.across else None
            before = state[slot]
            if before is None and ragged is not None:
                before = self._nothing(em.lanes)
            for number, a in enumerate(self.reduces):
                if before is None:
                    regs.append(a.first(f, *self._operand(a)))
                    continue
                old = before[number]
                new = a.add(f, old, *self._operand(a))
                if ragged is not None:
                    new = tuple(f.select(ragged, x, y) for x, y in zip(new, old, strict=True))
                regs.append(new)
            state[slot] = regs
            self.writer.store(self.outputs)
        em.instance = 0
        return state

    def _operand(self, a: Accumulator) -> tuple[Reg, Reg | None]:
        em, node = self.em, a.node.inputs[0]
        wide = self._wide(a) or (self.across and em.lanes > 1)
        x = em.vector(node) if wide else em.scalar(node)
        if a.position is None:
            return x, None
        if wide:
            return x, em.many(a.position)
        place = em.number(a.position)
        return x, place if em.int == "i64" else self.f.convert("trunc", place, em.int)


def flattened(state: Any) -> list[Reg]:
    """The registers of a state, in order."""
    if isinstance(state, Reg):
        return [state]
    return [reg for part in state for reg in flattened(part)]


def shaped(regs: Any, like: Any) -> Any:
    """Registers in the shape of a state."""
    if isinstance(like, Reg):
        return next(regs)
    parts = [shaped(regs, part) for part in like]
    return tuple(parts) if isinstance(like, tuple) else parts
