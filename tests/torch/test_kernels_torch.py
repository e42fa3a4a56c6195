"""Kernels against PyTorch: convolution, its transpose, and pooling, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chainrule.primitives.kernels import conv, pool

torch = pytest.importorskip("torch")
F = torch.nn.functional

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def whole(seed, *shape):
    """Whole numbers, so that every sum is exact and results are compared for equality."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


def each(draw, n_axes, low, high):
    return tuple(draw(st.lists(st.integers(low, high), min_size=n_axes, max_size=n_axes)))


def both_ends(padding):
    return tuple((p, p) for p in padding)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_convolution_and_its_gradients(data, n_axes):
    draw = data.draw
    kernel, stride = each(draw, n_axes, 1, 3), each(draw, n_axes, 1, 3)
    padding, dilation = each(draw, n_axes, 0, 3), each(draw, n_axes, 1, 2)
    groups, c, o = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    spatial = tuple(
        d * (k - 1) + 1 + more
        for d, k, more in zip(dilation, kernel, each(draw, n_axes, 0, 5), strict=True)
    )
    x, w = whole(0, 2, groups * c, *spatial), whole(1, groups * o, c, *kernel)
    how = stride, both_ends(padding), dilation, groups
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    ty = CONV[n_axes](tx, tw, None, stride, padding, dilation, groups)
    g = whole(2, *ty.shape)
    ty.backward(torch.tensor(g))
    np.testing.assert_array_equal(conv.conv_forward(x, w, *how), ty.detach().numpy())
    dx = conv.conv_backward_input(g, w, spatial, *how)
    np.testing.assert_array_equal(dx, tx.grad.numpy())
    dw = conv.conv_backward_weight(x, g, kernel, *how)
    np.testing.assert_array_equal(dw, tw.grad.numpy())


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_transposed_convolution(data, n_axes):
    draw = data.draw
    kernel, stride = each(draw, n_axes, 1, 4), each(draw, n_axes, 1, 3)
    dilation, size = each(draw, n_axes, 1, 2), each(draw, n_axes, 1, 4)
    padding = tuple(
        draw(st.integers(0, d * (k - 1))) for d, k in zip(dilation, kernel, strict=True)
    )
    extra = tuple(
        draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
    )
    groups, c, o = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    spatial = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + e
        for n, s, p, d, k, e in zip(size, stride, padding, dilation, kernel, extra, strict=True)
    )
    how = stride, both_ends(padding), dilation, groups
    # An output padding beyond the stride would add output positions to the forward convolution.
    assume(all(n > 0 for n in spatial))
    assume(conv.output_shape(spatial, kernel, *how[:3]) == size)
    x, w = whole(0, 2, groups * c, *size), whole(1, groups * c, o, *kernel)
    expected = TRANSPOSED[n_axes](
        torch.tensor(x), torch.tensor(w), None, stride, padding, extra, groups, dilation
    )
    np.testing.assert_array_equal(conv.conv_backward_input(x, w, spatial, *how), expected.numpy())


@st.composite
def pools(draw, dilated):
    n_axes = draw(st.integers(1, 3))
    kernel, stride = each(draw, n_axes, 1, 4), each(draw, n_axes, 1, 4)
    dilation = each(draw, n_axes, 1, 2) if dilated else (1,) * n_axes
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    spatial = tuple(
        max(1, d * (k - 1) + 1 - 2 * p) + more
        for d, k, p, more in zip(dilation, kernel, padding, each(draw, n_axes, 0, 6), strict=True)
    )
    return spatial, kernel, stride, padding, dilation, draw(st.booleans())


@settings(max_examples=300, deadline=None)
@given(pools(dilated=True), st.booleans())
def test_max_pool_with_indices(case, special):
    spatial, kernel, stride, padding, dilation, ceil_mode = case
    x = whole(3, 2, 3, *spatial)
    if special:
        x[x == 4], x[x == -4] = np.nan, -np.inf
    best, expected = MAX_POOL[len(kernel)](
        torch.tensor(x), kernel, stride, padding, dilation, ceil_mode, return_indices=True
    )
    how = kernel, stride, both_ends(padding), dilation
    out = pool.pool_output_shape(spatial, *how, ceil_mode)
    assert out == tuple(best.shape[2:])
    index = pool.max_pool_argmax(x, *how, out)
    met = index >= 0  # PyTorch gives -inf and an index out of range for a window of padding alone
    values = np.take_along_axis(x.reshape(2, 3, -1), index.reshape(2, 3, -1), -1)
    values = np.where(met, values.reshape(best.shape), -np.inf)
    np.testing.assert_array_equal(values, best.numpy())
    np.testing.assert_array_equal(index[met], expected.numpy()[met])


@settings(max_examples=300, deadline=None)
@given(pools(dilated=False), st.booleans())
def test_average_pool_and_its_gradient(case, count_padding):
    spatial, kernel, stride, padding, dilation, ceil_mode = case
    x = whole(4, 2, 3, *spatial)
    tx = torch.tensor(x, requires_grad=True)
    assume(all(x >= k for x, k in zip(spatial, kernel, strict=True)))  # else PyTorch refuses it
    ty = AVG_POOL[len(kernel)](tx, kernel, stride, padding, ceil_mode, count_padding)
    g = np.random.default_rng(5).normal(size=tuple(ty.shape))
    ty.backward(torch.tensor(g))
    how = kernel, stride, both_ends(padding), dilation
    out = pool.pool_output_shape(spatial, *how, ceil_mode)
    assert out == tuple(ty.shape[2:])
    ones = np.ones((1, 1, *spatial))
    if count_padding:  # positions of the padding count, those beyond it do not
        wide = np.ones((1, 1, *(x + 2 * p for x, p in zip(spatial, padding, strict=True))))
        count = pool.window_sum(wide, kernel, stride, ((0, 0),) * len(kernel), dilation, out)
    else:
        count = pool.window_sum(ones, *how, out)
    y = pool.window_sum(x, *how, out) / count
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-14, atol=1e-14)
    dx = pool.window_spread(g / count, *how, spatial)
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-13, atol=1e-13)
