"""Whether a bioimage.io package is one: by bioimageio.core, which runs it, or by bioimageio.spec, which reads it."""

import gc
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unetctl.errors import WeightsError
from unetctl.networks.portable import missing_packages


def validate_package(path: Path) -> str:
    """Validates a package with the best tool that is installed.

    Args:
        path: the zip file.

    Returns:
        What has validated it, in words with its version.

    Raises:
        WeightsError: with the first fault found.
    """
    with_core = not missing_packages("bioimageio.core")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own libraries; and it leaves the zip open for the collector to close
        status, fault = _judged(path, with_core)
        gc.collect()
    how = (
        f"bioimageio.core {version('bioimageio.core')}: the description, and the test picture run through onnxruntime"
        if with_core
        else f"bioimageio.spec {version('bioimageio.spec')}: the description alone; bioimageio.core, which also runs it, is not "
        "installed"
    )
    if status != ("passed" if with_core else "valid-format"):
        raise WeightsError(f"the package is not valid: {fault or status}", "", f"found by {how}")
    return how


def _judged(path: Path, with_core: bool) -> tuple[str, str]:
    """The verdict in a word, and the first fault."""
    summary: Any
    if with_core:
        from bioimageio.core import test_model

        summary = test_model(path, weight_format="onnx")
    else:
        from bioimageio.spec import load_description_and_validate_format_only

        summary = load_description_and_validate_format_only(path)
    faults = [fault for detail in summary.details for fault in detail.errors]
    if not faults:
        return str(summary.status), ""
    place = ".".join(str(part) for part in faults[0].loc)
    return str(summary.status), f"{place}: {faults[0].msg}" if place else str(faults[0].msg)
