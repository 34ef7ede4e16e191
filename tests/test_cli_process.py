"""The shell as a process of its own: signals, terminals, pipes. The job is a stand-in that imports nothing heavy."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import unetctl

pty = pytest.importorskip("pty", reason="signals and terminals as POSIX has them")
PROJECT = Path(unetctl.__file__).parent.parent
QUICK = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def with_stitch(body: str, *args: str) -> list[str]:
    """A command line for `stitch` in a process of its own, whose job is `body` and imports nothing heavy."""
    code = f"""
import sys, time, types
from unetctl import errors
from unetctl.runtime.events import *
from unetctl.runtime.report import RunReport
job = types.ModuleType("unetctl.jobs.stitch")
def stitch_output(output, *, to, verify, keep_store, emit, should_stop):
{textwrap.indent(textwrap.dedent(body), "    ")}
job.stitch_output = stitch_output
sys.modules["unetctl.jobs.stitch"] = job
from unetctl.cli.app import main
sys.argv = ["unetctl", "stitch", *{args!r}]
main()
"""
    return [sys.executable, "-c", code]


STOPPABLE = """
emit(StageStarted("pyramid", 100))
print("begun", flush=True)
for i in range(600):
    if should_stop():
        return RunReport("stitch", str(output), str(output), "stopped", 100, i)
    time.sleep(0.05)
raise AssertionError("nobody asked")
"""


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 75), ("SIGINT", 130), ("SIGUSR1", 75), ("SIGHUP", 75)])
@pytest.mark.usefixtures("heeded_signals")
def test_signals_stop_cleanly(number: str, code: int):
    process = subprocess.Popen(
        with_stitch(STOPPABLE, "x.tif"),
        cwd=PROJECT,
        env=QUICK,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(getattr(signal, number))
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    assert err.startswith(f"stopped by {number}: ")
    assert err.endswith("run the same command again to go on\n")


def deaf() -> "subprocess.Popen[bytes]":
    """A command at work that never asks whether it should stop."""
    body = "print('begun', flush=True)\nfor _ in range(600): time.sleep(0.05)"
    process = subprocess.Popen(
        with_stitch(body, "x.tif"), cwd=PROJECT, env=QUICK, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_second_signal_leaves_now_but_an_echo_does_not():
    process = deaf()
    for pause_s in (0.1, 1.3):  # as torchrun passes on what its children have had
        process.send_signal(signal.SIGTERM)
        time.sleep(pause_s)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 75


@pytest.mark.usefixtures("heeded_signals")
def test_another_signal_leaves_now():
    process = deaf()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_what_was_ignored_stays_ignored():
    """``nohup unetctl ... &``: a terminal that closes stops nothing."""
    code = """
import os, signal
for number in (signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
from unetctl.runtime.signals import StopRequest
with StopRequest() as stop:
    for number in (signal.SIGHUP, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert not stop()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert stop()
assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=QUICK, check=True, timeout=60)


def on_terminal(command: list[str], **env: str) -> str:
    """What a command writes to a terminal, control codes and all."""
    main, terminal = pty.openpty()
    plain = {k: v for k, v in QUICK.items() if k not in ("NO_COLOR", "TTY_INTERACTIVE")}
    process = subprocess.Popen(command, cwd=PROJECT, env={**plain, **env}, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    seen = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:  # Linux says so when the other end has closed
            break
        if not piece:
            break
        seen += piece
    os.close(main)
    process.wait(timeout=20)
    return seen.decode()


BUSY = """
emit(StageStarted("pyramid", 10))
for i in range(10):
    emit(StageProgress("pyramid", i + 1))
    time.sleep(0.06)
emit(StageEnded("pyramid", 0.6))
emit(Note("look", "warning"))
raise errors.UsageError("seen", "expected", "hint")
"""


def test_a_terminal_gets_bars_and_colours_unless_it_refuses():
    text = on_terminal(with_stitch(BUSY, "x.tif"), TERM="xterm")
    assert "/10 blocks" in text
    assert "\x1b[31merror: seen; expected expected; hint\x1b[0m" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is hidden and given back"
    text = on_terminal(with_stitch(BUSY, "x.tif"), TERM="xterm", NO_COLOR="1")
    assert "\x1b[31m" not in text
    assert "/10 blocks" in text
    text = on_terminal(with_stitch(BUSY, "x.tif"), TERM="dumb")
    assert "\x1b" not in text
    assert "error: seen; expected expected; hint" in text


def test_a_log_gets_no_control_codes():
    result = subprocess.run(
        with_stitch(BUSY, "x.tif"),
        cwd=PROJECT,
        env={**QUICK, "FORCE_COLOR": "1", "TERM": "xterm"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "\x1b" not in result.stderr
    assert "\r" not in result.stderr


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "unetctl", "tasks"],
        cwd=PROJECT,
        env=QUICK,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as err:
        assert err.read() == b""
    assert process.wait(timeout=20) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_behind_stdout_is_said():
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "unetctl", "tasks"],
            cwd=PROJECT,
            env=QUICK,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert result.returncode == 6
    assert b"standard output could not be written" in result.stderr
    assert b"Traceback" not in result.stderr


def test_file_names_of_any_bytes_are_printed_as_they_are():
    body = 'return RunReport("stitch", "x", "caf\\udce9.tif", "done", 1, 1)'
    result = subprocess.run(with_stitch(body, "x.tif"), cwd=PROJECT, env=QUICK, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == b"caf\xe9.tif\n"
