"""Layers that look at numbers eagerly: compiled they are written without, with the same results."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, GradError, TraceError

F = nn.functional
backends = pytest.mark.parametrize("backend", ["numpy", "native"])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def same(function, backend, tensors, *constants):
    """Values and gradients by the floats among the tensors, compiled and eager."""
    compiled = cr.compile(function, backend=backend)
    found = []
    for f in (compiled, function):
        leaves = [cr.asarray(t, requires_grad=np.asarray(t).dtype.kind == "f") for t in tensors]
        value = f(*leaves, *constants)
        cr.sum(value * cr.cos(cr.arange(value.size)).reshape(value.shape)).backward()
        found.append(
            [value.detach().numpy()] + [x.grad.numpy() for x in leaves if x.grad is not None]
        )
    assert compiled.traces == 1
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


LABELS = np.array([[1, 2, 2], [3, 1, 1], [2, 3, 1]])


@backends
@pytest.mark.parametrize("packed", [False, True])
def test_ctc(backend, packed):
    log_p = np.log(np.random.default_rng(0).dirichlet(np.ones(4), (6, 3)))
    steps, lengths = np.array([6, 4, 5]), np.array([3, 1, 0])
    targets = np.concatenate([row[:n] for row, n in zip(LABELS, lengths, strict=True)])

    def loss(log_p, targets, steps, lengths):
        return F.ctc_loss(log_p, targets, steps, lengths, reduction="none")

    same(loss, backend, [log_p, targets if packed else LABELS, steps, lengths])


@backends
def test_ctc_checks_its_arguments_in_the_program(backend):
    log_p = cr.asarray(np.log(np.full((5, 3, 4), 0.25)))
    f = cr.compile(lambda t, s, n: F.ctc_loss(log_p, t, s, n, reduction="sum"), backend=backend)
    good = [cr.asarray(x) for x in (LABELS, [5, 5, 5], [3, 2, 1])]
    f(*good)
    for position, bad, words in (
        (0, [[1, 2, 2], [3, 0, 1], [2, 3, 1]], "blank"),
        (0, [[1, 2, 9], [3, 1, 1], [2, 3, 1]], "label 9"),
        (1, [5, 6, 5], "6 in input_lengths for sample 1"),
        (2, [3, 2, 4], "4 in target_lengths for sample 2"),
    ):
        with pytest.raises((ValueError, IndexError), match=words):
            f(*[cr.asarray(bad) if i == position else x for i, x in enumerate(good)])


@backends
def test_adaptive_softmax(backend):
    cr.manual_seed(0)
    layer = nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3, 7]).double()
    same(lambda x, y: layer(x, y).output, backend, [normal(5, 6), np.array([0, 5, 11, 3, 7])])
    same(lambda x, y: layer(x, y).loss, backend, [normal(5, 6), np.array([0, 5, 11, 3, 7])])


@backends
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 2])
def test_bags(backend, mode, padding_idx):
    index = np.array([[0, 1, 2], [2, 2, 2], [4, 4, 0]])

    def bags(table, index):
        return F.embedding_bag(index, table, mode=mode, padding_idx=padding_idx)

    same(bags, backend, [normal(5, 4), index])


@backends
def test_bags_with_weights_and_frequencies(backend):
    index = np.array([[0, 1, 2], [2, 2, 2]])
    same(
        lambda table, index, w: F.embedding_bag(index, table, mode="sum", per_sample_weights=w),
        backend, [normal(5, 4), index, normal(2, 3, seed=1)],
    )  # fmt: skip
    same(
        lambda table, index: F.embedding(index, table, scale_grad_by_freq=True),
        backend, [normal(5, 4), index],
    )  # fmt: skip


@backends
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("last", [False, True])
def test_bags_with_offsets(backend, mode, padding_idx, last):
    index, offsets = np.array([0, 1, 1, 2, 4, 4, 3, 1]), np.array([0, 3, 3, 4, 6])
    table = np.round(normal(5, 4), 0 if mode == "max" else 3)  # with ties

    def bags(table, index, offsets):
        return F.embedding_bag(
            index, table, offsets, mode=mode, padding_idx=padding_idx, include_last_offset=last
        )

    same(bags, backend, [table, index, offsets])
    same(lambda table, index: bags(table, index, offsets), backend, [table, index])
    table[1, 0] = np.nan  # argmax takes the first NaN for the largest
    found = [f(*map(cr.asarray, (table, index, offsets))) for f in (cr.compile(bags), bags)]
    np.testing.assert_allclose(*found, rtol=1e-12)


@backends
def test_bags_with_offsets_weights_and_frequencies(backend):
    index, offsets = np.array([0, 1, 1, 2, 4, 4, 3, 1]), np.array([0, 3, 3, 4])

    def bags(table, index, offsets, w):
        return F.embedding_bag(
            index, table, offsets, mode="sum", per_sample_weights=w, scale_grad_by_freq=True
        )

    same(bags, backend, [normal(5, 4), index, offsets, normal(8, seed=1)])


@backends
@pytest.mark.parametrize("offsets", [[1, 2], [0, 2, 1], [0, 4]])
def test_offsets_of_bags_are_checked(backend, offsets):
    table, index = cr.asarray(normal(5, 4)), cr.asarray([0, 1, 2])
    f = cr.compile(lambda i, o: F.embedding_bag(i, table, o), backend=backend)
    f(index, cr.asarray([0, 1, 3][: len(offsets)]))
    with pytest.raises(ArgumentError, match=r"begin with 0 and rise to at most the 3.*\["):
        f(index, cr.asarray(offsets))


def test_shapes_that_depend_on_numbers_name_the_line_and_the_way_out():
    x = cr.asarray(normal(4))
    for function, name in (
        (lambda x: x[x > 0], r"x\[mask\]"),
        (lambda x: cr.nonzero(x), "nonzero"),
        (lambda x: cr.unique_values(x), "unique_all"),
        (lambda x: cr.repeat(x, cr.astype(x > 0, cr.int64)), "repeat"),
    ):
        with pytest.raises(TraceError, match=f"{name} returns depends on the numbers") as caught:
            cr.compile(function)(x)
        assert "cr.where(mask, x, 0)" in str(caught.value)
        assert __file__ in str(caught.value)


@backends
def test_places_that_are_not_known(backend):
    """An index of shape () is an integer wherever it is known."""

    def read(x, i):
        return x[i] * x[1:, i, None] + x[i, 1:].sum()

    def written(x, i):
        x = x * 1
        x[i] = 2 * x[1]
        x[0, i] = 7.0
        return x

    same(read, backend, [normal(4, 4), np.array(2)])
    same(read, backend, [normal(4, 4), np.array(-3)])
    same(written, backend, [normal(4, 4), np.array(-1)])
    f = cr.compile(lambda x, i: x[i], backend=backend)
    f(cr.zeros((3,)), cr.asarray(1))
    with pytest.raises(IndexError, match="index 3 is out of bounds"):
        f(cr.zeros((3,)), cr.asarray(3))


@backends
def test_packed_sequences(backend):
    rnn = nn.utils.rnn
    layer, x = nn.GRU(2, 3, num_layers=2).double(), cr.asarray(normal(4, 3, 2))

    def over(packed):
        return layer(layer2(packed)[0])[0]

    layer2 = nn.LSTM(2, 2).double()
    f = cr.compile(over, backend=backend)
    for lengths, ordered in (([2, 4, 1], False), ([4, 2, 1], True), ([4, 3, 3], True)):
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=ordered)
        got, expected = f(packed), over(packed)
        assert type(got) is rnn.PackedSequence
        for a, b in zip(got, expected, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a.detach(), b.detach(), rtol=1e-12)
    g = cr.compile(lambda x, n: over(rnn.pack_padded_sequence(x, n)).data, backend=backend)
    for lengths in ([4, 2, 1], [3, 3, 2]):  # numbers among the arguments are compiled for
        expected = over(rnn.pack_padded_sequence(x, lengths)).data
        np.testing.assert_allclose(g(x, lengths).detach(), expected.detach(), rtol=1e-12)
    assert g.traces == 2
    sizes = cr.compile(lambda data, n: over(rnn.PackedSequence(data, n)).data, backend=backend)
    with pytest.raises(TraceError, match="enforce_sorted=False"):
        sizes(packed.data, packed.batch_sizes)


@backends
def test_long_rows_are_shortened_in_the_table(backend):
    index = cr.asarray([0, 3, 3])
    tables = [nn.Parameter(cr.asarray(normal(5, 4) * 3)) for _ in range(2)]

    def look_up(table, index):
        return F.embedding(index, table, max_norm=1.0)

    compiled = cr.compile(look_up, backend=backend)
    a, b = compiled(tables[0], index), look_up(tables[1], index)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(tables[0].detach().numpy(), tables[1].detach().numpy(), rtol=1e-12)


def test_rows_are_shortened_in_leaves_alone():
    table = cr.asarray(normal(5, 4), requires_grad=True) * 3
    f = cr.compile(lambda table, i: F.embedding(i, table, max_norm=1.0))
    with pytest.raises(GradError, match="leaf"):
        f(table, cr.asarray([0, 3]))
