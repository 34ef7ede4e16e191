"""Devices, and torch set up for them as a plan says."""

import torch

from unetctl.errors import ResourceError, UsageError
from unetctl.runtime.compute import Compute, available_cores

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


def pick_device(wanted: str) -> torch.device:
    """The torch device for ``auto|cpu|cuda|cuda:i``.

    Raises:
        UsageError: if the words are not understood.
        ResourceError: if there is no such device.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise UsageError(f"--device {wanted}", "auto, cpu, cuda or cuda:NUMBER")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ResourceError(
            f"--device {wanted}, but torch sees no CUDA device", "", "use --device cpu, or install torch for CUDA"
        )
    index = int(number or torch.cuda.current_device())
    if index >= count:
        raise ResourceError(f"--device {wanted}, but there are {count} CUDA devices", f"cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", index)


def has_native_bf16(device: torch.device) -> bool:
    """True if bfloat16 is faster than float32 on this device rather than emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # mkldnn says yes wherever it can emulate; only these instructions make it faster than float32.
    flags = _cpu_flags().split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve(device: str, precision: str, num_threads: int | None = None) -> tuple[torch.device, Compute]:
    """Device and arithmetic for a new plan.

    Args:
        device: see `pick_device`.
        precision: ``auto|fp32|bf16|fp16``; auto is bf16 where it is native, else fp32.
        num_threads: of torch; None takes the cores that this process may use.

    Raises:
        UsageError, ResourceError: see `pick_device`; fp16 on a CPU is refused.
    """
    chosen = pick_device(device)
    if precision == "auto":
        precision = "bf16" if has_native_bf16(chosen) else "fp32"
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}", "auto, fp32, bf16 or fp16")
    if precision == "fp16" and chosen.type == "cpu":
        raise UsageError("--precision fp16 on a CPU, where it is slower than fp32", "auto, fp32 or bf16")
    return chosen, Compute(chosen.type, precision, num_threads or available_cores())


def apply_compute(compute: Compute, device: str = "auto") -> torch.device:
    """Sets torch up as a plan says and gives the device of its kind.

    Raises:
        ResourceError: if this machine has no device of the plan's kind.
    """
    chosen = pick_device(device if device.startswith(compute.device) else compute.device)
    torch.set_num_threads(compute.num_threads)
    torch.get_num_threads()  # fixes this thread's number: else it would take over what another thread sets for its own
    if chosen.type == "cuda":
        # cuDNN may otherwise choose its algorithm by timing: another one each run, other last bits.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cuda.matmul.allow_tf32 = compute.precision != "fp32"
        torch.backends.cudnn.allow_tf32 = compute.precision != "fp32"
    return chosen


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return ""
