"""Derivatives of functions: `grad`, `vjp`, `jvp`, `jacobian`, `hessian`. They nest freely.

A transform calls the function on fresh aliases of its arguments, so that what is differentiated is
the dependence through this argument and through nothing else. Inside another transform, and when an
argument needs a gradient itself, the derivative is recorded too, and can be differentiated again.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from chainrule.autograd import engine
from chainrule.autograd.modes import _GradMode
from chainrule.dtypes import is_float
from chainrule.errors import ArgumentError, DTypeError, GradError
from chainrule.graph import Leaf, Value, constant, make
from chainrule.primitives.movement import alias


class _Depth(threading.local):
    level = 0


_depth = _Depth()


def _fresh(x: Any, name: str) -> Any:
    """An alias of x that needs a gradient and is connected to x's own graph, if there is one."""
    from chainrule.array import asarray

    tensor = asarray(x)
    if not is_float(tensor.dtype):
        raise DTypeError(
            f"{name} needs real floating-point arguments to differentiate with respect to, but got "
            f"{tensor.dtype.name}; pass 5.0 instead of 5, or cast with .astype(cr.float32)."
        )
    if tensor._node is not None:
        with _GradMode(True):
            return alias(tensor)
    twin = make(tensor._array)
    twin._node = Leaf(twin)
    return twin


class _Transform:
    """The scope of one transform: recording is on; `create_graph` if someone may differentiate."""

    def __init__(self, arguments: Sequence[Any]):
        outer = any(isinstance(x, Value) and x._node is not None for x in arguments)
        self.create_graph = outer or _depth.level > 0
        self._mode = _GradMode(True)

    def __enter__(self) -> _Transform:
        _depth.level += 1
        self._mode.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._mode.__exit__()
        _depth.level -= 1

    def done(self, tensor: Any) -> Any:
        """A result as the caller gets it: without this transform's graph, unless it is needed."""
        return tensor if self.create_graph or not isinstance(tensor, Value) else make(tensor._array)


def _pull(y: Any, xs: Sequence[Any], g: Any, create_graph: bool) -> tuple[Any, ...]:
    """dL/dx for each x; zeros where y does not depend on x."""
    if not isinstance(y, Value):
        raise GradError(f"the function returned {type(y).__name__}; it must return a tensor.")
    if y._node is None:
        return tuple(constant(0, x.shape, x.dtype) for x in xs)
    found = engine.gradients_of(
        [y], xs, [g], retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return tuple(
        constant(0, x.shape, x.dtype) if d is None else d for x, d in zip(xs, found, strict=True)
    )


def _positions(argnums: int | Sequence[int], args: Sequence[Any]) -> tuple[int, ...]:
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise ArgumentError(f"argnums={argnums} but the function got {len(args)} argument(s).")
    return tuple(n % len(args) for n in numbers)


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns `(value, gradient)`. Arguments as for `grad`."""

    @functools.wraps(function)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        positions = _positions(argnums, args)
        with _Transform(args) as transform:
            called = list(args)
            for i in positions:
                called[i] = _fresh(args[i], "grad")
            result = function(*called, **kwargs)
            y, aux = result if has_aux else (result, None)
            if not isinstance(y, Value) or y.size != 1:
                shape = y.shape if isinstance(y, Value) else type(y).__name__
                raise GradError(
                    f"grad needs a function that returns a scalar tensor, but it returned {shape}; "
                    "reduce it, for example with .sum(), or use cr.jacobian."
                )
            xs = [called[i] for i in positions]
            ones = constant(1, y.shape, y.dtype)
            found = _pull(y, xs, ones, transform.create_graph)
            gradients = tuple(map(transform.done, found))
            value = transform.done(y)
        gradient = gradients[0] if isinstance(argnums, int) else gradients
        return ((value, aux), gradient) if has_aux else (value, gradient)

    return evaluate


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The gradient of a scalar function, as a function.

    >>> import chainrule as cr
    >>> float(cr.grad(lambda x: x ** 2 + 3)(5.0))
    10.0

    Arguments:
        function: takes tensors (or what `asarray` takes) and returns a scalar tensor.
        argnums: which argument to differentiate by; for a sequence, a tuple of gradients.
        has_aux: whether the function returns `(value, anything)`; then `(gradient, anything)`.

    Raises:
        GradError: if the value is not a scalar. DTypeError: for an integer argument.
    """
    both = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return evaluate


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The value, and the function g -> g^T J (one result for each primal, in a tuple).

    J is the Jacobian dy/dx of `function` at `primals`; `g` has the shape of the value.
    """
    with _Transform(primals) as transform:
        xs = [_fresh(x, "vjp") for x in primals]
        y = function(*xs)
        value = transform.done(y)

    def pull(g: Any) -> tuple[Any, ...]:
        from chainrule.array import asarray

        g = asarray(g, dtype=y.dtype)
        with _Transform((*primals, g)) as inner:
            again = inner.create_graph or transform.create_graph
            seeded = engine.seed(y, g) if y._node is not None else g
            found = _pull(y, xs, seeded, again)
            return found if again else tuple(map(inner.done, found))

    return value, pull


def jvp(
    function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Any, Any]:
    """The value and J v: how the value moves when the primals move along the tangents.

    Forward mode by reverse mode twice: g -> g^T J is linear in g, and its own transpose is v -> J v.
    One set of rules serves both directions.
    """
    from chainrule.array import asarray

    if len(primals) != len(tangents):
        raise ArgumentError(f"jvp got {len(primals)} primals and {len(tangents)} tangents.")
    with _Transform((*primals, *tangents)) as transform:
        xs = [_fresh(x, "jvp") for x in primals]
        vs = [asarray(v, dtype=x.dtype) for v, x in zip(tangents, xs, strict=True)]
        for x, v in zip(xs, vs, strict=True):
            if x.shape != v.shape:
                raise ArgumentError(f"jvp got a primal of {x.shape} with a tangent of {v.shape}.")
        y = function(*xs)
        if y._node is None:
            return y, constant(0, y.shape, y.dtype)
        g = make(constant(0, y.shape, y.dtype)._array)
        g._node = Leaf(g)
        pulled = _pull(y, xs, g, create_graph=True)
        total = None
        for p, v in zip(pulled, vs, strict=True):
            if p._node is not None:
                (part,) = engine.gradients_of(
                    [p], [g], [v], retain_graph=True, create_graph=transform.create_graph,
                    allow_unused=True,
                )  # fmt: skip
                if part is not None:
                    total = part if total is None else total + part
        tangent = constant(0, y.shape, y.dtype) if total is None else total
        return transform.done(y), transform.done(tangent)


def jacobian(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0
) -> Callable[..., Any]:
    """The Jacobian, as a function: shape = output's shape followed by the argument's shape.

    One reverse pass for each element of the output.
    """

    @functools.wraps(function)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        from chainrule.array import reshape, stack

        positions = _positions(argnums, args)
        with _Transform(args) as transform:
            called = list(args)
            for i in positions:
                called[i] = _fresh(args[i], "jacobian")
            xs = [called[i] for i in positions]
            y = function(*called, **kwargs)
            rows = [
                _pull(y, xs, _basis(y, k), transform.create_graph) for k in range(y.size)
            ]
            results = []
            for j, x in enumerate(xs):
                shape = y.shape + x.shape
                stacked = stack([r[j] for r in rows]) if rows else constant(0, shape, x.dtype)
                results.append(transform.done(reshape(stacked, shape)))
        return results[0] if isinstance(argnums, int) else tuple(results)

    return evaluate


def _basis(y: Any, k: int) -> Any:
    """The tensor of y's shape that is 1 at flat position k and 0 elsewhere."""
    import numpy as np

    g = np.zeros(y.size, dtype=y.dtype)
    g[k] = 1
    return make(g.reshape(y.shape))


def hessian(function: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """The matrix of second derivatives of a scalar function: the Jacobian of its gradient.

    For its product with a vector alone, use `cr.jvp(cr.grad(f), (x,), (v,))[1]`, which costs a few
    gradients instead of one for each element.
    """
    return jacobian(grad(function, argnums), argnums)
