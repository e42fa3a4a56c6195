"""Weights in the order in which convolutions read them: one kernel, once a step.

A weight (O, C / groups, *kernel) becomes (groups, *kernel, in, out): for each tap a small matrix
whose rows, the outputs of one input channel, are contiguous and end at a multiple of 64 bytes. For
`conv` in and out are the weight's own; for the adjoint they change places. A depthwise weight, one
channel a group, becomes (*kernel, groups).
"""

from __future__ import annotations

import math

from chainrule.compiler.ir import Value
from chainrule.compiler.native.conv_copy import copy_image
from chainrule.compiler.native.conv_emit import Keyed, flat, move, unravel
from chainrule.compiler.native.conv_plan import padded
from chainrule.compiler.native.kernel import PARAMETERS, Buffers, strides_of
from chainrule.compiler.native.text import Function, Module, type_of, vector
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
        self.block = together(inside, math.prod(taps))
        self.units = lead[0] * (inside // self.block)

    def emit(self, module: Module, name: str, buffers: Buffers) -> None:
        f = Function(module, name, PARAMETERS)
        dtype, block = self.weight.dtype, self.block
        type, lanes = type_of(dtype), module.target.lanes(dtype)
        source, target = (buffers[x].pointer(f) for x in (self.weight, self.packed))
        o, c, *taps = buffers[self.weight].strides
        group, inner, outer = o * (self.weight.shape[0] // self.groups), c, o
        if self.turned:
            inner, outer = o, c
        if self.depthwise:
            group, inner, outer = 0, 0, o
        _, *kernel, inside, row = self.packed.shape
        to_group, *to_taps, to_inner, _ = strides_of(self.packed.shape)
        shape = (block, *kernel, self.outside)
        with f.loop(f.arg("lo"), f.arg("hi"), hint="block") as unit:
            g, n = f.udiv(unit.index, inside // block), f.urem(unit.index, inside // block)
            n = f.mul(n, block)
            x = move(f, source, f.add(f.mul(g, group), f.mul(n, inner)), type)
            y = move(f, target, f.add(f.mul(g, to_group), f.mul(n, to_inner)), type)
            if self.outside < row:  # zeros beyond the last output
                with f.loop(0, math.prod(shape[:-1]), hint="zeros") as rows:
                    index = unravel(f, rows.index, shape[:-1])
                    end = move(f, y, flat(f, index, (to_inner, *to_taps)), type)
                    for start in range(self.outside // lanes * lanes, row, lanes):
                        f.store(f.zero(vector(type, lanes)), move(f, end, start, type))
            copy_image(
                f, type, lanes, shape, (x, (inner, *taps, outer)), (y, (to_inner, *to_taps, 1))
            )
        f.finish()


def together(inside: int, taps: int) -> int:
    """How many input channels a unit takes: so many that rows of a weight are not too short."""
    return max(n for n in range(1, inside + 1) if inside % n == 0 and (n == 1 or n * taps <= 16))
