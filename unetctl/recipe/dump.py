"""Recipes as TOML text."""

from typing import TYPE_CHECKING

from unetctl.recipe.words import choices, toml_value

if TYPE_CHECKING:
    from unetctl.recipe.schema import Recipe


def dump_toml(recipe: "Recipe", comments: bool = False) -> str:
    """The recipe as TOML that `load_recipe` reads back to an equal recipe.

    Args:
        recipe: any recipe.
        comments: put each setting's meaning above it, for people who go on editing the file.
    """
    lines: list[str] = []
    for section, values in recipe.to_dict().items():
        model = type(getattr(recipe, section))
        if lines:
            lines.append("")
        if comments and model.__doc__:
            lines.append(f"# {model.__doc__.splitlines()[0]}")
        lines.append(f"[{section}]")
        for key, value in values.items():
            if comments:
                field = model.model_fields[key]
                words = ", ".join(toml_value(choice) for choice in choices(field))
                lines.append(f"# {field.description}" + (f" ({words})" if words else ""))
            lines.append(f"{key} = {toml_value(value)}")
    return "\n".join(lines) + "\n"
