"""Checks of values in loops and branches: they are made behind, on what was looked at inside.

A kernel holds its indices inside their axes whatever they are, so what is computed from values that
are refused is only of no use; and no state is written before the checks. What a check looks at
becomes one more result:

    scan         the values of all steps, one after another
    cond         the values of the branch that is taken; the other one gives some that pass
    while_loop   the first values that do not pass; the loop ends when there are any
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.compiler import passes
from chainrule.compiler.ir import Graph, Op, Value
from chainrule.graph import Array, Spec
from chainrule.primitives import elementwise, movement, reduction
from chainrule.primitives.checks import check, passing
from chainrule.primitives.control import cond, scan, while_loop

Moved = tuple[Op, list[Op], dict[Value, Array]]
"""A loop or branch that gives what its checks look at, behind its other results; the checks; and
the constants that it reads."""


def with_checks_outside(graph: Graph, natively: Callable[[Op], bool] | None = None) -> Graph:
    """The graph with the checks of values in its loops and branches behind them.

    Arguments:
        natively: says whether an operation will have a kernel; others keep their checks, as NumPy
            does not hold indices inside their axes.
    """
    natively = natively or _has_kernel
    if not any(op.primitive in _MOVERS for op in graph.ops):
        return graph
    ops: list[Op] = []
    now: dict[Value, Value] = {}
    constants, updates = dict(graph.constants), dict(graph.updates)
    for old in graph.ops:
        op = _renewed(old, old.params, now)
        moved = _MOVERS[op.primitive](op, natively) if op.primitive in _MOVERS else None
        if moved is not None and natively(moved[0]):
            op, checks, more = moved
            constants.update(more)
            ops.append(op)
            for one, seen in zip(checks, op.outputs[len(old.outputs) :], strict=True):
                ops.append(Op(check, (seen,), one.params, None, one.line, one.where))
        else:
            ops.append(op)
        now.update(zip(old.outputs, op.outputs, strict=False))
    outputs = [now.get(z, z) for z in graph.outputs]
    return Graph(list(graph.inputs), constants, ops, outputs, updates, graph.name)


def _has_kernel(op: Op) -> bool:
    from chainrule.compiler.families import family_of

    return family_of(op) is not None


def _scan(op: Op, natively: Any) -> Moved | None:
    body, checks = _opened(op.params["body"], natively)
    if not checks:
        return None
    body = _without_checks(body, checks, [one.inputs[0] for one in checks])
    return Op(scan, op.inputs, {**op.params, "body": body}, None, op.line, op.where), checks, {}


def _cond(op: Op, natively: Any) -> Moved | None:
    (then, first), (otherwise, second) = (
        _opened(op.params[name], natively) for name in ("then", "otherwise")
    )
    checks = [*first, *second]
    good = [_passing_constant(one) for one in checks]
    if not checks or any(array is None for array in good):
        return None
    others = [Value(one.inputs[0].spec) for one in checks]
    looked = [one.inputs[0] for one in checks]
    n = len(first)
    params = {
        "then": _without_checks(then, first, [*looked[:n], *others[n:]]),
        "otherwise": _without_checks(otherwise, second, [*others[:n], *looked[n:]]),
    }
    params["then"].constants.update(zip(others[n:], good[n:], strict=True))
    params["otherwise"].constants.update(zip(others[:n], good[:n], strict=True))
    return Op(cond, op.inputs, params, None, op.line, op.where), checks, {}


def _while(op: Op, natively: Any) -> Moved | None:
    test, others = _opened(op.params["test"], natively)
    body, checks = _opened(op.params["body"], natively)
    good = [_passing_constant(one) for one in checks]
    if others or not checks or any(array is None for array in good):
        return None  # the test's own checks stay, and NumPy runs the loop
    # What passed so far is replaced by what is looked at now; what did not pass stays.
    body, test = _without_checks(body, checks, []), _without_checks(test, [], [])
    for one in checks:
        x, held = one.inputs[0], body.input(one.inputs[0].spec)
        flag = _spread(body, _all_pass(body, one, held), x.shape)
        body.outputs.append(body.add(elementwise.where, flag, x, held))
        passed = _all_pass(test, one, test.input(x.spec))
        test.outputs = [test.add(elementwise.logical_and, test.outputs[0], passed)]
    starts = [Value(one.inputs[0].spec) for one in checks]
    params = {**op.params, "test": test, "body": body}
    made = Op(while_loop, (*op.inputs, *starts), params, None, op.line, op.where)
    return made, checks, dict(zip(starts, good, strict=True))


_MOVERS: dict[Any, Callable[[Op, Any], Moved | None]] = {
    scan: _scan, cond: _cond, while_loop: _while,
}  # fmt: skip


def _opened(body: Graph, natively: Any) -> tuple[Graph, list[Op]]:
    """A graph inside, its own loops and branches done, and its checks."""
    body = with_checks_outside(passes.run(body), natively)
    return body, [op for op in body.ops if op.primitive is check]


def _renewed(op: Op, params: dict[str, Any], now: dict[Value, Value]) -> Op:
    """The operation on other inputs, if some of its own have been replaced."""
    inputs = tuple(now.get(x, x) for x in op.inputs)
    if inputs == op.inputs:
        return op
    specs = [z.spec for z in op.outputs]
    return Op(op.primitive, inputs, params, specs, op.line, op.where)


def _without_checks(body: Graph, checks: Sequence[Op], more: Sequence[Value]) -> Graph:
    """The body without its checks, and with `more` outputs, as a graph that may be changed."""
    passed = Value(Spec((), np.dtype(bool)))
    now = {one.output: passed for one in checks}
    ops = []
    for old in body.ops:
        if old not in checks:
            ops.append(_renewed(old, old.params, now))
            now.update(zip(old.outputs, ops[-1].outputs, strict=True))
    outputs = [now.get(z, z) for z in (*body.outputs, *more)]
    constants = {**body.constants, passed: np.asarray(True)}
    return Graph(list(body.inputs), constants, ops, outputs, {}, body.name)


# --- values that pass -----------------------------------------------------------------------------


def _passing_constant(one: Op) -> Any:
    """An array that passes a check, in the place of what it looks at; None if nothing does."""
    how, spec = one.params, one.inputs[0].spec
    bounds = [b for b in (how["low"], how["high"], how["ignore"]) if b is not None]
    for number in (0, *[round_(b) for b in bounds if math.isfinite(b) for round_ in _ROUND]):
        with np.errstate(all="ignore"):
            value = np.asarray(number).astype(spec.dtype)
        same = value == number
        if same and passing(value, **{k: how[k] for k in ("low", "high", "ignore", "nan")}):
            return np.broadcast_to(value, spec.shape)
    return None


_ROUND = (float, math.ceil, math.floor)


def _all_pass(graph: Graph, one: Op, x: Value) -> Value:
    """Whether all elements of x pass a check: `primitives.checks.passing`, in operations."""
    how = one.params

    def splat(value: Any, dtype: Any = x.dtype) -> Value:
        return graph.constant(np.broadcast_to(np.asarray(value, dtype=dtype), x.shape))

    good = splat(True, bool)
    for below in (True, False):
        bound = _bound(how["low" if below else "high"], x.dtype, below)
        if how["nan"] and bound is not None:  # compared with a NaN, nothing is true
            refused = graph.add(elementwise.lt if below else elementwise.gt, x, splat(bound))
            inside = graph.add(elementwise.logical_not, refused)
        elif bound is not None:
            inside = graph.add(elementwise.ge if below else elementwise.le, x, splat(bound))
        else:
            continue
        good = graph.add(elementwise.logical_and, good, inside)
    if how["ignore"] is not None and np.asarray(how["ignore"]).astype(x.dtype) == how["ignore"]:
        ignored = graph.add(elementwise.eq, x, splat(how["ignore"]))
        good = graph.add(elementwise.logical_or, good, ignored)
    return graph.add(reduction.all_, good, axes=tuple(range(x.ndim))) if x.ndim else good


def _bound(number: float, dtype: Any, below: bool) -> Any:
    """A bound in a dtype; None if no number of the dtype is beyond it."""
    if dtype.kind == "f":
        return number
    limit = np.iinfo(dtype)
    if math.isinf(number):
        return None
    whole = math.ceil(number) if below else math.floor(number)
    inside = whole > limit.min if below else whole < limit.max
    return whole if inside else None


def _spread(graph: Graph, flag: Value, shape: Sequence[int]) -> Value:
    """One number for each element of a shape."""
    if not shape:
        return flag
    flag = graph.add(movement.reshape, flag, shape=(1,) * len(shape))
    return graph.add(movement.broadcast_to, flag, shape=tuple(shape))
