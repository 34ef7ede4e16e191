"""Where the result of an opened file goes, under which name, as which kind of file."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from unetctl.errors import InputError, UsageError
from unetctl.jobs.pages.feed import OpenFile
from unetctl.jobs.pages.inputs import SUFFIX_OF_KIND, PageFile, PageSet
from unetctl.jobs.pages.ledger import PageRecord
from unetctl.jobs.pages.results import FileResult
from unetctl.jobs.pages.upkeep import key_of
from unetctl.runtime.run_folder import OutputInTheWayError
from unetctl.sinks.pages import page_kind_for


def _refuse_unequal(opened: OpenFile) -> None:
    sizes = dict.fromkeys((image.size_of("x"), image.size_of("y")) for image in opened.images)
    if len(sizes) > 1:
        told = ", ".join(f"{x} x {y}" for x, y in list(sizes)[:4])
        raise UsageError(
            f"{opened.file.path} has pages of {told} pixels", "one size, as a GIF's frames have", "--format tiff"
        )


def refuse_kind(keep: str, kind: str | None) -> None:
    """Says so if a kind of file that was asked for cannot hold what is kept.

    Raises:
        UsageError: for numbers of objects in a GIF, which shows at most 256 colours, or a PDF, which is looked at.
    """
    if keep == "labels" and kind in ("gif", "pdf"):
        raise UsageError(
            f"--keep labels in {kind.upper()}",
            "tiff or png, which keep numbers",
            "--format tiff, or --keep probability to look at",
        )


class Targets:
    """Gives every file its own output, the same again in every run.

    Args:
        pages: the files.
        records: of the ledger, by name of input; followed as it grows.
        settings: of the run.
        is_one_bit: True if pages are written with one bit a pixel.
        wanted: kind of file for all; None: alike to the inputs.
        overwrites: True if what is not ours may be replaced.
        are_numbers: True if pages hold numbers of objects.
    """

    def __init__(
        self,
        pages: PageSet,
        records: dict[str, PageRecord],
        settings: dict[str, Any],
        *,
        is_one_bit: bool,
        wanted: str | None,
        overwrites: bool,
        are_numbers: bool = False,
    ) -> None:
        self._pages, self._records, self._settings = pages, records, settings
        self._is_one_bit, self._wanted, self._overwrites = is_one_bit, pages.kind or wanted, overwrites
        self._are_numbers = are_numbers
        self._inputs = {os.path.realpath(file.path) for file in pages.files}
        self._owner = {r.output: r.name for r in records.values() if r.output}

    def result_for(self, opened: OpenFile) -> FileResult:
        """Where the pages of a file are gathered.

        Raises:
            InputError: if the file has no pages.
            UsageError: if there is no name for the output, or the kind of file that was asked for cannot hold it;
                `OutputInTheWayError` if something else lies there.
        """
        file, num_pages = opened.file, len(opened.images)
        if not num_pages:
            raise InputError(f"{file.path} has no pages", "at least one")
        kind = page_kind_for(
            opened.origins[0].kind, self._is_one_bit, self._wanted, num_pages, are_numbers=self._are_numbers
        )
        if kind == "png" and num_pages > 1:
            raise UsageError(f"{file.path} has {num_pages} pages, and a PNG holds one", "tiff or pdf", "--format tiff")
        if kind == "gif":
            _refuse_unequal(opened)
        target = self._target(file, kind)
        spool = None
        if num_pages > 1:
            text = json.dumps([opened.identity, self._settings, kind], sort_keys=True)
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            spool = self._pages.run / f"spool-{key_of(file.name, opened.stat)}-{digest}"
        return FileResult(opened, target, kind, spool)

    def _target(self, file: PageFile, kind: str) -> Path:
        suffix = self._pages.ending or SUFFIX_OF_KIND[kind]
        before = self._records.get(file.name)
        names = [f"{file.stem}{suffix}", f"{file.whole}{suffix}"]
        if before is not None and before.output.endswith(suffix):
            names = [before.output]
        for name in names:
            if self._owner.get(name, file.name) != file.name:
                continue
            target = self._pages.place / name
            if os.path.realpath(target) in self._inputs:
                raise UsageError(f"{target} is an input", "an output apart from all inputs", "choose another with -o")
            is_ours = before is not None and before.output == name
            if (target.exists() or target.is_symlink()) and not is_ours and not self._overwrites:
                raise OutputInTheWayError(
                    f"{target} exists and is not a result of this job", "a new name",
                    "choose another with -o, or give --existing overwrite",
                )  # fmt: skip
            self._owner[name] = file.name
            return target
        raise UsageError(
            f"{names[-1]} is the output of {self._owner[names[-1]]} too", "inputs of different names", "rename one"
        )
