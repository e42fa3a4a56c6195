"""Derivatives: the engine, functions of one's own, and checks against central differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.array._core import is_operand
from chainrule.array.creation import asarray
from chainrule.autograd import engine
from chainrule.autograd.anomaly import detect_anomaly
from chainrule.autograd.check import gradcheck, gradgradcheck
from chainrule.autograd.function import Function
from chainrule.autograd.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from chainrule.errors import ArgumentError
from chainrule.graph import Value


def _listed(x: Any) -> Sequence[Any]:
    return (x,) if isinstance(x, Value) else tuple(x)


def _seeds(outputs: Sequence[Any], gradients: Any) -> list[Any]:
    """What each output's gradient starts from."""
    if gradients is None:
        given: Sequence[Any] = (None,) * len(outputs)
    else:
        given = (gradients,) if is_operand(gradients) else tuple(gradients)
    if len(given) != len(outputs):
        raise ArgumentError(f"{len(outputs)} output(s) need as many gradients, got {len(given)}.")
    return [
        engine.seed(z, None if g is None else asarray(g))
        for z, g in zip(outputs, given, strict=True)
    ]


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """dL/dx for each x in `inputs`, without touching any `.grad`.

    Arguments:
        outputs, inputs: a tensor or a sequence of tensors.
        grad_outputs: dL/d(output) for each output; None for scalars.
        retain_graph: keep the saved values for another walk. Default: `create_graph`.
        create_graph: record the gradients, so that they can be differentiated again.
        allow_unused: give None for an input that the outputs do not depend on.
    """
    zs, xs = _listed(outputs), _listed(inputs)
    return engine.gradients_of(
        zs, xs, _seeds(zs, grad_outputs), retain_graph=retain_graph, create_graph=create_graph,
        allow_unused=allow_unused,
    )  # fmt: skip


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add dL/dx to `x.grad` for every leaf that the tensors depend on (or for `inputs` alone)."""
    zs = _listed(tensors)
    engine.backward(
        zs, _seeds(zs, grad_tensors), inputs=None if inputs is None else _listed(inputs),
        retain_graph=create_graph if retain_graph is None else retain_graph,
        create_graph=create_graph,
    )  # fmt: skip


__all__ = [
    "Function", "backward", "detect_anomaly", "enable_grad", "grad", "gradcheck", "gradgradcheck",
    "is_grad_enabled", "no_grad", "set_grad_enabled",
]  # fmt: skip
