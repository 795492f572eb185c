"""The processes that torchrun (or srun, with the same variables) started, and what they tell each other.

A rank that dies ends the others: torchrun stops them, and without torchrun the broken connection ends the
waiting.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import Any

from ldmlr.errors import LdmlrError, UsageError

# Ranks finish at their own pace; a dead one is noticed at once, not by this.
LONGEST = datetime.timedelta(days=30)


class Ranks:
    """The ranks of a run.

    Attributes
    ----------
    rank, size
        Number of this process, and how many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any] | None:
        """Return the values of all ranks, in their order, on rank 0; None on the others.

        Raises
        ------
        LdmlrError
            A rank has died.
        """
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.size if self.first else None
        with self._together():
            dist.gather_object(value, found)
        return found

    def meet(self) -> None:
        """Wait until every rank has come here.

        Raises
        ------
        LdmlrError
            A rank has died.
        """
        import torch.distributed as dist

        with self._together():
            dist.barrier()

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Say in one line that another rank has died."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise LdmlrError(
                f"rank {self.rank}: another rank has ended before its work was done ({reason})"
            ) from None


def world() -> tuple[int, int]:
    """Return (rank, ranks) as torchrun says them; (0, 1) in a process that it did not start.

    Raises
    ------
    UsageError
        The variables are there and make no sense.
    """
    texts = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not all(text.isdigit() for text in texts) or int(texts[0]) >= int(texts[1]):
        raise UsageError(
            f"RANK={texts[0]!r}, WORLD_SIZE={texts[1]!r}: expected a rank below the number of ranks; unset "
            "both, or start with torchrun"
        )
    return int(texts[0]), int(texts[1])


@contextlib.contextmanager
def ranks() -> Iterator[Ranks | None]:
    """Yield the ranks of this run, connected by gloo; None where this process works alone.

    Raises
    ------
    LdmlrError
        The ranks cannot reach each other.
    """
    rank, size = world()
    if size == 1:
        yield None
        return
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo", timeout=LONGEST)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise LdmlrError(
            f"rank {rank} of {size}: cannot reach the others ({reason}); start with torchrun"
        ) from None
    try:
        yield Ranks(rank, size)
    finally:
        dist.destroy_process_group()
