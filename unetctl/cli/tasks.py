"""`unetctl tasks`."""

from typing import Annotated

import typer

from unetctl.cli import options as o
from unetctl.cli.session import session
from unetctl.cli.words import figure

Name = Annotated[str | None, typer.Argument(metavar="TASK", help="Print this task's recipe, to be copied and changed.")]


def tasks(name: Name = None, json: o.Json = False) -> None:
    """List the tasks that come with the program.

    With a TASK: print its recipe. A copy of a recipe is a task of your own: unetctl tasks em > mine.toml
    """
    with session(o.talk_of(json, "text", False, False), is_long=False) as current:
        from unetctl.recipe import describe, load_recipe, shipped_recipes, shipped_weights
        from unetctl.recipe.overview import train_command

        console = current.console
        if name is not None:
            recipe = load_recipe(name)
            if json:
                console.json(recipe.to_dict())
            else:
                shipped = shipped_recipes().get(name)
                console.data(
                    (shipped.read_text(encoding="utf-8") if shipped else recipe.to_toml(comments=True)).rstrip()
                )
            return
        for i, task in enumerate(shipped_recipes()):
            recipe, weights = load_recipe(task), shipped_weights(task)
            if json:
                console.json(
                    {
                        "task": task,
                        "title": recipe.task.title,
                        "weights": str(weights) if weights else None,
                        "recipe": recipe.to_dict(),
                    }
                )
                continue
            lines = describe(recipe)
            size = (
                f"{figure(weights.stat().st_size / 1e6)} MB, shipped"
                if weights
                else f"none shipped; {train_command(recipe)}"
            )
            for line in [*([""] if i else []), lines[0], *(f"  {line}" for line in [*lines[1:], f"weights: {size}"])]:
                console.data(line)
