"""What a command with several inputs says of those that it did not work on, and how it ends."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.sources_files import picture
from unetctl.cli.app import app
from unetctl.runtime.signals import StopRequest


@pytest.fixture
def predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Any:
    """Runs the real command in a folder with a.npy and b.npy, where a-tiny.ome.tif is somebody else's."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        np.save(f"{name}.npy", picture((40, 50)))
    Path("a-tiny.ome.tif").write_text("somebody's")
    common = ("--task", str(tiny_weights), "--precision", "fp32", "--existing", "skip")
    return lambda *args: CliRunner().invoke(app, ["predict", *args, *common])


def test_an_input_that_is_passed_over_has_one_line_and_no_result(predicted: Any):
    result = predicted("a.npy")
    assert (result.exit_code, result.stdout) == (0, "")
    reason = "a.npy is passed over: a-tiny.ome.tif exists and is not a result of this job"
    assert result.stderr.splitlines() == [reason]
    result = predicted("a.npy", "b.npy")
    assert (result.exit_code, result.stdout) == (0, "b-tiny.ome.tif\n")
    lines = result.stderr.splitlines()
    assert (lines[0], lines[-1]) == (reason, "2 inputs: 1 done, 1 passed over")
    result = predicted("a.npy", "--json")
    assert '"status": "skipped"' in result.stdout
    assert result.stderr.splitlines() == [reason]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.usefixtures("heeded_signals")
def test_stopped_before_the_first_input(predicted: Any, monkeypatch: pytest.MonkeyPatch, number: int, code: int):
    enter = StopRequest.__enter__

    def enter_and_be_asked(self: StopRequest) -> StopRequest:
        found = enter(self)
        os.kill(os.getpid(), number)
        return found

    monkeypatch.setattr(StopRequest, "__enter__", enter_and_be_asked)
    name = signal.Signals(number).name
    for args, how_far in ((("b.npy",), ""), (("b.npy", "a.npy"), "0 of 2 inputs are done, ")):
        result = predicted(*args)
        assert (result.exit_code, result.stdout) == (code, "")
        again = "run the same command again to go on"
        assert result.stderr.splitlines() == [f"stopped by {name}: {how_far}b.npy was not begun; {again}"]
    assert not Path("b-tiny.ome.tif").exists()
