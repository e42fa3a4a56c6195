"""Seeing every access to a tensor while a function is traced, at no cost while none is.

A tensor is a few slots (see `graph.Value`), and everything that chainrule does with it goes through
them. While at least one thread traces, properties stand in their place: in a thread that traces
they ask its tracer, in all others they do what the slots do. So no read of a tensor from outside
and no assignment to one can pass a tracer by, whoever does it and wherever it is written.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from chainrule.compiler.numbers import NumberDict, reading_methods
from chainrule.graph import Value, program_tracer, state

if TYPE_CHECKING:
    from chainrule.compiler.trace import Tracer

array_slot: Any = Value.__dict__["_array"]
grad_slot: Any = Value.__dict__["_grad"]
node_slot: Any = Value.__dict__["_node"]
index_slot: Any = Value.__dict__["_slot"]
binding_slot: Any = Value.__dict__["_binding"]

_lock = threading.Lock()
_tracing = 0


def _watched(slot: Any, name: str) -> property:
    """A property that asks the thread's tracer in place of a slot."""
    read, write = f"read_{name}", f"write_{name}"

    def get(tensor: Any) -> Any:
        tracer = program_tracer() if state.tracer is not None else None
        return slot.__get__(tensor) if tracer is None else getattr(tracer, read)(tensor)

    def put(tensor: Any, value: Any) -> None:
        tracer = program_tracer() if state.tracer is not None else None
        if tracer is None:
            slot.__set__(tensor, value)
        else:
            getattr(tracer, write)(tensor, value)

    return property(get, put)


_slots = {"_array": array_slot, "_grad": grad_slot, "_node": node_slot, "_slot": index_slot}
_names = {"_array": "array", "_grad": "grad", "_node": "node", "_slot": "index"}
_watches = {name: _watched(slot, _names[name]) for name, slot in _slots.items()}


@contextlib.contextmanager
def watching(tracer: Tracer) -> Iterator[None]:
    """Inside, this thread's accesses to tensors and to optimisers' numbers go to `tracer`."""
    global _tracing
    with _lock:
        _tracing += 1
        if _tracing == 1:
            for name, watch in _watches.items():
                setattr(Value, name, watch)
            for name, method in reading_methods.items():
                setattr(NumberDict, name, method)
    state.tracer = tracer
    try:
        yield
    finally:
        state.tracer = None
        with _lock:
            _tracing -= 1
            if _tracing == 0:
                for name, slot in _slots.items():
                    setattr(Value, name, slot)
                for name in reading_methods:
                    delattr(NumberDict, name)
