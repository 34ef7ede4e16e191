"""Processes that train one network together, as torchrun starts them; a single process is a team of one.

Every process makes its share of a step's batch and its own gradients; `torch.nn.parallel.DistributedDataParallel` averages
these. What is decided (stop, best, the learning rate) is decided by the first process and told to the others.

    with Team(Place(rank, local_rank, num, num_local), device) as team:
        team.any(flag), team.told(value), team.mean(value), team.must_agree(...)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, distributed

from unetctl.errors import ResourceError, UnetctlError, UsageError

#: The others wait so long for one that lives and says nothing, as while it validates.
_PATIENCE = timedelta(hours=6)

Value = TypeVar("Value")

_sums_are_shared: ContextVar[bool] = ContextVar("sums_are_shared", default=False)


@dataclass(frozen=True)
class Place:
    """Which of several processes this one is.

    Attributes:
        rank: 0 to num - 1; the first one writes and speaks.
        local_rank: 0 to num_local - 1 on this machine; names the CUDA device.
        num: processes in all.
        num_local: processes on this machine.
    """

    rank: int = 0
    local_rank: int = 0
    num: int = 1
    num_local: int = 1


class Team:
    """The processes of a training, held as a context; on leaving without an error, all wait for the first one.

    Args:
        place: this process's.
        device: where it computes: gradients of CUDA devices travel by NCCL, all else by gloo.

    Raises:
        ResourceError: on entering, if the processes do not find each other, or torch cannot do this; by every method, if
            another process has ended.
    """

    def __init__(self, place: Place | None = None, device: torch.device | None = None) -> None:
        self.place = place or Place()
        self.device = device or torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """True in the process that writes and speaks."""
        return self.place.rank == 0

    @property
    def num(self) -> int:
        """Processes."""
        return self.place.num

    def __enter__(self) -> Self:
        if self.num > 1:
            if not distributed.is_available():
                raise ResourceError(
                    f"{self.num} processes, but this torch has no torch.distributed", "", "start one process"
                )
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            with _explained():
                distributed.init_process_group(
                    backend, timeout=_PATIENCE, rank=self.place.rank, world_size=self.num,
                    device_id=self.device if self.device.type == "cuda" else None,
                )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.num > 1:
            try:
                if error is None:
                    self.any(False)  # whoever leaves early makes torchrun end the others
            finally:
                distributed.destroy_process_group()

    def any(self, flag: bool) -> bool:
        """True if one of the processes says so."""
        if self.num == 1:
            return flag
        told = torch.tensor([float(flag)])
        with _explained():
            distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return bool(told[0])

    def mean(self, value: float) -> float:
        """Of all processes' values."""
        if self.num == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        with _explained():
            distributed.all_reduce(told)
        return float(told[0]) / self.num

    def told(self, value: Value) -> Value:
        """The first process's value; what the others give is not looked at."""
        if self.num == 1:
            return value
        values: list[Any] = [value]
        with _explained():
            distributed.broadcast_object_list(values, device=torch.device("cpu"))
        found: Value = values[0]
        return found

    def must_agree(self, what: str, value: object) -> None:
        """Holds all processes to the same value, which compares after pickling.

        Raises:
            UsageError: in all of them, if one has another.
        """
        if self.num == 1:
            return
        values: list[Any] = [None] * self.num
        with _explained():
            distributed.all_gather_object(values, value)
        others = [rank for rank in range(self.num) if values[rank] != values[0]]
        if others:
            raise UsageError(
                f"processes {', '.join(map(str, others))} have other {what} than the first", f"the same {what} in all",
                "give all the same command, on machines that see the same files",
            )  # fmt: skip


@contextmanager
def shared_sums() -> Iterator[None]:
    """Inside, `summed` adds up over all processes; all must be inside at once."""
    token = _sums_are_shared.set(distributed.is_available() and distributed.is_initialized())
    try:
        yield
    finally:
        _sums_are_shared.reset(token)


def summed(x: Tensor) -> Tensor:
    """The sum of all processes' `x` inside `shared_sums`, else `x`.

    A loss that is a quotient of sums over the batch, or a Dice coefficient of it, is thereby what one process would
    find for the batch of all. The gradient is that of this process's own part times the number of processes, so that
    their mean, which DistributedDataParallel takes, is the gradient of the whole.
    """
    if not _sums_are_shared.get():
        return x
    total = x.detach().clone()
    with _explained():
        distributed.all_reduce(total)
    return total + distributed.get_world_size() * (x - x.detach())


@contextmanager
def _explained() -> Iterator[None]:
    """What torch raises when another process is gone, as an error of ours."""
    try:
        yield
    except UnetctlError:
        raise
    except (RuntimeError, ValueError) as error:  # DistBackendError and its kin are RuntimeErrors
        raise lost(error) from error


def lost(error: BaseException) -> ResourceError:
    """The error to end with when the others do not answer."""
    return ResourceError(
        f"another process of this training has ended or cannot be reached ({str(error).splitlines()[0][:200]})", "",
        "its own messages say why; the same command goes on from the last checkpoint",
    )  # fmt: skip


def is_lost(error: BaseException) -> bool:
    """True of what torch raises in the midst of a step when another process is gone."""
    words = ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo", "Broken pipe")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
