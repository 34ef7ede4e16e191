"""The door of the pages' room: from the inputs of a command to their reports."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unetctl.errors import InputError, UsageError
from unetctl.jobs.failures import failure_limit
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages.inputs import PageSet, page_sets
from unetctl.jobs.pages.ledger import DONE, own_outputs, read_ledger, settings_of
from unetctl.jobs.pages.options import PageOptions
from unetctl.jobs.pages.run import PageRun
from unetctl.jobs.pages.settings import differences, from_values, new_settings
from unetctl.jobs.pages.shares import Shares
from unetctl.jobs.pages.targets import refuse_kind
from unetctl.jobs.tasks import ResolvedTask
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Listener, Note, nobody
from unetctl.runtime.memory import budget, format_size
from unetctl.runtime.report import RunReport
from unetctl.sources.open import is_array

#: Endings of outputs that hold volumes, whatever the recipe is for.
_VOLUME_ENDINGS = (".ome.tif", ".ome.tiff", ".zarr")


def are_pages(inputs: Sequence[str], recipe: Recipe, output: Path | None, page_options: PageOptions) -> bool:
    """True if inputs are documents: files and folders of pages, each page a picture of its own.

    Args:
        inputs: of the command.
        recipe: says which is usual (``input.stack``).
        output: an ending that only volumes have (.ome.tif, .zarr) decides against pages.
        page_options: ``as_pages`` goes before all else.
    """
    if page_options.as_pages is not None:
        return page_options.as_pages
    if recipe.input.stack or (output is not None and output.name.lower().endswith(_VOLUME_ENDINGS)):
        return False
    return not any(is_array(path) for path in inputs)


def predict_pages(
    inputs: Sequence[str],
    task: ResolvedTask,
    options: PredictOptions,
    page_options: PageOptions,
    *,
    on_error: str = "skip",
    max_failed: str | None = None,
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
    on_report: Callable[[RunReport], None] = lambda report: None,
) -> list[RunReport]:
    """Predicts folders and files of pages; a rerun works on new, changed and failed files only.

    Args:
        inputs: see `page_sets`.
        task: what is asked of the network.
        options, page_options: of the command line.
        on_error: "skip" goes on with the next file, "abort" stops at the first failure.
        max_failed: "3" or "10%": stop once more files have failed.
        emit, should_stop: see the engine.
        on_report: called after each file that was worked on.

    Returns:
        One report a file, unchanged ones included; a last one of status "stopped" if asked to stop.

    Raises:
        UnetctlError: see `PageRun.run`.
    """
    network = task.network()
    reports: list[RunReport] = []
    sets = _sets(inputs, task, options, page_options, emit)
    limit = failure_limit(max_failed, sum(len(pages.files) for pages in sets))
    for pages in sets:
        may_fail = None if limit is None else limit - sum(r.status == "failed" for r in reports)
        run = PageRun(pages, task, network, options, page_options, on_error, may_fail, emit, should_stop, on_report)
        reports += run.run()
        if reports and reports[-1].status == "stopped":
            break
    return reports


class PagesPlan:
    """What a run of pages would do, for the dry run.

    Args:
        pages: the files.
        values: the settings.
        budget_bytes: for the whole process.
    """

    def __init__(self, pages: PageSet, values: dict[str, Any], budget_bytes: int) -> None:
        done = {r.name for r in read_ledger(pages.run) if r.status == DONE}
        self._pages, self._values, self._budget = pages, values, budget_bytes
        self._num_done = sum(file.name in done for file in pages.files)

    def lines(self) -> list[str]:
        """For people."""
        v, num = self._values, len(self._pages.files)
        return [
            f"{num} file{'s' if num != 1 else ''} of pages -> {self._where()}",
            f"  done before   {self._num_done} (changed ones are found when the run begins)",
            f"  task          {v['task']}, {v['keep']}" + (f" from {v['threshold']}" if v["keep"] == "mask" else ""),
            f"  tiles         core up to {v['core']}, {v['batch']} at once",
            f"  compute       {v['compute']['device']}, {v['compute']['precision']}, {v['compute']['num_threads']} threads",
            f"  memory        at most {format_size(self._budget)}",
            f"  run folder    {self._pages.run}",
        ]

    def _where(self) -> str:
        pages = self._pages
        if pages.is_single:
            return f"{pages.place / pages.files[0].stem}{pages.ending or '.*'}"
        return f"{pages.place}/"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "files": [str(file.path) for file in self._pages.files],
            "num_done": self._num_done,
            "place": str(self._pages.place),
            "run": str(self._pages.run),
            "settings": self._values,
        }


def plan_pages(
    inputs: Sequence[str], task: ResolvedTask, options: PredictOptions, page_options: PageOptions
) -> list[PagesPlan]:
    """What `predict_pages` would do; nothing is written.

    Raises:
        UnetctlError: what a run would raise before it begins.
    """
    budget_bytes = budget(options.memory_bytes, options.scheduler_bytes)
    asked = new_settings(task, task.network(), options, page_options, Shares.of(budget_bytes))
    plans = []
    for pages in _sets(inputs, task, options, page_options, nobody):
        refuse_kind(asked.values["keep"], pages.kind or page_options.format)
        begun = None if options.fresh else settings_of(pages.run)
        differing = differences(asked, from_values(begun), options) if begun else []
        if differing:
            raise UsageError(
                f"{pages.run} holds a run that differs: {'; '.join(differing[:4])}",
                "the same weights and settings as before",
                "start over with --fresh, or choose another output with -o",
            )
        plans.append(PagesPlan(pages, begun or asked.values, budget_bytes))
    return plans


def _sets(
    inputs: Sequence[str], task: ResolvedTask, options: PredictOptions, page_options: PageOptions, emit: Listener
) -> list[PageSet]:
    sets = []
    for pages in page_sets(inputs, task.name, options.output, recursive=page_options.recursive, emit=emit):
        if pages.is_single:
            sets.append(pages)
            continue
        parents = {file.path.parent.resolve() for file in pages.files} | {Path().resolve()}
        ours = {path for folder in parents for path in own_outputs(folder)}
        kept = tuple(file for file in pages.files if file.path.resolve() not in ours)
        if len(kept) < len(pages.files):
            emit(Note(f"{len(pages.files) - len(kept)} outputs of unetctl among the inputs: passed over", "info"))
        if kept:
            sets.append(replace(pages, files=kept))
    if not sets:
        raise InputError(f"nothing but outputs of unetctl in {' '.join(inputs[:3])}", "files of pages")
    return sets
