"""The files that a benchmark of accuracy leaves: a table for programs, the report as JSON."""

import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from unetctl.errors import ResourceError, UsageError
from unetctl.jobs.benchmark_report import BenchmarkReport


def write_tables(output: Path, report: BenchmarkReport, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes ``accuracy.csv`` and ``accuracy.json`` into a folder, which is made if missing.

    Args:
        output: the folder.
        report: as JSON.
        rows: one a line; the columns are those of all rows, in the order in which they first come up.

    Raises:
        OSError: if the disk refuses.
    """
    output.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (output / "accuracy.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    (output / "accuracy.json").write_text(report.to_json() + "\n", encoding="utf-8")


def refuse_unwritable(output: Path) -> None:
    """Looks at the output folder before hours are spent on what is to go into it; makes it if it is missing.

    Raises:
        UsageError: if it is a file.
        ResourceError: if nothing can be written into it.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output} is a file", "a folder for tables and pictures", "choose another with -o")
    with writing_into(output):
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass


@contextmanager
def writing_into(output: Path | None) -> Iterator[None]:
    """Turns failures to write into the output folder into a sentence.

    Raises:
        ResourceError: naming the folder and the reason.
    """
    try:
        yield
    except OSError as error:
        if output is None:
            raise
        raise ResourceError(
            f"{output} could not be written ({error.strerror or error})", "a folder for tables and pictures"
        ) from error
