"""A run from its settings to its folder: prepare, fit, report."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import chainrule as cr
from chainrule import nn, random
from chainrule.data import DataLoader
from chainrule.errors import CheckpointError
from chainrule.recipes import pictures, registry
from chainrule.recipes.folder import (
    CONFUSION,
    LOSS,
    METRICS,
    MODEL,
    REGRESSION,
    SAMPLES,
    RunFolder,
)
from chainrule.recipes.form import Form
from chainrule.recipes.prepare import Prepared, prepare
from chainrule.recipes.settings import Settings, locate
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
from chainrule.train.metrics import make_metrics

EVALUATION_BATCH = 512
Array = np.ndarray[Any, Any]


@dataclasses.dataclass
class Result:
    """A run that is over.

    Attributes:
        folder: where it is.
        history: the epochs.
        results: measures on the held-out data at the last epoch; empty if it was interrupted.
    """

    folder: RunFolder
    history: History
    results: dict[str, Any]


def build_model(settings: Settings, form: Form) -> Any:
    """The recipe's model, initialised from the run's seed."""
    random.manual_seed(settings.seed)
    return registry.get(settings.recipe).build(settings, form.shape, form.outputs)


def loss_for(form: Form) -> Any:
    """Cross entropy for classes, mean squared error for values."""
    return nn.MSELoss() if form.classes is None else nn.CrossEntropyLoss()


def metrics_for(form: Form) -> list[str]:
    """What is measured beside the loss."""
    return ["r2"] if form.classes is None else ["accuracy"]


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
        progress: as `Trainer`'s.
    """
    folder = RunFolder(out)
    going_on = resume and folder.exists
    replacing = overwrite and folder.exists
    if not going_on and not replacing:
        folder.check_new()
    can_draw = pictures.available()
    prepared = prepare(settings)
    if going_on:
        _check_unchanged(folder, prepared.form)
    elif replacing:
        folder.clear()
    for file in folder.leftovers():
        file.unlink(missing_ok=True)
    folder.write_config(settings, prepared.form)
    trainer, loader = make_trainer(settings, prepared, folder, progress)
    last = folder / Checkpoint.LAST
    with threadpool_limits(settings.threads or None, "blas"):
        history = trainer.fit(
            loader,
            validation=DataLoader(prepared.test, batch_size=EVALUATION_BATCH),
            epochs=settings.epochs,
            resume=last if going_on and last.exists() else None,
        )
    if history.interrupted:
        return Result(folder, history, {})
    return Result(folder, history, report(trainer, prepared, folder, settings, can_draw))


def settings_of_run(
    path: str | os.PathLike[str], recipe: str, data: str | None, given: dict[str, Any]
) -> Settings:
    """The settings of the run in a folder, to go on with it.

    What was given besides (and is not None) must be equal, except for what does not touch the
    result: workers and compilation, and more epochs where the learning rate is constant.

    Raises:
        CheckpointError: if something else was given.
    """
    kept, _ = RunFolder(path).read_config()
    free = {"compile", "workers"} | ({"epochs"} if kept.schedule == "constant" else set())
    place = None if data is None else locate(data)
    chosen = {k: v for k, v in {"recipe": recipe, "data": place, **given}.items() if v is not None}
    for name, value in chosen.items():
        old = getattr(kept, name)
        if name not in free and value != old:
            raise CheckpointError(
                f"the run in {os.fspath(path)!r} has {name} = {old} and cannot go on with {value}; "
                "leave that option out, or start a new run with another --out."
            )
    return dataclasses.replace(kept, **{k: v for k, v in chosen.items() if k in free})


def _check_unchanged(folder: RunFolder, form: Form) -> None:
    """Refuse to go on with data that has become other data."""
    settings, kept = folder.read_config()
    if form != kept:
        raise CheckpointError(
            f"the data {settings.data!r} has changed since the run in {os.fspath(folder.path)!r} "
            "was begun, so it cannot go on bit for bit; bring the old data back, or start anew."
        )


def make_trainer(
    settings: Settings, prepared: Prepared, folder: RunFolder, progress: Any
) -> tuple[Trainer, DataLoader]:
    """The trainer and the training loader of a run."""
    model = build_model(settings, prepared.form)
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
        model, optimizer, loss_for(prepared.form), metrics_for(prepared.form), callbacks,
        compile=settings.compile, progress=progress,
    )  # fmt: skip
    return trainer, loader


def report(
    trainer: Trainer, prepared: Prepared, folder: RunFolder, settings: Settings, can_draw: bool
) -> dict[str, Any]:
    """Measure the trained model on the held-out data; write weights, results and pictures."""
    metadata = {"recipe": settings.recipe, "data": Path(settings.data).name}
    save(trainer.model.state_dict(), folder / MODEL, metadata=metadata)
    measured = measure(trainer.model, prepared.test, prepared.form)
    results = {**measured.results, "epochs": trainer.epoch}
    folder.write_results(results)
    if can_draw:
        title = f"{settings.recipe} on {Path(settings.data).name}, seed {settings.seed}"
        trainer.history.plot(folder / LOSS, title=title)
        draw(measured, prepared.test, prepared.form, folder)
    return results


@dataclasses.dataclass
class Measured:
    """Results, and what they were computed from."""

    results: dict[str, Any]
    outputs: Array
    targets: Array


def measure(model: Any, test: Any, form: Form) -> Measured:
    """Loss and metrics on held-out data; of a regression also the mean absolute error in the
    target's own unit."""
    loader = DataLoader(test, batch_size=EVALUATION_BATCH)
    outputs = Trainer(model, progress=False).predict(loader)
    targets = np.concatenate([batch[1].numpy() for batch in loader])
    results: dict[str, Any] = {"loss": float(loss_for(form)(outputs, cr.asarray(targets)))}
    for metric in make_metrics(metrics_for(form)):
        metric.update(outputs.numpy(), targets)
        results[metric.name] = metric.compute()
    if form.classes is None:
        error = np.abs(outputs.numpy() - targets, dtype=np.float64).mean()
        results["mae"] = float(error * form.table.target_scale)
    results["samples"] = len(targets)
    return Measured(results, outputs.numpy(), targets)


def draw(measured: Measured, test: Any, form: Form, folder: RunFolder) -> None:
    """The pictures of what the model says of held-out data."""
    if form.classes is None:
        table = form.table
        true, guess = (np.asarray(table.answers(v)) for v in (measured.targets, measured.outputs))
        pictures.regression(folder / REGRESSION, true, guess, table.target, measured.results["r2"])
        return
    matrix = ConfusionMatrix()
    matrix.update(measured.outputs, measured.targets)
    pictures.confusion(folder / CONFUSION, matrix.counts, form.classes)
    if form.is_image:
        probabilities = nn.functional.softmax(cr.asarray(measured.outputs), dim=1).numpy()
        chosen = pictures.chosen_samples(probabilities, measured.targets)
        images = form.pictures(test.batch(chosen)[0])
        pictures.samples(
            folder / SAMPLES, images, measured.targets, probabilities, chosen, form.classes
        )
