"""Data: sets, loaders, samplers, transforms, and the data sets themselves.

    train_set, test_set = data.digits(size=28).split(test=0.2, seed=0)
    loader = data.DataLoader(train_set, batch_size=32, shuffle=True)
    for images, labels in loader:
        ...

`data.load(name)` gives `(train_set, test_set)` of any data set in `data.names()`, of a CSV file, or
of a folder of images. Names, arguments and defaults are those of `torch.utils.data` where it has
them.
"""

from chainrule.data import transforms
from chainrule.data.collate import PadCollate, default_collate, default_convert
from chainrule.data.csvfile import read_columns
from chainrule.data.dataset import Dataset, ImageDataset, TensorDataset, check_labels
from chainrule.data.derived import ConcatDataset, Subset, TransformedDataset
from chainrule.data.embedded import breast_cancer, diabetes, digits, iris, wine
from chainrule.data.idx import read_cifar, read_idx
from chainrule.data.images import ImageFolder, folder, read_image
from chainrule.data.loader import DataLoader
from chainrule.data.preprocessing import Preprocessing, fit_preprocessing
from chainrule.data.registry import DatasetInfo, catalogue, info, load, names
from chainrule.data.samplers import (
    BatchSampler,
    BucketBatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from chainrule.data.splits import random_split, standardize
from chainrule.data.synthetic import blobs, circles, moons, spirals, xor
from chainrule.data.tables import Column, Table, csv
from chainrule.data.vision import cifar10, fashion_mnist, mnist

__all__ = [
    "BatchSampler",
    "BucketBatchSampler",
    "Column",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DatasetInfo",
    "ImageDataset",
    "ImageFolder",
    "PadCollate",
    "Preprocessing",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "Table",
    "TensorDataset",
    "TransformedDataset",
    "WeightedRandomSampler",
    "blobs",
    "breast_cancer",
    "catalogue",
    "check_labels",
    "cifar10",
    "circles",
    "csv",
    "default_collate",
    "default_convert",
    "diabetes",
    "digits",
    "fashion_mnist",
    "fit_preprocessing",
    "folder",
    "info",
    "iris",
    "load",
    "mnist",
    "moons",
    "names",
    "random_split",
    "read_cifar",
    "read_columns",
    "read_idx",
    "read_image",
    "spirals",
    "standardize",
    "transforms",
    "wine",
    "xor",
]
