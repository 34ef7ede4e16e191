"""Stopping on request: the first signal asks, the second insists.

SLURM sends SIGTERM 30 seconds before SIGKILL (or SIGUSR1 when asked to warn earlier); the engine finishes the batch in
hand, drops what is incomplete, and leaves.
"""

import os
import signal
import threading
import time
from types import FrameType, TracebackType

from unetctl.errors import Interrupted, Stopped

#: Names of the signals that ask to stop; those that a platform lacks are left out.
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)


#: The same signal sooner than this after the first is its echo: torchrun, timeout and their like pass on what the whole
#: process group has had.
_ECHO_S = 1.0


class StopRequest:
    """A context that turns stop signals into a flag; restores the previous handlers at its end.

    Signals that were ignored when it began stay ignored: who writes `nohup` wants a closed terminal to change nothing.

    Outside the main thread (a library call in a thread) no handler is installed; `ask` still works.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._signal: int | None = None
        self._asked_s = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            for number in heeded:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() returned
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._asked.is_set():
            if number == self._signal and now_s < self._asked_s + _ECHO_S:
                return
            os._exit(130 if number == signal.SIGINT else 75)
        self._signal, self._asked_s = number, now_s
        self._asked.set()

    def ask(self) -> None:
        """Asks to stop without a signal."""
        self._asked.set()

    @property
    def is_asked(self) -> bool:
        """True once somebody asked to stop."""
        return self._asked.is_set()

    def __call__(self) -> bool:
        """The same, for loops that ask."""
        return self.is_asked

    def error(self, what: str) -> Stopped:
        """The exception to leave with; `what` says how far the work came."""
        kind = Interrupted if self._signal == signal.SIGINT else Stopped
        name = signal.Signals(self._signal).name if self._signal else "request"
        return kind(f"stopped by {name}: {what}", "", "run the same command again to go on")
