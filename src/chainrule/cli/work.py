"""The commands that work: train, evaluate, predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from chainrule import recipes
from chainrule.cli.tables import print_pairs
from chainrule.errors import ArgumentError

INTERRUPTED = 130


def _hidden(text: str | None) -> tuple[int, ...] | None:
    """`128,64` as (128, 64)."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ArgumentError(
            f"--hidden takes whole numbers parted by commas, such as 128,64; got {text!r}."
        ) from None


def train(
    recipe: str = typer.Argument(help="What to train: mlp, lenet, resnet20 or csv."),
    data: str = typer.Option(
        None, help="A data set (see `chainrule datasets`), a CSV file, or a folder of images."
    ),
    epochs: int = typer.Option(None, help="Times that the training data is gone through."),
    lr: float = typer.Option(None, help="The learning rate."),
    batch_size: int = typer.Option(None, help="Samples in a step."),
    optimizer: str = typer.Option(None, help="sgd, adam, adamw, rmsprop, lion, ..."),
    momentum: float = typer.Option(None, help="Momentum of sgd and rmsprop."),
    weight_decay: float = typer.Option(None, help="Weight decay of the optimiser."),
    schedule: str = typer.Option(None, help="Learning rate: constant, cosine or onecycle."),
    clip_norm: float = typer.Option(None, help="Clip gradients to this global norm."),
    augment: bool = typer.Option(
        None, "--augment/--no-augment", help="Vary training images at random."
    ),
    hidden: str = typer.Option(None, help="Hidden units of mlp and csv, such as 128,64."),
    activation: str = typer.Option(None, help="Of mlp and csv: sigmoid, tanh, relu, gelu, silu."),
    dropout: float = typer.Option(None, help="Share of hidden units dropped in mlp and csv."),
    target: str = typer.Option(None, help="The column of a CSV file to predict; else the last."),
    missing: str = typer.Option(
        None, help="Missing cells of a CSV file: error, drop, mean, median or most_frequent."
    ),
    seed: int = typer.Option(None, help="Seed of all random numbers."),
    out: Path = typer.Option(None, help="The run's folder; runs/RECIPE-DATA by default."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the run in --out."),
    workers: int = typer.Option(None, help="Threads that prepare batches ahead."),
    no_compile: bool = typer.Option(False, "--no-compile", help="Run eagerly, in NumPy."),
    quiet: bool = typer.Option(False, "--quiet", help="No progress."),
) -> int:
    """Train a RECIPE and keep the run in a folder: weights, measures, pictures.

    For example: `chainrule train lenet --data digits`
    """
    chosen = recipes.get(recipe)
    if resume and out is None:
        raise ArgumentError("--resume goes on with the run in a folder: name it by --out.")
    if resume and overwrite:
        raise ArgumentError("--resume goes on with a run and --overwrite replaces it: choose one.")
    given: dict[str, Any] = {
        "epochs": epochs, "lr": lr, "batch_size": batch_size, "optimizer": optimizer,
        "momentum": momentum, "weight_decay": weight_decay, "schedule": schedule,
        "clip_norm": clip_norm, "augment": augment, "hidden": _hidden(hidden),
        "activation": activation, "dropout": dropout, "target": target, "missing": missing,
        "seed": seed, "workers": workers, "compile": False if no_compile else None,
    }  # fmt: skip
    begun = resume and out is not None and recipes.RunFolder(out).exists
    if begun:
        settings = recipes.settings_of_run(out, recipe, data, given)
    else:
        settings = chosen.make_settings(data, **given)
    folder = recipes.fresh_folder(recipe, settings.data) if out is None else out
    result = recipes.start(
        settings, folder, resume=resume, overwrite=overwrite, progress=False if quiet else None
    )
    if result.history.interrupted:
        typer.echo(
            f"go on with: chainrule train {recipe} --out {result.folder} --resume", err=True
        )
        return INTERRUPTED
    print_pairs(f"held-out data, epoch {result.results['epochs']}", result.results)
    written = sorted(p.name for p in result.folder.iterdir() if not p.name.startswith("."))
    typer.echo(f"saved in {result.folder}: {', '.join(written)}")
    return 0


def evaluate(
    run: Path = typer.Argument(help="The folder of a run."),
    data: str = typer.Option(None, help="Other data of the same form, instead of the run's own."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> int:
    """Measure a trained RUN on its held-out data."""
    results = recipes.evaluate(run, data)
    if as_json:
        typer.echo(json.dumps(results))
    else:
        print_pairs(f"{run} on {data or 'its held-out data'}", results)
    return 0


def predict(
    run: Path = typer.Argument(help="The folder of a run."),
    inputs: list[str] = typer.Argument(
        help="Image files; or rows such as '5.1,3.5,1.4,0.2'; or CSV files with a header."
    ),
    invert: bool = typer.Option(
        None, "--invert/--no-invert",
        help="Turn light into dark. By default: if the picture's border is light and the training "
        "images had dark ones.",
    ),
    top: int = typer.Option(3, min=1, help="How many classes to name."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> int:  # fmt: skip
    """Say what a trained RUN sees in image files or table rows."""
    table = recipes.RunFolder(run).read_config()["preprocessing"].get("kind") == "table"
    found = (
        recipes.predict_rows(run, inputs)
        if table
        else recipes.predict_images(run, inputs, invert)
    )
    for prediction in found:
        if as_json:
            typer.echo(json.dumps(
                {"input": prediction.source, "answer": prediction.answer,
                 "probabilities": dict(prediction.probabilities)}
            ))  # fmt: skip
        elif prediction.probabilities:
            ranked = ", ".join(f"{c} {100 * p:.1f} %" for c, p in prediction.probabilities[:top])
            typer.echo(f"{prediction.source}: {ranked}")
        else:
            typer.echo(f"{prediction.source}: {prediction.answer:.6g}")
    return 0


