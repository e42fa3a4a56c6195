"""All data sets by name: what they are, where they come from, and how to load them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.data import embedded, images, synthetic, tables, vision
from chainrule.data.dataset import Dataset
from chainrule.errors import ArgumentError, unknown_name

TEST_SHARE = 0.2
SPLIT_SEED = 0


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is loaded.

    Attributes:
        name: its name.
        function: what loads it.
        description: one line.
        source: "scikit-learn", "made from a seed" or "download".
        samples: how many, training and test together.
        task: "classification" or "regression".
        download_bytes: how much is fetched if it is not there; 0 for none.
        official_split: whether it has training and test samples of its own (the function's
            `train`).
    """

    name: str
    function: Callable[..., Dataset]
    description: str
    source: str
    samples: int
    task: str = "classification"
    download_bytes: int = 0
    official_split: bool = False


def _info(function: Callable[..., Any], *rest: Any, **more: Any) -> DatasetInfo:
    return DatasetInfo(function.__name__, function, *rest, **more)


_SKLEARN, _SEED, _NET = "scikit-learn", "made from a seed", "download"
_INFOS = {
    info.name: info
    for info in (
        _info(embedded.digits, "handwritten digits, 8 x 8 scans, also at 28 x 28", _SKLEARN, 1_797),
        _info(embedded.iris, "3 species of iris by 4 lengths", _SKLEARN, 150),
        _info(embedded.wine, "3 cultivars of wine by 13 measurements", _SKLEARN, 178),
        _info(embedded.breast_cancer, "tumours by 30 measurements", _SKLEARN, 569),
        _info(
            embedded.diabetes, "course of diabetes by 10 measurements", _SKLEARN, 442, "regression"
        ),
        _info(synthetic.xor, "exclusive or, with noise", _SEED, 200),
        _info(synthetic.circles, "a circle within a circle", _SEED, 200),
        _info(synthetic.moons, "two half circles that interlock", _SEED, 200),
        _info(synthetic.spirals, "two spirals that wind about each other", _SEED, 300),
        _info(synthetic.blobs, "three Gaussian blobs", _SEED, 300),
        _info(
            vision.mnist, "handwritten digits, 28 x 28", _NET, 70_000,
            download_bytes=sum(f.size for f in vision.MNIST_FILES.values()), official_split=True,
        ),
        _info(
            vision.fashion_mnist, "clothes, 28 x 28", _NET, 70_000,
            download_bytes=sum(f.size for f in vision.FASHION_FILES.values()), official_split=True,
        ),
        _info(
            vision.cifar10, "photographs of 10 kinds of things, 32 x 32 in colour", _NET, 60_000,
            download_bytes=vision.CIFAR10_ARCHIVE.size, official_split=True,
        ),
    )
}  # fmt: skip


def names() -> list[str]:
    """The names of all data sets."""
    return list(_INFOS)


def catalogue() -> list[DatasetInfo]:
    """What is known of each data set; `chainrule datasets` prints it."""
    return list(_INFOS.values())


def info(name: str) -> DatasetInfo:
    """What is known of one data set.

    Raises:
        UnknownNameError: if there is none of that name; offers the nearest ones.
    """
    if name not in _INFOS:
        raise unknown_name(
            "data set", name, _INFOS, "A .csv file or a folder of images will do too."
        )
    return _INFOS[name]


def load(name: str | os.PathLike[str], **options: Any) -> tuple[Dataset, Dataset]:
    """`(train_set, test_set)` of a data set by name, of a CSV file, or of a folder of images.

    The split is the official one where there is one. Otherwise 20 % of the samples are for testing,
    always the same ones (`split(test=0.2, seed=0)`, stratified in a classification).

    Arguments:
        name: one of `names()`, or the path of a `.csv` file or of a folder.
        options: what the function of that name takes, such as `size=28` or `flatten=True`.

    Raises:
        UnknownNameError: if there is none of that name.
        ArgumentError: for an option that the function does not take.
    """
    text = os.fspath(name)
    if text in _INFOS:
        entry = _INFOS[text]
        function, official = entry.function, entry.official_split
    elif text.lower().endswith((".csv", ".tsv")):
        table = _call(tables.csv, (text,), options)
        train_set, test_set, _ = table.datasets(TEST_SHARE, SPLIT_SEED)
        return train_set, test_set
    elif Path(text).is_dir():
        return _call(images.folder, (text,), options).split(TEST_SHARE, SPLIT_SEED)
    else:
        entry = info(text)
        function, official = entry.function, entry.official_split
    if official:
        if "train" in options:
            raise ArgumentError(f"load({text!r}) gives both parts: leave the option 'train' out.")
        return _call(function, (True,), options), _call(function, (False,), options)
    return _call(function, (), options).split(TEST_SHARE, SPLIT_SEED)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    known = [n for n in inspect.signature(function).parameters][len(arguments) :]
    for option in options:
        if option not in known:
            raise ArgumentError(
                f"the data set function {function.__name__} has no option {option!r}; "
                + (f"it has {', '.join(known)}." if known else "it has none.")
            )
    return function(*arguments, **options)
