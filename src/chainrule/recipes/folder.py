"""The folder of a run: what lies where, and how it is read back.

config.json        settings, the form of the data (classes, preprocessing), version
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
from chainrule.files import atomic_write, file_error, leftovers
from chainrule.recipes.form import Form
from chainrule.recipes.settings import Settings
from chainrule.train import Checkpoint

CONFIG, MODEL, RESULTS, METRICS = "config.json", "model.safetensors", "results.json", "metrics.csv"
LOSS, CONFUSION, REGRESSION, SAMPLES = "loss.png", "confusion.png", "regression.png", "samples.png"
FORMAT = "chainrule run 1"


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

    @property
    def files(self) -> list[str]:
        """The names of what is in the folder, in the order of the alphabet."""
        return sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))

    def write_config(self, settings: Settings, form: Form) -> None:
        """Say what the run is, before its first step."""
        import chainrule

        content = {
            "format": FORMAT, "chainrule": chainrule.__version__, "settings": settings.to_dict(),
            **form.to_dict(),
        }  # fmt: skip
        atomic_write(self / CONFIG, json.dumps(content, indent=1) + "\n")

    def read_config(self) -> tuple[Settings, Form]:
        """What `write_config` wrote.

        Raises:
            CheckpointError: if there is no run here, or its config is damaged.
        """
        file, name = self / CONFIG, os.fspath(self / CONFIG)
        if not self.exists:
            raise CheckpointError(
                f"there is no run in {os.fspath(self.path)!r} (no {CONFIG}); give the folder that "
                "`chainrule train ... --out FOLDER` wrote."
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise file_error("read", file, error) from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{name!r} is damaged: it is no JSON ({error}).") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(f"{name!r} is not the config of a run (format {FORMAT!r}).")
        settings = Settings.from_dict(content.get("settings"), name)
        return settings, Form.from_dict(content, name)

    def write_results(self, results: dict[str, Any]) -> None:
        """The measures at the end."""
        atomic_write(self / RESULTS, json.dumps(results, indent=1) + "\n")

    def check_new(self) -> None:
        """Refuse to write a new run over an old one.

        Raises:
            FileError: if a run is there, or other files are.
        """
        where = os.fspath(self.path)
        if self.exists:
            raise FileError(
                f"there is a run in {where!r} already; go on with it by --resume, replace it by "
                "--overwrite, or choose another --out."
            )
        if self.path.is_dir() and set(self.path.iterdir()) - set(leftovers(self.path)):
            raise FileError(
                f"the folder {where!r} is not empty and holds no run; choose another --out."
            )

    def clear(self) -> None:
        """Remove the files of an old run, and nothing else."""
        known = (
            CONFIG, Checkpoint.LAST, Checkpoint.BEST, METRICS, MODEL, RESULTS, LOSS, CONFUSION,
            REGRESSION, SAMPLES,
        )  # fmt: skip
        for file in [self / name for name in known] + self.leftovers():
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise file_error("remove", file, error) from error

    def leftovers(self) -> list[Path]:
        """What a killed process was writing when it died."""
        return leftovers(self.path) if self.path.is_dir() else []


def fresh_folder(recipe: str, data: str) -> Path:
    """A folder of its own for a new run under `runs`: `runs/lenet-digits`, `-2`, `-3`, ..."""
    stem = Path(data).stem.replace(" ", "-") or "data"
    base = Path("runs") / f"{recipe}-{stem}"
    candidate, n = base, 1
    while candidate.exists():
        n += 1
        candidate = base.with_name(f"{base.name}-{n}")
    return candidate
