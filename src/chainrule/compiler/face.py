"""`cr.compile`: a function over tensors, modules and optimisers, traced once and then run."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import numpy as np

from chainrule.array.creation import asarray
from chainrule.compiler import ir
from chainrule.compiler.guards import Names, warn_of_assignments
from chainrule.compiler.signature import constant_key, leaf_key, take_apart
from chainrule.compiler.launch import InNumPy, Native
from chainrule.compiler.slots import watching
from chainrule.compiler.state import Version
from chainrule.compiler.trace import Tracer
from chainrule.errors import ArgumentError, ChainruleWarning, unknown_name
from chainrule.graph import Value, state

F = TypeVar("F", bound=Callable[..., Any])
LIMIT = 32
BACKENDS = ("auto", "native", "numpy")


def enabled() -> bool:
    """Whether `cr.compile` compiles: `CHAINRULE_COMPILE=0` turns it off."""
    return os.environ.get("CHAINRULE_COMPILE", "1") not in ("0", "false", "off")


class Compiled:
    """A compiled function; see `cr.compile`."""

    def __init__(
        self, function: Callable[..., Any], static_argnums: tuple[int, ...],
        static_argnames: tuple[str, ...], backend: str,
    ):  # fmt: skip
        functools.update_wrapper(self, function)
        self.function = function
        self.backend = backend
        self._static = (frozenset(static_argnums), frozenset(static_argnames))
        self._versions: dict[Any, list[Version]] = {}
        self._lock = threading.RLock()
        self._warned = False
        self._count = 0
        self._on = enabled()

    @property
    def traces(self) -> int:
        """How many versions were traced so far."""
        return self._count

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if state.tracer is not None or state.observers or not self._on:
            return self.function(*args, **kwargs)
        with self._lock:
            return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves: list[Any] = []
        shape, build = self._take_apart(args, kwargs, leaves)
        leaves = [asarray(x) if isinstance(x, np.ndarray | np.generic) else x for x in leaves]
        key = (shape, state.grad_enabled, *map(leaf_key, leaves), _aliases(leaves))
        versions = self._versions.setdefault(key, [])
        for version in versions:
            if version.holds(leaves):
                return version.run(leaves)
        if self._count >= LIMIT:
            self._warn_of_limit()
            return self.function(*args, **kwargs)
        return self._first_call(key, build, leaves, versions)

    def _take_apart(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any]
    ) -> tuple[Any, Any]:
        """The call's structure as a key, and what calls the function with other leaves."""
        numbers, names = self._static
        parts = [
            (constant_key(x), lambda rest, x=x: x) if i in numbers else take_apart(x, leaves)
            for i, x in enumerate(args)
        ]
        named = {
            name: (constant_key(x), lambda rest, x=x: x) if name in names else take_apart(x, leaves)
            for name, x in kwargs.items()
        }

        def call(rest: Any) -> Any:
            given = [build(rest) for _, build in parts]
            return self.function(*given, **{k: build(rest) for k, (_, build) in named.items()})

        key = (*[k for k, _ in parts], *[(name, k) for name, (k, _) in named.items()])
        return key, call

    def _first_call(
        self, key: Any, call: Any, leaves: Sequence[Any], versions: list[Version]
    ) -> Any:
        if self._count == 0:
            warn_of_assignments(self.function)
        version = self._trace(key, call, leaves)
        version.install()
        try:
            if not version.holds(leaves):
                raise AssertionError("a version does not hold right after it was traced")
            version.look(leaves)
            result = version.run(leaves)
        except BaseException:
            version.uninstall()
            raise
        self._count += 1
        versions.append(version)
        return result

    def _trace(self, key: Any, call: Any, leaves: Sequence[Any]) -> Version:
        names = Names(self.function)
        tracer = Tracer(getattr(self.function, "__name__", "graph"))
        given = []
        with watching(tracer):
            for n, leaf in enumerate(leaves):
                if isinstance(leaf, Value):
                    tracer.adopt(leaf, ("argument", n) if self._is_free(leaf, names) else None)
                    given.append(leaf)
                else:
                    given.append(tracer.argument(n, f"argument {n}", leaf))
            try:
                result = call(iter(given))
                return Version(tracer, names, result, self._backend())
            finally:
                tracer.close()

    def _is_free(self, leaf: Any, names: Names) -> bool:
        """Whether another tensor may come in its place at the next call."""
        return id(leaf) not in names.tensors

    def _backend(self) -> Any:
        return _native if os.environ.get('NATIVE') else InNumPy

    def _warn_of_limit(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn("limit", ChainruleWarning, stacklevel=4)


def _aliases(leaves: Sequence[Any]) -> Any:
    """Which of the arguments are one tensor."""
    ids = [id(x) for x in leaves if isinstance(x, Value)]
    return None if len(set(ids)) == len(ids) else tuple(ids.index(i) for i in ids)


def _native(graph: ir.Graph) -> Native:
    from chainrule.compiler.build import build

    return Native(graph, build(graph))


@overload
def compile(function: F) -> F: ...
@overload
def compile(
    function: None = None, *, static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (), backend: str = "auto",
) -> Callable[[F], F]: ...  # fmt: skip
def compile(
    function: Any = None, *, static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (), backend: str = "auto",
) -> Any:  # fmt: skip
    """Compile a function over tensors, modules and optimisers into one program."""
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
    names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
    if function is None:
        return lambda f: Compiled(f, numbers, names, backend)
    if not callable(function):
        raise ArgumentError(f"cr.compile takes a function, got {type(function).__name__}.")
    return Compiled(function, numbers, names, backend)
