"""What the first method of a process would pay for all, done before the clocks start.

PyTorch imports most of what is behind its optimisers when the first one is made, and a CUDA device starts
with the first product; neighbours bring scikit-learn along, and a diffusion model what trains it. That is up
to two seconds each, more than most methods take, and none of it is a method's own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ldmlr.experiments.catalogue import BASELINE, DIFFUSION, INTERPOLATION, METHODS
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.training import fresh_head, train_head
from ldmlr.heads.training_rows import TrainingRows


def warm_up(methods: Iterable[str], device: str = "cpu") -> None:
    """Import and start what methods need, on the device they will run on.

    Parameters
    ----------
    methods
        Names of the catalogue.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    """
    entries = [METHODS[name] for name in methods]
    if any(entry.family == INTERPOLATION for entry in entries):
        import sklearn.neighbors  # noqa: F401
    if any(entry.family == DIFFUSION for entry in entries):
        import threadpoolctl  # noqa: F401

        import ldmlr.diffusion.spectrum
        import ldmlr.diffusion.train  # noqa: F401
    # A method without a label-shift row, or the baseline, trains nothing.
    if any(entry.shifted and entry.family != BASELINE for entry in entries):
        rows = TrainingRows(np.eye(2, dtype=np.float32), np.arange(2), 2, 2, "")
        config = FinetuneConfig(head="linear", epochs=1)
        train_head(fresh_head("linear", 2, 2, 0), rows, config, device=device)
