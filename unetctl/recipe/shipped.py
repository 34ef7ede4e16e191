"""The recipes and weights that come with the program.

In an installed wheel they lie inside the package; in a checkout, an editable installation too, beside it.
"""

from pathlib import Path


def shipped_recipes() -> dict[str, Path]:
    """Name to file of every recipe that comes with the program, in order of the names."""
    return {path.stem: path for path in sorted((_home() / "pipelines").glob("*.toml"))}


def shipped_weights(name: str) -> Path | None:
    """The trained weights of a shipped task; None if it has none."""
    path = _home() / "weights" / f"{name}.safetensors"
    return path if path.is_file() else None


def _home() -> Path:
    package = Path(__file__).resolve().parent.parent
    return package if (package / "pipelines").is_dir() else package.parent
