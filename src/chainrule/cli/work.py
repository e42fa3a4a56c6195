"""The commands that work: train, evaluate, predict."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from chainrule import recipes
from chainrule.cli.tables import print_pairs
from chainrule.errors import ArgumentError

INTERRUPTED = 130
Run = Annotated[Path, typer.Argument(help="The folder of a run.")]
Json = Annotated[bool, Option("--json", help="Print JSON.")]


def _parts(text: str | None) -> tuple[str, ...] | None:
    """`a,b` as ("a", "b")."""
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _hidden(text: str | None) -> tuple[int, ...] | None:
    """`128,64` as (128, 64)."""
    try:
        parts = _parts(text)
        return None if parts is None else tuple(int(part) for part in parts)
    except ValueError:
        raise ArgumentError(
            f"--hidden takes whole numbers parted by commas, such as 128,64; got {text!r}."
        ) from None


def train(
    recipe: Annotated[str, typer.Argument(help=f"What to train: {', '.join(recipes.RECIPES)}.")],
    data: Annotated[
        str | None,
        Option(help="A data set (see `chainrule datasets`), a CSV file, or a folder of images."),
    ] = None,
    epochs: Annotated[int | None, Option(help="How often to go through the data.")] = None,
    lr: Annotated[float | None, Option(help="The learning rate.")] = None,
    batch_size: Annotated[int | None, Option(help="Samples in a step; at most all.")] = None,
    optimizer: Annotated[
        str | None, Option(help=f"One of: {', '.join(recipes.OPTIMIZERS)}.")
    ] = None,
    momentum: Annotated[float | None, Option(help="Momentum of sgd and rmsprop.")] = None,
    weight_decay: Annotated[float | None, Option(help="Weight decay of the optimiser.")] = None,
    schedule: Annotated[
        str | None, Option(help=f"Of the learning rate: {', '.join(recipes.SCHEDULES)}.")
    ] = None,
    clip_norm: Annotated[float | None, Option(help="Clip gradients to this global norm.")] = None,
    augment: Annotated[
        bool | None, Option("--augment/--no-augment", help="Vary training images at random.")
    ] = None,
    hidden: Annotated[
        str | None, Option(help="Hidden units of mlp and csv, such as 128,64.")
    ] = None,
    activation: Annotated[
        str | None, Option(help=f"Of mlp and csv: {', '.join(recipes.ACTIVATIONS)}.")
    ] = None,
    dropout: Annotated[
        float | None, Option(help="Share of hidden units dropped in mlp and csv.")
    ] = None,
    target: Annotated[
        str | None, Option(help="The column of a CSV file to predict; else the last.")
    ] = None,
    features: Annotated[
        str | None, Option(help="The columns of a CSV file to learn from, such as a,b; else all.")
    ] = None,
    categorical: Annotated[
        str | None, Option(help="Columns of a CSV file that are categories made of numbers.")
    ] = None,
    task: Annotated[
        str | None, Option(help=f"{' or '.join(recipes.TASKS)}; else by the target's values.")
    ] = None,
    decimal: Annotated[str | None, Option(help="The decimal sign of a CSV file: . or ,")] = None,
    missing: Annotated[
        str | None, Option(help=f"Missing cells of a CSV file: {', '.join(recipes.MISSING)}.")
    ] = None,
    seed: Annotated[int | None, Option(help="Seed of all random numbers.")] = None,
    out: Annotated[
        Path | None, Option(help="The run's folder; runs/RECIPE-DATA by default.")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the run in --out.")] = False,
    workers: Annotated[int | None, Option(help="Threads that prepare batches ahead.")] = None,
    threads: Annotated[
        int | None, Option(help="Threads of matrix products; 0 for as many as there are cores.")
    ] = None,
    no_compile: Annotated[bool, Option("--no-compile", help="Run eagerly, in NumPy.")] = False,
    quiet: Annotated[bool, Option("--quiet", help="No progress.")] = False,
) -> int:
    """Train a RECIPE and keep the run in a folder: weights, measures, pictures.

    For example: `chainrule train lenet --data digits`
    """
    if resume and out is None:
        raise ArgumentError("--resume goes on with the run in a folder: name it by --out.")
    if resume and overwrite:
        raise ArgumentError("--resume goes on with a run and --overwrite replaces it: choose one.")
    given: dict[str, Any] = {
        "epochs": epochs, "lr": lr, "batch_size": batch_size, "optimizer": optimizer,
        "momentum": momentum, "weight_decay": weight_decay, "schedule": schedule,
        "clip_norm": clip_norm, "augment": augment, "hidden": _hidden(hidden),
        "activation": activation, "dropout": dropout, "target": target,
        "features": _parts(features), "categorical": _parts(categorical), "task": task,
        "decimal": decimal, "missing": missing, "seed": seed, "workers": workers,
        "threads": threads,
        "compile": False if no_compile else None,
    }  # fmt: skip
    chosen = recipes.get(recipe)
    if resume and out is not None and recipes.RunFolder(out).exists:
        settings = recipes.settings_of_run(out, recipe, data, given)
    else:
        settings = chosen.make_settings(data, **given)
    result = recipes.start(
        settings,
        recipes.fresh_folder(recipe, settings.data) if out is None else out,
        resume=resume,
        overwrite=overwrite,
        progress=False if quiet else None,
    )
    where = result.folder.path
    if result.history.interrupted:
        again = f"chainrule train {recipe} --out {shlex.quote(str(where))} --resume"
        print(f"the run is kept; go on with: {again}", file=sys.stderr)
        return INTERRUPTED
    print_pairs(f"held-out data, epoch {result.results['epochs']}", result.results)
    print(f"saved in {where}: {', '.join(result.folder.files)}")
    return 0


def evaluate(
    run: Run,
    data: Annotated[
        str | None,
        Option(help="Other data: the test part of a data set, or all of a CSV file or a folder."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure a trained RUN on its held-out data."""
    results = recipes.evaluate(run, data)
    if as_json:
        print(json.dumps(results))
    else:
        print_pairs(f"{run} on {data or 'its held-out data'}", results)
    return 0


def predict(
    run: Run,
    inputs: Annotated[
        list[str],
        typer.Argument(help="Image files; or rows such as '5.1,3.5,1.4,0.2'; or CSV files."),
    ],
    invert: Annotated[
        bool | None,
        Option(
            "--invert/--no-invert",
            help="Turn light into dark. By default: if the picture's border is light and the "
            "training images had dark ones.",
        ),
    ] = None,
    top: Annotated[int, Option(min=1, help="How many classes to name.")] = 3,
    as_json: Json = False,
) -> int:
    """Say what a trained RUN sees in image files or table rows."""
    for prediction in recipes.predict(run, inputs, invert):
        if as_json:
            print(json.dumps(
                {"input": prediction.source, "answer": prediction.answer,
                 "probabilities": dict(prediction.probabilities)}
            ))  # fmt: skip
        elif prediction.probabilities:
            ranked = ", ".join(f"{c} {100 * p:.1f} %" for c, p in prediction.probabilities[:top])
            print(f"{prediction.source}: {ranked}")
        else:
            print(f"{prediction.source}: {prediction.answer:.6g}")
    return 0
