"""How a network computes, as plans say it: device, precision, threads. Plans are read without torch, whose import takes seconds."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Compute:
    """What a plan fixes about arithmetic: the same on every worker, so that the same plan gives the same bytes.

    Attributes:
        device: "cpu" or "cuda"; workers choose the card, never the kind.
        precision: "fp32", "bf16", "fp16" or "fp64".
        num_threads: of torch on the CPU, per process.
    """

    device: str
    precision: str
    num_threads: int


def available_cores() -> int:
    """Cores that this process may use (its affinity, not the machine's size)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
