"""Recipes: named training runs that reach named results, and what is done with them."""

from chainrule.recipes.apply import Prediction, evaluate, load_run, predict_images, predict_rows
from chainrule.recipes.folder import RunFolder, fresh_folder
from chainrule.recipes.registry import RECIPES, Recipe, get
from chainrule.recipes.run import Result, settings_of_run, start
from chainrule.recipes.settings import OPTIMIZERS, SCHEDULES, Settings

__all__ = [
    "OPTIMIZERS", "RECIPES", "SCHEDULES", "Prediction", "Recipe", "Result", "RunFolder", "Settings",
    "evaluate", "fresh_folder", "get", "load_run", "predict_images", "predict_rows", "settings_of_run",
    "start",
]  # fmt: skip
