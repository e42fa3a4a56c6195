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
from chainrule.compiler.traced import ABSENT, Traced
from chainrule.graph import Value, state, watch
from chainrule.tensor import Tensor

if TYPE_CHECKING:
    from chainrule.compiler.trace import Tracer

array_slot: Any = Value.__dict__["_array"]
grad_slot: Any = Value.__dict__["_grad"]
node_slot: Any = Value.__dict__["_node"]
index_slot: Any = Value.__dict__["_slot"]
binding_slot: Any = Value.__dict__["_binding"]

_lock = threading.Lock()
_tracing = 0
_new = object.__new__

array_of, put_array = array_slot.__get__, array_slot.__set__
put_grad, put_node, put_index = grad_slot.__set__, node_slot.__set__, index_slot.__set__


class Born(Tensor):
    """A tensor that a trace has made: the tracer has no books on it, and need not be asked.

    One whose numbers are known may outlive the trace. The tracer keeps an eye on those, and in the
    end makes ordinary tensors of them.
    """

    __slots__ = ()
    __module__ = "chainrule"
    _array, _grad, _node, _slot = array_slot, grad_slot, node_slot, index_slot

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_array" and type(value) is not Traced:
            if state.program is None:
                grow_up(self)
            else:
                state.program.bear(self)
        object.__setattr__(self, name, value)


Born.__name__ = Born.__qualname__ = "Tensor"


def born(array: Any, node: Any, slot: int) -> Born:
    """A tensor that is made in a trace."""
    tensor = _new(Born)
    put_array(tensor, array)
    put_node(tensor, node)
    put_index(tensor, slot)
    put_grad(tensor, None)
    return tensor


def grow_up(tensor: Any) -> None:
    """Make an ordinary tensor of one that a trace has made."""
    if type(tensor) is Born:
        object.__setattr__(tensor, "__class__", Tensor)


def _watched_array() -> property:
    def get(tensor: Any) -> Any:
        program = state.program
        if program is None:
            return array_of(tensor)
        books = program.outside.get(id(tensor))
        if books is None or books.array is ABSENT:
            return program.read_array(tensor)
        return books.array

    def put(tensor: Any, array: Any) -> None:
        program = state.program
        if program is None:
            put_array(tensor, array)
        else:
            program.write_array(tensor, array)

    return property(get, put)


def _watched(slot: Any, name: str) -> property:
    """A property that asks the thread's tracer in place of a slot."""
    read, write = f"read_{name}", f"write_{name}"
    plain, assign = slot.__get__, slot.__set__

    def get(tensor: Any) -> Any:
        program = state.program
        return plain(tensor) if program is None else getattr(program, read)(tensor)

    def put(tensor: Any, value: Any) -> None:
        program = state.program
        if program is None:
            assign(tensor, value)
        else:
            getattr(program, write)(tensor, value)

    return property(get, put)


_slots = {"_array": array_slot, "_grad": grad_slot, "_node": node_slot, "_slot": index_slot}
_watches = {
    "_array": _watched_array(), "_grad": _watched(grad_slot, "grad"),
    "_node": _watched(node_slot, "node"), "_slot": _watched(index_slot, "index"),
}  # fmt: skip


@contextlib.contextmanager
def watching(tracer: Tracer) -> Iterator[None]:
    """Inside, this thread's accesses to tensors and to optimisers' numbers go to `tracer`."""
    global _tracing
    with _lock:
        _tracing += 1
        if _tracing == 1:
            for name, watched in _watches.items():
                setattr(Value, name, watched)
            for name, method in reading_methods.items():
                setattr(NumberDict, name, method)
            watch(True)
    state.tracer = state.program = tracer
    try:
        yield
    finally:
        state.tracer = state.program = None
        with _lock:
            _tracing -= 1
            if _tracing == 0:
                watch(False)
                for name, slot in _slots.items():
                    setattr(Value, name, slot)
                for name in reading_methods:
                    delattr(NumberDict, name)
