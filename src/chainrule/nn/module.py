"""Module: a part of a network that owns parameters, buffers and other modules."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from chainrule import dtypes
from chainrule.compiler.guards import PLAIN
from chainrule.errors import (
    ArgumentError,
    ArgumentTypeError,
    ChainruleError,
    ModuleError,
    users_line,
)
from chainrule.graph import Value, program_tracer, structure
from chainrule.graph import state as running
from chainrule.nn import state
from chainrule.nn.hooks import Hooked
from chainrule.nn.parameter import Buffer, Parameter
from chainrule.tensor import Tensor

__all__ = ["Module"]

_ELSEWHERE = {
    "cuda": "there is one device, the cpu",
    "half": "float16 does not exist here; module.float() or module.double()",
    "bfloat16": "bfloat16 does not exist here; module.float() or module.double()",
}


class Module(Hooked):
    """Base of all layers and models.

    A subclass makes its parts in `__init__` and says in `forward` what it computes with them:

    ```python no-run (a fragment)
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(784, 16)
            self.output = nn.Linear(16, 10)

        def forward(self, x):
            return self.output(self.hidden(x).sigmoid())
    ```

    Assigning an `nn.Parameter`, an `nn.Buffer` or another `Module` to an attribute registers it: it
    is found by `parameters()`, `state_dict()`, `train()` and everything else that walks the tree.
    Names in these are paths, such as `hidden.weight`.

    Attributes:
        training: whether the module is in training mode; see `train` and `eval`.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent: set[str]

    def __init__(self) -> None:
        put = super().__setattr__
        put("training", True)
        put("_parameters", {})
        put("_buffers", {})
        put("_modules", {})
        put("_non_persistent", set())
        put("_hooks", None)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass writes its own."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward(); write one: def forward(self, x): ..."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward`, with the module's hooks around it. Errors name the layer by its path."""
        tracer = None if running.tracer is None else program_tracer()
        before = None if tracer is None else tracer.enter_layer(self)
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return self._hooks.call(self, args, kwargs)
        except ChainruleError as error:
            if error.layer is None:
                error.layer = self
            if error.line is None:
                error.line = users_line()
            error.root = self
            raise
        finally:
            if tracer is not None:
                tracer.leave_layer(before)

    def _structure(self) -> Iterator[Any]:
        """What a compiled function depends on: the parts, their modes, hooks and plain settings."""
        for module in self.modules():
            yield module
            for name, value in vars(module).items():
                if isinstance(value, PLAIN):
                    yield from (name, value)
            for room in (module._parameters, module._buffers, module._modules):
                yield from room
                yield from room.values()
            if module._hooks is not None:
                yield from module._hooks.keys()

    # --- parts as attributes ----------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Only reached when ordinary lookup has failed.
        attributes = self.__dict__
        for room in ("_parameters", "_buffers", "_modules"):
            if name in attributes.get(room, ()):
                return attributes[room][name]
        if (parametrized := self._parametrized(name)) is not None:
            return parametrized()
        raise self._missing_attribute(name)

    def _parametrized(self, name: str) -> Any:
        """What computes this attribute, if it is one that `nn.utils.parametrize` took over."""
        room = self.__dict__.get("_modules", {}).get("parametrizations")
        return None if room is None else room._modules.get(name)

    def _missing_attribute(self, name: str) -> ModuleError:
        kind = type(self).__name__
        if "_modules" not in self.__dict__:
            return ModuleError(
                f"{kind}.{name} was asked for before {kind} was set up; call super().__init__() "
                "first in its __init__."
            )
        known = [*self._parameters, *self._buffers, *self._modules]
        near = [] if name.startswith("__") else difflib.get_close_matches(name, known, n=3)
        guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        hint = f" Here: {_ELSEWHERE[name]}." if name in _ELSEWHERE else ""
        return ModuleError(f"{kind} has no attribute {name!r}.{guess}{hint}")

    def __setattr__(self, name: str, value: Any) -> None:
        attributes = self.__dict__
        if isinstance(value, (*PLAIN, Value, Module)):
            structure.epoch += 1
        if isinstance(value, Value) and self._parametrized(name) is not None:
            self._parametrized(name).right_inverse(value)
        elif isinstance(value, Parameter):
            self._make_room("parameter", name, "_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._make_room("module", name, "_modules")
            self._modules[name] = value
        elif isinstance(value, Buffer):
            self._make_room("buffer", name, "_buffers")
            self.register_buffer(name, value, persistent=value.persistent)
        elif name in attributes.get("_parameters", ()):
            self._set_to_none_or_refuse(self._parameters, name, value, "parameter", "Parameter")
        elif name in attributes.get("_modules", ()):
            self._set_to_none_or_refuse(self._modules, name, value, "module", "Module")
        elif name in attributes.get("_buffers", ()):
            if value is not None and not isinstance(value, Value):
                raise ArgumentTypeError(
                    f"cannot assign {type(value).__name__} to buffer {name!r} of "
                    f"{type(self).__name__}; expected a tensor or None."
                )
            if not (running.tracer is not None and self._assigned_in_trace(name, value)):
                self._buffers[name] = value  # type: ignore[assignment]
        else:
            super().__setattr__(name, value)

    def _assigned_in_trace(self, name: str, value: Any) -> bool:
        """While a function is traced a buffer keeps its tensor, which gets another value."""
        tracer, old = program_tracer(), self._buffers[name]
        if running.tracer is not tracer and old is not None and value is not None:
            old._rebind(value)  # in the body of a loop
            return True
        return tracer is not None and old is not None and tracer.assign(old, value)

    def _set_to_none_or_refuse(
        self, room: dict[str, Any], name: str, value: Any, kind: str, expected: str
    ) -> None:
        if value is not None:
            advice = " To change its value: `with cr.no_grad(): p.copy_(value)`."
            raise ArgumentTypeError(
                f"cannot assign {type(value).__name__} to {kind} {name!r} of "
                f"{type(self).__name__}; expected nn.{expected} or None."
                + (advice if kind == "parameter" else "")
            )
        room[name] = None

    def __delattr__(self, name: str) -> None:
        structure.epoch += 1
        for room in (self._parameters, self._buffers, self._modules):
            if name in room:
                del room[name]
                self._non_persistent.discard(name)
                return
        if name not in self.__dict__:
            raise self._missing_attribute(name)
        super().__delattr__(name)

    def __dir__(self) -> list[str]:
        parts = [*self._parameters, *self._buffers, *self._modules]
        return sorted({*super().__dir__(), *parts})

    def _check_ready(self, kind: str, name: str) -> None:
        if "_modules" not in self.__dict__:
            raise ModuleError(
                f"cannot assign {kind} {name!r} before {type(self).__name__} is set up; call "
                "super().__init__() first in its __init__."
            )

    def _make_room(self, kind: str, name: str, room: str) -> None:
        """Remove what stood under this name elsewhere, so that it stands in one place only."""
        self._check_ready(kind, name)
        if name in self.__dict__[room]:
            return
        self.__dict__.pop(name, None)
        for other in (self._parameters, self._buffers, self._modules):
            other.pop(name, None)
        self._non_persistent.discard(name)

    def _check_name(self, kind: str, name: str, room: Mapping[str, Any]) -> None:
        self._check_ready(kind, name)
        if not isinstance(name, str):
            raise ArgumentTypeError(f"a {kind}'s name is a string, got {type(name).__name__}.")
        if not name or "." in name:
            raise ArgumentError(f"a {kind}'s name may not be empty or hold a '.', got {name!r}.")
        if hasattr(self, name) and name not in room:
            raise ArgumentError(f"{type(self).__name__} has an attribute {name!r} already.")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter (or None: a place for one that is not there) under a name."""
        self._check_name("parameter", name, self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise ArgumentTypeError(
                f"parameter {name!r} must be an nn.Parameter or None, got {type(param).__name__}; "
                "wrap it: nn.Parameter(x)."
            )
        if param is not None and not param.is_leaf:
            raise ArgumentError(f"parameter {name!r} was computed; use nn.Parameter(x.detach()).")
        self._parameters[name] = param
        structure.epoch += 1

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Add a buffer: a tensor of the module's state that is not trained.

        Arguments:
            name: its name, by which it is an attribute of the module.
            tensor: its value, or None for a place without one.
            persistent: whether it is part of `state_dict()`.
        """
        self._check_name("buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ArgumentTypeError(
                f"buffer {name!r} must be a tensor or None, got {type(tensor).__name__}."
            )
        self._buffers[name] = tensor
        structure.epoch += 1
        (self._non_persistent.discard if persistent else self._non_persistent.add)(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a module (or None: a place for one that is not there) under a name."""
        self._check_name("module", name, self._modules)
        if module is not None and not isinstance(module, Module):
            raise ArgumentTypeError(
                f"module {name!r} must be an nn.Module or None, got {type(module).__name__}."
            )
        self._modules[name] = module
        structure.epoch += 1

    add_module = register_module

    # --- walking the tree -------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(path, module) for this module and all inside it, each once if `remove_duplicate`."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, path, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all inside it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) for the modules directly inside this one, each once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules directly inside this one, each once."""
        return (module for _, module in self.named_children())

    def _named_members(
        self, room: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules: Any = [(prefix, self)]
        if recurse:
            modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        for path, module in modules:
            for name, member in getattr(module, room).items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) for all parameters.

        Arguments:
            prefix: put before each path.
            recurse: also those of the modules inside; else this module's own alone.
            remove_duplicate: a parameter that stands in two places is given once.
        """
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once: what an optimiser is given."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer) for all buffers; arguments as `named_parameters`."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as `"features.3"`; this one for `""`."""
        module = self
        for name in target.split(".") if target else ():
            found = module._modules.get(name)
            if found is None:
                raise module._not_at_path("module", target, name, module._modules)
            module = found
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path such as `"features.3.weight"`."""
        return self._member_at(target, "parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path such as `"features.4.running_mean"`."""
        return self._member_at(target, "buffer")

    def _member_at(self, target: str, kind: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        room: dict[str, Any] = getattr(module, f"_{kind}s")
        if room.get(name) is None:
            raise module._not_at_path(kind, target, name, room)
        return room[name]

    def _not_at_path(
        self, kind: str, target: str, name: str, room: Mapping[str, Any]
    ) -> ModuleError:
        known = [key for key, value in room.items() if value is not None]
        listed = f"it has {', '.join(known)}" if known else "it has none"
        return ModuleError(
            f"no {kind} at {target!r}: {type(self).__name__} has no {kind} {name!r}; {listed}."
        )

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module inside and then on this one; returns it."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # --- modes, gradients and dtypes --------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Put this module and all inside it in training mode (dropout on, batch statistics)."""
        if not isinstance(mode, bool):
            raise ArgumentError(f"train(mode) takes True or False, got {mode!r}.")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Put this module and all inside it in evaluation mode; the same as `train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (`False`) or thaw all parameters; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set those that are there to zero."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = parameter.grad.detach() * 0

    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Self:
        """Cast floating parameters and buffers: `to(cr.float64)`, `to("cpu")`, `to(other_tensor)`.

        The parameters stay the same objects, so an optimiser that holds them goes on.
        """
        target = state.requested_dtype(args, dtype, device)
        if target is not None:
            state.cast(self, target)
        return self

    def float(self) -> Self:
        """`to(cr.float32)`."""
        return self.to(dtypes.float32)

    def double(self) -> Self:
        """`to(cr.float64)`."""
        return self.to(dtypes.float64)

    def cpu(self) -> Self:
        """The module itself: it is on the cpu."""
        return self

    # --- state ------------------------------------------------------------------------------------

    def state_dict(
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> OrderedDict[str, Tensor]:
        """All parameters and persistent buffers by path.

        The values are detached and stay as they are when training goes on.

        Arguments:
            destination: a dict to put them in.
            prefix: put before each path.
            keep_vars: give the parameters themselves and not their values.
        """
        found = OrderedDict() if destination is None else destination
        for path, tensor in state.entries(self, prefix):
            found[path] = tensor if keep_vars else tensor.detach()
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> state.IncompatibleKeys:
        """Take the values of a `state_dict()`: all of them, or on an error none.

        Arguments:
            state_dict: tensors or arrays by path; each is cast to the dtype of its place.
            strict: the keys must be exactly those of `state_dict()`.
            assign: keep the dtype of what is loaded instead of casting it.

        Returns:
            `missing_keys` and `unexpected_keys`, both empty if `strict`.

        Raises:
            StateDictError: naming each key that is missing, unexpected or of another shape.
        """
        return state.load(self, state_dict, strict=strict, assign=assign)

    # --- text -------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the brackets of the module's text: its arguments."""
        return ""

    def __repr__(self) -> str:
        lines = extra.split("\n") if (extra := self.extra_repr()) else []
        children = [f"({name}): {_indented(module)}" for name, module in self._modules.items()]
        return _assembled(type(self).__name__, lines, children)


def _indented(module: Any) -> str:
    return repr(module).replace("\n", "\n  ")


def _assembled(name: str, extra: list[str], children: list[str]) -> str:
    lines = extra + children
    if len(extra) == 1 and not children:
        return f"{name}({extra[0]})"
    return f"{name}(" + "".join(f"\n  {line}" for line in lines) + ("\n)" if lines else ")")
