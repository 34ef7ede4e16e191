"""One self-contained HTML file from a template of this package."""

import os
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined


def write_page(path: Path, template: str, **values: object) -> None:
    """Renders `template` (a name inside `templates/`) and puts it at `path`, whole or not at all.

    Every value is escaped; the page refers to nothing outside itself and holds no script, and says so to the browser
    (Content-Security-Policy), so a name out of somebody's data can do no harm.

    Raises:
        OSError: if the folder is missing or full; what stood at `path` before stays.
    """
    text = _environment().get_template(template).render(values)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("unetctl.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
