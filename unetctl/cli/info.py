"""`unetctl info`."""

from typing import Annotated

import typer

from unetctl.cli import options as o
from unetctl.cli.session import session

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        show_default=False,
        help="Pictures, OME-Zarr or slice folders, outputs of predict, weights, recipes or folders of training runs.",
    ),
]


def info(
    files: Files, axes: o.Axes = None, series: o.Series = None, time: o.TimePoint = None, json: o.Json = False
) -> None:
    """Say what a file is.

    Of pictures: format, axes, size, channels, pixel size (no pixels are read). Of weights: what they were made for. Of
    outputs: how far they are.
    """
    with session(o.talk_of(json, "text", False, False), is_long=False) as current:
        from unetctl.errors import UnetctlError
        from unetctl.jobs.info import describe_file

        console = current.console
        for i, file in enumerate(files):
            try:
                description = describe_file(file, axes=axes, series=series, time=time)
            except UnetctlError as error:
                if len(files) == 1:
                    raise
                console.say(str(error), "error", exit_code=error.exit_code)
                current.exit_code = 3
                continue
            if json:
                console.json(description.to_dict())
                continue
            for line in [*([""] if i else []), *description.lines()]:
                console.data(line)
