"""The Tensor that a user holds: an n-dimensional array that remembers where it came from."""

from __future__ import annotations

import opcode
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from chainrule import array as xp
from chainrule.array import indexing
from chainrule.array._core import API_VERSIONS, check_device
from chainrule.autograd import engine
from chainrule.autograd.hooks import HookDict, RemovableHandle
from chainrule.dtypes import is_float
from chainrule.errors import (
    ArgumentError,
    DTypeError,
    ExchangeError,
    GradError,
    IndexingError,
    ShapeError,
)
from chainrule.graph import Leaf, Node, make, register_tensor_class, state, structure
from chainrule.operators import Operators


def _repeats_itself(array: np.ndarray[Any, Any]) -> bool:
    """Whether several elements, or several constants, share one place in memory."""
    return not array.flags.writeable and (0 in array.strides or isinstance(array.base, bytes))


@register_tensor_class
class Tensor(Operators):
    """An array with derivatives, after the Python array API standard 2024.12.

    Make one with `cr.asarray` (which shares memory with a NumPy array where it can), `cr.tensor`
    (which copies) or any creation function.

    A tensor has value semantics. Assigning to it (`x[0] = 1`, `x += 1`, `x.copy_(y)`) gives this
    tensor another value; no other tensor changes, `x[0]` and `x.detach()` are values and not
    windows onto x, and what a graph has saved stays as it was.

    Attributes:
        grad: dL/d(this), a tensor or None, added to by `backward`.
        requires_grad: whether derivatives with respect to this tensor are recorded.
        is_leaf: whether it was made by the user and not computed from tensors that require grad.
    """

    __slots__ = ()
    __array_ufunc__ = None  # np.float64(2) * tensor must call Tensor.__rmul__
    __module__ = "chainrule"

    def __init__(self, data: Any = (), dtype: Any = None, requires_grad: bool = False):
        made = xp.asarray(data, dtype=dtype, copy=True)
        self._array, self._node, self._slot, self._grad = made._array, None, 0, None
        if requires_grad:
            self.requires_grad_()

    # --- what it is -------------------------------------------------------------------------------

    @property
    def device(self) -> str:
        """Where the elements live: `"cpu"`."""
        return "cpu"

    def to_device(self, device: Any, /, *, stream: Any = None) -> Tensor:
        """This tensor on a device; there is one, `"cpu"`."""
        check_device(device)
        if stream is not None:
            raise ArgumentError("the cpu has no streams; leave stream=None.")
        return self

    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Tensor:
        """This tensor as another dtype, `x.to("float64")`, or on a device, `x.to("cpu")`."""
        for argument in args:
            if isinstance(argument, str) and not argument.startswith(
                ("bool", "int", "uint", "float", "complex", "bfloat", "half")
            ):
                device = argument
            else:
                dtype = argument
        if device is not None:
            check_device(device)
        return self if dtype is None else self.astype(dtype, copy=False)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """The module with the array functions: `chainrule` itself."""
        if api_version is not None and api_version not in API_VERSIONS:
            raise ArgumentError(
                f"version {api_version!r} of the array API standard is not offered; "
                f"known: {', '.join(API_VERSIONS)}."
            )
        return sys.modules["chainrule"]

    # --- gradients --------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        self.requires_grad_(flag)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for (or stop asking for) gradients with respect to this leaf; returns it."""
        if not requires_grad:
            if isinstance(self._node, Node):
                raise GradError(
                    "this tensor was computed from tensors that require gradients; use .detach() "
                    "to get its value without them."
                )
            self._node = None
        elif self._node is None:
            if not is_float(self.dtype):
                raise DTypeError(
                    f"only real floating-point tensors have gradients, and this one is "
                    f"{self.dtype.name}; cast it first, x.astype(cr.float32), or split a complex "
                    "one into cr.real(x) and cr.imag(x)."
                )
            self._node = Leaf(self)
        return self

    @property
    def is_leaf(self) -> bool:
        return self._node is None or type(self._node) is Leaf

    @property
    def grad_fn(self) -> Any:
        """The primitive that computed this tensor (None for a leaf)."""
        return self._node.primitive if isinstance(self._node, Node) else None

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add dL/dx to `x.grad` for every leaf x that this tensor was computed from.

        Arguments:
            gradient: dL/d(this); may be left out for a scalar, where it is 1.
            retain_graph: keep the saved values for another call. Default: `create_graph`.
            create_graph: record the derivative itself, for derivatives of higher order.
            inputs: the tensors to give gradients to, instead of all leaves.

        Raises:
            GradError: if nothing requires a gradient, or this is no scalar and `gradient` is None.
            GraphFreedError: if the graph was used before without `retain_graph`.
        """
        start = engine.seed(self, None if gradient is None else xp.asarray(gradient))
        retain = create_graph if retain_graph is None else retain_graph
        chosen = [inputs] if isinstance(inputs, Tensor) else inputs
        engine.backward(
            [self], [start], inputs=chosen, retain_graph=retain, create_graph=create_graph
        )

    def detach(self) -> Tensor:
        """The same value without its graph."""
        return make(self._array)

    def retain_grad(self) -> None:
        """Let `backward` fill `.grad` of this computed tensor too."""
        if self._node is None:
            raise GradError("retain_grad() needs a tensor that requires a gradient.")
        if isinstance(self._node, Node):
            self._node.retained[self._slot] = weakref.ref(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook(gradient)` when the gradient of this tensor is known; it may return another.

        Returns a handle: `handle.remove()` takes the hook off again.
        """
        if self._node is None:
            raise GradError("register_hook() needs a tensor that requires a gradient.")
        hooks = self._node.hooks.setdefault(self._slot, HookDict())
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        structure.epoch += 1
        return handle

    # --- assignment: this tensor gets another value -----------------------------------------------

    def _rebind(self, result: Tensor) -> Tensor:
        """Become `result`. Where nothing is recorded only the value changes; the graph stays."""
        if state.tracer is not None:
            state.tracer.rebinds(self)
        if state.grad_enabled:
            if type(self._node) is Leaf:
                raise GradError(
                    "a leaf that requires a gradient cannot be assigned to while gradients are "
                    "recorded; wrap the assignment in `with cr.no_grad():`."
                )
            self._node, self._slot = result._node, result._slot
        self._array = result._array
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        if sys.getrefcount(self) <= _TEMPORARY and _by_subscript(sys._getframe(1)):
            raise IndexingError(
                "x[i][j] = v assigns to a temporary value and x stays as it is; "
                "write x[i, j] = v instead."
            )
        self._rebind(indexing.setitem(self, key, value))

    def copy_(self, other: Any) -> Tensor:
        """Take the value of `other`, broadcast to this shape and cast to this dtype."""
        other = xp.astype(xp.asarray(other), self.dtype, copy=False)
        return self._rebind(
            xp.broadcast_to(other, self.shape) if other.shape != self.shape else other
        )

    def fill_(self, value: float) -> Tensor:
        """Set every element to `value`."""
        return self.copy_(xp.full(self.shape, value, dtype=self.dtype))

    def zero_(self) -> Tensor:
        """Set every element to 0."""
        return self.fill_(0)

    # --- conversion -------------------------------------------------------------------------------

    def _exported(self, what: str) -> np.ndarray[Any, Any]:
        if self._node is not None:
            raise GradError(
                f"{what} of a tensor that requires a gradient would leave the graph unseen; "
                "use x.detach() first."
            )
        return self._array

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements as a NumPy array that shares the memory and cannot be written to."""
        view = self._exported("numpy()").view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        view = self.numpy()
        if dtype is not None and np.dtype(dtype) != view.dtype:
            if copy is False:
                raise ValueError("a cast needs a copy, and copy=False forbids it.")
            return view.astype(dtype)
        return view.copy() if copy else view

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The DLPack capsule: the memory itself, without a copy, for NumPy, PyTorch and JAX.

        Arguments:
            stream: None; the cpu has none.
            max_version: the newest version that the consumer understands. From (1, 0) on the memory
                is marked as read-only: a tensor is a value, and graphs hold on to it.
            dl_device: where the consumer wants it, (1, 0) for the cpu.
            copy: True for memory of its own; False raises where a copy is needed.
        """
        array = self._exported("__dlpack__()")
        if stream is not None:
            raise ArgumentError("the cpu has no streams; leave stream=None.")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise ExchangeError(f"DLPack device {dl_device} is not here; there is the cpu, (1, 0).")
        versioned = max_version is not None and max_version[0] >= 1
        markable = array.flags.writeable or versioned
        if copy or (copy is None and (_repeats_itself(array) or not markable)):
            array = array.copy()
        elif not markable:
            raise ExchangeError(
                "this tensor is read-only memory, the consumer's DLPack is too old to be told so, "
                "and copy=False forbids a copy; pass copy=None."
            )
        elif versioned:
            array = array.view()
            array.flags.writeable = False
        return array.__dlpack__(max_version=max_version)

    def __dlpack_device__(self) -> tuple[int, int]:
        """(1, 0): the cpu."""
        return (1, 0)

    def item(self) -> Any:
        """The one element as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item() needs one element, but this tensor has shape {self.shape}.")
        return self._array.item()

    def tolist(self) -> Any:
        """The elements as nested Python lists."""
        return self._array.tolist()

    def _scalar(self, kind: str) -> Any:
        if self.size != 1:
            raise ShapeError(
                f"{kind}() needs a tensor of one element, but this one has shape {self.shape}."
                + (" Use .any() or .all()." if kind == "bool" else "")
            )
        if kind in ("int", "float") and self.dtype.kind == "c":
            raise DTypeError(f"{kind}() of a complex number; use complex(x), abs(x) or cr.real(x).")
        return self._array.item()

    def __bool__(self) -> bool:
        return bool(self._scalar("bool"))

    def __int__(self) -> int:
        return int(self._scalar("int"))

    def __float__(self) -> float:
        return float(self._scalar("float"))

    def __complex__(self) -> complex:
        return complex(self._scalar("complex"))

    def __index__(self) -> int:
        if self.dtype.kind not in "ui" or self.ndim:
            raise DTypeError(
                f"only an integer tensor of shape () is an index; this one is {self.dtype.name} of "
                f"shape {self.shape}."
            )
        return int(self._array)

    def clone(self) -> Tensor:
        """A copy in memory of its own, connected to the graph."""
        return xp.asarray(self, copy=True)

    def __copy__(self) -> Tensor:
        return self.clone()

    def __deepcopy__(self, memo: Any) -> Tensor:
        if isinstance(self._node, Node):
            raise GradError(
                "only leaves can be deep-copied; this tensor was computed. Use .detach() first."
            )
        twin = make(self._array.copy())
        twin.__class__ = type(self)
        if self._node is not None:
            twin._node = Leaf(twin)
        if self.grad is not None:
            twin.grad = self.grad.clone()
        memo[id(self)] = twin
        return twin

    def __reduce__(self) -> Any:
        raise DTypeError(
            "tensors are not pickled; use cr.save(dict_of_tensors, 'file.safetensors') and cr.load."
        )

    # --- containers and text ----------------------------------------------------------------------

    def __len__(self) -> int:
        if not self.ndim:
            raise DTypeError("a tensor of shape () has no len().")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise DTypeError("a tensor of shape () cannot be iterated over.")
        return (self[i] for i in range(self.shape[0]))

    def __contains__(self, value: Any) -> bool:
        return bool(np.any(self._array == np.asarray(value)))

    def __repr__(self) -> str:
        from chainrule.printing import as_text

        return as_text(self)

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if form and self.size == 1 else format(str(self), form)

    def _repr_html_(self) -> str:
        from chainrule.printing import as_html

        return as_html(self)

    def __getattr__(self, name: str) -> Any:
        # Only reached when the attribute is missing: say what the habit from elsewhere is called.
        hint = _ELSEWHERE.get(name)
        advice = f" Here: {hint}." if hint else ""
        raise AttributeError(f"a Tensor has no attribute {name!r}.{advice}")


_ELSEWHERE = {
    "add_": "x += y",
    "amax": "x.max(axis)",
    "amin": "x.min(axis)",
    "argsort": "cr.argsort(x, axis=-1)",
    "bmm": "x @ y",
    "chunk": "cr.split(x, sections, axis=0)",
    "contiguous": "nothing is needed, a tensor has no strides to care for",
    "cpu": "tensors are on the cpu already",
    "cuda": "there is one device, the cpu",
    "cumprod": "cr.cumulative_prod(x, axis=axis)",
    "cumsum": "x.cumulative_sum(axis)",
    "data": "x.detach() to read; `with cr.no_grad(): x.copy_(value)` to write",
    "dim": "x.ndim",
    "double": "x.astype(cr.float64)",
    "expand": "x.broadcast_to(shape)",
    "float": "x.astype(cr.float32)",
    "gather": "cr.take_along_axis(x, indices, axis=axis)",
    "half": "float16 does not exist here; x.astype(cr.float32)",
    "index_select": "cr.take(x, indices, axis=axis)",
    "int": "x.astype(cr.int32), or int(x) for a Python number",
    "long": "x.astype(cr.int64)",
    "masked_fill": "cr.where(mask, value, x)",
    "matmul": "x @ y",
    "mm": "x @ y",
    "mul_": "x *= y",
    "norm": "cr.sqrt(cr.sum(x * x))",
    "numel": "x.size",
    "permute": "x.permute_dims(...)",
    "repeat": "cr.tile(x, times), or cr.repeat for each element by itself",
    "softmax": "nn.functional.softmax(x, dim)",
    "sort": "cr.sort(x, axis=-1)",
    "sub_": "x -= y",
    "t": "x.T",
    "topk": "cr.argsort(x, descending=True)[..., :k] gives the indices",
    "transpose": "x.swapaxes(i, j), x.mT or x.permute_dims(...)",
    "type": "x.astype(dtype)",
    "unsqueeze": "x.expand_dims(axis) or x[None]",
    "view": "x.reshape(...)",
}


def _references_of_a_temporary() -> int:
    """How many references `__setitem__` counts to a tensor that nobody else holds."""

    class Probe:
        count = 0

        def __getitem__(self, key: Any) -> Probe:
            return Probe()

        def __setitem__(self, key: Any, value: Any) -> None:
            Probe.count = sys.getrefcount(self)

    probe = Probe()
    probe[0][0] = 0
    temporary = Probe.count
    probe[0] = 0
    # An interpreter that counts both alike gives no way to tell; then nothing is refused.
    return temporary if temporary < Probe.count else 0


_TEMPORARY = _references_of_a_temporary()
_STORES = {opcode.opmap.get("STORE_SUBSCR"), opcode.opmap.get("STORE_SLICE")}


def _by_subscript(caller: Any) -> bool:
    """Whether the caller wrote `x[i] = v`, not `x.__setitem__(i, v)`, which counts otherwise."""
    return caller.f_code.co_code[caller.f_lasti] in _STORES
