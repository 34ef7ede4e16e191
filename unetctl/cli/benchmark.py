"""`unetctl benchmark`: how fast, how good."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unetctl.cli import options as o
from unetctl.cli.session import Session, session
from unetctl.cli.train import Crop, TrainTask, Workers
from unetctl.cli.train import Crops as TrainBatch

app = typer.Typer(no_args_is_help=True, help="Measure how fast predict or train is, or how good.")

Picture = Annotated[
    str | None,
    typer.Argument(
        metavar="INPUT",
        help="A picture to measure with, or a folder of pages, through all that predict does with it; absent: a picture "
        "made up in memory.",
    ),
]
Size = Annotated[int, typer.Option(min=64, metavar="PX", help="Side of the made-up picture, pixels.")]
Pairs = Annotated[
    int, typer.Option(min=1, metavar="N", help="Runs of predict, each paired with a run of the bare network.")
]
Cores = Annotated[
    list[int] | None,
    typer.Option(
        min=1, metavar="PX", help="As --core; repeatable: each size is measured by itself, and the fastest named."
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER|PICTURE",
        help="Pictures with their labels; of the task logo the picture of the shape.",
        show_default=False,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="train|val|test|all",
        help="Which of them, by the recipe's split. Absent: test; of documents all, if it names no test pages there.",
        show_default=False,
    ),
]
Result = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Folder for the table (CSV), the scores (JSON) and index.html, a page of pictures, worst first.",
    ),
]
Predicted = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Documents: score the 1-bit pages that predict has written there, under the names and folders of the "
        "pages, instead of predicting again.",
    ),
]

Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="Rounds, each with fed steps and cached ones.")]
Steps = Annotated[int, typer.Option(min=1, metavar="N", help="Steps of either kind in a round.")]


@app.command()
def speed(
    task: o.Task,
    picture: Picture = None,
    size: Size = 4096,
    pairs: Pairs = 5,
    core: o.Core = None,
    cores: Cores = None,
    batch: o.Batch = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    memory: o.Memory = None,
    recursive: o.Recursive = False,
    as_pages: o.AsPages = None,
    json: o.Json = False,
    log_format: o.LogFormat = "text",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """How fast predict is from first read to last write, beside the bare network on resident data.

    Of a folder of pages also pages per minute, and how the memory keeps. Outputs go to a temporary folder.
    """
    with session(o.talk_of(json, log_format, quiet, verbose)) as current:
        from unetctl.jobs import benchmark
        from unetctl.jobs.controls import parse_size
        from unetctl.jobs.pages.options import PageOptions

        report = benchmark.speed(
            task,
            picture,
            size=size,
            pairs=pairs,
            core=core,
            cores=cores or (),
            batch=batch,
            device=device,
            precision=precision,
            memory_bytes=parse_size(memory) if memory is not None else None,
            page_options=PageOptions(recursive=recursive, as_pages=as_pages),
            emit=current.console.emit,
            should_stop=current.should_stop,
        )
        _print(report, current)


@app.command()
def accuracy(
    task: o.Task,
    data: Data,
    output: Result = None,
    split: Split = None,
    predicted: Predicted = None,
    device: o.Device = "auto",
    json: o.Json = False,
    log_format: o.LogFormat = "text",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """How good the answers are, by the measures of the task's field, on labelled pictures.

    Documents: F-measure, pseudo-F, PSNR and DRD, beside Otsu, Sauvola and others (doxapy's too, where it is installed). What
    the ground truth means is read as in training.
    """
    with session(o.talk_of(json, log_format, quiet, verbose)) as current:
        from unetctl.jobs import benchmark

        report = benchmark.accuracy(
            task,
            data,
            output=output,
            split=split,
            predicted=predicted,
            device=device,
            emit=current.console.emit,
            should_stop=current.should_stop,
        )
        _print(report, current)


@app.command("train")
def training(
    data: Data,
    task: TrainTask = None,
    set_: o.Set = None,
    batch: TrainBatch = None,
    crop: Crop = None,
    workers: Workers = None,
    rounds: Rounds = 5,
    steps: Steps = 10,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    json: o.Json = False,
    log_format: o.LogFormat = "text",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """How fast train is, crops and all, beside the same steps on one batch that is ready.

    An efficiency below 0.9 says that making crops is the limit: try more --workers, or fewer variations.
    """
    with session(o.talk_of(json, log_format, quiet, verbose)) as current:
        from unetctl.jobs import benchmark
        from unetctl.jobs.train import TrainOptions

        options = TrainOptions(
            data=data, task=task, overrides=tuple(set_ or ()), batch=batch, crop=crop, workers=workers, device=device,
            precision=precision,
        )  # fmt: skip
        report = benchmark.train_speed(
            options, num_rounds=rounds, num_steps=steps, emit=current.console.emit, should_stop=current.should_stop
        )
        _print(report, current)


def _print(report: Any, current: Session) -> None:
    """Figures are what was asked for: they go to stdout."""
    if current.console.talk.as_json:
        current.console.json(report.to_dict())
        return
    for line in report.lines():
        current.console.data(line)
