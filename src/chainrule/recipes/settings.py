"""The settings of a run: all that decides its result, as plain JSON."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chainrule import data, optim
from chainrule.data.tables import POLICIES
from chainrule.data.vision import local_folder
from chainrule.errors import ArgumentError, ChainruleError, CheckpointError, unknown_name
from chainrule.models.mlp import ACTIVATIONS

OPTIMIZERS: dict[str, Any] = {
    "adadelta": optim.Adadelta, "adagrad": optim.Adagrad, "adam": optim.Adam,
    "adamax": optim.Adamax, "adamw": optim.AdamW, "lbfgs": optim.LBFGS, "lion": optim.Lion,
    "nadam": optim.NAdam, "radam": optim.RAdam, "rmsprop": optim.RMSprop, "sgd": optim.SGD,
}  # fmt: skip
SCHEDULES = ("constant", "cosine", "onecycle")
MISSING = POLICIES
TASKS = ("classification", "regression")


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a number from `low` (or above it) to below `high`."""

    def check(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (low < value if above else low <= value) and value < high

    return check


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= low


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: v is None or check(v)


def _hidden(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_whole(1), value))


def _names(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_text, value))


_DOMAINS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "recipe": (_text, "a name"),
    "data": (_text, "a name or a path"),
    "epochs": (_whole(1), "a whole number from 1 on"),
    "batch_size": (_whole(1), "a whole number from 1 on"),
    "lr": (_number(0, above=True), "a positive number"),
    "momentum": (_number(0, 1), "a number from 0 to below 1"),
    "weight_decay": (_number(0), "a number from 0 on"),
    "augment": (_flag, "true or false"),
    "seed": (_whole(0), "a whole number from 0 on"),
    "hidden": (_hidden, "whole numbers from 1 on"),
    "dropout": (_number(0, 1), "a number from 0 to below 1"),
    "clip_norm": (_or_none(_number(0, above=True)), "a positive number"),
    "target": (_or_none(_text), "the name of a column"),
    "features": (_or_none(_names), "names of columns"),
    "categorical": (_names, "names of columns"),
    "decimal": (lambda value: value in (".", ","), "a point or a comma"),
    "compile": (_flag, "true or false"),
    "workers": (_whole(0), "a whole number from 0 on"),
    "threads": (_whole(0), "a whole number from 0 on (0: as many as there are cores)"),
}
_KNOWN = {
    "optimizer": ("optimizer", OPTIMIZERS),
    "schedule": ("schedule", SCHEDULES),
    "activation": ("activation", ACTIVATIONS),
    "missing": ("policy for missing values", MISSING),
    "task": ("task", (None, *TASKS)),
}
_LISTS = ("hidden", "features", "categorical")  # tuples here, lists in JSON


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is made of. See `chainrule train --help` for the meaning of each.

    Raises:
        ArgumentError: for a value outside its domain.
        UnknownNameError: for a name that does not exist; offers the nearest ones.
    """

    recipe: str
    data: str
    epochs: int
    batch_size: int
    lr: float
    optimizer: str = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    augment: bool = False
    seed: int = 0
    hidden: tuple[int, ...] = (16, 16)
    activation: str = "relu"
    dropout: float = 0.0
    clip_norm: float | None = None
    target: str | None = None
    features: tuple[str, ...] | None = None
    categorical: tuple[str, ...] = ()
    task: str | None = None
    decimal: str = "."
    missing: str = "error"
    compile: bool = True
    workers: int = 0
    # A second thread gains a fifth at most on products of this size, and where another process
    # wants the processor the two wait for each other: a step then takes four times as long.
    threads: int = 1

    def __post_init__(self) -> None:
        for name, (kind, known) in _KNOWN.items():
            if getattr(self, name) not in known:
                raise unknown_name(kind, getattr(self, name), filter(None, known))
        for name, (fits, words) in _DOMAINS.items():
            if not fits(getattr(self, name)):
                raise ArgumentError(f"{name} must be {words}, but is {getattr(self, name)!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        content = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in content.items()}

    @classmethod
    def from_dict(cls, content: Any, where: str) -> Settings:
        """The settings in a run's config file.

        Raises:
            CheckpointError: if that is no such thing.
        """
        try:
            lists = {k: tuple(content[k]) for k in _LISTS if content.get(k) is not None}
            return cls(**{**content, **lists})
        except (TypeError, AttributeError, ChainruleError) as error:
            raise CheckpointError(
                f"{where!r} does not hold the settings of a run: {str(error).rstrip('.')}. It was "
                "damaged or changed; restore it from a copy, or train again."
            ) from None

    @property
    def table_options(self) -> dict[str, Any]:
        """What says how a CSV file is read, by the argument names of `data.csv`."""
        return {
            "target": self.target, "features": self.features, "categorical": self.categorical,
            "task": self.task, "decimal": self.decimal, "missing": self.missing,
        }  # fmt: skip

    def make_optimizer(self, parameters: Any) -> Any:
        """The optimiser that the settings name."""
        options: dict[str, Any] = {"lr": self.lr}
        if self.optimizer in ("sgd", "rmsprop"):
            options["momentum"] = self.momentum
        if self.optimizer == "lbfgs":
            # A step of fixed length can leave the region where its quadratic model holds.
            options["line_search_fn"] = "strong_wolfe"
        else:
            options["weight_decay"] = self.weight_decay
        return OPTIMIZERS[self.optimizer](parameters, **options)

    def make_schedule(self, optimizer: Any, steps: int) -> Any:
        """The learning-rate schedule over all `steps` steps of the run, or None."""
        if self.schedule == "cosine":
            return optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        if self.schedule == "onecycle":
            # The last call of step() comes after the last step, beyond PyTorch's total.
            return optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.lr, total_steps=steps + 1)
        return None


def locate(name: str) -> str:
    """The name of a data set as it is; a file or folder as a full path, good from anywhere.

    What is not in the working folder is looked for in the one named by `CHAINRULE_DATA`.
    """
    if name in data.names():
        return name
    root = local_folder()
    for path in (Path(name).expanduser(), None if root is None else root / name):
        if path is not None and path.exists():
            return os.path.abspath(path)
    return name
