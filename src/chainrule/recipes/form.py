"""The form of a run's data: what its model takes and gives, as plain JSON in the run's config."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from chainrule import data
from chainrule.data import transforms
from chainrule.errors import ArgumentError, CheckpointError, DataError

Array = np.ndarray[Any, Any]


def border(images: Array) -> float:
    """The median brightness of the outermost pixels of images (..., H, W)."""
    edges = (images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1])
    return float(np.median(np.concatenate([edge.ravel() for edge in edges])))


@dataclasses.dataclass(frozen=True)
class Form:
    """What was found on the training data, and brings any later input into the same form.

    Attributes:
        shape: the shape of one input.
        outputs: units of the model's last layer.
        task: "classification" or "regression".
        classes: the names of the classes, or None.
        preprocessing: `{"kind": "image", "mean": [...], "std": [...], "border": ...}`, a number for
            each channel, and the brightness of the images' border; or `{"kind": "table", ...}`, the
            dictionary of a `data.Preprocessing`.
    """

    shape: tuple[int, ...]
    outputs: int
    task: str
    classes: list[str] | None
    preprocessing: dict[str, Any]

    @property
    def is_image(self) -> bool:
        return self.preprocessing["kind"] == "image"

    @property
    def table(self) -> data.Preprocessing:
        """How rows of a table become inputs."""
        content = {k: v for k, v in self.preprocessing.items() if k != "kind"}
        return data.Preprocessing.from_dict(content)

    @property
    def mean(self) -> Array:
        return np.asarray(self.preprocessing["mean"], np.float32)[:, None, None]

    @property
    def std(self) -> Array:
        return np.asarray(self.preprocessing["std"], np.float32)[:, None, None]

    def normalize(self) -> Any:
        """The transform of images for the model."""
        return transforms.Normalize(self.preprocessing["mean"], self.preprocessing["std"])

    def pictures(self, inputs: Array) -> Array:
        """Images (n, C, H, W) as they were before they were normalised."""
        return np.clip(inputs * self.std + self.mean, 0, 1)

    def require_kind(self, image: bool, what: str) -> None:
        """Refuse an input of a kind that the run was not trained on."""
        if self.is_image != image:
            kinds = ("rows of a table", "images")
            raise ArgumentError(
                f"this run was trained on {kinds[self.is_image]}, and {what} gives {kinds[image]}."
            )

    def class_numbers(self, classes: list[str] | None, what: str) -> list[int]:
        """The run's number of each of the classes of other data.

        Raises:
            DataError: if the run does not know one.
        """
        for name in classes or []:
            if self.classes is None or name not in self.classes:
                known = ", ".join(map(repr, self.classes or [])) or "none, it is a regression"
                raise DataError(f"{what} has the class {name!r}; the run knows {known}.")
        return [(self.classes or []).index(name) for name in classes or []]

    def to_dict(self) -> dict[str, Any]:
        """The form as JSON has it."""
        return {**dataclasses.asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, content: dict[str, Any], where: str) -> Form:
        """The form in a run's config file.

        Raises:
            CheckpointError: if that is no such thing.
        """
        try:
            form = cls(
                tuple(content["shape"]), content["outputs"], content["task"], content["classes"],
                content["preprocessing"],
            )  # fmt: skip
            form._check()
        except (KeyError, TypeError, ValueError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error).rstrip(".")
            raise CheckpointError(
                f"{where!r} does not say what the run's model takes and gives: {what}. It was "
                "damaged or changed; restore it from a copy, or train again."
            ) from None
        return form

    def _check(self) -> None:
        """Raise ValueError (or KeyError, TypeError) where something is not as it should be."""
        if not self.shape or not all(type(n) is int and n > 0 for n in self.shape):
            raise ValueError(f"the shape is {self.shape}")
        expected = 1 if self.classes is None else len(self.classes)
        if type(self.outputs) is not int or self.outputs != expected:
            raise ValueError(f"there are {self.outputs!r} outputs, and {expected} are expected")
        if not all(isinstance(name, str) for name in self.classes or []):
            raise ValueError("a class is not named by text")
        if self.task != ("regression" if self.classes is None else "classification"):
            raise ValueError(f"the task is {self.task!r}")
        if not self.is_image:
            if self.preprocessing["kind"] != "table" or self.shape != (self.table.width,):
                raise ValueError("the preprocessing does not fit the inputs")
            return
        if type(self.preprocessing["border"]) not in (int, float):
            raise ValueError(f"the border of the images is {self.preprocessing['border']!r}")
        for name in ("mean", "std"):
            values = self.preprocessing[name]
            finite = all(type(v) in (int, float) and math.isfinite(v) for v in values)
            if not finite or (len(values), len(self.shape)) != (self.shape[0], 3):
                raise ValueError(f"the {name} of the images is {values!r}")
        if min(self.preprocessing["std"]) <= 0:
            raise ValueError("the standard deviation of the images is not positive")
