"""Derivatives against central differences: the proof that a rule is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.autograd import engine
from chainrule.autograd.modes import _GradMode
from chainrule.dtypes import is_float
from chainrule.errors import ArgumentError, GradError
from chainrule.graph import Leaf, Value, make


def _leaves(inputs: Any) -> list[Any]:
    """Fresh leaves for the inputs that require gradients; the others as they are."""
    leaves = []
    for x in inputs:
        if isinstance(x, Value) and x._node is not None:
            if x.dtype != np.float64:
                raise ArgumentError(
                    f"gradcheck compares with differences of about 1e-6 and needs float64 inputs, "
                    f"but got {x.dtype.name}; cast with .astype(cr.float64)."
                )
            twin = make(np.array(x._array))
            twin._node = Leaf(twin)
            leaves.append(twin)
        else:
            leaves.append(x)
    if all(not isinstance(x, Value) or x._node is None for x in leaves):
        raise ArgumentError("gradcheck needs at least one input with requires_grad=True.")
    return leaves


def _outputs(function: Callable[..., Any], inputs: Sequence[Any]) -> list[Any]:
    with _GradMode(True):
        result = function(*inputs)
    results = result if isinstance(result, tuple | list) else (result,)
    floats = [z for z in results if isinstance(z, Value) and is_float(z.dtype)]
    if not floats:
        raise ArgumentError("gradcheck needs a function that returns a floating-point tensor.")
    return floats


def _numeric(
    function: Callable[..., Any], inputs: list[Any], position: int, eps: float
) -> list[np.ndarray[Any, Any]]:
    """(f(x + eps) - f(x - eps)) / 2 eps, for each element of one input: a Jacobian per output."""
    x = inputs[position]
    columns: list[list[Any]] = []
    for k in range(x.size):
        sides = []
        for sign in (1, -1):
            moved = np.array(x._array, order="C")  # so that reshaping it gives a window onto it
            moved.reshape(-1)[k] += sign * eps
            changed = [*inputs[:position], make(moved), *inputs[position + 1 :]]
            sides.append([np.array(z._array).reshape(-1) for z in _outputs(function, changed)])
        columns.append([(a - b) / (2 * eps) for a, b in zip(*sides, strict=True)])
    count = len(_outputs(function, inputs))
    return [
        np.stack([column[i] for column in columns], axis=1) if columns else np.zeros((0, 0))
        for i in range(count)
    ]


def _analytic(output: Any, x: Any) -> np.ndarray[Any, Any]:
    rows = []
    for k in range(output.size):
        g = np.zeros(output.size)
        g[k] = 1
        found = None
        if output._node is not None:
            (found,) = engine.gradients_of(
                [output], [x], [make(g.reshape(output.shape))], retain_graph=True,
                allow_unused=True,
            )  # fmt: skip
        rows.append(np.zeros(x.size) if found is None else np.array(found._array).reshape(-1))
    return np.stack(rows) if rows else np.zeros((0, x.size))


def gradcheck(
    function: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compare the derivatives of a function with central differences, in float64.

    Arguments:
        function: takes the inputs and returns a tensor or a tuple of tensors.
        inputs: a tensor or a tuple; those with `requires_grad=True` are checked, and are float64.
        eps: the step of the difference. atol, rtol: |analytic - numeric| <= atol + rtol |numeric|.
        raise_exception: raise on a difference, instead of returning False.
    """
    leaves = _leaves(inputs if isinstance(inputs, tuple | list) else (inputs,))
    for position, x in enumerate(leaves):
        if not isinstance(x, Value) or x._node is None:
            continue
        numeric = _numeric(function, leaves, position, eps)
        for i, (output, expected) in enumerate(
            zip(_outputs(function, leaves), numeric, strict=True)
        ):
            got = _analytic(output, x)
            expected = expected.reshape(got.shape)
            if not np.allclose(got, expected, rtol=rtol, atol=atol, equal_nan=True):
                if not raise_exception:
                    return False
                worst = np.unravel_index(np.argmax(np.abs(got - expected)), got.shape)
                raise GradError(
                    f"output {i} by input {position}: the derivative of element {int(worst[0])} by "
                    f"element {int(worst[1])} is {got[worst]:.8g}, but the central difference is "
                    f"{expected[worst]:.8g}."
                )
    return True


def gradgradcheck(
    function: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """`gradcheck` of the gradient: the second derivatives, and those by the upstream gradient."""
    inputs = inputs if isinstance(inputs, tuple | list) else (inputs,)
    leaves = _leaves(inputs)
    outputs = _outputs(function, leaves)
    if grad_outputs is None:
        generator = np.random.Generator(np.random.Philox(0))
        grad_outputs = [make(generator.standard_normal(z.shape)) for z in outputs]
    elif isinstance(grad_outputs, Value):
        grad_outputs = [grad_outputs]
    grad_outputs = [g.detach().requires_grad_() for g in grad_outputs]
    checked = [i for i, x in enumerate(leaves) if isinstance(x, Value) and x._node is not None]

    def gradient(*arguments: Any) -> tuple[Any, ...]:
        xs, gs = list(arguments[: len(leaves)]), arguments[len(leaves) :]
        for i in checked:
            if xs[i]._node is None:
                xs[i] = make(xs[i]._array)
                xs[i]._node = Leaf(xs[i])
        ys = _outputs(function, xs)
        used = [(y, g) for y, g in zip(ys, gs, strict=True) if y._node is not None]
        found = engine.gradients_of(
            [y for y, _ in used], [xs[i] for i in checked], [g for _, g in used],
            create_graph=True, allow_unused=True,
        )  # fmt: skip
        return tuple(z for z in found if z is not None)

    return gradcheck(
        gradient, (*leaves, *grad_outputs), eps=eps, atol=atol, rtol=rtol,
        raise_exception=raise_exception,
    )  # fmt: skip
