"""Draw the picture of the README from a finished run of LeNet.

    .venv/bin/python tools/readme_picture.py runs/demo docs/images/lenet.png

Above, one held-out digit on its way through the trained network; below, how the run went.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

import chainrule as cr
from chainrule import data, recipes

DPI = 100
GREY = colormaps["gray_r"].with_extremes(bad="tab:blue")


def feature_maps(model, digit):
    """What comes out of each layer, by path, for one input."""
    seen = {}

    def keep(path):
        return lambda module, inputs, output: seen.__setitem__(path, output.numpy()[0])

    handles = [
        module.register_forward_hook(keep(path))
        for path, module in model.named_modules()
        if path and not list(module.children())
    ]
    with cr.no_grad():
        scores = model(digit)
        chances = np.exp(cr.nn.functional.log_softmax(scores, dim=1).numpy()[0])
    for handle in handles:
        handle.remove()
    return seen, chances


def tile(maps, rows):
    """Maps side by side in `rows` rows, each scaled to its own range, with lines between."""
    count, height, width = maps.shape
    columns = -(-count // rows)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for k, one in enumerate(maps):
        top, left = (k // columns) * (height + 1), (k % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = one / max(one.max(), 1e-9)
    return canvas


def show(axes, image, title):
    axes.imshow(image, cmap=GREY, interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set(xticks=[], yticks=[])


def hardest_digit(model, images, labels, form):
    """The held-out digit that the network gets right with the least certainty."""
    with cr.no_grad():
        scores = model(cr.asarray((images - form.mean) / form.std))
    chances = cr.nn.functional.softmax(scores, dim=1).numpy()
    right = chances.argmax(axis=1) == labels
    return images[np.where(right, chances.max(axis=1), 2.0).argmin()]


def draw_way(figure, model, pixels, form):
    """The digit, the maps after each convolution, the outputs."""
    seen, chances = feature_maps(model, cr.asarray((pixels[None] - form.mean) / form.std))
    axes = figure.subplots(1, 4, width_ratios=[1, 1.5, 1, 1.1])
    show(axes[0], pixels[0], "a held-out digit (28x28)")
    show(axes[1], tile(seen["features.1"], 2), "5x5 convolution, ReLU: 6 maps")
    show(axes[2], tile(seen["features.4"], 4), "pool, convolution, ReLU: 16 maps")
    axes[3].barh(range(10), chances, color="tab:blue")
    axes[3].set_yticks(range(10), form.classes, fontsize=7)
    axes[3].invert_yaxis()
    axes[3].set_xlim(0, 1)
    axes[3].tick_params(axis="x", labelsize=7)
    axes[3].set_title("three dense layers, softmax", fontsize=8)


def draw_run(figure, run):
    """Loss and accuracy over the epochs, and held-out digits with the network's word."""
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    epochs = [row["epoch"] for row in rows]
    axes = figure.subplots(1, 2)
    for panel, key in zip(axes, ("loss", "accuracy"), strict=True):
        panel.plot(epochs, [row[key] for row in rows], label="training (augmented)")
        panel.plot(epochs, [row[f"val_{key}"] for row in rows], label="held out")
        panel.set_xlabel("epoch", fontsize=8)
        panel.set_title(
            f"{key}; at the end {rows[-1][f'val_{key}']:.4f} on held-out digits", fontsize=8
        )
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    axes[0].set_yscale("log")


def main(run: Path, out: Path) -> None:
    model, settings, form = recipes.load_run(run)
    _, test = data.load(settings.data)
    images, labels = map(np.stack, zip(*test, strict=True))
    pixels = hardest_digit(model, images, labels, form)
    figure = Figure(figsize=(10, 5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.1, 1])
    draw_way(above, model, pixels, form)
    draw_run(below, run)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=DPI)
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
