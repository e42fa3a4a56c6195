"""Data sets that come with scikit-learn: no network is needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.data.dataset import TensorDataset
from chainrule.data.transforms.resize import resize
from chainrule.errors import ArgumentError, require

DIGIT_SIZES = (8, 28)
# Of bilinear and bicubic enlargement to 20, 24 and 28 pixels, bicubic to 24 and to 28 trained LeNet
# best in cross-validation within the training split (docs/LOG.md), and 24 leaves room to shift a
# digit.
DIGIT_INNER = 24


def _sklearn(loader: str) -> Any:
    datasets = require("sklearn.datasets", extra="sklearn", purpose="read its embedded data sets")
    return getattr(datasets, loader)()


def digits(size: int = 28, flatten: bool = False) -> TensorDataset:
    """1,797 handwritten digits of 43 people, scanned at 8 x 8 pixels with 17 grey values.

    E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI machine learning
    repository, 1998, as scikit-learn has them. The values, 0 to 16, are divided by 16.

    At 28 x 28 each scan is enlarged with Keys' bicubic interpolation to 24 x 24 pixels, the values
    are clipped to [0, 1], and a frame of 2 pixels is put around it: the size of MNIST.

    Arguments:
        size: 8 or 28.
        flatten: images as vectors (size * size,) instead of (1, size, size).

    Returns:
        A data set of (image float32 in [0, 1], label 0 to 9).
    """
    if size not in DIGIT_SIZES:
        raise ArgumentError(
            f"the digits are offered at size 8 and 28, but size={size!r} was asked for."
        )
    source = _sklearn("load_digits")
    images = (source.images / 16).astype(np.float32)[:, None]
    if size == 28:
        inner = resize(images, (DIGIT_INNER, DIGIT_INNER), "bicubic")
        margin = (28 - DIGIT_INNER) // 2
        images = np.zeros((len(images), 1, 28, 28), np.float32)
        images[:, :, margin:-margin, margin:-margin] = np.clip(inner, 0, 1)
    if flatten:
        images = images.reshape(len(images), -1)
    return TensorDataset(
        images, source.target.astype(np.int64),
        name="digits", classes=[str(d) for d in range(10)], task="classification",
    )  # fmt: skip


def _classification(loader: str, name: str) -> TensorDataset:
    source = _sklearn(loader)
    dataset = TensorDataset(
        source.data.astype(np.float32), source.target.astype(np.int64),
        name=name, classes=[str(c) for c in source.target_names], task="classification",
    )  # fmt: skip
    dataset.feature_names = [str(feature) for feature in source.feature_names]
    return dataset


def iris() -> TensorDataset:
    """150 irises of 3 species by 4 lengths in cm. R. A. Fisher, 1936.

    Raw values (150, 4) float32; `data.standardize(train, test)` scales them.
    """
    return _classification("load_iris", "iris")


def wine() -> TensorDataset:
    """178 wines of 3 cultivars by 13 chemical measurements. M. Forina et al., 1988.

    Raw values (178, 13) float32 of very different sizes; `data.standardize(train, test)` scales
    them.
    """
    return _classification("load_wine", "wine")


def breast_cancer() -> TensorDataset:
    """569 tumours, malignant (0) or benign (1), by 30 measurements of cell nuclei.

    W. H. Wolberg, W. N. Street, O. L. Mangasarian, 1995. Raw values (569, 30) float32;
    `data.standardize(train, test)` scales them.
    """
    return _classification("load_breast_cancer", "breast_cancer")


def diabetes() -> TensorDataset:
    """442 patients by 10 measurements; the target is the disease's progression after a year.

    B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, "Least angle regression", 2004. The inputs
    (442, 10) float32 are centred and scaled as in that paper; the target (442, 1) float32 goes from
    25 to 346.
    """
    source = _sklearn("load_diabetes")
    dataset = TensorDataset(
        source.data.astype(np.float32), source.target.astype(np.float32)[:, None],
        name="diabetes", task="regression",
    )  # fmt: skip
    dataset.feature_names = [str(feature) for feature in source.feature_names]
    return dataset
