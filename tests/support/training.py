"""A training that is killed between two epochs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ldmlr.encoders.trainer import Trainer


class Killed(Exception):
    """Stands for the kill."""


@contextmanager
def killed_before(epoch: int) -> Iterator[None]:
    """Kill the training inside the block before an epoch, counted from 0; fail if it does not get there."""
    whole = Trainer._epoch

    def until(self: Trainer, number: int, progress: Any) -> Any:
        if number == epoch:
            raise Killed
        return whole(self, number, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_epoch", until)
        with pytest.raises(Killed):
            yield
