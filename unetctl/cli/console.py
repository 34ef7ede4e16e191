"""Everything that is printed: results on stdout, talk on stderr, as text or as JSON lines."""

import errno
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from unetctl.cli.environment import environment, is_terminal, streams, wants_colour
from unetctl.cli.progress import Bars, JsonLines, PlainLines, Progress, Silent
from unetctl.cli.words import shown
from unetctl.errors import ResourceError
from unetctl.runtime.events import Event, Note

#: How each kind of talk looks on a terminal.
_STYLES = {"error": "red", "warning": "yellow", "stopped": "yellow", "detail": "dim", "result": "bold"}
_NEVER_SILENCED = ("warning", "error", "stopped")


@dataclass(frozen=True)
class Talk:
    """How the user wants to be talked to.

    Attributes:
        as_json: results on stdout as JSON.
        log_format: "text" or "json", for stderr.
        is_quiet: warnings and errors only.
        is_verbose: details too.
    """

    as_json: bool = False
    log_format: str = "text"
    is_quiet: bool = False
    is_verbose: bool = False


class Console:
    """Stdout and stderr of one command; a listener for the engine's events. Safe to use from several threads.

    Args:
        talk: see `Talk`.
        is_stopping: True once the user asked to stop.
    """

    def __init__(self, talk: Talk, is_stopping: Callable[[], bool] = lambda: False) -> None:
        self.talk = talk
        self._out, self._err = streams()
        self._lock = threading.RLock()
        self._said: set[str] = set()
        self._rich: Any = None
        env = environment()
        on_terminal = talk.log_format == "text" and is_terminal(env, self._err)
        if on_terminal:
            from rich.console import Console as RichConsole

            # Legible without colours; the width follows the terminal.
            self._rich = RichConsole(
                file=self._err,
                force_terminal=True,
                no_color=not wants_colour(env, self._err),
                markup=False,
                highlight=False,
                emoji=False,
            )
        self._progress = self._chosen_progress(is_stopping)

    def _chosen_progress(self, is_stopping: Callable[[], bool]) -> Progress:
        if self.talk.is_quiet:
            return Silent()
        if self.talk.log_format == "json":
            return JsonLines(self._log)
        if self._rich is not None:
            return Bars(self._rich, self.say, is_stopping)
        return PlainLines(self._line)

    def emit(self, event: Event) -> None:
        """The listener for the engine."""
        with self._lock:
            if isinstance(event, Note):
                self.say(event.text, event.kind)
            else:
                self._progress(event)

    def say(self, text: str, kind: str = "info", **values: Any) -> None:
        """Talks to the user.

        Args:
            text: a sentence, or lines.
            kind: "info", "detail" (with --verbose), "result", and what --quiet lets pass: "warning" (never said twice),
                "error" and "stopped".
            values: plain values for the JSON form.
        """
        if (self.talk.is_quiet and kind not in _NEVER_SILENCED) or (kind == "detail" and not self.talk.is_verbose):
            return
        with self._lock:
            if kind == "warning":
                if text in self._said:
                    return
                self._said.add(text)
            if self.talk.log_format == "json":
                self._log({"event": "error" if kind == "error" else "note", "kind": kind, "text": text, **values})
            else:
                prefix = f"{kind}: " if kind in ("error", "warning") else ""
                self._line(prefix + text, _STYLES.get(kind))

    def data(self, line: str) -> None:
        """A line of results on stdout.

        Raises:
            ResourceError: if it cannot be written; a reader that has gone away is no error.
        """
        with self._lock:
            try:
                self._out.write(line + "\n")
                self._out.flush()
            except UnicodeEncodeError:  # a file name that the locale cannot write: its own bytes
                self._out.buffer.write(os.fsencode(line) + b"\n")
                self._out.flush()
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise ResourceError(f"standard output could not be written ({error.strerror})") from error
                self._out = _nowhere()

    def json(self, values: Mapping[str, Any]) -> None:
        """One JSON object on one line of stdout."""
        self.data(json.dumps(values, default=str))

    def event(self, name: str, values: Mapping[str, Any]) -> None:
        """An object on stderr, with --log-format json only."""
        if self.talk.log_format == "json":
            self._log({"event": name, **values})

    def close(self) -> None:
        """Removes bars, gives the cursor back."""
        with self._lock:
            self._progress.close()

    def _log(self, values: dict[str, Any]) -> None:
        stamped = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **values}
        self._write(json.dumps(stamped, default=str))

    def _line(self, text: str, style: str | None = None) -> None:
        if self._rich is None:
            self._write(shown(text))
            return
        try:
            self._rich.print(shown(text), style=style, soft_wrap=True)
        except OSError:  # the terminal has gone: the work goes on
            self._deaf()

    def _write(self, text: str) -> None:
        with self._lock:
            try:
                self._err.write(text + "\n")
                self._err.flush()
            except (OSError, ValueError):
                self._deaf()

    def _deaf(self) -> None:
        """Nobody listens any more; a job of the night goes on all the same."""
        self._err, self._rich, self._progress = _nowhere(), None, Silent()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
