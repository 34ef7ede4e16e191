"""Options that several commands share, each defined once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unetctl.cli.console import Talk

_INPUT = "What goes in"
_OUTPUT = "What comes out"
_COMPUTE = "How it is computed (worked out when absent)"
_MANY = "Many inputs, many machines"
_TALK = "Talk"

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Image files, OME-Zarr folders, folders of slices or of pages; - reads a list of paths from stdin.",
        show_default=False,
    ),
]
Task = Annotated[
    str,
    typer.Option(
        metavar="TASK",
        help="A shipped task (see `unetctl tasks`), a recipe file, a weights file, or a training run's folder.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Weights, or a training run's folder, instead of the task's own.", rich_help_panel=_INPUT
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Change a setting of the recipe, as output.threshold=0.4; repeatable.",
        rich_help_panel=_INPUT,
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="LETTERS",
        help="The axes as they lie in the file, as tzyx, where the file says something wrong.",
        rich_help_panel=_INPUT,
    ),
]
Channel = Annotated[
    str | None,
    typer.Option(metavar="I[,J...]", help="Channels for the network, from 0, in its order.", rich_help_panel=_INPUT),
]
Series = Annotated[
    int | None, typer.Option(min=0, metavar="I", help="Only this picture of the file, from 0.", rich_help_panel=_INPUT)
]
TimePoint = Annotated[
    int | None, typer.Option("--time", min=0, metavar="I", help="Only this time point, from 0.", rich_help_panel=_INPUT)
]
Scale = Annotated[
    float | None,
    typer.Option(
        min=0.02,
        max=16,
        metavar="FACTOR",
        help="Let the network see the input so much larger, as 2, or smaller, as 0.5; pages come out at their own size.",
        rich_help_panel=_INPUT,
    ),
]
Nonfinite = Annotated[
    Literal["median", "refuse"],
    typer.Option(
        help="Pixels that are not finite: replaced by the volume's median and counted, or refused.",
        rich_help_panel=_INPUT,
    ),
]
Stats = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN", help="Take the grey-value statistics of another output of predict.", rich_help_panel=_INPUT
    ),
]

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        rich_help_panel=_OUTPUT,
        help="NAME.ome.tif, NAME.ome.zarr, or an existing folder; absent: INPUT-TASK in the working directory, "
        "in the input's kind.",
    ),
]
Keep = Annotated[
    Literal["probability", "mask", "classes", "labels", "logits", "image", "overlay"] | None,
    typer.Option(
        help="What is written; absent: as the recipe says. Overlay: pages, tinted where the mask is.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Probability from which a pixel belongs to a mask.", rich_help_panel=_OUTPUT),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.", rich_help_panel=_OUTPUT)]
Existing = Annotated[
    Literal["abort", "overwrite", "skip"],
    typer.Option(help="What to do with an output that exists and is not this job's.", rich_help_panel=_OUTPUT),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify", help="Compare checksums of what was done before, not only sizes.", rich_help_panel=_OUTPUT
    ),
]
VerifySeams = Annotated[
    bool,
    typer.Option(
        "--verify-seams",
        help="Recompute some blocks under other tilings and say the largest difference.",
        rich_help_panel=_OUTPUT,
    ),
]
Recursive = Annotated[
    bool,
    typer.Option("--recursive", "-r", help="Look for pages in folders inside folders too.", rich_help_panel=_INPUT),
]
AsPages = Annotated[
    bool | None,
    typer.Option(
        "--pages/--stack",
        help="A folder is single pages, or slices of one stack; absent: as the recipe says.",
        rich_help_panel=_INPUT,
        show_default=False,
    ),
]
ListFile = Annotated[
    Path | None,
    typer.Option(
        "--list", metavar="FILE", help="Read further inputs from this file, one path a line.", rich_help_panel=_INPUT
    ),
]
PdfDpi = Annotated[
    float,
    typer.Option(
        min=36, max=2400, metavar="DPI", help="Resolution of PDF pages that are no scans.", rich_help_panel=_INPUT
    ),
]
Format = Annotated[
    Literal["tiff", "png", "pdf", "gif"] | None,
    typer.Option(
        "--format",
        help="Kind of files that pages become; absent: like the inputs.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Checksums = Annotated[
    bool,
    typer.Option("--checksums", help="Of pages: write OUT.sha256, for sha256sum --check.", rich_help_panel=_OUTPUT),
]
KeepStore = Annotated[
    bool,
    typer.Option("--keep-store", help="Keep the OME-Zarr store that a TIFF is exported from.", rich_help_panel=_OUTPUT),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and its cost; write nothing.", rich_help_panel=_OUTPUT)
]

Device = Annotated[
    str, typer.Option(metavar="auto|cpu|cuda[:I]", help="Where the network runs.", rich_help_panel=_COMPUTE)
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="Arithmetic; auto: bf16 where it is native, else fp32.", rich_help_panel=_COMPUTE),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        rich_help_panel=_COMPUTE,
        help="Most memory to plan with, as 4GiB; never more than the control group, SLURM and what is free allow.",
    ),
]
Core = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="PX", help="Side of what one pass of the network keeps, pixels.", rich_help_panel=_COMPUTE
    ),
]
Block = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="PX", help="Side of the unit that is written and resumed, pixels.", rich_help_panel=_COMPUTE
    ),
]
Batch = Annotated[int | None, typer.Option(min=1, metavar="N", help="Tiles at once.", rich_help_panel=_COMPUTE)]

Part = Annotated[
    str | None,
    typer.Option(
        metavar="I/N|auto",
        rich_help_panel=_MANY,
        help="Compute only part I of N, from 1/N to N/N; auto: as the job array's task (SLURM, Grid Engine, "
        "AWS Batch). Then `unetctl stitch`.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="local:N|ADDRESS",
        help="Compute on N dask workers here, or on a scheduler's (tcp://HOST:PORT).",
        rich_help_panel=_MANY,
    ),
]
OnError = Annotated[
    Literal["skip", "abort"],
    typer.Option(help="When one of several inputs fails: go on with the next, or end.", rich_help_panel=_MANY),
]
MaxFailed = Annotated[
    str | None, typer.Option(metavar="N|P%", help="End once more inputs than this have failed.", rich_help_panel=_MANY)
]

Json = Annotated[
    bool, typer.Option("--json", help="Results on stdout as JSON, one object a line.", rich_help_panel=_TALK)
]
LogFormat = Annotated[
    Literal["text", "json"],
    typer.Option(help="Talk on stderr as text or as JSON, one object a line.", rich_help_panel=_TALK),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.", rich_help_panel=_TALK)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Details too.", rich_help_panel=_TALK)]


def talk_of(as_json: bool, log_format: str, quiet: bool, verbose: bool) -> Talk:
    """The four options about talk as one value."""
    return Talk(as_json, log_format, quiet, verbose)
