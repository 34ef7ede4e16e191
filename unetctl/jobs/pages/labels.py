"""Labels of a page that is too large to be held: made in stores beside that of its probabilities."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from unetctl.errors import Stopped
from unetctl.jobs.label_store import make_labels
from unetctl.jobs.pages.scaling import Stored
from unetctl.objects.rule import LabelRule
from unetctl.sinks.zarr import ZarrSink


def large_labels(stored: Stored, rule: LabelRule, folder: Path, should_stop: Callable[[], bool]) -> ZarrSink | None:
    """A store of labels (y, x); None if asked to stop: the probabilities stay, and labelling starts over.

    Args:
        stored: complete probabilities (3, y, x).
        rule: see `unetctl.objects.rule`.
        folder: run folder of the page, where stores are made.
        should_stop: asked before each block.

    Raises:
        ResourceError: if the disk is full.
    """
    target, scratch = (folder / f".{name}.partial-{os.getpid()}" for name in ("labels", "scratch"))
    for left in (target, scratch):
        shutil.rmtree(left, ignore_errors=True)
    try:
        return make_labels(stored, rule, target, scratch, should_stop=should_stop)
    except Stopped:
        shutil.rmtree(target, ignore_errors=True)
        return None
