"""Recipes: named training runs that reach named results, and what is done with them."""

from chainrule.recipes.apply import Prediction, evaluate, load_run, predict
from chainrule.recipes.folder import RunFolder, fresh_folder
from chainrule.recipes.form import Form
from chainrule.recipes.registry import RECIPES, Recipe, get
from chainrule.recipes.run import Result, settings_of_run, start
from chainrule.recipes.settings import (
    ACTIVATIONS,
    MISSING,
    OPTIMIZERS,
    SCHEDULES,
    TASKS,
    Settings,
)

__all__ = [
    "ACTIVATIONS", "MISSING", "OPTIMIZERS", "RECIPES", "SCHEDULES", "TASKS", "Form", "Prediction",
    "Recipe", "Result", "RunFolder", "Settings", "evaluate", "fresh_folder", "get", "load_run",
    "predict", "settings_of_run", "start",
]  # fmt: skip
