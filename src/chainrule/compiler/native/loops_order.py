"""Which loop is inside which, which variables run as one, and which one runs over lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.compiler.ir import Value
from chainrule.compiler.native.expressions import Node, product
from chainrule.compiler.native.index import Form, Index, Var
from chainrule.compiler.native.kernel import Buffers
from chainrule.compiler.native.lanes import Pair, offsets, window
from chainrule.compiler.native.loops_plan import Nest
from chainrule.compiler.native.target import Target
from chainrule.graph import Spec

MOST_LANES = 16


@dataclass
class Order:
    """A nest's loops, from the outside in.

    Attributes:
        rows, inner: what is left of the variables after merging.
        merged: see `emitter.Emitter`.
        lane: the variable that runs over lanes; None if there is none.
        lanes: how many.
        cross: a row variable along which values lie that are read across lanes, if any: tiles of
            `lanes` by `lanes` elements are transposed in registers.
        turned: the loads that are.
        pair: the two loops that lanes run over, where `lane` stands for both.
    """

    rows: list[Var]
    inner: list[Var]
    merged: dict[Var, Var | None]
    lane: Var | None
    lanes: int
    cross: Var | None = None
    turned: tuple[Node, ...] = ()
    pair: Pair | None = None

    @property
    def lane_in_rows(self) -> bool:
        return self.lane is not None and self.lane in self.rows


@dataclass(frozen=True)
class Access:
    """One load or store: the offset in its buffer, in elements."""

    form: Form
    weight: int
    size: int

    def coefficient(self, var: Var) -> int:
        return self.form.coefficient(var)


def arrange(nest: Nest, buffers: Buffers, target: Target) -> Order:
    """Order the loops of a nest for where its values lie."""
    accesses = _accesses(nest, buffers)
    lanes = min(MOST_LANES, target.lanes(_dtype(nest)))
    lane = _lane(nest, accesses, lanes)
    rank = _rank(accesses)
    rows, inner = sorted(nest.rows, key=rank), sorted(nest.inner, key=rank)
    cross, turned = _crossing(nest, buffers, lane, lanes)
    for var in (cross, lane):
        for group in (rows, inner):
            if var in group:
                group.append(group.pop(group.index(var)))
    forms = [a.form for a in accesses] + _other_forms(nest)
    merged: dict[Var, Var | None] = {}
    if nest.block is not None:  # runs along no buffer
        rows.insert(0, rows.pop(rows.index(nest.block)))
    rows, inner = (_merge(group, forms, merged, nest.block) for group in (rows, inner))
    lane, cross = (None if v is None else merged.get(v, v) for v in (lane, cross))
    if cross is None or len(rows) < 2 or rows[-2] is not cross:
        cross, turned = None, ()
    pair = _pair(nest, buffers, rows, merged, lanes) if lane in rows and cross is None else None
    if pair is not None:
        rows, lane = [*rows[:-2], pair.whole], pair.whole
    return Order(rows, inner, merged, lane, lanes if lane is not None else 1, cross, turned, pair)


def _pair(
    nest: Nest, buffers: Buffers, rows: Sequence[Var], merged: dict[Var, Var | None], lanes: int
) -> Pair | None:
    """The two innermost loops together, if the inner one fills less than a vector.

    What is written must lie side by side, and what is read near enough to be loaded in vectors.
    """
    if nest.stages or nest.inner or len(rows) < 2:
        return None
    outer, inner = rows[-2:]
    length = inner.extent
    if length not in (2, 4, 8) or length >= lanes or outer.extent * length < lanes:
        return None

    def names(var: Var) -> frozenset[Var]:
        return frozenset([var, *(v for v, other in merged.items() if other is var)])

    pair = Pair(Var(outer.extent * length), outer, inner, names(outer), names(inner))
    for z, index, _ in nest.outputs:
        found = pair.parted(_offset(buffers, z, index), lanes)
        if found is None or found[0] != 1:
            return None
    for node in nest.nodes():
        if node.kind == "load" and not pair.names.isdisjoint(node.depends):
            value, index, guard = node.data
            found = pair.parted(_offset(buffers, value, index), lanes)
            bits = pair.bits(guard, lanes) if guard else (True,) * lanes
            if found is None or bits is None:
                return None
            if any(bits) and window(offsets(found[0], lanes), bits) is None:
                return None
    return pair


def _crossing(
    nest: Nest, buffers: Buffers, lane: Var | None, lanes: int
) -> tuple[Var | None, tuple[Node, ...]]:
    """The variable along which loads lie that lanes run across, and those loads."""
    if lane is None or nest.stages or lane.extent < lanes // 2:
        return None, ()
    found: dict[Var, list[Node]] = {}
    for node in nest.nodes():
        if node.kind != "load" or node.data[2]:
            continue
        form = _offset(buffers, *node.data[:2])
        if abs(form.coefficient(lane)) < 2 or any(type(v) is not Var for v, _ in form.terms):
            continue
        for var, c in form.terms:
            if c == 1 and var.extent >= lanes:
                found.setdefault(var, []).append(node)
    best = max(found, key=lambda v: len(found[v]), default=None)
    return best, tuple(found[best]) if best is not None else ()


def _offset(buffers: Buffers, value: Value, index: Index) -> Form:
    total = Form(0)
    for form, step in zip(index, buffers[value].strides, strict=True):
        total = total + form.scale(step)
    return total


def _accesses(nest: Nest, buffers: Buffers) -> list[Access]:
    """What is read and written, the largest first, stores before loads."""

    found = [Access(_offset(buffers, z, index), 2, z.size) for z, index, _ in nest.outputs]
    for node in nest.nodes():
        if node.kind == "load":
            value, index, _ = node.data
            reach = Spec(tuple(v.extent for v in node.depends), value.dtype).size
            found.append(Access(_offset(buffers, value, index), 1, reach))
    return sorted(found, key=lambda a: (-a.size, -a.weight))


def _other_forms(nest: Nest) -> list[Form]:
    """Forms besides offsets that must come out the same when variables are merged."""
    forms = [atom.form for atom in nest.expressions.splits.quotients.values()]
    for node in nest.nodes():
        if node.kind == "position":
            forms.append(node.data)
        elif node.kind == "choice":
            forms += [form for form, *_ in node.data]
        elif node.kind == "load":
            forms += [form for form, *_ in node.data[2]]
        elif node.kind == "reduce" and node.data[2] is not None:
            forms.append(node.data[2])
    return forms


def _dtype(nest: Nest) -> Any:
    """The dtype whose vectors set the number of lanes: the widest float, else the widest."""
    nodes = [n for n in nest.nodes() if n.depends]
    dtypes = [n.dtype for n in nodes if n.dtype.kind == "f"] or [n.dtype for n in nodes]
    return max(dtypes, key=lambda d: d.itemsize, default="float32")


def _lane(nest: Nest, accesses: Sequence[Access], lanes: int) -> Var | None:
    """The variable whose neighbours lie side by side in most of what is read and written."""
    best, best_score = None, -1e9
    atoms = list(nest.expressions.splits.quotients.values())
    short = bool(nest.stages) and product(v.extent for v in nest.inner) <= lanes
    for var in (*nest.rows, *nest.inner):
        if var is nest.block:
            continue
        score = 0.0
        for access in accesses:
            step = abs(access.coefficient(var))
            mixed = any(var in a.roots() for a, _ in access.form.terms if a in atoms)
            weight = access.weight * access.size / accesses[0].size
            if step == 1 and not mixed:
                score += weight
            elif step or mixed:
                score -= 2 * weight
            elif access.weight == 2 and var in nest.rows:
                score -= 3 * weight
        score -= max(0.0, 1 - var.extent / lanes) * 2
        if short and var in nest.rows and var.extent >= lanes:
            score += 100  # rows that fill no vector: so many of them side by side do
        if score >= best_score:
            best, best_score = var, score
    return best


def _rank(accesses: Sequence[Access]) -> Any:
    """Sort key: variables with large steps in the largest accesses come first."""
    return lambda var: ([-abs(a.coefficient(var)) for a in accesses], var.number)


def _merge(
    group: list[Var], forms: Sequence[Form], merged: dict[Var, Var | None], block: Var | None
) -> list[Var]:
    """Run neighbours as one variable where the outer one just continues the inner one."""
    runs: list[list[Var]] = []
    for var in reversed(group):
        if runs and var is not block:
            inner = runs[-1]
            extent = 1
            for v in inner:
                extent *= v.extent
            first = inner[0]  # the innermost
            if all(f.coefficient(var) == extent * f.coefficient(first) for f in forms):
                inner.append(var)
                continue
        runs.append([var])
    result = []
    for run in reversed(runs):
        if len(run) == 1:
            result.append(run[0])
            continue
        extent = 1
        for v in run:
            extent *= v.extent
        whole = Var(extent)
        merged[run[0]] = whole
        for v in run[1:]:
            merged[v] = None
        result.append(whole)
    return result
