"""PyTorch as this package expects it, whatever the program that calls has set.

A training that starts under ``torch.no_grad()`` has no gradients; another default dtype or autocast gives
other rows for the same seed. What a caller has set for its own network is put aside for the time of a
call and put back after it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """Run the block with gradients, float32 as the default type and no autocast.

    Works as a decorator, too. Where PyTorch has not been imported there is nothing to put aside.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            # Weights that an autocast within the block rounds are kept until the outermost one ends, which is
            # this one: without the cache a training sees its own steps.
            stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        stack.callback(torch.set_default_dtype, before)
        torch.set_default_dtype(torch.float32)
        yield
