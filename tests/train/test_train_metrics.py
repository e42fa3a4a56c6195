"""Metrics against scikit-learn, whole and batch by batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from chainrule import train
from chainrule.errors import ArgumentError, ShapeError, UnknownNameError
from chainrule.train.metrics import make_metric, make_metrics

SIZES = [7, 1, 20, 5]


def batches(*arrays, sizes=SIZES):
    """The arrays in uneven pieces."""
    edges = np.cumsum(sizes)[:-1]
    return list(zip(*(np.split(a, edges) for a in arrays), strict=True))


def value(metric, *arrays, sizes=SIZES):
    for batch in batches(*arrays, sizes=sizes):
        metric.update(*batch)
    return metric.compute()


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    n = sum(SIZES)
    return generator.normal(size=(n, 4)).astype(np.float32), generator.integers(0, 4, n)


def test_accuracy(scores):
    outputs, true = scores
    guess = outputs.argmax(1)
    assert value(train.Accuracy(), outputs, true) == reference.accuracy_score(true, guess)
    one_hot = np.eye(4, dtype=np.float32)[true]
    assert value(train.Accuracy(), outputs, one_hot) == reference.accuracy_score(true, guess)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("target_shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_accuracy_of_two_classes_from_one_score(shape, target_shape, threshold):
    generator = np.random.default_rng(1)
    outputs, true = generator.normal(0.3, 1, 33), generator.integers(0, 2, 33)
    metric = train.Accuracy()
    metric.threshold = threshold
    found = value(metric, outputs.reshape(shape), true.astype(float).reshape(target_shape))
    assert found == reference.accuracy_score(true, outputs > threshold)


def test_accuracy_at_every_pixel():
    generator = np.random.default_rng(2)
    outputs, true = generator.normal(size=(33, 3, 4, 5)), generator.integers(0, 3, (33, 4, 5))
    expected = reference.accuracy_score(true.ravel(), outputs.argmax(1).ravel())
    assert value(train.Accuracy(), outputs, true) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k(scores, k):
    outputs, true = scores
    expected = reference.top_k_accuracy_score(true, outputs, k=k)
    assert value(train.TopK(k), outputs, true) == pytest.approx(expected, abs=1e-15)


def test_confusion_matrix(scores):
    outputs, true = scores
    metric = train.ConfusionMatrix()
    assert value(metric, outputs, true) == reference.accuracy_score(true, outputs.argmax(1))
    expected = reference.confusion_matrix(true, outputs.argmax(1), labels=range(4))
    np.testing.assert_array_equal(metric.counts, expected)


SCORES = {
    "precision": (train.Precision, reference.precision_score),
    "recall": (train.Recall, reference.recall_score),
    "f1": (train.F1, reference.f1_score),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("average", ["macro", "micro"])
def test_scores_from_the_confusion_matrix(scores, name, average):
    outputs, true = scores
    ours, theirs = SCORES[name]
    expected = theirs(true, outputs.argmax(1), average=average, zero_division=0)
    assert value(ours(average), outputs, true) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", SCORES)
def test_binary_scores(name):
    generator = np.random.default_rng(3)
    outputs, true = generator.normal(size=33), generator.integers(0, 2, 33)
    ours, theirs = SCORES[name]
    assert value(ours("binary"), outputs, true) == pytest.approx(theirs(true, outputs > 0))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
    st.sampled_from(sorted(SCORES)),
    st.sampled_from(["macro", "micro"]),
)
def test_scores_with_classes_that_are_absent(pairs, name, average):
    true, guess = (np.array(column) for column in zip(*pairs, strict=True))
    ours, theirs = SCORES[name]
    metric = ours(average)
    metric.update(np.eye(4)[guess], true)
    expected = theirs(true, guess, average=average, zero_division=0)
    assert metric.compute() == pytest.approx(expected, abs=1e-12)


def test_targets_below_zero_are_passed_over(scores):
    outputs, true = scores
    kept = np.arange(len(true)) % 3 > 0
    masked = np.where(kept, true, -100)
    for make in (train.Accuracy, train.ConfusionMatrix, train.F1, train.Perplexity, train.TopK):
        make = (lambda: train.TopK(2)) if make is train.TopK else make
        whole = make()
        whole.update(outputs[kept], true[kept])
        assert value(make(), outputs, masked) == pytest.approx(whole.compute(), rel=1e-6)


REGRESSIONS = {
    "r2": reference.r2_score,
    "mae": reference.mean_absolute_error,
    "mse": reference.mean_squared_error,
}


@pytest.mark.parametrize("name", REGRESSIONS)
@pytest.mark.parametrize("shape", [(33,), (33, 1), (33, 3)])
def test_regression(name, shape):
    generator = np.random.default_rng(4)
    true = 100 + generator.normal(size=shape) * [1.0, 5.0, 20.0][: shape[-1] if shape[1:] else 1]
    outputs = true + generator.normal(size=shape)
    expected = REGRESSIONS[name](true, outputs)
    assert value(make_metric(name), outputs, true) == pytest.approx(expected, rel=1e-10)


def test_r2_does_not_cancel_far_from_zero():
    true = 1e6 + np.random.default_rng(5).normal(size=33)
    outputs = true + 0.1
    expected = reference.r2_score(true - 1e6, outputs - 1e6)
    assert value(train.R2(), outputs, true) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_r2_of_a_constant_target(error):
    true = np.full(33, 3.0)
    expected = reference.r2_score(true, true + error)
    assert value(train.R2(), true + error, true) == expected


def test_perplexity(scores):
    outputs, true = scores
    exponentials = np.exp(outputs.astype(np.float64))
    chances = exponentials / exponentials.sum(1, keepdims=True)
    expected = np.exp(reference.log_loss(true, chances, labels=range(4)))
    assert value(train.Perplexity(), outputs, true) == pytest.approx(expected, rel=1e-6)
    assert value(train.Perplexity(), outputs + 1e4, true) == pytest.approx(expected, rel=1e-2)


def test_perplexity_of_sequences():
    generator = np.random.default_rng(6)
    outputs, true = generator.normal(size=(33, 5, 8)), generator.integers(0, 5, (33, 8))
    flat = np.moveaxis(outputs, 1, 2).reshape(-1, 5)
    chances = np.exp(flat) / np.exp(flat).sum(1, keepdims=True)
    expected = np.exp(reference.log_loss(true.ravel(), chances, labels=range(5)))
    assert value(train.Perplexity(), outputs, true) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", sorted(train.METRICS))
def test_every_metric_by_name(name):
    """Nothing seen is NaN; reset forgets; a state goes on where it was taken."""
    generator = np.random.default_rng(7)
    if name in REGRESSIONS:
        outputs, true = generator.normal(size=(33, 2)), generator.normal(size=(33, 2))
    else:
        outputs, true = generator.normal(size=(33, 6)), generator.integers(0, 6, 33)
    metric = make_metric(name)
    assert metric.name == name and np.isnan(metric.compute())
    first = value(metric, outputs, true)
    metric.reset()
    assert np.isnan(metric.compute())
    pieces = batches(outputs, true)
    for batch in pieces[:2]:
        metric.update(*batch)
    other = make_metric(name)
    other.load_state_dict(metric.state_dict())
    metric.reset()
    for batch in pieces[2:]:
        other.update(*batch)
    assert other.compute() == first


def test_names_are_told_apart():
    made = make_metrics(["top2", train.F1("micro"), train.F1()])
    assert [metric.name for metric in made] == ["top2", "f1_micro", "f1"]
    with pytest.raises(ArgumentError, match="'accuracy' comes twice"):
        make_metrics(["accuracy", train.Accuracy()])
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        make_metrics(["acuracy"])
    with pytest.raises(UnknownNameError, match="did you mean 'macro'"):
        train.F1("makro")
    with pytest.raises(ArgumentError, match="k >= 1"):
        train.TopK(0)


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "words"),
    [
        (train.MAE(), (4, 1), (4,), r"\(4, 1\) and \(4,\)"),
        (train.R2(), (4,), (4, 1), r"\(4,\) and \(4, 1\)"),
        (train.Accuracy(), (4, 3), (5,), r"\(4, 3\) need targets of shape \(4,\), got \(5,\)"),
        (train.F1(), (4, 3, 2), (4,), r"need targets of shape \(4, 2\)"),
        (train.TopK(5), (4, 3), (4,), "at least 5 classes"),
    ],
)
def test_shapes_that_do_not_fit(metric, outputs, targets, words):
    with pytest.raises(ShapeError, match=words):
        metric.update(np.zeros(outputs), np.zeros(targets))
