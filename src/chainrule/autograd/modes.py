"""Switching the recording of graphs off and on, per thread."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

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
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(self.enabled):
                return function(*args, **kwargs)

        return inner  # type: ignore[return-value]


def no_grad() -> _GradMode:
    """Inside `with cr.no_grad():` nothing is recorded, and results need no gradient."""
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """Record again, inside a `no_grad` block."""
    return _GradMode(True)


def set_grad_enabled(enabled: bool) -> _GradMode:
    """Record or not, by a flag; at once, and as a context manager that puts the old mode back."""
    mode = _GradMode(bool(enabled))
    mode._before.append(state.grad_enabled)
    state.grad_enabled = mode.enabled
    return _Entered(mode)


class _Entered(_GradMode):
    """The result of `set_grad_enabled`: the mode is set already when `with` begins."""

    def __init__(self, mode: _GradMode):
        super().__init__(mode.enabled)
        self._before = mode._before

    def __enter__(self) -> None:
        state.grad_enabled = self.enabled


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread."""
    return state.grad_enabled
