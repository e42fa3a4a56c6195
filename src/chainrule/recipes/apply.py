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
from chainrule.errors import ArgumentError, CheckpointError, DataError
from chainrule.recipes import registry
from chainrule.recipes.folder import MODEL, RunFolder
from chainrule.recipes.prepare import check_kind, image_inputs, prepare
from chainrule.recipes.run import build_model, measure
from chainrule.serialize import load


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


def load_run(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """The trained model of a run's folder, in evaluation mode, and its config."""
    folder = RunFolder(path)
    config = folder.read_config()
    if not (folder / MODEL).exists():
        raise CheckpointError(
            f"the run in {os.fspath(path)!r} is not finished (no {MODEL}); finish it with "
            f"chainrule train {config['settings'].recipe} --out {os.fspath(path)} --resume."
        )
    with cr.random.preserved():
        model = build_model(config["settings"], tuple(config["shape"]), config["outputs"])
    model.load_state_dict(load(folder / MODEL))
    return model.eval(), config


def evaluate(path: str | os.PathLike[str], data_name: str | None = None) -> dict[str, Any]:
    """Loss and metrics of a run's model on its held-out data, or on that of other data.

    Other data must have the same inputs and classes.
    """
    model, config = load_run(path)
    settings = dataclasses.replace(config["settings"], augment=False)
    if data_name is not None:
        settings = dataclasses.replace(settings, data=data_name)
    prepared = prepare(registry.get(settings.recipe), settings)
    if list(prepared.shape) != config["shape"] or prepared.classes != config["classes"]:
        raise DataError(
            f"the run takes inputs of shape {tuple(config['shape'])} and knows the classes "
            f"{config['classes']}, but {settings.data!r} has {prepared.shape} and "
            f"{prepared.classes}."
        )
    return measure(model, prepared, None)


def predict_images(
    path: str | os.PathLike[str], files: Sequence[str], invert: bool | None = None
) -> list[Prediction]:
    """What the run's model sees in image files.

    Arguments:
        invert: turn light into dark. None: do so if the picture's border is light and the training
            images had dark borders, as a digit in ink on paper has against those of MNIST.
    """
    model, config = load_run(path)
    preprocessing = config["preprocessing"]
    found = []
    for file in files:
        check_kind(preprocessing, "image", repr(file))
        channels, height, width = preprocessing["shape"]
        if channels not in (1, 3):
            raise ArgumentError(f"images of {channels} channels cannot be read from files.")
        pixels = data.read_image(file, (height, width), "L" if channels == 1 else "RGB")
        picture = pixels.astype(np.float32) / 255
        turned = _light_border(picture) and _dark_mean(preprocessing) if invert is None else invert
        found.append(
            _classify(model, image_inputs(1 - picture if turned else picture, preprocessing),
                      config, os.fspath(file))
        )  # fmt: skip
    return found


def _light_border(picture: np.ndarray[Any, Any]) -> bool:
    edge = np.concatenate(
        [picture[:, 0].ravel(), picture[:, -1].ravel(), picture[:, :, 0].ravel(),
         picture[:, :, -1].ravel()]
    )  # fmt: skip
    return float(np.median(edge)) > 0.5


def _dark_mean(preprocessing: dict[str, Any]) -> bool:
    return preprocessing["shape"][0] == 1 and max(preprocessing["mean"]) < 0.4


def predict_rows(path: str | os.PathLike[str], rows: Sequence[str]) -> list[Prediction]:
    """What the run's model says of rows: lines of CSV, or the paths of CSV files with a header."""
    model, config = load_run(path)
    found = []
    for row in rows:
        check_kind(config["preprocessing"], "table", repr(row))
        content = {k: v for k, v in config["preprocessing"].items() if k != "kind"}
        table = data.Preprocessing.from_dict(content)
        if Path(row).suffix.lower() in (".csv", ".tsv"):
            columns = data.read_columns(row, table.columns)
            inputs = table.inputs(columns)
            names = [f"{row}, row {i + 1}" for i in range(len(inputs))]
        else:
            inputs, names = table.inputs(table.parse_row(row)), [row]
        for name, one in zip(names, inputs, strict=True):
            if config["classes"] is None:
                with cr.no_grad():
                    output = model(cr.asarray(one[None])).numpy()
                found.append(Prediction(name, table.answers(output)[0]))
            else:
                found.append(_classify(model, one[None], config, name))
    return found


def _classify(model: Any, inputs: Any, config: dict[str, Any], source: str) -> Prediction:
    with cr.no_grad():
        scores = nn.functional.softmax(model(cr.asarray(inputs)), dim=1).numpy()[0]
    order = np.argsort(-scores, kind="stable")
    ranked = tuple((config["classes"][i], float(scores[i])) for i in order)
    return Prediction(source, ranked[0][0], ranked)
