"""Parametrisation: a parameter that is computed from others each time it is read.

After `register_parametrization(layer, "weight", P)` the layer's weight is P(original). What is
trained and saved is `layer.parametrizations.weight.original` (or `original0`, `original1`, ... if P
takes several), and `layer.weight` is computed from it.
"""

from __future__ import annotations

from typing import Any

from chainrule.autograd.modes import no_grad
from chainrule.errors import ArgumentError, ShapeError
from chainrule.graph import Value
from chainrule.nn.containers import ModuleDict, ModuleList
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter


class ParametrizationList(ModuleList):
    """The parametrisations of one parameter, applied one after another to the originals.

    Made by `register_parametrization`.
    """

    def __init__(self, modules: list[Module], original: Any, unsafe: bool = False):
        super().__init__(modules)
        self.unsafe = unsafe
        originals = self._inverted(original, required=False)
        self.is_tensor = not isinstance(originals, tuple | list)
        if self.is_tensor:
            original._array = originals._array
            self._hold("original", original)
            self.ntensors = 1
        else:
            for i, value in enumerate(originals):
                trained = isinstance(original, Parameter)
                held = Parameter(value, original.requires_grad) if trained else value
                self._hold(f"original{i}", held)
            self.ntensors = len(originals)

    def _hold(self, name: str, tensor: Any) -> None:
        if isinstance(tensor, Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor)

    def _inverted(self, value: Any, required: bool) -> Any:
        """What the parametrisations give `value` for; itself where they have no inverse."""
        with no_grad():
            value = value.detach()
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
                elif required:
                    raise ArgumentError(
                        f"{type(module).__name__} has no right_inverse(), so that its result "
                        "cannot be assigned to."
                    )
        return value

    def right_inverse(self, value: Any) -> None:
        """Assign to the parametrised parameter: set the originals so that it becomes `value`."""
        inverted = self._inverted(value, required=True)
        with no_grad():
            for name, v in zip(
                self._names(), (inverted,) if self.is_tensor else inverted, strict=True
            ):
                getattr(self, name).copy_(v)

    def _names(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def forward(self) -> Any:
        first, *others = self
        value = first(*(getattr(self, name) for name in self._names()))
        for module in others:
            value = module(value)
        return value


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has parametrised parameters, or one of this name."""
    room = module._modules.get("parametrizations")
    return room is not None and (
        len(room._modules) > 0 if tensor_name is None else tensor_name in room._modules
    )


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Let a parameter or buffer be computed from now on; returns the module.

    Arguments:
        module: the layer.
        tensor_name: the parameter's name.
        parametrization: a module with `forward(original)`, and where it is possible
            `right_inverse(value)`: the original (or a tuple of originals) that gives `value`.
            Registered on a parameter that has one already, it is applied after it.
        unsafe: allow it to change the shape or dtype.

    Raises:
        ShapeError: if the result has another shape or dtype than the parameter, unless `unsafe`.
    """
    if is_parametrized(module, tensor_name):
        chain = module._modules["parametrizations"]._modules[tensor_name]  # type: ignore[union-attr]
        before = chain()  # type: ignore[misc]
        if not unsafe:
            _check_kept(before, parametrization(before), parametrization)
        if hasattr(parametrization, "right_inverse"):
            chain.right_inverse(parametrization.right_inverse(before))  # type: ignore[union-attr]
        chain.append(parametrization)  # type: ignore[union-attr]
        return module
    room = module._parameters if tensor_name in module._parameters else module._buffers
    original: Any = room.get(tensor_name)
    if original is None:
        raise ArgumentError(
            f"{type(module).__name__} has no parameter or buffer {tensor_name!r} to parametrise."
        )
    shape, dtype = original.shape, original.dtype
    chain = ParametrizationList([parametrization], original, unsafe)
    if not unsafe:
        result = chain()
        if not isinstance(result, Value) or result.shape != shape or result.dtype != dtype:
            raise _changed(parametrization, shape, dtype, result)
    delattr(module, tensor_name)
    if "parametrizations" not in module._modules:
        module.register_module("parametrizations", ModuleDict())
    module.parametrizations[tensor_name] = chain
    return module


def _check_kept(before: Any, after: Any, parametrization: Module) -> None:
    if after.shape != before.shape or after.dtype != before.dtype:
        raise _changed(parametrization, before.shape, before.dtype, after)


def _changed(parametrization: Module, shape: Any, dtype: Any, result: Any) -> ShapeError:
    got = (
        f"{result.dtype.name} of shape {result.shape}"
        if isinstance(result, Value)
        else type(result).__name__
    )
    return ShapeError(
        f"{type(parametrization).__name__} makes {got} of a parameter that is {dtype.name} of "
        f"shape {shape}; a parametrisation keeps both, unless unsafe=True."
    )


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Make a parametrised parameter an ordinary one again; returns the module.

    Arguments:
        module: the layer.
        tensor_name: the parameter's name.
        leave_parametrized: with the value that it has now, else with that of its original.
    """
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(f"{type(module).__name__} has no parametrised {tensor_name!r}.")
    chain: Any = module.parametrizations[tensor_name]
    if not leave_parametrized and not chain.is_tensor:
        raise ArgumentError(
            f"{tensor_name!r} is computed from {chain.ntensors} tensors, none of which could take "
            "its place; leave_parametrized=True keeps the value that it has."
        )
    with no_grad():
        value = (chain() if leave_parametrized else chain.original).detach()
    first = getattr(chain, chain._names()[0])
    del module.parametrizations[tensor_name]
    if not len(module.parametrizations):
        del module.parametrizations
    if isinstance(first, Parameter):
        module.register_parameter(tensor_name, Parameter(value, first.requires_grad))
    else:
        module.register_buffer(tensor_name, value)
    return module
