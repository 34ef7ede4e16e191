"""Three listeners for the same events: bars on a terminal, plain lines in a log, JSON lines for programs."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from unetctl.cli.words import duration, figure, plural
from unetctl.runtime.events import EpochEnded, Event, StageEnded, StageProgress, StageStarted

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

#: A line in a log after so many seconds, or after such a share of a stage, but never within a second of the last.
LINE_EVERY_S, LINE_SHARE, LINE_LEAST_S = 30.0, 0.05, 1.0


@dataclass
class Stage:
    """A stage of the work as it stands.

    Attributes:
        name, total, unit: see `StageStarted`; total 0 is unknown.
        done: units finished, those of earlier runs included.
        first_done: units that were finished before.
        began, moved: clock readings, seconds: of the start, and of the last unit.
        figures: the latest.
    """

    name: str
    total: int
    unit: str
    first_done: int
    began: float
    done: int = 0
    moved: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)

    def rate(self) -> float:
        """Units a second of this execution; 0 until one is finished."""
        elapsed = self.moved - self.began
        return (self.done - self.first_done) / elapsed if elapsed > 0 else 0.0

    def left_s(self, now: float) -> float | None:
        """Seconds that the rest will take at this rate; None while unknown."""
        rate = self.rate()
        if not rate or not self.total:
            return None
        return max(0.0, (self.total - self.done) / rate - (now - self.moved))

    def counted(self) -> str:
        """How far: "12/64 blocks", or "12 blocks" where the total is unknown."""
        return f"{self.done}/{plural(self.total, self.unit)}" if self.total else plural(self.done, self.unit)

    def speed(self) -> str:
        """What the engine watches ("1.2 Mpx/s"), or else the rate in units."""
        if self.figures:
            return ", ".join(told(name, value) for name, value in self.figures.items())
        rate = self.rate()
        return f"{figure(rate)} {self.unit}s/s" if rate > 0 else ""


def told(name: str, value: float) -> str:
    """A figure with its unit or name: "1.2 Mpx/s", "loss 0.31"."""
    return f"{figure(value)} {name}" if "/s" in name else f"{name} {figure(value)}"


def epoch_line(event: EpochEnded) -> str:
    """An epoch in one line, or what it all starts from."""
    figures = [] if event.loss is None else [f"loss {event.loss:.4f}"]
    figures += [f"{name} {value:.4f}" for name, value in event.metrics.items()]
    what = f"epoch {event.epoch}/{event.num_epochs}" if event.epoch else "before the first step"
    return f"{what}: {', '.join(figures)}{' (best so far)' if event.is_best else ''}"


class Progress(Protocol):
    """A listener for stages and epochs."""

    def __call__(self, event: Event) -> None:
        """Takes note of an event."""
        ...

    def close(self) -> None:
        """Leaves the terminal tidy; may be called twice."""
        ...


class Silent:
    """Shows nothing (--quiet)."""

    def __call__(self, event: Event) -> None:
        """Ignores it."""

    def close(self) -> None:
        """Does nothing."""


class _Tracking:
    """Keeps the stages up to date and calls `started`, `moved` and `ended`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.stages: dict[str, Stage] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            stage = Stage(event.stage, event.total, event.unit, event.done, self.clock(), event.done)
            self.stages[event.stage] = stage
            self.started(stage)
        elif isinstance(event, StageProgress) and event.stage in self.stages:
            stage = self.stages[event.stage]
            stage.done, stage.moved = event.done, self.clock()
            stage.figures.update(event.figures)
            self.moved(stage)
        elif isinstance(event, StageEnded) and event.stage in self.stages:
            stage = self.stages.pop(event.stage)
            self.ended(stage, event)
        elif isinstance(event, EpochEnded):
            self.epoch(event)

    def started(self, stage: Stage) -> None:
        """A stage begins."""

    def moved(self, stage: Stage) -> None:
        """Units were finished."""

    def ended(self, stage: Stage, event: StageEnded) -> None:
        """A stage is over."""

    def epoch(self, event: EpochEnded) -> None:
        """An epoch of training is over."""

    def close(self) -> None:
        """Nothing to tidy up."""


class _Sparing(_Tracking):
    """Speaks of a stage only every so often."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._spoken: dict[str, tuple[float, int]] = {}
        self._has_spoken: set[str] = set()

    def started(self, stage: Stage) -> None:
        """The clock for the first line runs."""
        self._spoken[stage.name] = (stage.began, stage.done)
        self._has_spoken.discard(stage.name)

    def moved(self, stage: Stage) -> None:
        """Speaks if it is time."""
        now = self.clock()
        then, done = self._spoken[stage.name]
        passed = now - then
        share = (stage.done - done) / stage.total if stage.total else 0.0
        if passed >= LINE_EVERY_S or (passed >= LINE_LEAST_S and share >= LINE_SHARE):
            self._spoken[stage.name] = (now, stage.done)
            self._has_spoken.add(stage.name)
            self.speak(stage, now)

    def was_mentioned(self, stage: Stage) -> bool:
        """True if a line spoke of the stage."""
        return stage.name in self._has_spoken

    def speak(self, stage: Stage, now: float) -> None:
        """Writes a line about a stage."""


class PlainLines(_Sparing):
    """Whole lines without control codes: one every 30 seconds or 5 percent, none for stages of less than a second.

    Args:
        write: takes a line.
        clock: seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._write = write

    def speak(self, stage: Stage, now: float) -> None:
        """How far, how fast, how long still."""
        words = [f"{stage.name}: {stage.counted()}"]
        if stage.total:
            words.append(f"{100 * stage.done // stage.total} %")
        speed, left = stage.speed(), stage.left_s(now)
        words += [speed] if speed else []
        words += [f"{duration(left)} left"] if left is not None and stage.done < stage.total else []
        self._write(", ".join(words))

    def ended(self, stage: Stage, event: StageEnded) -> None:
        """A last line, if there was one before."""
        if self.was_mentioned(stage):
            state = "done" if event.is_complete else f"stopped at {stage.counted()}"
            self._write(f"{stage.name}: {state} in {duration(event.elapsed_s)}")

    def epoch(self, event: EpochEnded) -> None:
        """Every epoch is worth a line."""
        self._write(epoch_line(event))


class JsonLines(_Sparing):
    """One object an event: stages as they begin and end, and in between as often as plain lines.

    Args:
        write: takes a mapping of plain values.
        clock: seconds.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._write = write

    def started(self, stage: Stage) -> None:
        """Says what is to be done."""
        super().started(stage)
        self._write(
            {
                "event": "stage-started",
                "stage": stage.name,
                "done": stage.done,
                "total": stage.total,
                "unit": stage.unit,
            }
        )

    def speak(self, stage: Stage, now: float) -> None:
        """Says how far."""
        left = stage.left_s(now)
        self._write(
            {
                "event": "progress",
                "stage": stage.name,
                "done": stage.done,
                "total": stage.total,
                "unit": stage.unit,
                "per_s": round(stage.rate(), 6),
                "left_s": None if left is None else round(left, 1),
                "figures": dict(stage.figures),
            }
        )

    def ended(self, stage: Stage, event: StageEnded) -> None:
        """Says that it is over."""
        self._write(
            {
                "event": "stage-ended",
                "stage": stage.name,
                "done": stage.done,
                "total": stage.total,
                "unit": stage.unit,
                "elapsed_s": round(event.elapsed_s, 3),
                "is_complete": event.is_complete,
            }
        )

    def epoch(self, event: EpochEnded) -> None:
        """Every epoch."""
        self._write(
            {
                "event": "epoch",
                "epoch": event.epoch,
                "num_epochs": event.num_epochs,
                "loss": event.loss,
                "metrics": dict(event.metrics),
                "is_best": event.is_best,
            }
        )


class Bars(_Tracking):
    """A bar a stage at the foot of a terminal, gone when the stage is over.

    Args:
        console: of rich, on stderr.
        write: takes a line that stays.
        is_stopping: True once the user asked to stop; the bars say so.
    """

    def __init__(
        self,
        console: "RichConsole",
        write: Callable[[str], None],
        is_stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock)
        from rich.live import Live

        self._write, self._is_stopping = write, is_stopping
        # Only stderr may be taken over: rich would send redirected stdout, which is data, to stderr.
        self._live = Live(
            console=console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=True,
            get_renderable=self._table,
        )

    def started(self, stage: Stage) -> None:
        """A bar appears."""
        self._live.start(refresh=True)

    def ended(self, stage: Stage, event: StageEnded) -> None:
        """Its bar disappears; a long stage leaves a line."""
        if not self.stages:
            self._live.stop()
        if event.elapsed_s >= LINE_EVERY_S:
            speed = stage.speed()
            state = "" if event.is_complete else "stopped, "
            self._write(
                f"{stage.name}: {state}{stage.counted()} in {duration(event.elapsed_s)}{f', {speed}' if speed else ''}"
            )

    def epoch(self, event: EpochEnded) -> None:
        """A line above the bars."""
        self._write(epoch_line(event))

    def close(self) -> None:
        """Removes what is left of the bars and gives the cursor back."""
        self.stages.clear()
        self._live.stop()

    def _table(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid, now = Table.grid(padding=(0, 1)), self.clock()
        for _ in range(3):
            grid.add_column(no_wrap=True)
        for stage in list(self.stages.values()):
            left = stage.left_s(now)
            bar = ProgressBar(
                total=stage.total or None, completed=stage.done, width=30, pulse=not stage.total, animation_time=now
            )
            words = [stage.counted(), stage.speed()]
            words.append(
                "stopping"
                if self._is_stopping()
                else f"{duration(left)} left"
                if left is not None
                else duration(now - stage.began)
            )
            grid.add_row(f"{stage.name:>10}", bar, "  ".join(w for w in words if w))
        return grid
