"""`unetctl sample`."""

from pathlib import Path
from typing import Annotated

import typer

from unetctl.cli import options as o
from unetctl.cli.session import session
from unetctl.cli.words import parse_shape

Task = Annotated[
    str,
    typer.Argument(
        metavar="TASK", help="The task to try: em, dibco, salt, logo, nuclei, cells, restore.", show_default=False
    ),
]
To = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="NAME.tif (em, cells), NAME.png (dibco, logo, nuclei, restore), an existing folder for these, or the name of a folder "
        "(others); absent: TASK-sample here.",
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(
        metavar="[N,]Y,X",
        show_default=False,
        help="Slices or pictures, rows and columns; of a page rows and columns; absent: a small one.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Another seed is another piece of tissue, another page.")]
Labels = Annotated[
    bool,
    typer.Option(
        "--labels",
        help="Write the truth beside it too (NAME-labels.tif or .png: 0 on membranes, on ink, between objects).",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another file of that name.")]


def sample(
    task: Task,
    output: To = None,
    shape: Shape = None,
    seed: Seed = 0,
    labels: Labels = False,
    overwrite: Overwrite = False,
    json: o.Json = False,
) -> None:
    """Make a small input to try a task on.

    It is drawn on the spot, and the same every time.
    """
    with session(o.talk_of(json, "text", False, False), is_long=False) as current:
        size = parse_shape(shape) if shape is not None else None
        from unetctl.jobs.sample import SAMPLES, labels_path, make_sample

        path = make_sample(task, output, size, seed, labels=labels, overwrite=overwrite)
        paths = [path, labels_path(path)] if labels and SAMPLES[task].suffixes else [path]
        if json:
            current.console.json(
                {
                    "task": task,
                    "output": str(path),
                    "labels": str(paths[1]) if len(paths) > 1 else None,
                    "shape": list(size or SAMPLES[task].shape),
                    "seed": seed,
                }
            )
            return
        for made in paths:
            current.console.data(str(made))
