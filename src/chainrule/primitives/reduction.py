"""Reductions and running sums. `axes` are sorted, non-negative, and disappear from the shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.errors import ShapeError
from chainrule.graph import Array, Primitive, Shape, Spec, constant
from chainrule.primitives._rules import check_kind
from chainrule.primitives.elementwise import eq, where
from chainrule.primitives.movement import broadcast_to, flip, reshape

Axes = tuple[int, ...]


def reduced_shape(shape: Shape, axes: Axes) -> Shape:
    """The shape without `axes`."""
    return tuple([n for i, n in enumerate(shape) if i not in axes])


def _expand(value: Any, shape: Shape, axes: Axes) -> Any:
    """Undo a reduction's change of shape: every element of `shape` sees its own result."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    return broadcast_to(reshape(value, shape=kept), shape=shape)


def _input_flops(outputs: Any, x: Any, **params: Any) -> int:
    return x.size


def _rule(name: str, kind: str, result: Any = None, identity: bool = True) -> Callable[..., Spec]:
    def infer(x: Any, axes: Axes) -> Spec:
        check_kind(name, kind, x)
        shape = reduced_shape(x.shape, axes)
        if not identity and x.size == 0 and 0 not in shape:
            raise ShapeError(f"{name} of no elements: shape {x.shape}, axes {axes}.")
        return Spec(shape, x.dtype if result is None else result)

    return infer


def _sum(x: Array, axes: Axes) -> Array:
    return np.sum(x, axis=axes, dtype=x.dtype)


sum = Primitive(
    "sum", "the sum over some axes", ("x",), _rule("sum", "numeric"), _sum,
    (lambda g, z, x, axes: _expand(g, x.shape, axes),), flops=_input_flops,
)  # fmt: skip


def _extremum_dx(g: Any, z: Any, x: Any, axes: Axes) -> Any:
    # Elements that tie for the extremum share the gradient equally.
    hit = eq(x, _expand(z, x.shape, axes))
    one, zero = constant(1, x.shape, x.dtype), constant(0, x.shape, x.dtype)
    share = where(hit, one, zero)
    return _expand(g / sum(share, axes=axes), x.shape, axes) * share


def _extremum(name: str, formula: str, ufunc: Any) -> Primitive:
    return Primitive(
        name, formula, ("x",), _rule(name, "ordered", identity=False),
        lambda x, axes: ufunc(x, axis=axes),
        (_extremum_dx,), reads="x z", flops=_input_flops,
    )  # fmt: skip


max = _extremum("max", "the largest over some axes", np.max)
min = _extremum("min", "the smallest over some axes", np.min)

all_ = Primitive(
    "all", "whether all over some axes are true", ("x",), _rule("all", "bool"),
    lambda x, axes: np.all(x, axis=axes), flops=_input_flops,
)  # fmt: skip
any_ = Primitive(
    "any", "whether any over some axes is true", ("x",), _rule("any", "bool"),
    lambda x, axes: np.any(x, axis=axes), flops=_input_flops,
)  # fmt: skip


def _arg_extremum(name: str, formula: str, ufunc: Any) -> Primitive:
    def infer(x: Any, axis: int) -> Spec:
        return _rule(name, "ordered", dtypes.int64, identity=False)(x, (axis,))

    return Primitive(
        name, formula, ("x",), infer,
        lambda x, axis: ufunc(x, axis=axis).astype(dtypes.int64),
        flops=_input_flops,
    )  # fmt: skip


argmax = _arg_extremum("argmax", "where the largest along an axis first stands", np.argmax)
argmin = _arg_extremum("argmin", "where the smallest along an axis first stands", np.argmin)


def _infer_cumulative_sum(x: Any, axis: int) -> Spec:
    check_kind("cumulative_sum", "numeric", x)
    return Spec(x.shape, x.dtype)


cumulative_sum = Primitive(
    "cumulative_sum", "z_k = sum of x_i over i <= k", ("x",), _infer_cumulative_sum,
    lambda x, axis: np.cumsum(x, axis=axis, dtype=x.dtype),
    # x_i reaches every z_k with k >= i: sum from the far end.
    (lambda g, z, x, axis: flip(cumulative_sum(flip(g, axes=(axis,)), axis=axis), axes=(axis,)),),
    flops=_input_flops,
)  # fmt: skip
