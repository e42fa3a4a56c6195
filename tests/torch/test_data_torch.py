"""Data against PyTorch: the same samples, batches, splits and pictures."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule import data
from chainrule.data import transforms

torch = pytest.importorskip("torch")
utils = pytest.importorskip("torch.utils.data")
functional = torch.nn.functional


def arrays(n=11):
    rng = np.random.default_rng(0)
    return rng.random((n, 2, 3)).astype(np.float32), rng.integers(0, 4, n)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 3, 4, 11])
def test_loaders_give_the_same_batches(size, drop_last):
    x, y = arrays()
    ours = data.DataLoader(data.TensorDataset(x, y), size, drop_last=drop_last)
    theirs = utils.DataLoader(
        utils.TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), size, drop_last=drop_last
    )
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
            assert str(a.dtype) == str(b.dtype).removeprefix("torch.")


SAMPLES = [
    [1, 2],
    [1.5, 2.5],
    [True, False],
    [np.float32(1), np.float32(2)],
    [np.ones((2, 3)), np.zeros((2, 3))],
    ["a", "b"],
    [(1, "x", np.ones(2)), (2, "y", np.ones(2))],
    [{"a": 1, "b": [1.0, 2]}, {"a": 2, "b": [3.0, 4]}],
]


def plain(value):
    """Nested lists and dtypes, whatever the library; a tuple is a list."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return value.tolist(), str(value.dtype).removeprefix("torch.")
    return value


@pytest.mark.parametrize("samples", SAMPLES, ids=[str(s)[:24] for s in SAMPLES])
def test_default_collate(samples):
    ours, theirs = data.default_collate(samples), utils.default_collate(samples)
    assert plain(ours) == plain(theirs)


@pytest.mark.parametrize(
    "shares", [[0.5, 0.5], [0.8, 0.1, 0.1], [0.33, 0.33, 0.34], [0.999, 0.001]]
)
@pytest.mark.parametrize("n", [7, 100, 101])
@pytest.mark.filterwarnings("ignore")
def test_random_split_lengths(shares, n):
    dataset = data.TensorDataset(np.zeros(n))
    ours = [len(part) for part in data.random_split(dataset, shares)]
    theirs = [len(part) for part in utils.random_split(range(n), shares)]
    assert ours == theirs


def test_batch_sampler_and_concatenation():
    ours = list(data.BatchSampler(data.SequentialSampler(range(10)), 4, False))
    assert ours == list(utils.BatchSampler(utils.SequentialSampler(range(10)), 4, False))
    x, y = arrays()
    both = data.TensorDataset(x, y) + data.TensorDataset(x[:3], y[:3])
    tensors = [torch.from_numpy(v) for v in (x, y)]
    theirs = utils.TensorDataset(*tensors) + utils.TensorDataset(*[t[:3] for t in tensors])
    assert both.cumulative_sizes == theirs.cumulative_sizes
    for i in (0, 10, 11, 13, -1):
        np.testing.assert_array_equal(both[i][0], theirs[i][0].numpy())


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(4, 5), (20, 24), (9, 30)])
def test_resize(mode, antialias, size):
    x = np.random.default_rng(0).random((2, 3, 8, 11))
    expected = functional.interpolate(torch.from_numpy(x), size, mode=mode, antialias=antialias)
    out = transforms.resize(x, size, mode, antialias)
    np.testing.assert_allclose(out, expected.numpy(), atol=1e-6)


def test_resize_nearest():
    x = np.random.default_rng(0).random((1, 1, 7, 10))
    for size in ((3, 4), (14, 11), (5, 30)):
        expected = functional.interpolate(torch.from_numpy(x), size, mode="nearest")
        np.testing.assert_array_equal(transforms.resize(x, size, "nearest"), expected.numpy())


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_affine_is_grid_sample(interpolation):
    """The maps of a random affine transform, sampled by PyTorch with zeros outside."""
    rng = np.random.default_rng(0)
    x = rng.random((5, 3, 9, 12))
    transform = transforms.RandomAffine(60, (0.2, 0.2), (0.6, 1.6), (-20, 20, -20, 20))
    inverse = transform.matrices(data.transforms.base.Draws(0, 0, np.arange(5)), 9, 12)
    ours = transforms.affine(x, inverse, 0, interpolation)
    columns, rows = np.meshgrid(np.arange(12) - 5.5, np.arange(9) - 4.0)
    points = np.stack([columns, rows, np.ones_like(rows)], -1)
    grid = np.einsum("nij,hwj->nhwi", inverse, points) / [6.0, 4.5]
    theirs = functional.grid_sample(
        torch.from_numpy(x), torch.from_numpy(grid), mode=interpolation, align_corners=False
    )
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-9)


def test_losses_take_what_mixup_gives():
    x, y = arrays(6)
    _, soft = transforms.Mixup(4)(x, y)
    logits = torch.zeros(6, 4, dtype=torch.float64)
    loss = functional.cross_entropy(logits, torch.from_numpy(soft).double())
    assert float(loss) == pytest.approx(np.log(4))
