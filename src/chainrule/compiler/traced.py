"""What stands in the place of an array while a function is traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chainrule.compiler import ir
from chainrule.errors import TraceError, users_line

if TYPE_CHECKING:
    from chainrule.compiler.trace import Tracer


ABSENT: Any = object()
"""In the place of what nobody has asked for or assigned yet."""


class Traced:
    """In the place of an array whose numbers are not known: a shape, a dtype, a value."""

    __slots__ = ("__weakref__", "dtype", "shape", "tracer", "value")

    def __init__(self, tracer: Tracer, value: ir.Value):
        self.shape = value.shape
        self.dtype = value.dtype
        self.value = value
        self.tracer = tracer

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.value.size

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array") and not self.tracer.active:
            self._refuse()
        if name in ("__array_interface__", "__array_struct__", "__array_priority__", "__dlpack__"):
            raise AttributeError(name)
        self._refuse()

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        here, op = users_line(), self.value.op
        line = None if op is None else op.line
        made = f" (made at {line})" if line not in (None, here) else ""
        if self.tracer.active:
            error = TraceError(
                f"Python asks for the numbers of a tensor{made} while the function that computes "
                "it is being compiled, when only its shape and dtype are known: if, while, bool(), "
                "float(), int(), item(), numpy() and printing a number need a value. Choose "
                "between tensors with cr.where or cr.cond, return what you want to look at, or run "
                "eagerly: without cr.compile, with Trainer(compile=False) or --no-compile, or with "
                "CHAINRULE_COMPILE=0."
            )
        else:
            error = TraceError(
                f"this tensor{made} was kept by a compiled function in a place outside of it, such "
                "as a global, a list or an attribute; it has no numbers, because such assignments "
                "are made once, while the function is compiled, and not at each call. Return the "
                "tensor from the function, or assign to a tensor that exists before the call: "
                "with cr.no_grad(): kept.copy_(value)."
            )
        error.line = here
        raise error

    def __repr__(self) -> str:
        return f"<{self.dtype.name}{list(self.shape)}, traced>"


for _name in (
    "__array__", "__array_ufunc__", "__array_function__", "__bool__", "__complex__",
    "__contains__", "__float__", "__getitem__", "__index__", "__int__", "__iter__", "__len__",
    "__setitem__", "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__",
    "__matmul__",
    "__truediv__", "__rtruediv__", "__neg__", "__lt__", "__le__", "__gt__", "__ge__", "__and__",
    "__or__", "__invert__",
):  # fmt: skip
    setattr(Traced, _name, Traced._refuse)


class OneLine:
    """See `Tracer.at_one_line`."""

    def __init__(self, tracer: Tracer):
        self._tracer, self._before = tracer, tracer.line

    def __enter__(self) -> None:
        if self._before is ABSENT:
            self._tracer.line = users_line()

    def __exit__(self, *exception: object) -> None:
        self._tracer.line = self._before
