"""What a tensor answers to: Python's operators and the array functions as methods.

Every method here is one call of an array function of the same meaning; see `chainrule.array`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chainrule import array as xp
from chainrule.array import indexing
from chainrule.array._core import is_operand
from chainrule.errors import DTypeError, ShapeError
from chainrule.graph import Value

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

Axis = int | tuple[int, ...] | None


def _binary(function: Any, reflected: bool = False) -> Any:
    def operator(self: Any, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        return function(other, self) if reflected else function(self, other)

    operator.__doc__ = function.__doc__
    return operator


def _in_place(function: Any, symbol: str) -> Any:
    def operator(self: Any, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        result = function(self, other)
        if result.shape != self.shape:
            raise ShapeError(
                f"x {symbol} y keeps the shape of x, {self.shape}, but the result has shape "
                f"{result.shape}; write x = x {symbol[:-1]} y instead."
            )
        if result.dtype != self.dtype:
            raise DTypeError(
                f"x {symbol} y keeps the dtype of x, {self.dtype.name}, but the result is "
                f"{result.dtype.name}; write x = x {symbol[:-1]} y instead, or cast y."
            )
        return self._rebind(result)

    return operator


class Operators(Value):
    """Operators and methods, mixed into `Tensor`."""

    __slots__ = ()

    __add__, __radd__ = _binary(xp.add), _binary(xp.add, True)
    __sub__, __rsub__ = _binary(xp.subtract), _binary(xp.subtract, True)
    __mul__, __rmul__ = _binary(xp.multiply), _binary(xp.multiply, True)
    __truediv__, __rtruediv__ = _binary(xp.divide), _binary(xp.divide, True)
    __floordiv__, __rfloordiv__ = _binary(xp.floor_divide), _binary(xp.floor_divide, True)
    __mod__, __rmod__ = _binary(xp.remainder), _binary(xp.remainder, True)
    __pow__, __rpow__ = _binary(xp.pow), _binary(xp.pow, True)
    __matmul__, __rmatmul__ = _binary(xp.matmul), _binary(xp.matmul, True)
    __and__, __rand__ = _binary(xp.bitwise_and), _binary(xp.bitwise_and, True)
    __or__, __ror__ = _binary(xp.bitwise_or), _binary(xp.bitwise_or, True)
    __xor__, __rxor__ = _binary(xp.bitwise_xor), _binary(xp.bitwise_xor, True)
    __lshift__, __rlshift__ = (
        _binary(xp.bitwise_left_shift), _binary(xp.bitwise_left_shift, True),
    )  # fmt: skip
    __rshift__, __rrshift__ = (
        _binary(xp.bitwise_right_shift), _binary(xp.bitwise_right_shift, True),
    )  # fmt: skip
    __lt__, __le__ = _binary(xp.less), _binary(xp.less_equal)
    __gt__, __ge__ = _binary(xp.greater), _binary(xp.greater_equal)
    __eq__, __ne__ = _binary(xp.equal), _binary(xp.not_equal)
    __hash__ = object.__hash__

    __iadd__ = _in_place(xp.add, "+=")
    __isub__ = _in_place(xp.subtract, "-=")
    __imul__ = _in_place(xp.multiply, "*=")
    __itruediv__ = _in_place(xp.divide, "/=")
    __ifloordiv__ = _in_place(xp.floor_divide, "//=")
    __imod__ = _in_place(xp.remainder, "%=")
    __ipow__ = _in_place(xp.pow, "**=")
    __imatmul__ = _in_place(xp.matmul, "@=")
    __iand__ = _in_place(xp.bitwise_and, "&=")
    __ior__ = _in_place(xp.bitwise_or, "|=")
    __ixor__ = _in_place(xp.bitwise_xor, "^=")
    __ilshift__ = _in_place(xp.bitwise_left_shift, "<<=")
    __irshift__ = _in_place(xp.bitwise_right_shift, ">>=")

    def __neg__(self) -> Tensor:
        return xp.negative(self)

    def __pos__(self) -> Tensor:
        return xp.positive(self)

    def __abs__(self) -> Tensor:
        return xp.abs(self)

    def __invert__(self) -> Tensor:
        return xp.bitwise_invert(self)

    def __getitem__(self, key: Any) -> Tensor:
        return indexing.getitem(self, key)

    # --- elementwise ------------------------------------------------------------------------------

    def abs(self) -> Tensor:
        return xp.abs(self)

    def exp(self) -> Tensor:
        return xp.exp(self)

    def log(self) -> Tensor:
        return xp.log(self)

    def sqrt(self) -> Tensor:
        return xp.sqrt(self)

    def square(self) -> Tensor:
        return xp.square(self)

    def sin(self) -> Tensor:
        return xp.sin(self)

    def cos(self) -> Tensor:
        return xp.cos(self)

    def tanh(self) -> Tensor:
        return xp.tanh(self)

    def sigmoid(self) -> Tensor:
        return xp.sigmoid(self)

    def relu(self) -> Tensor:
        return xp.relu(self)

    def sign(self) -> Tensor:
        return xp.sign(self)

    def round(self) -> Tensor:
        return xp.round(self)

    def conj(self) -> Tensor:
        return xp.conj(self)

    def pow(self, exponent: Any) -> Tensor:
        return xp.pow(self, exponent)

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        return xp.clip(self, min, max)

    # --- reductions -------------------------------------------------------------------------------

    def sum(self, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False) -> Tensor:
        return xp.sum(self, axis=axis, dtype=dtype, keepdims=keepdims)

    def prod(self, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False) -> Tensor:
        return xp.prod(self, axis=axis, dtype=dtype, keepdims=keepdims)

    def mean(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
        return xp.mean(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        return xp.var(self, axis=axis, correction=correction, keepdims=keepdims)

    def std(self, axis: Axis = None, *, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        return xp.std(self, axis=axis, correction=correction, keepdims=keepdims)

    def max(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
        return xp.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
        return xp.min(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        return xp.argmax(self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        return xp.argmin(self, axis=axis, keepdims=keepdims)

    def all(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
        return xp.all(self, axis=axis, keepdims=keepdims)

    def any(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
        return xp.any(self, axis=axis, keepdims=keepdims)

    def cumulative_sum(self, axis: int | None = None, **options: Any) -> Tensor:
        return xp.cumulative_sum(self, axis=axis, **options)

    # --- arrangement ------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape, given as a tuple or as numbers; one may be -1."""
        return xp.reshape(self, shape[0] if len(shape) == 1 else shape)

    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor:
        """Merge the axes from `start_axis` to `end_axis` (both included) into one."""
        return xp.flatten(self, start_axis, end_axis)

    def permute_dims(self, *axes: Any) -> Tensor:
        """The axes in another order, given as a tuple or as numbers."""
        return xp.permute_dims(self, axes[0] if axes and isinstance(axes[0], tuple) else axes)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        return xp.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """Without the axes of length 1: all of them, or those named."""
        if axis is None:
            axis = tuple(i for i, n in enumerate(self.shape) if n == 1)
        return xp.squeeze(self, axis)

    def expand_dims(self, axis: int = 0) -> Tensor:
        return xp.expand_dims(self, axis=axis)

    def broadcast_to(self, *shape: Any) -> Tensor:
        return xp.broadcast_to(self, shape[0] if isinstance(shape[0], tuple) else shape)

    def astype(self, dtype: Any, *, copy: bool = True) -> Tensor:
        return xp.astype(self, dtype, copy=copy)

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
        return xp.matrix_transpose(self)

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise ShapeError(
                f"x.T is defined for two axes, but x has shape {self.shape}; use x.mT for stacks "
                "of matrices or x.permute_dims(...)."
            )
        return xp.matrix_transpose(self)
