"""Transforms of images against SciPy, Pillow and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats

import chainrule as cr
from chainrule.data import transforms as T
from chainrule.data.draws import Draws
from chainrule.data.transforms.affine import inverse_matrices
from chainrule.errors import ArgumentError, ChainruleError, DataError, DTypeError, ShapeError

RNG = np.random.default_rng(0)


def batch(n=6, c=2, h=7, w=9, dtype=np.float32):
    values = np.random.default_rng(1).random((n, c, h, w))
    return (values * 255).astype(dtype) if np.dtype(dtype).kind in "iu" else values.astype(dtype)


def draws(n, key=1, epoch=0):
    return Draws(key, epoch, np.arange(n))


RANDOM = {
    "crop": lambda: T.RandomCrop((5, 6)),
    "padded crop": lambda: T.RandomCrop((7, 9), padding=2),
    "hflip": T.RandomHorizontalFlip,
    "vflip": T.RandomVerticalFlip,
    "shift": lambda: T.RandomShift(2),
    "rotation": lambda: T.RandomRotation(30),
    "scale": lambda: T.RandomScale((0.7, 1.3)),
    "affine": lambda: T.RandomAffine(20, (0.1, 0.2), (0.8, 1.2), 10),
    "erasing": lambda: T.RandomErasing(0.8),
    "noise": T.GaussianNoise,
    "compose": lambda: T.Compose([T.RandomShift(1), T.RandomHorizontalFlip(), T.GaussianNoise()]),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_a_samples_numbers_do_not_depend_on_its_company(kind):
    transform, images = RANDOM[kind](), batch()
    original = images.copy()
    whole = transform.batch(images, draws(6))
    np.testing.assert_array_equal(images, original)  # what goes in is left alone
    order = [4, 0, 5]
    part = transform.batch(images[order], Draws(1, 0, order))
    np.testing.assert_array_equal(part, whole[order])
    assert (whole.dtype == np.float32 and whole.flags.c_contiguous) or whole.ndim == 4
    other_epoch = transform.batch(images, draws(6, epoch=1))
    other_key = transform.batch(images, draws(6, key=2))
    assert (other_epoch != whole).any() and (other_key != whole).any()


@pytest.mark.parametrize("kind", RANDOM)
def test_by_hand(kind):
    images = batch()
    one, two = RANDOM[kind](), RANDOM[kind]()
    np.testing.assert_array_equal(one(images), two(images))  # a transform's own sequence
    singles = RANDOM[kind]()
    np.testing.assert_array_equal(np.stack([singles(x) for x in images]), RANDOM[kind]()(images))
    again = one(images)
    assert (again != RANDOM[kind]()(images)).any()  # it goes on
    tensor = RANDOM[kind]()(cr.asarray(images))
    assert isinstance(tensor, cr.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), RANDOM[kind]()(images))


@pytest.mark.parametrize("kind", sorted(set(RANDOM) - {"noise", "compose"}))
def test_bytes_stay_bytes(kind):
    images = batch(dtype=np.uint8)
    out = RANDOM[kind]().batch(images, draws(6))
    assert out.dtype == np.uint8
    exact = RANDOM[kind]().batch(images.astype(np.float64), draws(6))
    assert np.abs(out - exact).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("kind", RANDOM)
def test_flat_inputs_are_refused(kind):
    with pytest.raises(ShapeError, match="before flattening"):
        RANDOM[kind]().batch(np.zeros((2, 784), np.float32), draws(2))
    assert type(RANDOM[kind]()).__name__ in repr(RANDOM[kind]())


# --- values ---------------------------------------------------------------------------------------


def test_to_float():
    image = np.arange(0, 256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(T.ToFloat()(image), image.astype(np.float32) / np.float32(255))
    assert T.ToFloat()(np.ones((1, 2, 2))).dtype == np.float32
    assert T.ToFloat()(np.full((1, 1, 1), 65535, np.uint16)).item() == 1.0


def test_normalize():
    images = batch(c=3)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (images - np.array(mean).reshape(3, 1, 1)) / np.array(std).reshape(3, 1, 1)
    np.testing.assert_allclose(T.Normalize(mean, std)(images), expected, atol=1e-6)
    np.testing.assert_allclose(T.Normalize(0.5, 2)(images[0]), (images[0] - 0.5) / 2, rtol=1e-6)
    with pytest.raises(DTypeError, match="ToFloat"):
        T.Normalize(0.5, 2)(images.astype(np.uint8))
    with pytest.raises(ArgumentError, match="std"):
        T.Normalize(0.5, (1, 0))
    with pytest.raises(ShapeError, match="3 channels"):
        T.Normalize((1, 2), (1, 2))(images)


def test_gaussian_noise_is_normal():
    images = np.zeros((4, 1, 100, 100), np.float32)
    noise = T.GaussianNoise(0.5, 2.0, clip=False).batch(images, draws(4))
    assert stats.kstest(noise.ravel(), "norm", (0.5, 2.0)).pvalue > 1e-3
    assert abs(np.corrcoef(noise.reshape(4, -1))[np.triu_indices(4, 1)]).max() < 0.05
    clipped = T.GaussianNoise(0.5, 2.0).batch(images, draws(4))
    np.testing.assert_array_equal(clipped, np.clip(noise, 0, 1))
    with pytest.raises(DTypeError):
        T.GaussianNoise()(images.astype(np.uint8))
    with pytest.raises(ArgumentError):
        T.GaussianNoise(sigma=-1)


def test_lambda_by_sample_and_by_batch():
    images = batch()
    by_sample = T.Lambda(lambda x: x.sum(0, keepdims=True))
    np.testing.assert_allclose(by_sample.batch(images, draws(6)), images.sum(1, keepdims=True))
    by_batch = T.Lambda(lambda x: x.reshape(len(x), -1), batched=True)
    assert by_batch.batch(images, draws(6)).shape == (6, 126)
    np.testing.assert_array_equal(T.Lambda(np.ravel)(images[0]), images[0].ravel())
    assert T.Compose([np.ravel])(images[0]).shape == (126,)
    with pytest.raises(ArgumentError, match="function"):
        T.Lambda(3)


# --- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_pad_agrees_with_numpy(mode):
    images = batch()
    out = T.Pad((1, 2, 3, 4), padding_mode=mode)(images)
    np.testing.assert_array_equal(out, np.pad(images, ((0, 0), (0, 0), (2, 4), (1, 3)), mode))


def test_pad_forms_and_fill():
    image = batch()[0]
    assert T.Pad(1)(image).shape == (2, 9, 11)
    assert T.Pad((1, 2))(image).shape == (2, 11, 11)
    filled = T.Pad(1, fill=(0.25, 0.75))(image)
    assert (filled[0, 0] == 0.25).all() and (filled[1, :, 0] == 0.75).all()
    np.testing.assert_array_equal(filled[:, 1:-1, 1:-1], image)
    for wrong in (-1, (1, 2, 3), 1.5, "ab"):
        with pytest.raises(ArgumentError, match="padding"):
            T.Pad(wrong)
    with pytest.raises(ArgumentError, match="padding_mode"):
        T.Pad(1, padding_mode="wrap")
    with pytest.raises(ShapeError, match="smaller"):
        T.Pad(7, padding_mode="reflect")(image)


@pytest.mark.parametrize(
    ("size", "corner"), [((5, 5), (1, 2)), ((4, 6), (2, 2)), ((7, 9), (0, 0)), ((2, 2), (2, 4))]
)
def test_center_crop(size, corner):
    # Python's round takes halves to even numbers: (7 - 4) / 2 = 1.5 gives 2, (7 - 2) / 2 = 2.5
    # gives 2.
    images = batch()
    top, left = corner
    expected = images[:, :, top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(T.CenterCrop(size)(images), expected)


def test_center_crop_pads_what_is_small():
    images = batch(h=3, w=4)
    out = T.CenterCrop((6, 4))(images)
    np.testing.assert_array_equal(out, np.pad(images, ((0, 0), (0, 0), (1, 2), (0, 0))))


def test_random_crop_takes_every_place_equally_often():
    image = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    out = T.RandomCrop((2, 3)).batch(np.repeat(image, 3600, 0), draws(3600))
    corners = out[:, 0, 0, 0].astype(int)
    places = [0, 1, 2, 5, 6, 7, 10, 11, 12]
    assert set(corners.tolist()) == set(places)
    assert stats.chisquare([(corners == p).sum() for p in places]).pvalue > 1e-3
    for crop, corner in zip(out[:50], corners[:50], strict=True):
        y, x = divmod(int(corner), 5)
        np.testing.assert_array_equal(crop, image[0, :, y : y + 2, x : x + 3])


def test_random_crop_pads():
    image = batch()[:1]
    out = T.RandomCrop((7, 9), padding=3, fill=9.0)(np.repeat(image, 50, 0))
    padded = np.pad(image[0], ((0, 0), (3, 3), (3, 3)), constant_values=9)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 9), (1, 2))
    windows = windows.transpose(1, 2, 0, 3, 4).reshape(49, 2, 7, 9)
    for crop in out:
        assert any((crop == window).all() for window in windows)
    with pytest.raises(ShapeError, match="8 x 9 pixels from an image of 7 x 9"):
        T.RandomCrop((8, 9))(image)
    assert T.RandomCrop((12, 4), pad_if_needed=True)(image).shape == (1, 2, 12, 4)


def test_flips():
    images = batch(400, 1, 3, 4)
    for transform, axis in ((T.RandomHorizontalFlip(0.3), 3), (T.RandomVerticalFlip(0.3), 2)):
        out = transform.batch(images, draws(400))
        flipped = (out == np.flip(images, axis)).all((1, 2, 3))
        assert (flipped | (out == images).all((1, 2, 3))).all()
        assert stats.binomtest(int(flipped.sum()), 400, 0.3).pvalue > 1e-3
    np.testing.assert_array_equal(T.RandomHorizontalFlip(1)(images), images[..., ::-1])
    np.testing.assert_array_equal(T.RandomHorizontalFlip(0.0)(images), images)
    for p in (-0.1, 1.5, "x", True):
        with pytest.raises(ArgumentError, match="probability"):
            T.RandomVerticalFlip(p)


def test_flips_called_by_hand_are_independent():
    images = batch(200, 1, 3, 4)
    h, v = T.RandomHorizontalFlip()(images), T.RandomVerticalFlip()(images)
    flipped_h = (h == images[..., ::-1]).all((1, 2, 3))
    flipped_v = (v == images[:, :, ::-1]).all((1, 2, 3))
    assert 60 < (flipped_h == flipped_v).sum() < 140


def test_shift():
    images = batch(300, 1, 5, 6)
    out = T.RandomShift((1, 2), fill=7)(images)
    seen = set()
    for before, after in zip(images, out, strict=True):
        padded = np.pad(before, ((0, 0), (1, 1), (2, 2)), constant_values=7)
        places = [
            (y - 1, x - 2)
            for y in range(3)
            for x in range(5)
            if (padded[:, y : y + 5, x : x + 6] == after).all()
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 15
    with pytest.raises(ArgumentError, match="shift"):
        T.RandomShift(-1)


# --- sampling between pixels ----------------------------------------------------------------------


def reference_affine(image, inverse, fill, order):
    """SciPy's affine map of one channel, with coordinates (y, x) from the corner."""
    (a, b, tx), (c, d, ty) = inverse
    height, width = image.shape
    cx, cy = (width - 1) / 2, (height - 1) / 2
    matrix = np.array([[d, c], [b, a]])
    offset = np.array([ty + cy, tx + cx]) - matrix @ [cy, cx]
    return (
        ndimage.affine_transform(image - fill, matrix, offset, order=order, mode="grid-constant")
        + fill
    )


@given(
    angle=st.floats(-180, 180),
    tx=st.integers(-4, 4),
    ty=st.integers(-4, 4),
    scale=st.floats(0.4, 2.5),
    sx=st.floats(-40, 40),
    sy=st.floats(-40, 40),
    fill=st.sampled_from([0.0, 0.7]),
)
@settings(max_examples=60, deadline=None)
def test_affine_agrees_with_scipy(angle, tx, ty, scale, sx, sy, fill):
    images = batch(1, 2, 8, 11, np.float64)
    arrays = (np.array([v], float) for v in (angle, [tx, ty], scale, [sx, sy]))
    inverse = inverse_matrices(*arrays)
    out = T.affine(images, inverse, fill)
    for channel in range(2):
        expected = reference_affine(images[0, channel], inverse[0], fill, order=1)
        np.testing.assert_allclose(out[0, channel], expected, atol=1e-9)


def test_inverse_matrix_undoes_the_forward_map():
    """T R Sh s, multiplied out from the single maps, times the inverse is the identity."""
    angle, scale, sx, sy, t = 0.3, 1.4, 0.2, -0.1, np.array([2.0, -1.0])
    inverse = inverse_matrices(
        np.degrees([angle]), t[None], np.array([scale]), np.degrees([[sx, sy]])
    )[0]
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear_y = np.array([[1, 0], [-np.tan(sy), 1]])
    shear_x = np.array([[1, -np.tan(sx)], [0, 1]])
    # R(a) ShearY(sy) ShearX(sx) with the first column rotated by sy, as in torchvision's formula.
    a = np.cos(angle - sy) / np.cos(sy)
    c = np.sin(angle - sy) / np.cos(sy)
    forward = np.array(
        [
            [a, -a * np.tan(sx) - np.sin(angle)],
            [c, -c * np.tan(sx) + np.cos(angle)],
        ]
    )
    np.testing.assert_allclose(np.linalg.det(forward), 1, rtol=1e-12)
    np.testing.assert_allclose(rotation @ shear_y @ shear_x, forward, atol=1e-12)
    np.testing.assert_allclose(inverse[:, :2] @ (scale * forward), np.eye(2), atol=1e-12)
    np.testing.assert_allclose(inverse[:, :2] @ t + inverse[:, 2], 0, atol=1e-12)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_are_exact(turns):
    images = batch(3, 2, 8, 8)
    out = T.RandomRotation((90 * turns, 90 * turns))(images)
    # Counter-clockwise, as numpy.rot90 turns an array whose first axis points down.
    np.testing.assert_allclose(out, np.rot90(images, turns, (2, 3)), atol=1e-5)
    nearest = T.RandomRotation((90 * turns, 90 * turns), interpolation="nearest")(images)
    np.testing.assert_array_equal(nearest, np.rot90(images, turns, (2, 3)))


def test_nearest_agrees_with_scipy():
    images = batch(1, 1, 8, 8, np.float64)
    inverse = inverse_matrices(
        np.array([23.0]), np.zeros((1, 2)), np.array([1.1]), np.zeros((1, 2))
    )
    out = T.affine(images, inverse, 0.5, "nearest")
    expected = reference_affine(images[0, 0], inverse[0], 0.5, order=0)
    np.testing.assert_allclose(out[0, 0], expected)


def test_turning_about_a_point():
    """The pixel under the turning point stays; one beside it goes a quarter round."""
    image = np.zeros((1, 1, 9, 9), np.float32)
    image[0, 0, 2, 2], image[0, 0, 2, 4] = 1, 2
    out = T.RandomRotation((90, 90), center=(2.5, 2.5))(image)
    assert out[0, 0, 2, 2] == pytest.approx(1, abs=1e-5)
    assert out[0, 0, 0, 2] == pytest.approx(2, abs=1e-5)


def test_random_affine_draws_within_its_ranges():
    transform = T.RandomAffine(30, (0.25, 0.5), (0.5, 2.0), (-5, 5, 0, 8))
    inverse = transform.matrices(draws(2000), 20, 40)
    scale = np.linalg.det(inverse[:, :, :2]) ** -0.5
    assert 0.5 <= scale.min() < 0.6 and 1.9 < scale.max() <= 2.0
    shift = -np.linalg.solve(inverse[:, :, :2], inverse[:, :, 2:])[:, :, 0]
    np.testing.assert_allclose(shift, np.rint(shift), atol=1e-9)
    assert np.abs(shift[:, 0]).max().round() == 10 and np.abs(shift[:, 1]).max().round() == 10
    assert stats.kstest(scale, "uniform", (0.5, 1.5)).pvalue > 1e-3
    only_scale = T.RandomScale((0.9, 1.1)).matrices(draws(10), 8, 8)
    np.testing.assert_allclose(only_scale[:, 0, 1], 0, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: T.RandomRotation(-1),
        lambda: T.RandomRotation((3, 2)),
        lambda: T.RandomRotation("x"),
        lambda: T.RandomAffine(0, translate=(2, 0)),
        lambda: T.RandomAffine(0, translate=(0.1,)),
        lambda: T.RandomAffine(0, scale=(0, 1)),
        lambda: T.RandomAffine(0, shear=(1, 2, 3)),
        lambda: T.RandomAffine(0, interpolation="cubic"),
        lambda: T.RandomScale((2, 1)),
        lambda: T.RandomErasing(value="x"),
        lambda: T.RandomErasing(scale=(0.5, 2)),
        lambda: T.RandomErasing(ratio=(0, 1)),
        lambda: T.Resize(0),
        lambda: T.Resize((3, 4, 5)),
        lambda: T.Resize(4, "area"),
        lambda: T.Mixup(3, alpha=0),
        lambda: T.RandomCrop(4, seed=-1),
    ],
)
def test_arguments_are_checked(make):
    with pytest.raises(ChainruleError):
        make()


# --- resizing -------------------------------------------------------------------------------------

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize("size", [(20, 24), (5, 3), (8, 30), (40, 4), (8, 11)])
def test_resize_agrees_with_pillow(interpolation, size):
    image = batch(1, 1, 8, 11)[0, 0]
    expected = np.asarray(
        Image.fromarray(image).resize(size[::-1], PILLOW[interpolation]), np.float64
    )
    np.testing.assert_allclose(T.resize(image, size, interpolation), expected, atol=2e-6)


def test_resize_without_antialias_and_nearest():
    line = np.array([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
    # Centres at 1.5 and 5.5: halfway between two pixels, without looking at the others.
    np.testing.assert_allclose(T.resize(line, (1, 2), "bilinear", antialias=False), [[1.5, 5.5]])
    np.testing.assert_array_equal(T.resize(line, (1, 4), "nearest"), [[0, 2, 4, 6]])
    np.testing.assert_array_equal(T.resize(line, (2, 16), "nearest")[1], np.repeat(line[0], 2))


def test_resize_shorter_side():
    assert T.Resize(14)(batch(h=7, w=9)).shape == (6, 2, 14, 18)
    assert T.Resize(3)(batch(h=9, w=7)[0]).shape == (2, 3, 3)
    assert T.Resize((4, 5))(batch()[0]).shape == (2, 4, 5)
    out = T.Resize(14, "bicubic")(np.full((1, 7, 7), 255, np.uint8))
    assert out.dtype == np.uint8 and (out == 255).all()


# --- erasing and mixing ---------------------------------------------------------------------------


def test_erasing_draws_what_the_paper_says():
    transform = T.RandomErasing(p=0.6, scale=(0.05, 0.2), ratio=(0.5, 2.0))
    boxes = transform.boxes(draws(3000), 60, 80)
    used = boxes[:, 2] > 0
    assert stats.binomtest(int(used.sum()), 3000, 0.6).pvalue > 1e-3
    top, left, h, w = boxes[used].T
    share, ratio = h * w / 4800, h / w
    assert share.min() > 0.045 and share.max() < 0.21
    assert ratio.min() > 0.45 and ratio.max() < 2.2
    assert stats.kstest(share, "uniform", (0.05, 0.15)).pvalue > 1e-4
    assert stats.kstest(np.log(ratio), "uniform", (-np.log(2), 2 * np.log(2))).pvalue > 1e-4
    assert (top + h <= 60).all() and (left + w <= 80).all() and top.min() == 0 and left.min() == 0
    assert ((top + h) == 60).any() and ((left + w) == 80).any()


def test_erasing_writes_its_value_into_the_box():
    images = batch(40, 3, 12, 10) + 1
    for value in (0.5, (0.1, 0.2, 0.3), "random"):
        transform = T.RandomErasing(1.0, value=value)
        out = transform.batch(images, draws(40))
        boxes = transform.boxes(draws(40).child(0), 12, 10)
        for before, after, (y, x, h, w) in zip(images, out, boxes, strict=True):
            outside = np.ones((12, 10), bool)
            outside[y : y + h, x : x + w] = False
            np.testing.assert_array_equal(after[:, outside], before[:, outside])
            inside = after[:, ~outside]
            if value == "random":
                assert (inside != before[:, ~outside]).all()
            else:
                expected = np.broadcast_to(np.reshape(value, (-1, 1)), inside.shape)
                np.testing.assert_allclose(inside, expected, rtol=1e-6)


def test_erasing_leaves_an_image_that_no_box_fits_in():
    images = batch(20, 1, 1, 1)
    np.testing.assert_array_equal(T.RandomErasing(1.0).batch(images, draws(20)), images)


def test_mixup_by_hand():
    x, y = batch(8, 1), np.arange(8) % 3
    mixup = T.Mixup(3, alpha=0.4, seed=5)
    mixed_x, mixed_y = mixup(x, y)
    one_hot = np.eye(3, dtype=np.float32)[y]
    share = (mixed_y[1] - one_hot[0])[y[1]] / (one_hot[1] - one_hot[0])[y[1]]
    np.testing.assert_allclose(mixed_x, share * x + (1 - share) * np.roll(x, 1, 0), rtol=1e-5)
    np.testing.assert_allclose(mixed_y, share * one_hot + (1 - share) * np.roll(one_hot, 1, 0))
    again = T.Mixup(3, alpha=0.4, seed=5)((x, y))
    np.testing.assert_array_equal(again[0], mixed_x)
    assert (mixup(x, y)[0] != mixed_x).any()
    tensors = T.Mixup(3, alpha=0.4, seed=5)(cr.asarray(x), cr.asarray(y))
    assert isinstance(tensors[0], cr.Tensor) and tensors[1].dtype == cr.float32
    np.testing.assert_array_equal(tensors[1].numpy(), mixed_y)
    soft = T.Mixup()(x, one_hot)
    assert soft[1].shape == (8, 3)


def test_mixup_share_is_beta_distributed():
    mixup = T.Mixup(2, alpha=0.4)
    x, y = np.array([[0.0], [1.0]], np.float32), np.array([0, 1])
    shares = [float(mixup(x, y)[0][1, 0]) for _ in range(1500)]
    assert stats.kstest(shares, "beta", (0.4, 0.4)).pvalue > 1e-3


def test_mixup_checks_labels():
    x = batch(2)
    with pytest.raises(DataError, match="label 3"):
        T.Mixup(3)(x, np.array([0, 3]))
    with pytest.raises(ArgumentError, match="num_classes"):
        T.Mixup()(x, np.array([0, 1]))
    with pytest.raises(DataError, match="structure"):
        T.Mixup(3).batch(x, draws(1))
