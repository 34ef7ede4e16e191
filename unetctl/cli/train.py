"""`unetctl train`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unetctl.cli import options as o
from unetctl.cli.environment import environment, is_follower, launched
from unetctl.cli.session import session
from unetctl.cli.words import parse_duration
from unetctl.errors import UsageError

if TYPE_CHECKING:
    from unetctl.cli.console import Console
    from unetctl.jobs.train import PreviewReport

_DATA = "What it learns from"
_LEARN = "How it learns (as the recipe says when absent)"

Data = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER|PICTURE",
        help="Pictures with their labels; what was paired is printed. Or one picture of a shape that is to be found in others.",
        show_default=False,
        rich_help_panel=_DATA,
    ),
]
TrainTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        rich_help_panel=_DATA,
        help="A shipped task, a recipe file, or weights whose recipe is taken; absent: the shipped task that the "
        "folder's name holds, or that is made for such data.",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="RUN",
        help="Folder of the run; absent: FOLDER-TASK in the working directory.",
        rich_help_panel=_DATA,
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="WEIGHTS", help="Start from these weights (a task, a file or a run).", rich_help_panel=_DATA
    ),
]
Val = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ENTRY",
        help="Validate on these: a name, a glob, or planes as 22:24 or NAME[22:24]; repeatable.",
        rich_help_panel=_DATA,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="ENTRY", help="Leave these out, written as for --val; repeatable.", rich_help_panel=_DATA),
]
OnError = Annotated[
    Literal["abort", "skip"],
    typer.Option(
        help="When pairs cannot be read or have unequal sizes: list them and end, or train without them.",
        rich_help_panel=_DATA,
    ),
]
Epochs = Annotated[int | None, typer.Option(min=1, metavar="N", help="How many.", rich_help_panel=_LEARN)]
Lr = Annotated[float | None, typer.Option(min=0, metavar="RATE", help="Learning rate.", rich_help_panel=_LEARN)]
Crops = Annotated[int | None, typer.Option("--batch", min=1, metavar="N", help="Crops a step.", rich_help_panel=_LEARN)]
Crop = Annotated[
    int | None,
    typer.Option(min=1, metavar="PX", help="Side of the labelled part of a crop, pixels.", rich_help_panel=_LEARN),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Another seed is another course of chance.", rich_help_panel=_LEARN),
]
SaveEvery = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Checkpoint every N epochs, or, as 500steps, every 500 steps.", rich_help_panel=_LEARN
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="End after N validations without better weights.", rich_help_panel=_LEARN),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=64,
        metavar="N",
        help="Processes that make crops ahead; absent: by the machine.",
        rich_help_panel=_LEARN,
    ),
]
Preview = Annotated[
    bool,
    typer.Option(
        "--preview", help="Draw samples as the network would be fed them, and train nothing.", rich_help_panel=_DATA
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Stop cleanly after so long, as 7.5h or 30min; the same command goes on.",
        rich_help_panel=_LEARN,
    ),
]


def train(
    data: Data,
    task: TrainTask = None,
    output: RunFolder = None,
    from_: From = None,
    val: Val = None,
    exclude: Exclude = None,
    on_error: OnError = "abort",
    preview: Preview = False,
    set_: o.Set = None,
    epochs: Epochs = None,
    lr: Lr = None,
    batch: Crops = None,
    crop: Crop = None,
    seed: Seed = None,
    save_every: SaveEvery = None,
    patience: Patience = None,
    workers: Workers = None,
    max_time: MaxTime = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    fresh: o.Fresh = False,
    json: o.Json = False,
    log_format: o.LogFormat = "text",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Train a network on pictures with labels.

    The folder of the run is then a TASK for predict. The same command again goes on where it was stopped.
    """
    env = environment()
    with session(o.talk_of(json, log_format, quiet or is_follower(env), verbose)) as current:
        place = launched(env)
        every, every_steps = _save_every(save_every)
        max_time_s = parse_duration(max_time) if max_time is not None else None
        from unetctl.jobs.train import Place, TrainOptions
        from unetctl.jobs.train import preview as draw
        from unetctl.jobs.train import train as run

        options = TrainOptions(
            data=data,
            task=task,
            output=output,
            init_from=from_,
            val=tuple(val or ()),
            exclude=tuple(exclude or ()),
            on_error=on_error,
            overrides=tuple(set_ or ()),
            epochs=epochs,
            lr=lr,
            batch=batch,
            crop=crop,
            seed=seed,
            save_every=every,
            save_every_steps=every_steps,
            patience=patience,
            workers=workers,
            max_time_s=max_time_s,
            device=device,
            precision=precision,
            fresh=fresh,
            place=Place(**place),
        )
        console = current.console
        if preview:
            if not is_follower(env):
                _show(draw(options, console.emit, current.should_stop), console)
            return
        report = run(options, console.emit, current.should_stop)
        if is_follower(env):  # the first process tells
            current.exit_code = 75 if report.status == "stopped" else 0
            return
        console.event("report", report.to_dict())
        if console.talk.as_json:
            console.json(report.to_dict())
        for line in report.lines():
            console.say(line, "result")
        if report.status == "stopped" and current.should_stop():
            raise current.stopped(f"{report.epoch} of {report.num_epochs} epochs of {report.folder} are done")
        if report.status == "stopped":  # out of --max-time: stopped cleanly, and there is more to do
            current.exit_code = 75
        elif not console.talk.as_json:
            console.data(report.folder)


def _show(report: "PreviewReport", console: "Console") -> None:
    """The sheet's path is what was asked for: it goes to stdout."""
    console.event("report", report.to_dict())
    if console.talk.as_json:
        console.json(report.to_dict())
        return
    for line in report.lines():
        console.say(line, "result")
    console.data(report.sheet)


def _save_every(text: str | None) -> tuple[int | None, int | None]:
    """(epochs, steps) of "5" or "500steps"; None where nothing was said.

    Raises:
        UsageError: if it is neither.
    """
    if text is None:
        return None, None
    found = re.fullmatch(r"([1-9]\d*) ?(epochs?|steps?)?", text.strip())
    if found is None:
        raise UsageError(f"--save-every {text}", "a number of epochs, or of steps as 500steps")
    number = int(found[1])
    return (None, number) if (found[2] or "").startswith("step") else (number, None)
