"""The derivatives of scan and cond.

The derivative of a scan is a scan in the other direction. With carry_t, y_t = f(w, carry_(t-1),
x_t) and the cotangents g of what came out, each of its steps computes

    d carry_(t-1), d x_t, d w_t = pullback of f at step t (d carry_t, g y_t)

from values that the forward loop has saved at each step. d w is the sum of the d w_t, taken behind
the loop where that is possible (overtime.py). All is applied through the same gate as anything
else, so that the derivative can be differentiated again.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.compiler.body import extract, replay, without_unread
from chainrule.compiler.ir import Graph, Value
from chainrule.compiler.overtime import Late, OverTime
from chainrule.compiler.pullback import Pullback, pull, reached, reaching
from chainrule.dtypes import is_float
from chainrule.graph import constant, make, state
from chainrule.primitives import bits, control, elementwise

Flags = tuple[bool, ...]


@dataclass
class Plan:
    """How a scan is differentiated: what is saved, and what goes through the loop back.

    Attributes:
        pullback: the derivative of one step.
        carried: the carries through which gradients flow.
        outputs: the outputs of the body whose cotangents it takes.
        saved: the values of the body that it needs of each step, beyond its xs.
        reached: for each output of the body whether it depends on what needs a gradient.
    """

    pullback: Pullback
    carried: list[int]
    outputs: list[int]
    saved: list[Value]
    reached: list[bool]


_plans: weakref.WeakKeyDictionary[Graph, dict[Any, Plan | None]] = weakref.WeakKeyDictionary()


def plan(
    body: Graph, consts: int, carries: int, needs: Flags, received: Flags, recompute: bool
) -> Plan | None:
    """The plan for a scan; None if nothing that is needed depends on what was received."""
    plans = _plans.setdefault(body, {})
    key = (consts, needs, received, recompute)
    if key not in plans:
        plans[key] = _make_plan(body, consts, carries, needs, received, recompute)
    return plans[key]


def _make_plan(
    body: Graph, consts: int, carries: int, needs: Flags, received: Flags, recompute: bool
) -> Plan | None:
    inputs, outputs = body.inputs, body.outputs
    wanted = {x for x, need in zip(inputs, needs, strict=True) if need}
    ends = {z for z, r in zip(outputs, received, strict=True) if r}
    forth, back = set(wanted), set(ends)
    carry = range(carries)
    while True:  # a carry that is reached in one step goes on into the next
        seen, before = reached(body, forth), reaching(body, back)
        forward = {inputs[consts + i] for i in carry if outputs[i] in seen} - forth
        backward = {outputs[i] for i in carry if inputs[consts + i] in before} - back
        backward = {z for z in backward if is_float(z.dtype)}
        if not forward and not backward:
            break
        forth |= forward
        back |= backward
    carried = [i for i in carry if inputs[consts + i] in forth and outputs[i] in back]
    ys = [
        i for i in range(carries, len(outputs)) if received[i] and outputs[i] in seen
    ]  # fmt: skip
    if not carried and not ys:
        return None
    flows = [consts + i for i in carried]
    want = [
        (needs[i] and x in before) if not consts <= i < consts + carries else i in flows
        for i, x in enumerate(inputs)
    ]
    took = [*carried, *ys]
    pullback = pull(body, want, [i in took for i in range(len(outputs))], recompute)
    given = {*inputs[:consts], *inputs[consts + carries :]}
    saved = [v for v in pullback.reads if v not in given]
    return Plan(pullback, carried, took, saved, [z in seen for z in outputs])


def saving(body: Graph, values: Sequence[Value], carries: int) -> Graph:
    """The body with further outputs."""
    there = body.outputs[carries:]
    more = [v for v in values if v not in there]
    if not more:
        return body
    return Graph(body.inputs, body.constants, body.ops, [*body.outputs, *more], {}, body.name)


def apply_scan(
    inputs: Sequence[Any], body: Graph, consts: int, carries: int, length: int, reverse: bool,
    recompute: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """Apply scan, saving what its derivative will read if there can be one."""
    shown = len(body.outputs)
    connected = [False] * shown
    if recompute:
        body = without_unread(body)
    if state.grad_enabled and any(x._node is not None for x in inputs):
        needs = tuple(x._node is not None for x in inputs)
        received = tuple(is_float(z.dtype) for z in body.outputs)
        found = plan(body, consts, carries, needs, received, recompute)
        if found is not None:
            wider = saving(body, found.saved, carries)
            padded = received + (False,) * (len(wider.outputs) - shown)
            _plans.setdefault(wider, {})[consts, needs, padded, recompute] = found
            body, connected = wider, found.reached
    results = control.scan(
        *inputs, body=body, consts=consts, carries=carries, length=length, reverse=reverse,
        recompute=recompute,
    )  # fmt: skip
    return _connected(results[:shown], connected)


def _connected(results: Sequence[Any], connected: Sequence[bool]) -> tuple[Any, ...]:
    """The results; those that depend on nothing that needs a gradient need none either."""
    return tuple(z if c else make(z._array) for z, c in zip(results, connected, strict=True))


def _is_zero(g: Any) -> bool:
    """Whether this is the constant that stands for a cotangent that nothing has contributed to."""
    array = g._array
    return (
        g._node is None
        and type(array) is np.ndarray  # and not a placeholder
        and isinstance(array.base, bytes)
        and not any(array.strides)
        and not any(array.base)
    )


def _listed(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def _scan_derivative(
    needs: Flags, g: Any, z: Any, *inputs: Any, body: Graph, consts: int, carries: int,
    length: int, reverse: bool, recompute: bool,
) -> Sequence[Any]:  # fmt: skip
    gs, zs = _listed(g), _listed(z)
    received = tuple(is_float(x.dtype) and not _is_zero(x) for x in gs)
    found = plan(body, consts, carries, needs, received, recompute)
    if found is None:
        return [None] * len(inputs)
    if any(v not in body.outputs[carries:] for v in found.saved):
        # Derivatives of higher order read more than the first loop has saved: run it again.
        body = saving(body, found.saved, carries)
        zs = apply_scan(inputs, body, consts, carries, length, reverse, recompute)
    stacks = dict(zip(body.inputs, inputs, strict=True))
    stacks.update(zip(body.outputs[carries:], zs[carries:], strict=True))
    reads = [stacks[v] for v in found.pullback.reads]
    back = _Back(found, body, consts, carries, emits=not recompute)
    return back.run(needs, gs, reads, length, not reverse)


class _Back:
    """The loop back: a plan's pullback, put into the form of a scan.

    `emits`: what products are made of may be stacked for one product behind the loop. A loop that
    saves memory by computing again has no room for that.
    """

    def __init__(self, plan: Plan, body: Graph, consts: int, carries: int, emits: bool):
        pulled = plan.pullback
        graph = self.graph = pulled.graph
        self.plan, self.pulled = plan, pulled
        n = len(pulled.reads)
        fixed = set(body.inputs[:consts])
        self.standing = dict(zip(graph.inputs, range(n), strict=False))  # -> position in reads
        self.invariant = [v for v, i in self.standing.items() if pulled.reads[i] in fixed]
        self.cotangents = dict(zip(plan.outputs, graph.inputs[n:], strict=True))
        self.carry = [self.cotangents[i] for i in plan.carried]
        self.varying = [
            v for v in graph.inputs if v not in set(self.invariant) and v not in set(self.carry)
        ]
        self.late: dict[int, list[Late]] = {}  # by input of the forward body
        self.sums: dict[int, list[Value]] = {}  # added up inside the loop
        self.consts, self.carries = consts, carries
        self.xs = [
            (i, value)
            for i in range(consts + carries, len(body.inputs))
            if (value := self.gradient(i)) is not None
        ]
        time = OverTime(graph, self.invariant, [*self.varying, *[value for _, value in self.xs]])
        sums = {k: v for k in range(consts) if (v := self.gradient(k)) is not None}
        for value in sums.values() if emits else ():
            time.emit(value)
        terms = {k: list(time.terms(value)) for k, value in sums.items()}
        for k, values in terms.items():
            for value in values:
                late = time.late(value)
                if late is None:
                    self.sums.setdefault(k, []).append(value)
                else:
                    self.late.setdefault(k, []).append(late)
        there = {*self.varying, *[value for _, value in self.xs]}
        self.emitted = [v for v in graph.values() if v in time.stacked and v not in there]

    def gradient(self, i: int) -> Value | None:
        """The value in the pullback of the gradient by input i of the body."""
        position = self.pulled.gradients[i]
        return None if position is None else self.graph.outputs[position]

    def run(
        self, needs: Flags, gs: Sequence[Any], reads: Sequence[Any], length: int, reverse: bool
    ) -> list[Any]:
        """Run it; returns the gradients by the inputs of the forward loop."""
        graph = self.graph
        outside = {v: reads[i] for v, i in self.standing.items()}
        outside.update((v, gs[i]) for i, v in self.cotangents.items())
        fixed = self._hoisted(outside)
        added = [value for values in self.sums.values() for value in values]
        flows = [
            self.gradient(self.consts + i) or _zeros(graph, z)
            for i, z in zip(self.plan.carried, self.carry, strict=True)
        ]
        stacked = [value for _, value in self.xs] + self.emitted
        body, now = extract(
            graph.ops, [*fixed, *self.carry, *self.varying], [*flows, *added, *stacked],
            graph.constants,
        )  # fmt: skip
        totals = [body.input(value.spec) for value in added]
        n, m = len(fixed), len(self.carry)
        body.inputs = [
            *body.inputs[: n + m], *totals, *body.inputs[n + m : len(body.inputs) - len(totals)]
        ]  # fmt: skip
        for j, (total, value) in enumerate(zip(totals, added, strict=True)):
            body.outputs[m + j] = body.add(elementwise.add, total, now[value])
        results = apply_scan(
            [
                *[outside[v] for v in fixed], *[outside[v] for v in self.carry],
                *[constant(0, v.shape, v.dtype) for v in added],
                *[outside[v] for v in self.varying],
            ],
            body, n, m + len(added), length, reverse,
        )  # fmt: skip
        return self._collect(needs, results, outside)

    def _hoisted(self, outside: dict[Value, Any]) -> list[Value]:
        """Do what is the same at every step before the loop; returns what the loop reads of it."""
        invariant = {*self.invariant, *self.graph.constants}
        hoisted = []
        for op in self.graph.ops:
            largest = max((x.size for x in op.inputs), default=0)
            if (
                all(x in invariant for x in op.inputs)
                and all(z.size <= largest for z in op.outputs)
                and op.primitive is not bits.random_bits
            ):
                hoisted.append(op)
                invariant.update(op.outputs)
        known = dict(outside)
        known.update((v, make(array)) for v, array in self.graph.constants.items())
        replay(hoisted, known)
        made = [z for op in hoisted for z in op.outputs]
        outside.update((z, known[z]) for z in made)
        read = {x for op in self.graph.ops if op not in hoisted for x in op.inputs}
        read.update(self.graph.outputs)
        return [v for v in (*self.invariant, *made) if v in read]

    def _collect(
        self, needs: Flags, results: Sequence[Any], outside: dict[Value, Any]
    ) -> list[Any]:
        gradients: list[Any] = [None] * len(needs)
        rest = iter(results)
        for i in self.plan.carried:
            found = next(rest)
            gradients[self.consts + i] = found if needs[self.consts + i] else None
        totals: dict[int, list[Any]] = {
            k: [next(rest) for _ in values] for k, values in self.sums.items()
        }
        stacks = {v: outside[v] for v in self.varying}
        for i, value in self.xs:
            gradients[i] = stacks[value] = next(rest)
        stacks.update(zip(self.emitted, rest, strict=True))
        for k, lates in self.late.items():
            totals.setdefault(k, []).extend(late(stacks.__getitem__) for late in lates)
        for k, terms in totals.items():
            total = terms[0]
            for term in terms[1:]:
                total = elementwise.add(total, term)
            gradients[k] = total
        return gradients


def _zeros(graph: Graph, like: Value) -> Value:
    return graph.constant(constant(0, like.shape, like.dtype)._array)


def apply_cond(
    predicate: Any, inputs: Sequence[Any], then: Graph, otherwise: Graph
) -> tuple[Any, ...]:  # fmt: skip
    """Apply cond; results that depend on nothing that needs a gradient need none."""
    results = control.cond(predicate, *inputs, then=then, otherwise=otherwise)
    connected = [False] * len(results)
    for branch in (then, otherwise):
        needing = {v for v, x in zip(branch.inputs, inputs, strict=True) if x._node is not None}
        seen = reached(branch, needing)
        connected = [c or z in seen for c, z in zip(connected, branch.outputs, strict=True)]
    return _connected(results, connected)


def _cond_derivative(
    needs: Flags, g: Any, z: Any, predicate: Any, *inputs: Any, then: Graph, otherwise: Graph
) -> Sequence[Any]:
    gs = _listed(g)
    received = tuple(is_float(x.dtype) and not _is_zero(x) for x in gs)
    wanted = needs[1:]
    branches = [_pulled_branch(b, wanted, received) for b in (then, otherwise)]
    cotangents = [x for x, r in zip(gs, received, strict=True) if r]
    results = iter(apply_cond(predicate, [*inputs, *cotangents], *branches))
    return [None, *[next(results) if want else None for want in wanted]]


def _pulled_branch(branch: Graph, wanted: Sequence[bool], received: Flags) -> Graph:
    """(inputs, cotangents) -> the gradients by the wanted inputs, computing forward again."""
    pulled = pull(branch, wanted, received, recompute=True)
    graph = Graph(name="body")
    inputs = {v: graph.input(v.spec) for v in branch.inputs}
    taken = zip(branch.outputs, received, strict=True)
    cotangents = [graph.input(z.spec) for z, r in taken if r]
    known = dict(
        zip(pulled.graph.inputs, [*[inputs[v] for v in pulled.reads], *cotangents], strict=True)
    )
    for value, array in pulled.graph.constants.items():
        known[value] = graph.constant(array)
    for op in pulled.graph.ops:
        made = graph.add(op.primitive, *[known[x] for x in op.inputs], **op.params)
        known.update(zip(op.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    for x, want, position in zip(branch.inputs, wanted, pulled.gradients, strict=True):
        if want:
            found = None if position is None else known[pulled.graph.outputs[position]]
            graph.outputs.append(_zeros(graph, x) if found is None else found)
    return graph


control.scan.derivatives = _scan_derivative
control.cond.derivatives = _cond_derivative
