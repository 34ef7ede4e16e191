"""`unetctl export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unetctl.cli import options as o
from unetctl.cli.session import session
from unetctl.cli.words import figure

Task = Annotated[
    str,
    typer.Argument(
        metavar="TASK|WEIGHTS", help="A shipped task, a weights file, or a training run's folder.", show_default=False
    ),
]
To = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="NAME.onnx (or NAME.zip of a package), or an existing folder; absent: TASK.onnx or TASK.zip here.",
    ),
]
Format = Annotated[
    Literal["onnx", "bioimageio"],
    typer.Option(
        "--format", help="The network alone, or a model package of bioimage.io with test, card and description."
    ),
]
Author = Annotated[
    list[str] | None,
    typer.Option(
        "--author", metavar="NAME", help="Who made the weights, for the package; repeatable.", show_default=False
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another file of that name.")]


def export(
    task: Task,
    output: To = None,
    format: Format = "onnx",
    author: Author = None,
    weights: o.Weights = None,
    set_: o.Set = None,
    overwrite: Overwrite = False,
    json: o.Json = False,
    log_format: o.LogFormat = "text",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    r"""Write a network for other programs: as ONNX, or as a bioimage.io model package.

    What is written is compared with torch's answers on two sizes first, and refused if they differ by more than 1e-4. Needs
    the extra: pip install 'unetctl\[export]'
    """
    with session(o.talk_of(json, log_format, quiet, verbose), is_long=False) as current:
        from unetctl.jobs.export import export as run

        console = current.console
        report = run(
            task,
            output,
            format=format,
            overrides=set_ or (),
            weights=weights,
            authors=author or (),
            overwrite=overwrite,
            emit=console.emit,
        )
        shapes = " and ".join("x".join(map(str, shape)) for shape in report.compared)
        console.say(
            f"{report.output}: {figure(report.num_bytes / 1e6)} MB, opset {report.opset}, sizes {report.sizes}; "
            f"differs from torch by at most {report.largest_difference:.1e} ({shapes})",
            "result",
        )
        if report.validation:
            console.say(f"validated by {report.validation}", "result")
        for remark in report.remarks:
            console.say(remark, "info")
        if json:
            console.json(report.to_dict())
        else:
            console.data(report.output)
