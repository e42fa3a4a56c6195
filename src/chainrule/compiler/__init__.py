"""`cr.compile`: one training step as one program.

In this version a compiled function runs eagerly: its meaning is fixed, its speed is not there yet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, overload


@overload
def compile(function: Callable[..., Any]) -> Callable[..., Any]: ...
@overload
def compile(function: None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def compile(function: Callable[..., Any] | None = None) -> Any:
    """Mark a function over tensors, modules and optimisers for compilation.

    It returns what the function returns and leaves parameters, optimiser state and buffers as the
    function leaves them. In this version it is the function, run eagerly.
    """
    if function is None:
        return compile

    @functools.wraps(function)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return compiled
