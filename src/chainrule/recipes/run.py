"""A run from its settings to its folder: prepare, fit, report."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import nn, random
from chainrule.data import DataLoader
from chainrule.errors import CheckpointError
from chainrule.files import make_folder
from chainrule.recipes import pictures, registry
from chainrule.recipes.folder import METRICS, MODEL, RunFolder, check_new, clear
from chainrule.recipes.prepare import Prepared, prepare, undo_scaling
from chainrule.recipes.settings import Settings
from chainrule.serialize import save
from chainrule.train import (
    Checkpoint,
    ConfusionMatrix,
    CSVLogger,
    GradientClipping,
    History,
    Schedule,
    Trainer,
)

EVALUATION_BATCH = 512


@dataclasses.dataclass
class Result:
    """A run that is over.

    Attributes:
        folder: where it is.
        history: the epochs.
        results: measures on the held-out data at the last epoch.
    """

    folder: Path
    history: History
    results: dict[str, Any]


def build_model(settings: Settings, shape: tuple[int, ...], outputs: int) -> Any:
    """The recipe's model, initialised from the run's seed."""
    random.manual_seed(settings.seed)
    return registry.get(settings.recipe).build(settings, shape, outputs)


def loss_for(task: str) -> Any:
    """Cross entropy for classes, mean squared error for values."""
    return nn.CrossEntropyLoss() if task == "classification" else nn.MSELoss()


def metrics_for(task: str) -> list[str]:
    """What is measured beside the loss."""
    return ["accuracy"] if task == "classification" else ["r2"]


def start(
    settings: Settings,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Any = None,
) -> Result:
    """Train by the settings into the folder `out`, or go on with what is there.

    Arguments:
        resume: go on with the run in the folder, bit for bit, wherever it was stopped; if none was
            begun there, begin.
        overwrite: replace the run in the folder.
    """
    folder = RunFolder(out)
    going_on = resume and folder.exists
    if not going_on:
        if overwrite and folder.exists:
            clear(folder)
        check_new(folder)
        make_folder(folder.path)
    prepared = prepare(registry.get(settings.recipe), settings)
    if not going_on or settings != folder.read_config()["settings"]:
        folder.write_config(settings, prepared)
    trainer, loader = make_trainer(settings, prepared, folder, progress)
    last = folder / Checkpoint.LAST
    history = trainer.fit(
        loader,
        validation=DataLoader(prepared.test, batch_size=EVALUATION_BATCH),
        epochs=settings.epochs,
        resume=last if going_on and last.exists() else None,
    )
    results = report(trainer, prepared, folder, settings) if not history.interrupted else {}
    return Result(folder.path, history, results)


def settings_of_run(
    path: str | os.PathLike[str], recipe: str, data: str | None, given: dict[str, Any]
) -> Settings:
    """The settings of the run in a folder, to go on with it.

    What was given besides (and is not None) must be equal, except for what does not touch the
    result: workers and compilation, and more epochs where the learning rate is constant.

    Raises:
        CheckpointError: if something else was given.
    """
    kept: Settings = RunFolder(path).read_config()["settings"]
    free = {"compile", "workers"} | ({"epochs"} if kept.schedule == "constant" else set())
    chosen = {k: v for k, v in {**given, "recipe": recipe, "data": data}.items() if v is not None}
    for name, value in chosen.items():
        old = getattr(kept, name)
        if name not in free and value != old:
            raise CheckpointError(
                f"the run in {os.fspath(path)!r} has {name} = {old} and cannot go on with {value}; "
                "leave that option out, or start a new run."
            )
    return dataclasses.replace(kept, **{k: v for k, v in chosen.items() if k in free})


def make_trainer(
    settings: Settings, prepared: Prepared, folder: RunFolder, progress: Any
) -> tuple[Trainer, DataLoader]:
    """The trainer and the training loader of a run."""
    model = build_model(settings, prepared.shape, prepared.outputs)
    optimizer = settings.make_optimizer(model.parameters())
    loader = DataLoader(
        prepared.train, batch_size=settings.batch_size, shuffle=True, seed=settings.seed,
        num_workers=settings.workers,
    )  # fmt: skip
    callbacks: list[Any] = []
    if settings.clip_norm is not None:
        callbacks.append(GradientClipping(norm=settings.clip_norm))
    schedule = settings.make_schedule(optimizer, len(loader) * settings.epochs)
    if schedule is not None:
        callbacks.append(Schedule(schedule, interval="step"))
    callbacks += [CSVLogger(folder / METRICS), Checkpoint(folder.path)]
    trainer = Trainer(
        model, optimizer, loss_for(prepared.task), metrics_for(prepared.task), callbacks,
        compile=settings.compile, seed=settings.seed, progress=progress,
    )  # fmt: skip
    return trainer, loader


def report(
    trainer: Trainer, prepared: Prepared, folder: RunFolder, settings: Settings
) -> dict[str, Any]:
    """Measure the trained model on the held-out data; write weights, results and pictures."""
    metadata = {"recipe": settings.recipe, "data": settings.data}
    save(trainer.model.state_dict(), folder / MODEL, metadata=metadata)
    results = measure(trainer.model, prepared, folder)
    results["epochs"] = trainer.epoch
    folder.write_results(results)
    title = f"{settings.recipe} on {Path(settings.data).name}, seed {settings.seed}"
    trainer.history.plot(folder / "loss.png", title=title)
    return results


def measure(model: Any, prepared: Prepared, folder: RunFolder | None) -> dict[str, Any]:
    """Loss and metrics on the held-out data; with a folder also the pictures."""
    loader = DataLoader(prepared.test, batch_size=EVALUATION_BATCH)
    trainer = Trainer(
        model, None, loss_for(prepared.task), metrics_for(prepared.task), progress=False
    )
    results: dict[str, Any] = dict(trainer.evaluate(loader))
    results["samples"] = len(prepared.test)
    outputs = trainer.predict(loader).numpy()
    true = np.concatenate([targets.numpy() for _, targets in loader])
    if prepared.task == "regression":
        return {**results, **_measure_values(outputs, true, prepared, results["r2"], folder)}
    if folder is not None:
        _draw_classes(outputs, true, loader, prepared, folder)
    return results


def _measure_values(
    outputs: np.ndarray[Any, Any], true: np.ndarray[Any, Any], prepared: Prepared, r2: float,
    folder: RunFolder | None,
) -> dict[str, float]:  # fmt: skip
    """The mean absolute error in the target's own units."""
    table = prepared.preprocessing
    scale, mean = table["target_scale"], table["target_mean"]
    guess, truth = (v.reshape(-1) * scale + mean for v in (outputs, true))
    if folder is not None:
        pictures.regression(folder / "regression.png", truth, guess, table["target"], r2)
    return {"mae": float(np.abs(guess - truth).mean())}


def _draw_classes(
    outputs: np.ndarray[Any, Any], true: np.ndarray[Any, Any], loader: DataLoader,
    prepared: Prepared, folder: RunFolder,
) -> None:  # fmt: skip
    classes = prepared.classes or []
    matrix = ConfusionMatrix()
    matrix.update(outputs, true)
    pictures.confusion(folder / "confusion.png", matrix.counts, classes)
    if prepared.preprocessing["kind"] == "image":
        images = np.concatenate([inputs.numpy() for inputs, _ in loader])
        probabilities = nn.functional.softmax(cr.asarray(outputs), dim=1).numpy()
        shown = undo_scaling(images, prepared.preprocessing)
        pictures.samples(folder / "samples.png", shown, true, probabilities, classes)
