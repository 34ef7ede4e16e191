"""`unetctl import`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unetctl.cli import options as o
from unetctl.cli.session import session
from unetctl.cli.words import figure, plural

State = Annotated[
    Path,
    typer.Argument(metavar="STATE.pt", help="A PyTorch state dict; nothing pickled in it is run.", show_default=False),
]
To = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="NAME.safetensors, or an existing folder; absent: STATE.safetensors here.",
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        metavar="MAP.toml",
        help='Which tensor is which, where order and shapes do not say it: \\[names] and lines as "inc.0" = '
        '"contracting.0.units.0.conv"; ignore = \\["loss.*"].',
    ),
]
Skip = Annotated[
    Literal["first", "last"],
    typer.Option(help="Where the foreign network puts the skip when it joins it with what was upsampled."),
]
Licence = Annotated[str, typer.Option(metavar="TEXT", help="Terms of the foreign weights, kept in the file.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another file of that name.")]


def import_state(
    state: State,
    task: o.Task,
    output: To = None,
    names: Names = None,
    skip: Skip = "first",
    set_: o.Set = None,
    licence: Licence = "",
    overwrite: Overwrite = False,
    json: o.Json = False,
    log_format: o.LogFormat = "text",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Bring a U-Net that was trained elsewhere in PyTorch into a weights file.

    The recipe says what the network is and how its input is normalised; every tensor must find its place, and all that
    do not fit are told at once. --verbose lists which became which.
    """
    with session(o.talk_of(json, log_format, quiet, verbose), is_long=False) as current:
        from unetctl.jobs.import_weights import import_weights

        console = current.console
        report = import_weights(
            state,
            task,
            output,
            overrides=set_ or (),
            names=names,
            skip=skip,
            licence=licence,
            overwrite=overwrite,
            emit=console.emit,
        )
        console.say(
            f"{report.output}: {plural(report.num_tensors, 'tensor')}, {figure(report.num_weights / 1e6)} million weights, "
            f"for the task {report.task}",
            "result",
        )
        if json:
            console.json(report.to_dict())
        else:
            console.data(report.output)
