"""The settings of a run: all that decides its result, as plain JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from chainrule import optim
from chainrule.errors import ArgumentError, CheckpointError, unknown_name

OPTIMIZERS: dict[str, Any] = {
    "adadelta": optim.Adadelta, "adagrad": optim.Adagrad, "adam": optim.Adam,
    "adamax": optim.Adamax, "adamw": optim.AdamW, "lbfgs": optim.LBFGS, "lion": optim.Lion,
    "nadam": optim.NAdam, "radam": optim.RAdam, "rmsprop": optim.RMSprop, "sgd": optim.SGD,
}  # fmt: skip
SCHEDULES = ("constant", "cosine", "onecycle")
MISSING = ("error", "drop", "mean", "median", "most_frequent")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is made of. See `chainrule train --help` for the meaning of each."""

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
    missing: str = "error"
    compile: bool = True
    workers: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown_name("schedule", self.schedule, SCHEDULES)
        if self.missing not in MISSING:
            raise unknown_name("policy for missing values", self.missing, MISSING)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} is at least 1, got {getattr(self, name)}.")
        if not 0 < self.lr < float("inf"):
            raise ArgumentError(f"the learning rate is a positive number, got {self.lr}.")
        if any(n < 1 for n in self.hidden):
            raise ArgumentError(f"hidden layers have at least 1 unit, got {self.hidden}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        return {**dataclasses.asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_dict(cls, content: Any, where: str) -> Settings:
        """The settings in a run's config file.

        Raises:
            CheckpointError: if that is no such thing.
        """
        fields = {f.name for f in dataclasses.fields(cls)}
        try:
            return cls(**{**content, "hidden": tuple(content["hidden"])})
        except (TypeError, KeyError) as error:
            raise CheckpointError(
                f"{where} does not hold the settings of a run ({error}); expected the fields "
                f"{', '.join(sorted(fields))}."
            ) from None

    def make_optimizer(self, parameters: Any) -> Any:
        """The optimiser that the settings name."""
        options: dict[str, Any] = {"lr": self.lr}
        if self.optimizer in ("sgd", "rmsprop"):
            options["momentum"] = self.momentum
        if self.optimizer != "lbfgs":
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
