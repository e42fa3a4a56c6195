"""Hunting NaN and infinity to the operation that made them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule.errors import NonFiniteError, users_line
from chainrule.graph import observe
from chainrule.primitives import control


def _range(array: Any) -> str:
    """Shape and range of an array in words."""
    if array.dtype.kind not in "fc" or not array.size:
        return f"{array.dtype.name} {array.shape}"
    finite = array[np.isfinite(array)]
    if array.dtype.kind == "c" or not finite.size:
        span = "no finite element" if not finite.size else "complex"
    else:
        span = f"from {finite.min():.4g} to {finite.max():.4g}"
    bad = array.size - finite.size
    return f"{array.dtype.name} {array.shape} {span}" + (f", {bad} not finite" if bad else "")


def _bad(x: Any) -> bool:
    return x.dtype.kind in "fc" and not np.isfinite(x._array).all()


def _check(primitive: Any, inputs: Any, outputs: Any, params: Any) -> None:
    node = outputs[0]._node
    if node is not None:
        node.line = users_line()  # the engine names it when the derivative fails
    # An operation that was given a NaN is not to blame; the first that makes one is.
    if any(_bad(z) for z in outputs) and not any(_bad(x) for x in inputs):
        arrays, results = [x._array for x in inputs], [z._array for z in outputs]
        where, line = "", None
        if primitive.name in ("scan", "cond", "while_loop"):
            with np.errstate(all="ignore"):
                found = control.first_not_finite(primitive, arrays, params)
            if found is not None:
                op, arrays, results, where = found
                primitive, line = op.primitive, op.line
        kind = "NaN" if any(np.isnan(z).any() for z in results) else "infinity"
        described = "; ".join(
            f"{name} {_range(x)}" for name, x in zip(_names(primitive, arrays), arrays, strict=True)
        )
        error = NonFiniteError(
            f"the first {kind} was made by {primitive.name} (z = {primitive.formula}){where} from "
            f"{described}."
        )
        error.line = line or users_line()
        raise error


def _names(primitive: Any, inputs: Any) -> list[str]:
    if primitive.variadic:
        return [f"{primitive.inputs[0][1:-1]}{i}" for i in range(len(inputs))]
    return list(primitive.inputs)


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside, the first operation whose result holds a NaN or an infinity raises `NonFiniteError`.

    That goes for the operations of `backward` too. The message names the operation, the ranges of
    its inputs, the layer, the user's line, and for a derivative the line that the operation was
    applied at. It costs a look at every number computed: use it to search, not to train.
    """
    with observe(_check):
        yield
