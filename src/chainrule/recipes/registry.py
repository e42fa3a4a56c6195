"""Recipes: named training runs that reach named results."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from chainrule.data import transforms
from chainrule.errors import ArgumentError, unknown_name
from chainrule.models import MLP, LeNet, resnet20
from chainrule.recipes.settings import Settings, locate


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A model, the data it is meant for, and settings that train it well.

    Attributes:
        name: its name on the command line.
        description: one line.
        data: the data set if none is named.
        build: `(settings, input shape, outputs) -> model`.
        settings: what differs from the defaults of `Settings`.
        for_data: what differs further on certain data sets.
        learns_from: "images", "tables", or both.
        folder_shape: (channels, height, width) that a folder of images is brought to.
        standardize: whether pixels are brought to mean 0 and deviation 1; else they stay in [0, 1],
            which sigmoid networks learn from more accurately.
    """

    name: str
    description: str
    data: str
    build: Callable[[Settings, tuple[int, ...], int], Any]
    settings: dict[str, Any]
    for_data: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    learns_from: tuple[str, ...] = ("images",)
    folder_shape: tuple[int, int, int] = (1, 28, 28)
    standardize: bool = True

    def make_settings(self, data: str | None, **given: Any) -> Settings:
        """The settings of a run: the recipe's, then those for the data set, then those given."""
        name = self.data if data is None else locate(data)
        chosen = {key: value for key, value in given.items() if value is not None}
        return Settings(
            **{**self.settings, **self.for_data.get(name, {}), **chosen},
            recipe=self.name,
            data=name,
        )


def _image(shape: tuple[int, ...], recipe: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ArgumentError(
            f"{recipe!r} takes images (channels, height, width), but the inputs have shape {shape}."
        )
    return shape[0], shape[1], shape[2]


def _mlp(settings: Settings, shape: tuple[int, ...], outputs: int) -> Any:
    sizes = (math.prod(shape), *settings.hidden, outputs)
    return MLP(sizes, settings.activation, settings.dropout)


def _lenet(settings: Settings, shape: tuple[int, ...], outputs: int) -> Any:
    channels, height, width = _image(shape, "lenet")
    if height != width or height < 12:
        raise ArgumentError(
            f"LeNet takes square images of at least 12x12, but the data has {height}x{width}."
        )
    return LeNet(outputs, channels, height)


def _resnet20(settings: Settings, shape: tuple[int, ...], outputs: int) -> Any:
    return resnet20(outputs, _image(shape, "resnet20")[0])


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "mlp", "784-16-16-10 sigmoid network (or any --hidden), on images", "digits", _mlp,
            {
                "epochs": 40, "batch_size": 32, "lr": 0.1, "optimizer": "sgd",
                "activation": "sigmoid",
            },
            {
                "mnist": {"epochs": 25},
                "fashion_mnist": {
                    "epochs": 12, "batch_size": 128, "lr": 0.002, "optimizer": "adam",
                    "activation": "relu", "hidden": (256,),
                },
            },
            standardize=False,
            learns_from=("images", "tables"),
        ),
        Recipe(
            "lenet", "LeNet-5, with augmentation", "digits", _lenet,
            {"epochs": 40, "batch_size": 64, "lr": 0.003, "augment": True, "schedule": "onecycle"},
            {"mnist": {"epochs": 8}, "fashion_mnist": {"epochs": 12}},
        ),
        Recipe(
            "resnet20", "ResNet-20, with augmentation", "cifar10", _resnet20,
            {
                "epochs": 30, "batch_size": 128, "lr": 0.1, "optimizer": "sgd",
                "weight_decay": 1e-4, "augment": True, "schedule": "onecycle",
            },
            folder_shape=(3, 32, 32),
        ),
        Recipe(
            "csv", "a small network on any table, classification or regression", "iris", _mlp,
            {
                "epochs": 100, "batch_size": 32, "lr": 0.003, "hidden": (32, 32),
                "optimizer": "adamw", "weight_decay": 1e-2, "dropout": 0.2,
            },
            learns_from=("tables",),
        ),
    )
}  # fmt: skip


def get(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]


def augmentation(data: str, shape: tuple[int, ...]) -> Any:
    """Random changes that leave the meaning of a picture: small for digits, mirrors for objects."""
    _, height, _ = _image(shape, "augmentation")
    if data in ("cifar10",):
        return transforms.Compose(
            [transforms.RandomCrop(height, padding=height // 8), transforms.RandomHorizontalFlip()]
        )
    if data in ("fashion_mnist",):
        return transforms.Compose(
            [transforms.RandomShift(max(height // 14, 1)), transforms.RandomHorizontalFlip()]
        )
    return transforms.RandomAffine(degrees=10, translate=(0.08, 0.08), scale=(0.9, 1.1))
