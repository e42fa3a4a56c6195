"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chainrule import array as xp
from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError, ArgumentTypeError, ShapeError
from chainrule.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Any]) -> Tensor:
    """The elements of all parameters, one after another, as a vector (connected to the graph)."""
    flat = [xp.reshape(p, (p.size,)) for p in parameters]
    if not flat:
        raise ArgumentError("parameters_to_vector needs at least one parameter, and got none.")
    return xp.concat(flat)


def vector_to_parameters(vec: Any, parameters: Iterable[Any]) -> None:
    """Assign the elements of a vector to parameters, in order, outside the graph.

    Raises:
        ShapeError: if the vector has more or fewer elements than the parameters together; then no
            parameter is changed.
    """
    if not isinstance(vec, Tensor):
        raise ArgumentTypeError(f"vector_to_parameters takes a tensor, got {type(vec).__name__}.")
    held = list(parameters)
    total = sum(p.size for p in held)
    if vec.shape != (total,):
        raise ShapeError(
            f"vector_to_parameters got a vector of shape {vec.shape} for {total} parameters."
        )
    with no_grad():
        for p, part in zip(held, xp.split(vec.detach(), [p.size for p in held]), strict=True):
            p.copy_(xp.reshape(part, p.shape))
