"""Switching the recording of graphs off and on, per thread."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from chainrule.graph import state

F = TypeVar("F", bound=Callable[..., Any])


class _GradMode:
    """A context manager, and a decorator, that sets the mode and puts back what was there."""

    def __init__(self, enabled: bool):
        self.enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(state.grad_enabled)
        state.grad_enabled = self.enabled

    def __exit__(self, *exception: object) -> None:
        state.grad_enabled = self._before.pop()

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function):
            return self._generator(function)  # type: ignore[return-value]

        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(self.enabled):
                return function(*args, **kwargs)

        return inner  # type: ignore[return-value]

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The mode holds while the generator runs, and not while its consumer does."""

        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            generator, sent = function(*args, **kwargs), None
            while True:
                with _GradMode(self.enabled):
                    try:
                        value = generator.send(sent)
                    except StopIteration as stop:
                        return stop.value
                sent = yield value

        return inner


@overload
def no_grad() -> _GradMode: ...
@overload
def no_grad(function: F) -> F: ...
def no_grad(function: Any = None) -> Any:
    """Inside `with cr.no_grad():` nothing is recorded, and results need no gradient.

    Also a decorator, `@cr.no_grad` or `@cr.no_grad()`. Assigning to a tensor inside changes its
    value and not its graph.
    """
    return _GradMode(False) if function is None else _GradMode(False)(function)


@overload
def enable_grad() -> _GradMode: ...
@overload
def enable_grad(function: F) -> F: ...
def enable_grad(function: Any = None) -> Any:
    """Record again, inside a `no_grad` block. Also a decorator."""
    return _GradMode(True) if function is None else _GradMode(True)(function)


class set_grad_enabled(_GradMode):
    """Record or not, by a flag; at once, and as a context manager that puts the old mode back.

    As a decorator it sets the mode for the function alone.
    """

    def __init__(self, enabled: bool):
        super().__init__(bool(enabled))
        super().__enter__()
        self._entered = True

    def __enter__(self) -> None:
        # The mode was set when this object was made.
        if not self._entered:
            super().__enter__()
        self._entered = False

    def __call__(self, function: F) -> F:
        if self._entered:
            self.__exit__()
            self._entered = False
        return super().__call__(function)


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread."""
    return state.grad_enabled
