"""The state of a fused training: plain arrays, their names, and checkpoints of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from ldmlr.diffusion import checkpoint, weights
from ldmlr.files import write_bytes

# Layers in the order of ``TrainParams.state``.
ORDER = ("input", "first", "second", "output", "time_in", "time_out", "classes")

Floats = npt.NDArray[np.float32]


def shapes(latent: int, classes: int, hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the additive denoiser's arrays, in the order of ``TrainParams.state``.

    Parameters
    ----------
    latent, classes, hidden, layers
        K, C, H and L.
    """
    found = weights.shapes("additive", latent, classes, hidden, layers)

    def place(name: str) -> tuple[int, bool]:
        return ORDER.index(name.partition(".")[0]), name.endswith(".bias")

    return {name: found[name] for name in sorted(found, key=place)}  # layers stay in their order


def flat(arrays: Mapping[str, Floats]) -> Floats:
    """Return arrays, in the order of `shapes`, as one."""
    return np.concatenate([np.ravel(array) for array in arrays.values()])


def named(values: Floats, latent: int, classes: int, hidden: int, layers: int) -> dict[str, Floats]:
    """Return the arrays that one array holds."""
    found, at = {}, 0
    for name, shape in shapes(latent, classes, hidden, layers).items():
        size = int(np.prod(shape))
        found[name] = values[at : at + size].reshape(shape).copy()
        at += size
    return found


@dataclasses.dataclass
class State:
    """A training between two iterations.

    Attributes
    ----------
    state
        Weights, first and second moments and averages ``[4, P]``, each in the order of `shapes`.
    losses
        Mean loss of each report.
    total
        Sum of the losses since the last report.
    done
        Iterations done.
    """

    state: Floats
    losses: list[float] = dataclasses.field(default_factory=list)
    total: float = 0.0
    done: int = 0

    def save(self, path: Path, key: str) -> None:
        """Write it, whole or not at all, with a key that says of which configuration and data it is."""
        header = checkpoint.header(checkpoint.NATIVE, key, self.done, self.losses)
        header["total"] = json.dumps(self.total)
        write_bytes(path, save({"state": self.state}, metadata=header))

    def load(self, path: Path, key: str) -> None:
        """Take over a saved one; raises as `ldmlr.diffusion.checkpoint.opened`."""
        with checkpoint.opened(path, checkpoint.NATIVE, key, "np") as (file, header):
            state = file.get_tensor("state")
            if state.shape != self.state.shape or state.dtype != np.float32:
                raise ValueError("its arrays do not fit")
            self.state, self.total = np.ascontiguousarray(state), float(json.loads(header["total"]))
            self.done, self.losses = checkpoint.progress(header)
