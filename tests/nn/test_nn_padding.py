"""Padding against numpy.pad, and its derivatives; the shuffling of channels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import nn
from chainrule.autograd import gradcheck, gradgradcheck
from chainrule.errors import ArgumentError, ArgumentTypeError, ShapeError, UnknownNameError
from chainrule.nn import functional as F

NUMPY = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def numbers(shape):
    return np.arange(1.0, 1 + np.prod(shape)).reshape(shape)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(list(NUMPY)), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_pad_is_numpys(mode, shape, data):
    padded = data.draw(st.integers(1, len(shape)))
    pairs = [(0, 0)] * (len(shape) - padded)
    for n in shape[-padded:]:
        most = {"reflect": n - 1, "circular": n}.get(mode, 5)
        pairs.append(data.draw(st.tuples(st.integers(0, most), st.integers(0, most))))
    x = numbers(shape)
    widths = [w for pair in pairs[::-1][:padded] for w in pair]
    got = F.pad(cr.asarray(x), widths, mode)
    np.testing.assert_array_equal(got.numpy(), np.pad(x, pairs, mode=NUMPY[mode]))


@pytest.mark.parametrize("mode", NUMPY)
@pytest.mark.parametrize("widths", [(1, 2, 2, 0), (-1, 2, 1, -1), (-1, -1)])
def test_derivatives(mode, widths):
    x = cr.tensor(np.random.default_rng(0).standard_normal((1, 3, 4)), requires_grad=True)

    def f(x):
        return F.pad(x, widths, mode) ** 3

    assert gradcheck(f, x, atol=1e-6)
    assert gradgradcheck(f, x, atol=1e-5)


def test_negative_widths_cut():
    x = cr.asarray([[1.0, 2, 3, 4]])
    assert F.pad(x, (-1, -2)).tolist() == [[2]]
    assert F.pad(x, (-1, 2), value=9).tolist() == [[2, 3, 4, 9, 9]]
    # Reflected and replicated about the edge of the whole, wrapped around what is left.
    assert F.pad(x, (2, -1), "reflect").tolist() == [[3, 2, 1, 2, 3]]
    assert F.pad(x, (2, -1), "replicate").tolist() == [[1, 1, 1, 2, 3]]
    assert F.pad(x, (2, -1), "circular").tolist() == [[2, 3, 1, 2, 3]]


def test_constants_of_other_dtypes():
    assert F.pad(cr.asarray([1, 2]), (1, 0)).tolist() == [0, 1, 2]
    assert F.pad(cr.asarray([True]), (0, 1), value=True).tolist() == [True, True]
    assert F.pad(cr.zeros((0, 2)), (1, 1)).shape == (0, 4)


def test_errors():
    x = cr.ones((2, 3))
    with pytest.raises(UnknownNameError, match="did you mean 'reflect'"):
        F.pad(x, (1, 1), "reflct")
    with pytest.raises(ArgumentError, match="no value"):
        F.pad(x, (1, 1), "reflect", 0.0)
    for widths in ((1,), (1, 1, 1, 1, 1, 1)):
        with pytest.raises(ShapeError, match="pair"):
            F.pad(x, widths)
    with pytest.raises(
        ShapeError, match=r"reflect padding by \(3, 0\) .* at most 2 .* length is 3"
    ):
        F.pad(x, (3, 0), "reflect")
    with pytest.raises(ShapeError, match="circular"):
        F.pad(x, (0, 4), "circular")
    with pytest.raises(ShapeError, match="replicate"):
        F.pad(cr.ones((2, 0)), (1, 0), "replicate")
    with pytest.raises(ShapeError, match="cuts off more"):
        F.pad(x, (-2, -2))


KINDS = {
    "Constant": ("constant", (7.0,)), "Zero": ("constant", ()), "Reflection": ("reflect", ()),
    "Replication": ("edge", ()), "Circular": ("wrap", ()),
}  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, n):
    mode, value = KINDS[kind]
    options = {"constant_values": value[0]} if value else {}
    made = getattr(nn, f"{kind}Pad{n}d")
    for batch in ((), (2,)):
        x = numbers((*batch, 3, *(3, 4, 5)[:n]))
        still = [(0, 0)] * (len(batch) + 1)
        expected = np.pad(x, still + [(1, 1)] * n, mode=mode, **options)
        np.testing.assert_array_equal(made(1, *value)(cr.asarray(x)).numpy(), expected)
        widths = (1, 2, 0, 1, 2, 1)[: 2 * n]
        pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
        expected = np.pad(x, still + pairs, mode=mode, **options)
        np.testing.assert_array_equal(made(widths, *value)(cr.asarray(x)).numpy(), expected)
    if mode != "constant":
        with pytest.raises(ShapeError, match=f"{kind}Pad{n}d takes inputs of {n + 1} or {n + 2}"):
            made(1)(cr.ones((2,) * n))
    for wrong in ((1, 2, 3), 1.5, (1.0,) * 2 * n):
        with pytest.raises((ArgumentTypeError, TypeError)):
            made(wrong, *value)


def test_channel_shuffle_deals_the_channels_out():
    x = cr.asarray(np.arange(6.0).reshape(1, 6, 1))
    assert nn.ChannelShuffle(2)(x).numpy()[0, :, 0].tolist() == [0, 3, 1, 4, 2, 5]
    assert F.channel_shuffle(F.channel_shuffle(x, 2), 3).tolist() == x.tolist()
    x = cr.tensor(np.random.default_rng(0).standard_normal((1, 4, 2)), requires_grad=True)
    assert gradgradcheck(lambda x: F.channel_shuffle(x, 2), x)
    for groups in (0, 4):
        with pytest.raises(ArgumentError, match="6 channels"):
            F.channel_shuffle(cr.ones((1, 6, 1)), groups)
    with pytest.raises(ShapeError, match="3 axes"):
        F.channel_shuffle(cr.ones((1, 6)), 2)
