"""The pictures of a run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import require
from chainrule.files import atomic_path

Path = str | os.PathLike[str]
Array = np.ndarray[Any, Any]


def _figure(width: float, height: float) -> Any:
    require("matplotlib", extra="plot", purpose="draw the pictures of a run")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _clipped(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"


def confusion(path: Path, counts: Array, classes: Sequence[str]) -> None:
    """True classes in rows, predicted ones in columns; shade by the share of the row."""
    n = len(classes)
    side = 2.2 + 0.42 * min(n, 40)
    figure = _figure(side + 0.6, side)
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if n <= 25:
        for i, j in np.argwhere(counts > 0):
            colour = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, int(counts[i, j]), ha="center", va="center", color=colour, fontsize=8)
    step = math.ceil(n / 40)
    labels = [_clipped(c) for c in classes]
    turn = 90 if max(map(len, labels)) > 3 else 0
    axes.set_xticks(range(0, n, step), labels[::step], rotation=turn, fontsize=8)
    axes.set_yticks(range(0, n, step), labels[::step], fontsize=8)
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set(
        xlabel="predicted", ylabel="true",
        title=f"{right} of {total} right ({100 * right / max(total, 1):.2f} %)",
    )  # fmt: skip
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    _save(figure, path)


def regression(path: Path, true: Array, predicted: Array, target: str, r2: float) -> None:
    """Predicted against true values, with the line on which both are equal."""
    figure = _figure(4.6, 4.4)
    axes = figure.subplots()
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    axes.plot([low, high], [low, high], color="tab:orange", linewidth=1, label="equal")
    axes.scatter(true, predicted, s=12, alpha=0.6, color="tab:blue", label="held-out rows")
    axes.set(xlabel=f"true {target}", ylabel=f"predicted {target}", title=f"R2 = {r2:.3f}")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def samples(
    path: Path, images: Array, true: Array, probabilities: Array, classes: Sequence[str]
) -> None:
    """Images with the predicted class and its probability; wrong ones, in red, come first."""
    guess = probabilities.argmax(axis=1)
    wrong = guess != true
    order = np.argsort(~wrong, kind="stable")[:24]
    columns = 8
    rows = math.ceil(len(order) / columns)
    figure = _figure(1.25 * columns, 1.55 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for axes, i in zip(grid.ravel(), order, strict=False):
        picture = images[i]
        if len(picture) == 1:
            axes.imshow(picture[0], cmap="gray_r", vmin=0, vmax=1)
        else:
            axes.imshow(np.moveaxis(picture[:3], 0, -1))
        share = 100 * probabilities[i, guess[i]]
        title = f"{_clipped(classes[guess[i]])} {share:.0f} %"
        if wrong[i]:
            title += f"\ntrue {_clipped(classes[true[i]])}"
        axes.set_title(title, fontsize=8, color="tab:red" if wrong[i] else "black")
    count = int(wrong.sum())
    figure.suptitle(
        f"held-out images: {count} of {len(true)} wrong"
        + (", shown first" if count else "") + "; the model's word and its probability",
        fontsize=10,
    )  # fmt: skip
    _save(figure, path)
