"""From the name of data to sets that a recipe can train on, or that a run is measured on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from chainrule import data
from chainrule.errors import ArgumentError, DataError
from chainrule.recipes.form import Form, border
from chainrule.recipes.registry import RECIPES, Recipe, augmentation, get
from chainrule.recipes.settings import Settings, locate

TEST_SHARE, SPLIT_SEED = 0.2, 0
FIRST = 4096  # images that mean and spread are measured on


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Training and held-out data in the form that the model takes."""

    train: Any
    test: Any
    form: Form


def prepare(settings: Settings) -> Prepared:
    """Load, split, scale and (for training) augment the data of a run."""
    recipe = get(settings.recipe)
    train, test = _read(recipe, settings)
    _check_kind(recipe, settings, train)
    if isinstance(train, data.Table):
        if settings.augment:
            raise ArgumentError("augmentation is for images; a table has none.")
        form = _fit_table(train)
        return Prepared(_table_set(form, train), _table_set(form, test), form)
    form = _fit_images(train, recipe.standardize)
    if settings.augment:
        changes = augmentation(settings.data, form.shape)
        return Prepared(
            _image_set(form, train.with_transform(changes, seed=settings.seed)),
            _image_set(form, test), form,
        )  # fmt: skip
    return Prepared(_image_set(form, train), _image_set(form, test), form)


def _check_kind(recipe: Recipe, settings: Settings, train: Any) -> None:
    """Refuse data that the recipe has no use for."""
    kind = "tables" if isinstance(train, data.Table) else "images"
    if kind not in recipe.learns_from:
        others = [r.name for r in RECIPES.values() if kind in r.learns_from]
        raise ArgumentError(
            f"the recipe {recipe.name!r} learns from {' or '.join(recipe.learns_from)}, but "
            f"{settings.data!r} gives {kind}; use the recipe {' or '.join(others)}."
        )


def held_out(settings: Settings, form: Form, other: str | None = None) -> Any:
    """The data that a trained run is measured on, brought into its form.

    Arguments:
        other: data to use in place of the run's own: the test part of a data set by name, or all of
            a CSV file or of a folder of images.
    """
    recipe = get(settings.recipe)
    name = settings.data if other is None else locate(other)
    if name != settings.data:
        settings = dataclasses.replace(settings, data=name)
        if _is_table_file(name):
            form.require_kind(False, repr(name))
            return _rows(form, name)
        if _is_folder(name):
            form.require_kind(True, repr(name))
            return _image_set(form, _folder(name, form.shape))
    test = _read(recipe, settings, form.shape)[1]
    is_table = isinstance(test, data.Table)
    form.require_kind(not is_table, repr(name))
    return _table_set(form, test) if is_table else _image_set(form, test)


# --- reading --------------------------------------------------------------------------------------


def _is_table_file(name: str) -> bool:
    return name.lower().endswith((".csv", ".tsv"))


def _is_folder(name: str) -> bool:
    return name not in data.names() and Path(name).is_dir()


def _folder(name: str, shape: tuple[int, ...]) -> Any:
    return data.folder(name, size=shape[1:], mode="L" if shape[0] == 1 else "RGB")


def _read(recipe: Recipe, settings: Settings, shape: tuple[int, ...] | None = None) -> Any:
    """Training and test data as they are: two tables, or two data sets of images."""
    if _is_table_file(settings.data):
        return data.csv(settings.data, **settings.table_options).split(TEST_SHARE, SPLIT_SEED)
    defaults = {f.name: f.default for f in dataclasses.fields(Settings)}
    for name, value in settings.table_options.items():
        if value != defaults[name]:
            raise ArgumentError(
                f"{name} says how to read a CSV file, but the data is {settings.data!r}."
            )
    if _is_folder(settings.data):
        images = _folder(settings.data, shape or recipe.folder_shape)
        return images.split(TEST_SHARE, SPLIT_SEED)
    train, test = data.load(settings.data)
    if len(train.shape) > 1:
        return train, test
    table, n = _as_table(train, test), len(train)
    return table.select(np.arange(n)), table.select(np.arange(n, len(table)))


def _as_table(train: Any, test: Any) -> Any:
    """The rows of two data sets, the training part first, as one table of numeric columns."""
    inputs = np.concatenate([np.asarray(part[:][0], np.float64) for part in (train, test)])
    labels = np.concatenate([np.asarray(part[:][1]) for part in (train, test)])
    names = train.feature_names or [f"x{i + 1}" for i in range(inputs.shape[1])]
    columns = tuple(data.Column(name, "numeric", inputs[:, i]) for i, name in enumerate(names))
    if train.task == "regression":
        values = labels.reshape(-1).astype(np.float64)
        target = data.Column("target", "numeric", values)
        return data.Table(train.name, columns, target, "regression", None, values)
    classes = _class_names(train)
    target = data.Column("target", "categorical", np.array([classes[c] for c in labels], object))
    return data.Table(train.name, columns, target, "classification", classes, labels)


def _class_names(dataset: Any) -> list[str]:
    return list(dataset.classes or [str(c) for c in range(int(np.max(dataset.labels)) + 1)])


# --- fitting --------------------------------------------------------------------------------------


def _fit_table(train: Any) -> Form:
    found = data.fit_preprocessing(train)
    outputs = 1 if found.classes is None else len(found.classes)
    content = {"kind": "table", **found.to_dict()}
    return Form((found.width,), outputs, found.task, found.classes, content)


def _fit_images(train: Any, standardize: bool) -> Form:
    """Mean and deviation of each channel, and the border, over evenly spaced training images."""
    chosen = np.linspace(0, len(train) - 1, min(len(train), FIRST)).astype(np.int64)
    images, axes = train.batch(chosen)[0], (0, 2, 3)
    mean, std = [0.0] * images.shape[1], [1.0] * images.shape[1]
    if standardize:
        mean = [round(float(v), 4) for v in images.mean(axis=axes, dtype=np.float64)]
        std = [max(round(float(v), 4), 1e-4) for v in images.std(axis=axes, dtype=np.float64)]
    classes = _class_names(train)
    content = {"kind": "image", "mean": mean, "std": std, "border": round(border(images), 4)}
    return Form(tuple(train.shape), len(classes), "classification", classes, content)


# --- bringing into form ---------------------------------------------------------------------------


def _image_set(form: Form, images: Any) -> Any:
    if tuple(images.shape) != form.shape:
        raise DataError(
            f"the run takes images of shape {form.shape} (channels, height, width), but "
            f"{images.name!r} has {tuple(images.shape)}."
        )
    return images.with_transform(form.normalize(), _renumber(form, images))


def _renumber(form: Form, images: Any) -> Callable[[Any], Any] | None:
    """From a label of other data to the run's number of that class; None where all are the same."""
    numbers = np.array(form.class_numbers(_class_names(images), repr(images.name)), np.int64)
    if (numbers == np.arange(len(numbers))).all():
        return None
    return lambda label: numbers[label]


def _table_set(form: Form, table: Any) -> Any:
    """A table as inputs and targets; `Preprocessing` names a column that is not there."""
    found = form.table
    if (table.classes is None) != (form.classes is None):
        raise DataError(f"the run is a {form.task}, but {table.name!r} is a {table.task}.")
    targets = found.targets(table)
    if table.classes is not None:
        numbers = np.array(form.class_numbers(table.classes, repr(table.name)), np.int64)
        targets = numbers[targets]
    return data.TensorDataset(
        found.table_inputs(table), targets, name=table.name, classes=form.classes, task=form.task
    )


def _rows(form: Form, path: str) -> Any:
    """All rows of a CSV file as inputs and targets."""
    found = form.table
    columns = data.read_columns(path, [*found.columns, found.target])
    try:
        inputs, targets = found.inputs(columns), found.encode_targets(columns[found.target])
    except DataError as error:
        raise DataError(f"{os.fspath(path)!r}: {error}") from error
    return data.TensorDataset(
        inputs, targets, name=Path(path).stem, classes=form.classes, task=form.task
    )
