"""Locks on file systems that have none, and on folders that are removed while somebody waits."""

import errno
import fcntl
import shutil
from pathlib import Path
from typing import Any

import pytest

from unetctl.errors import BusyError
from unetctl.runtime.locks import RunLock


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_not_busy_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(fd: int, how: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refused)
    with RunLock(tmp_path, shared=False, who="predict"):
        assert (tmp_path / "run.lock").exists()


def test_a_lock_on_a_folder_that_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B opens the lock's file, A starts over and takes the new one: B must not hold the old one's."""
    folder = tmp_path / "run"
    folder.mkdir()
    real, calls, held = fcntl.flock, [], []

    def flock(fd: int, how: int) -> Any:
        calls.append(fd)
        if len(calls) == 1:
            shutil.rmtree(folder)
            folder.mkdir()
            other = RunLock(folder, shared=False, who="the one that started over")
            held.append(other.__enter__())
        return real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(BusyError, match="the one that started over"), RunLock(folder, shared=False, who="predict"):
        pass
    held[0].__exit__(None, None, None)
    with RunLock(folder, shared=False, who="predict"):
        pass
