"""CTC against the sum over all alignments, one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import special

import chainrule as cr
from chainrule import nn
from chainrule.autograd import gradcheck, gradgradcheck
from chainrule.errors import ArgumentError, DTypeError, IndexingError, ShapeError, UnknownNameError
from chainrule.nn import functional as F


def collapse(alignment, blank):
    """Strike out repetitions, then blanks."""
    return tuple(c for c, _ in itertools.groupby(alignment) if c != blank)


def by_enumeration(log_p, blank):
    """{labels: probability} of all alignments of (T, C) log-probabilities."""
    found: dict[tuple[int, ...], float] = {}
    time, classes = log_p.shape
    for alignment in itertools.product(range(classes), repeat=time):
        p = math.exp(sum(log_p[t, c] for t, c in enumerate(alignment)))
        labels = collapse(alignment, blank)
        found[labels] = found.get(labels, 0.0) + p
    return found


def log_probabilities(*shape, seed=0):
    return special.log_softmax(np.random.default_rng(seed).standard_normal(shape), axis=-1)


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("time", [1, 2, 3, 5])
def test_every_sequence_of_labels_against_all_alignments(time, blank):
    log_p = log_probabilities(time, 3)
    expected = by_enumeration(log_p, blank)
    total = 0.0
    for labels, p in expected.items():
        got = F.ctc_loss(
            cr.asarray(log_p), cr.asarray(np.array(labels, dtype=np.int64)), (time,),
            (len(labels),), blank, "none",
        )  # fmt: skip
        assert got.shape == ()
        np.testing.assert_allclose(float(got), -math.log(p), rtol=1e-12)
        total += math.exp(-float(got))
    np.testing.assert_allclose(total, 1, rtol=1e-12)


def test_a_batch_of_different_lengths():
    log_p = log_probabilities(5, 4, 3)
    labels, steps = [(1, 2), (2, 2), (), (1,)], [5, 4, 3, 2]
    expected = [
        -math.log(by_enumeration(log_p[:t, n], 0)[word])
        for n, (word, t) in enumerate(zip(labels, steps, strict=True))
    ]
    lengths = [len(word) for word in labels]
    # What stands behind a sample's labels does not matter.
    padded = cr.asarray([[1, 2, 1], [2, 2, 0], [7, 7, 7], [1, -5, 9]])
    joined = cr.asarray([1, 2, 2, 2, 1])
    for targets in (padded, joined):
        got = F.ctc_loss(cr.asarray(log_p), targets, steps, lengths, reduction="none")
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)
        got = F.ctc_loss(cr.asarray(log_p), targets, cr.asarray(steps), lengths, reduction="sum")
        np.testing.assert_allclose(float(got), sum(expected), rtol=1e-12)
        got = nn.CTCLoss()(cr.asarray(log_p), targets, tuple(steps), cr.asarray(lengths))
        shares = [e / max(n, 1) for e, n in zip(expected, lengths, strict=True)]
        np.testing.assert_allclose(float(got), np.mean(shares), rtol=1e-12)


def test_derivatives_first_and_second():
    log_p = cr.tensor(log_probabilities(4, 3, 3), requires_grad=True)
    labels = cr.asarray([[1, 2], [2, 2], [1, 0]])

    def f(x):
        return F.ctc_loss(x, labels, (4, 4, 3), (2, 2, 1), reduction="none")

    assert gradcheck(f, log_p, atol=1e-7, rtol=1e-6)
    assert gradgradcheck(f, log_p, atol=1e-6, rtol=1e-5)


def test_the_gradient_is_the_share_of_the_alignments():
    log_p = log_probabilities(4, 3)
    x = cr.tensor(log_p, requires_grad=True)
    F.ctc_loss(x, cr.asarray([1, 2]), (4,), (2,), reduction="sum").backward()
    share, total = np.zeros((4, 3)), 0.0
    for alignment in itertools.product(range(3), repeat=4):
        if collapse(alignment, 0) == (1, 2):
            p = math.exp(sum(log_p[t, c] for t, c in enumerate(alignment)))
            total += p
            for t, c in enumerate(alignment):
                share[t, c] += p
    np.testing.assert_allclose(x.grad.numpy(), -share / total, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_the_impossible_is_infinite_and_has_no_gradient(zero_infinity):
    # Two equal labels need a blank between and so three steps; three labels need three.
    log_p = log_probabilities(2, 3, 3)
    x = cr.tensor(log_p, requires_grad=True)
    labels, lengths = cr.asarray([[1, 1, 0], [1, 2, 1], [1, 2, 0]]), (2, 3, 2)
    losses = F.ctc_loss(
        x, labels, (2, 2, 2), lengths, reduction="none", zero_infinity=zero_infinity
    )
    possible = -log_p[0, 2, 1] - log_p[1, 2, 2]
    assert losses.tolist()[:2] == ([0, 0] if zero_infinity else [math.inf] * 2)
    np.testing.assert_allclose(losses.tolist()[2], possible, rtol=1e-12)
    (g,) = cr.autograd.grad(losses.sum(), x, create_graph=True)
    assert np.isfinite(g.detach().numpy()).all()
    assert not g.detach().numpy()[:, :2].any()
    (gg,) = cr.autograd.grad((g * g).sum(), x, allow_unused=True)
    assert gg is None or np.isfinite(gg.numpy()).all()


def test_classes_of_probability_zero():
    with np.errstate(divide="ignore"):
        log_p = np.log([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]])
    expected = by_enumeration(np.maximum(log_p, -1e9), 0)
    x = cr.tensor(log_p, requires_grad=True)
    for labels in ((1, 2), (2, 1), (1,)):
        loss = F.ctc_loss(x, cr.asarray(list(labels)), (3,), (len(labels),), reduction="sum")
        p = expected.get(labels, 0)
        assert (float(loss) == math.inf) if p == 0 else abs(float(loss) + math.log(p)) < 1e-12
        (g,) = cr.autograd.grad(loss, x)
        assert np.isfinite(g.numpy()).all()


def test_no_labels_and_no_time():
    log_p = log_probabilities(3, 2, 4)
    got = F.ctc_loss(
        cr.asarray(log_p), cr.zeros((2, 0), dtype=cr.int64), (3, 0), (0, 0), reduction="none"
    )
    np.testing.assert_allclose(got.numpy(), [-log_p[:, 0, 0].sum(), 0.0])
    got = F.ctc_loss(cr.asarray(log_p), cr.asarray([[1], [1]]), (0, 0), (1, 0), reduction="none")
    assert got.tolist() == [math.inf, 0]


def test_long_sequences_do_not_underflow():
    log_p = log_probabilities(400, 1, 20)
    got = F.ctc_loss(
        cr.asarray(log_p.astype(np.float32)),
        cr.asarray(np.arange(60)[None] % 19 + 1),
        (400,),
        (60,),
    )
    assert got.dtype == cr.float32 and 0 < float(got) < 400


def bad(*rows):
    return cr.asarray([list(row) for row in rows])


GOOD = ((1, 2), (2, 1))


@pytest.mark.parametrize(
    "kind,said,labels,steps,lengths,options",
    [
        (IndexingError, r"label 3 at position \(0, 1\)", ((1, 3), (1, 1)), (4, 4), (2, 2), {}),
        (ArgumentError, "blank, 0, as label 1 of sample 0", ((1, 0), (1, 1)), (4, 4), (2, 2), {}),
        (ArgumentError, "5 in input_lengths for sample 1.* 0 to 4", GOOD, (4, 5), (2, 2), {}),
        (ArgumentError, "3 in target_lengths for sample 0.* 0 to 2", GOOD, (4, 4), (3, 2), {}),
        (ArgumentError, "-1 in target_lengths", GOOD, (4, 4), (-1, 2), {}),
        (ShapeError, "each of the 2 samples, got 1", GOOD, (4,), (2, 2), {}),
        (ShapeError, r"\(3, 2\)", ((1, 2),) * 3, (4, 4), (2, 2), {}),
        (DTypeError, "float32", ((1.0, 2.0),) * 2, (4, 4), (2, 2), {}),
        (DTypeError, "input_lengths", GOOD, (4.0, 4.0), (2, 2), {}),
        (IndexingError, "blank=3", GOOD, (4, 4), (2, 2), {"blank": 3}),
        (UnknownNameError, "avg", GOOD, (4, 4), (2, 2), {"reduction": "avg"}),
    ],
)
def test_errors(kind, said, labels, steps, lengths, options):
    x = cr.asarray(log_probabilities(4, 2, 3))
    with pytest.raises(kind, match=said):
        F.ctc_loss(x, bad(*labels), steps, lengths, **options)


def test_errors_of_shape():
    x = cr.asarray(log_probabilities(4, 2, 3))
    with pytest.raises(ShapeError, match=r"3 labels .* add up to 4"):
        F.ctc_loss(x, cr.asarray([1, 2, 1]), (4, 4), (2, 2))
    with pytest.raises(ShapeError, match=r"got shape \(4,\)"):
        F.ctc_loss(cr.ones((4,)), bad(*GOOD), (4, 4), (2, 2))
