"""Embeddings, bags, one-hot vectors, distances and the adaptive softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special
from scipy.spatial import distance

import chainrule as cr
from chainrule import nn
from chainrule.autograd import gradcheck, gradgradcheck
from chainrule.errors import (
    ArgumentError,
    ChainruleError,
    DTypeError,
    GradError,
    IndexingError,
    ShapeError,
    UnknownNameError,
)
from chainrule.nn import functional as F


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


TABLE = normal(6, 3)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,), (2, 0)])
def test_embedding_takes_rows(shape):
    index = np.asarray(np.random.default_rng(0).integers(0, 6, shape))
    got = F.embedding(cr.asarray(index), cr.asarray(TABLE))
    np.testing.assert_array_equal(got.numpy(), TABLE[index])


def test_derivatives_of_an_embedding():
    index = cr.asarray([[0, 2, 2], [5, 0, 2]])
    w = cr.tensor(TABLE, requires_grad=True)
    assert gradcheck(lambda w: F.embedding(index, w) ** 2, w, atol=1e-6)
    assert gradgradcheck(lambda w: F.embedding(index, w) ** 2, w, atol=1e-6)
    F.embedding(index, w).sum().backward()
    assert w.grad.numpy()[:, 0].tolist() == [2, 0, 3, 0, 0, 1]


@pytest.mark.parametrize("padding_idx", [2, -4])
def test_the_padding_index_has_no_gradient(padding_idx):
    w = cr.tensor(TABLE, requires_grad=True)
    z = F.embedding(cr.asarray([0, 2, 2]), w, padding_idx=padding_idx)
    np.testing.assert_array_equal(z.detach().numpy(), TABLE[[0, 2, 2]])
    z.sum().backward()
    assert w.grad.numpy()[:, 0].tolist() == [1, 0, 0, 0, 0, 0]


def test_gradients_by_frequency():
    w = cr.tensor(TABLE, requires_grad=True)
    z = F.embedding(cr.asarray([[0, 2], [2, 2]]), w, scale_grad_by_freq=True)
    np.testing.assert_array_equal(z.detach().numpy(), TABLE[[[0, 2], [2, 2]]])
    z.sum().backward()
    np.testing.assert_allclose(w.grad.numpy()[:, 0], [1, 0, 1, 0, 0, 0])
    for mode, expected in (("sum", [1, 0, 1, 0, 0, 0]), ("mean", [0.5, 0, 0.5, 0, 0, 0])):
        w.grad = None
        bag = cr.asarray([[0, 2], [2, 2]])
        F.embedding_bag(bag, w, mode=mode, scale_grad_by_freq=True).sum().backward()
        np.testing.assert_allclose(w.grad.numpy()[:, 0], expected)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_long_rows_in_use_are_shortened_in_the_table(p):
    layer = nn.Embedding.from_pretrained(3 * TABLE, freeze=False, max_norm=1.0, norm_type=p)
    layer(cr.asarray([1, 1, 4]))
    norms = np.linalg.norm(layer.weight.detach().numpy(), ord=p, axis=1)
    used = np.array([False, True, False, False, True, False])
    assert (norms[used] <= 1).all() and (norms[used] > 1 - 1e-6).all()
    np.testing.assert_array_equal(layer.weight.detach().numpy()[~used], 3 * TABLE[~used])
    assert layer.weight.requires_grad
    with pytest.raises(GradError, match="leaf"):
        F.embedding(cr.asarray([0]), layer.weight * 1, max_norm=1.0)


def test_layers_begin_normal_with_a_zero_for_padding():
    cr.manual_seed(0)
    for made in (nn.Embedding, nn.EmbeddingBag):
        layer = made(500, 40, padding_idx=-1)
        assert layer.padding_idx == 499
        w = layer.weight.detach().numpy()
        assert not w[499].any()
        np.testing.assert_allclose([w[:499].mean(), w[:499].std()], [0, 1], atol=0.02)
        assert list(layer.state_dict()) == ["weight"]


def test_from_pretrained_freezes_unless_told_otherwise():
    for made in (nn.Embedding, nn.EmbeddingBag):
        assert not made.from_pretrained(TABLE).weight.requires_grad
        layer = made.from_pretrained(cr.asarray(TABLE), freeze=False, padding_idx=1)
        assert layer.weight.requires_grad and layer.padding_idx == 1
        assert layer.weight.tolist() == TABLE.tolist() and layer.weight.dtype == cr.float64
        with pytest.raises(ShapeError, match=r"\(3,\)"):
            made.from_pretrained(np.ones(3))


def test_indices_outside_the_table_are_named():
    layer = nn.Embedding(6, 3)
    for bad in (6, -1, 10**6):
        with pytest.raises(
            IndexingError, match=rf"index {bad} at position \(0, 1\).* 6 embeddings"
        ):
            layer(cr.asarray([[0, bad]]))
        with pytest.raises(IndexingError, match=f"index {bad} at position 1"):
            nn.EmbeddingBag(6, 3)(cr.asarray([0, bad]), cr.asarray([0]))
    with pytest.raises(DTypeError, match="float32"):
        layer(cr.asarray([0.0]))
    with pytest.raises(IndexingError, match="padding_idx 6"):
        F.embedding(cr.asarray([0]), cr.ones((6, 2)), padding_idx=6)
    with pytest.raises(ArgumentError, match="padding_idx"):
        nn.Embedding(6, 3, padding_idx=-7)
    with pytest.raises(ArgumentError, match="sparse"):
        F.embedding(cr.asarray([0]), cr.ones((6, 2)), sparse=True)
    with pytest.raises(ArgumentError, match="EmbeddingBag: sparse"):
        nn.EmbeddingBag(6, 3, sparse=True)
    with pytest.raises(ShapeError, match=r"\(6,\)"):
        F.embedding(cr.asarray([0]), cr.ones((6,)))


# --- bags -----------------------------------------------------------------------------------------

LINE, OFFSETS = np.array([1, 2, 4, 5, 4, 3, 2, 0]), [0, 3, 3, 5]


@pytest.mark.parametrize("padding_idx", [None, 4])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_against_a_loop(mode, padding_idx):
    layer = nn.EmbeddingBag.from_pretrained(TABLE, mode=mode, padding_idx=padding_idx)
    expected = []
    for bag in np.split(LINE, OFFSETS[1:]):
        rows = TABLE[[i for i in bag if i != padding_idx]]
        expected.append(getattr(rows, mode)(axis=0) if len(rows) else np.zeros(3))
    got = layer(cr.asarray(LINE), cr.asarray(OFFSETS))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-13)
    last = nn.EmbeddingBag.from_pretrained(
        TABLE, mode=mode, padding_idx=padding_idx, include_last_offset=True
    )
    got = last(cr.asarray(LINE), cr.asarray([*OFFSETS, 8]))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-13)
    rows = LINE.reshape(2, 4)
    got = layer(cr.asarray(rows)).numpy()
    halves = layer(cr.asarray(LINE), cr.asarray([0, 4])).numpy()
    np.testing.assert_array_equal(got, halves)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_derivatives_of_bags(mode):
    w = cr.tensor(TABLE, requires_grad=True)

    def f(w):
        return F.embedding_bag(cr.asarray(LINE), w, cr.asarray(OFFSETS), mode=mode) ** 2

    assert gradcheck(f, w, atol=1e-6)
    assert gradgradcheck(f, w, atol=1e-5)


def test_bags_with_weights():
    factors = normal(8, seed=1)
    inputs = cr.tensor(TABLE, requires_grad=True), cr.tensor(factors, requires_grad=True)

    def f(w, s):
        return F.embedding_bag(
            cr.asarray(LINE),
            w,
            cr.asarray(OFFSETS),
            mode="sum",
            per_sample_weights=s,
            padding_idx=2,
        )

    rows = TABLE[LINE] * factors[:, None] * (LINE != 2)[:, None]
    expected = [part.sum(0) for part in np.split(rows, OFFSETS[1:])]
    np.testing.assert_allclose(f(*inputs).detach().numpy(), expected, rtol=1e-13)
    assert gradcheck(f, inputs)
    assert gradgradcheck(f, inputs)


def test_errors_of_bags():
    index, w = cr.asarray([0, 1, 2]), cr.ones((6, 3))
    cases = [
        (UnknownNameError, "'mean'", {"offsets": [0], "mode": "means"}),
        (ShapeError, "without offsets", {}),
        (ArgumentError, "begin with 0", {"offsets": [1, 2]}),
        (ArgumentError, "rise", {"offsets": [0, 2, 1]}),
        (ArgumentError, "at most the 3", {"offsets": [0, 4]}),
        (ShapeError, "one axis", {"offsets": [[0]]}),
        (DTypeError, "offsets", {"offsets": [0.0]}),
        (ArgumentError, "mode='sum'", {"offsets": [0], "per_sample_weights": cr.ones((3,))}),
        (ArgumentError, "max", {"offsets": [0], "mode": "max", "scale_grad_by_freq": True}),
        (
            ShapeError, r"\(3,\), got \(2,\)",
            {"offsets": [0], "mode": "sum", "per_sample_weights": cr.ones((2,))},
        ),
    ]  # fmt: skip
    for kind, said, options in cases:
        if "offsets" in options:
            options["offsets"] = cr.asarray(options["offsets"])
        with pytest.raises(kind, match=said):
            F.embedding_bag(index, w, **options)
    with pytest.raises(ArgumentError, match="each row"):
        F.embedding_bag(cr.asarray([[0]]), w, cr.asarray([0]))


# --- one-hot --------------------------------------------------------------------------------------


def test_one_hot():
    labels = np.array([[0, 3], [2, 1]])
    got = F.one_hot(cr.asarray(labels))
    assert got.dtype == cr.int64
    np.testing.assert_array_equal(got.numpy(), np.eye(4, dtype=int)[labels])
    np.testing.assert_array_equal(F.one_hot(cr.asarray(labels), 6).numpy(), np.eye(6)[labels])
    assert F.one_hot(cr.asarray(2), 3).tolist() == [0, 0, 1]
    with pytest.raises(IndexingError, match=r"index 3 at position .* 3 classes"):
        F.one_hot(cr.asarray(labels), 3)
    with pytest.raises(DTypeError):
        F.one_hot(cr.asarray([1.0]))
    with pytest.raises(ChainruleError):
        F.one_hot(cr.asarray([-1, 2]))
    with pytest.raises(ArgumentError, match="num_classes"):
        F.one_hot(cr.zeros((0,), dtype=cr.int64))


# --- distances ------------------------------------------------------------------------------------

PS = [0.5, 1.0, 1.5, 2.0, 3.0, math.inf]


@pytest.mark.parametrize("p", PS)
def test_lengths_and_distances(p):
    x, y = normal(4, 3), normal(4, 3, seed=1)
    norm = abs(x).max(1) if p == math.inf else (abs(x) ** p).sum(1) ** (1 / p)
    np.testing.assert_allclose(F.normalize(cr.asarray(x), p).numpy(), x / norm[:, None], rtol=1e-12)
    name, options = ("minkowski", {"p": p}) if p < math.inf else ("chebyshev", {})
    expected = np.diag(distance.cdist(x + 1e-6, y, name, **options))
    got = nn.PairwiseDistance(p)(cr.asarray(x), cr.asarray(y))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(
        F.pdist(cr.asarray(x), p).numpy(), distance.pdist(x, name, **options), rtol=1e-12
    )
    pair = [cr.tensor(v, requires_grad=True) for v in (x, y)]
    for f in (lambda x, y: F.pairwise_distance(x, y, p), lambda x, y: F.normalize(x, p) * y):
        assert gradcheck(f, pair, atol=1e-6)
        assert gradgradcheck(f, pair, atol=1e-4)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cosine_similarity(dim):
    x, y = normal(4, 3), normal(4, 3, seed=1)
    expected = (x * y).sum(dim) / np.linalg.norm(x, axis=dim) / np.linalg.norm(y, axis=dim)
    got = nn.CosineSimilarity(dim)(cr.asarray(x), cr.asarray(y))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)
    pair = [cr.tensor(v, requires_grad=True) for v in (x, y)]
    assert gradcheck(lambda x, y: F.cosine_similarity(x, y, dim), pair)
    assert gradgradcheck(lambda x, y: F.cosine_similarity(x, y, dim), pair)


@pytest.mark.parametrize("p", PS)
def test_zero_vectors_have_finite_derivatives(p):
    x = cr.zeros((2, 3), dtype=cr.float64).clone().requires_grad_()
    for f in (lambda x: F.normalize(x, p), lambda x: F.pairwise_distance(x, x * 0, p, eps=0)):
        (g,) = cr.autograd.grad(f(x).sum(), x, create_graph=True)
        assert np.isfinite(g.detach().numpy()).all()
    assert F.pdist(cr.zeros((3, 2)), p).tolist() == [0, 0, 0]


def test_distances_count_and_keep_axes():
    x = cr.asarray([[1.0, 0, 3], [0, 0, 0]])
    assert F.pairwise_distance(x, cr.zeros((2, 3)), 0, eps=0).tolist() == [2, 0]
    assert F.pairwise_distance(x, x, keepdim=True).shape == (2, 1)
    assert F.pairwise_distance(x[0], x[1]).shape == ()
    with pytest.raises(ShapeError, match="matrix"):
        F.pdist(x[0])
    with pytest.raises(ArgumentError, match="p >= 0"):
        F.pdist(x, -1)


# --- adaptive softmax -----------------------------------------------------------------------------


def test_adaptive_softmax_is_a_distribution_and_its_own_log_loss():
    cr.manual_seed(0)
    layer = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], div_value=2.0).double()
    x, y = cr.asarray(normal(7, 8)), np.array([0, 19, 4, 9, 10, 3, 12])
    log_p = layer.log_prob(x)
    np.testing.assert_allclose(np.exp(log_p.detach().numpy()).sum(1), 1, rtol=1e-12)
    output, loss = layer(x, cr.asarray(y))
    np.testing.assert_allclose(
        output.detach().numpy(), log_p.detach().numpy()[np.arange(7), y], rtol=1e-12
    )
    np.testing.assert_allclose(float(loss), -output.detach().numpy().mean())
    assert layer.predict(x).tolist() == log_p.detach().numpy().argmax(1).tolist()
    single = layer(x[0], cr.asarray(0))
    assert single.output.shape == () and float(single.output) == pytest.approx(float(output[0]))


def test_adaptive_softmax_by_hand_and_its_derivatives():
    layer = nn.AdaptiveLogSoftmaxWithLoss(4, 6, [2], div_value=2.0, head_bias=True).double()
    x, y = normal(3, 4), np.array([1, 5, 0])
    state = {k: v.numpy() for k, v in layer.state_dict().items()}
    head = special.log_softmax(x @ state["head.weight"].T + state["head.bias"], 1)
    inner = special.log_softmax(x @ state["tail.0.0.weight"].T @ state["tail.0.1.weight"].T, 1)
    expected = [head[0, 1], head[1, 2] + inner[1, 3], head[2, 0]]
    x = cr.tensor(x, requires_grad=True)
    np.testing.assert_allclose(
        layer(x, cr.asarray(y)).output.detach().numpy(), expected, rtol=1e-12
    )
    assert gradcheck(lambda x: layer(x, cr.asarray(y)).output, x)
    assert gradgradcheck(lambda x: layer(x, cr.asarray(y)).output, x)
    with pytest.raises(IndexingError, match="label 6 at position 0"):
        layer(x, cr.asarray([6, 0, 0]))
    with pytest.raises(ShapeError, match=r"\(3, 4\) and \(2,\)"):
        layer(x, cr.asarray([0, 0]))
