"""The state of a fused training: plain arrays, their names, and checkpoints of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save

from ldmlr.diffusion.weights import TIME_FEATURES
from ldmlr.errors import InputError, UsageError
from ldmlr.files import write_bytes
from ldmlr.tensorfile import open_tensors

FORMAT = "ldmlr-fused-checkpoint"

Floats = npt.NDArray[np.float32]


def shapes(latent: int, classes: int, hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the additive denoiser's arrays, in the order of ``TrainParams.state``.

    Parameters
    ----------
    latent, classes, hidden, layers
        K, C, H and L.
    """
    found: dict[str, tuple[int, ...]] = {"input.weight": (hidden, latent), "input.bias": (hidden,)}
    for name in ("first", "second"):
        found |= {f"{name}.{layer}.weight": (hidden, hidden) for layer in range(layers)}
        found |= {f"{name}.{layer}.bias": (hidden,) for layer in range(layers)}
    return found | {
        "output.weight": (latent, hidden), "output.bias": (latent,),
        "time_in.weight": (hidden, TIME_FEATURES), "time_in.bias": (hidden,),
        "time_out.weight": (layers * hidden, hidden), "time_out.bias": (layers * hidden,),
        "classes.weight": (classes + 1, layers * hidden),
    }  # fmt: skip


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
        header = {
            "format": FORMAT, "key": key, "done": str(self.done), "losses": json.dumps(self.losses),
            "total": json.dumps(self.total),
        }  # fmt: skip
        write_bytes(path, save({"state": self.state}, metadata=header))

    def load(self, path: Path, key: str) -> None:
        """Take over a saved one.

        Raises
        ------
        InputError
            The file is damaged or no checkpoint.
        UsageError
            It belongs to another configuration or other data.
        """
        try:
            with open_tensors(path, "np") as file:
                header = file.metadata() or {}
                state = file.get_tensor("state") if header.get("format") == FORMAT else None
            if header.get("key") != key:
                raise UsageError(
                    f"{path}: the checkpoint belongs to other settings or data; "
                    "use those, or delete it to start afresh"
                )
            if state is None or state.shape != self.state.shape or state.dtype != np.float32:
                raise ValueError("its arrays do not fit")
            self.state = np.ascontiguousarray(state)
            self.done, self.losses = int(header["done"]), list(json.loads(header["losses"]))
            self.total = float(json.loads(header["total"]))
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            raise InputError(f"{path}: damaged checkpoint ({error}); delete it to start afresh") from None


def resumed(path: Path, keys: list[str]) -> int:
    """Return which of some keys a checkpoint has; 0 if there is none, or it has another."""
    if not path.exists():
        return 0
    try:
        with open_tensors(path, "np") as file:
            key = (file.metadata() or {}).get("key")
    except (SafetensorError, OSError):
        return 0  # `State.load` says what is wrong
    return keys.index(key) if key in keys else 0
