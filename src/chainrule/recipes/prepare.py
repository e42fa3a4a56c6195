"""From the name of data to sets that a recipe can train on, and the plain numbers that bring any
later input into the same form."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from chainrule import data
from chainrule.data import transforms
from chainrule.errors import ArgumentError, CheckpointError
from chainrule.recipes.registry import Recipe, augmentation
from chainrule.recipes.settings import Settings

FIRST = 4096  # images that mean and spread are measured on


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Data ready to train on.

    Attributes:
        train, test: data sets of (input, target) in the form that the model takes.
        shape: the shape of one input.
        outputs: units that the model's last layer needs.
        task: "classification" or "regression".
        classes: the names of the classes, or None.
        preprocessing: how inputs were made, as JSON: an image's size and scaling, or a table's columns.
    """

    train: Any
    test: Any
    shape: tuple[int, ...]
    outputs: int
    task: str
    classes: list[str] | None
    preprocessing: dict[str, Any]


def is_table_file(name: str) -> bool:
    """Whether the data's name is that of a table in a file."""
    return name.lower().endswith((".csv", ".tsv"))


def prepare(recipe: Recipe, settings: Settings) -> Prepared:
    """Load, split, scale and (for training) augment the data of a run."""
    if is_table_file(settings.data):
        table = data.csv(settings.data, target=settings.target, missing=settings.missing)
        return _table(table, settings)
    if settings.target is not None:
        raise ArgumentError(
            f"--target names a column of a CSV file, but the data is {settings.data!r}."
        )
    options = _folder_options(recipe, settings)
    train, test = data.load(settings.data, **options)
    if len(train.shape) == 1:
        return _table(_as_table(train, test), settings, len(test))
    if recipe.table:
        raise ArgumentError(
            f"the recipe {recipe.name!r} learns from tables, but {settings.data!r} holds images of "
            f"shape {train.shape}; use the recipe mlp, lenet or resnet20."
        )
    return _images(train, test, settings)


def _folder_options(recipe: Recipe, settings: Settings) -> dict[str, Any]:
    if settings.data in data.names() or not Path(settings.data).is_dir():
        return {}
    if recipe.name == "resnet20":
        return {"size": 32, "mode": "RGB"}
    return {"size": 28, "mode": "L"}


def _images(train: Any, test: Any, settings: Settings) -> Prepared:
    shape = tuple(train.shape)
    sample = np.stack([np.asarray(train[i][0]) for i in range(min(len(train), FIRST))])
    axes = (0, 2, 3)
    mean = [round(float(v), 4) for v in sample.mean(axis=axes, dtype=np.float64)]
    std = [max(round(float(v), 4), 1e-4) for v in sample.std(axis=axes, dtype=np.float64)]
    normalize = transforms.Normalize(mean, std)
    changed = train
    if settings.augment:
        changed = changed.with_transform(augmentation(settings.data, shape), seed=settings.seed)
    classes = train.classes or [str(c) for c in range(int(np.max(train.labels)) + 1)]
    return Prepared(
        changed.with_transform(normalize), test.with_transform(normalize), shape, len(classes),
        "classification", list(classes),
        {"kind": "image", "shape": list(shape), "mean": mean, "std": std},
    )  # fmt: skip


def _table(table: Any, settings: Settings, held_out: int | None = None) -> Prepared:
    if settings.augment:
        raise ArgumentError("augmentation is for images; a table has none.")
    if held_out is None:
        train, test, preprocessing = table.datasets(test=0.2, seed=0)
    else:
        n = len(table)
        rows = np.arange(n)
        preprocessing = data.fit_preprocessing(table.select(rows[: n - held_out]))
        train = preprocessing.dataset(table.select(rows[: n - held_out]))
        test = preprocessing.dataset(table.select(rows[n - held_out :]))
    classes = preprocessing.classes
    return Prepared(
        train, test, (preprocessing.width,), 1 if classes is None else len(classes),
        preprocessing.task, classes, {"kind": "table", **preprocessing.to_dict()},
    )  # fmt: skip


def _as_table(train: Any, test: Any) -> Any:
    """The rows of two data sets, the training part first, as one table of numeric columns."""
    inputs = np.concatenate([np.asarray(part[:][0], np.float64) for part in (train, test)])
    labels = np.concatenate([np.asarray(part[:][1]) for part in (train, test)])
    names = getattr(train, "feature_names", None) or [f"x{i + 1}" for i in range(inputs.shape[1])]
    columns = tuple(
        data.Column(name, "numeric", inputs[:, i]) for i, name in enumerate(names)
    )
    if train.task == "regression":
        values = labels.reshape(-1).astype(np.float64)
        target = data.Column("target", "numeric", values)
        return data.Table(train.name, columns, target, "regression", None, values)
    classes = train.classes or [str(c) for c in range(int(labels.max()) + 1)]
    target = data.Column("target", "categorical", np.array([classes[c] for c in labels], object))
    return data.Table(train.name, columns, target, "classification", list(classes), labels)


def image_inputs(pixels: np.ndarray[Any, Any], preprocessing: dict[str, Any]) -> Any:
    """One image, float32 in [0, 1] of shape (C, H, W), as a batch of one for the model."""
    mean = np.asarray(preprocessing["mean"], np.float32)[:, None, None]
    std = np.asarray(preprocessing["std"], np.float32)[:, None, None]
    return ((pixels - mean) / std)[None]


def undo_scaling(inputs: np.ndarray[Any, Any], preprocessing: dict[str, Any]) -> Any:
    """Images (n, C, H, W) as they were before they were scaled, for pictures."""
    mean = np.asarray(preprocessing["mean"], np.float32)[:, None, None]
    std = np.asarray(preprocessing["std"], np.float32)[:, None, None]
    return np.clip(inputs * std + mean, 0, 1)


def check_kind(preprocessing: dict[str, Any], kind: str, what: str) -> None:
    """Refuse an input of a kind that the run was not trained on."""
    if preprocessing.get("kind") not in ("image", "table"):
        raise CheckpointError("the run's config does not say how its inputs were made.")
    if preprocessing["kind"] != kind:
        has = preprocessing["kind"]
        raise ArgumentError(
            f"this run was trained on {'images' if has == 'image' else 'rows of a table'}, and "
            f"{what} is something else."
        )
