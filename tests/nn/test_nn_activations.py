"""Activations against formulas in NumPy and SciPy, jax.nn, and central differences."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

import chainrule as cr
from chainrule import nn
from chainrule.autograd import gradcheck, gradgradcheck
from chainrule.errors import (
    ArgumentError,
    ChainruleWarning,
    GradError,
    ShapeError,
    UnknownNameError,
)
from chainrule.nn import functional as F

jax.config.update("jax_enable_x64", True)

ALPHA, SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def phi(x):
    return special.ndtr(x)


def softplus(x, beta=1, threshold=20):
    return np.where(beta * x > threshold, x, np.logaddexp(beta * x, 0) / beta)


# name, arguments, formula, where its corners are
TABLE = [
    ("sigmoid", {}, special.expit, ()),
    ("tanh", {}, lambda x: 2 * special.expit(2 * x) - 1, ()),
    ("logsigmoid", {}, special.log_expit, ()),
    ("softsign", {}, lambda x: x / (1 + np.abs(x)), ()),
    ("hardsigmoid", {}, lambda x: np.clip(x / 6 + 0.5, 0, 1), (-3, 3)),
    ("hardtanh", {}, lambda x: np.clip(x, -1, 1), (-1, 1)),
    ("hardtanh", {"min_val": -0.5, "max_val": 2}, lambda x: np.clip(x, -0.5, 2), (-0.5, 2)),
    ("relu", {}, lambda x: np.maximum(x, 0), (0,)),
    ("relu6", {}, lambda x: np.clip(x, 0, 6), (0, 6)),
    ("leaky_relu", {}, lambda x: np.maximum(0.01 * x, x), (0,)),
    ("leaky_relu", {"negative_slope": 0.3}, lambda x: np.maximum(0.3 * x, x), (0,)),
    ("rrelu", {"lower": 0.1, "upper": 0.5}, lambda x: np.maximum(0.3 * x, x), (0,)),
    ("threshold", {"threshold": 0.2, "value": 7}, lambda x: np.where(x > 0.2, x, 7), (0.2,)),
    ("softplus", {}, softplus, ()),
    ("softplus", {"beta": 3, "threshold": 5}, lambda x: softplus(x, 3, 5), (5 / 3,)),
    ("elu", {}, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), (0,)),
    ("elu", {"alpha": 2}, lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0))), (0,)),
    ("celu", {"alpha": 2}, lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0) / 2)), (0,)),
    ("selu", {}, lambda x: SCALE * np.where(x > 0, x, ALPHA * np.expm1(np.minimum(x, 0))), (0,)),
    ("gelu", {}, lambda x: x * phi(x), ()),
    (
        "gelu", {"approximate": "tanh"},
        lambda x: x * special.expit(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)), (),
    ),
    ("silu", {}, lambda x: x * special.expit(x), ()),
    ("hardswish", {}, lambda x: x * np.clip(x + 3, 0, 6) / 6, (-3, 3)),
    ("mish", {}, lambda x: x * np.tanh(np.logaddexp(x, 0)), ()),
    ("hardshrink", {}, lambda x: np.where(np.abs(x) > 0.5, x, 0), (-0.5, 0.5)),
    ("softshrink", {"lambd": 1}, lambda x: np.sign(x) * np.maximum(np.abs(x) - 1, 0), (-1, 1)),
    ("tanhshrink", {}, lambda x: x - np.tanh(x), ()),
    ("step", {}, lambda x: np.heaviside(x, 1.0), (0,)),
    ("sign", {}, lambda x: np.where(x < 0, -1.0, 1.0), (0,)),
]  # fmt: skip
IDS = [f"{name}{options or ''}" for name, options, _, _ in TABLE]
EXTREME = np.array([-1000.0, -100, -20.5, -1e-300, -0.0, 0.0, 1e-300, 20.5, 100, 1000])


def each(function):
    return pytest.mark.parametrize("name,options,formula,corners", TABLE, ids=IDS)(function)


@each
def test_values(name, options, formula, corners):
    x = np.concatenate([np.linspace(-8, 8, 201), EXTREME, np.array(corners, dtype=float)])
    z = getattr(F, name)(cr.asarray(x), **options)
    np.testing.assert_allclose(z.numpy(), formula(x), rtol=1e-13, atol=1e-15)
    single = getattr(F, name)(cr.asarray(x.astype(np.float32)), **options)
    assert single.dtype == cr.float32
    np.testing.assert_allclose(single.numpy(), formula(x.astype(np.float32)), rtol=3e-6, atol=2e-6)


@each
def test_derivatives(name, options, formula, corners):
    x = np.linspace(-7.9, 7.7, 12)
    assert all(np.abs(x - c).min() > 1e-3 for c in corners)
    x = cr.tensor(x, requires_grad=True)

    def f(x):
        return getattr(F, name)(x, **options)

    assert gradcheck(f, x, atol=1e-7, rtol=1e-6)
    assert gradgradcheck(f, x, atol=1e-7, rtol=1e-6)


@each
def test_derivatives_are_finite_everywhere(name, options, formula, corners):
    x = cr.tensor(np.concatenate([EXTREME, np.array(corners, dtype=float)]), requires_grad=True)
    (g,) = cr.autograd.grad(getattr(F, name)(x, **options).sum(), x, create_graph=True)
    assert np.isfinite(g.detach().numpy()).all()
    if g.requires_grad:
        (gg,) = cr.autograd.grad(g.sum(), x)
        assert np.isfinite(gg.numpy()).all()


CORNERS = [
    ("relu", {}, {0: 0}), ("relu6", {}, {0: 0, 6: 0}), ("hardtanh", {}, {-1: 0, 1: 0}),
    ("hardsigmoid", {}, {-3: 0, 3: 0}), ("hardswish", {}, {-3: 0, 0: 0.5, 3: 1}),
    ("leaky_relu", {"negative_slope": 0.3}, {0: 0.3}), ("elu", {"alpha": 2.0}, {0: 2}),
    ("celu", {"alpha": 2.0}, {0: 1}), ("selu", {}, {0: ALPHA * SCALE}),
    ("threshold", {"threshold": 1, "value": 0}, {1: 0}), ("hardshrink", {}, {0.5: 0, -0.5: 0}),
    ("softshrink", {}, {0.5: 0, -0.5: 0}), ("rrelu", {"lower": 0.1, "upper": 0.3}, {0: 0.2}),
    ("softsign", {}, {0: 1}), ("tanhshrink", {}, {0: 0}),
]  # fmt: skip


@pytest.mark.parametrize("name,options,slopes", CORNERS, ids=[row[0] for row in CORNERS])
def test_derivatives_at_the_corners_are_pytorchs(name, options, slopes):
    x = cr.tensor(np.array(list(slopes), dtype=float), requires_grad=True)
    getattr(F, name)(x, **options).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), list(slopes.values()), rtol=1e-14, atol=1e-15)


JAX = [
    ("relu", {}, jax.nn.relu), ("relu6", {}, jax.nn.relu6), ("sigmoid", {}, jax.nn.sigmoid),
    ("softplus", {"threshold": 1000}, jax.nn.softplus), ("silu", {}, jax.nn.silu),
    ("softsign", {}, jax.nn.soft_sign), ("logsigmoid", {}, jax.nn.log_sigmoid),
    ("leaky_relu", {}, jax.nn.leaky_relu), ("hardtanh", {}, jax.nn.hard_tanh),
    ("celu", {"alpha": 0.7}, lambda x: jax.nn.celu(x, 0.7)), ("selu", {}, jax.nn.selu),
    ("elu", {}, jax.nn.elu), ("mish", {}, jax.nn.mish), ("hardswish", {}, jax.nn.hard_swish),
    ("gelu", {}, lambda x: jax.nn.gelu(x, approximate=False)),
    ("gelu", {"approximate": "tanh"}, jax.nn.gelu), ("hardsigmoid", {}, jax.nn.hard_sigmoid),
]  # fmt: skip


@pytest.mark.parametrize("name,options,reference", JAX, ids=[f"{n}{o or ''}" for n, o, _ in JAX])
def test_two_derivatives_against_jax(name, options, reference):
    points = np.linspace(-5.3, 6.1, 23)
    theirs, ours = (lambda x: reference(x).sum()), (lambda x: getattr(F, name)(x, **options).sum())
    for _ in range(2):
        theirs, ours = (
            lambda x, f=theirs: jax.grad(f)(x).sum(),
            lambda x, f=ours: cr.grad(f)(x).sum(),
        )
        expected, got = theirs(points), ours(cr.asarray(points))
        np.testing.assert_allclose(float(got), float(expected), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax(name, dim):
    x = np.random.default_rng(0).standard_normal((3, 4, 2)) * 5
    formula = {
        "softmax": lambda x: special.softmax(x, dim),
        "log_softmax": lambda x: special.log_softmax(x, dim),
        "softmin": lambda x: special.softmax(-x, dim),
    }[name]
    np.testing.assert_allclose(getattr(F, name)(cr.asarray(x), dim).numpy(), formula(x), rtol=1e-13)
    far = x * 200
    np.testing.assert_allclose(
        getattr(F, name)(cr.asarray(far), dim).numpy(), formula(far), rtol=1e-12
    )
    x = cr.tensor(x[:2, :2], requires_grad=True)
    assert gradcheck(lambda x: getattr(F, name)(x, dim), x, atol=1e-7, rtol=1e-6)
    assert gradgradcheck(lambda x: getattr(F, name)(x, dim), x, atol=1e-7, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(-1e3, 1e3)),
    st.floats(-1e3, 1e3),
)
def test_softmax_sums_to_one_and_forgets_a_shift(x, shift):
    p = F.softmax(cr.asarray(x), -1).numpy()
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(
        F.softmax(cr.asarray(x + shift), -1).numpy(), p, rtol=1e-9, atol=1e-12
    )


def test_softmax_keeps_shape_and_precision():
    assert F.softmax(cr.asarray(3.0), 0).shape == ()
    assert float(F.log_softmax(cr.asarray(3.0), 0)) == 0
    assert F.softmax(cr.zeros((2, 0)), 1).shape == (2, 0)
    # The difference of two large float32 numbers would have no digits left.
    x = cr.asarray([4096.0, 4096.25], dtype=cr.float32)
    np.testing.assert_allclose(
        F.log_softmax(x, 0).numpy(), special.log_softmax([0, 0.25]).astype(np.float32), rtol=1e-6
    )


def test_softmax2d_is_a_softmax_at_every_pixel():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    z = nn.Softmax2d()(cr.asarray(x))
    np.testing.assert_allclose(z.numpy(), special.softmax(x, 1), rtol=1e-13)
    np.testing.assert_allclose(F.softmax2d(cr.asarray(x[0])).numpy(), special.softmax(x[0], 0))
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        F.softmax2d(cr.ones((2, 3)))


@pytest.mark.parametrize("shape,axis", [((), 0), ((3,), 0), ((2, 3), 1), ((2, 3, 4), 0)])
def test_softmax_without_dim_warns_once_and_takes_pytorchs(shape, axis, monkeypatch):
    monkeypatch.setattr("chainrule.nn.functional._checks._warned", set())
    x = np.random.default_rng(0).standard_normal(shape)
    with pytest.warns(ChainruleWarning, match=f"dim={axis}"):
        z = F.softmax(cr.asarray(x))
    np.testing.assert_allclose(z.numpy(), special.softmax(x, axis if shape else None))
    F.softmax(cr.asarray(x))  # in silence


# --- activations with parameters ------------------------------------------------------------------


@pytest.mark.parametrize("shape,slopes", [((5,), 1), ((4, 3), 3), ((2, 3, 2), 3)])
def test_prelu(shape, slopes):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape), rng.random(slopes)
    across = w if slopes == 1 else w.reshape(3, *(1,) * (len(shape) - 2))
    z = F.prelu(cr.asarray(x), cr.asarray(w))
    np.testing.assert_allclose(z.numpy(), np.where(x > 0, x, across * x))
    inputs = cr.tensor(x, requires_grad=True), cr.tensor(w, requires_grad=True)
    assert gradcheck(F.prelu, inputs)
    assert gradgradcheck(F.prelu, inputs)
    layer = nn.PReLU(slopes)
    assert layer.weight.tolist() == [0.25] * slopes
    with pytest.raises(ShapeError, match="7 slopes"):
        F.prelu(cr.ones((2, 3)), cr.ones((7,)))


def test_maxout_is_the_largest_of_its_pieces():
    # max{x1 - 0.5 x2 + 1, -2 x1 + x2 - 2}
    layer = nn.Maxout(2, 1, pieces=2).double()
    layer.load_state_dict({"weight": [[[1, -0.5]], [[-2, 1]]], "bias": [[1], [-2]]})
    x = np.random.default_rng(0).uniform(-4, 4, (50, 2))
    expected = np.maximum(x[:, 0] - 0.5 * x[:, 1] + 1, -2 * x[:, 0] + x[:, 1] - 2)
    np.testing.assert_allclose(layer(cr.asarray(x)).detach().numpy()[:, 0], expected, rtol=1e-13)
    assert nn.Maxout(4, 3, pieces=5, bias=False)(cr.ones((2, 6, 4))).shape == (2, 6, 3)


def test_maxout_derivatives_and_shapes():
    rng = np.random.default_rng(0)
    inputs = [
        cr.tensor(rng.standard_normal(s), requires_grad=True) for s in ((3, 4), (2, 5, 4), (2, 5))
    ]
    assert gradcheck(F.maxout, inputs)
    assert gradgradcheck(F.maxout, inputs)
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        F.maxout(cr.ones((2, 3)), cr.ones((2, 5, 4)))
    with pytest.raises(ArgumentError, match="piece"):
        nn.Maxout(2, 2, pieces=0)


def test_glu_gates_one_half_with_the_other():
    x = np.random.default_rng(0).standard_normal((4, 6))
    expected = x[:, :3] * special.expit(x[:, 3:])
    np.testing.assert_allclose(nn.GLU()(cr.asarray(x)).numpy(), expected)
    assert gradgradcheck(F.glu, cr.tensor(x[:2], requires_grad=True))
    with pytest.raises(ShapeError, match="even"):
        F.glu(cr.ones((2, 3)))


def test_rrelu_draws_slopes_in_training_only():
    x = -np.ones(20_000)
    layer = nn.RReLU(0.1, 0.5)
    cr.manual_seed(0)
    slopes = -layer(cr.asarray(x)).numpy()
    assert 0.1 <= slopes.min() < 0.101 and 0.499 < slopes.max() < 0.5
    np.testing.assert_allclose(slopes.mean(), 0.3, atol=3 * 0.4 / math.sqrt(12 * 20_000))
    x = cr.tensor(x, requires_grad=True)
    z = layer(x)
    z.backward(cr.ones(x.shape, dtype=cr.float64))
    np.testing.assert_allclose(x.grad.numpy(), -z.detach().numpy())
    assert set(layer.eval()(x.detach()).tolist()) == {-0.3}


def test_steps_have_no_slope_and_the_perceptrons_sign_is_plus_one_at_zero():
    x = cr.tensor([-2.0, -0.0, 0.0, 3.0], requires_grad=True)
    assert nn.Sign()(x).tolist() == [-1, 1, 1, 1]
    z = nn.Step()(x)
    assert z.tolist() == [0, 1, 1, 1]
    z.sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dim", [0, -1])
def test_gumbel_softmax(dim):
    cr.manual_seed(0)
    logits = np.log(np.broadcast_to([0.2, 0.5, 0.3], (20_000, 3)))
    logits = logits if dim == -1 else logits.T
    x = cr.tensor(logits, requires_grad=True)
    hard = F.gumbel_softmax(x, tau=0.5, hard=True, dim=dim)
    values = hard.detach().numpy()
    assert set(np.round(values, 12).reshape(-1)) == {0.0, 1.0}
    np.testing.assert_allclose(values.mean(axis=1 if dim == 0 else 0), [0.2, 0.5, 0.3], atol=0.015)
    hard.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    soft = F.gumbel_softmax(cr.zeros((1000, 4)), tau=2.0)
    np.testing.assert_allclose(soft.numpy().sum(1), 1, rtol=1e-5)


# --- layers, errors, inplace ----------------------------------------------------------------------


LAYERS = {
    nn.Sigmoid(): "sigmoid", nn.Tanh(): "tanh", nn.LogSigmoid(): "logsigmoid",
    nn.Softsign(): "softsign", nn.Hardsigmoid(): "hardsigmoid", nn.Hardtanh(): "hardtanh",
    nn.ReLU(): "relu", nn.ReLU6(): "relu6", nn.LeakyReLU(): "leaky_relu", nn.ELU(): "elu",
    nn.CELU(): "celu", nn.SELU(): "selu", nn.GELU(): "gelu", nn.SiLU(): "silu",
    nn.Hardswish(): "hardswish", nn.Mish(): "mish", nn.Hardshrink(): "hardshrink",
    nn.Softshrink(): "softshrink", nn.Tanhshrink(): "tanhshrink", nn.Softplus(): "softplus",
    nn.RReLU().eval(): "rrelu", nn.Step(): "step", nn.Sign(): "sign", nn.GLU(): "glu",
}  # fmt: skip


@pytest.mark.parametrize("layer,name", LAYERS.items(), ids=str)
def test_layers_are_their_functions(layer, name):
    x = cr.asarray(np.random.default_rng(0).standard_normal((3, 4)))
    assert layer(x).tolist() == getattr(F, name)(x).tolist()


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(True), nn.ELU(inplace=True), nn.Hardtanh(inplace=True), nn.SiLU(True)],
    ids=str,
)
def test_inplace_gives_the_result_to_the_input_too(layer):
    x = cr.asarray([-1.0, 2.0])
    leaf = cr.tensor([-1.0, 2.0], requires_grad=True)
    expected = type(layer)()(x).tolist()
    assert layer(x) is x and x.tolist() == expected
    y = leaf * 1
    layer(y).sum().backward()
    assert y.tolist() == expected and leaf.grad is not None
    with pytest.raises(GradError, match="no_grad"):
        layer(leaf)
    assert "inplace=True" in repr(layer)


def test_names_with_an_underscore_are_in_place():
    for name, arguments in (
        ("relu_", ()), ("elu_", (2.0,)), ("celu_", (2.0,)), ("selu_", ()), ("leaky_relu_", (0.3,)),
        ("hardtanh_", (-0.5, 0.5)), ("threshold_", (0.1, 9.0)), ("rrelu_", (0.1, 0.3)),
    ):  # fmt: skip
        x = cr.asarray([-1.0, 2.0])
        expected = getattr(F, name[:-1])(x, *arguments).tolist()
        assert getattr(F, name)(x, *arguments) is x and x.tolist() == expected


def test_numbers_lists_and_integers_are_taken():
    assert float(F.relu(-3.0)) == 0
    assert F.sigmoid([0]).tolist() == [0.5]
    assert F.relu(cr.asarray([-1, 2])).dtype == cr.int64
    assert F.elu(cr.asarray([1, 2])).dtype == cr.float32


def test_errors():
    with pytest.raises(UnknownNameError, match="'tanh'"):
        F.gelu(1.0, approximate="tan")
    with pytest.raises(ArgumentError, match="lambd"):
        F.softshrink(1.0, -1)
    with pytest.raises(ArgumentError, match="alpha"):
        F.celu(1.0, 0)
    with pytest.raises(ArgumentError, match="min_val"):
        nn.Hardtanh(1, -1)
    with pytest.raises(ArgumentError, match="lower"):
        F.rrelu(1.0, 0.5, 0.1)
