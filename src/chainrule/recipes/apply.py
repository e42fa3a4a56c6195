"""Using a run that is over: evaluate it, predict with it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import data, nn
from chainrule.errors import ArgumentError, CheckpointError, DataError, StateDictError
from chainrule.recipes.folder import MODEL, RunFolder
from chainrule.recipes.form import Form, border
from chainrule.recipes.prepare import held_out
from chainrule.recipes.run import build_model, measure
from chainrule.recipes.settings import Settings
from chainrule.serialize import load
from chainrule.train import Trainer

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model says of one input.

    Attributes:
        source: the file or row.
        answer: a class, or a value.
        probabilities: class and probability, the likeliest first; empty for a regression.
    """

    source: str
    answer: Any
    probabilities: tuple[tuple[str, float], ...] = ()


def load_run(path: str | os.PathLike[str]) -> tuple[Any, Settings, Form]:
    """The trained model of a run's folder, in evaluation mode, its settings and its form.

    Raises:
        CheckpointError: if there is no run, it is not finished, or a file of it is damaged.
    """
    folder = RunFolder(path)
    settings, form = folder.read_config()
    if not (folder / MODEL).exists():
        raise CheckpointError(
            f"the run in {os.fspath(path)!r} is not finished (no {MODEL}); finish it with "
            f"chainrule train {settings.recipe} --out {os.fspath(path)} --resume."
        )
    with cr.random.preserved():
        model = build_model(settings, form)
    try:
        model.load_state_dict(load(folder / MODEL))
    except StateDictError as error:
        raise CheckpointError(f"{os.fspath(folder / MODEL)!r} is of another run: {error}") from None
    return model.eval(), settings, form


def evaluate(path: str | os.PathLike[str], data_name: str | None = None) -> dict[str, Any]:
    """Loss and metrics of a run's model on its held-out data, or on other data of the same form.

    Other data is the test part of a data set by name, or all of a CSV file or folder of images. It
    is scaled as the training data was.
    """
    model, settings, form = load_run(path)
    return measure(model, held_out(settings, form, data_name), form).results


def predict(
    path: str | os.PathLike[str], inputs: Sequence[str], invert: bool | None = None
) -> list[Prediction]:
    """What the run's model says of image files, or of rows of a table.

    Arguments:
        inputs: image files; or lines of CSV, or CSV files with a header, of which each row is one.
        invert: turn light into dark. None: do so for a grey picture with a light border if those in
            training were dark, as a digit in ink on paper has against those of MNIST, or reversed.
    """
    model, _, form = load_run(path)
    if form.is_image:
        batches = [([file], _image(form, file, invert)) for file in inputs]
    else:
        if invert is not None:
            raise ArgumentError("invert is for images, and this run was trained on a table.")
        batches = [_rows(form, row) for row in inputs]
    return [
        prediction
        for sources, rows in batches
        for prediction in _predictions(form, sources, Trainer(model).predict(rows))
    ]


def _image(form: Form, file: str, invert: bool | None) -> Array:
    """An image file as a batch of one for the model."""
    channels, height, width = form.shape
    if channels not in (1, 3):
        raise ArgumentError(
            f"this run takes images of {channels} channels, and files have 1 (grey) or 3 (RGB)."
        )
    if not Path(file).exists() and "," in file:
        raise ArgumentError(f"this run was trained on images, and {file!r} is no file.")
    mode = "L" if channels == 1 else "RGB"
    picture = data.read_image(file, (height, width), mode).astype(np.float32) / 255
    if _is_inverted(form, picture) if invert is None else invert:
        picture = 1 - picture
    return ((picture - form.mean) / form.std)[None]


def _is_inverted(form: Form, picture: Array) -> bool:
    """Whether a grey picture has a light border and the training images a dark one, or reversed."""
    return form.shape[0] == 1 and (border(picture) > 0.5) != (form.preprocessing["border"] > 0.5)


def _rows(form: Form, row: str) -> tuple[list[str], Array]:
    """A line of CSV, or the rows of a file, as names and inputs."""
    table = form.table
    if Path(row).suffix.lower() not in (".csv", ".tsv"):
        if Path(row).is_file():
            raise ArgumentError(
                f"this run was trained on rows of a table, and {row!r} is a file of another kind; "
                "give a CSV file, or a row."
            )
        return [row], table.inputs(table.parse_row(row))
    try:
        inputs = table.inputs(data.read_columns(row, table.columns))
    except DataError as error:
        raise DataError(f"{row!r}: {error}") from error
    return [f"{row}, row {i + 1}" for i in range(len(inputs))], inputs


def _predictions(form: Form, sources: Sequence[str], outputs: Any) -> list[Prediction]:
    if form.classes is None:
        values = form.table.answers(outputs.numpy())
        return [Prediction(source, v) for source, v in zip(sources, values, strict=True)]
    found = []
    for source, scores in zip(sources, nn.functional.softmax(outputs, dim=1).numpy(), strict=True):
        order = np.argsort(-scores, kind="stable")
        ranked = tuple((form.classes[i], float(scores[i])) for i in order)
        found.append(Prediction(source, ranked[0][0], ranked))
    return found
