"""Losses against formulas written out in NumPy, and central differences, first and second."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

import chainrule as cr
from chainrule import nn
from chainrule.autograd import gradcheck, gradgradcheck
from chainrule.errors import ArgumentError, ShapeError
from chainrule.nn import functional as F


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape, seed=0):
    return np.asarray(rng(seed).standard_normal(shape))


def uniform(*shape, seed=0):
    return np.asarray(rng(seed).uniform(0.1, 0.9, shape))


def labels(*shape, classes=5, seed=0):
    return np.asarray(rng(seed).integers(0, classes, shape))


def signs(*shape, seed=0):
    return np.asarray(rng(seed).integers(0, 2, shape) * 2 - 1)


def log_softmax(x):
    return special.log_softmax(x, axis=1)


def cosine(x, y):
    return (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)


def distance(x, y, p=2.0):
    return np.linalg.norm(x - y + 1e-6, ord=p, axis=-1)


def huber(d, delta=1.0):
    return np.where(abs(d) <= delta, d * d / 2, delta * (abs(d) - delta / 2))


def hinge(x):
    return np.maximum(x, 0)


def multi_margin(x, y, p=1, margin=1.0):
    return np.array([
        sum(hinge(margin - row[t] + row[c]) ** p for c in range(len(row)) if c != t) / len(row)
        for row, t in zip(x, y, strict=True)
    ])  # fmt: skip


def multilabel_margin(x, y):
    losses = []
    for row, targets in zip(x, y.tolist(), strict=True):
        mine = targets[: targets.index(-1)] if -1 in targets else targets
        others = [c for c in range(len(row)) if c not in mine]
        losses.append(sum(hinge(1 - row[t] + row[c]) for t in mine for c in others) / len(row))
    return np.array(losses)


def bce(x, y):
    return -(y * np.log(x) + (1 - y) * np.log(1 - x))


def stirling(y):
    return np.where(y > 1, y * np.log(y) - y + np.log(2 * np.pi * y) / 2, 0)


X, Y = normal(3, 4), normal(3, 4, seed=1)
SCORES, LABELS, WEIGHT = normal(3, 5), labels(3), uniform(5, seed=3)
PICK = (np.arange(3), LABELS)
HOT = np.eye(5)[LABELS]
TEAM = np.array([[0, 2, -1, 1, 1], [3, 3, 1, -1, 0], [-1, 0, 0, 0, 0]])

# name, inputs (float arrays get gradients), keyword arguments, losses written out
TABLE = [
    ("l1_loss", (X, Y), {}, lambda x, y: abs(x - y)),
    ("mse_loss", (X, Y), {}, lambda x, y: (x - y) ** 2),
    ("half_squared_error_loss", (X, Y), {}, lambda x, y: (x - y) ** 2 / 2),
    ("huber_loss", (X, Y), {"delta": 0.7}, lambda x, y: huber(x - y, 0.7)),
    ("smooth_l1_loss", (X, Y), {"beta": 0.7}, lambda x, y: huber(x - y, 0.7) / 0.7),
    ("poisson_nll_loss", (X, uniform(3, 4)), {}, lambda x, y: np.exp(x) - y * x),
    (
        "poisson_nll_loss", (uniform(3, 4), 4 * uniform(3, 4)), {"log_input": False, "full": True},
        lambda x, y: x - y * np.log(x + 1e-8) + stirling(y),
    ),
    (
        "gaussian_nll_loss", (X, Y, uniform(3, 4)), {"full": True},
        lambda x, y, v: -stats.norm.logpdf(y, x, np.sqrt(v)),
    ),
    (
        "gaussian_nll_loss", (X, Y, uniform(3)), {},
        lambda x, y, v: (np.log(v[:, None]) + (x - y) ** 2 / v[:, None]) / 2,
    ),
    ("cross_entropy", (SCORES, LABELS), {}, lambda x, y: -log_softmax(x)[PICK]),
    ("cross_entropy", (SCORES, uniform(3, 5)), {}, lambda x, t: -(t * log_softmax(x)).sum(1)),
    (
        "cross_entropy", (SCORES, LABELS), {"label_smoothing": 0.3},
        lambda x, y: -((0.7 * HOT + 0.3 / 5) * log_softmax(x)).sum(1),
    ),
    (
        "cross_entropy", (SCORES, uniform(3, 5)), {"label_smoothing": 0.3},
        lambda x, t: -((0.7 * t + 0.3 / 5) * log_softmax(x)).sum(1),
    ),
    ("nll_loss", (-uniform(3, 5), LABELS), {}, lambda x, y: -x[PICK]),
    ("binary_cross_entropy", (uniform(3, 4), uniform(3, 4, seed=1)), {}, bce),
    (
        "binary_cross_entropy_with_logits", (X, uniform(3, 4, seed=1)), {},
        lambda x, y: bce(special.expit(x), y),
    ),
    ("kl_div", (X, uniform(3, 4)), {}, lambda x, t: t * (np.log(t) - x)),
    ("kl_div", (X, Y), {"log_target": True}, lambda x, t: np.exp(t) * (t - x)),
    ("hinge_loss", (X, signs(3, 4)), {}, lambda x, y: hinge(1 - x * y)),
    ("hinge_loss", (X, signs(3, 4)), {"margin": 0.3}, lambda x, y: hinge(0.3 - x * y)),
    ("soft_margin_loss", (X, signs(3, 4)), {}, lambda x, y: np.log1p(np.exp(-x * y))),
    (
        "hinge_embedding_loss", (X, signs(3, 4)), {"margin": 0.6},
        lambda x, y: np.where(y == 1, x, hinge(0.6 - x)),
    ),
    (
        "margin_ranking_loss", (X, Y, signs(3, 4)), {"margin": 0.2},
        lambda x, z, y: hinge(-y * (x - z) + 0.2),
    ),
    ("multi_margin_loss", (SCORES, LABELS), {}, multi_margin),
    (
        "multi_margin_loss", (SCORES, LABELS), {"p": 2, "margin": 0.6},
        lambda x, y: multi_margin(x, y, 2, 0.6),
    ),
    ("multilabel_margin_loss", (SCORES, TEAM), {}, multilabel_margin),
    (
        "multilabel_soft_margin_loss", (SCORES, uniform(3, 5)), {},
        lambda x, y: bce(special.expit(x), y).mean(1),
    ),
    (
        "cosine_embedding_loss", (X, Y, signs(3)), {"margin": -0.1},
        lambda x, z, y: np.where(y == 1, 1 - cosine(x, z), hinge(cosine(x, z) + 0.1)),
    ),
    (
        "triplet_margin_loss", (X, Y, normal(3, 4, seed=2)), {},
        lambda a, p, n: hinge(distance(a, p) - distance(a, n) + 1),
    ),
    (
        "triplet_margin_loss", (X, Y, normal(3, 4, seed=2)), {"p": 3.0, "swap": True},
        lambda a, p, n: hinge(
            distance(a, p, 3) - np.minimum(distance(a, n, 3), distance(p, n, 3)) + 1
        ),
    ),
    (
        "triplet_margin_with_distance_loss", (X, Y, normal(3, 4, seed=2)),
        {"distance_function": lambda x, y: abs(x - y).sum(-1), "margin": 2.0},
        lambda a, p, n: hinge(abs(a - p).sum(-1) - abs(a - n).sum(-1) + 2),
    ),
]  # fmt: skip
IDS = [f"{name}{sorted(options) or ''}" for name, _, options, _ in TABLE]


def each(function):
    marked = pytest.mark.parametrize("name,inputs,options,formula", TABLE, ids=IDS)
    return marked(function)


@each
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_values(name, inputs, options, formula, reduction):
    got = getattr(F, name)(*map(cr.asarray, inputs), reduction=reduction, **options)
    losses = formula(*inputs)
    expected = {"none": losses, "mean": losses.mean(), "sum": losses.sum()}[reduction]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-11)
    assert got.shape == np.shape(expected)


@each
def test_derivatives(name, inputs, options, formula):
    tensors = [cr.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]

    def f(*xs):
        return getattr(F, name)(*xs, reduction="none", **options)

    assert gradcheck(f, tensors, atol=1e-7, rtol=1e-6)
    assert gradgradcheck(f, tensors, atol=1e-6, rtol=1e-5)


@each
def test_float32_stays_float32(name, inputs, options, formula):
    single = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in inputs]
    got = getattr(F, name)(*map(cr.asarray, single), **options)
    assert got.dtype == cr.float32
    losses = formula(*inputs)
    expected = losses.sum() if name == "half_squared_error_loss" else losses.mean()
    np.testing.assert_allclose(float(got), expected, rtol=1e-5)


FAR = [
    ("cross_entropy", [[1e3, -1e3, 0.0], [-1e3, 1e3, 1e3]], [1, 0], [2e3, 2e3 + math.log(2)]),
    ("soft_margin_loss", [1e3, -1e3, 0.0], [-1, -1, 1], [1e3, 0.0, math.log(2)]),
    (
        "binary_cross_entropy_with_logits", [1e3, -1e3, 0.0], [0.0, 0.0, 1.0],
        [1e3, 0.0, math.log(2)],
    ),
    ("binary_cross_entropy", [0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0], [100, 100, 0, 0]),
    ("huber_loss", [1e3, -1e3, 0.0], [0.0, 0.0, 0.0], [999.5, 999.5, 0]),
    ("multilabel_soft_margin_loss", [1e3, -1e3], [0.0, 1.0], 1e3),
]  # fmt: skip


@pytest.mark.parametrize("name,x,y,expected", FAR, ids=[row[0] for row in FAR])
def test_extreme_scores_give_exact_losses_and_finite_gradients(name, x, y, expected):
    x = cr.asarray(x, dtype=cr.float64, requires_grad=True)
    losses = getattr(F, name)(x, cr.asarray(y), reduction="none")
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-12, atol=1e-300)
    (g,) = cr.autograd.grad(losses.sum(), x, create_graph=True)
    assert np.isfinite(g.detach().numpy()).all()
    if g.requires_grad:
        (gg,) = cr.autograd.grad(g.sum(), x)
        assert np.isfinite(gg.numpy()).all()


def slope(f, *values):
    """df/dx at the first of the values."""
    x, *others = (cr.asarray(v, dtype=cr.float64) for v in values)
    return cr.grad(lambda x: f(x, *others))(x).item()


def test_derivatives_at_the_corners_are_pytorchs():
    assert slope(F.l1_loss, 0.0, 0.0) == 0
    assert slope(F.hinge_loss, 1.0, 1.0) == 0
    assert slope(F.hinge_embedding_loss, 1.0, -1.0) == -1
    assert slope(F.margin_ranking_loss, 0.0, 0.0, 1.0) == -1
    for x, y, expected in (
        (0, 1, -1e12),
        (1, 0, 1e12),
        (0, 0, 0),
        (1, 1, 0),
        (1e-20, 0.5, -0.5e12),
    ):
        got = slope(F.binary_cross_entropy, float(x), float(y))
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_the_bound_on_a_variance_is_not_part_of_its_derivative():
    x = cr.asarray(0.5, dtype=cr.float64)
    got = slope(lambda v: F.gaussian_nll_loss(x, x * 0, v), 1e-9)
    np.testing.assert_allclose(got, (1 / 1e-6 - 0.25 / 1e-12) / 2, rtol=1e-9)
    assert float(F.gaussian_nll_loss(x, x, cr.zeros(()))) == pytest.approx(math.log(1e-6) / 2)


# --- cross entropy --------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float64, st.tuples(*[st.integers(1, 5)] * 2, st.integers(1, 3)),
        elements=st.floats(-50, 50),
    ),
    st.data(),
)  # fmt: skip
def test_cross_entropy_is_the_log_loss_of_the_softmax(x, data):
    n, classes, d = x.shape
    y = data.draw(hnp.arrays(np.int64, (n, d), elements=st.integers(0, classes - 1)))
    got = F.cross_entropy(cr.asarray(x), cr.asarray(y), reduction="none").numpy()
    p = special.log_softmax(x, 1)
    expected = -np.take_along_axis(p, y[:, None], 1)[:, 0]
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_with_weights_and_ignored_labels(smoothing):
    x, y = normal(6, 5), np.array([0, 4, -100, 2, 2, -100])
    kept = y >= 0
    targets = (1 - smoothing) * np.eye(5)[y[kept]] + smoothing / 5
    losses = np.zeros(6)
    losses[kept] = -(targets * WEIGHT * log_softmax(x[kept])).sum(1)
    options = {"weight": cr.asarray(WEIGHT), "label_smoothing": smoothing}
    got = F.cross_entropy(cr.asarray(x), cr.asarray(y), reduction="none", **options)
    np.testing.assert_allclose(got.numpy(), losses, rtol=1e-12)
    mean = F.cross_entropy(cr.asarray(x), cr.asarray(y), **options)
    np.testing.assert_allclose(float(mean), losses.sum() / WEIGHT[y[kept]].sum(), rtol=1e-12)


def test_ignored_labels_have_no_gradient_even_beside_impossible_classes():
    x = cr.tensor([[0.0, -math.inf, 1.0], [1.0, 2.0, 3.0]], requires_grad=True)
    F.cross_entropy(x, cr.asarray([-100, 1])).backward()
    assert np.isfinite(x.grad.numpy()[1]).all()
    x = cr.tensor(normal(2, 3), requires_grad=True)
    F.cross_entropy(x, cr.asarray([2, 0]), ignore_index=0).backward()
    assert x.grad.numpy()[1].tolist() == [0, 0, 0]


def test_the_gradient_of_cross_entropy_is_softmax_minus_one_hot():
    x = cr.tensor(SCORES, requires_grad=True)
    F.cross_entropy(x, cr.asarray(LABELS), reduction="sum").backward()
    np.testing.assert_allclose(x.grad.numpy(), special.softmax(SCORES, 1) - HOT, rtol=1e-12)


def test_labels_may_be_of_any_integer_dtype():
    expected = float(F.cross_entropy(cr.asarray(SCORES), cr.asarray(LABELS)))
    for dtype in ("uint8", "int8", "int32"):
        got = F.cross_entropy(cr.asarray(SCORES), cr.asarray(LABELS.astype(dtype)))
        assert float(got) == expected


def test_one_example_without_a_batch():
    x = normal(5)
    got = F.cross_entropy(cr.asarray(x), cr.asarray(3), reduction="none")
    assert got.shape == ()
    np.testing.assert_allclose(float(got), -special.log_softmax(x)[3])
    t = uniform(5)
    got = F.cross_entropy(cr.asarray(x), cr.asarray(t), reduction="none")
    np.testing.assert_allclose(float(got), -(t * special.log_softmax(x)).sum())


def test_linear_cross_entropy_is_both_steps_at_once():
    x, w, b = normal(3, 4), normal(5, 2, 4), normal(5, 2)
    y = labels(3, 2)
    scores = np.einsum("ni,cdi->ncd", x, w) + b
    expected = F.cross_entropy(cr.asarray(scores), cr.asarray(y))
    got = F.linear_cross_entropy(
        cr.asarray(x), cr.asarray(w), cr.asarray(y), linear_bias=cr.asarray(b)
    )
    np.testing.assert_allclose(float(got), float(expected), rtol=1e-12)
    for arguments in ((x[0], w), (x, w[0, 0])):
        with pytest.raises(ShapeError, match="linear_weight"):
            F.linear_cross_entropy(*map(cr.asarray, arguments), cr.asarray(y))
    with pytest.raises(ShapeError, match=r"linear_bias must have shape \(5, 2\)"):
        F.linear_cross_entropy(*map(cr.asarray, (x, w, y)), linear_bias=cr.ones((5,)))
    with pytest.raises(ArgumentError, match="options"):
        F.linear_cross_entropy(*map(cr.asarray, (x, w, y)), options=object())


# --- the others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1.0, 2.5])
def test_weights_of_binary_cross_entropy(c):
    x, y, w = normal(3, 4), uniform(3, 4), uniform(4, seed=2)
    p = special.expit(x)
    expected = -w * (c * y * np.log(p) + (1 - y) * np.log(1 - p))
    got = F.binary_cross_entropy_with_logits(
        cr.asarray(x),
        cr.asarray(y),
        cr.asarray(w),
        pos_weight=cr.asarray([c] * 4),
        reduction="none",
    )
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-11)
    got = F.binary_cross_entropy(cr.asarray(p), cr.asarray(y), cr.asarray(w), reduction="none")
    np.testing.assert_allclose(got.numpy(), w * bce(p, y), rtol=1e-11)


def test_kl_div_is_the_divergence_of_scipy():
    p, q = special.softmax(normal(3, 4), 1), special.softmax(normal(3, 4, seed=1), 1)
    p[0, 0], p[0, 1] = 0, p[0, 0] + p[0, 1]  # 0 ln 0 = 0
    got = F.kl_div(cr.asarray(np.log(q)), cr.asarray(p), reduction="batchmean")
    np.testing.assert_allclose(float(got), special.rel_entr(p, q).sum() / 3, rtol=1e-12)


def test_half_squared_error_in_its_forms():
    x, y = cr.asarray(X), cr.asarray(Y)
    total = ((X - Y) ** 2).sum() / 2
    np.testing.assert_allclose(float(nn.HalfSquaredErrorLoss()(x, y)), total)
    np.testing.assert_allclose(float(nn.HalfSquaredErrorLoss("batchmean")(x, y)), total / 3)
    np.testing.assert_allclose(float(nn.HalfSquaredErrorLoss("mean")(x, y)), total / 12)
    # The lecture's example: prediction 0.191, target 1, loss 0.327.
    assert round(float(F.half_squared_error_loss(cr.asarray(0.191), cr.asarray(1.0))), 3) == 0.327


def test_zero_one_loss():
    scores = cr.asarray([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert float(F.zero_one_loss(scores, cr.asarray([1, 1, 1]))) == pytest.approx(1 / 3)
    assert nn.ZeroOneLoss("none")(scores, cr.asarray([1, 1, 0])).tolist() == [0, 1, 1]
    assert F.zero_one_loss(cr.asarray([2, 1]), cr.asarray([2, 0]), "sum").item() == 1
    decisions = cr.asarray([0.0, -0.5, 2.0])
    assert F.zero_one_loss(decisions, cr.asarray([1, 1, -1]), "none").tolist() == [0, 1, 1]


def test_poisson_and_gaussian_are_likelihoods():
    y, rate = labels(50, classes=20) + 2.0, uniform(50) * 20
    got = F.poisson_nll_loss(
        cr.asarray(np.log(rate)), cr.asarray(y), full=True, reduction="none"
    ).numpy()
    # Stirling's formula is short of ln y! by about 1 / (12 y).
    np.testing.assert_allclose(got, -stats.poisson.logpmf(y, rate) - 1 / (12 * y), atol=4e-4)


def test_weighted_means_of_regression():
    w = uniform(3, 4, seed=5)
    tensors = cr.asarray(X), cr.asarray(Y)
    for name, losses in (("mse_loss", (X - Y) ** 2), ("l1_loss", abs(X - Y))):
        got = getattr(F, name)(*tensors, weight=cr.asarray(w))
        np.testing.assert_allclose(float(got), (w * losses).sum() / w.sum())
    got = F.huber_loss(*tensors, weight=cr.asarray(w))
    np.testing.assert_allclose(float(got), (w * huber(X - Y)).mean())


def test_multi_margin_with_weights_and_one_example():
    got = F.multi_margin_loss(
        cr.asarray(SCORES), cr.asarray(LABELS), weight=cr.asarray(WEIGHT), reduction="none"
    )
    np.testing.assert_allclose(got.numpy(), WEIGHT[LABELS] * multi_margin(SCORES, LABELS))
    got = F.multi_margin_loss(cr.asarray(SCORES[0]), cr.asarray(LABELS[0]), reduction="none")
    assert got.shape == ()
    np.testing.assert_allclose(float(got), multi_margin(SCORES[:1], LABELS[:1])[0])
    got = F.multilabel_margin_loss(cr.asarray(SCORES[0]), cr.asarray(TEAM[0]), reduction="none")
    assert got.shape == ()


def test_losses_of_nothing():
    assert math.isnan(float(F.mse_loss(cr.zeros((0, 2)), cr.zeros((0, 2)))))
    assert float(F.mse_loss(cr.zeros((0, 2)), cr.zeros((0, 2)), reduction="sum")) == 0
    empty = cr.zeros((0,), dtype=cr.int64)
    assert math.isnan(float(F.cross_entropy(cr.zeros((0, 3)), empty)))


LAYERS = [
    (nn.L1Loss(), "l1_loss"), (nn.MSELoss(), "mse_loss"), (nn.HuberLoss(delta=0.7), "huber_loss"),
    (nn.SmoothL1Loss(beta=0.7), "smooth_l1_loss"), (nn.PoissonNLLLoss(), "poisson_nll_loss"),
    (nn.GaussianNLLLoss(full=True), "gaussian_nll_loss"), (nn.NLLLoss(), "nll_loss"),
    (nn.CrossEntropyLoss(), "cross_entropy"), (nn.BCELoss(), "binary_cross_entropy"),
    (nn.BCEWithLogitsLoss(), "binary_cross_entropy_with_logits"), (nn.KLDivLoss(), "kl_div"),
    (nn.HingeLoss(), "hinge_loss"), (nn.SoftMarginLoss(), "soft_margin_loss"),
    (nn.HingeEmbeddingLoss(margin=0.6), "hinge_embedding_loss"),
    (nn.MarginRankingLoss(margin=0.2), "margin_ranking_loss"),
    (nn.MultiMarginLoss(), "multi_margin_loss"),
    (nn.MultiLabelMarginLoss(), "multilabel_margin_loss"),
    (nn.MultiLabelSoftMarginLoss(), "multilabel_soft_margin_loss"),
    (nn.CosineEmbeddingLoss(margin=-0.1), "cosine_embedding_loss"),
    (nn.TripletMarginLoss(), "triplet_margin_loss"),
]  # fmt: skip


@pytest.mark.parametrize("layer,name", LAYERS, ids=[name for _, name in LAYERS])
def test_layers_are_their_functions(layer, name):
    _, inputs, _, formula = next(row for row in TABLE if row[0] == name)
    got = layer(*map(cr.asarray, inputs))
    np.testing.assert_allclose(float(got), formula(*inputs).mean(), rtol=1e-11)
    assert repr(layer) == f"{type(layer).__name__}(reduction='mean')"
    assert not layer.state_dict()


def test_weights_of_layers_are_saved_with_the_model():
    layer = nn.BCEWithLogitsLoss(weight=WEIGHT[:4], pos_weight=cr.asarray(2 * WEIGHT[:4]))
    assert list(layer.state_dict()) == ["weight", "pos_weight"]
    got = layer(cr.asarray(X), cr.asarray(uniform(3, 4)))
    w, y, p = WEIGHT[:4], uniform(3, 4), special.expit(X)
    expected = -w * (2 * w * y * np.log(p) + (1 - y) * np.log(1 - p))
    np.testing.assert_allclose(float(got), expected.mean())
    assert not list(layer.parameters())
