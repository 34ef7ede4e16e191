"""Commands as processes of their own, forked from one that has everything imported, and accidents at a chosen step.

A step is what a process does to files: opens one for writing, renames, removes, makes a folder. The accident happens
right before it, so that every half-made state of a folder can be had, and had again.
"""

import errno
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

PROJECT = Path(__file__).parent.parent
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_STEPS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")
#: What `ForkServerContext` imports once; without it every command takes seconds to start.
_PRELOADED = [
    "unetctl.cli.app",
    "unetctl.jobs.corpus",
    "unetctl.jobs.stitch",
    "unetctl.sources.npy",
    "unetctl.sources.tiff",
    "unetctl.sources.zarr",
    "unetctl.sinks.tiff",
    "tests.processes",
]

#: Bytes of a file, or of the files of a folder by name.
Content = bytes | dict[str, bytes]


@dataclass(frozen=True)
class Accident:
    """What happens to a process at a step.

    Attributes:
        what: "kill" (SIGKILL), "term" (SIGTERM), "hold" (stays there until killed; makes a file "held"), or "full" (from
            then on nothing new can be written: no space left).
        where: part of a path that the step touches.
        step: "open", "os.rename" ... or "" for any.
        count: which of these steps, from 1.
    """

    what: Literal["kill", "term", "hold", "full"]
    where: str = ""
    step: str = ""
    count: int = 1


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str


class Command:
    """A running ``unetctl ARGS``.

    Args:
        folder: working directory; steps count inside it only.
        args: after the program's name.
        accident: what shall happen to it.
    """

    def __init__(self, folder: Path, *args: object, accident: Accident | None = None) -> None:
        words = [str(arg) for arg in args]
        self._folder = folder
        self._log = folder.with_name(f"{folder.name}.log-{time.monotonic_ns()}")
        self._process: BaseProcess = _context().Process(target=_work, args=(folder, words, self._log, accident))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait(self, timeout_s: float = 120) -> Result:
        """Until it has ended; its code is negative if a signal killed it."""
        return _ended(self._process, self._log, timeout_s)

    def kill(self) -> None:
        """Now."""
        self._process.kill()

    def wait_until_held(self, timeout_s: float = 60) -> None:
        """Until the accident "hold" has happened."""
        until = time.monotonic() + timeout_s
        while not Path(f"{self._log}.held").exists():
            assert self._process.is_alive(), "it ended and was never held"
            assert time.monotonic() < until, "it was never held"
            time.sleep(0.01)


class Member:
    """One of several processes that train together, in the environment that torchrun gives it.

    Args:
        folder: of the training; the log lies in it.
        given: see `tests.team_driver`.
        environment: RANK and its like.
    """

    def __init__(self, folder: Path, given: dict[str, Any], environment: dict[str, str]) -> None:
        self._log = folder / f"log-{time.monotonic_ns()}"
        self._process: BaseProcess = _context().Process(target=_train, args=(folder, given, environment, self._log))
        self._process.start()

    def wait(self, timeout_s: float = 150) -> Result:
        """Until it has ended; its code is negative if a signal killed it."""
        return _ended(self._process, self._log, timeout_s)


def content(path: Path) -> Content:
    """Of a file, or of all files of a folder."""
    if path.is_file():
        return path.read_bytes()
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def litter(folder: Path) -> list[str]:
    """What killed processes have left."""
    found = [p for p in folder.rglob("*") if p.name.startswith(".") or "partial" in p.name or ".lock-" in p.name]
    stores = [p for p in folder.glob("*.tif.run/*") if p.is_dir()]
    return [str(p.relative_to(folder)) for p in found + stores]


def run(folder: Path, *args: object, accident: Accident | None = None) -> Result:
    """Runs a command to its end."""
    return Command(folder, *args, accident=accident).wait()


def _ended(process: BaseProcess, log: Path, timeout_s: float) -> Result:
    process.join(timeout_s)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    process.close()
    logs = [Path(f"{log}.{name}") for name in ("out", "err")]
    out, err = (one.read_text() if one.exists() else "" for one in logs)
    assert code is not None, f"not ended after {timeout_s} s: {err}"
    return Result(code, out, err)


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    path = [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in path if p)  # read when the server starts
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _work(folder: Path, words: list[str], log: Path, accident: Accident | None) -> None:
    os.chdir(folder)
    _write_to(log)
    if hasattr(os, "sched_setaffinity"):  # tiny networks: more threads would only wait for each other
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    multiprocessing.set_start_method("fork", force=True)  # locks without a tracker that tells of every killed process
    from unetctl.cli.app import main

    sys.argv = ["unetctl", *words]
    if accident is not None:
        sys.addaudithook(_Steps(str(folder), f"{log}.held", accident))
    main()


def _write_to(log: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{name}", os.O_WRONLY | os.O_CREAT), number)


def _train(folder: Path, given: dict[str, Any], environment: dict[str, str], log: Path) -> None:
    _write_to(log)
    os.environ.update(environment)
    from tests.team_driver import train

    sys.exit(train(folder, given))


class _Steps:
    """An audit hook that counts steps and lets the accident happen."""

    def __init__(self, folder: str, mark: str, accident: Accident) -> None:
        self._folder, self._mark, self._accident = folder, mark, accident
        self._left, self._is_full = accident.count, False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "open" and event not in _STEPS:
            return
        is_open = event == "open"
        if is_open and not (isinstance(args[2], int) and args[2] & _WRITES):
            return
        paths = [
            os.path.abspath(os.fsdecode(a))
            for a in args[: 1 if is_open else 2]
            if isinstance(a, str | bytes | os.PathLike)
        ]
        if not any(path.startswith(self._folder) for path in paths):
            return
        if self._is_full:
            self._refuse(event, args)
        if (self._accident.step or event) == event and any(self._accident.where in path for path in paths):
            self._left -= 1
            if self._left == 0:
                self._happen(event, args)

    def _happen(self, event: str, args: tuple[Any, ...]) -> None:
        what = self._accident.what
        if what == "full":
            self._is_full = True
            self._refuse(event, args)
        elif what == "hold":
            os.close(os.open(self._mark, os.O_WRONLY | os.O_CREAT))
            time.sleep(600)
        else:
            os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGTERM)

    def _refuse(self, event: str, args: tuple[Any, ...]) -> None:
        makes = event in ("os.mkdir", "os.link") or (event == "open" and args[2] & os.O_CREAT)
        if makes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), args[0])
