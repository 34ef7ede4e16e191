"""U-Nets for images of any size: seamless, resumable, in bounded memory.

The public names are loaded on first use; importing the package costs nothing::

    import unetctl
    report, = unetctl.predict("stack.tif", "em")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from unetctl.errors import UnetctlError
    from unetctl.jobs import benchmark
    from unetctl.jobs.api import dry_run, predict, stitch, train
    from unetctl.jobs.info import describe_file
    from unetctl.jobs.predict import PredictOptions
    from unetctl.jobs.sample import make_sample
    from unetctl.jobs.train import TrainOptions, TrainReport
    from unetctl.recipe.load import load_recipe
    from unetctl.recipe.schema import Recipe
    from unetctl.runtime.report import RunReport
    from unetctl.sources.open import open_source

#: Where each public name lives; an empty attribute is the module itself.
_HOMES = {
    "PredictOptions": ("unetctl.jobs.predict", "PredictOptions"),
    "Recipe": ("unetctl.recipe.schema", "Recipe"),
    "RunReport": ("unetctl.runtime.report", "RunReport"),
    "TrainOptions": ("unetctl.jobs.train", "TrainOptions"),
    "TrainReport": ("unetctl.jobs.train", "TrainReport"),
    "UnetctlError": ("unetctl.errors", "UnetctlError"),
    "benchmark": ("unetctl.jobs.benchmark", ""),
    "describe_file": ("unetctl.jobs.info", "describe_file"),
    "dry_run": ("unetctl.jobs.api", "dry_run"),
    "load_recipe": ("unetctl.recipe.load", "load_recipe"),
    "make_sample": ("unetctl.jobs.sample", "make_sample"),
    "open_source": ("unetctl.sources.open", "open_source"),
    "predict": ("unetctl.jobs.api", "predict"),
    "stitch": ("unetctl.jobs.api", "stitch"),
    "train": ("unetctl.jobs.api", "train"),
}

__all__ = [
    "PredictOptions",
    "Recipe",
    "RunReport",
    "TrainOptions",
    "TrainReport",
    "UnetctlError",
    "__version__",
    "benchmark",
    "describe_file",
    "dry_run",
    "load_recipe",
    "make_sample",
    "open_source",
    "predict",
    "stitch",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = import_module(module)
    return getattr(value, attribute) if attribute else value


def _version() -> str:
    """As installed; the project file is its home."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("unetctl")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
