"""The pictures of a run."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import ChainruleWarning, MissingExtraError, require
from chainrule.files import atomic_path

Path = str | os.PathLike[str]
Array = np.ndarray[Any, Any]


def available() -> bool:
    """Whether pictures can be drawn; if not, one warning says what to install."""
    try:
        require("matplotlib", extra="plot", purpose="draw the pictures of a run")
    except MissingExtraError as error:
        warnings.warn(f"this run has no pictures: {error}", ChainruleWarning, stacklevel=2)
        return False
    return True


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _clipped(name: str) -> str:
    """A name as a label: not too long, and a dollar is a dollar and no sign of mathematics."""
    return (name if len(name) <= 16 else f"{name[:15]}…").replace("$", r"\$")


def confusion(path: Path, counts: Array, classes: Sequence[str]) -> None:
    """True classes in rows, predicted ones in columns; shade by the share of the row."""
    n = len(classes)
    side = 2.2 + 0.42 * min(n, 40)
    figure = _figure(side + 1.0, side)
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
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    _save(figure, path)


def regression(path: Path, true: Array, predicted: Array, target: str, r2: float) -> None:
    """Predicted against true values, with the line on which both are equal."""
    figure = _figure(4.6, 4.4)
    axes = figure.subplots()
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    axes.plot([low, high], [low, high], color="tab:orange", linewidth=1, label="equal")
    axes.scatter(true, predicted, s=12, alpha=0.6, color="tab:blue", label="held-out rows")
    name = _clipped(target)
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}", title=f"R2 = {r2:.3f}")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def chosen_samples(probabilities: Array, true: Array, count: int = 24) -> Array:
    """Which images to show: up to two thirds wrong ones, then right ones."""
    right = probabilities.argmax(axis=1) == true
    wrong = np.flatnonzero(~right)[: 2 * count // 3]
    return np.concatenate([wrong, np.flatnonzero(right)[: count - len(wrong)]])


def samples(
    path: Path, images: Array, true: Array, probabilities: Array, chosen: Array,
    classes: Sequence[str],
) -> None:  # fmt: skip
    """The chosen images with the predicted class and its probability; wrong ones in red.

    Arguments:
        images: those of `chosen` (k, C, H, W), in [0, 1].
        true, probabilities: of all held-out images, (n,) and (n, classes).
        chosen: the numbers (k,) of the images.
    """
    guess = probabilities.argmax(axis=1)
    columns = 8
    rows = math.ceil(len(chosen) / columns)
    figure = _figure(1.25 * columns, 1.6 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(chosen) :]:
        axes.axis("off")
    for number, picture in enumerate(images):
        axes, i = grid.flat[number], int(chosen[number])
        said, meant = int(guess[i]), int(true[i])
        if len(picture) == 1:
            axes.imshow(picture[0], cmap="gray_r", vmin=0, vmax=1)
        else:
            axes.imshow(np.moveaxis(picture[:3], 0, -1))
        axes.set(xticks=[], yticks=[])
        title = f"{_clipped(classes[said])} ({100 * probabilities[i, said]:.0f} %)"
        if said != meant:
            title += f"\ntrue {_clipped(classes[meant])}"
        axes.set_title(title, fontsize=8, color="black" if said == meant else "tab:red")
    wrong = int((guess != true).sum())
    count = f"{wrong} of {len(true)} held-out images wrong" + (", in red" if wrong else "")
    figure.suptitle(f"{count}; the model's answer and its probability", fontsize=10)
    _save(figure, path)
