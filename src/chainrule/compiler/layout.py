"""Which values lie otherwise than row-major: images between convolutions, channels last.

The kernels of convolutions and of sliding windows say how they like their images to lie. Loops take
any layout, and are as fast in one as in the other as long as all large values of a loop agree; so
the wish spreads over loops to other values of the same shape. It does not reach the program's
inputs, outputs and constants, nor what a kernel of another family reads or writes, which may see a
value through a reshape that another layout would not allow.
"""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.compiler.ir import Graph, Value
from chainrule.compiler.native.conv_plan import preferred_layout
from chainrule.compiler.native.kernel import Kernel, strides_of

WISHING = frozenset({"conv", "conv_weight", "pool"})
ANY = frozenset({*WISHING, "loops", "host", "conv_weight_total"})
"""Families of kernels that take any layout."""

Strides = dict[Value, tuple[int, ...]]


def choose(graph: Graph, kernels: Sequence[Kernel]) -> Strides:
    """The strides of the values that do not lie row-major."""
    fixed = {*graph.inputs, *graph.constants, *graph.outputs}
    for kernel in kernels:
        if kernel.family not in ANY:
            fixed.update((*kernel.reads, *kernel.writes))
    chosen: Strides = {}
    for kernel in kernels:
        if kernel.family in WISHING:
            wishes = [preferred_layout(op) for op in kernel.ops]
            if kernel.family == "pool" and any(v in fixed for one in wishes for v in one):
                continue  # windows are as fast in rows, but not from one layout into the other
            for one in wishes:
                chosen.update((v, s) for v, s in one.items() if v not in fixed)
    return _trimmed(_spread(chosen, fixed, kernels))


def _spread(chosen: Strides, fixed: set[Value], kernels: Sequence[Kernel]) -> Strides:
    """Let values of the same shape that meet in a loop, or behind a convolution, lie alike."""
    meetings = [
        (*k.reads, *k.writes, *(op.output for op in k.ops if k.family == "conv"))
        for k in kernels
        if k.family == "loops" or (k.family == "conv" and len(k.ops) > 1)
    ]
    changed = bool(chosen)
    while changed:
        changed = False
        for values in meetings:
            alike = {v.shape: chosen[v] for v in values if v in chosen}
            for v in values:
                if v.shape in alike and v not in chosen and v not in fixed:
                    chosen[v], changed = alike[v.shape], True
    return chosen


def _trimmed(chosen: Strides) -> Strides:
    """Without those that lie row-major all the same."""
    return {
        v: s
        for v, s in chosen.items()
        if any(n > 1 and a != b for n, a, b in zip(v.shape, s, strides_of(v.shape), strict=True))
    }
