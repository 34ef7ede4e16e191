"""doxapy's classical thresholds, in a process of their own: they crash on some pages (blank ones, very small ones).

Run as a script it is that process: it reads pages from stdin and writes their ink to stdout, one after the other.
"""

import importlib
import json
import subprocess
import sys
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class MethodCrashedError(Exception):
    """A method has ended its process."""


def doxa_algorithms() -> frozenset[str]:
    """Names of what doxapy has; empty if it is not installed."""
    try:
        doxa: Any = importlib.import_module("doxapy")
    except ImportError:
        return frozenset()
    return frozenset(doxa.Binarization.Algorithms.__members__)


class DoxaProcess:
    """Computes in another process, which is started when it is first needed and again after a crash; held as a context."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def find(self, algorithm: str, grey: Grey) -> Mask:
        """The ink (y, x) of a page (y, x).

        Raises:
            MethodCrashedError: if the process has ended.
        """
        if self._process is None:
            # -P: neither the folder of this file nor the working directory is searched for modules
            command = [sys.executable, "-P", __file__]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        found = b""
        try:
            stdin.write(json.dumps([algorithm, *grey.shape]).encode() + b"\n" + grey.tobytes())
            stdin.flush()
            found = stdout.read(grey.size)
        except OSError:
            pass  # a broken pipe is a process that has ended
        if len(found) < grey.size:
            self.close()
            raise MethodCrashedError(algorithm)
        ink: Mask = np.frombuffer(found, np.uint8).reshape(grey.shape) == 0
        return ink

    def close(self) -> None:
        """Ends the process; may be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()  # it holds nothing
        try:
            process.communicate()
        except OSError:
            pass  # what was not written yet need not be

    def __enter__(self) -> "DoxaProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve() -> None:
    doxa: Any = importlib.import_module("doxapy")
    old = getattr(doxa.Binarization, "update_to_binary", None)  # moved in 0.9.4
    update = old if old is not None else doxa.update_to_binary
    with open(0, "rb", closefd=False) as asked, open(1, "wb", closefd=False) as answered:
        while line := asked.readline():
            name, num_rows, num_columns = json.loads(line)
            page = np.frombuffer(asked.read(num_rows * num_columns), np.uint8).reshape(num_rows, num_columns).copy()
            update(getattr(doxa.Binarization.Algorithms, name), page)  # overwritten with 0 and 255
            answered.write(page.tobytes())
            answered.flush()


if __name__ == "__main__":
    _serve()
