"""Parameters and buffers: the tensors that a module owns."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from chainrule import array as xp
from chainrule.graph import Leaf, Value
from chainrule.tensor import Tensor

__all__ = ["Buffer", "Parameter"]


def _value(data: Any) -> Any:
    """The array of `data`, in memory that nobody else writes to."""
    if data is None:
        data = ()
    if not isinstance(data, Value):
        return xp.asarray(data, copy=True)._array
    # A tensor's array is never written to and can be shared. Constants are stored as one element.
    return np.ascontiguousarray(data._array) if data.ndim else data._array


class Parameter(Tensor):
    """A tensor that a module trains.

    Assigned to an attribute of a module it appears in `module.parameters()`. It may be given marks
    of its own, such as `p.no_decay = True`, which the modules leave alone.

    Arguments:
        data: the initial value: a tensor, a NumPy array or nested lists. Python floats are float32.
        requires_grad: whether gradients are recorded for it; False freezes it. Default: True.
    """

    __slots__ = ("__dict__",)

    def __init__(self, data: Any = None, requires_grad: bool = True):
        self._array, self._node, self._slot, self._grad = _value(data), None, 0, None
        self.requires_grad_(requires_grad)

    def __deepcopy__(self, memo: Any) -> Parameter:
        twin = type(self).__new__(type(self))
        Parameter.__init__(twin, self.detach().clone(), self.requires_grad)
        twin.grad = None if self.grad is None else self.grad.clone()
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


class Buffer(Tensor):
    """A tensor that belongs to a module's state and is not trained, such as running statistics.

    Assigned to an attribute of a module it appears in `module.buffers()`.

    Arguments:
        data: the initial value.
        persistent: whether it is part of `state_dict()`. Default: True.
    """

    __slots__ = ("persistent",)

    def __init__(self, data: Any = None, *, persistent: bool = True):
        self._array, self._node, self._slot, self._grad = _value(data), None, 0, None
        self.persistent = persistent

    def __deepcopy__(self, memo: Any) -> Buffer:
        twin = Buffer(self.detach().clone(), persistent=self.persistent)
        if self._node is not None:
            twin._node = Leaf(twin)
        memo[id(self)] = twin
        return twin
