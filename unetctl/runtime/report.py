"""What happened, as a value; printed and kept as JSON. Standard library only."""

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunReport:
    """One execution of one job on one input.

    Attributes:
        command: "predict", "stitch" ...
        input, output: paths as given.
        status: "done", "nothing-new", "stopped", "skipped" or "failed".
        num_blocks: of the plan; num_done: finished altogether; num_computed: by this execution.
        num_pixels: kept by this execution.
        elapsed_s: wall time of this execution.
        seconds: by stage.
        projected_bytes: peak memory as planned; peak_bytes: as measured, of this process.
        num_nonfinite: input pixels replaced.
        notes, warnings: sentences.
        error: message, for "failed".
        details: anything else, plain values.
    """

    command: str
    input: str
    output: str
    status: str
    num_blocks: int = 0
    num_done: int = 0
    num_computed: int = 0
    num_pixels: int = 0
    elapsed_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    projected_bytes: int = 0
    peak_bytes: int = 0
    num_nonfinite: int = 0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def mpx_per_s(self) -> float:
        """Kept megapixels per second of wall time."""
        return self.num_pixels / 1e6 / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def to_json(self) -> str:
        """One object."""
        return json.dumps({**asdict(self), "mpx_per_s": round(self.mpx_per_s, 4)}, indent=1)

    def save(self, path: Path) -> None:
        """Writes the JSON beside `path` and renames it there: nobody reads half a report."""
        temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
        temporary.write_text(self.to_json() + "\n")
        temporary.replace(path)


def peak_memory() -> int:
    """Peak resident memory of this process so far, bytes; 0 where the platform does not say."""
    try:
        # ru_maxrss would count the parent's peak too, which a process inherits when it is started.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
