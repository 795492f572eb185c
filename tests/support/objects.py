"""An object store for tests: fsspec's ``memory://``, and one in front of it that fails and counts."""

from __future__ import annotations

import collections
import random
from typing import ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

# Requests that a store answers.
REQUESTS = ("info", "ls", "cat_file", "pipe_file", "put_file", "mv", "rm_file")


class FlakyFileSystem(MemoryFileSystem):
    """``flaky://``: a store in memory, one in five of whose requests fails, before or after it was done.

    Set by the class attributes: `share` of requests that fail, `broken` (all do), `short`, so many uploads
    and reads that lose their last half and say nothing of it; `failed` and `done` count.
    """

    protocol = "flaky"
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]
    share, broken, short, inside = 0.2, False, 0, False
    failed: ClassVar = collections.Counter()
    done: ClassVar = collections.Counter()
    bytes_read = 0
    draw = random.Random(0)

    @classmethod
    def reset(cls, share=0.2):
        """Forget all objects and counts."""
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.share, cls.broken, cls.short, cls.bytes_read = share, False, 0, 0
        cls.failed.clear()
        cls.done.clear()
        cls.draw = random.Random(0)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("flaky://", "memory://", 1))


def _failing(name):
    def request(self, *args, **kwargs):
        kind = type(self)
        if kind.inside:  # what a request is made of does not fail by itself
            return getattr(MemoryFileSystem, name)(self, *args, **kwargs)
        fails = kind.broken or kind.draw.random() < kind.share
        kinds = (OSError("503 slow down"), TimeoutError("no answer in 60 s"), ConnectionError("reset"))
        error = kind.draw.choice(kinds)
        late = (
            not kind.broken
            and name in ("pipe_file", "put_file", "mv", "rm_file")
            and kind.draw.random() < 0.5
        )
        if fails and not late:
            kind.failed[name] += 1
            raise error
        kind.inside = True
        try:
            found = getattr(MemoryFileSystem, name)(self, *args, **kwargs)
        finally:
            kind.inside = False
        kind.done[name] += 1
        if kind.short and name in ("put_file", "cat_file"):
            kind.short -= 1
            if name == "cat_file":
                return found[: len(found) // 2]
            whole = MemoryFileSystem.cat_file(self, args[1])
            MemoryFileSystem.pipe_file(self, args[1], whole[: len(whole) // 2])
        if name == "cat_file":
            kind.bytes_read += len(found)
        if fails:
            kind.failed[name] += 1
            raise error
        return found

    return request


for _name in REQUESTS:
    setattr(FlakyFileSystem, _name, _failing(_name))
fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
