"""grad, value_and_grad, vjp, jvp, jacobian, hessian: alone, nested, on trees, against JAX."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import ArgumentError, DTypeError, GradError, ShapeError

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)

X = np.array([0.3, -1.2, 0.8])
V = np.array([1.0, 0.5, -2.0])


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(got), np.asarray(expected), rtol=1e-12, atol=1e-14)


def f(x: Any, m: Any = cr) -> Any:
    return m.sum(m.sin(x) * x) * m.exp(x[0]) + m.prod(x)


def vector(x: Any, m: Any = cr) -> Any:
    return m.tanh(x[:2] * x[2]) + m.sum(x**2)


def in_jax(function: Any) -> Any:
    return lambda x: function(x, jnp)


# --- each one -------------------------------------------------------------------------------------


def test_grad_and_value_and_grad() -> None:
    close(cr.grad(f)(X), jax.grad(in_jax(f))(X))
    value, gradient = cr.value_and_grad(f)(X)
    close(value, f(X, np))
    close(gradient, jax.grad(in_jax(f))(X))
    assert not gradient.requires_grad
    assert not value.requires_grad
    assert cr.grad(lambda x: x**2 + 3)(cr.asarray(5.0)).item() == 10.0
    assert cr.grad(lambda x: x**2 + 3)(5.0).dtype == cr.float32


def test_argnums_and_aux() -> None:
    g = lambda x, y, scale=1.0: scale * x * y**2  # noqa: E731
    assert cr.grad(g, argnums=1)(2.0, 3.0).item() == 12.0
    assert cr.grad(g, argnums=-1)(2.0, 3.0).item() == 12.0
    by_both = cr.grad(g, argnums=(1, 0))(2.0, 3.0, scale=2.0)
    assert [t.item() for t in by_both] == [24.0, 18.0]
    gradient, aux = cr.grad(lambda x: (x**2, {"x": x, "n": 3}), has_aux=True)(3.0)
    assert (gradient.item(), aux["x"].item(), aux["n"]) == (6.0, 3.0, 3)
    assert not aux["x"].requires_grad
    (value, aux), gradient = cr.value_and_grad(lambda x: (x**2, "aux"), has_aux=True)(3.0)
    assert (value.item(), aux, gradient.item()) == (9.0, "aux", 6.0)
    with pytest.raises(ArgumentError, match="argnums=2"):
        cr.grad(g, argnums=2)(1.0, 2.0)
    with pytest.raises(ArgumentError, match="twice"):
        cr.grad(g, argnums=(0, -2))(1.0, 2.0)


def test_what_cannot_be_differentiated_is_refused() -> None:
    for transform in (cr.grad, cr.jacobian):
        with pytest.raises(DTypeError, match=r"int64.*5\.0"):
            transform(lambda x: x * 2.0)(5)
    with pytest.raises(GradError, match=r"shape \(3,\).*jacobian"):
        cr.grad(lambda x: x)(X)
    with pytest.raises(GradError, match="float"):
        cr.grad(lambda x: 1.0)(X)
    with pytest.raises(GradError, match="str"):
        cr.jacobian(lambda x: "y")(X)


def test_functions_that_do_not_depend_on_their_argument() -> None:
    assert cr.grad(lambda x: cr.asarray(3.0))(X).tolist() == [0.0, 0.0, 0.0]
    assert cr.jacobian(lambda x: cr.ones((2,)))(X).shape == (2, 3)
    value, tangent = cr.jvp(lambda x: cr.ones((2,)), (X,), (V,))
    assert (value.tolist(), tangent.tolist()) == ([1.0, 1.0], [0.0, 0.0])
    _, pull = cr.vjp(lambda x: cr.ones((2,)), X)
    assert pull(cr.ones((2,)))[0].tolist() == [0.0, 0.0, 0.0]
    assert cr.grad(cr.grad(lambda x: 3 * x))(2.0).item() == 0.0
    assert cr.jvp(lambda x: cr.sum(cr.floor(x)), (X,), (V,))[1].item() == 0.0


def test_vjp_and_jvp() -> None:
    value, pull = cr.vjp(vector, X)
    expected, jax_pull = jax.vjp(in_jax(vector), X)
    close(value, expected)
    g = np.array([2.0, -1.0])
    for _ in range(2):  # as often as one likes
        close(pull(g)[0], jax_pull(g)[0])
    got = cr.jvp(vector, (X,), (V,))
    for ours, theirs in zip(got, jax.jvp(in_jax(vector), (X,), (V,)), strict=True):
        close(ours, theirs)
        assert not ours.requires_grad
    with pytest.raises(ShapeError):
        pull(np.ones(3))
    with pytest.raises(ArgumentError, match=r"\(3,\).*\(2,\)"):
        cr.jvp(vector, (X,), (V[:2],))
    with pytest.raises(ArgumentError, match="1 primals and 2 tangents"):
        cr.jvp(vector, (X,), (V, V))


def test_several_primals_and_aux() -> None:
    g = lambda x, y: (x * cr.sum(y), cr.sin(y))  # noqa: E731
    y = np.array([0.5, 2.0])
    (a, b), pull = cr.vjp(g, X, y)
    close(a, X * y.sum())
    close(b, np.sin(y))
    dx, dy = pull((np.ones(3), np.ones(2)))
    close(dx, [y.sum()] * 3)
    close(dy, X.sum() + np.cos(y))
    (_, _), (da, db) = cr.jvp(g, (X, y), (V, y))
    close(da, V * y.sum() + X * y.sum())
    close(db, np.cos(y) * y)
    value, pull, aux = cr.vjp(lambda x: (x * x, x.shape), X, has_aux=True)
    assert aux == (3,)
    close(pull(np.ones(3))[0], 2 * X)
    value, tangent, aux = cr.jvp(lambda x: (x * x, "aux"), (X,), (V,), has_aux=True)
    close(tangent, 2 * X * V)
    assert aux == "aux"
    close(value, X * X)


def test_jacobian_and_hessian() -> None:
    close(cr.jacobian(vector)(X), jax.jacobian(in_jax(vector))(X))
    close(cr.hessian(f)(X), jax.hessian(in_jax(f))(X))
    matrix = np.arange(6.0).reshape(2, 3)
    got = cr.jacobian(lambda a: cr.matmul(a, a.T))(matrix)
    assert got.shape == (2, 2, 2, 3)
    close(got, jax.jacobian(lambda a: a @ a.T)(matrix))
    by_both = cr.jacobian(lambda x, y: x * cr.sum(y), argnums=(0, 1))(X, V)
    close(by_both[0], np.eye(3) * V.sum())
    close(by_both[1], np.outer(X, np.ones(3)))
    blocks = cr.hessian(lambda x, y: cr.sum(x * y) ** 2, argnums=(0, 1))(X, V)
    close(blocks[0][1], jax.hessian(lambda x, y: jnp.sum(x * y) ** 2, (0, 1))(X, V)[0][1])
    assert cr.jacobian(lambda x: x[:0])(X).shape == (0, 3)


# --- nested in every order ------------------------------------------------------------------------

NESTED = {
    "grad of grad": lambda m, f: m.grad(lambda x: m.grad(f)(x) @ V),
    "grad of jvp": lambda m, f: m.grad(lambda x: m.jvp(f, (x,), (V,))[1]),
    "jvp of grad": lambda m, f: lambda x: m.jvp(m.grad(f), (x,), (V,))[1],
    "jvp of jvp": lambda m, f: (
        lambda x: m.jvp(lambda y: m.jvp(f, (y,), (V,))[1], (x,), (np.array([0.2, 0.1, 1.0]),))[1]
    ),
    "vjp of grad": lambda m, f: lambda x: m.vjp(m.grad(f), x)[1](V)[0],
    "grad of vjp": lambda m, f: m.grad(lambda x: m.vjp(f, x)[1](np.float64(1.0))[0] @ V),
    "jacobian of grad": lambda m, f: m.jacobian(m.grad(f)),
    "jacobian of jacobian": lambda m, f: m.jacobian(m.jacobian(f)),
    "grad of hessian": lambda m, f: m.grad(lambda x: (m.hessian(f)(x) @ V) @ V),
    "hessian of jvp": lambda m, f: m.hessian(lambda x: m.jvp(f, (x,), (V,))[1]),
    "hessian of grad": lambda m, f: m.hessian(lambda x: m.grad(f)(x) @ V),
    "grad of the tangent": lambda m, f: m.grad(lambda x: m.jvp(f, (X,), (x,))[1]),
    "grad thrice": lambda m, f: m.grad(
        lambda x: m.grad(lambda y: m.grad(f)(y) @ V)(x) @ np.array([1.0, 2.0, 3.0])
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_transforms_agree_with_jax(name: str) -> None:
    ours = NESTED[name](cr, f)(cr.asarray(X))
    theirs = NESTED[name](jax, in_jax(f))(jnp.asarray(X))
    close(ours, theirs)
    assert not ours.requires_grad


def test_perturbations_are_not_confused() -> None:
    """d/dx (x d/dy (x + y)) = 1, not 2 (Siskind and Pearlmutter, 2005)."""
    inner = lambda x: cr.grad(lambda y: x + y)(1.0)  # noqa: E731
    assert cr.grad(lambda x: x * inner(x))(3.0).item() == 1.0
    assert cr.jvp(lambda x: x * cr.jvp(lambda y: x + y, (1.0,), (1.0,))[1], (3.0,), (1.0,))[1] == 1
    # The same variable inside and outside: d/dx (x d/dy (x y) at y = x) = d/dx x^2.
    assert cr.grad(lambda x: x * cr.grad(lambda y: x * y)(x))(3.0).item() == 6.0
    # The inner function sees its own argument: d/dy (y^2) at y = x is 2 x; outside that is 2.
    assert cr.grad(lambda x: cr.grad(lambda y: y * y)(x))(5.0).item() == 2.0
    # Three deep, each by its own variable.
    deep = cr.grad(lambda x: x * cr.grad(lambda y: y * cr.grad(lambda z: x * y * z)(2.0))(3.0))
    assert deep(5.0).item() == 2 * 2 * 5.0 * 3.0


# --- what is outside ------------------------------------------------------------------------------


def test_results_are_recorded_for_tensors_from_outside() -> None:
    """A gradient that depends on a model's parameters leads back to them."""
    w = cr.asarray(np.array([1.3]), requires_grad=True)
    model = lambda x: cr.tanh(w[0] * x)  # noqa: E731
    t = math.tanh(1.3 * 0.7)
    slope = 1 - t * t
    for gradient in (
        cr.grad(model)(np.float64(0.7)),
        cr.jacobian(model)(np.float64(0.7)),
        cr.jvp(model, (np.float64(0.7),), (np.float64(1.0),))[1],
        cr.vjp(model, np.float64(0.7))[1](np.float64(1.0))[0],
    ):
        close(gradient.detach(), 1.3 * slope)
        w.grad = None
        gradient.backward()
        close(w.grad, [slope + 1.3 * (-2 * t * slope * 0.7)])
    value, _ = cr.value_and_grad(model)(np.float64(0.7))
    w.grad = None
    value.backward()
    close(w.grad, [slope * 0.7])


def test_aux_leads_outside_too() -> None:
    w = cr.asarray(2.0, requires_grad=True)
    _, aux = cr.grad(lambda x: (x * x, w * w), has_aux=True)(3.0)
    aux.backward()
    assert w.grad.item() == 4.0


def test_an_argument_that_needs_a_gradient_itself() -> None:
    x = cr.asarray(2.0, requires_grad=True)
    g = cr.grad(lambda t: t**3)(x)
    assert g.requires_grad
    g.backward()
    assert x.grad.item() == 12.0
    tangent = cr.asarray(1.0, requires_grad=True)
    _, pushed = cr.jvp(lambda t: t**3, (2.0,), (tangent,))
    pushed.backward()
    assert tangent.grad.item() == 12.0
    seed = cr.asarray(1.0, requires_grad=True)
    (pulled,) = cr.vjp(lambda t: t**3, 2.0)[1](seed)
    pulled.backward()
    assert seed.grad.item() == 12.0


def test_constants_outside_are_not_recorded() -> None:
    c = cr.asarray(3.0)
    assert not cr.grad(lambda x: c * x * x)(2.0).requires_grad
    w = cr.asarray(3.0, requires_grad=True)
    assert not cr.grad(lambda x: w.detach() * x)(2.0).requires_grad


def test_inside_no_grad() -> None:
    w = cr.asarray(3.0, requires_grad=True)
    with cr.no_grad():
        g = cr.grad(lambda x: w * x * x)(2.0)
        assert g.item() == 12.0
        assert not g.requires_grad
        assert not cr.grad(lambda x: x * x)(w).requires_grad
        assert cr.grad(cr.grad(lambda x: x**3))(2.0).item() == 12.0
        assert cr.hessian(f)(X).shape == (3, 3)
        assert not cr.is_grad_enabled()

    def stopped(x: Any) -> Any:
        with cr.no_grad():
            inner = cr.grad(lambda y: x * y * y)(2.0)  # a constant: 4 x
        return x * inner

    assert cr.grad(stopped)(5.0).item() == 20.0


def test_leaves_outside_are_untouched() -> None:
    w = cr.asarray(3.0, requires_grad=True)
    x = cr.asarray(2.0, requires_grad=True)
    cr.grad(lambda t: w * t * t)(x)
    assert w.grad is None
    assert x.grad is None
    assert x.is_leaf


def test_functions_may_assign_to_their_arguments() -> None:
    def assigns(x: Any) -> Any:
        x[0] = x[1] * x[2]
        x += 1.0
        return cr.prod(x)

    x = cr.asarray(X)
    close(cr.grad(assigns)(x), jax.grad(lambda x: jnp.prod(x.at[0].set(x[1] * x[2]) + 1))(X))
    assert x.tolist() == X.tolist()


# --- trees ----------------------------------------------------------------------------------------


class Pair(NamedTuple):
    first: Any
    second: Any


def network(p: Any, x: Any, m: Any = cr) -> Any:
    h = m.tanh(x @ p["layers"][0].first + p["layers"][0].second)
    return m.sum((h @ p["layers"][1].first + p["bias"]) ** 2)


def parameters(wrap: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    draw = lambda *shape: wrap(rng.standard_normal(shape))  # noqa: E731
    return {
        "layers": [Pair(draw(3, 4), draw(4)), Pair(draw(4, 2), None)],
        "bias": draw(2),
        "empty": (),
    }


def test_gradients_of_trees_are_trees() -> None:
    p = parameters(cr.asarray)
    batch = np.random.default_rng(1).standard_normal((5, 3))
    got = cr.grad(network)(p, cr.asarray(batch))
    expected = jax.grad(lambda p: network(p, batch, jnp))(parameters(jnp.asarray))
    assert list(got) == ["layers", "bias", "empty"]
    assert isinstance(got["layers"][0], Pair)
    assert got["layers"][1].second is None
    assert got["empty"] == ()
    for ours, theirs in zip(
        (*got["layers"][0], got["layers"][1].first, got["bias"]),
        (*expected["layers"][0], expected["layers"][1].first, expected["bias"]),
        strict=True,
    ):
        close(ours, theirs)


def test_trees_go_in_and_out_of_every_transform() -> None:
    tree = {"a": cr.asarray(X), "b": (cr.asarray(V),)}
    g = lambda t: {"sum": cr.sum(t["a"]), "product": [t["a"] * t["b"][0]]}  # noqa: E731
    value, pull = cr.vjp(g, tree)
    close(value["product"][0], X * V)
    (back,) = pull({"sum": np.float64(1.0), "product": [np.ones(3)]})
    close(back["a"], 1 + V)
    close(back["b"][0], X)
    _, pushed = cr.jvp(g, (tree,), ({"a": V, "b": (X,)},))
    close(pushed["sum"], V.sum())
    close(pushed["product"][0], V * V + X * X)
    blocks = cr.jacobian(g)(tree)
    close(blocks["sum"]["a"], np.ones(3))
    close(blocks["product"][0]["b"][0], np.diag(X))
    close(blocks["sum"]["b"][0], np.zeros(3))
    both = cr.hessian(lambda t: cr.sum(t["a"] ** 2 * t["b"][0]))(tree)
    close(both["a"]["b"][0], np.diag(2 * X))
    close(both["a"]["a"], np.diag(2 * V))
    with pytest.raises(ArgumentError, match=r"keys \['sum', 'product'\].*ndarray"):
        pull(np.ones(3))
    with pytest.raises(ArgumentError, match=r"keys \['a', 'b'\], got a dict with the keys \['a'\]"):
        cr.jvp(g, (tree,), ({"a": V},))
    with pytest.raises(ArgumentError, match="1 items, got list of 2"):
        cr.jvp(g, (tree,), ({"a": V, "b": [V, V]},))


def test_lists_of_numbers_are_arrays_and_lists_of_tensors_are_trees() -> None:
    assert cr.grad(lambda x: cr.sum(x**2))([1.0, 2.0]).tolist() == [2.0, 4.0]
    assert cr.grad(lambda x: cr.sum(x**2))([[1.0], [2.0]]).tolist() == [[2.0], [4.0]]
    got = cr.grad(lambda t: t[0] * t[1])([cr.asarray(2.0), cr.asarray(3.0)])
    assert isinstance(got, list)
    assert [g.item() for g in got] == [3.0, 2.0]
    got = cr.grad(lambda t: t[0] * t[1][0])((cr.asarray(2.0), [3.0]))
    assert got[1].tolist() == [2.0]


def test_kinds_of_dicts_are_kept() -> None:
    made: defaultdict[str, Any] = defaultdict(list, x=cr.asarray(2.0))
    got = cr.grad(lambda t: t["x"] ** 2)(made)
    assert isinstance(got, defaultdict)
    assert got.default_factory is list
    assert got["x"].item() == 4.0
    ordered = OrderedDict(b=cr.asarray(1.0), a=cr.asarray(2.0))
    assert list(cr.grad(lambda t: t["a"] * t["b"])(ordered)) == ["b", "a"]
    assert made["x"].item() == 2.0


def test_numbers_among_several_outputs_and_primals() -> None:
    (a, b), pull = cr.vjp(lambda x, y: (x * y, x + y), 2.0, 3.0)
    assert (a.item(), b.item()) == (6.0, 5.0)
    assert [g.item() for g in pull((10.0, 1.0))] == [31.0, 21.0]
    assert cr.jvp(lambda x, y: x * y, (2.0, 3.0), (1.0, 10.0))[1].item() == 23.0
    assert cr.jvp(cr.sum, ([2.0, 3.0],), ([1.0, 10.0],))[1].item() == 11.0


def test_integers_in_a_tree_are_refused() -> None:
    with pytest.raises(DTypeError, match="int64"):
        cr.grad(lambda t: t["w"] * 1.0)({"w": cr.asarray(1.0), "n": cr.asarray(3)})
