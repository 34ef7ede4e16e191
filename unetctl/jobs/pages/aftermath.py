"""What is said of all pages once they are done: odd ones, checksums."""

from collections.abc import Iterable

from unetctl.jobs.pages.inputs import PageSet
from unetctl.jobs.pages.ledger import PageRecord
from unetctl.sources.files import RUN_SUFFIX

#: Shares of ink, between which a page of writing lies: a sparse label, a dense print.
_LEAST_INK, _MOST_INK = 0.0005, 0.35


def odd_pages(records: Iterable[PageRecord]) -> dict[str, list[str]]:
    """Pages whose share of ink is that of no written page: kind of oddity to names."""
    found: dict[str, list[str]] = {"hardly any ink (blank?)": [], "very much ink (a picture, black borders?)": []}
    blank, dark = found.values()
    for record in records:
        for i, share in enumerate(record.ink):
            name = record.name if record.num_pages == 1 else f"{record.name} page {i + 1}"
            if 0 <= share < _LEAST_INK:
                blank.append(name)
            elif share > _MOST_INK:
                dark.append(name)
    return {what: sorted(names) for what, names in found.items() if names}


def write_checksums(pages: PageSet, records: Iterable[PageRecord]) -> None:
    """The list of all outputs with their SHA-256 sums, beside their folder; ``sha256sum --check`` reads it in the folder of the outputs."""
    lines = sorted((r.output, r.sha256) for r in records if r.status == "done")
    path = pages.run.with_name(pages.run.name.removesuffix(RUN_SUFFIX) + ".sha256")
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(f"{sha256}  {output}\n" for output, sha256 in lines))
    partial.replace(path)
