"""Functions with a derivative by hand inside the bodies of loops and branches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import TraceError


class Product(cr.autograd.Function):
    """Saves an input, an output, nothing, and something between; one output is a constant."""

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any, k: float) -> Any:
        z, between, sign = x * y * k, cr.exp(x), cr.sign(x)
        ctx.k = k
        ctx.save_for_backward(x, between, None, z)
        ctx.mark_non_differentiable(sign)
        return z, between * 2, sign

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any, nothing: Any) -> Any:
        x, between, none, z = ctx.saved_tensors
        assert none is None
        assert float(cr.sum(nothing)) == 0 if type(nothing._array) is np.ndarray else True
        return 3 * g * z / x + h * between, g * x * ctx.k, None  # not the true ones


class Straight(cr.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return cr.round(x)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2


def one_step(h: Any, x: Any, w: Any) -> tuple[Any, Any]:
    z, e, sign = Product.apply(h, w + x, 2.0)
    h = Straight.apply(cr.tanh(z) * 3 + e * 0.1) * sign + z * 0.1
    return h, z * x


def by_scan(w: Any, xs: Any) -> Any:
    return cr.scan(lambda h, x: one_step(h, x, w), w, xs)


def by_loop(w: Any, xs: Any) -> Any:
    h, ys = w, []
    for i in range(xs.shape[0]):
        h, y = one_step(h, xs[i], w)
        ys.append(y)
    return h, cr.stack(ys)


def by_cond(w: Any, xs: Any) -> Any:
    return cr.cond(
        cr.sum(xs) > 0,
        lambda w, xs: one_step(w, xs[0], w), lambda w, xs: one_step(w * xs[1], xs[1], w), w, xs,
    )  # fmt: skip


def by_choice(w: Any, xs: Any) -> Any:
    if float(cr.sum(xs)) > 0:
        return one_step(w, xs[0], w)
    return one_step(w * xs[1], xs[1], w)


def inputs(sign: float) -> list[Any]:
    rng = np.random.default_rng(0)
    xs = np.abs(rng.standard_normal((4, 3)))
    return [cr.asarray(rng.standard_normal(3)), cr.asarray(sign * xs)]


def first(function: Any) -> Any:
    def total(w: Any, xs: Any) -> Any:
        return sum(cr.sum(cr.cos(z)) for z in function(w, xs))

    return cr.value_and_grad(total, (0, 1))


def second(function: Any) -> Any:
    def total(w: Any, xs: Any) -> Any:
        return sum(cr.sum(g * g) for g in first(function)(w, xs)[1])

    return cr.grad(total, (0, 1))


def leaves(tree: Any) -> list[Any]:
    return [z.detach().numpy() for z in cr.autograd.tree.flatten(tree)[0]]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("order", [lambda f: f, first, second], ids=["value", "first", "second"])
@pytest.mark.parametrize(
    "control", [(by_scan, by_loop), (by_cond, by_choice)], ids=["scan", "cond"]
)
@pytest.mark.parametrize("backend", ["eager", "numpy", "native"])
def test_their_backward_is_used(control: Any, order: Any, sign: float, backend: str) -> None:
    structured, plain = map(order, control)
    if backend != "eager":
        structured = cr.compile(structured, backend=backend)
    got, expected = leaves(structured(*inputs(sign))), leaves(plain(*inputs(sign)))
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    if backend == "native":
        kernels = structured.versions[0].launch.program.plan.schedule.kernels
        assert all(kernel.family != "host" for kernel in kernels)


def test_in_a_while_loop() -> None:
    def doubled(w: Any) -> Any:
        return cr.while_loop(
            lambda c: c[0] < 3, lambda c: (c[0] + 1, Product.apply(c[1], c[1], 0.5)[0]), (0, w)
        )[1]

    w = inputs(1.0)[0]
    expected = ((0.5 * w**2) ** 2 * 0.5) ** 2 * 0.5
    np.testing.assert_allclose(doubled(w), expected, rtol=1e-12)
    np.testing.assert_allclose(cr.compile(doubled)(w), expected, rtol=1e-12)


class Kept(cr.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.x = x
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2 * ctx.x


@pytest.mark.parametrize("compiled", [False, True])
def test_a_tensor_kept_as_an_attribute_is_refused(compiled: bool) -> None:
    def total(w: Any, xs: Any) -> Any:
        return cr.scan(lambda h, x: (Kept.apply(h) + x, None), w, xs)[0].sum()

    gradient = cr.compile(cr.grad(total)) if compiled else cr.grad(total)
    with pytest.raises(TraceError, match="save_for_backward"):
        gradient(*inputs(1.0))


def test_a_tensor_from_another_body_is_refused() -> None:
    kept: list[Any] = []
    w, xs = inputs(1.0)
    cr.scan(lambda h, x: (kept.append(h) or h + x, h), w, xs)
    with pytest.raises(TraceError, match="body of another"):
        cr.scan(lambda h, x: (h + kept[0], h), w, xs)
