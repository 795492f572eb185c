"""Ranks as torchrun starts them, without its agent: what one says when another is gone is theirs alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ldmlr.ranks import Ranks


def start(size: int, commands: Sequence[Sequence[object]] | Sequence[object]) -> list[subprocess.Popen[str]]:
    """Start ranks of ``python ARGUMENTS``: the same for all, or a command for each."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    own = [commands] * size if not isinstance(commands[0], list) else commands
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, own[rank])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,  # type: ignore[call-overload]
            env={
                **os.environ, **place, "RANK": str(rank), "WORLD_SIZE": str(size),
                "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
            },
        )
        for rank in range(size)
    ]  # fmt: skip


def end(processes: Sequence[subprocess.Popen[str]], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Wait for ranks; return (status, output, messages) of each."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


class ThreadRanks(Ranks):
    """Ranks that are threads of this process; sums alone."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, table: dict[int, Any]) -> None:
        super().__init__(rank, size)
        self.barrier, self.table = barrier, table

    def sum(self, *tensors: Any) -> None:
        """Replace tensors by their sums over the threads."""
        for tensor in tensors:
            self.table[self.rank] = tensor.clone()
            self.barrier.wait(30)
            whole = sum(self.table[rank] for rank in range(self.size))
            self.barrier.wait(30)
            tensor.copy_(whole)


def together(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """Do some work on every rank of threads; return what each found."""
    found: list[Any] = [None] * size
    barrier, table = threading.Barrier(size), {}

    def run(rank: int) -> None:
        found[rank] = work(ThreadRanks(rank, size, barrier, table))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
