"""What losses refuse, what they warn of, and what they say."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import (
    ArgumentError,
    ChainruleError,
    ChainruleWarning,
    DTypeError,
    IndexingError,
    ShapeError,
    UnknownNameError,
)
from chainrule.nn import functional as F

PAIRS = [
    "l1_loss", "mse_loss", "half_squared_error_loss", "huber_loss", "smooth_l1_loss",
    "poisson_nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div",
    "hinge_loss", "soft_margin_loss", "hinge_embedding_loss", "multilabel_soft_margin_loss",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_warned_of_yet(monkeypatch):
    monkeypatch.setattr("chainrule.nn.functional._checks._warned", set())


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shapes", [((4,), (4, 1)), ((4, 1), (4,)), ((4,), ()), ((2, 3), (3,))])
def test_silent_broadcasting_is_refused_and_both_shapes_named(name, shapes):
    x, y = cr.ones(shapes[0]) * 0.5, cr.ones(shapes[1])
    with pytest.raises(ShapeError) as caught:
        getattr(F, name)(x, y)
    message = str(caught.value)
    assert name in message and all(str(s) in message for s in shapes)
    if x.size == y.size:
        assert f"reshape({shapes[0]})" in message
    assert isinstance(caught.value, ValueError)


def test_other_losses_refuse_broadcasting_too():
    a, b = cr.ones((4, 3)), cr.ones((1, 3))
    for call in (
        lambda: F.gaussian_nll_loss(a, b, a),
        lambda: F.gaussian_nll_loss(a, a, cr.ones((1, 1))),
        lambda: F.gaussian_nll_loss(a, a, cr.ones((2, 3))),
        lambda: F.margin_ranking_loss(a, a, b),
        lambda: F.cosine_embedding_loss(a, b, cr.ones((4,))),
        lambda: F.cosine_embedding_loss(a, a, cr.ones((4, 1))),
        lambda: F.triplet_margin_loss(a, a, b),
        lambda: F.mse_loss(a, a, weight=b),
        lambda: F.huber_loss(a, a, weight=b),
        lambda: F.binary_cross_entropy(a, a, weight=cr.ones((2, 4, 3))),
        lambda: F.multi_margin_loss(a, cr.asarray([0, 1])),
        lambda: F.multilabel_margin_loss(a, cr.asarray([0, 1])),
        lambda: F.multilabel_soft_margin_loss(a, a, weight=cr.ones((4, 1))),
    ):
        with pytest.raises(ShapeError):
            call()


def test_a_loss_in_a_model_names_its_layer():
    with pytest.raises(ShapeError, match="in layer MSELoss: mse_loss"):
        nn.MSELoss()(cr.ones((3,)), cr.ones((3, 1)))


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "multi_margin_loss"])
@pytest.mark.parametrize("label", [10, -1, 300])
def test_a_label_out_of_range_is_named_with_its_place(name, label):
    labels = np.array([0, 9, label, 3])
    with pytest.raises(IndexingError, match=rf"label {label} at position 2 .* 10 classes 0 to 9"):
        getattr(F, name)(-cr.ones((4, 10)), cr.asarray(labels))
    grid = np.zeros((2, 3), dtype=np.int64)
    grid[1, 2] = label
    with pytest.raises(IndexingError, match=r"position \(1, 2\)"):
        F.cross_entropy(cr.ones((2, 10, 3)), cr.asarray(grid))


def test_ignored_labels_are_in_range():
    x = cr.ones((2, 3))
    F.cross_entropy(x, cr.asarray([-100, 1]))
    F.cross_entropy(x, cr.asarray([255, 1]), ignore_index=255)
    with pytest.raises(IndexingError, match="nor 255"):
        F.cross_entropy(x, cr.asarray([254, 1]), ignore_index=255)


def test_labels_are_integers():
    with pytest.raises(DTypeError, match=r"float32 of shape \(2,\).*int64"):
        F.cross_entropy(cr.ones((2, 3)), cr.asarray([0.0, 1.0]))
    with pytest.raises(DTypeError, match="probabilities, as int64"):
        F.cross_entropy(cr.ones((2, 3)), cr.asarray(np.eye(3, dtype=np.int64)[:2]))
    with pytest.raises(DTypeError, match="bool"):
        F.nll_loss(cr.ones((2, 3)), cr.asarray([True, False]))


@pytest.mark.parametrize(
    "scores,labels,said",
    [
        ((4, 3), (4, 1), r"reshape\(\(4,\)\)"),
        ((4, 3), (3,), r"shape \(4,\), got \(3,\)"),
        ((4, 3, 2), (4,), r"shape \(4, 2\)"),
        ((3,), (1,), r"shape \(\), got \(1,\)"),
        ((), (), "one number"),
    ],
)
def test_labels_of_the_wrong_shape(scores, labels, said):
    with pytest.raises(ShapeError, match=said):
        F.cross_entropy(cr.ones(scores), cr.zeros(labels, dtype=cr.int64))


def test_one_hot_targets_are_told_from_labels():
    with pytest.raises(ShapeError, match="argmax"):
        F.nll_loss(-cr.ones((4, 3)), cr.zeros((4, 3), dtype=cr.int64))


def test_weights_and_options_of_cross_entropy():
    x, y = cr.ones((2, 3)), cr.asarray([0, 1])
    with pytest.raises(ShapeError, match=r"\(3,\), got shape \(2,\)"):
        F.cross_entropy(x, y, weight=cr.ones((2,)))
    for smoothing in (-0.1, 1.1):
        with pytest.raises(ArgumentError, match="label_smoothing"):
            F.cross_entropy(x, y, label_smoothing=smoothing)
        with pytest.raises(ArgumentError, match="label_smoothing"):
            nn.CrossEntropyLoss(label_smoothing=smoothing)
    with pytest.raises(ArgumentError, match="ignore_index"):
        F.cross_entropy(x, x / 3, ignore_index=0)


def test_signs():
    for name in ("hinge_loss", "hinge_embedding_loss", "zero_one_loss"):
        with pytest.raises(ArgumentError, match=r"got 0 at position 1.*2 \* target - 1"):
            getattr(F, name)(cr.ones((3,)), cr.asarray([1, 0, -1]))
    with pytest.raises(ArgumentError, match="got 0 at position 0"):
        F.cosine_embedding_loss(cr.ones((1, 2)), cr.ones((1, 2)), cr.asarray([0]))


@pytest.mark.parametrize("bad,said", [(1.5, "1.5"), (-0.01, "-0.01")])
def test_probabilities_are_from_zero_to_one(bad, said):
    good = cr.asarray([0.5, 0.5])
    with pytest.raises(
        ArgumentError, match=rf"from 0 to 1, but got {said} at position 1.*with_logits"
    ):
        F.binary_cross_entropy(cr.asarray([0.5, bad]), good)
    with pytest.raises(ArgumentError, match="targets"):
        F.binary_cross_entropy(good, cr.asarray([0.5, bad]))
    assert math.isnan(float(F.binary_cross_entropy(cr.asarray([0.5, math.nan]), good)))


def test_negative_variances():
    x = cr.ones((2,))
    with pytest.raises(ArgumentError, match="variances of at least 0, but got -1"):
        F.gaussian_nll_loss(x, x, cr.asarray([1.0, -1.0]))
    with pytest.raises(ArgumentError, match=r"-0\.5"):
        F.gaussian_nll_loss(x, x, -0.5)


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PAIRS, "cross_entropy", "nll_loss", "zero_one_loss"])
def test_an_unknown_reduction_gets_the_nearest_names(name):
    x = cr.ones((2, 2))
    y = cr.asarray([0, 1]) if name in ("cross_entropy", "nll_loss", "zero_one_loss") else x
    with pytest.raises(UnknownNameError, match=r"'avg'.*mean"):
        getattr(F, name)(x, y, reduction="avg")
    with pytest.raises(UnknownNameError, match="did you mean 'mean'"):
        getattr(F, name)(x, y, reduction="means")


def test_layers_check_their_reduction_at_once():
    for layer in (nn.MSELoss, nn.CrossEntropyLoss, nn.CTCLoss, nn.TripletMarginLoss, nn.HingeLoss):
        with pytest.raises(UnknownNameError, match="sums"):
            layer(reduction="sums")
    with pytest.raises(UnknownNameError, match="batchmean"):
        nn.MSELoss(reduction="batchmean")
    nn.KLDivLoss(reduction="batchmean")


def test_arguments_outside_their_domain():
    x, y = cr.ones((2, 3)), cr.asarray([0, 1])
    for call in (
        lambda: F.huber_loss(x, x, delta=0),
        lambda: F.smooth_l1_loss(x, x, beta=-1),
        lambda: F.multi_margin_loss(x, y, p=3),
        lambda: nn.MultiMarginLoss(p=3),
        lambda: F.triplet_margin_loss(x, x, x, margin=0),
        lambda: nn.TripletMarginLoss(margin=-1),
        lambda: nn.TripletMarginWithDistanceLoss(margin=0),
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 10, [5, 5]),
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 10, [10]),
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 10, []),
    ):
        with pytest.raises(ArgumentError):
            call()
    with pytest.raises(ShapeError, match="batchmean"):
        F.kl_div(cr.asarray(0.0), cr.asarray(1.0), reduction="batchmean")
    with pytest.raises(ShapeError, match="batchmean"):
        F.half_squared_error_loss(cr.asarray(0.0), cr.asarray(1.0), reduction="batchmean")


def test_older_flags_say_what_they_mean_now():
    with pytest.warns(ChainruleWarning, match="reduction='sum'"):
        layer = nn.MSELoss(size_average=False)
    assert layer.reduction == "sum"
    assert nn.MSELoss(reduce=False).reduction == "none"  # the warning came once


# --- warnings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (3,)])
def test_probabilities_in_place_of_scores_are_warned_of_once(name, shape):
    axis = min(len(shape) - 1, 1)
    scores = cr.asarray(np.random.default_rng(0).standard_normal(shape))
    probabilities = F.softmax(scores, axis)
    y = cr.zeros(shape[:1] + shape[2:] if len(shape) > 1 else (), dtype=cr.int64)
    with pytest.warns(ChainruleWarning, match=f"{name} takes .*softmax") as caught:
        getattr(F, name)(probabilities, y)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(F, name)(probabilities, y)


def test_scores_that_are_no_probabilities_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scores in (
            np.zeros((3, 4)), np.ones((3, 1)), np.array([[0.5, 0.5], [0.5, 0.6]]),
            np.array([[1.5, -0.5]]), np.zeros((0, 3)),
        ):  # fmt: skip
            F.cross_entropy(cr.asarray(scores), cr.zeros((len(scores),), dtype=cr.int64))


def test_a_sigmoid_before_a_loss_of_scores_is_warned_of():
    x = cr.tensor(np.zeros(3), requires_grad=True)
    with pytest.warns(ChainruleWarning, match="sigmoid itself"):
        F.binary_cross_entropy_with_logits(cr.sigmoid(x), cr.ones((3,)))


def test_warnings_can_be_turned_off():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", ChainruleWarning)
        F.cross_entropy(cr.asarray([[0.5, 0.5]]), cr.asarray([0]))
    assert not caught


def test_every_error_is_of_chainrule():
    with pytest.raises(ChainruleError):
        F.mse_loss(cr.ones((2,)), cr.ones((3,)))
