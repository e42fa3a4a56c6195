"""The folder of a run: what lies where, and how it is read back.

    config.json        settings, classes, preprocessing, versions
    last.ckpt          the state to resume from
    metrics.csv        a line for each epoch
    model.safetensors  the weights at the end
    results.json       the measures at the end
    loss.png           losses and metrics over the epochs
    confusion.png      true against predicted classes (regression.png: values)
    samples.png        held-out images with what the model says
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from chainrule.errors import CheckpointError, FileError
from chainrule.files import atomic_write, file_error, make_folder
from chainrule.recipes.settings import Settings

CONFIG, MODEL, RESULTS, METRICS = "config.json", "model.safetensors", "results.json", "metrics.csv"


class RunFolder:
    """A run on disk."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self / CONFIG).exists()

    def write_config(self, settings: Settings, prepared: Any) -> None:
        """Say what the run is, before its first step."""
        import chainrule

        make_folder(self.path)
        content = {
            "format": "chainrule run 1",
            "chainrule": chainrule.__version__,
            "settings": settings.to_dict(),
            "shape": list(prepared.shape),
            "outputs": prepared.outputs,
            "task": prepared.task,
            "classes": prepared.classes,
            "preprocessing": prepared.preprocessing,
            "train_samples": len(prepared.train),
            "test_samples": len(prepared.test),
        }
        atomic_write(self / CONFIG, json.dumps(content, indent=1) + "\n")

    def read_config(self) -> dict[str, Any]:
        """What `write_config` wrote, with `settings` as `Settings`.

        Raises:
            CheckpointError: if there is no run here, or its config is damaged.
        """
        file = self / CONFIG
        if not file.exists():
            raise CheckpointError(
                f"there is no run in {os.fspath(self.path)!r} (no {CONFIG}); give the folder that "
                "`chainrule train ... --out FOLDER` wrote."
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise file_error("read", file, error) from error
        except ValueError as error:
            raise CheckpointError(f"{os.fspath(file)!r} is damaged: {error}.") from None
        needed = {"settings", "shape", "outputs", "task", "classes", "preprocessing"}
        if not isinstance(content, dict) or (lacking := needed - set(content)):
            what = f"lacks {', '.join(sorted(lacking))}" if isinstance(content, dict) else "is a list"
            raise CheckpointError(f"{os.fspath(file)!r} {what}; it is not the config of a run.")
        content["settings"] = Settings.from_dict(content["settings"], os.fspath(file))
        return content

    def write_results(self, results: dict[str, Any]) -> None:
        """The measures at the end."""
        atomic_write(self / RESULTS, json.dumps(results, indent=1) + "\n")


def fresh_folder(recipe: str, data: str) -> Path:
    """A folder of its own for a new run under `runs`: `runs/lenet-digits`, `-2`, `-3`, ..."""
    stem = Path(data).stem.replace(" ", "-") or "data"
    base = Path("runs") / f"{recipe}-{stem}"
    candidate, n = base, 1
    while candidate.exists():
        n += 1
        candidate = base.with_name(f"{base.name}-{n}")
    return candidate


def check_new(folder: RunFolder) -> None:
    """Refuse to write a new run over an old one.

    Raises:
        FileError: if a run is there, or other files are.
    """
    if folder.exists:
        raise FileError(
            f"there is a run in {os.fspath(folder.path)!r} already; go on with it by --resume, "
            "replace it by --overwrite, or choose another --out."
        )
    if folder.path.is_dir() and any(folder.path.iterdir()):
        raise FileError(
            f"the folder {os.fspath(folder.path)!r} is not empty and holds no run; choose another "
            "--out."
        )


def clear(folder: RunFolder) -> None:
    """Remove the files of an old run (and nothing else) from its folder."""
    known = {
        CONFIG, MODEL, RESULTS, METRICS, "last.ckpt", "best.ckpt", "loss.png", "confusion.png",
        "regression.png", "samples.png", "history.json",
    }  # fmt: skip
    for name in known:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise file_error("remove", folder / name, error) from error
