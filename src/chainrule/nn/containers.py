"""Modules that hold modules, and the residual connection."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from chainrule.errors import (
    ArgumentError,
    ArgumentTypeError,
    IndexingError,
    ShapeError,
    unknown_name,
)
from chainrule.graph import Value
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter
from chainrule.tensor import Tensor

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Residual", "Sequential"]


def _place(index: Any, length: int, kind: str) -> int:
    """An index counted from the front."""
    i = operator.index(index)
    if not -length <= i < length:
        raise IndexingError(f"index {i} is out of range for {kind} of length {length}.")
    return i % length


def _is_iterable(values: Any) -> bool:
    return isinstance(values, Iterable) and not isinstance(values, Value | str)


class _ModulesInOrder(Module):
    """What `Sequential` and `ModuleList` share: modules named 0, 1, 2, ..."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._modules.values()))

    def __contains__(self, module: object) -> bool:
        return any(m is module for m in self._modules.values())

    def _name(self, index: Any) -> str:
        return list(self._modules)[_place(index, len(self), type(self).__name__)]

    def __setitem__(self, index: Any, module: Module) -> None:
        self.register_module(self._name(index), module)

    def __delitem__(self, index: Any) -> None:
        names = list(self._modules)
        chosen = names[index] if isinstance(index, slice) else [self._name(index)]
        self._renumber(m for name, m in self._modules.items() if name not in chosen)

    def _renumber(self, modules: Iterable[Any]) -> None:
        kept = list(modules)
        self._modules.clear()
        for i, module in enumerate(kept):
            self.register_module(str(i), module)

    def append(self, module: Module) -> Self:
        """Add a module at the end; returns the container."""
        self.register_module(str(len(self)), module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before the one at `index`; returns the container."""
        if not isinstance(module, Module):
            raise ArgumentTypeError(f"insert needs an nn.Module, got {type(module).__name__}.")
        n = len(self)
        if not -n <= index <= n:
            raise IndexingError(f"index {index} is out of range for insertion into length {n}.")
        modules = list(self)
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end; returns the container."""
        if not _is_iterable(modules):
            raise ArgumentTypeError(
                f"extend needs an iterable of modules, got {type(modules).__name__}."
            )
        for module in list(modules):
            self.append(module)
        return self

    def pop(self, index: Any = -1) -> Module:
        """Remove the module at `index` and return it."""
        module = self._modules[self._name(index)]
        del self[index]
        assert module is not None
        return module


class Sequential(_ModulesInOrder):
    """Modules one after another: y = f_n(... f_2(f_1(x))).

    Arguments:
        args: the modules in order, named 0, 1, ...; or one OrderedDict of names and modules.

    Indexing with a number gives the module, with a slice a `Sequential` of the same modules.
    """

    def __init__(self, *args: Any):
        super().__init__()
        named: Iterable[tuple[str, Any]] = ((str(i), module) for i, module in enumerate(args))
        if len(args) == 1 and isinstance(args[0], dict):
            named = args[0].items()
        for name, module in named:
            if not isinstance(module, Module):
                raise ArgumentTypeError(
                    f"Sequential takes modules, but got {type(module).__name__} at {name!r}; "
                    "a list of modules is unpacked with a star: Sequential(*layers)."
                )
            self.register_module(name, module)

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    @overload
    def __getitem__(self, index: int) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return self._modules[self._name(index)]

    def __add__(self, other: Any) -> Sequential:
        if not isinstance(other, Sequential):
            return NotImplemented
        return Sequential(*self, *other)

    def __iadd__(self, other: Any) -> Self:
        if not isinstance(other, Sequential):
            return NotImplemented
        return self.extend(other)

    def __mul__(self, times: Any) -> Sequential:
        if not isinstance(times, int):
            return NotImplemented
        if times <= 0:
            raise ArgumentError(f"a Sequential is repeated 1 time or more, not {times}.")
        return Sequential(*(module for _ in range(times) for module in self))

    __rmul__ = __mul__

    def __imul__(self, times: Any) -> Self:
        if not isinstance(times, int):
            return NotImplemented
        if times <= 0:
            raise ArgumentError(f"a Sequential is repeated 1 time or more, not {times}.")
        return self.extend(module for _ in range(times - 1) for module in list(self))

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)  # type: ignore[misc]
        return input


class ModuleList(_ModulesInOrder):
    """A list of modules, registered as 0, 1, ...; it has no forward of its own.

    Arguments:
        modules: an iterable of modules.
    """

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        if modules is not None:
            self.extend(modules)

    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    @overload
    def __getitem__(self, index: int) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._modules[self._name(index)]

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __repr__(self) -> str:
        """Runs of modules that look alike are shown once: (0-2): 3 x Linear(...)."""
        runs: list[tuple[int, int, str]] = []
        for i, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], i, text)
            else:
                runs.append((i, i, text))
        if not runs:
            return f"{type(self).__name__}()"
        lines = []
        for first, last, text in runs:
            indented = text.replace("\n", "\n  ")
            single = first == last
            head = f"({first})" if single else f"({first}-{last})"
            count = "" if single else f"{last - first + 1} x "
            lines.append(f"\n  {head}: {count}{indented}")
        return f"{type(self).__name__}({''.join(lines)}\n)"


class ModuleDict(Module):
    """Modules by name, in the order of their adding; it has no forward of its own.

    Arguments:
        modules: a mapping, or an iterable of (name, module) pairs.
    """

    def __init__(self, modules: Any = None):
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        if key not in self._modules:
            raise unknown_name("module", key, self._modules)
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.register_module(key, module)

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> Any:
        """The names."""
        return self._modules.keys()

    def values(self) -> Any:
        """The modules."""
        return self._modules.values()

    def items(self) -> Any:
        """(name, module) pairs."""
        return self._modules.items()

    def clear(self) -> None:
        """Remove all modules."""
        self._modules.clear()

    def pop(self, key: str) -> Any:
        """Remove a module and return it."""
        module = self[key]
        del self._modules[key]
        return module

    def update(self, modules: Any) -> None:
        """Add modules from a mapping or from pairs; those of the same name are replaced."""
        for key, module in _pairs(modules, "ModuleDict.update"):
            self[key] = module


def _pairs(values: Any, what: str) -> list[tuple[Any, Any]]:
    if isinstance(values, Mapping | ModuleDict | ParameterDict):
        return list(values.items())
    if not _is_iterable(values):
        raise ArgumentTypeError(
            f"{what} takes a mapping or pairs of name and value, got {type(values).__name__}."
        )
    pairs = [tuple(pair) if _is_iterable(pair) else (pair,) for pair in values]
    for i, pair in enumerate(pairs):
        if len(pair) != 2:
            raise ArgumentError(f"{what}: element {i} has length {len(pair)}; 2 is required.")
    return pairs  # type: ignore[return-value]


def _as_held(value: Any) -> Any:
    """Tensors become parameters; anything else is held as it is."""
    if isinstance(value, Tensor) and not isinstance(value, Parameter):
        return Parameter(value)
    return value


def _described(key: Any, value: Any) -> str:
    if isinstance(value, Value):
        kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
        return f"({key}): {kind} containing: [{value.dtype.name} of size {value.shape}]"
    return f"({key}): Object of type: {type(value).__name__}"


class ParameterList(Module):
    """A list of parameters, registered as 0, 1, ...; tensors given to it become parameters.

    Arguments:
        values: an iterable of parameters or tensors.
    """

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    @overload
    def __getitem__(self, index: slice) -> ParameterList: ...
    @overload
    def __getitem__(self, index: int) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, str(_place(index, self._size, "ParameterList")))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(_place(index, self._size, "ParameterList")), _as_held(value))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, str(i)) for i in range(self._size))

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self.extend(values)

    def append(self, value: Any) -> Self:
        """Add a parameter at the end; returns the list."""
        self._size += 1
        self[self._size - 1] = value
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Add parameters at the end; returns the list."""
        if not _is_iterable(values):
            raise ArgumentTypeError(
                f"ParameterList takes an iterable of parameters, got {type(values).__name__}."
            )
        for value in list(values):
            self.append(value)
        return self

    def pop(self, index: int = -1) -> Any:
        """Remove the parameter at `index` and return it."""
        values = list(self)
        value = values.pop(_place(index, self._size, "ParameterList"))
        delattr(self, str(self._size - 1))
        self._size -= 1
        for i, kept in enumerate(values):
            setattr(self, str(i), kept)
        return value

    def extra_repr(self) -> str:
        return "\n".join(_described(i, value) for i, value in enumerate(self))


class ParameterDict(Module):
    """Parameters by name, in the order of their adding; tensors given to it become parameters.

    Arguments:
        parameters: a mapping, or an iterable of (name, parameter) pairs.
    """

    def __init__(self, parameters: Any = None):
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise unknown_name("parameter", key, self._keys)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str) or (key not in self._keys and hasattr(type(self), key)):
            raise ArgumentError(f"ParameterDict cannot hold a parameter named {key!r}.")
        setattr(self, key, _as_held(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __or__(self, other: Any) -> ParameterDict:
        return ParameterDict({**dict(self.items()), **dict(_pairs(other, "ParameterDict | other"))})

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def keys(self) -> Any:
        """The names."""
        return self._keys.keys()

    def values(self) -> list[Any]:
        """The parameters."""
        return [self[key] for key in self._keys]

    def items(self) -> list[tuple[str, Any]]:
        """(name, parameter) pairs."""
        return [(key, self[key]) for key in self._keys]

    def get(self, key: str, default: Any = None) -> Any:
        """The parameter of a name, or `default` where there is none."""
        return self[key] if key in self._keys else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The parameter of a name, which is `default` from now on where there was none."""
        if key not in self._keys:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Any:
        """Remove a parameter and return it."""
        value = self[key]
        del self._keys[key]
        delattr(self, key)
        return value

    def clear(self) -> None:
        """Remove all parameters."""
        for key in list(self._keys):
            del self[key]

    def update(self, parameters: Any) -> None:
        """Add parameters from a mapping or pairs; those of the same name are replaced."""
        for key, value in _pairs(parameters, "ParameterDict.update"):
            self[key] = value

    def extra_repr(self) -> str:
        return "\n".join(_described(key, value) for key, value in self.items())


class Residual(Module):
    """A residual connection: y = x + f(x), or y = s(x) + f(x) with a shortcut s.

    Where f changes the shape of x the shortcut brings x to the same one, in ResNet by a 1x1
    convolution. Source: He et al., "Deep residual learning for image recognition", CVPR 2016.

    Arguments:
        module: f.
        shortcut: s; the identity if None.

    Raises:
        ShapeError: if the two sides have different shapes: they are added, not broadcast.
    """

    def __init__(self, module: Module, shortcut: Module | None = None):
        super().__init__()
        self.module = module
        self.register_module("shortcut", shortcut)

    def forward(self, x: Any) -> Any:
        y = self.module(x)
        skipped = x if self.shortcut is None else self.shortcut(x)
        if y.shape != skipped.shape:
            raise ShapeError(
                f"the residual connection adds {skipped.shape} to {y.shape}, which must be equal; "
                "give shortcut= a module that brings x to the second shape, such as a 1x1 "
                "convolution with the same stride."
            )
        return skipped + y
