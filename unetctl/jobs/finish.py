"""From computed blocks to the finished output: pyramid, export, verification."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unetctl.errors import ResourceError, Stopped
from unetctl.runtime.aside import told
from unetctl.runtime.events import Listener, Note, StageEnded, StageProgress, StageStarted
from unetctl.runtime.journal import BlockRecord, Journal, records_by_index
from unetctl.runtime.run_folder import KeepStore, RunFolder, is_on_disk
from unetctl.runtime.run_plan import RunPlan
from unetctl.sinks.pyramid import build_step, pyramid_steps
from unetctl.sinks.tiff import export_tiff, verify_tiff
from unetctl.sinks.zarr import ZarrSink


def finish_output(
    folder: RunFolder,
    plan: RunPlan,
    emit: Listener,
    should_stop: Callable[[], bool],
    *,
    keep_store: KeepStore = False,
    checksums: bool = False,
) -> bool:
    """Builds the pyramid and, for a TIFF, exports and verifies it; the store of a TIFF is removed then.

    The caller holds the run alone, and all blocks are done.

    Args:
        folder, plan: of the run.
        emit, should_stop: see the engine.
        keep_store: of a TIFF; "export": until `RunFolder.release_store`.
        checksums: compare the contents of pyramid steps done before, not only their sizes.

    Returns:
        True if the output is finished, False if asked to stop (pyramid steps done until then stay done).

    Raises:
        ResourceError: if the disk is full, or something does not read back as it was written.
    """
    if plan.keep == "labels":
        from unetctl.jobs.finish_labels import finish_labels  # which in turn exports by `export_store`

        with _damage_explained(folder):
            return finish_labels(folder, plan, emit, should_stop, keep_store=keep_store, checksums=checksums)
    sink = folder.sink()
    with _damage_explained(folder):
        if not _build_pyramid(folder, sink, emit, should_stop, checksums):
            return False
        if not folder.is_zarr:
            return export_store(folder, sink, emit, should_stop, keep_store)
    folder.mark_finished({"kind": "zarr"})
    return True


def say_aside(folder: RunFolder, emit: Listener) -> None:
    """Keeps a finished output that somebody has changed since, and says so; the caller holds the run alone."""
    kept = folder.put_changed_aside()
    if kept is not None:
        emit(Note(told(folder.output, kept), "warning"))


@contextmanager
def _damage_explained(folder: RunFolder) -> Iterator[None]:
    """Tells what a decoder says of altered bytes from a bug: their checksums are known."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if folder.is_store_intact(checksums=True):
            raise
        raise ResourceError(
            f"{folder.store_path} does not hold what was written to it ({error})",
            "a disk that keeps what it is given",
            "add --verify to the same command to compute what is damaged again",
        ) from error


def export_store(
    folder: RunFolder, sink: ZarrSink, emit: Listener, should_stop: Callable[[], bool], keep_store: KeepStore
) -> bool:
    """Writes a complete store as the run's TIFF, verifies it, and removes the stores unless they are to be kept.

    Returns:
        False if asked to stop.
    """
    begun = time.monotonic()
    started = False

    def progress(done: int, total: int) -> None:
        nonlocal started
        if not started:
            emit(StageStarted("export", total, 0, "tile"))
            started = True
        emit(StageProgress("export", done))

    try:
        record = export_tiff(sink, folder.output, on_progress=progress, should_stop=should_stop)
    except Stopped:
        emit(StageEnded("export", time.monotonic() - begun, is_complete=False))
        return False
    verify_tiff(sink, folder.output)
    emit(StageEnded("export", time.monotonic() - begun))
    noted = {"kind": "tiff", "num_bytes": record.num_bytes, "sha256": record.sha256, "keep_store": keep_store}
    folder.mark_finished(noted)
    if not keep_store:
        folder.remove_store()
    return True


def _build_pyramid(
    folder: RunFolder, sink: ZarrSink, emit: Listener, should_stop: Callable[[], bool], checksums: bool
) -> bool:
    steps = pyramid_steps(sink)
    if not len(steps):
        return True
    known = records_by_index(folder.path, "pyramid")
    todo = [i for i in range(len(steps)) if not is_on_disk(sink, known.get(i, []), checksums)]
    if not todo:
        return True
    begun = time.monotonic()
    done = len(steps) - len(todo)
    emit(StageStarted("pyramid", len(steps), done, "step"))
    with Journal(folder.path, "pyramid") as journal:
        for index in todo:
            if should_stop():
                emit(StageEnded("pyramid", time.monotonic() - begun, is_complete=False))
                return False
            journal.mark(BlockRecord("pyramid", index, build_step(sink, steps[index])))
            done += 1
            emit(StageProgress("pyramid", done))
    emit(StageEnded("pyramid", time.monotonic() - begun))
    return True
