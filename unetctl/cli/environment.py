"""What the environment says: the only place of the program that reads it."""

import os
import sys
from collections.abc import Mapping
from typing import TextIO

from unetctl.errors import UsageError

#: Variable that holds this task's number, by batch system.
_ARRAY_INDEX = {
    "SLURM": "SLURM_ARRAY_TASK_ID",
    "Grid Engine": "SGE_TASK_ID",
    "AWS Batch": "AWS_BATCH_JOB_ARRAY_INDEX",
    "PBS": "PBS_ARRAY_INDEX",
    "Torque": "PBS_ARRAYID",
}
_MEBIBYTE = 2**20


def environment() -> Mapping[str, str]:
    """The process's own."""
    return os.environ


def array_task(env: Mapping[str, str]) -> tuple[str, str] | None:
    """Batch system and name of the variable with this task's number; None outside a job array."""
    for system, name in _ARRAY_INDEX.items():
        if env.get(name, "").strip().isdigit():
            return system, name
    return None


def array_part(env: Mapping[str, str]) -> tuple[int, int]:
    """(i, n) of this task of a job array, i from 1: its place ``(id - min) / step`` among all tasks.

    Raises:
        UsageError: outside a job array, or if the variables do not say how many tasks there are, or the tasks' numbers
            are not evenly spaced.
    """
    found = array_task(env)
    if found is None:
        raise UsageError(
            "--part auto, but this is no task of a job array",
            "one of " + ", ".join(_ARRAY_INDEX.values()),
            "give the part as --part 1/8",
        )
    system, name = found
    index = int(env[name])
    if system == "SLURM":
        return _place(
            env,
            index,
            "SLURM_ARRAY_TASK_MIN",
            "SLURM_ARRAY_TASK_MAX",
            "SLURM_ARRAY_TASK_STEP",
            "SLURM_ARRAY_TASK_COUNT",
        )
    if system == "Grid Engine":
        return _place(env, index, "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE", None)
    if system == "AWS Batch":
        size = _number(env, "AWS_BATCH_JOB_ARRAY_SIZE")
        if size is not None and index < size:
            return index + 1, size
    raise UsageError(
        f"--part auto, but {system} does not say how many tasks the array has",
        "",
        f"give the part as --part ${name}/N, tasks from 1",
    )


def launched(env: Mapping[str, str]) -> dict[str, int]:
    """Which of several processes torchrun has started as this one: rank, local_rank, num, num_local; empty if it has not.

    Raises:
        UsageError: if the variables contradict each other.
    """
    names = {"rank": "RANK", "local_rank": "LOCAL_RANK", "num": "WORLD_SIZE", "num_local": "LOCAL_WORLD_SIZE"}
    if "MASTER_ADDR" not in env or _number(env, "WORLD_SIZE") in (None, 1):
        return {}
    found = {name: _number(env, variable) for name, variable in names.items()}
    rank, num = found["rank"], found["num"]
    if rank is None or num is None or rank >= num:
        raise UsageError(
            f"WORLD_SIZE is {env.get('WORLD_SIZE')}, and RANK is {env.get('RANK', 'not set')}", "a rank below the number",
            "start with torchrun --nproc-per-node N -m unetctl train ..., or take WORLD_SIZE out of the environment",
        )  # fmt: skip
    local_rank, num_local = found["local_rank"], found["num_local"]
    return {"rank": rank, "local_rank": local_rank or 0, "num": num, "num_local": num_local or 1}


def is_follower(env: Mapping[str, str]) -> bool:
    """True in all but the first of several processes that torchrun has started."""
    return "MASTER_ADDR" in env and (_number(env, "WORLD_SIZE") or 1) > 1 and env.get("RANK", "0").strip() != "0"


def scheduler_memory(env: Mapping[str, str]) -> int | None:
    """Bytes that SLURM grants this task on this node; None if it does not say, or grants the whole node."""
    node = _number(env, "SLURM_MEM_PER_NODE")
    if node:
        return node * _MEBIBYTE
    per_cpu = _number(env, "SLURM_MEM_PER_CPU")
    if not per_cpu:
        return None
    cpus = _number(env, "SLURM_CPUS_PER_TASK") or _number(env, "SLURM_CPUS_ON_NODE") or 1
    return per_cpu * cpus * _MEBIBYTE


def wants_colour(env: Mapping[str, str], stream: TextIO) -> bool:
    """True on a terminal that does not refuse colours (https://no-color.org: NO_COLOR set and not empty)."""
    return is_terminal(env, stream) and not env.get("NO_COLOR")


def is_terminal(env: Mapping[str, str], stream: TextIO) -> bool:
    """True if `stream` is a terminal that understands control codes and is there to be redrawn."""
    if env.get("TERM", "").lower() in ("dumb", "unknown") or env.get("TTY_INTERACTIVE") == "0":
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def streams() -> tuple[TextIO, TextIO]:
    """(stdout, stderr) as they are now."""
    return sys.stdout, sys.stderr


def _place(env: Mapping[str, str], index: int, first: str, last: str, step: str, count: str | None) -> tuple[int, int]:
    low, high = _number(env, first), _number(env, last)
    if low is None or high is None:
        raise UsageError(f"--part auto, but {first} and {last} are not set", "", "give the part as --part 1/8")
    stride = _number(env, step) or 1
    num = (high - low) // stride + 1
    told = _number(env, count) if count else None
    if (index - low) % stride or not low <= index <= high or (told is not None and told != num):
        raise UsageError(
            f"--part auto, but the array's tasks {low} to {high} are not evenly spaced by {stride}"
            + (f" ({told} tasks)" if told else ""),
            "an array as 0-7 or 1-15:2",
            "give the part as --part 1/8",
        )
    return (index - low) // stride + 1, num


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "").strip()
    return int(text) if text.isdigit() else None
