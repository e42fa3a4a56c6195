"""The data sets by name: embedded, made from a seed, and loaded by `data.load`."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from chainrule import data
from chainrule.errors import ArgumentError, MissingExtraError, UnknownNameError

sklearn_datasets = pytest.importorskip("sklearn.datasets")

OFFLINE = [info.name for info in data.catalogue() if not info.download_bytes]
SYNTHETIC = ["xor", "circles", "moons", "spirals", "blobs"]


def test_names_and_catalogue():
    assert data.names() == [info.name for info in data.catalogue()]
    assert {"digits", "iris", "mnist", "fashion_mnist", "cifar10", *SYNTHETIC} <= set(data.names())
    for info in data.catalogue():
        assert info.function is getattr(data, info.name)
        assert info.description and info.task in ("classification", "regression")
    assert data.info("mnist").download_bytes == 11_594_722
    with pytest.raises(UnknownNameError, match="did you mean 'mnist'"):
        data.load("mnits")


@pytest.mark.parametrize("name", OFFLINE)
def test_load(name):
    train, test = data.load(name)
    info = data.info(name)
    n = info.samples
    assert len(train) + len(test) == n and len(test) == round(0.2 * n)
    assert train.task == test.task == info.task and train.name == name
    x, y = train.batch(np.arange(len(train)))
    assert x.dtype == np.float32 and np.isfinite(x).all() and x.shape[1:] == train.shape
    if info.task == "classification":
        data.check_labels(y, len(train.classes), name)
        assert y.dtype == np.int64 and set(y) == set(range(len(train.classes)))
        share = np.bincount(y) / np.bincount(np.concatenate([y, test.labels]))
        assert (np.abs(share - 0.8) < 0.05).all()
    else:
        assert y.dtype == np.float32 and y.shape == (len(train), 1)
    again, _ = data.load(name)
    np.testing.assert_array_equal(again[:][0], x)


def test_load_options():
    train, _ = data.load("digits", size=8, flatten=True)
    assert train.shape == (64,)
    with pytest.raises(ArgumentError, match=r"digits has no option 'sise'; it has size, flatten"):
        data.load("digits", sise=8)
    with pytest.raises(ArgumentError, match="it has none"):
        data.load("iris", size=8)
    with pytest.raises(ArgumentError, match="leave the option 'train' out"):
        data.load("mnist", train=True)
    assert len(data.load("moons", n=50)[0]) == 40


def test_load_files(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(20)))
    train, test = data.load(path)
    assert (len(train), len(test)) == (16, 4) and train.classes == ["a", "b"]
    train, _ = data.load(str(path), target="x")
    assert train.shape == (2,)
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2", "b/3"):
        file = tmp_path / "set" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file)
    train, test = data.load(tmp_path / "set", mode="L")
    assert train.shape == (1, 4, 4) and len(train) + len(test) == 6
    with pytest.raises(UnknownNameError):
        data.load(tmp_path / "nothing")


# --- embedded -------------------------------------------------------------------------------------


def test_digits_at_their_own_size():
    source = sklearn_datasets.load_digits()
    dataset = data.digits(size=8)
    x, y = dataset[:]
    assert dataset.shape == (1, 8, 8) and len(dataset.classes) == 10
    np.testing.assert_array_equal(x[:, 0] * 16, source.images)
    np.testing.assert_array_equal(y, source.target)
    np.testing.assert_array_equal(data.digits(size=8, flatten=True)[:][0] * 16, source.data)


def test_digits_enlarged_are_pillows_bicubic_in_a_frame():
    x, y = data.digits()[:]
    source = sklearn_datasets.load_digits()
    assert x.shape == (1797, 1, 28, 28) and x.min() == 0 and x.max() == 1
    np.testing.assert_array_equal(y, source.target)
    assert (x[:, :, :2] == 0).all() and (x[:, :, -2:] == 0).all()
    assert (x[..., :2] == 0).all() and (x[..., -2:] == 0).all()
    for i in (0, 1, 1000):
        image = Image.fromarray((source.images[i] / 16).astype(np.float32))
        expected = np.clip(np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC)), 0, 1)
        np.testing.assert_allclose(x[i, 0, 2:-2, 2:-2], expected, atol=1e-5)
    assert data.digits(flatten=True).shape == (784,)
    with pytest.raises(ArgumentError, match="size=16"):
        data.digits(size=16)


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_tables_are_scikit_learns(name):
    source = getattr(sklearn_datasets, f"load_{name}")()
    dataset = getattr(data, name)()
    x, y = dataset[:]
    np.testing.assert_array_equal(x, source.data.astype(np.float32))
    np.testing.assert_array_equal(y.reshape(-1), source.target.astype(y.dtype))
    assert dataset.feature_names == list(source.feature_names)
    if name != "diabetes":
        assert dataset.classes == [str(c) for c in source.target_names]


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"chainrule\[sklearn\]"):
        data.digits()


# --- made from a seed -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_sets_repeat_and_are_balanced(name):
    function = getattr(data, name)
    one, two, other = function(101, seed=1), function(101, seed=1), function(101, seed=2)
    np.testing.assert_array_equal(one.tensors[0], two.tensors[0])
    assert (one.tensors[0] != other.tensors[0]).any()
    assert len(one) == 101 and one.shape == (2,) and one.name == name
    counts = np.bincount(one.labels)
    assert counts.max() - counts.min() <= 2
    assert (np.diff(one.labels) != 0).sum() > 20  # shuffled
    for wrong in ({"n": 0}, {"n": 1.5}, {"noise": -1}, {"seed": -1}):
        with pytest.raises(ArgumentError):
            function(**wrong)


def test_xor_of_four_is_the_truth_table():
    x, y = data.xor(4, noise=0)[:]
    table = {tuple(point): int(label) for point, label in zip(x, y, strict=True)}
    assert table == {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 0}


def test_shapes_without_noise():
    x, y = data.circles(100, noise=0, factor=0.3)[:]
    np.testing.assert_allclose(np.hypot(*x.T), np.where(y == 0, 1, 0.3), rtol=1e-6)
    x, y = data.moons(100, noise=0)[:]
    reference, labels = sklearn_datasets.make_moons(100, shuffle=False)
    for c in (0, 1):
        ours = x[y == c][np.argsort(x[y == c][:, 0])]
        theirs = reference[labels == c][np.argsort(reference[labels == c][:, 0])]
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    x, y = data.spirals(120, noise=0, classes=3, turns=1)[:]
    radius, angle = np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])
    difference = angle - 2 * np.pi * (radius + y / 3)
    np.testing.assert_allclose(np.cos(difference), 1, atol=1e-5)
    x, y = data.blobs(90, noise=0, centers=[[0, 0], [3, 4]])[:]
    np.testing.assert_array_equal(x, np.array([[0, 0], [3, 4]])[y])


def test_noise_has_its_size():
    x, _ = data.blobs(4000, noise=0.5, centers=[[1, 2]])[:]
    np.testing.assert_allclose(x.std(0), 0.5, rtol=0.05)
    np.testing.assert_allclose(x.mean(0), [1, 2], atol=0.05)
    assert data.blobs(40, centers=4).classes == ["0", "1", "2", "3"]
    with pytest.raises(ArgumentError, match=r"shape \(2,\)"):
        data.blobs(centers=[1, 2])
    with pytest.raises(ArgumentError, match="factor"):
        data.circles(factor=1)


# --- the room -------------------------------------------------------------------------------------


def test_everything_public_is_there():
    for name in data.__all__:
        assert getattr(data, name) is not None
    assert data.__all__ == sorted(data.__all__)
    assert data.transforms.__all__ == sorted(data.transforms.__all__)


def test_the_room_is_light():
    code = (
        "import chainrule.data, sys;"
        "print([m for m in ('sklearn', 'PIL', 'pooch', 'requests', 'rich', 'platformdirs')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
