"""Derivatives of functions: `grad`, `vjp`, `jvp`, `jacobian`, `hessian`. They nest freely.

A transform calls the function on fresh aliases of its arguments, so that what is differentiated is
the dependence through this argument and through nothing else. Where the function also depends on
tensors from outside that need gradients (those of another transform, or a model's parameters) the
derivative is recorded too, and can be differentiated again; under `no_grad` it never is.

Arguments are trees: tensors, what `asarray` makes one of, or nested dicts, lists and tuples of
them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.array.creation import asarray
from chainrule.array.manipulation import reshape, stack
from chainrule.autograd import engine, tree
from chainrule.autograd.modes import _GradMode
from chainrule.dtypes import is_float
from chainrule.errors import ArgumentError, DTypeError, GradError
from chainrule.graph import Leaf, Value, constant, make, state
from chainrule.primitives.movement import alias


class _Scope:
    """One transform: the aliases it differentiates by, and whether its results are recorded.

    `recorded` becomes true when a result turns out to depend on something from outside that needs a
    gradient.
    """

    def __init__(self, name: str):
        self.name = name
        self.outside = state.grad_enabled  # whether anything outside is being recorded
        self.recorded = False
        self.xs: list[Any] = []
        self.own: list[Any] = []
        self._mode = _GradMode(True)

    def __enter__(self) -> _Scope:
        self._mode.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._mode.__exit__()

    def fresh(self, leaf: Any) -> Any:
        """An alias of a tensor, connected to the graph that it came from."""
        x = asarray(leaf)
        if not is_float(x.dtype):
            raise DTypeError(
                f"{self.name} needs real floating-point arguments to differentiate by, but got "
                f"{x.dtype.name}; pass 5.0 instead of 5, or cast with .astype(cr.float32)."
            )
        if x._node is None or not self.outside:
            x = _leaf(make(x._array))
            self.own.append(x)
        # The function gets a tensor of its own, to which it may assign.
        twin = alias(x)
        self.xs.append(engine.handed_out(twin))
        return twin

    def see(self, *results: Any) -> None:
        """Find out whether these trees depend on anything from outside that needs a gradient.

        That is, on a leaf that somebody holds: those of a transform live as long as it does.
        """
        if self.outside and not self.recorded:
            own = [x._node for x in self.own]
            leaves = tree.flatten(results)[0]
            nodes = engine.reachable(
                t._node for t in leaves if isinstance(t, Value) and t._node is not None
            )
            self.recorded = any(
                isinstance(n, Leaf) and n.tensor() is not None and n not in own for n in nodes
            )

    def done(self, result: Any) -> Any:
        """A tree of results as the caller gets it: without a graph, unless it may be needed."""
        return result if self.recorded else tree.transform(_detached, result)


def _detached(x: Any) -> Any:
    return make(x._array) if isinstance(x, Value) else x


def _outputs(result: Any) -> tuple[list[Any], tree.Rebuild]:
    ys, build = tree.flatten(result)
    for y in ys:
        if not isinstance(y, Value):
            raise GradError(f"the function returned {type(y).__name__}; it must return tensors.")
    return ys, build


def _pull(ys: Sequence[Any], xs: Sequence[Any], gs: Sequence[Any], create_graph: bool) -> list[Any]:
    """The sum over y of (dy/dx)^T g for each x; zeros where nothing depends on x."""
    used = [(y, g) for y, g in zip(ys, gs, strict=True) if y._node is not None]
    found = engine.gradients_of(
        [y for y, _ in used], xs, [g for _, g in used],
        retain_graph=True, create_graph=create_graph, allow_unused=True,
    )  # fmt: skip
    return [
        constant(0, x.shape, x.dtype) if d is None else d for x, d in zip(xs, found, strict=True)
    ]


def _positions(argnums: int | Sequence[int], args: Sequence[Any]) -> tuple[int, ...]:
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise ArgumentError(f"argnums={argnums} but the function got {len(args)} argument(s).")
    positions = tuple(n % len(args) for n in numbers)
    if len(set(positions)) != len(positions):
        raise ArgumentError(f"argnums={argnums} names an argument twice.")
    return positions


def _called(
    scope: _Scope, argnums: int | Sequence[int], args: Sequence[Any]
) -> tuple[list[Any], tree.Rebuild]:
    """The arguments with fresh ones in place of the chosen, and how to build a tree like those."""
    called, builds = list(args), []
    for i in _positions(argnums, args):
        leaves, build = tree.flatten(args[i])
        called[i] = build([scope.fresh(leaf) for leaf in leaves])
        builds.append((len(leaves), build))

    def rebuild(results: Sequence[Any]) -> Any:
        rest = iter(results)
        trees = tuple(build(list(itertools.islice(rest, n))) for n, build in builds)
        return trees[0] if isinstance(argnums, int) else trees

    return called, rebuild


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns `(value, gradient)`. Arguments as for `grad`."""

    @functools.wraps(function, updated=())
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        with _Scope("grad") as scope:
            called, build = _called(scope, argnums, args)
            result = function(*called, **kwargs)
            y, aux = result if has_aux else (result, None)
            if not isinstance(y, Value) or y.size != 1:
                what = f"shape {y.shape}" if isinstance(y, Value) else type(y).__name__
                raise GradError(
                    f"grad needs a function that returns a scalar tensor, but it returned {what}; "
                    "reduce it, for example with .sum(), or use cr.jacobian."
                )
            scope.see(y, aux)
            found = _pull([y], scope.xs, [constant(1, y.shape, y.dtype)], scope.recorded)
            value = (y, aux) if has_aux else y
            return scope.done(value), scope.done(build(found))

    return evaluate


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The gradient of a scalar function, as a function.

    >>> import chainrule as cr
    >>> float(cr.grad(lambda x: x ** 2 + 3)(5.0))
    10.0

    Arguments:
        function: takes tensors (or what `asarray` takes) and returns a scalar tensor. An argument
            to differentiate by may be a nested dict, list or tuple; the gradient is one like it.
        argnums: which argument to differentiate by; for a sequence, a tuple of gradients.
        has_aux: whether the function returns `(value, anything)`; then `(gradient, anything)`.

    Raises:
        GradError: if the value is not a scalar. DTypeError: for an integer argument.
    """
    both = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function, updated=())
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return evaluate


def vjp(function: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value, and the function g -> g^T J (one result for each primal, in a tuple).

    J is the Jacobian dy/dx of `function` at `primals`; `g` has the shape (if a tree, the structure)
    of the value. With `has_aux` the function returns `(value, anything)`, and that is the third
    result.
    """
    with _Scope("vjp") as scope:
        called, build = _called(scope, range(len(primals)), primals)
        result = function(*called)
        y, aux = result if has_aux else (result, None)
        ys, _ = _outputs(y)
        scope.see(ys, aux)

    def pull(g: Any) -> tuple[Any, ...]:
        gs = [asarray(part) for part in tree.leaves_like(y, g)]
        with _Scope("vjp") as inner:
            inner.own, inner.recorded = scope.own, scope.recorded
            inner.see(gs)
            seeds = [
                g if y._node is None else engine.seed(y, g) for y, g in zip(ys, gs, strict=True)
            ]
            return inner.done(build(_pull(ys, scope.xs, seeds, inner.recorded)))

    results = scope.done(y), pull
    return (*results, scope.done(aux)) if has_aux else results


def jvp(
    function: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    has_aux: bool = False,
) -> tuple[Any, ...]:
    """The value and J v: how the value moves when the primals move along the tangents.

    Forward mode by reverse mode twice: g -> g^T J is linear in g, and its transpose is v -> J v.
    One set of rules serves both ways. With `has_aux` the function returns `(value, anything)`, and
    that is the third result.
    """
    if len(primals) != len(tangents):
        raise ArgumentError(f"jvp got {len(primals)} primals and {len(tangents)} tangents.")
    with _Scope("jvp") as scope:
        called, _ = _called(scope, range(len(primals)), primals)
        xs = scope.xs
        parts = [v for p, t in zip(primals, tangents, strict=True) for v in tree.leaves_like(p, t)]
        vs = [asarray(v, dtype=x.dtype) for v, x in zip(parts, xs, strict=True)]
        for x, v in zip(xs, vs, strict=True):
            if x.shape != v.shape:
                raise ArgumentError(f"jvp got a primal of {x.shape} with a tangent of {v.shape}.")
        result = function(*called)
        y, aux = result if has_aux else (result, None)
        ys, build = _outputs(y)
        scope.see(ys, aux, vs)
        gs = [_leaf(constant(0, z.shape, z.dtype)) for z in ys]
        pulled = _pull(ys, xs, gs, create_graph=True)
        pushed = build(_pull(pulled, gs, vs, scope.recorded))
        results = scope.done(y), scope.done(pushed)
        return (*results, scope.done(aux)) if has_aux else results


def _leaf(x: Any) -> Any:
    x._node = Leaf(x)
    return x


def jacobian(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The Jacobian, as a function: shape = output's shape followed by the argument's shape.

    One reverse pass for each element of the output. Where output or argument are trees, so is the
    result: for each tensor of the output the tree of its Jacobians by the tensors of the argument.
    """

    @functools.wraps(function, updated=())
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        with _Scope("jacobian") as scope:
            called, build = _called(scope, argnums, args)
            ys, build_output = _outputs(function(*called, **kwargs))
            scope.see(ys)
            blocks = [build(_jacobian_of(y, scope.xs, scope.recorded)) for y in ys]
            return scope.done(build_output(blocks))

    return evaluate


def _jacobian_of(y: Any, xs: Sequence[Any], create_graph: bool) -> list[Any]:
    """The Jacobian of one tensor by each of several."""
    rows = [_pull([y], xs, [_basis(y, k)], create_graph) for k in range(y.size)]
    return [
        reshape(stack([row[j] for row in rows]), y.shape + x.shape)
        if rows
        else constant(0, y.shape + x.shape, x.dtype)
        for j, x in enumerate(xs)
    ]


def _basis(y: Any, k: int) -> Any:
    """The tensor of y's shape that is 1 at flat position k and 0 elsewhere."""
    g = np.zeros(y.size, dtype=y.dtype)
    g[k] = 1
    return make(g.reshape(y.shape))


def hessian(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The matrix of second derivatives of a scalar function: the Jacobian of its gradient.

    For its product with a vector alone, use `cr.jvp(cr.grad(f), (x,), (v,))[1]`, which costs a few
    gradients instead of one for each element.
    """
    return jacobian(grad(function, argnums), argnums)
