"""Losses against PyTorch, in float64: values, gradients by all inputs, second derivatives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("torch.nn")
import torch
from nn_agreement import agree, rng, same

import chainrule as cr
from chainrule import nn
from chainrule.nn import functional as F

T = torch.nn.functional
REDUCTIONS = ["none", "mean", "sum"]


def both(name, *args, second=True, constant=(), **options):
    """Compare one function under all reductions; integer arrays among `args` are labels."""
    kwargs = {
        "rtol": options.pop("rtol", 1e-11), "atol": options.pop("atol", 1e-12)
    }  # fmt: skip
    ours, theirs = getattr(F, name), getattr(T, name)
    fixed = {k: v for k, v in options.items() if isinstance(v, np.ndarray)}
    plain = {k: v for k, v in options.items() if k not in fixed}
    for reduction in options.get("reductions", REDUCTIONS):
        plain.pop("reductions", None)
        agree(
            lambda *xs, r=reduction: ours(
                *xs, reduction=r, **plain, **{k: cr.asarray(v) for k, v in fixed.items()}
            ),
            lambda *xs, r=reduction: theirs(
                *xs, reduction=r, **plain, **{k: torch.from_numpy(v) for k, v in fixed.items()}
            ),
            *args, second=second, constant=constant, **kwargs,
        )  # fmt: skip


def normal(*shape, seed=0):
    return np.asarray(rng(seed).standard_normal(shape))


def uniform(*shape, seed=0):
    return np.asarray(rng(seed).uniform(0.05, 0.95, shape))


def signs(*shape, seed=0):
    return np.asarray(rng(seed).integers(0, 2, shape) * 2.0 - 1)


SHAPES = [(), (4,), (3, 4), (2, 3, 2, 2), (0, 3)]

# --- regression -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "name,options",
    [
        ("l1_loss", {}),
        ("mse_loss", {}),
        ("huber_loss", {}),
        ("huber_loss", {"delta": 0.3}),
        ("smooth_l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.4}),
        ("smooth_l1_loss", {"beta": 0.0}),
    ],
    ids=str,
)  # fmt: skip
def test_regression(name, options, shape):
    both(name, normal(*shape), normal(*shape, seed=1), **options)


@pytest.mark.parametrize("name", ["l1_loss", "mse_loss", "huber_loss"])
def test_regression_with_weights(name):
    both(name, normal(3, 4), normal(3, 4, seed=1), weight=uniform(3, 4, seed=2))


@pytest.mark.parametrize("name", ["l1_loss", "mse_loss", "huber_loss", "smooth_l1_loss"])
def test_regression_at_the_corners(name):
    both(name, np.array([0.0, 1.0, -1.0, 3.0]), np.zeros(4), second=False)


@pytest.mark.parametrize("log_input,full", list(itertools.product([False, True], repeat=2)))
def test_poisson(log_input, full):
    counts = rng().integers(0, 6, (3, 4)).astype(float)
    rates = normal(3, 4) if log_input else uniform(3, 4) * 5
    both("poisson_nll_loss", rates, counts, constant=(1,), log_input=log_input, full=full)
    both("poisson_nll_loss", rates, counts + 0.5, log_input=log_input, full=full)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("variances", [(3, 4), (3,), (3, 1), (1, 4)], ids=str)
def test_gaussian(variances, full):
    x, y = normal(3, 4), normal(3, 4, seed=1)
    v = uniform(*variances, seed=2)
    v.reshape(-1)[0] = 1e-9  # below eps: the bound is not part of the derivative
    both("gaussian_nll_loss", x, y, v, full=full, rtol=1e-9)
    both("gaussian_nll_loss", x, y, var=0.7, full=full)


# --- classification -------------------------------------------------------------------------------

CLASSES = [
    ((5,), ()),
    ((3, 5), (3,)),
    ((3, 5, 2), (3, 2)),
    ((2, 5, 2, 3), (2, 2, 3)),
    ((0, 5), (0,)),
]


@pytest.mark.parametrize("ignore", [-100, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("scores,labels", CLASSES, ids=str)
def test_cross_entropy_of_labels(scores, labels, smoothing, weighted, ignore):
    options = {"ignore_index": ignore, "label_smoothing": smoothing}
    if weighted:
        options["weight"] = uniform(5, seed=3)
    target = np.asarray(rng(1).integers(0, 5, labels))
    if target.size > 1:
        target.reshape(-1)[:2] = [ignore, 3]
    both("cross_entropy", normal(*scores) * 3, target, **options)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("scores", [(5,), (3, 5), (2, 5, 3)])
def test_cross_entropy_of_probabilities(scores, smoothing, weighted):
    options = {"label_smoothing": smoothing}
    if weighted:
        options["weight"] = uniform(5, seed=3)
    both("cross_entropy", normal(*scores) * 3, uniform(*scores, seed=1), **options)


@pytest.mark.parametrize("ignore", [-100, 0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scores,labels", CLASSES, ids=str)
def test_nll(scores, labels, weighted, ignore):
    options = {"ignore_index": ignore}
    if weighted:
        options["weight"] = uniform(5, seed=3)
    target = np.asarray(rng(1).integers(0, 5, labels))
    both("nll_loss", -uniform(*scores), target, **options)


def test_cross_entropy_far_out_and_all_ignored():
    x = np.array([[1e3, -1e3, 0.0], [0.0, 1e3, 1e3], [-1e3, -1e3, -1e3]])
    both("cross_entropy", x, np.array([1, 0, 2]), second=False)
    both("cross_entropy", normal(2, 3), np.array([-100, -100]), second=False, reductions=["sum"])
    for f in (F, T):
        made = (cr.asarray, torch.tensor)[f is T]
        assert np.isnan(float(f.cross_entropy(made(normal(2, 3)), made([-100, -100]))))


@pytest.mark.parametrize("weighted", [None, (3, 4), (4,), (3, 1)])
def test_binary_cross_entropy(weighted):
    options = {} if weighted is None else {"weight": uniform(*weighted, seed=3)}
    x, y = uniform(3, 4), uniform(3, 4, seed=1)
    both("binary_cross_entropy", x, y, second=False, **options)
    # PyTorch's second derivative adds 1e-12 to its denominators.
    both("binary_cross_entropy", x, y, constant=(1,), rtol=1e-9, **options)


def test_binary_cross_entropy_of_certainty():
    x = np.array([0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1e-13, 1e-300, 1 - 1e-13])
    y = np.array([0.0, 1.0, 0.0, 1.0, 0.3, 0.3, 1.0, 0.5, 0.0])
    # PyTorch rounds its 1e-12 to float32, and does not bound the derivative by the target.
    both("binary_cross_entropy", x, y, second=False, constant=(1,), rtol=1e-8)


@pytest.mark.parametrize("weighted", [None, (3, 4), (4,)])
@pytest.mark.parametrize("positive", [None, (4,), (3, 4), (1,)])
def test_binary_cross_entropy_with_logits(weighted, positive):
    options = {}
    if weighted is not None:
        options["weight"] = uniform(*weighted, seed=3)
    if positive is not None:
        options["pos_weight"] = uniform(*positive, seed=4) * 3
    name = "binary_cross_entropy_with_logits"
    both(name, normal(3, 4) * 3, uniform(3, 4, seed=1), **options)
    far = np.array([[1e3, -1e3, 0.0, 40.0]])
    for y in (0.0, 1.0):
        both(name, far, np.full((1, 4), y), second=False)


@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div(log_target):
    x, t = np.log(uniform(3, 4)), uniform(3, 4, seed=1)
    t = np.log(t) if log_target else t
    reductions = [*REDUCTIONS, "batchmean"]
    with pytest.warns(UserWarning):  # PyTorch's, about "mean"
        both("kl_div", x, t, log_target=log_target, reductions=reductions)
    zero = np.zeros((3, 4))
    both("kl_div", x, zero, constant=(1,), reductions=["sum"])


# --- margins --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 2)])
def test_signed_targets(shape):
    x, y = normal(*shape), signs(*shape, seed=1)
    both("soft_margin_loss", x, y, constant=(1,), second=True)
    for margin in (1.0, 0.2):
        both("hinge_embedding_loss", x, y, constant=(1,), margin=margin)
    for margin in (0.0, 0.5):
        both("margin_ranking_loss", x, normal(*shape, seed=2), y, constant=(2,), margin=margin)


def test_margins_met_exactly():
    both(
        "hinge_embedding_loss",
        np.array([1.0, 1.0, 2.0]),
        np.array([-1.0, 1.0, -1.0]),
        constant=(1,),
    )
    both("margin_ranking_loss", np.zeros(2), np.zeros(2), np.array([1.0, -1.0]), constant=(2,))
    both("multi_margin_loss", np.array([[1.0, 0.0, 0.0]]), np.array([0]), second=False)
    both(
        "multilabel_margin_loss", np.array([[1.0, 0.0, 0.0]]), np.array([[0, -1, 0]]), second=False
    )


@pytest.mark.parametrize("scores,labels", CLASSES[:2], ids=str)
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("margin", [1.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_multi_margin(scores, labels, p, margin, weighted):
    options = {"weight": uniform(5, seed=3)} if weighted else {}
    target = np.asarray(rng(1).integers(0, 5, labels))
    both("multi_margin_loss", normal(*scores), target, p=p, margin=margin, second=False, **options)


@pytest.mark.parametrize(
    "target",
    [[[0, 2, -1, 3, 1], [3, 3, 1, -1, 0]], [[-1, 0, 0, 0, 0], [4, 3, 2, 1, 0]], [2, -1, 0, 0, 0]],
    ids=str,
)
def test_multilabel_margin(target):
    target = np.array(target)
    both("multilabel_margin_loss", normal(*target.shape), target, second=False)


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_multilabel_soft_margin(shape, weighted):
    options = {"weight": uniform(5, seed=3)} if weighted else {}
    both("multilabel_soft_margin_loss", normal(*shape), uniform(*shape, seed=1), **options)


@pytest.mark.parametrize("margin", [0.0, 0.4, -0.4])
@pytest.mark.parametrize("batch", [(), (4,)])
def test_cosine_embedding(batch, margin):
    x, y = normal(*batch, 3), normal(*batch, 3, seed=1)
    both("cosine_embedding_loss", x, y, signs(*batch, seed=2), constant=(2,), margin=margin)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("batch", [(), (6,)])
def test_triplet_margin(batch, p, swap):
    xs = [normal(*batch, 3, seed=i) for i in range(3)]
    both("triplet_margin_loss", *xs, p=p, swap=swap, margin=0.7)
    ours, theirs = (
        room.TripletMarginWithDistanceLoss(
            distance_function=lambda x, y, f=f: 1 - f.cosine_similarity(x, y, -1), swap=swap
        )
        for room, f in ((nn, F), (torch.nn, T))
    )
    agree(ours, theirs, *xs)
    agree(nn.TripletMarginWithDistanceLoss(), torch.nn.TripletMarginWithDistanceLoss(), *xs)


# --- CTC ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("blank", [0, 2, 4])
@pytest.mark.parametrize("form", ["padded", "concatenated"])
def test_ctc(form, blank, zero_infinity):
    time, batch, classes = 7, 4, 5
    others = [c for c in range(classes) if c != blank]
    labels = rng(1).choice(others, (batch, 3))
    labels[1, 1] = labels[1, 0]  # a repetition, which needs a blank between
    lengths, steps = np.array([3, 2, 1, 3]), np.array([7, 6, 5, 4])
    if form == "concatenated":
        labels = np.concatenate([row[:n] for row, n in zip(labels, lengths, strict=True)])
    for reduction in REDUCTIONS:
        options = {"blank": blank, "reduction": reduction, "zero_infinity": zero_infinity}
        agree(
            lambda x, o=options: F.ctc_loss(
                F.log_softmax(x, 2), cr.asarray(labels), cr.asarray(steps), cr.asarray(lengths), **o
            ),
            lambda x, o=options: T.ctc_loss(
                T.log_softmax(x, 2), torch.tensor(labels), torch.tensor(steps),
                torch.tensor(lengths), **o,
            ),
            normal(time, batch, classes),
            second=False,
            rtol=1e-9,
        )  # fmt: skip


def test_ctc_of_the_impossible_the_empty_and_one_sample():
    x = normal(3, 3, 4)
    labels, steps, lengths = [[1, 1, 2], [1, 2, 3], [1, 1, 1]], [3, 2, 3], [3, 3, 0]
    for reduction in REDUCTIONS:
        agree(
            lambda x, r=reduction: F.ctc_loss(
                F.log_softmax(x, 2), cr.asarray(labels), steps, lengths, reduction=r,
                zero_infinity=True,
            ),
            lambda x, r=reduction: T.ctc_loss(
                T.log_softmax(x, 2), torch.tensor(labels), steps, lengths, reduction=r,
                zero_infinity=True,
            ),
            x,
            second=False,
            rtol=1e-9,
        )  # fmt: skip
    mine = F.ctc_loss(
        F.log_softmax(cr.asarray(x), 2), cr.asarray(labels), steps, lengths, reduction="none"
    )
    assert np.isinf(mine.numpy()).tolist() == [True, True, False]
    agree(
        lambda x: F.ctc_loss(F.log_softmax(x, 1), cr.asarray([1, 2]), (4,), (2,)),
        lambda x: T.ctc_loss(T.log_softmax(x, 1), torch.tensor([1, 2]), (4,), (2,)),
        normal(4, 3),
        second=False,
        rtol=1e-9,
    )


# --- layers ---------------------------------------------------------------------------------------

PAIRS = {
    "L1Loss": [{}, {"reduction": "sum"}],
    "MSELoss": [{}],
    "HuberLoss": [{"delta": 0.3}],
    "SmoothL1Loss": [{"beta": 0.3}],
    "SoftMarginLoss": [{}],
    "BCEWithLogitsLoss": [{}],
    "PoissonNLLLoss": [{"full": True}],
    "MultiLabelSoftMarginLoss": [{}],
    "KLDivLoss": [{"reduction": "batchmean"}, {"reduction": "sum", "log_target": True}],
    "HingeEmbeddingLoss": [{"margin": 0.5}],
}


@pytest.mark.parametrize("name,options", [(n, o) for n, os in PAIRS.items() for o in os], ids=str)
def test_layers_of_two_tensors(name, options):
    x, y = normal(3, 4), signs(3, 4, seed=1)
    y = y if name in ("SoftMarginLoss", "HingeEmbeddingLoss") else uniform(3, 4)
    agree(getattr(nn, name)(**options), getattr(torch.nn, name)(**options), x, y, constant=(1,))


@pytest.mark.parametrize(
    "name,options",
    [
        ("CrossEntropyLoss", {"ignore_index": 1, "label_smoothing": 0.2}),
        ("NLLLoss", {"ignore_index": 1}),
        ("MultiMarginLoss", {"p": 2, "margin": 0.5}),
    ],
    ids=str,
)  # fmt: skip
def test_layers_of_labels_and_their_weights(name, options):
    weight, target = uniform(5, seed=3), rng().integers(0, 5, 4)
    ours = getattr(nn, name)(weight=cr.asarray(weight), **options)
    theirs = getattr(torch.nn, name)(weight=torch.from_numpy(weight), **options)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
    agree(ours, theirs, normal(4, 5), target, second=False)


def test_adaptive_log_softmax():
    theirs, ours = (
        room.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 9, 15], div_value=2.0, head_bias=True).double()
        for room in (torch.nn, nn)
    )
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x, y = normal(10, 8), np.array([0, 19, 3, 4, 14, 15, 9, 8, 1, 16])
    for part in ("output", "loss"):
        agree(
            lambda x, y, part=part: getattr(ours(x, y), part),
            lambda x, y, part=part: getattr(theirs(x, y), part),
            x, y,
        )  # fmt: skip
    agree(lambda x, y: ours(x, y).output, lambda x, y: theirs(x, y).output, x[0], np.asarray(7))
    agree(ours.log_prob, theirs.log_prob, x)
    same(ours.predict(cr.asarray(x)), theirs.predict(torch.from_numpy(x)))


@pytest.mark.parametrize("out,batch", [((), ()), ((), (4,)), ((2, 3), (4,))], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_linear_cross_entropy(out, batch, bias):
    options = {"out_features": out, "bias": bias, "label_smoothing": 0.1, "ignore_index": 2}
    ours, theirs = (
        room.LinearCrossEntropyLoss(6, 5, **options).double() for room in (nn, torch.nn)
    )
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    labels = np.asarray(rng(1).integers(0, 5, (*batch, *out)))
    agree(ours, theirs, normal(*batch, 6), labels)
    ours.ignore_index = theirs.ignore_index = None
    agree(ours, theirs, normal(*batch, 6), uniform(*batch, 5, *out))


def test_older_flags(monkeypatch):
    monkeypatch.setattr("chainrule.nn.functional._checks._warned", set())
    x, y = normal(3, 4), normal(3, 4, seed=1)
    for average, reduce in itertools.product([None, True, False], repeat=2):
        if average is None and reduce is None:
            continue
        with pytest.warns(UserWarning):
            agree(
                lambda x, y, a=average, r=reduce: F.mse_loss(x, y, a, r),
                lambda x, y, a=average, r=reduce: T.mse_loss(x, y, a, r),
                x, y,
            )  # fmt: skip
