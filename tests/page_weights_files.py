"""A network for pages, tiny and untrained: its answers are arbitrary but the same for the same page."""

from pathlib import Path
from typing import Any

from unetctl.networks.build import build_network
from unetctl.networks.weights import WeightsHeader, save_weights
from unetctl.recipe.load import recipe_from_dict


def save_page_weights(path: Path, name: str = "ink", **changed: dict[str, Any]) -> Path:
    """Weights of a recipe for pages.

    Args:
        path: of the file.
        name: of the task.
        changed: sections of the recipe, and what is other in them.
    """
    values: dict[str, Any] = {
        "task": {"name": name},
        "input": {"stack": False, "luminance": True},
        "normalise": {"method": "two_levels"},
        "network": {"base_width": 2, "depth": 2, "convolution": "same", "up": "bilinear"},
        "output": {"classes": ["ink"], "keep": "mask"},
    }
    for section, settings in changed.items():
        values[section] = {**values.get(section, {}), **settings}
    recipe = recipe_from_dict(values, "tests")
    network = build_network(recipe.network_spec, 5)
    save_weights(path, network, WeightsHeader(name, recipe.network_spec.to_dict(), recipe.to_dict()))
    return path
