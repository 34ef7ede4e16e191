"""What unetctl raises: every error says what was seen, what was expected, and what to do.

The command line translates them to exit codes in one place (`EXIT_CODES` prints in ``unetctl --help``).
"""

from typing import ClassVar

EXIT_CODES: dict[int, str] = {
    0: "done, also when there was nothing new to do",
    1: "a bug of ours",
    2: "usage, recipe, or an output in the way that is not this job's",
    3: "finished, but some inputs failed or parts are missing",
    4: "input missing or unreadable",
    5: "weights unusable",
    6: "not enough memory or disk, or no such device",
    75: "stopped cleanly or output busy: run the same command again to go on",
    130: "interrupted",
}


class UnetctlError(Exception):
    """An expected failure, told in three parts.

    Args:
        seen: what was found, with the value ("tile core 190 is not a multiple of the network stride 16").
        expected: what would have been right ("a multiple of 16"); may be empty when `seen` implies it.
        hint: what to do ("use 192"); may be empty.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, seen: str, expected: str = "", hint: str = "") -> None:
        super().__init__(seen, expected, hint)
        self.seen, self.expected, self.hint = seen, expected, hint

    def __str__(self) -> str:
        message = self.seen
        if self.expected:
            message += f"; expected {self.expected}"
        if self.hint:
            message += f"; {self.hint}"
        return message


class UsageError(UnetctlError):
    """Wrong options, a wrong recipe, or an output in the way that belongs to another job."""

    exit_code = 2


class IncompleteError(UnetctlError):
    """The work ended, but some inputs failed or parts are missing."""

    exit_code = 3


class InputError(UnetctlError):
    """An input is missing, unreadable or not an image that this task can take."""

    exit_code = 4


class WeightsError(UnetctlError):
    """A weights file or checkpoint cannot be used."""

    exit_code = 5


class ResourceError(UnetctlError):
    """Memory, disk or the requested device do not suffice."""

    exit_code = 6


class BusyError(UnetctlError):
    """Another process holds the output."""

    exit_code = 75


class Stopped(UnetctlError):  # noqa: N818 - not a failure: the work goes on with the same command
    """The work stopped cleanly on request and resumes with the same command."""

    exit_code = 75


class Interrupted(Stopped):
    """Stopped by Ctrl-C."""

    exit_code = 130
