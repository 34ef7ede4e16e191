"""The commands as Python functions, with the options as keywords. They print nothing; give `emit` to follow them."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from unetctl.jobs.corpus import dry_run as _dry_run
from unetctl.jobs.corpus import predict_all
from unetctl.jobs.pages.job import PagesPlan
from unetctl.jobs.pages.options import PageOptions
from unetctl.jobs.predict import PredictOptions
from unetctl.jobs.stitch import stitch_output
from unetctl.jobs.summary import PlanSummary
from unetctl.jobs.train import TrainOptions, TrainReport
from unetctl.jobs.train import train as _train
from unetctl.runtime.events import Listener, nobody
from unetctl.runtime.report import RunReport

AnyPath = str | PathLike[str]


def never() -> bool:
    """For `should_stop`: go on to the end."""
    return False


def predict(
    inputs: AnyPath | Sequence[AnyPath],
    task: AnyPath,
    *,
    overrides: Sequence[str] = (),
    weights: AnyPath | None = None,
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = never,
    **options: Any,
) -> list[RunReport]:
    """Runs a network over images, as `unetctl predict` does.

    Args:
        inputs: one path or several.
        task: a shipped task's name, a recipe file, a weights file or a training run's folder.
        overrides: ``section.key=value`` each.
        weights: instead of the task's own.
        emit: gets the events (`unetctl.runtime.events`).
        should_stop: asked between batches; True stops cleanly.
        options: fields of `PredictOptions` and `PageOptions`, as ``output=Path("x.ome.zarr"), core=512``.

    Returns:
        One report an input; with several inputs a failure is a report of status "failed".

    Raises:
        UnetctlError: of a single input.
        TypeError: if neither has such a field.
    """
    chosen, of_pages = _options(options)
    return predict_all(
        _paths(inputs),
        fspath(task),
        chosen,
        overrides=overrides,
        weights=None if weights is None else fspath(weights),
        page_options=of_pages,
        emit=emit,
        should_stop=should_stop,
    )


def dry_run(
    inputs: AnyPath | Sequence[AnyPath],
    task: AnyPath,
    *,
    overrides: Sequence[str] = (),
    weights: AnyPath | None = None,
    warm_up: bool = False,
    **options: Any,
) -> Sequence[PlanSummary | PagesPlan]:
    """The plans of a prediction and their costs, without writing anything.

    Args:
        inputs: as for `predict`.
        task: as for `predict`.
        overrides: as for `predict`.
        weights: as for `predict`.
        warm_up: True runs a batch of tiles, to tell the time that the run will take.
        options: fields of `PredictOptions` and `PageOptions`.

    Raises:
        UnetctlError: what a run would raise before it begins.
    """
    chosen, of_pages = _options(options)
    return _dry_run(
        _paths(inputs),
        fspath(task),
        chosen,
        overrides=overrides,
        weights=None if weights is None else fspath(weights),
        page_options=of_pages,
        warm_up=warm_up,
    )


def stitch(
    output: AnyPath, *, to: AnyPath | None = None, emit: Listener = nobody, should_stop: Callable[[], bool] = never
) -> RunReport:
    """Makes one output of what parts have computed, as `unetctl stitch` does.

    Raises:
        IncompleteError: if parts are missing; names the command that computes them.
        UnetctlError: if there is no run, or parts are still at work.
    """
    return stitch_output(Path(output), to=None if to is None else Path(to), emit=emit, should_stop=should_stop)


def train(
    data: AnyPath, *, emit: Listener = nobody, should_stop: Callable[[], bool] = never, **options: Any
) -> TrainReport:
    """Trains a network on a folder of pictures with labels, as `unetctl train` does.

    Args:
        data: the folder.
        emit: gets the events.
        should_stop: asked between steps; True stops cleanly, the same call goes on.
        options: fields of `TrainOptions`, as ``task="em", epochs=20``.

    Raises:
        UnetctlError: if data, recipe or run folder do not serve.
        TypeError: if `TrainOptions` has no such field.
    """
    if options.get("output") is not None:
        options["output"] = Path(options["output"])
    return _train(TrainOptions(data=Path(data), **options), emit, should_stop)


def _paths(inputs: AnyPath | Sequence[AnyPath]) -> list[str]:
    return [fspath(inputs)] if isinstance(inputs, (str, PathLike)) else [fspath(path) for path in inputs]


def _options(values: dict[str, Any]) -> tuple[PredictOptions, PageOptions]:
    if values.get("output") is not None:
        values["output"] = Path(values["output"])
    of_pages = {field.name for field in fields(PageOptions)}
    page_values = {name: values.pop(name) for name in of_pages & values.keys()}
    return PredictOptions(**values), PageOptions(**page_values)
