"""What is done about inputs that fail while others go on."""

import traceback

from unetctl.errors import UnetctlError, UsageError
from unetctl.runtime.report import RunReport


def failure_limit(text: str | None, num_inputs: int) -> int | None:
    """How many inputs may fail, from "3" or "10%"; None without a limit.

    Raises:
        UsageError: if the text is neither.
    """
    if text is None:
        return None
    number, is_share = text.rstrip("%"), text.endswith("%")
    if not number.isdigit():
        raise UsageError(f"--max-failed {text}", "a number of inputs or a percentage, as 3 or 10%")
    return int(number) * num_inputs // 100 if is_share else int(number)


def failed_report(path: str, error: BaseException) -> RunReport:
    """The report of an input that failed, by its own fault or by a bug of ours."""
    if isinstance(error, UnetctlError):
        return RunReport("predict", path, "", "failed", error=str(error), details={"exit_code": error.exit_code})
    trace = "".join(traceback.format_exception(error))
    details = {"exit_code": 1, "traceback": trace}
    return RunReport("predict", path, "", "failed", error=f"a bug of unetctl: {error!r}", details=details)
