"""MNIST, Fashion-MNIST and CIFAR-10: where they are looked for, and the real files."""

from __future__ import annotations

import gzip
import io
import logging
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from chainrule import data
from chainrule.data import notices, vision
from chainrule.errors import DataError, DownloadError

REAL = os.environ.get("CHAINRULE_DATA")
needs_data = pytest.mark.skipif(
    not REAL or not Path(REAL, "mnist").is_dir(),
    reason="CHAINRULE_DATA names no folder with the real data sets",
)


@pytest.fixture
def local(tmp_path, monkeypatch):
    """An empty CHAINRULE_DATA and an empty cache, and no network."""
    folder, cache = tmp_path / "data", tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("CHAINRULE_DATA", str(folder))
    monkeypatch.setattr(vision, "cache_folder", lambda: cache)
    monkeypatch.setattr(notices, "_said", set())

    def offline(remote, folder):
        raise DownloadError(f"asked for {remote.name}")

    monkeypatch.setattr(vision, "download", offline)
    return folder


def write_idx(path, array, pack=True):
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if pack else content)


def small_mnist(folder, names=("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")):
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    labels = np.array([3, 0, 9, 1], np.uint8)
    write_idx(folder / names[0], images, names[0].endswith(".gz"))
    write_idx(folder / names[1], labels, names[1].endswith(".gz"))
    return images, labels


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("mnist", ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")),
        ("mnist", ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")),
        ("mnist", ("train-images.idx3-ubyte", "train-labels.idx1-ubyte")),
        ("MNIST/raw", ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")),
    ],
)
def test_local_folder_is_looked_at_first(local, folder, names):
    images, labels = small_mnist(local / folder, names)
    dataset = data.mnist()
    x, y = dataset[:]
    np.testing.assert_array_equal(x[:, 0], images.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(y, labels)
    assert dataset.name == "mnist" and dataset.classes == [str(d) for d in range(10)]
    assert data.mnist(flatten=True)[0][0].shape == (784,)


def test_what_is_not_there_is_fetched(local):
    with pytest.raises(DownloadError, match=r"train-images-idx3-ubyte.gz"):
        data.mnist()
    with pytest.raises(DownloadError, match=r"t10k-images-idx3-ubyte.gz"):
        data.fashion_mnist(train=False)
    with pytest.raises(DownloadError, match=r"cifar-10-binary.tar.gz"):
        data.cifar10()


def test_variable_must_name_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CHAINRULE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"CHAINRULE_DATA names .*nowhere"):
        data.mnist()


def test_damaged_local_file_is_named(local):
    small_mnist(local / "mnist")
    path = local / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz.* is damaged"):
        data.mnist()
    write_idx(path, np.array([3, 0, 10, 1], np.uint8))
    with pytest.raises(DataError, match="label 10 of sample 2 in mnist"):
        data.mnist()


def records(labels, seed=0):
    table = np.random.default_rng(seed).integers(0, 256, (len(labels), 3073), dtype=np.uint8)
    table[:, 0] = labels
    return table


def test_cifar_subset_is_used_and_said(local, caplog):
    table = records([0, 5, 9])
    (local / "cifar10-subset").mkdir()
    path = local / "cifar10-subset" / "cifar10-subset-train-10000.bin.gz"
    path.write_bytes(gzip.compress(table.tobytes()))
    with caplog.at_level(logging.WARNING):
        dataset = data.cifar10()
        data.cifar10()
    assert dataset.name == "cifar10-subset" and len(dataset) == 3 and dataset.shape == (3, 32, 32)
    assert len([r for r in caplog.records if "subset of CIFAR-10" in r.getMessage()]) == 1
    np.testing.assert_array_equal(dataset.images.reshape(3, -1), table[:, 1:])


def test_cifar_batches_of_the_whole_set(local):
    folder = local / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(records([number] * 2, number).tobytes())
    (folder / "test_batch.bin").write_bytes(records([0]).tobytes())
    train, test = data.cifar10(), data.cifar10(train=False)
    assert train.name == "cifar10" and train.labels.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert test.labels.tolist() == [0]


def test_cifar_archive_is_unpacked_once(local, monkeypatch):
    """The official archive's path, with one made here: fetched, checked, unpacked, reused."""
    sizes = {name: 2 * 3073 for name in vision.CIFAR10_MEMBERS}
    monkeypatch.setattr(vision, "CIFAR10_MEMBERS", sizes)
    archive = local.parent / "made.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for number, name in enumerate(sizes):
            entry = tarfile.TarInfo(name)
            entry.size = sizes[name]
            tar.addfile(entry, io.BytesIO(records([number] * 2).tobytes()))
    fetched = []

    def fetch(remote, folder):
        fetched.append(remote.name)
        return archive

    monkeypatch.setattr(vision, "download", fetch)
    with pytest.raises(DataError, match="not the official file"):
        data.cifar10()
    monkeypatch.setattr(vision, "check_sha256", lambda path, sha256: None)
    assert data.cifar10().labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert data.cifar10(train=False).labels.tolist() == [5, 5]
    before = len(fetched)
    data.cifar10()
    assert len(fetched) == before  # the unpacked files are there
    assert not [p for p in (local.parent / "cache" / "cifar10").iterdir() if p.suffix != ".bin"]


def test_remote_files_are_complete():
    for files in (vision.MNIST_FILES, vision.FASHION_FILES):
        assert len(files) == 4
    remotes = [*vision.MNIST_FILES.values(), *vision.FASHION_FILES.values(), vision.CIFAR10_ARCHIVE]
    for remote in remotes:
        assert len(remote.sha256) == 64 and remote.size > 0
        assert all(url.startswith("https://") and url.endswith(remote.name) for url in remote.urls)
    assert len({remote.sha256 for remote in remotes}) == 9


# --- the real files -------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(("folder", "files"), [
    ("mnist", vision.MNIST_FILES), ("fashion-mnist", vision.FASHION_FILES),
])  # fmt: skip
def test_checksums_are_those_of_the_real_files(folder, files):
    from chainrule.data.download import check_sha256

    for remote in files.values():
        path = Path(REAL, folder, remote.name)
        assert path.stat().st_size == remote.size
        check_sha256(path, remote.sha256)


@needs_data
def test_real_mnist():
    train, test = data.load("mnist")
    assert (len(train), len(test)) == (60_000, 10_000) and train.shape == (1, 28, 28)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9] and test.labels[:3].tolist() == [7, 2, 1]
    # The mean and standard deviation that everybody normalises MNIST with.
    pixels = train.images.astype(np.float32) / 255
    assert pixels.mean() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std() == pytest.approx(0.3081, abs=5e-5)


@needs_data
def test_real_fashion_mnist():
    train, test = data.load("fashion_mnist", flatten=True)
    assert (len(train), len(test)) == (60_000, 10_000) and train.shape == (784,)
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert train.classes[train.labels[0]] == "Ankle boot"
    assert (train.images / 255).mean() == pytest.approx(0.2860, abs=5e-5)


@needs_data
def test_real_cifar10_subset():
    if not Path(REAL, "cifar10-subset").is_dir():
        pytest.skip("CHAINRULE_DATA has no folder cifar10-subset")
    train, test = data.load("cifar10")
    assert train.name == "cifar10-subset" and (len(train), len(test)) == (10_000, 2_000)
    assert np.bincount(train.labels).tolist() == [1000] * 10
    assert np.bincount(test.labels).tolist() == [200] * 10
    means = (train.images / 255).mean((0, 2, 3))
    np.testing.assert_allclose(means, [0.494, 0.483, 0.447], atol=1e-3)
