"""Bars, lines and JSON lines, told by the same events."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from unetctl.cli.progress import Bars, JsonLines, PlainLines, Silent
from unetctl.runtime.events import EpochEnded, Event, StageEnded, StageProgress, StageStarted


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def play(
    listener: Callable[[Event], None], clock: Clock, steps: list[float], total: int | None = None, done: int = 0
) -> None:
    """A stage of one unit a step; a step takes so many seconds."""
    began = clock.now
    listener(StageStarted("predict", len(steps) + done if total is None else total, done, "block"))
    for i, seconds in enumerate(steps):
        clock.now += seconds
        listener(StageProgress("predict", done + i + 1, {"Mpx/s": 1.25}))
    listener(StageEnded("predict", clock.now - began))


def plain(steps: list[float], **given: Any) -> list[str]:
    lines: list[str] = []
    clock = Clock()
    play(PlainLines(lines.append, clock), clock, steps, **given)
    return lines


def test_a_long_stage_speaks_every_five_percent():
    lines = plain([2.0] * 200)
    assert len(lines) == 21
    assert lines[0] == "predict: 10/200 blocks, 5 %, 1.25 Mpx/s, 6 min 20 s left"
    assert lines[-2] == "predict: 200/200 blocks, 100 %, 1.25 Mpx/s"
    assert lines[-1] == "predict: done in 6 min 40 s"


def test_a_slow_stage_speaks_every_half_minute():
    lines = plain([1.0] * 1000, total=10**6)
    assert len(lines) == 1000 // 30 + 1


def test_a_short_stage_is_silent():
    assert plain([0.001] * 500) == []


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=300), st.integers(0, 50))
def test_lines_are_neither_many_nor_rare(steps: list[float], done: int):
    lines = plain(steps, done=done)
    total = sum(steps)
    assert len(lines) <= 1 + min(20 + total / 30, total + 1)
    assert not any("\x1b" in line or "\r" in line or "\n" in line for line in lines)
    if total >= 30:
        assert lines


def test_what_was_done_before_does_not_make_it_look_fast():
    lines: list[str] = []
    clock = Clock()
    listener = PlainLines(lines.append, clock)
    listener(StageStarted("export", 100, 90, "tile"))
    clock.now += 10
    listener(StageProgress("export", 95))
    assert lines == ["export: 95/100 tiles, 95 %, 0.5 tiles/s, 10 s left"]


def test_an_unknown_total_is_counted_up():
    lines: list[str] = []
    clock = Clock()
    listener = PlainLines(lines.append, clock)
    listener(StageStarted("statistics", 0, unit="plane"))
    clock.now += 40
    listener(StageProgress("statistics", 20))
    listener(StageEnded("statistics", 40, is_complete=False))
    assert lines == ["statistics: 20 planes, 0.5 planes/s", "statistics: stopped at 20 planes in 40 s"]


def test_epochs_are_told():
    lines: list[str] = []
    listener = PlainLines(lines.append)
    listener(EpochEnded(3, 60, 0.3125, {"v_rand": 0.97}, is_best=True))
    listener(EpochEnded(4, 60, 0.3))
    assert lines == ["epoch 3/60: loss 0.3125, v_rand 0.9700 (best so far)", "epoch 4/60: loss 0.3000"]


def test_json_lines_say_the_same_in_numbers():
    told: list[dict[str, Any]] = []
    clock = Clock()
    listener = JsonLines(told.append, clock)
    play(listener, clock, [2.0] * 40)
    listener(EpochEnded(1, 2, 0.5, {"f": 0.9}, is_best=True))
    assert json.loads(json.dumps(told)) == told
    events = [t["event"] for t in told]
    assert events == ["stage-started", *["progress"] * 20, "stage-ended", "epoch"]
    assert told[1] == {
        "event": "progress", "stage": "predict", "done": 2, "total": 40, "unit": "block", "per_s": 0.5, "left_s": 76.0,
        "figures": {"Mpx/s": 1.25},
    }  # fmt: skip
    assert told[-2]["is_complete"] is True
    assert told[-2]["elapsed_s"] == 80.0


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, markup=False, highlight=False)


def test_bars_come_and_go(screen: Console):
    said: list[str] = []
    clock = Clock()
    bars = Bars(screen, said.append, clock=clock)
    play(bars, clock, [1.0] * 4)
    play(bars, clock, [10.0] * 4)
    bars(EpochEnded(1, 2, 0.5))
    bars.close()
    bars.close()
    text = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 2
    assert said == ["predict: 4/4 blocks in 40 s, 1.25 Mpx/s", "epoch 1/2: loss 0.5000"]


def test_bars_show_stages_within_stages_and_that_they_stop(screen: Console):
    clock, stopping = Clock(), False
    bars = Bars(screen, lambda line: None, lambda: stopping, clock)
    bars(StageStarted("train", 100, unit="step"))
    bars(StageStarted("validate", 0, unit="plane"))
    clock.now += 10
    bars(StageProgress("train", 20, {"loss": 0.5}))
    shown = Console(width=100, file=io.StringIO(), force_terminal=False)
    shown.print(bars._table())
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "20/100 steps  loss 0.5  40 s left" in text
    assert "0 planes  10 s" in text
    stopping = True
    shown.print(bars._table())
    assert "stopping" in shown.file.getvalue()  # type: ignore[attr-defined]
    bars(StageEnded("validate", 10))
    bars(StageEnded("train", 10, is_complete=False))
    bars.close()


@pytest.mark.parametrize("make", [Silent, lambda: PlainLines(print), lambda: JsonLines(print)])
def test_events_of_unknown_stages_are_no_trouble(make: Callable[[], Any], capsys: pytest.CaptureFixture[str]):
    listener = make()
    listener(StageProgress("never begun", 3))
    listener(StageEnded("never begun", 3))
    listener(Event())
    listener.close()
    assert capsys.readouterr().out == ""
