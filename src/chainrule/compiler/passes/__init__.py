"""From graph to simpler graph: each pass is a function, named, printable, and checked in tests.

    calls     functions with a derivative by hand: it is taken, what they give is what was computed
    fold      operations on constants are done now
    simplify  rules of `algebra`, `movements`, `structure` and `indexing`
    indices   the same, and indices become arithmetic
    common    of operations with the same inputs and parameters one is kept
    dead      what nothing reads goes
    order     checks come before all that follows from what they check

A pass keeps the meaning: the results of the new graph are those of the old one, up to rounding
where a rule says so, infinities and NaN included.
"""

from __future__ import annotations

from collections.abc import Callable

from chainrule.compiler.ir import Graph, verify
from chainrule.compiler.passes.cleaning import calls, common, dead, order
from chainrule.compiler.passes.folding import fold
from chainrule.compiler.passes.rewrite import indices, simplify

Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    calls, dead, common, simplify, fold, common, indices, fold, common, dead, order,
)  # fmt: skip
"""In the order in which they run. Rules see more once equal values are one value, so they run
again after that."""


def run(
    graph: Graph,
    passes: tuple[Pass, ...] = PASSES,
    seen: Callable[[str, Graph], None] | None = None,
    check: bool = False,
) -> Graph:
    """The graph after all passes.

    Arguments:
        seen: called with each pass's name and its result, to show the road.
        check: verify each result against the specification.
    """
    for one in passes:
        graph = one(graph)
        if check:
            verify(graph)
        if seen is not None:
            seen(one.__name__, graph)
    return graph
