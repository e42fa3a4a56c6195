"""Convolution kernels against direct sums, SciPy and JAX.

Inputs hold small whole numbers, so that every sum is exact in any order and results are compared
for equality: one tap too many or too few cannot hide in a tolerance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from chainrule.primitives.kernels import conv


@dataclass(frozen=True)
class Case:
    """Shapes and parameters of one convolution."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def how(self):
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def out(self):
        return conv.output_shape(self.x[2:], self.w[2:], self.stride, self.padding, self.dilation)

    def arrays(self, dtype=np.float64):
        """x, w and g of whole numbers from -4 to 4, the same for the same case."""
        generator = np.random.default_rng(math.prod(self.x) + math.prod(self.w))
        shapes = self.x, self.w, (self.x[0], self.w[0], *self.out)
        return [generator.integers(-4, 5, shape).astype(dtype) for shape in shapes]


def direct(x, w, stride, padding, dilation, groups):
    """The definition: windows of the padded input, summed against the kernel, group by group."""
    axes, kernel = tuple(range(2, x.ndim)), w.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    windows = sliding_window_view(padded, reach, axes)
    steps = [slice(None, None, s) for s in stride] + [slice(None, None, d) for d in dilation]
    windows = windows[(slice(None), slice(None), *steps)]
    taps = tuple(range(x.ndim, x.ndim + len(kernel)))
    parts = [
        np.tensordot(window, weight, axes=((1, *taps), tuple(range(1, w.ndim))))
        for window, weight in zip(np.split(windows, groups, 1), np.split(w, groups), strict=True)
    ]
    return np.moveaxis(np.concatenate(parts, -1), -1, 1)


def check(case, dtype=np.float64):
    """Forward against the definition, and both adjoints by inner products with it."""
    x, w, g = case.arrays(dtype)
    expected = direct(x, w, *case.how)
    y = conv.conv_forward(x, w, *case.how)
    dx = conv.conv_backward_input(g, w, case.x[2:], *case.how)
    dw = conv.conv_backward_weight(x, g, case.w[2:], *case.how)
    assert y.dtype == dx.dtype == dw.dtype == dtype
    assert dx.shape == case.x and dw.shape == case.w
    np.testing.assert_array_equal(y, expected)
    # dx does not depend on x: agreement with a fresh x settles each of its entries.
    generator = np.random.default_rng(7)
    for _ in range(2):
        a = generator.integers(-99, 100, x.shape).astype(np.float64)
        b = generator.integers(-99, 100, w.shape).astype(np.float64)
        assert np.vdot(dx.astype(np.float64), a) == np.vdot(direct(a, w, *case.how), g)
        assert np.vdot(dw.astype(np.float64), b) == np.vdot(direct(x, b, *case.how), g)


@st.composite
def cases(draw):
    n_axes = draw(st.integers(1, 3))

    def each(values):
        return tuple(draw(st.lists(values, min_size=n_axes, max_size=n_axes)))

    kernel, stride = each(st.integers(1, 4 if n_axes < 3 else 3)), each(st.integers(1, 3))
    if draw(st.booleans()):  # stride 1 everywhere takes a way of its own
        stride = (1,) * n_axes
    padding = each(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    dilation, extra = each(st.integers(1, 3)), each(st.integers(0, 5))
    spatial = tuple(
        max(1, d * (k - 1) + 1 - lo - hi) + more
        for k, (lo, hi), d, more in zip(kernel, padding, dilation, extra, strict=True)
    )
    groups, n = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    c, o = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x, w = (n, groups * c, *spatial), (groups * o, c, *kernel)
    return Case(x, w, stride, padding, dilation, groups)


@settings(max_examples=500, deadline=None)
@given(cases(), st.sampled_from([np.float64, np.float32]))
def test_against_the_definition(case, dtype):
    check(case, dtype)


@settings(max_examples=400, deadline=None)
@given(cases(), st.integers(1, 20_000), st.integers(1, 20_000))
def test_chunks_and_blocks_do_not_change_the_result(case, chunk, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "CHUNK_BYTES", chunk)
        patch.setattr(conv, "BLOCK_BYTES", block)
        check(case)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_padded_grid_at_any_waste(case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "WASTE", 100.0)
        check(case)


ONE, TWO = (1, 1), (2, 2)
NONE, SAME = ((0, 0),) * 2, ((1, 1),) * 2
NAMED = {
    "lenet first": Case((3, 1, 28, 28), (6, 1, 5, 5), ONE, ((2, 2),) * 2, ONE),
    "lenet second": Case((3, 6, 14, 14), (16, 6, 5, 5), ONE, NONE, ONE),
    "resnet": Case((2, 16, 32, 32), (16, 16, 3, 3), ONE, SAME, ONE),
    "resnet down": Case((2, 16, 32, 32), (32, 16, 3, 3), TWO, SAME, ONE),
    "pointwise": Case((2, 8, 9, 7), (5, 8, 1, 1), ONE, NONE, ONE),
    "pointwise down": Case((2, 8, 9, 8), (5, 8, 1, 1), TWO, NONE, ONE),
    "pointwise padded": Case((2, 3, 4, 5), (2, 3, 1, 1), ONE, ((1, 2), (0, 1)), ONE),
    "pointwise groups": Case((2, 8, 6, 6), (4, 2, 1, 1), (3, 2), NONE, ONE, 4),
    "depthwise": Case((2, 12, 10, 10), (12, 1, 3, 3), ONE, SAME, ONE, 12),
    "depthwise down": Case((2, 12, 10, 10), (24, 1, 3, 3), TWO, SAME, ONE, 12),
    "depthwise single out": Case((2, 12, 10, 10), (12, 1, 5, 5), (3, 2), SAME, TWO, 12),
    "whole image": Case((4, 16, 5, 5), (20, 16, 5, 5), ONE, NONE, ONE),
    "patches": Case((2, 3, 16, 16), (8, 3, 4, 4), (4, 4), NONE, ONE),
    "stem": Case((1, 3, 33, 35), (4, 3, 7, 7), TWO, ((3, 3),) * 2, ONE),
    "dilated": Case((2, 4, 17, 15), (6, 4, 3, 3), ONE, ((2, 2),) * 2, TWO),
    "padding beyond the kernel": Case((1, 2, 4, 4), (3, 2, 2, 2), ONE, ((4, 5),) * 2, ONE),
    "stride beyond the kernel": Case((1, 2, 11, 12), (3, 2, 2, 2), (4, 5), NONE, ONE),
    "leftover rows": Case((1, 2, 8, 10), (3, 2, 3, 3), (4, 3), NONE, ONE),
    "wavenet": Case((2, 4, 50), (6, 4, 2), (1,), ((8, 0),), (8,)),
    "video": Case((2, 3, 6, 7, 8), (4, 3, 3, 3, 3), (1, 2, 1), ((1, 1),) * 3, (1, 1, 1)),
    "four axes": Case((1, 2, 4, 4, 3, 5), (3, 2, 2, 2, 2, 2), (1,) * 4, ((0, 1),) * 4, (1,) * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_named_layers(name):
    check(NAMED[name])


@pytest.mark.parametrize("name", [n for n, case in NAMED.items() if len(case.x) < 6])
def test_against_jax(name):
    case = NAMED[name]
    x, w, g = case.arrays(np.float32)

    def forward(x, w):
        return jax.lax.conv_general_dilated(
            x, w, case.stride, case.padding, rhs_dilation=case.dilation,
            feature_group_count=case.groups,
        )  # fmt: skip

    y, pullback = jax.vjp(forward, x, w)
    dx, dw = pullback(g)
    np.testing.assert_array_equal(conv.conv_forward(x, w, *case.how), y)
    ours = conv.conv_backward_input(g, w, case.x[2:], *case.how)
    np.testing.assert_array_equal(ours, dx)
    np.testing.assert_array_equal(conv.conv_backward_weight(x, g, case.w[2:], *case.how), dw)


@pytest.mark.parametrize("n_axes", [1, 2, 3])
def test_against_scipy(n_axes):
    generator = np.random.default_rng(n_axes)
    x, w = generator.normal(size=(9, 8, 7)[:n_axes]), generator.normal(size=(3, 2, 4)[:n_axes])
    y = conv.conv_forward(x[None, None], w[None, None], (1,) * n_axes, ((0, 0),) * n_axes,
                          (1,) * n_axes, 1)  # fmt: skip
    expected = scipy.signal.correlate(x, w, mode="valid", method="direct")
    np.testing.assert_allclose(y[0, 0], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("spatial", "kernel", "stride", "padding", "dilation", "expected"),
    [
        ((28, 28), (5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1), (28, 28)),
        ((32,), (3,), (2,), ((1, 1),), (1,), (16,)),
        ((7,), (3,), (2,), ((0, 1),), (1,), (3,)),
        ((7,), (3,), (1,), ((0, 0),), (3,), (1,)),
        ((2,), (3,), (1,), ((0, 0),), (1,), (0,)),
    ],
)
def test_output_shape(spatial, kernel, stride, padding, dilation, expected):
    assert conv.output_shape(spatial, kernel, stride, padding, dilation) == expected


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("empty", ["batch", "input channels", "output channels"])
def test_empty(empty, stride, size):
    n, c, o = (0 if empty == name else 2 for name in ("batch", "input channels", "output channels"))
    case = Case((n, c, 5, 6), (o, c, size, size), (stride,) * 2, NONE, ONE)
    x, w, g = case.arrays(np.float32)
    results = (
        conv.conv_forward(x, w, *case.how),
        conv.conv_backward_input(g, w, case.x[2:], *case.how),
        conv.conv_backward_weight(x, g, case.w[2:], *case.how),
    )
    for result, shape in zip(results, (g.shape, x.shape, w.shape), strict=True):
        assert result.shape == shape and result.dtype == np.float32
        assert not result.any()


def test_a_window_of_padding_alone_gives_zero():
    case = Case((2, 3, 0), (4, 3, 2), (1,), ((1, 1),), (1,))
    x, w, g = case.arrays()
    assert g.shape == (2, 4, 1)
    np.testing.assert_array_equal(conv.conv_forward(x, w, *case.how), np.zeros((2, 4, 1)))
    assert conv.conv_backward_input(g, w, (0,), *case.how).shape == (2, 3, 0)
    dw = conv.conv_backward_weight(x, g, (2,), *case.how)
    np.testing.assert_array_equal(dw, np.zeros((4, 3, 2)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("image", "corner", "tap"), [(1, (0, 0), (0, 0)), (0, (0, 8), (0, 2)), (0, (8, 0), (2, 0))]
)
def test_infinities_and_nans_stay_where_they_belong(value, stride, image, corner, tap):
    """A corner meets one tap of its channel and must not spoil the others."""
    case = Case((2, 2, 9, 9), (3, 2, 3, 3), (stride,) * 2, NONE, ONE)
    x, w, g = case.arrays()
    x[(image, 1, *corner)] = value
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(conv.conv_forward(x, w, *case.how), direct(x, w, *case.how))
        dw = conv.conv_backward_weight(x, g, (3, 3), *case.how)
        spoiled = np.zeros(w.shape, bool)
        spoiled[(slice(None), 1, *tap)] = True
        np.testing.assert_array_equal(~np.isfinite(dw), spoiled)
        clean = np.where(np.isfinite(x), x, 0)
        expected = conv.conv_backward_weight(clean, g, (3, 3), *case.how)
        np.testing.assert_array_equal(dw[~spoiled], expected[~spoiled])


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("shape", [(8, 2), (2, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_spoiled_weight_reaches_only_its_positions(value, shape, stride):
    case = Case((2, shape[1], 9, 9), (*shape, 3, 3), (stride,) * 2, NONE, ONE)
    _, w, g = case.arrays()
    g += 5  # no zeros, so that an infinity stays one
    w[:, 0, 2, 2] = value
    with np.errstate(invalid="ignore"):
        dx = conv.conv_backward_input(g, w, (9, 9), *case.how)
    spoiled = np.zeros(dx.shape, bool)
    spoiled[:, 0, 2::stride, 2::stride] = True
    np.testing.assert_array_equal(~np.isfinite(dx), spoiled)


@pytest.mark.parametrize("name", ["lenet second", "resnet down", "pointwise down", "depthwise"])
def test_any_memory_layout_and_no_input_is_written(name):
    case = NAMED[name]
    x, w, g = case.arrays(np.float32)
    before = [a.copy() for a in (x, w, g)]
    plain = (
        conv.conv_forward(x, w, *case.how),
        conv.conv_backward_input(g, w, case.x[2:], *case.how),
        conv.conv_backward_weight(x, g, case.w[2:], *case.how),
    )
    for a, b in zip((x, w, g), before, strict=True):
        np.testing.assert_array_equal(a, b)
        a.flags.writeable = False
    odd = [np.asfortranarray(x), w[::-1].copy()[::-1], np.repeat(g, 2, axis=1)[:, ::2]]
    assert not any(a.flags.c_contiguous for a in odd)
    again = (
        conv.conv_forward(odd[0], odd[1], *case.how),
        conv.conv_backward_input(odd[2], odd[1], case.x[2:], *case.how),
        conv.conv_backward_weight(odd[0], odd[2], case.w[2:], *case.how),
    )
    for a, b in zip(plain, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_repeats_bit_for_bit():
    case = NAMED["resnet"]
    generator = np.random.default_rng(0)
    x, w, g = (generator.normal(size=a.shape).astype(np.float32) for a in case.arrays())
    runs = [
        (
            conv.conv_forward(x, w, *case.how).tobytes(),
            conv.conv_backward_input(g, w, case.x[2:], *case.how).tobytes(),
            conv.conv_backward_weight(x, g, case.w[2:], *case.how).tobytes(),
        )
        for _ in range(3)
    ]
    assert runs[0] == runs[1] == runs[2]


def test_float32_stays_close_to_float64():
    case = NAMED["resnet down"]
    generator = np.random.default_rng(0)
    x, w, g = (generator.normal(size=a.shape) for a in case.arrays())
    small = [a.astype(np.float32) for a in (x, w, g)]
    wide = [a.astype(np.float64) for a in small]
    for single, double in (
        (conv.conv_forward(*small[:2], *case.how), conv.conv_forward(*wide[:2], *case.how)),
        (
            conv.conv_backward_input(small[2], small[1], case.x[2:], *case.how),
            conv.conv_backward_input(wide[2], wide[1], case.x[2:], *case.how),
        ),
        (
            conv.conv_backward_weight(small[0], small[2], case.w[2:], *case.how),
            conv.conv_backward_weight(wide[0], wide[2], case.w[2:], *case.how),
        ),
    ):
        assert np.linalg.norm(single - double) < 1e-6 * np.linalg.norm(double)
