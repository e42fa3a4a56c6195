"""`cr.compile`: a function over tensors, modules and optimisers, traced once and then run."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import inspect
import os
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from chainrule.array.creation import asarray
from chainrule.compiler import ir, signature
from chainrule.compiler.guards import Names, warn_of_assignments
from chainrule.compiler.launch import UNUSUAL, InNumPy, Native
from chainrule.compiler.naming import name_inputs
from chainrule.compiler.slots import watching
from chainrule.compiler.state import Version
from chainrule.compiler.trace import Tracer
from chainrule.compiler.versions import Versions
from chainrule.errors import (
    ArgumentTypeError,
    ChainruleError,
    TraceError,
    unknown_name,
    warn_at_users_line,
)
from chainrule.graph import Value, state

if TYPE_CHECKING:
    from chainrule.compiler.fast import Usual

F = TypeVar("F", bound=Callable[..., Any])
LIMIT = 32
MANY = 8
"""So many versions for fewer calls that found theirs are worth a warning."""
USUALS = 4
"""How many versions' usual calls are tried before a call is looked at more closely."""
BACKENDS = ("auto", "native", "numpy")


def enabled() -> bool:
    """Whether `cr.compile` compiles: the environment's CHAINRULE_COMPILE=0 turns it off."""
    return os.environ.get("CHAINRULE_COMPILE", "1").lower() not in ("0", "false", "off", "no")


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Let the garbage collector wait: what tracing and emitting make is all needed."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_all: weakref.WeakSet[Compiled] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child of a fork: whoever held a lock is not here."""
    for function in list(_all):
        function._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Compiled:
    """A compiled function; see `cr.compile`.

    Attributes:
        traces: how many versions were traced so far, for other shapes, modes or structures.
    """

    def __init__(
        self, function: Callable[..., Any], static_argnums: tuple[int, ...],
        static_argnames: tuple[str, ...], backend: str, limit: int,
    ):  # fmt: skip
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.backend = backend
        self.limit = limit
        self.traces = 0
        self._static = (frozenset(static_argnums), frozenset(static_argnames))
        self._versions = Versions(limit)
        self._last: Version | None = None
        self._usuals: list[Usual] = []  # the last ones first
        self._shaped: list[Usual] = []  # those whose arguments have to be taken apart
        self._captured: set[int] = set()  # tensors that some version has found by itself
        self._warned = False
        self._lock = threading.RLock()
        _all.add(self)
        self._on = enabled()
        if self._on and self._wants_native():
            _prepare()
        self._name: str | None = None

    # --- as a method, as a module -----------------------------------------------------------------

    def __set_name__(self, owner: Any, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A method of each object is compiled by itself, and kept with the object."""
        if instance is None:
            return self
        method = self._like(types.MethodType(self.function, instance))
        if self._name is not None and hasattr(instance, "__dict__"):
            instance.__dict__[self._name] = method
        return method

    def _like(self, function: Any) -> Compiled:
        numbers, names = self._static
        # Positions are counted without self.
        numbers = [n - 1 for n in numbers if n]
        return Compiled(function, tuple(numbers), tuple(names), self.backend, self.limit)

    def __deepcopy__(self, memo: Any) -> Compiled:
        numbers, names = self._static
        function = copy.deepcopy(self.function, memo)
        twin = Compiled(function, tuple(numbers), tuple(names), self.backend, self.limit)
        twin._name = self._name
        return twin

    def __getattr__(self, name: str) -> Any:
        # Only reached when the attribute is missing: a compiled model answers as the model does.
        if name in ("function", "__wrapped__"):
            raise AttributeError(name)
        return getattr(self.function, name)

    def __repr__(self) -> str:
        return f"<compiled {self.function!r}>"

    @property
    def versions(self) -> list[Version]:
        """All versions, the one that was used last first in its kind."""
        return list(self._versions)

    def inspect(self, runs: int = 30) -> Any:
        """The graph, the kernels, the code and a profile of the version that was called last.

        Returns an `Inspection`: print it, `save` it as a page, or look at its parts.

        Raises:
            InspectionError: if it has not been called yet, or runs in NumPy.
        """
        from chainrule.compiler.inspect import InspectionError, inspect

        with self._lock:
            if self._last is None:
                raise InspectionError("call the compiled function first: then it can be inspected.")
            return inspect(self._last, runs)

    # --- a call -----------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Not waited for: a thread that traces holds other functions' locks.
        if self._usuals and not kwargs and self._lock.acquire(False):
            try:
                for usual in self._usuals:
                    result = usual.call(*args)
                    if result is not UNUSUAL:
                        return result if usual.build is None else usual.build(result)
            finally:
                self._lock.release()
        if state.tracer is not None or state.observers or not self._on:
            # Inside another compiled function this one is part of it; observers see everything.
            return self.function(*args, **kwargs)
        with self._lock:
            return self._other_call(args, kwargs)

    def _other_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that is not a usual one."""
        leaves: list[Any] = []
        shape, call = self._take_apart(args, kwargs, leaves)
        for usual in self._shaped:
            if usual.shape == shape:
                result = usual.call(*leaves)
                if result is not UNUSUAL:
                    return result if usual.build is None else usual.build(result)
        traces = self.traces
        result = self._call(shape, call, leaves, args, kwargs)
        last = self._last
        if last is not None and self._wants_native():
            before = last.usual
            # A first call takes long enough.
            if self.traces != traces or _follow()(last):
                self._sort_usuals(last.usual, before)
        return result

    def _sort_usuals(self, first: Usual | None, gone: Usual | None) -> None:
        """Try this one first from now on, and none of versions that are not kept any more."""
        kept = [version.usual for version in self._versions]
        others = [*self._usuals, *self._shaped]
        others = [x for x in others if x is not gone and x in kept][: USUALS - 1]
        usuals = [x for x in (first, *others) if x is not None]
        self._usuals = [x for x in usuals if x.shape is None]
        self._shaped = [x for x in usuals if x.shape is not None]

    def _call(
        self, shape: Any, call: Callable[[Any], Any], leaves: list[Any],
        args: tuple[Any, ...], kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        leaves = [asarray(x) if isinstance(x, np.ndarray | np.generic) else x for x in leaves]
        keys = tuple(map(signature.leaf_key, leaves))
        key = (shape, state.grad_enabled, keys, self._identities(leaves))
        version = self._versions.find(key, leaves)
        if version is not None:
            self._last = version
            return version.run(leaves)
        if not self._versions.make_room(key):
            self._warn_of_changes(key, leaves, args, kwargs)
            return self.function(*args, **kwargs)
        if self.traces == MANY and self._versions.calls() < MANY:
            self._warn_of_changes(key, leaves, args, kwargs)
        labels = signature.labels(_parameter_names(self.function), args, kwargs)
        return self._first_call(key, call, leaves, labels if len(labels) == len(leaves) else None)

    def _take_apart(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any]
    ) -> tuple[Any, Callable[[Any], Any]]:
        """The call's structure as a key, and what calls the function with other leaves."""
        numbers, names = self._static
        parts = [_part(x, i in numbers, leaves) for i, x in enumerate(args)]
        named = {k: _part(x, k in names, leaves) for k, x in kwargs.items()}

        def call(rest: Any) -> Any:
            given = [build(rest) for _, build in parts]
            return self.function(*given, **{k: build(rest) for k, (_, build) in named.items()})

        return (tuple([k for k, _ in parts]), tuple([(n, k) for n, (k, _) in named.items()])), call

    def _identities(self, leaves: Sequence[Any]) -> Any:
        """Which tensors come twice, and which are known to the function in other ways."""
        ids = [id(x) if isinstance(x, Value) else None for x in leaves]
        known = tuple([(n, i) for n, i in enumerate(ids) if i in self._captured])
        tensors = [i for i in ids if i is not None]
        if len(set(tensors)) == len(tensors):
            return known
        return known, tuple([tensors.index(i) for i in tensors])

    def _first_call(
        self, key: Any, call: Any, leaves: Sequence[Any], labels: Sequence[str] | None
    ) -> Any:
        if self.traces == 0:
            warn_of_assignments(self.function)
        with _without_collector():
            return self._first_run(self._trace(call, leaves, labels), key, leaves)

    def _first_run(self, version: Version, key: Any, leaves: Sequence[Any]) -> Any:
        """Run a version for the first time; if that fails, it is as if it had not been traced."""
        version.names.settle(self._title(), version.counted)
        version.install()
        try:
            if not version.holds(leaves):
                raise TraceError(
                    f"{self._title()} changes what it is compiled for, so that no version of it "
                    f"would ever fit: {version.reason(leaves)}. Do that outside, between calls."
                )
            version.look(leaves)
            result = version.run(leaves)
        except BaseException:
            version.uninstall()
            raise
        self.traces += 1
        self._captured = version.captured.union(*[v.captured for v in self._versions])
        # Which arguments the function finds by itself too is known only now.
        version.file_under((*key[:3], self._identities(leaves)))
        self._versions.add(version)
        self._last = version
        return result

    def _trace(
        self, call: Any, leaves: Sequence[Any], labels: Sequence[str] | None = None
    ) -> Version:
        labels = labels or [f"argument {n}" for n in range(len(leaves))]
        names = Names(self.function)
        known = names.tensors | self._captured
        tracer = Tracer(getattr(self.function, "__name__", type(self.function).__name__))
        with watching(tracer):
            given = []
            for n, leaf in enumerate(leaves):
                if isinstance(leaf, Value):
                    tracer.adopt(leaf, None if id(leaf) in known else ("argument", n))
                    given.append(leaf)
                else:
                    given.append(tracer.argument(n, labels[n], leaf))
            try:
                version = Version(tracer, names, call(iter(given)))
                name_inputs(tracer, labels)
            finally:
                tracer.close()
        # No method of this object: a version that held it would be a cycle.
        version.compile(functools.partial(_make_program, self.backend, self._title()))
        return version

    def _wants_native(self) -> bool:
        return self.backend != "numpy"

    # --- words ------------------------------------------------------------------------------------

    def _warn_of_changes(
        self, key: Any, leaves: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._warned:
            return
        self._warned = True
        anew = "and is compiled anew at nearly each call"
        if len(self._versions) >= self.limit:
            anew = "and runs eagerly where none of these versions fits"
        warn_at_users_line(
            f"{self._title()} was compiled {self.traces} times {anew}. Last, "
            f"{self.reason(key, leaves, args, kwargs)}. Keep shapes the same (pad, or leave out "
            "the last batch), pass numbers that change as float arguments or tensors, or raise "
            f"cr.compile(limit={self.limit}), the number of versions that are kept. (This warning "
            "comes once.)"
        )

    def _title(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    def reason(
        self, key: Any, leaves: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str:
        """Why a call does not fit the version that was used last, in words."""
        last = self._last
        assert last is not None
        shape, mode, keys, identities = last.key
        if shape != key[0]:
            return "the arguments' structure, or one that is no tensor, was another one"
        if mode != key[1]:
            return f"gradients were {'' if key[1] else 'not '}recorded"
        where = signature.labels(_parameter_names(self.function), args, kwargs)
        for label, was, now in zip(where, keys, key[2], strict=True):
            if was != now:
                words = signature.described
                return f"{label} was {words(was)} and is {words(now)}"
        if identities != key[3]:
            return "other arguments were one and the same tensor"
        return last.reason(leaves) or "it was another version's turn"


def _part(value: Any, static: bool, leaves: list[Any]) -> tuple[Any, Callable[[Any], Any]]:
    if static:
        return signature.constant_key(value), lambda rest: value
    return signature.take_apart(value, leaves)


def _parameter_names(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


@functools.cache
def _follow() -> Callable[[Version], bool]:
    from chainrule.compiler.fast import follow  # which needs LLVM's side

    return follow


@functools.cache
def _prepare() -> None:
    """Load LLVM and the runtime, once. Whatever fails is said by the first call."""
    with contextlib.suppress(Exception):
        from chainrule.compiler import build, fast  # noqa: F401
        from chainrule.compiler.native import cache_keys, runtime, runtime_call

        cache_keys.primitives()
        runtime.native()
        runtime_call.builtins()


def _make_program(backend: str, title: str, graph: ir.Graph) -> InNumPy | Native:
    if backend == "numpy":
        return InNumPy(graph)
    try:
        return _native(graph, required=backend == "native")
    except Exception as error:
        if backend == "native" or isinstance(error, ChainruleError):
            raise
        warn_at_users_line(
            f"{title} runs in NumPy, because the compiler failed on it "
            f"({type(error).__name__}: {error}). Results are the same, but slower. This is a "
            "defect of chainrule: please report it with the function; backend='native' shows where."
        )
        return InNumPy(graph)


def _native(graph: ir.Graph, required: bool) -> Native:
    from chainrule.compiler.build import Options, build

    return Native(graph, build(graph, Options(required=required)))


@overload
def compile(
    function: F, *, static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (), backend: str = "auto", limit: int = LIMIT,
) -> F: ...  # fmt: skip
@overload
def compile(
    function: None = None, *, static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (), backend: str = "auto", limit: int = LIMIT,
) -> Callable[[F], F]: ...  # fmt: skip
def compile(
    function: Any = None, *, static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (), backend: str = "auto", limit: int = LIMIT,
) -> Any:  # fmt: skip
    """Compile a function over tensors, modules and optimisers into one program.

    The first call traces the function: it is called with tensors that have a shape and a dtype and
    no numbers, and what it does with them is written down as a graph. Later calls run the graph's
    program, without Python in between, and leave the world as the function would have left it:
    parameters, optimiser state, running statistics, random state and `.grad` are found while
    tracing and updated in place.

        @cr.compile
        def step(images, labels):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            opt.step()
            return loss

    Inputs of the program, which may change from call to call: the arguments' numbers (tensors,
    NumPy arrays, ints and floats, in nested tuples, lists, dictionaries and dataclasses), all
    tensors from outside, and the numbers in optimisers (learning rates, step counters). Compiled
    for, and compiled anew where they change: shapes and dtypes, what requires a gradient, `train()`
    and `eval()`, the structure of models and optimisers, other arguments, globals and variables
    around the function, and what Python was told of a number (`if lr > 0`). NumPy arrays from
    outside are constants.

    Python that asks for the numbers of a tensor (`if loss < 1`, `float(loss)`) raises `TraceError`
    at that line; choose with `cr.where` or `cr.cond`. What Python does beside (print, append to a
    list) is done once, while tracing.

    Arguments:
        function: a function, a method or a module. Without one, a decorator.
        static_argnums, static_argnames: positions and names of arguments that are no inputs; the
            function is compiled for their values.
        backend: "native"; "numpy", the graph operation by operation; or "auto": native, and where
            LLVM is missing or fails NumPy, with one warning.
        limit: how many versions are kept. Calls that fit none of them run eagerly then, after one
            warning; where one kind of call comes often, its version takes the place of the one that
            was not used for longest.

    Raises:
        TraceError: if the function needs numbers that are not known while it is traced.
    """
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
    names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
    if function is None:
        return lambda f: compile(
            f, static_argnums=numbers, static_argnames=names, backend=backend, limit=limit
        )
    if not callable(function):
        raise ArgumentTypeError(f"cr.compile takes a function, got {type(function).__name__}.")
    if isinstance(function, Compiled):
        return function
    return Compiled(function, numbers, names, backend, limit)


__all__ = ["Compiled", "compile", "enabled"]
