"""Weights in the order in which convolutions read them: one kernel, once a step.

A weight (O, C / groups, *kernel) becomes (groups, *kernel, in, out): for each tap a small matrix
whose rows, the outputs of one input channel, are contiguous and end at a multiple of 64 bytes. For
`conv` in and out are the weight's own; for the adjoint they change places. A depthwise weight, one
channel a group, becomes (*kernel, groups).
"""

from __future__ import annotations

import math

from chainrule.compiler.ir import Value
from chainrule.compiler.native.conv_emit import Keyed, flat, load_lanes, move, unravel
from chainrule.compiler.native.conv_plan import padded, pieces
from chainrule.compiler.native.kernel import PARAMETERS, Buffers
from chainrule.compiler.native.text import Function, Module, type_of
from chainrule.graph import Spec


class PackWeights(Keyed):
    """The weight of a convolution in the layout above.

    Attributes:
        packed: the temporary value that it writes; it lies row-major.
    """

    family = "conv_pack"
    ops = ()

    def __init__(self, weight: Value, groups: int, turned: bool, depthwise: bool):
        o, c, *taps = weight.shape
        self.weight, self.groups, self.depthwise, self.turned = weight, groups, depthwise, turned
        self.key = groups, turned, depthwise
        inside, outside = (o // groups, c) if turned else (c, o // groups)
        if depthwise:
            inside, outside = 1, groups
        self.outside = outside
        lead = (1 if depthwise else groups, *taps, inside)
        self.packed = Value(
            Spec((*lead, padded(outside, weight.dtype.itemsize)), weight.dtype), name="packed"
        )
        self.reads, self.writes = (weight,), (self.packed,)
        self.units = math.prod(self.packed.shape[:-1]) if self.packed.size else 0

    def _strides(self, strides: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """The weight's strides along the packed axes: all but the last, and the last."""
        o, c, *taps = strides
        if self.depthwise:
            return (0, *taps, 0), o
        per_group = o * (self.weight.shape[0] // self.groups)
        return ((per_group, *taps, o), c) if self.turned else ((per_group, *taps, c), o)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        type = type_of(self.weight.dtype)
        lanes = module.target.lanes(self.weight.dtype)
        lead, last = self._strides(buffers[self.weight].strides)
        source, target = (buffers[x].pointer(f) for x in (self.weight, self.packed))
        row = self.packed.shape[-1]
        with f.loop(f.arg("lo"), f.arg("hi"), hint="row") as unit:
            index = unravel(f, unit.index, self.packed.shape[:-1])
            x = move(f, source, flat(f, index, lead), type)
            y = move(f, target, f.mul(unit.index, row), type)
            whole = self.outside // lanes * lanes
            with f.loop(0, whole, lanes) as i:
                v = load_lanes(f, move(f, x, f.mul(i.index, last), type), type, lanes, last)
                f.store(v, move(f, y, i.index, type))
            for start, _ in pieces(row, lanes):
                if start >= whole:
                    count = max(0, self.outside - start)
                    at = move(f, x, start * last, type)
                    v = load_lanes(f, at, type, lanes, last, count)
                    f.store(v, move(f, y, start, type))
        f.finish()
