"""The log in the run folder: what happened and when, one JSON object a line; progress is left out."""

import json
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from unetctl.runtime.events import Event, Listener, StageProgress


def logged(path: Path, emit: Listener) -> Listener:
    """A listener that writes down what it hears and passes it on.

    A full disk does not stop the work for the sake of its log.

    Args:
        path: the file, appended to.
        emit: hears everything, also what is not written.
    """

    def listen(event: Event) -> None:
        if not isinstance(event, StageProgress):
            line = {"time": time.strftime("%FT%T%z"), "event": type(event).__name__, **asdict(event)}
            with suppress(OSError), path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        emit(event)

    return listen
