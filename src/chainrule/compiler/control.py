"""`cr.scan`, `cr.cond` and `cr.while_loop`: loops and choices that are part of the graph.

Each traces the functions that it is given once, whatever the number of steps, and applies one
primitive (primitives/control.py) with the graphs found. Eager and compiled code do the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from chainrule.array._core import SCALARS
from chainrule.array.creation import asarray
from chainrule.array.manipulation import concat, moveaxis, reshape
from chainrule.autograd import tree
from chainrule.compiler.body import Body, trace
from chainrule.compiler.ir import Graph, Value
from chainrule.compiler.reverse import apply_cond, apply_scan
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.graph import Spec, apply, state
from chainrule.primitives import control, movement

__all__ = ["cond", "scan", "while_loop"]


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    *,
    checkpoint: int | None = None,
    truncate: int | None = None,
) -> tuple[Any, Any]:
    """A loop over the first axis: `carry, y = f(carry, x)` for each x; (the last carry, all y).

    The same as

    ```python no-run (a fragment)
    carry, ys = init, []
    for x in xs:
        carry, y = f(carry, x)
        ys.append(y)
    return carry, cr.stack(ys)
    ```

    but f is called once, with tensors that have a shape and a dtype and no numbers, and what it
    does with them is what each step does: a loop of a thousand steps is traced and compiled as fast
    as one of ten. Tensors that f uses from outside, such as weights, get their gradients. Python's
    `if` on a value is not possible inside (`cr.where`, `cr.cond`); random numbers are drawn anew at
    each step, the same as in the loop above.

    Arguments:
        f: takes the carry and a slice of xs, returns the next carry and an output. The next carry
            has the structure, shapes and dtypes of the first.
        init: the first carry: a tensor, or nested tuples, lists and dicts of them.
        xs: tensors of equal length along their first axis, in any structure; None for none.
        length: the number of steps; needed where xs is None.
        reverse: go from the last x to the first; outputs stand where their x stands.
        checkpoint: save no more than the carry before every so many steps, and compute the steps
            between again for the derivative (Chen et al., "Training deep nets with sublinear memory
            cost", 2016): the memory for T steps is that of T / k carries and k whole steps.
        truncate: let gradients go through at most this many steps (truncated backpropagation
            through time): the steps are parted into runs of this length, and the carry that goes
            from one run into the next is a constant for the derivative.

    Returns:
        The last carry, and the outputs of all steps stacked along a new first axis.

    Raises:
        ShapeError: if the xs differ in length, or the carry changes its shape.
        DTypeError: if the carry changes its dtype.
        TraceError: if f asks for the value of a tensor.
    """
    init = _numbers_as_tensors(init)
    carry, build_carry = _tensors(init)
    slices, build_xs = _tensors(xs)
    n = _length(slices, length)
    for name, k in (("checkpoint", checkpoint), ("truncate", truncate)):
        if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
            raise ArgumentError(f"scan's {name} is a number of steps of at least 1, got {k!r}.")
    built: list[tree.Rebuild] = []

    def step(carry: Sequence[Any], x: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        returned = f(build_carry(carry), build_xs(x))
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise ArgumentError(
                f"scan's function must return the next carry and an output, (carry, y), but "
                f"{_named(f)} returned {_described(returned)}; return (carry, None) without one."
            )
        after = _carried(f, init, carry, returned[0])
        outputs, build = _tensors(returned[1])
        built.append(build)
        return after, outputs

    run = _run
    if truncate is not None and truncate < n:
        run = _segmented(run, truncate, cut=True)
    if checkpoint is not None and checkpoint < n:
        run = _segmented(run, checkpoint, cut=False) if run is _run else run
    last, ys = run(step, carry, slices, n, reverse, False)
    return build_carry(last), built[0](ys)


def _run(
    step: Callable[..., Any], carry: list[Any], xs: list[Any], n: int, reverse: bool,
    recompute: bool,
) -> tuple[list[Any], list[Any]]:  # fmt: skip
    """One scan of tensors in lists."""
    m = len(carry)
    specs = [Spec(x.shape, x.dtype) for x in carry]
    specs += [Spec(x.shape[1:], x.dtype) for x in xs]
    connected = [True] * m + [x._node is not None for x in xs]
    body = trace(
        lambda *a: step(list(a[:m]), list(a[m:])), specs, connected, lambda r: [*r[0], *r[1]]
    )
    states = _states(body.generators, body.cells)
    results = apply_scan(
        [*body.outside, *states, *carry, *xs], body.graph, len(body.outside), len(states) + m,
        n, reverse, recompute,
    )  # fmt: skip
    rest = _with_states(body.generators, body.cells, results)
    return rest[:m], rest[m:]


def _segmented(run: Callable[..., Any], k: int, cut: bool) -> Callable[..., Any]:
    """A loop over runs of k steps, and behind it what is left, 1 to k steps.

    `cut`: what goes from one run into the next is a constant for the derivative. Otherwise each run
    saves the carry that it starts from alone.
    """

    def outer(
        step: Callable[..., Any], carry: list[Any], xs: list[Any], n: int, reverse: bool,
        recompute: bool,
    ) -> tuple[list[Any], list[Any]]:  # fmt: skip
        whole = (n - 1) // k
        done = whole * k
        first, rest = slice(0, done), slice(done, n)
        if reverse:
            first, rest = slice(n - done, n), slice(0, n - done)
        runs = [reshape(x[first], (whole, k, *x.shape[1:])) for x in xs]

        def segment(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
            after, ys = run(step, carry, xs, k, reverse, False)
            return [x.detach() for x in after] if cut else after, ys

        carry, early = _run(segment, carry, runs, whole, reverse, not cut)
        carry, late = run(step, carry, [x[rest] for x in xs], n - done, reverse, False)
        ys = []
        for y, z in zip(early, late, strict=True):
            y = reshape(y, (done, *y.shape[2:]))
            ys.append(concat([z, y] if reverse else [y, z]))
        return carry, ys

    return outer


def apply_segments(
    f: Callable[[dict[str, Any]], Any], pieces: dict[str, tuple[Any, int]], block: int, axis: int
) -> Any:
    """f on blocks of its arguments, one after the other; the results joined along an axis.

    Nothing is saved for the derivative but the arguments: what a block computes exists while it is
    computed, and once more on the way back.

    Arguments:
        f: takes the blocks by name, returns a tensor.
        pieces: by name an argument and the axis that is cut; None stays None.
        block: how long a block is; the last may be shorter.
        axis: of the result.
    """
    given = {name: (x, i % x.ndim) for name, (x, i) in pieces.items() if x is not None}
    missing = dict.fromkeys(pieces.keys() - given.keys())
    names = list(given)
    n = next(x.shape[i] for x, i in given.values())
    whole = n // block * block

    def cut(x: Any, i: int, part: slice) -> Any:
        return x[(slice(None),) * i + (part,)]

    def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        return [], [f(dict(zip(names, xs, strict=True)) | missing)]

    xs = []
    for x, i in given.values():
        x = cut(x, i, slice(0, whole))
        runs = reshape(x, (*x.shape[:i], whole // block, block, *x.shape[i + 1 :]))
        xs.append(moveaxis(runs, i, 0))
    _, (ys,) = _run(step, [], xs, whole // block, False, True)
    at = axis % (ys.ndim - 1)
    y = moveaxis(ys, 0, at)
    y = reshape(y, (*y.shape[:at], whole, *y.shape[at + 2 :]))
    if whole == n:
        return y
    rest = {name: cut(x, i, slice(whole, n)) for name, (x, i) in given.items()}
    return concat([y, f(rest | missing)], axis=at)


def cond(
    pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any
) -> Any:
    """`true_fn(*operands)` if `pred` is true, else `false_fn(*operands)`; one of them is computed.

    Both are traced, and must return the same structure of the same shapes and dtypes. Derivatives
    go through the one that was taken, to the operands and to the tensors that it uses from outside.

    Arguments:
        pred: a tensor of one element, or a bool.
        true_fn, false_fn: functions of the operands.
        operands: tensors, or nested tuples, lists and dicts of them.

    Raises:
        ShapeError, DTypeError: if the two return different shapes or dtypes.
        ArgumentError: if the two return different structures.
    """
    predicate = _predicate("cond", pred)
    inputs, build = _tensors(operands)
    specs = [Spec(x.shape, x.dtype) for x in inputs]
    built: list[tree.Rebuild] = []

    def taken_apart(result: Any) -> list[Any]:
        leaves, rebuild = _tensors(result)
        built.append(rebuild)
        return leaves

    connected = [x._node is not None for x in inputs]
    bodies = [
        trace(lambda *a, f=f: f(*build(a)), specs, connected, taken_apart)
        for f in (true_fn, false_fn)
    ]
    _same_results(true_fn, false_fn, *bodies)
    outside, generators, cells, graphs = _united(bodies)
    results = apply_cond(predicate, [*outside, *_states(generators, cells), *inputs], *graphs)
    return built[0](_with_states(generators, cells, results))


def _same_results(true_fn: Any, false_fn: Any, first: Body, second: Body) -> None:
    """Refuse branches whose results differ in structure, shape or dtype."""
    try:
        one, other = map(_numbers_as_tensors, (first.results, second.results))
        others = tree.leaves_like(one, other)
        mine = tree.leaves_like(other, one)
    except ArgumentError as error:
        raise ArgumentError(
            f"cond's two functions must return the same structure; {_named(false_fn)} returned "
            f"another than {_named(true_fn)}: {error.args[0]}"
        ) from None
    for i, (x, y) in enumerate(zip(map(asarray, mine), map(asarray, others), strict=True)):
        for what, kind in (("shape", ShapeError), ("dtype", DTypeError)):
            if getattr(x, what) != getattr(y, what):
                raise kind(
                    f"cond's two functions must return the same {what}s; result {i} of "
                    f"{_named(true_fn)} is {_spec(x)}, that of {_named(false_fn)} is {_spec(y)}."
                )


def _united(bodies: Sequence[Body]) -> tuple[list[Any], list[Any], list[Any], list[Graph]]:
    """Bodies of the same inputs and outputs: what was captured, generators, cells, the graphs."""
    outside: dict[Any, Any] = {}
    for body in bodies:
        for x in body.outside:
            outside.setdefault((id(x._array), id(x._node), x._slot), x)
    generators = list(dict.fromkeys(g for body in bodies for g in body.generators))
    cells = list({id(x): x for body in bodies for x in body.cells}.values())
    states = [*generators, *cells]
    specs = [Spec(g.state.shape, g.state.dtype) for g in generators]
    specs += [Spec(x.shape, x.dtype) for x in cells]
    graphs = []
    for body in bodies:
        values = iter(body.graph.inputs)
        captured = {(id(x._array), id(x._node), x._slot): next(values) for x in body.outside}
        mine = {id(one): next(values) for one in (*body.generators, *body.cells)}
        after = dict(zip(mine, body.graph.outputs, strict=False))
        before = [mine.get(id(one)) or Value(spec) for one, spec in zip(states, specs, strict=True)]
        fixed = [captured.get(key) or Value(Spec(x.shape, x.dtype)) for key, x in outside.items()]
        kept = [after.get(id(one), v) for one, v in zip(states, before, strict=True)]
        old = body.graph
        outputs = [*kept, *old.outputs[body.states :]]
        inputs = [*fixed, *before, *values]
        graphs.append(Graph(inputs, old.constants, old.ops, outputs, {}, old.name))
    return list(outside.values()), generators, cells, graphs


def while_loop(cond_fn: Callable[[Any], Any], body_fn: Callable[[Any], Any], init: Any) -> Any:
    """`carry = body_fn(carry)` as long as `cond_fn(carry)` is true; the last carry.

    Both functions are traced once. There is no derivative, since the number of steps is not known
    beforehand; `cr.scan` has one.

    Arguments:
        cond_fn: takes the carry, returns a bool tensor of one element.
        body_fn: takes the carry, returns the next one, of the same structure, shapes and dtypes.
        init: the first carry: a tensor, or nested tuples, lists and dicts of them.

    Raises:
        ShapeError, DTypeError: if the carry changes its shape or dtype.
        GradError: when a derivative of the result is asked for.
    """
    init = _numbers_as_tensors(init)
    carry, build = _tensors(init)
    specs = [Spec(x.shape, x.dtype) for x in carry]
    connected = [False] * len(carry)
    test = trace(
        lambda *a: cond_fn(build(a)), specs, connected, lambda r: [_predicate("while_loop", r)]
    )  # fmt: skip
    if test.states:
        raise ArgumentError(
            f"{_named(cond_fn)} draws random numbers, or assigns to a tensor from outside; do that "
            "in while_loop's body_fn, and carry over what the condition needs."
        )
    body = trace(
        lambda *a: body_fn(build(a)), specs, connected,
        lambda r: _carried(body_fn, init, carry, r),
    )  # fmt: skip
    outside, generators, cells, graphs = _united([test, body])
    # The test gives its verdict alone; the states are what the body makes of them.
    graphs[0].outputs = graphs[0].outputs[body.states :]
    results = apply(
        control.while_loop, *outside, *_states(generators, cells), *carry, test=graphs[0],
        body=graphs[1], consts=len(outside),
    )  # fmt: skip
    return build(_with_states(generators, cells, results))


# --- states --------------------------------------------------------------------------------------


def _states(generators: Sequence[Any], cells: Sequence[Any]) -> list[Any]:
    """The states that go into a loop; a loop around it is told that they will change."""
    for generator in generators:
        if state.tracer is not None:
            state.tracer.stateful(generator)
    return [*[generator.state for generator in generators], *cells]


def _with_states(
    generators: Sequence[Any], cells: Sequence[Any], results: Sequence[Any]
) -> list[Any]:
    """Give the generators and the tensors what came out; returns the other results."""
    n = len(generators)
    for generator, after in zip(generators, results, strict=False):
        generator.state = after
    for cell, after in zip(cells, results[n:], strict=False):
        cell._rebind(after)
    return list(results[n + len(cells) :])


# --- arguments ------------------------------------------------------------------------------------


def _numbers_as_tensors(of: Any) -> Any:
    """A tree with a tensor in the place of every number: (0, 1.0) is a tree of two."""
    if isinstance(of, dict):
        built = copy.copy(of)
        built.update((key, _numbers_as_tensors(value)) for key, value in of.items())
        return built
    if isinstance(of, list | tuple):
        items = [_numbers_as_tensors(x) for x in of]
        return type(of)(*items) if hasattr(of, "_fields") else type(of)(items)
    return asarray(of) if isinstance(of, SCALARS) else of


def _tensors(of: Any) -> tuple[list[Any], tree.Rebuild]:
    """The leaves of a tree as tensors, and how to build one like it."""
    leaves, build = tree.flatten(_numbers_as_tensors(of))
    return [asarray(x) for x in leaves], build


def _length(xs: Sequence[Any], length: int | None) -> int:
    for x in xs:
        if x.ndim == 0:
            raise ShapeError("scan goes over the first axis of xs, but got a tensor of shape ().")
    lengths = sorted({x.shape[0] for x in xs})
    if len(lengths) > 1:
        raise ShapeError(f"scan's xs must be equally long, but their first axes are {lengths}.")
    if not lengths and length is None:
        raise ArgumentError("scan without xs needs length=, the number of steps.")
    if length is not None and ((lengths and lengths[0] != length) or length < 0):
        raise ArgumentError(
            f"scan got length={length}" + (f" but xs of length {lengths[0]}." if lengths else ".")
        )
    return lengths[0] if lengths else length or 0


def _predicate(name: str, given: Any) -> Any:
    x = asarray(given)
    if x.size != 1:
        raise ShapeError(f"{name} needs a condition of one element, but got shape {x.shape}.")
    if x.dtype.kind != "b":
        raise DTypeError(f"{name} needs a bool condition, but got {x.dtype.name}; compare it.")
    return movement.reshape(x, shape=()) if x.ndim else x


def _carried(f: Any, init: Any, before: Sequence[Any], after: Any) -> list[Any]:
    """The leaves of the next carry, which must be like those of the one before."""
    try:
        after = _numbers_as_tensors(after)
        tree.leaves_like(after, init)
        leaves = [asarray(x) for x in tree.leaves_like(init, after)]
    except ArgumentError as error:
        raise ArgumentError(
            f"the carry that {_named(f)} returned is not built like the first one: {error.args[0]}"
        ) from None
    for i, (x, y) in enumerate(zip(before, leaves, strict=True)):
        which = f"carry {i}" if len(leaves) > 1 else "the carry"
        if x.shape != y.shape:
            raise ShapeError(
                f"{which} went into {_named(f)} with shape {x.shape} and came out with shape "
                f"{y.shape}; each step must return the shape that it was given."
            )
        if x.dtype != y.dtype:
            raise DTypeError(
                f"{which} went into {_named(f)} as {x.dtype.name} and came out as {y.dtype.name}; "
                f"cast it, .astype(cr.{x.dtype.name}), or start from {y.dtype.name}."
            )
    return leaves


def _spec(x: Any) -> str:
    return f"{x.dtype.name}{list(x.shape)}"


def _described(x: Any) -> str:
    size = f" of {len(x)}" if isinstance(x, tuple | list) else ""
    return f"{type(x).__name__}{size}"


def _named(f: Any) -> str:
    """A function and where it is defined."""
    code = getattr(getattr(f, "__func__", f), "__code__", None)
    name = getattr(f, "__qualname__", type(f).__name__).rpartition(".")[2]
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"
