"""Structured control flow: loops and choices whose bodies are graphs.

A body is a `Graph` (chainrule.compiler.ir) of the primitives of this floor, written down once by
tracing a function; here it is only ever read: `inputs`, `constants`, `ops`, `outputs`. Shape rules
and evaluations are those of the operations inside it, so that a loop's size does not depend on its
number of steps.

The derivative of a loop is another loop, whose body is found by tracing the derivative of this one.
It is therefore set by the room that can trace, chainrule.compiler.pullback.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from chainrule.errors import ChainruleError, DTypeError, GradError, ShapeError
from chainrule.graph import Array, Primitive, Spec

Step = Callable[[Sequence[Array]], list[Array]]

_steps: weakref.WeakKeyDictionary[Any, Step] = weakref.WeakKeyDictionary()


def prepared(body: Any) -> Step:
    """The function of arrays that a body is, ready to be called many times."""
    step = _steps.get(body)
    if step is None:
        step = _steps[body] = _prepare(body)
    return step


def _prepare(body: Any) -> Step:
    slots: dict[Any, int] = {}
    for value in (*body.inputs, *body.constants):
        slots.setdefault(value, len(slots))
    first = len(body.inputs)
    fixed = list(body.constants.values())
    last = {value: i for i, op in enumerate(body.ops) for value in (*op.outputs, *op.inputs)}
    for value in body.outputs:
        last.pop(value, None)
    program = []
    for i, op in enumerate(body.ops):
        for value in op.outputs:
            slots[value] = len(slots)
        done = [slots[v] for v in dict.fromkeys((*op.inputs, *op.outputs)) if last.get(v) == i]
        program.append(
            (op.primitive.evaluate, [slots[v] for v in op.inputs], op.params,
             [slots[v] for v in op.outputs], [n for n in done if n >= first + len(fixed)], op.line)
        )  # fmt: skip
    results = [slots[v] for v in body.outputs]
    room = [None] * (len(slots) - first - len(fixed))

    def step(arrays: Sequence[Array]) -> list[Array]:
        values: list[Any] = [*arrays, *fixed, *room]
        line = None
        try:
            for evaluate, inputs, params, outputs, done, at in program:
                line = at
                result = evaluate(*[values[n] for n in inputs], **params)
                made = result if type(result) is tuple else (result,)
                for n, array in zip(outputs, made, strict=True):
                    values[n] = array if type(array) is np.ndarray else np.asarray(array)
                for n in done:
                    values[n] = None
        except ChainruleError as error:
            error.line = error.line or line
            raise
        return [values[n] for n in results]

    return step


def _check(what: str, expected: Any, given: Any) -> None:
    """Whether an input is what the body was traced with."""
    if tuple(given.shape) != tuple(expected.shape):
        raise ShapeError(f"{what} has shape {given.shape}, and the body takes {expected.shape}.")
    if given.dtype != expected.dtype:
        raise DTypeError(f"{what} is {given.dtype.name}, and the body takes {expected.dtype.name}.")


def body_flops(body: Any) -> int:
    """Floating-point operations of one run of a body."""
    return sum(op.primitive.flops(op.outputs, *op.inputs, **op.params) for op in body.ops)


# --- scan -----------------------------------------------------------------------------------------


def _infer_scan(
    *inputs: Any, body: Any, consts: int, carries: int, length: int, reverse: bool, recompute: bool
) -> tuple[Spec, ...]:
    for i, (given, expected) in enumerate(zip(inputs, body.inputs, strict=True)):
        if i < consts + carries:
            _check(f"scan's input {i}", expected, given)
        else:
            _check(f"scan's input {i}", Spec((length, *expected.shape), expected.dtype), given)
    carried = [Spec(z.shape, z.dtype) for z in body.outputs[:carries]]
    return (*carried, *[Spec((length, *y.shape), y.dtype) for y in body.outputs[carries:]])


def _scan(
    *inputs: Array, body: Any, consts: int, carries: int, length: int, reverse: bool,
    recompute: bool,
) -> tuple[Array, ...]:  # fmt: skip
    step = prepared(body)
    fixed, carry = inputs[:consts], list(inputs[consts : consts + carries])
    xs = inputs[consts + carries :]
    ys = [np.empty((length, *y.shape), y.dtype) for y in body.outputs[carries:]]
    for t in range(length - 1, -1, -1) if reverse else range(length):
        results = step([*fixed, *carry, *[x[t, ...] for x in xs]])
        carry = results[:carries]
        for y, value in zip(ys, results[carries:], strict=True):
            y[t, ...] = value
    return (*carry, *ys)


scan = Primitive(
    "scan",
    "carry_t, y_t = body(consts, carry_(t-1), x_t) for t = 1, ..., length; gives carry_T and all y",
    ("*inputs",), _infer_scan, _scan,
    flops=lambda out, *inputs, body, length, **how: length * body_flops(body),
)  # fmt: skip

# --- cond -----------------------------------------------------------------------------------------


def _infer_cond(predicate: Any, *inputs: Any, then: Any, otherwise: Any) -> tuple[Spec, ...]:
    _check("cond's predicate", Spec((), np.dtype(bool)), predicate)
    for branch in (then, otherwise):
        for i, (given, expected) in enumerate(zip(inputs, branch.inputs, strict=True)):
            _check(f"cond's input {i}", expected, given)
    return tuple(Spec(z.shape, z.dtype) for z in then.outputs)


cond = Primitive(
    "cond", "then(*inputs) if the predicate is true, else otherwise(*inputs)", ("*inputs",),
    _infer_cond,
    lambda predicate, *inputs, then, otherwise: tuple(
        prepared(then if predicate else otherwise)(inputs)
    ),
    flops=lambda out, *inputs, then, otherwise: max(body_flops(then), body_flops(otherwise)),
)  # fmt: skip

# --- while ----------------------------------------------------------------------------------------


def _infer_while(*inputs: Any, test: Any, body: Any, consts: int) -> tuple[Spec, ...]:
    for i, (given, expected) in enumerate(zip(inputs, body.inputs, strict=True)):
        _check(f"while_loop's input {i}", expected, given)
    return tuple(Spec(z.shape, z.dtype) for z in body.outputs)


def _while(*inputs: Array, test: Any, body: Any, consts: int) -> tuple[Array, ...]:
    goes_on, step = prepared(test), prepared(body)
    fixed, carry = inputs[:consts], list(inputs[consts:])
    while goes_on([*fixed, *carry])[0]:
        carry = step([*fixed, *carry])
    return tuple(carry)


def _while_derivative(needs: Any, g: Any, z: Any, *inputs: Any, **how: Any) -> Any:
    raise GradError(
        "while_loop has no derivative: how many steps the way back takes is not known beforehand, "
        "nor what to save for it. Use cr.scan with a fixed number of steps (and cr.where or "
        "cr.cond inside it to stop early), or detach what goes into the loop."
    )


while_loop = Primitive(
    "while_loop", "carry = body(consts, carry) as long as test(consts, carry)", ("*inputs",),
    _infer_while, _while, _while_derivative,
    flops=lambda out, *inputs, test, body, consts: body_flops(test) + body_flops(body),
)  # fmt: skip

# Which inputs and outputs a derivative reads depends on the body; all are kept.
for _primitive in (scan, cond):
    _primitive.saves = (True,)
scan.reads_output = True

# --- looking inside -------------------------------------------------------------------------------


def _runs(
    primitive: Primitive, arrays: Sequence[Array], params: dict[str, Any]
) -> Iterator[tuple[Any, Sequence[Array], str]]:
    """Each run of a body: it, its inputs, and which one it is in words."""
    if primitive is cond:
        yield params["then" if arrays[0] else "otherwise"], arrays[1:], ""
        return
    consts = params["consts"]
    fixed, carry, t = arrays[:consts], list(arrays[consts:]), 0
    if primitive is while_loop:
        while prepared(params["test"])([*fixed, *carry])[0]:
            yield params["body"], [*fixed, *carry], f" at step {t} of a while_loop"
            carry, t = prepared(params["body"])([*fixed, *carry]), t + 1
        return
    n, length = params["carries"], params["length"]
    xs, carry = carry[n:], carry[:n]
    for t in range(length - 1, -1, -1) if params["reverse"] else range(length):
        inputs = [*fixed, *carry, *[x[t, ...] for x in xs]]
        yield params["body"], inputs, f" at step {t} of a scan"
        carry = prepared(params["body"])(inputs)[:n]


def first_not_finite(
    primitive: Primitive, arrays: Sequence[Array], params: dict[str, Any]
) -> tuple[Any, list[Array], list[Array], str] | None:
    """The operation inside that first makes a NaN or an infinity of finite numbers.

    Returns it, its inputs and outputs, and at which step of which loop; None if there is none.
    """

    def bad(values: Sequence[Array]) -> bool:
        return any(v.dtype.kind in "fc" and not np.isfinite(v).all() for v in values)

    for body, inputs, where in _runs(primitive, arrays, params):
        known: dict[Any, Any] = dict(zip(body.inputs, inputs, strict=True)) | dict(body.constants)
        for op in body.ops:
            given = [known[x] for x in op.inputs]
            result = op.primitive.evaluate(*given, **op.params)
            made = [np.asarray(z) for z in (result if type(result) is tuple else (result,))]
            if bad(made) and not bad(given):
                inner = None
                if op.primitive in (scan, cond, while_loop):
                    inner = first_not_finite(op.primitive, given, op.params)
                found, values, results, inside = inner or (op, given, made, "")
                return found, values, results, inside + where
            known.update(zip(op.outputs, made, strict=True))
    return None
