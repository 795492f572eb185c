"""The processes that torchrun started, and what they tell each other; one process alone is a rank of one.

A generation or an encoding is shared out, a training is done together: every rank computes the gradients of
its rows of each batch, they are summed, and all take the same step. A rank that dies ends the others:
torchrun stops them, and without torchrun the broken connection ends the waiting. A rank that hangs ends the
others when their patience does.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ldmlr import progress
from ldmlr.errors import LdmlrError, UsageError

if TYPE_CHECKING:
    import torch

# Ranks that share work out finish at their own pace; a dead one is noticed at once, not by this.
LONGEST = datetime.timedelta(days=30)
# Ranks that train together wait for each other in every step, and for the one that reads slowest before it.
PATIENCE = datetime.timedelta(minutes=30)


class LostRank(LdmlrError):
    """Another rank is gone; what this one has done so far is as good as before."""


class Ranks:
    """The ranks of a run.

    Attributes
    ----------
    rank, size
        Number of this process, and how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def part(self, rows: int) -> slice:
        """Return which of so many rows are this rank's: in order, as many for all, give or take one."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def gather(self, value: Any) -> list[Any] | None:
        """Return the values of all ranks, in their order, on rank 0; None on the others.

        Raises
        ------
        LostRank
            Another rank has died, or hangs.
        """
        if self.alone:
            return [value]
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.size if self.first else None
        with self._together():
            dist.gather_object(value, found)
        return found

    def tell(self, value: Any) -> Any:
        """Return rank 0's value on every rank; raises as `gather`."""
        if self.alone:
            return value
        import torch.distributed as dist

        found = [value]
        with self._together():
            dist.broadcast_object_list(found)
        return found[0]

    def meet(self) -> None:
        """Wait until every rank has come here; raises as `gather`."""
        if not self.alone:
            import torch

            self.sum(torch.zeros(1))

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run a block on rank 0, and then on the others, which find what it has left."""
        if not self.first:
            self.meet()
        yield
        if self.first:
            self.meet()

    def sum(self, *tensors: torch.Tensor) -> None:
        """Replace tensors of one type and device by their sums over the ranks; raises as `gather`.

        The sums are the same to the bit on every rank.
        """
        if self.alone or not tensors:
            return
        import torch
        import torch.distributed as dist

        whole = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with self._together():
            dist.all_reduce(whole)
        parts = torch.split(whole, [tensor.numel() for tensor in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def copy(self, *tensors: torch.Tensor) -> None:
        """Replace the contents of tensors by those of rank 0; raises as `gather`."""
        if self.alone:
            return
        import torch.distributed as dist

        with self._together():
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def check_same(self, key: str, what: str) -> None:
        """Refuse ranks that do not work on the same.

        Parameters
        ----------
        key
            Hash of what is worked on.
        what
            The same in words, for the error.

        Raises
        ------
        UsageError
            The keys differ; on every rank.
        """
        if self.alone:
            return
        import torch.distributed as dist

        keys: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(keys, key)
        others = [str(rank) for rank, found in enumerate(keys) if found != keys[0]]
        if others:
            raise UsageError(
                f"rank {', '.join(others)}: has other {what} than rank 0; give all ranks the same files and "
                "options"
            )

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Say in one line that another rank has died."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise LostRank(
                f"rank {self.rank}: another rank has ended, or hangs, before its work was done ({reason})"
            ) from None


# The rank of a process that works by itself.
ALONE = Ranks()


def world() -> tuple[int, int]:
    """Return (rank, ranks) as torchrun says them; (0, 1) in a process that it did not start.

    Raises
    ------
    UsageError
        The variables are there and make no sense.
    """
    return _pair("RANK", "WORLD_SIZE", "ranks")


def local() -> tuple[int, int]:
    """Return (rank, ranks) among those of this machine; raises as `world`."""
    if world()[1] == 1:
        return 0, 1
    return _pair("LOCAL_RANK", "LOCAL_WORLD_SIZE", "ranks of a machine")


def _pair(number: str, size: str, what: str) -> tuple[int, int]:
    texts = os.environ.get(number, "0"), os.environ.get(size, "1")
    if not all(text.isdigit() for text in texts) or int(texts[0]) >= int(texts[1]):
        raise UsageError(
            f"{number}={texts[0]!r}, {size}={texts[1]!r}: expected a rank below the number of {what}; unset "
            "both, or start with torchrun"
        )
    return int(texts[0]), int(texts[1])


@contextlib.contextmanager
def ranks(device: str = "cpu", patience: datetime.timedelta = LONGEST) -> Iterator[Ranks]:
    """Yield the ranks of this run, connected; `ALONE` where torchrun did not start this process.

    Parameters
    ----------
    device
        Where tensors are that are summed: by NCCL on GPUs, if every rank has its own, else by Gloo.
    patience
        How long a rank waits for the others.

    Raises
    ------
    LdmlrError
        The ranks cannot reach each other.
    """
    rank, size = world()
    if size == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if device.startswith("cuda") and local()[1] <= torch.cuda.device_count():
        torch.cuda.set_device(torch.device(device))
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=patience)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise LdmlrError(
            f"rank {rank} of {size}: cannot reach the others ({reason}); start with torchrun"
        ) from None
    try:
        with progress.hushed(rank > 0):  # one rank speaks for all
            yield Ranks(rank, size)
    finally:
        dist.destroy_process_group()
