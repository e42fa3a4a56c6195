"""MNIST, Fashion-MNIST and CIFAR-10, from a local folder or from their official places."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from chainrule.data.dataset import ImageDataset
from chainrule.data.download import Remote, cache_folder, check_sha256, download, extract
from chainrule.data.idx import CIFAR_RECORD, read_cifar, read_idx_pair
from chainrule.data.notices import notice
from chainrule.errors import DataError

_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/",
)


def _remotes(mirrors: tuple[str, ...], *files: tuple[str, int, str]) -> dict[str, Remote]:
    return {
        name: Remote(name, size, sha256, tuple(mirror + name for mirror in mirrors))
        for name, size, sha256 in files
    }


MNIST_FILES = _remotes(
    _MNIST_MIRRORS,
    (
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    (
        "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    (
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    (
        "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
FASHION_FILES = _remotes(
    _FASHION_MIRRORS,
    (
        "train-images-idx3-ubyte.gz",
        26_421_880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    (
        "train-labels-idx1-ubyte.gz",
        29_515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    (
        "t10k-images-idx3-ubyte.gz",
        4_422_102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    (
        "t10k-labels-idx1-ubyte.gz",
        5_148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
CIFAR10_ARCHIVE = Remote(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
)
CIFAR10_MEMBERS = {
    f"cifar-10-batches-bin/{name}.bin": 10_000 * CIFAR_RECORD
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5",
                 "test_batch")
}  # fmt: skip

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def local_folder() -> Path | None:
    """The folder named by the environment variable CHAINRULE_DATA, or None where it is not set."""
    named = os.environ.get("CHAINRULE_DATA")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"the environment variable CHAINRULE_DATA names {named!r}, which is not a folder; "
            "correct it, or unset it to use downloads."
        )
    return folder


def find_local(folders: Sequence[str], names: Sequence[str]) -> Path | None:
    """The first of `names` that is in one of the `folders` of CHAINRULE_DATA."""
    root = local_folder()
    if root is not None:
        for folder in folders:
            for name in names:
                if (root / folder / name).is_file():
                    return root / folder / name
    return None


def _idx_file(remote: Remote, cache: str, folders: Sequence[str]) -> Path:
    plain = remote.name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")  # as some archives spell it
    path = find_local(folders, (remote.name, plain, dotted))
    return path or download(remote, cache_folder() / cache)


def _idx_dataset(
    files: dict[str, Remote],
    train: bool,
    flatten: bool,
    name: str,
    folders: Sequence[str],
    classes: Sequence[str],
) -> ImageDataset:
    part = "train" if train else "t10k"
    paths = [
        _idx_file(files[f"{part}-{kind}-ubyte.gz"], name, folders)
        for kind in ("images-idx3", "labels-idx1")
    ]
    images, labels = read_idx_pair(*paths)
    return ImageDataset(images[:, None], labels, name=name, classes=classes, flatten=flatten)


def mnist(train: bool = True, flatten: bool = False) -> ImageDataset:
    """MNIST: 60,000 handwritten digits for training, 10,000 for testing, 28 x 28 grey.

    Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998. 11.6 MB,
    from the folder `mnist` in CHAINRULE_DATA, else from the cache, else fetched.

    Arguments:
        train: the official training images, or the official test images.
        flatten: images as vectors (784,) instead of (1, 28, 28).

    Returns:
        A data set of (image float32 in [0, 1], label 0 to 9).

    Raises:
        DownloadError: if the files are nowhere and cannot be fetched.
        DataError: if a file is damaged.
    """
    folders = ("mnist", "MNIST", "MNIST/raw")
    digits = [str(digit) for digit in range(10)]
    return _idx_dataset(MNIST_FILES, train, flatten, "mnist", folders, digits)


def fashion_mnist(train: bool = True, flatten: bool = False) -> ImageDataset:
    """Fashion-MNIST: clothes in the form of MNIST, 60,000 for training and 10,000 for testing.

    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms", 2017 (arXiv 1708.07747). 30.9 MB, from the folder `fashion-mnist` in
    CHAINRULE_DATA, else from the cache, else fetched. Arguments, result and errors as `mnist`.
    """
    folders = ("fashion-mnist", "fashion_mnist", "FashionMNIST", "FashionMNIST/raw")
    return _idx_dataset(FASHION_FILES, train, flatten, "fashion_mnist", folders, FASHION_CLASSES)


def cifar10(train: bool = True, flatten: bool = False) -> ImageDataset:
    """CIFAR-10: photographs of ten kinds of things, 32 x 32 in colour, 50,000 and 10,000.

    A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. 170 MB, from
    CHAINRULE_DATA (the official archive or its `.bin` files, in the folder `cifar10` or beside it),
    else from the cache, else fetched.

    If CHAINRULE_DATA has a folder `cifar10-subset` and not the whole set, that subset is used
    (10,000 and 2,000 images in the same format), a notice says so once, and the data set's name is
    "cifar10-subset".

    Arguments:
        train: the training or the test images.
        flatten: images as vectors (3072,) instead of (3, 32, 32).

    Returns:
        A data set of (image float32 in [0, 1], label 0 to 9).

    Raises:
        DownloadError: if the files are nowhere and cannot be fetched.
        DataError: if a file is damaged.
    """
    name, paths = "cifar10", _local_cifar10(train)
    if paths is None:
        subset = _cifar10_subset(train)
        if subset is not None:
            name, paths = "cifar10-subset", [subset]
            notice(
                f"cifar10: the folder '{subset.parent}' holds a subset of CIFAR-10, which is used "
                "in place of the whole set; results are not comparable with published ones."
            )
    if paths is None:
        paths = _cached_cifar10(train)
    parts = [read_cifar(path) for path in paths]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ImageDataset(images, labels, name=name, classes=CIFAR10_CLASSES, flatten=flatten)


_CIFAR10_FOLDERS = ("cifar10", "cifar-10", ".")


def _cifar10_members(train: bool) -> dict[str, int]:
    return {n: size for n, size in CIFAR10_MEMBERS.items() if n.endswith("test_batch.bin") != train}


def _local_cifar10(train: bool) -> list[Path] | None:
    """The whole set's files in CHAINRULE_DATA, unpacked or still in their archive."""
    members = _cifar10_members(train)
    found = []
    for member in members:
        name = Path(member).name
        path = find_local(_CIFAR10_FOLDERS, (member, name, f"{member}.gz", f"{name}.gz"))
        if path is None:
            archive = find_local(_CIFAR10_FOLDERS, (CIFAR10_ARCHIVE.name,))
            return None if archive is None else _unpacked(archive, members)
        found.append(path)
    return found


def _cifar10_subset(train: bool) -> Path | None:
    stem = "cifar10-subset-train-10000" if train else "cifar10-subset-test-2000"
    return find_local(("cifar10-subset",), (f"{stem}.bin.gz", f"{stem}.bin"))


def _cached_cifar10(train: bool) -> list[Path]:
    members = _cifar10_members(train)
    unpacked = _already_unpacked(members)
    if unpacked is not None:
        return unpacked
    return _unpacked(download(CIFAR10_ARCHIVE, cache_folder() / "cifar10"), members)


def _already_unpacked(members: dict[str, int]) -> list[Path] | None:
    """The files in the cache, if all are there in full (they were written atomically)."""
    paths = [cache_folder() / "cifar10" / Path(name).name for name in members]
    sizes = members.values()
    whole = all(p.is_file() and p.stat().st_size == s for p, s in zip(paths, sizes, strict=True))
    return paths if whole else None


def _unpacked(archive: Path, members: dict[str, int]) -> list[Path]:
    already = _already_unpacked(members)
    if already is not None:
        return already
    check_sha256(archive, CIFAR10_ARCHIVE.sha256)
    return extract(archive, members, cache_folder() / "cifar10")
