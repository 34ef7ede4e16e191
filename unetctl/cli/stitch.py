"""`unetctl stitch`."""

from pathlib import Path
from typing import Annotated

import typer

from unetctl.cli import options as o
from unetctl.cli.session import session

Shared = Annotated[
    Path,
    typer.Argument(
        metavar="OUT", help="The output that the parts were computed for, or its .run folder.", show_default=False
    ),
]
To = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write a TIFF (NAME.ome.tif) from an OME-Zarr output as well."),
]
KeepStore = Annotated[bool, typer.Option("--keep-store", help="Keep the OME-Zarr store that a TIFF is exported from.")]
Verify = Annotated[bool, typer.Option("--verify", help="Compare checksums of all blocks, not only sizes.")]


def stitch(
    out: Shared,
    output: To = None,
    verify: Verify = False,
    keep_store: KeepStore = False,
    json: o.Json = False,
    log_format: o.LogFormat = "text",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Join what the parts of a prediction computed.

    Checks that all parts are there, then finishes the output. What is missing is named with the command that computes
    it.
    """
    with session(o.talk_of(json, log_format, quiet, verbose)) as current:
        from unetctl.jobs.stitch import stitch_output

        report = stitch_output(
            out,
            to=output,
            verify=verify,
            keep_store=keep_store,
            emit=current.console.emit,
            should_stop=current.should_stop,
        )
        current.report(report)
        if report.status == "stopped":
            raise current.stopped(f"{report.output} is not finished")
        current.conclude([report], 1)
