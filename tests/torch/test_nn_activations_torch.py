"""Activations, softmax, padding, distances and embeddings against PyTorch, in float64."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch.nn")
import torch
from nn_agreement import agree, rng, same

import chainrule as cr
from chainrule import nn
from chainrule.nn import functional as F

T = torch.nn.functional

ELEMENTWISE = [
    ("relu", {}),
    ("relu6", {}),
    ("elu", {}),
    ("elu", {"alpha": 0.7}),
    ("selu", {}),
    ("celu", {}),
    ("celu", {"alpha": 1.7}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("rrelu", {"lower": 0.1, "upper": 0.4}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("logsigmoid", {}),
    ("hardshrink", {}),
    ("hardshrink", {"lambd": 1.0}),
    ("softshrink", {}),
    ("softshrink", {"lambd": 1.0}),
    ("tanhshrink", {}),
    ("softsign", {}),
    ("softplus", {}),
    ("softplus", {"beta": 2.0, "threshold": 3.0}),
    ("tanh", {}),
    ("sigmoid", {}),
    ("hardsigmoid", {}),
    ("silu", {}),
    ("mish", {}),
    ("hardswish", {}),
    ("hardtanh", {}),
    ("hardtanh", {"min_val": -0.5, "max_val": 2.0}),
    ("threshold", {"threshold": 0.1, "value": 20.0}),
]
# PyTorch computes in float64 here, but with the constants 1/6 and 1/alpha rounded to float32.
ROUNDED = {"hardsigmoid": 1e-7, "celu": 1e-6}
CORNERS = np.array([-6, -3, -1, -0.5, -0.0, 0, 0.1, 0.5, 1, 1.5, 2, 3, 6, 20.0, -20])


def check(name, options, x, **kwargs):
    if name in ROUNDED:
        kwargs.update(rtol=ROUNDED[name], atol=1e-12)
    if name == "hardsigmoid":
        kwargs["second"] = False  # PyTorch has none
    ours, theirs = getattr(F, name), getattr(T, name)
    agree(lambda x: ours(x, **options), lambda x: theirs(x, **options), x, **kwargs)


@pytest.mark.parametrize("name,options", ELEMENTWISE, ids=str)
def test_elementwise_values_and_derivatives(name, options):
    check(name, options, rng().standard_normal((4, 5)) * 2)


@pytest.mark.parametrize("name,options", ELEMENTWISE, ids=str)
def test_elementwise_derivatives_at_the_corners(name, options):
    check(name, options, CORNERS.copy(), second=False)


@pytest.mark.parametrize("name,options", ELEMENTWISE, ids=str)
def test_elementwise_far_out(name, options):
    check(name, options, np.array([-1e3, 1e3, -750.0, 750.0, -40.0, 40.0]), second=False)


@pytest.mark.parametrize("name,options", ELEMENTWISE, ids=str)
def test_not_a_number_goes_through(name, options):
    x = np.array([np.nan])
    ours, theirs = (
        getattr(F, name)(cr.asarray(x), **options),
        getattr(T, name)(torch.tensor(x), **options),
    )
    assert np.isnan(ours.numpy()) == np.isnan(theirs.numpy())


@pytest.mark.parametrize("shape,slopes", [((3,), 1), ((2, 3), 1), ((2, 3), 3), ((2, 3, 4, 5), 3)])
def test_prelu(shape, slopes):
    agree(F.prelu, T.prelu, rng().standard_normal(shape), rng(1).random(slopes))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_softmax(name, dim):
    x = rng().standard_normal((3, 4, 5)) * 3
    agree(lambda x: getattr(F, name)(x, dim), lambda x: getattr(T, name)(x, dim), x)
    x[0, 0] = 1e3
    x[1, 1] = -1e3
    agree(lambda x: getattr(F, name)(x, dim), lambda x: getattr(T, name)(x, dim), x)


def test_softmax_of_impossible_scores_and_in_another_dtype():
    x = np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 2.0]])
    agree(lambda x: F.softmax(x, 1), lambda x: T.softmax(x, 1), x, second=False)
    x = rng().standard_normal((2, 3)).astype(np.float32)
    mine = F.softmax(cr.asarray(x), 1, dtype=cr.float64)
    same(mine, T.softmax(torch.from_numpy(x), 1, dtype=torch.float64))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_glu(dim):
    agree(lambda x: F.glu(x, dim), lambda x: T.glu(x, dim), rng().standard_normal((4, 6)))


LAYERS = [
    ("Threshold", (0.1, 20.0)), ("ReLU", ()), ("Hardtanh", (-2.0, 0.5)), ("ReLU6", ()),
    ("Sigmoid", ()), ("Tanh", ()), ("Softmax", (1,)), ("LogSoftmax", (1,)), ("ELU", (0.5,)),
    ("SELU", ()), ("CELU", (0.5,)), ("GELU", ()), ("Hardshrink", (0.3,)), ("LeakyReLU", (0.2,)),
    ("LogSigmoid", ()), ("Softplus", (2.0, 4.0)), ("Softshrink", (0.3,)), ("PReLU", ()),
    ("PReLU", (4, 0.1)), ("Softsign", ()), ("Softmin", (1,)), ("Tanhshrink", ()), ("GLU", (1,)),
    ("Hardsigmoid", ()), ("Hardswish", ()), ("SiLU", ()), ("Mish", ()), ("Softmax2d", ()),
]  # fmt: skip


@pytest.mark.parametrize("name,options", LAYERS, ids=str)
def test_layers_and_their_text(name, options):
    ours, theirs = getattr(nn, name)(*options).double(), getattr(torch.nn, name)(*options).double()
    x = rng().standard_normal((2, 4, 3, 2) if name == "Softmax2d" else (3, 4))
    same(ours(cr.asarray(x)), theirs(torch.from_numpy(x)))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())


# --- padding --------------------------------------------------------------------------------------

PADS = [
    ((2, 5), (4, 3)),
    ((2, 3, 5), (1, 2)),
    ((2, 3, 5), (-1, 2)),
    ((2, 3, 5), (2, -2)),
    ((2, 4, 5), (1, 2, 3, 0)),
    ((1, 2, 4, 5), (4, 2, 3, 3)),
    ((1, 2, 4, 5), (-1, 2, 3, -1)),
    ((1, 2, 3, 4, 3), (1, 2, 2, 1, 0, 2)),
]


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("shape,widths", PADS, ids=str)
def test_pad(shape, widths, mode):
    x = rng().standard_normal(shape)
    agree(lambda x: F.pad(x, widths, mode), lambda x: T.pad(x, widths, mode), x)


def test_pad_with_a_value_and_all_axes():
    for shape, widths in (((5,), (2, 1)), ((2, 3), (1, 0, 2, 1)), ((2, 3, 2), (1, 0, 2, 1, -1, 2))):
        agree(
            lambda x, widths=widths: F.pad(x, widths, value=3.5),
            lambda x, widths=widths: T.pad(x, widths, value=3.5),
            rng().standard_normal(shape),
        )


PAD_LAYERS = [
    (f"{kind}Pad{n}d", n, (0.5,) if kind == "Constant" else ())
    for kind in ("Constant", "Zero", "Reflection", "Replication", "Circular")
    for n in (1, 2, 3)
]


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("name,n,value", PAD_LAYERS, ids=str)
def test_padding_layers(name, n, value, batch):
    x = rng().standard_normal((*batch, 2, *(4, 3, 5)[:n]))
    for widths in (1, (2, 1, 0, 1, 2, 2)[: 2 * n]):
        ours, theirs = getattr(nn, name)(widths, *value), getattr(torch.nn, name)(widths, *value)
        agree(ours, theirs, x)
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("shape", [(2, 6, 4), (1, 6, 2, 3)])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_channel_shuffle(shape, groups):
    if len(shape) == 3 and groups == 1:
        shape = (2, 6, 4, 1)
    agree(nn.ChannelShuffle(groups), torch.nn.ChannelShuffle(groups), rng().standard_normal(shape))


# --- distances ------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, np.inf])
def test_normalize_and_pairwise_distance(p):
    x, y = rng().standard_normal((4, 5)), rng(1).standard_normal((4, 5))
    agree(lambda x: F.normalize(x, p), lambda x: T.normalize(x, p), x)
    agree(lambda x: F.normalize(x, p, dim=0), lambda x: T.normalize(x, p, dim=0), x)
    for keep in (False, True):
        agree(
            nn.PairwiseDistance(p, keepdim=keep), torch.nn.PairwiseDistance(p, keepdim=keep), x, y
        )
    agree(lambda x: F.pdist(x, p), lambda x: T.pdist(x, p), x, second=False)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cosine_similarity(dim):
    x, y = rng().standard_normal((4, 5, 3)), rng(1).standard_normal((5, 3))
    agree(nn.CosineSimilarity(dim), torch.nn.CosineSimilarity(dim), x, y)


def test_lengths_of_zero_vectors():
    x, y = np.zeros((2, 3)), rng().standard_normal((2, 3))
    x[1] = 1e-9
    agree(F.normalize, T.normalize, x[:1], second=False)
    agree(F.cosine_similarity, T.cosine_similarity, x[:1], y[:1], second=False)
    same(
        F.cosine_similarity(cr.asarray(x), cr.asarray(y)),
        T.cosine_similarity(*map(torch.tensor, (x, y))),
    )


@pytest.mark.parametrize("classes", [-1, 7])
def test_one_hot(classes):
    labels = rng().integers(0, 5, (2, 3))
    mine, other = F.one_hot(cr.asarray(labels), classes), T.one_hot(torch.tensor(labels), classes)
    same(mine, other)
    assert mine.dtype == cr.int64


# --- embeddings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (0,)])
@pytest.mark.parametrize(
    "options", [{}, {"padding_idx": 2}, {"padding_idx": -1}, {"scale_grad_by_freq": True}], ids=str
)
def test_embedding(options, shape):
    index = np.asarray(rng().integers(0, 5, shape))
    agree(
        lambda w: F.embedding(cr.asarray(index), w, **options),
        lambda w: T.embedding(torch.from_numpy(index), w, **options),
        rng(1).standard_normal((5, 3)),
        second=False,
    )


@pytest.mark.parametrize("norm_type", [1.0, 2.0, np.inf])
def test_embedding_shortens_long_rows_in_the_table(norm_type):
    index, table = np.array([0, 2, 2, 4]), rng(1).standard_normal((5, 3)) * 2
    options = {"max_norm": 1.5, "norm_type": norm_type}
    ours, theirs = cr.tensor(table), torch.tensor(table)
    same(
        F.embedding(cr.asarray(index), ours, **options),
        T.embedding(torch.tensor(index), theirs, **options),
    )
    same(ours, theirs)


BAGS = [
    {"mode": "sum"},
    {"mode": "mean"},
    {"mode": "max"},
    {"mode": "sum", "padding_idx": 1},
    {"mode": "mean", "padding_idx": 1},
    {"mode": "max", "padding_idx": 1},
]  # scale_grad_by_freq is left out: PyTorch divides by another index's frequency here


@pytest.mark.parametrize("offsets", [None, [0, 3, 3, 5], [0], [0, 12]], ids=str)
@pytest.mark.parametrize("options", BAGS, ids=str)
def test_embedding_bag(options, offsets):
    index = rng().integers(0, 5, (3, 4) if offsets is None else 12)
    table = rng(1).standard_normal((5, 3))
    table[3] = table[0]  # ties for max

    def ours(w):
        where = None if offsets is None else cr.asarray(offsets)
        return F.embedding_bag(cr.asarray(index), w, where, **options)

    def theirs(w):
        where = None if offsets is None else torch.tensor(offsets)
        return T.embedding_bag(torch.from_numpy(index), w, where, **options)

    agree(ours, theirs, table, second=False)


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("last", [False, True])
def test_embedding_bag_with_weights_and_a_last_offset(last, padding_idx):
    index, offsets = rng().integers(0, 5, 8), [0, 2, 2, 8] if last else [0, 2, 5]
    options = {"mode": "sum", "include_last_offset": last, "padding_idx": padding_idx}
    agree(
        lambda w, s: F.embedding_bag(
            cr.asarray(index), w, cr.asarray(offsets), per_sample_weights=s, **options
        ),
        lambda w, s: T.embedding_bag(
            torch.from_numpy(index), w, torch.tensor(offsets), per_sample_weights=s, **options
        ),
        rng(1).standard_normal((5, 3)),
        rng(2).standard_normal(8),
        second=False,
    )


def test_embedding_layers():
    table = rng().standard_normal((6, 3))
    for ours, theirs in (
        (nn.Embedding, torch.nn.Embedding),
        (nn.EmbeddingBag, torch.nn.EmbeddingBag),
    ):
        mine, other = ours(6, 3, padding_idx=-2), theirs(6, 3, padding_idx=-2)
        assert repr(mine) == repr(other)
        assert list(mine.state_dict()) == list(other.state_dict())
        mine.load_state_dict({"weight": table})
        other.load_state_dict({"weight": torch.from_numpy(table)})
        index = np.array([[0, 4], [4, 5]])
        same(mine(cr.asarray(index)), other(torch.from_numpy(index)), rtol=1e-6)
        frozen, theirs_frozen = (
            ours.from_pretrained(table),
            theirs.from_pretrained(torch.tensor(table)),
        )
        assert frozen.weight.requires_grad == theirs_frozen.weight.requires_grad
        assert repr(frozen) == repr(theirs_frozen)
