"""The last stage of `--keep labels`: from the stored probabilities of all blocks to the output with labels.

Which pixels are one object can only be told when all blocks are there, so the run itself is that of `--keep probability`:
its journal, parts, cluster and resume know nothing of labels, and its store lies in the run folder, also where the output
is an OME-Zarr. When no block is missing, this stage labels the store block by block (`unetctl.jobs.label_store`), builds
the pyramid, and puts the result in place:

    OUT.ome.tif.run/   store.zarr    probabilities, until the output is verified (--keep-store keeps both stores)
                       labels.zarr   labels, what the TIFF is exported from
    OUT.ome.zarr       the labels themselves, put in place by rename

Stopped or killed, labelling starts over, from stored probabilities: it takes a small part of the time of the network. What is
under its final name is complete. The journal of writer "labels" proves it (units "label" and "label-pyramid").
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from unetctl.errors import Stopped
from unetctl.jobs.finish import export_store
from unetctl.jobs.label_store import make_labels, num_steps
from unetctl.objects.rule import LabelRule
from unetctl.runtime.events import Listener, StageEnded, StageProgress, StageStarted
from unetctl.runtime.journal import BlockRecord, Journal
from unetctl.runtime.run_folder import KeepStore, RunFolder
from unetctl.runtime.run_plan import RunPlan
from unetctl.sinks.base import StoredKey
from unetctl.sinks.disk import fsync_folder
from unetctl.sinks.pyramid import build_step, pyramid_steps
from unetctl.sinks.zarr import ZarrSink


def finish_labels(
    folder: RunFolder,
    plan: RunPlan,
    emit: Listener,
    should_stop: Callable[[], bool],
    *,
    keep_store: KeepStore = False,
    checksums: bool = False,
) -> bool:
    """Labels, then puts the output in place.

    The caller holds the run alone, and all blocks are done.

    Returns:
        True if the output is finished, False if asked to stop.

    Raises:
        ResourceError: if the disk is full, or something does not read back as it was written.
    """
    if folder.is_zarr:
        if not _label(folder, plan, folder.output, emit, should_stop):
            return False
        folder.mark_finished({"kind": "zarr", "keep_store": keep_store})
        if not keep_store:
            folder.remove_store()
        return True
    target = folder.made_path
    is_there = target.is_dir() and folder.are_labels_intact(target, checksums)
    if not is_there:
        shutil.rmtree(target, ignore_errors=True)
        if not _label(folder, plan, target, emit, should_stop):
            return False
    return export_store(folder, ZarrSink.open(target), emit, should_stop, keep_store)


def _label(folder: RunFolder, plan: RunPlan, target: Path, emit: Listener, should_stop: Callable[[], bool]) -> bool:
    """Labels and their pyramid, complete or not at all."""
    stored = folder.sink()
    rule = LabelRule.of(plan.typed_recipe().objects)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    scratch = folder.path / f".scratch.partial-{os.getpid()}"
    for left in (partial, scratch):
        shutil.rmtree(left, ignore_errors=True)
    done, begun = 0, time.monotonic()
    complete = False
    emit(StageStarted("label", num_steps(stored), 0, "block"))

    def tick() -> None:
        nonlocal done
        done += 1
        emit(StageProgress("label", done))

    try:
        with Journal(folder.path, "labels") as journal:

            def mark(index: int, keys: tuple[StoredKey, ...]) -> None:
                journal.mark(BlockRecord("label", index, keys))

            sink = make_labels(stored, rule, partial, scratch, mark=mark, tick=tick, should_stop=should_stop)
            for i, step in enumerate(pyramid_steps(sink)):
                if should_stop():
                    return False
                journal.mark(BlockRecord("label-pyramid", i, build_step(sink, step)))
        if target.exists():  # ours: an earlier output that is not as it was written
            shutil.rmtree(target)
        partial.replace(target)
        fsync_folder(target.absolute().parent)
        complete = True
    except Stopped:
        return False
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        emit(StageEnded("label", time.monotonic() - begun, complete))
    return True
