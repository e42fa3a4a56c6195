"""The register of makers, and what several of them do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphs import Maker

from chainrule.compiler.ir import Value
from chainrule.primitives import (
    elementwise,
    movement,
    reduction,
    sorting,
)

Make = Callable[[Maker], Any]
MAKERS: dict[str, Make] = {}


def maker(*names: str) -> Callable[[Callable[..., Any]], Any]:
    """Register a maker; one of several names is told which it is to make."""

    def register(make: Callable[..., Any]) -> Any:
        for name in names:
            MAKERS[name] = make if len(names) == 1 else lambda m, name=name: make(m, name)
        return make

    return register


def primitive(name: str) -> Any:
    for room in (elementwise, movement, reduction, sorting):
        for one in vars(room).values():
            if getattr(one, "name", None) == name and hasattr(one, "evaluate"):
                return one
    raise KeyError(name)


def shuffled(m: Maker, *values: Value) -> list[Value]:
    values_ = list(values)
    m.random.shuffle(values_)
    return values_


def region(m: Maker, x: Value) -> dict[str, Any]:
    starts, lengths, steps = [], [], []
    for n in x.shape:
        step = m.random.choice((1, 1, 2, 3))
        start = m.random.randrange(n) if n else 0
        most = 1 + (n - 1 - start) // step if n else 0
        starts.append(start)
        lengths.append(m.random.randint(min(1, most), most))
        steps.append(step)
    return dict(starts=tuple(starts), lengths=tuple(lengths), steps=tuple(steps))


def filled(m: Maker, x: Value) -> Value:
    """x, or something like it that is not empty."""
    return x if x.size else m.fresh(x.dtype.kind, tuple(max(n, 2) for n in x.shape))
