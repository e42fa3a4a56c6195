"""Layers against independent references: JAX, SciPy, NumPy, and definitions written as loops."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

import chainrule as cr
import chainrule.nn.functional as F
from chainrule import nn

jax.config.update("jax_enable_x64", True)

LAYOUT = {1: ("NCH", "OIH", "NCH"), 2: ("NCHW", "OIHW", "NCHW"), 3: ("NCDHW", "OIDHW", "NCDHW")}


def random(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def same(ours, reference, tolerance=1e-12):
    ours = np.asarray(ours.detach()) if isinstance(ours, cr.Tensor) else ours
    assert ours.shape == np.shape(reference)
    np.testing.assert_allclose(ours, np.asarray(reference), rtol=tolerance, atol=tolerance)


def jax_conv(x, w, stride, padding, dilation, groups):
    return jax.lax.conv_general_dilated(
        x, w, stride, padding, rhs_dilation=dilation, feature_group_count=groups,
        dimension_numbers=LAYOUT[x.ndim - 2],
    )  # fmt: skip


# --- convolution ----------------------------------------------------------------------------------


@st.composite
def convolutions(draw):
    n = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    small = st.integers(1, 3)
    kernel = [draw(small) for _ in range(n)]
    dilation = [draw(small) for _ in range(n)]
    padding = [draw(st.integers(0, 3)) for _ in range(n)]
    spatial = [
        max(d * (k - 1) + 1 - 2 * p, 1) + draw(st.integers(0, 4))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    stride = [draw(small) for _ in range(n)]
    channels, out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    x = random(draw(st.integers(1, 2)), channels, *spatial)
    w = random(out, channels // groups, *kernel)
    return x, w, stride, padding, dilation, groups


def convolved(x, w, stride, padding, dilation, groups):
    """The definition: for each element of the kernel, the inputs that it meets."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    grid = [
        (m - d * (k - 1) - 1) // s + 1
        for m, d, k, s in zip(x.shape[2:], dilation, w.shape[2:], stride, strict=True)
    ]
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, *grid))
    xs = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    ws = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    for tap in np.ndindex(*w.shape[2:]):
        met = tuple(
            slice(t * d, t * d + (m - 1) * s + 1, s)
            for t, d, m, s in zip(tap, dilation, grid, stride, strict=True)
        )
        y += np.einsum("ngc...,goc->ngo...", xs[(..., *met)], ws[(..., *tap)])
    return y.reshape(x.shape[0], w.shape[0], *grid)


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_convolution_and_its_adjoint(case):
    x, w, stride, padding, dilation, groups = case
    n = x.ndim - 2
    reference = convolved(x, w, stride, padding, dilation, groups)
    bias = random(w.shape[0])
    ours = getattr(F, f"conv{n}d")(x, w, bias, stride, padding, dilation, groups)
    same(ours, reference + bias.reshape(-1, *(1,) * n))
    # The transposed convolution is the linear map's transpose: <conv(x), y> = <x, conv^T(y)>.
    y = random(*reference.shape, seed=1)
    fits = [
        (m + 2 * p - d * (k - 1) - 1) % s
        for m, p, d, k, s in zip(x.shape[2:], padding, dilation, w.shape[2:], stride, strict=True)
    ]
    back = getattr(F, f"conv_transpose{n}d")(y, w, None, stride, padding, fits, groups, dilation)
    assert back.shape == x.shape
    for seed in (2, 3):
        other = random(*x.shape, seed=seed)
        left = np.vdot(convolved(other, w, stride, padding, dilation, groups), y)
        assert np.vdot(other, np.asarray(back)) == pytest.approx(left, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_convolution_is_jax_s(n):
    x, w = random(2, 4, *(9, 8, 7)[:n]), random(6, 2, *(3, 2, 2)[:n])
    how = (2, 1, 3)[:n], (1, 0, 2)[:n], (2, 1, 1)[:n], 2
    pairs = [(p, p) for p in how[1]]
    ours = getattr(F, f"conv{n}d")(x, w, None, *how)
    same(ours, jax_conv(x, w, how[0], pairs, how[2], how[3]))


def test_a_convolution_is_scipy_s_correlation():
    x, w = random(7, 9), random(3, 4)
    same(F.conv2d(x[None, None], w[None, None])[0, 0], signal.correlate2d(x, w, "valid"))
    true = F.conv2d(x[None, None], w[None, None, ::-1, ::-1].copy())[0, 0]
    same(true, signal.convolve2d(x, w, "valid"))


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_is_jax_s(kernel, dilation):
    x, w = random(1, 2, 9), random(3, 2, kernel)
    ours = F.conv1d(x, w, padding="same", dilation=dilation)
    same(ours, jax_conv(x, w, (1,), "SAME", (dilation,), 1))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_are_numpy_s(mode):
    layer = nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode=mode, dtype=cr.float64)
    x = random(2, 2, 5, 6)
    numpys = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)), mode=numpys)
    same(layer(x), F.conv2d(padded, layer.weight, layer.bias).detach())


def test_sizes_of_the_lecture():
    x = cr.zeros((1, 1, 5, 7))
    assert nn.Conv2d(1, 1, 3, padding="same")(x).shape == (1, 1, 5, 7)
    assert nn.Conv2d(1, 1, 3, stride=2, padding=1)(x).shape == (1, 1, 3, 4)
    counted = nn.Conv2d(1, 300, 3), nn.Conv2d(3, 300, 3), nn.Linear(784, 300)
    assert [sum(p.size for p in layer.parameters()) for layer in counted] == [
        3_000, 8_400, 235_500,
    ]  # fmt: skip


def test_a_pointwise_convolution_is_a_dense_layer_at_every_pixel():
    conv = nn.Conv2d(3, 4, 1)
    x = cr.random.normal((2, 3, 5, 6))
    dense = F.linear(x.permute_dims(0, 2, 3, 1), conv.weight.reshape(4, 3), conv.bias)
    same(conv(x), dense.permute_dims(0, 3, 1, 2).detach(), 1e-5)


# --- pooling --------------------------------------------------------------------------------------


@st.composite
def poolings(draw):
    n = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 4)) for _ in range(n)]
    stride = [draw(st.integers(1, 3)) for _ in range(n)]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    spatial = [k + draw(st.integers(0, 5)) for k in kernel]
    return random(2, 2, *spatial), kernel, stride, padding


def pooled(x, fill, function, kernel, stride, padding):
    """A function of each window, with `fill` around the input."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=fill)
    axes = tuple(range(2, x.ndim))
    views = np.lib.stride_tricks.sliding_window_view(x, kernel, axes)
    views = views[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]
    return function(views, axis=tuple(range(x.ndim, views.ndim)))


@settings(max_examples=60, deadline=None)
@given(poolings())
def test_pooling(case):
    x, kernel, stride, padding = case
    n = x.ndim - 2
    ours = getattr(F, f"max_pool{n}d")(x, kernel, stride, padding)
    same(ours, pooled(x, -np.inf, np.max, kernel, stride, padding))
    total = pooled(x, 0, np.sum, kernel, stride, padding)
    count = pooled(np.ones_like(x), 0, np.sum, kernel, stride, padding)
    average = getattr(F, f"avg_pool{n}d")
    same(average(x, kernel, stride, padding), total / np.prod(kernel))
    same(average(x, kernel, stride, padding, count_include_pad=False), total / count)
    power = pooled(np.abs(x) ** 3, 0, np.sum, kernel, stride, [0] * n)
    same(getattr(F, f"lp_pool{n}d")(np.abs(x), 3, kernel, stride), power ** (1 / 3))


@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 2, 5, 8), (1, 2, 4, 3, 5)])
def test_adaptive_pooling(shape):
    n, x = len(shape) - 2, random(*shape)
    for out in itertools.product((1, 2, 3, 5), repeat=n):
        mean, top = np.empty((*shape[:2], *out)), np.empty((*shape[:2], *out))
        for place in np.ndindex(*out):
            box = tuple(
                slice(i * m // k, -(-(i + 1) * m // k))
                for i, m, k in zip(place, shape[2:], out, strict=True)
            )
            part = x[(..., *box)].reshape(*shape[:2], -1)
            mean[(..., *place)], top[(..., *place)] = part.mean(-1), part.max(-1)
        same(getattr(F, f"adaptive_avg_pool{n}d")(x, out), mean)
        values, index = getattr(F, f"adaptive_max_pool{n}d")(x, out, return_indices=True)
        same(values, top, 0)
        flat = np.take_along_axis(
            x.reshape(*shape[:2], -1), np.asarray(index).reshape(*shape[:2], -1), -1
        )
        same(values, flat.reshape(top.shape), 0)


@pytest.mark.parametrize("n", [2, 3])
def test_fractional_pooling(n):
    shape, out, kernel = (2, 3, *(9, 8, 7)[:n]), (4, 3, 5)[:n], (2, 3, 2)[:n]
    x = random(*shape)
    layer = getattr(nn, f"FractionalMaxPool{n}d")(kernel, out, return_indices=True)
    cr.manual_seed(1)
    y, index = layer(x)
    assert y.shape == (2, 3, *out)
    flat = np.take_along_axis(x.reshape(6, -1), np.asarray(index).reshape(6, -1), 1)
    same(y, flat.reshape(y.shape), 0)
    u = np.random.default_rng(2).random((2, 3, n))
    y = getattr(F, f"fractional_max_pool{n}d")(x, kernel, out, _random_samples=u)
    for image, channel in np.ndindex(2, 3):
        starts = []
        for axis in range(n):
            sample = u[image, channel, 1 - axis if n == 2 else axis]
            alpha = (shape[2 + axis] - kernel[axis]) / (out[axis] - 1)
            starts.append(
                [int((i + sample) * alpha) - int(sample * alpha) for i in range(out[axis])]
            )
            starts[-1][-1] = shape[2 + axis] - kernel[axis]
        for place in np.ndindex(*out):
            box = tuple(slice(starts[a][i], starts[a][i] + kernel[a]) for a, i in enumerate(place))
            assert y[(image, channel, *place)].item() == x[(image, channel, *box)].max()
    samples = cr.asarray(u)
    assert cr.autograd.gradcheck(
        lambda x: F.fractional_max_pool2d(x, 2, output_ratio=0.6, _random_samples=samples[..., :2]),
        cr.asarray(random(2, 3, 5, 4), requires_grad=True),
    )
    for how in ({}, {"output_size": 2, "output_ratio": 0.5}, {"output_ratio": 1.5}):
        with pytest.raises(cr.errors.ArgumentError):
            getattr(nn, f"FractionalMaxPool{n}d")(2, **how)
    with pytest.raises(cr.errors.ShapeError, match="do not fit"):
        getattr(F, f"fractional_max_pool{n}d")(x, 5, 7)


def test_max_pooling_of_special_values():
    x = cr.asarray([[[1.0, np.nan, 2.0, -np.inf, -np.inf, 3.0, 3.0, 1.0]]], requires_grad=True)
    y, index = F.max_pool1d(x, 2, return_indices=True)
    assert np.isnan(y[0, 0, 0].item())
    assert y[0, 0, 1:].tolist() == [2, 3, 3]
    assert index[0, 0].tolist() == [1, 2, 5, 6]
    y.sum().backward()
    assert x.grad[0, 0].tolist() == [0, 1, 1, 0, 0, 1, 1, 0]
    # All windows of a dilated kernel may step over a short input: the maximum of nothing.
    assert F.max_pool1d(cr.ones((1, 1, 1)), 2, padding=1, dilation=2).tolist() == [[[-np.inf]]]
    ints = cr.asarray([[[3, 1, 2, 7]]])
    assert F.max_pool1d(ints, 2).tolist() == [[[3, 7]]]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_puts_every_maximum_back(n):
    shape = (2, 3, *(7, 6, 4)[:n])
    x = random(*shape)
    y, index = getattr(F, f"max_pool{n}d")(x, 2, return_indices=True)
    back = np.asarray(getattr(F, f"max_unpool{n}d")(y, index, 2, output_size=shape))
    assert back.shape == shape
    assert ((back == 0) | (back == x)).all()
    assert (back != 0).sum() == y.size
    with pytest.raises(cr.errors.ArgumentError, match="output_size"):
        getattr(F, f"max_unpool{n}d")(y, index, 2, output_size=(20,) * n)
    with pytest.raises(cr.errors.ShapeError, match="indices of shape"):
        getattr(F, f"max_unpool{n}d")(y, index[:1], 2)
    with pytest.raises(IndexError):
        getattr(F, f"max_unpool{n}d")(y, index + 1000, 2)


def test_what_pooling_refuses():
    x = cr.ones((1, 1, 4))
    for how, match in (
        ({"kernel_size": 0}, "at least 1"), ({"kernel_size": 2, "stride": 0}, "at least 1"),
        ({"kernel_size": 2, "padding": 2}, "half"), ({"kernel_size": 5}, "no output"),
        ({"kernel_size": (2, 2)}, "1 or 1 integers"), ({"kernel_size": 1.5}, "integer"),
    ):  # fmt: skip
        with pytest.raises(cr.errors.ChainruleError, match=match):
            F.max_pool1d(x, **how)
    with pytest.raises(cr.errors.DTypeError, match="int64"):
        F.avg_pool1d(cr.ones((1, 1, 4), dtype=cr.int64), 2)
    with pytest.raises(cr.errors.ArgumentError, match="divisor_override"):
        F.avg_pool2d(cr.ones((1, 1, 4, 4)), 2, divisor_override=0)


# --- normalisation --------------------------------------------------------------------------------


def normalised(x, axes, eps):
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


def along(v, x):
    return v.reshape(1, -1, *(1,) * (x.ndim - 2))


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 5), (2, 4, 3, 5), (2, 4, 2, 3, 2)])
def test_normalisation(shape):
    x, gamma, beta = random(*shape) * 3 + 1, random(4, seed=1), random(4, seed=2)
    spatial, batch = tuple(range(2, x.ndim)), (0, *range(2, x.ndim))
    expected = normalised(x, batch, 1e-3) * along(gamma, x) + along(beta, x)
    same(F.batch_norm(x, None, None, gamma, beta, True, eps=1e-3), expected)
    mean, var = random(4, seed=3), random(4, seed=4) ** 2
    expected = (x - along(mean, x)) / np.sqrt(along(var, x) + 1e-5)
    expected = expected * along(gamma, x) + along(beta, x)
    same(F.batch_norm(x, cr.asarray(mean), cr.asarray(var), gamma, beta), expected)
    if spatial:
        expected = normalised(x, spatial, 1e-5) * along(gamma, x) + along(beta, x)
        same(F.instance_norm(x, weight=gamma, bias=beta), expected)
    grouped = normalised(x.reshape(shape[0], 2, -1), (2,), 1e-5).reshape(shape)
    same(F.group_norm(x, 2, gamma, beta), grouped * along(gamma, x) + along(beta, x))
    for k in range(1, x.ndim):
        last = tuple(range(x.ndim - k, x.ndim))
        same(F.layer_norm(x, shape[-k:]), normalised(x, last, 1e-5))
        rms = x / np.sqrt((x**2).mean(last, keepdims=True) + 1e-2)
        same(F.rms_norm(x, shape[-k:], eps=1e-2), rms)


def test_running_averages():
    norm = nn.BatchNorm2d(3, momentum=0.2, dtype=cr.float64)
    plain = nn.BatchNorm2d(3, momentum=None, dtype=cr.float64)
    mean, var, means, variances = np.zeros(3), np.ones(3), [], []
    for i in range(4):
        x = random(4, 3, 5, 2, seed=i) * (i + 1) + i
        norm(x), plain(x)
        means.append(x.mean((0, 2, 3)))
        variances.append(x.var((0, 2, 3), ddof=1))
        mean, var = 0.8 * mean + 0.2 * means[-1], 0.8 * var + 0.2 * variances[-1]
    same(norm.running_mean, mean)
    same(norm.running_var, var)
    same(plain.running_mean, np.mean(means, 0))
    same(plain.running_var, np.mean(variances, 0))
    assert norm.num_batches_tracked.item() == 4
    norm.reset_running_stats()
    assert norm.running_mean.tolist() == [0, 0, 0]
    assert norm.running_var.tolist() == [1, 1, 1]
    assert norm.num_batches_tracked.item() == 0
    assert not norm.running_mean.requires_grad


def test_an_empty_batch_leaves_the_averages_alone():
    norm = nn.BatchNorm1d(3)
    assert norm(cr.zeros((0, 3))).shape == (0, 3)
    assert norm.running_mean.tolist() == [0, 0, 0]


def test_layer_norm_does_not_see_the_scale_of_the_layer_before():
    x, w = random(4, 6), random(5, 6, seed=1)
    unscaled = F.layer_norm(F.linear(x, w), 5, eps=0.0)
    same(F.layer_norm(F.linear(x, 7.5 * w), 5, eps=0.0), unscaled, 1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_local_response_norm(size):
    x = random(2, 5, 3, 2)
    expected = np.empty_like(x)
    for c in range(5):
        first = max(c - size // 2, 0)
        last = min(c - size // 2 + size, 5)
        around = (x[:, first:last] ** 2).sum(1)
        expected[:, c] = x[:, c] / (1.5 + 0.3 / size * around) ** 0.6
    same(F.local_response_norm(x, size, 0.3, 0.6, 1.5), expected)


def test_what_normalisation_refuses():
    for call in (
        lambda: F.batch_norm(random(1, 3), None, None, training=True),
        lambda: F.instance_norm(random(2, 3, 1)),
        lambda: F.group_norm(random(1, 3), 3),
        lambda: F.layer_norm(random(2, 3), 2),
        lambda: F.layer_norm(random(2, 3), 3, random(2)),
        lambda: F.batch_norm(random(2, 3), None, None, random(2), training=True),
    ):
        with pytest.raises(cr.errors.ShapeError):
            call()
    with pytest.raises(cr.errors.ArgumentError, match="running_mean"):
        F.batch_norm(random(2, 3), None, None)
    with pytest.raises(cr.errors.ArgumentError, match="divide"):
        F.group_norm(random(2, 4), 3)
    with pytest.raises(cr.errors.ArgumentError, match="divisible"):
        nn.GroupNorm(3, 4)
    with pytest.raises(cr.errors.DTypeError):
        nn.LayerNorm(3)(random(2, 3))


# --- linear ---------------------------------------------------------------------------------------


def test_linear_and_bilinear():
    x, w, b = random(2, 3, 4), random(5, 4), random(5)
    same(F.linear(x, w, b), x @ w.T + b)
    same(F.linear(x, w[0]), x @ w[0])
    x2, w3 = random(2, 3, 6), random(5, 4, 6)
    same(F.bilinear(x, x2, w3, b), np.einsum("abi,oij,abj->abo", x, w3, x2) + b)
    with pytest.raises(cr.errors.ShapeError, match=r"\(\.\.\., 4\) and \(\.\.\., 6\)"):
        F.bilinear(x, x2[:1], w3)


def test_what_convolution_refuses():
    x, w = random(1, 2, 8), random(4, 2, 3)
    for how, match in (
        ({"stride": 0}, "at least 1"), ({"padding": -1}, "at least 0"),
        ({"padding": "full"}, "'same' or 'valid'"), ({"padding": "same", "stride": 2}, "stride 1"),
        ({"groups": 3}, "groups"), ({"dilation": 4}, "does not fit"), ({"stride": 1.5}, "integer"),
    ):  # fmt: skip
        with pytest.raises(cr.errors.ChainruleError, match=match):
            F.conv1d(x, w, **how)
    for how, match in (
        ({"output_padding": 2, "stride": 2}, "output_padding"), ({"padding": 9}, "no output"),
        ({"padding": "same"}, "integer"),
    ):  # fmt: skip
        with pytest.raises(cr.errors.ChainruleError, match=match):
            F.conv_transpose1d(x, w.swapaxes(0, 1).copy(), **how)
    with pytest.raises(cr.errors.ShapeError, match="needs 4 axes"):
        F.conv2d(x, w)
    for arguments, match in (
        ({"in_channels": 3, "groups": 2}, "divisible"), ({"padding_mode": "mirror"}, "reflect"),
        ({"in_channels": -1}, "at least 0"), ({"groups": 0}, "at least 1"),
        ({"padding": "same", "stride": 2}, "stride 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            nn.Conv1d(**({"in_channels": 2, "out_channels": 4, "kernel_size": 3} | arguments))
    with pytest.raises(cr.errors.ArgumentError, match="zeros"):
        nn.ConvTranspose1d(1, 1, 1, padding_mode="reflect")
    with pytest.raises(cr.errors.ArgumentError):
        nn.Linear(-1, 2)
    with pytest.raises(cr.errors.DeviceError):
        nn.Linear(1, 2, device="cuda")
