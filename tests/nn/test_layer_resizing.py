"""Rearranging, resizing and sampling against JAX, SciPy, and definitions written as loops."""

import itertools

import jax
import numpy as np
import pytest
from scipy import ndimage

import chainrule as cr
import chainrule.nn.functional as F
from chainrule import nn

jax.config.update("jax_enable_x64", True)


def random(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def same(ours, reference, tolerance=1e-12):
    ours = np.asarray(ours.detach()) if isinstance(ours, cr.Tensor) else ours
    assert ours.shape == np.shape(reference)
    np.testing.assert_allclose(ours, np.asarray(reference), rtol=tolerance, atol=tolerance)


def test_unfold_makes_convolution_a_product():
    x, w = random(2, 3, 6, 7), random(4, 3, 2, 3)
    how = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    columns = F.unfold(x, (2, 3), **how)
    y = F.conv2d(x, w, **how)
    same(cr.matmul(w.reshape(4, -1), columns).reshape(*y.shape), y)
    g = random(*columns.shape, seed=1)
    back = F.fold(g, (6, 7), (2, 3), **how)
    assert np.vdot(np.asarray(columns), g) == pytest.approx(np.vdot(x, np.asarray(back)), rel=1e-12)
    with pytest.raises(cr.errors.ShapeError, match="expects"):
        F.fold(g[:, :, 1:], (6, 7), (2, 3), **how)
    with pytest.raises(cr.errors.ShapeError, match="no window"):
        F.unfold(x, 9)


def test_pixel_shuffle():
    x = random(2, 3, 12, 4, 5)
    y = np.asarray(F.pixel_shuffle(x, 2))
    for c, i, j in itertools.product(range(3), range(2), range(2)):
        same(y[:, :, c, i::2, j::2], x[:, :, c * 4 + i * 2 + j], 0)
    same(F.pixel_unshuffle(y, 2), x, 0)
    with pytest.raises(cr.errors.ArgumentError, match="square"):
        F.pixel_shuffle(x, 5)
    with pytest.raises(cr.errors.ArgumentError, match="divisible"):
        F.pixel_unshuffle(x, 3)


@pytest.mark.parametrize("size", [(3, 9), (8, 4)])
def test_linear_and_nearest_resizing_are_jax_s(size):
    x = random(2, 3, 5, 7)
    shape = (2, 3, *size)
    for antialias in (False, True):
        ours = F.interpolate(x, size, mode="bilinear", antialias=antialias)
        same(ours, jax.image.resize(x, shape, "linear", antialias=antialias))
    same(F.interpolate(x, size, mode="nearest-exact"), jax.image.resize(x, shape, "nearest"), 0)
    ours = F.interpolate(x, size, mode="bicubic", antialias=True)
    same(ours, jax.image.resize(x, shape, "cubic", antialias=True))
    ours = F.interpolate(x, size, mode="lanczos", antialias=True)
    same(ours, jax.image.resize(x, shape, "lanczos3", antialias=True))


def test_aligned_corners_are_scipy_s_zoom():
    x = random(4, 5, 6)
    ours = F.interpolate(x[None, None], (7, 3, 9), mode="trilinear", align_corners=True)[0, 0]
    same(ours, ndimage.zoom(x, (7 / 4, 3 / 5, 9 / 6), order=1), 1e-10)


def test_cubic_resizing_is_its_definition():
    x, a = random(6), -0.75

    def kernel(t):
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    expected = []
    for i in range(9):
        centre = (i + 0.5) * 6 / 9 - 0.5
        low = int(np.floor(centre))
        expected.append(
            sum(x[min(max(j, 0), 5)] * kernel(centre - j) for j in range(low - 1, low + 3))
        )
    ours = F.interpolate(np.tile(x, (1, 1, 3, 1)), (3, 9), mode="bicubic")
    same(ours[0, 0, 1], expected)


def test_resizing_is_exact_where_it_should_be():
    ramp = np.arange(8.0).reshape(1, 1, 8)
    up = F.interpolate(ramp, 15, mode="linear", align_corners=True)
    same(up[0, 0], np.linspace(0, 7, 15))
    same(F.interpolate(ramp, scale_factor=2)[0, 0], np.repeat(np.arange(8.0), 2), 0)
    same(F.interpolate(ramp, 4, mode="area")[0, 0], [0.5, 2.5, 4.5, 6.5])
    same(F.interpolate(ramp, 8, mode="linear"), ramp, 0)


def test_what_resizing_refuses():
    x = cr.ones((1, 1, 4, 4))
    for how, match in (
        ({}, "either size or scale_factor"), ({"size": 3, "scale_factor": 2}, "not both"),
        ({"size": (3, 3, 3)}, "2 spatial axes"), ({"scale_factor": (2.0,)}, "2 spatial axes"),
        ({"size": 3, "mode": "linear"}, "bilinear"), ({"size": 3, "mode": "bilinar"}, "bilinear"),
        ({"size": 3, "align_corners": True}, "align_corners"),
        ({"size": 3, "antialias": True}, "antialias"), ({"size": 0}, "at least 1"),
        ({"size": 3, "recompute_scale_factor": True}, "recompute_scale_factor"),
        ({"size": 3, "mode": "lanczos"}, "antialias=True"), ({"scale_factor": "x"}, "number"),
    ):  # fmt: skip
        with pytest.raises(cr.errors.ChainruleError, match=match):
            F.interpolate(x, **how)
    with pytest.raises(cr.errors.ShapeError, match="3 or 4 or 5 axes"):
        F.interpolate(cr.ones((2, 2)), 3)
    with pytest.raises(cr.errors.ArgumentError):
        nn.Upsample()


@pytest.mark.parametrize("n", [2, 3])
def test_reading_at_points_is_scipy_s(n):
    x = random(2, 2, *(5, 4, 6)[:n])
    grid = np.random.default_rng(0).uniform(-1.3, 1.3, (2, *(3, 4, 2)[:n], n))
    modes = (("zeros", "grid-constant"), ("border", "nearest"), ("reflection", "mirror"))
    for padding, scipys in modes:
        ours = np.asarray(F.grid_sample(x, grid, padding_mode=padding, align_corners=True))
        for image, channel in np.ndindex(2, 2):
            sizes = np.array(x.shape[2:])
            points = (grid[image, ..., ::-1] + 1) / 2 * (sizes - 1)
            expected = ndimage.map_coordinates(
                x[image, channel], np.moveaxis(points, -1, 0), order=1, mode=scipys
            )
            same(ours[image, channel], expected, 1e-9)


def test_the_identity_map_reads_the_image_itself():
    x = random(2, 3, 4, 5)
    theta = np.tile(np.eye(2, 3), (2, 1, 1))
    for corners in (False, True):
        grid = F.affine_grid(theta, x.shape, corners)
        for mode in ("bilinear", "nearest", "bicubic"):
            same(F.grid_sample(x, grid, mode, align_corners=corners), x, 1e-12)
    turned = F.affine_grid(-theta, x.shape)
    same(F.grid_sample(x, turned), x[:, :, ::-1, ::-1], 1e-12)


def test_derivatives_of_reading_at_points():
    x = cr.asarray(random(1, 2, 3, 4), requires_grad=True)
    grid = np.random.default_rng(5).uniform(-0.9, 0.9, (1, 2, 2, 2))
    points = cr.asarray(grid, requires_grad=True)
    for mode in ("bilinear", "bicubic"):
        assert cr.autograd.gradcheck(lambda x, g, m=mode: F.grid_sample(x, g, m), (x, points))
        assert cr.autograd.gradgradcheck(lambda x, g, m=mode: F.grid_sample(x, g, m), (x, points))
    far = cr.asarray([[[[np.nan, 0.0], [1e30, 0.0]]]])
    assert F.grid_sample(cr.ones((1, 1, 2, 2)), far)[0, 0, 0, 1].item() == 0
    for arguments, match in (
        ((x, points[..., :1]), "expects"), ((x, cr.concat([points, points])), "batches"),
        ((x, points, "cubic"), "bicubic"), ((x, points, "nearest", "mirror"), "reflection"),
        ((cr.zeros((1, 1, 2, 2, 2)), cr.zeros((1, 2, 2, 2, 3)), "bicubic"), "images"),
    ):  # fmt: skip
        with pytest.raises(cr.errors.ChainruleError, match=match):
            F.grid_sample(*arguments)
    with pytest.raises(cr.errors.ShapeError, match="expects"):
        F.affine_grid(cr.zeros((1, 3, 3)), (1, 1, 2, 2))
