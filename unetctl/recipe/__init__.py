"""What is wanted: recipes as TOML, checked whole, all problems told at once.

Names are loaded on first use, so that asking for the shipped files costs no schema.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unetctl.recipe.dump import dump_toml
    from unetctl.recipe.load import load_recipe, recipe_from_dict
    from unetctl.recipe.overview import describe
    from unetctl.recipe.schema import (
        Augment,
        Input,
        Labels,
        Loss,
        Network,
        Normalise,
        Output,
        Recipe,
        Split,
        Task,
        Train,
    )
    from unetctl.recipe.shipped import shipped_recipes, shipped_weights
    from unetctl.recipe.split_entries import parse_split_entry

_HOMES = {
    "dump": ("dump_toml",),
    "load": ("load_recipe", "recipe_from_dict"),
    "overview": ("describe",),
    "schema": (
        "Augment",
        "Input",
        "Labels",
        "Loss",
        "Network",
        "Normalise",
        "Output",
        "Recipe",
        "Split",
        "Task",
        "Train",
    ),
    "shipped": ("shipped_recipes", "shipped_weights"),
    "split_entries": ("parse_split_entry",),
}

__all__ = [
    "Augment",
    "Input",
    "Labels",
    "Loss",
    "Network",
    "Normalise",
    "Output",
    "Recipe",
    "Split",
    "Task",
    "Train",
    "describe",
    "dump_toml",
    "load_recipe",
    "parse_split_entry",
    "recipe_from_dict",
    "shipped_recipes",
    "shipped_weights",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"unetctl.recipe.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
