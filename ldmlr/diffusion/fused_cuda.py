"""The fused trainer on a CUDA device (``csrc/cuda/train*``): the same steps as on CPUs, from the same draws.

Products are of float32. The model is the same to the bit whatever the point of resumption and the number of
multiprocessors; devices of another generation may round the exponential of silu differently. Beside that of
the CPU it differs by the rounding of sums. Checkpoints are those of the CPU, so a
training may go on elsewhere. PyTorch gives the memory and the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldmlr import _native, cuda_device
from ldmlr.diffusion import course
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.fused import TILE, Floats, Labels, Losses, Steps
from ldmlr.errors import counted

# Steps that are launched together, as one graph: a whole part of those between two looks at the loss.
GRAPH_STEPS = 25


class CudaSteps(Steps):
    """The steps of a training on a CUDA device.

    Parameters
    ----------
    config, z, labels, counts, importance, seed
        As of `ldmlr.diffusion.fused.Steps`.
    device
        ``cuda`` or ``cuda:N``.
    graph_steps
        Steps that are launched as one graph; 0: every kernel by itself. The model does not depend on it.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        z: Floats,
        labels: Labels,
        counts: Labels,
        importance: npt.NDArray[np.float64],
        seed: int,
        device: str,
        *,
        graph_steps: int = GRAPH_STEPS,
    ) -> None:
        self.device = cuda_device.indexed(torch.device(device))
        self.graph_steps = graph_steps
        self._memory: list[torch.Tensor] = []  # what addresses point into
        super().__init__(
            config, z, labels, counts, importance, seed, "float32", 1,
            share=_native.cuda_train_rows, tile=TILE,
        )  # fmt: skip
        self._scratch = torch.empty(
            _native.cuda_train_scratch_bytes(self.params), dtype=torch.uint8, device=self.device
        )

    def _on_device(self, array: npt.NDArray[Any]) -> torch.Tensor:
        # Older versions of torch know no unsigned numbers of 32 bits.
        plain = array.view(np.int32) if array.dtype == np.uint32 else array
        return torch.from_numpy(plain).to(self.device)

    def _keep(self, array: npt.NDArray[Any], kind: type[Any]) -> int:
        self._memory.append(self._on_device(np.ascontiguousarray(array, kind)))
        return self._memory[-1].data_ptr()

    def _train(
        self, table: Floats, state: Floats, losses: Losses, first: int, report: Callable[[int, float], None]
    ) -> None:
        steps, weights = self._on_device(table), self._on_device(state)
        sums = torch.zeros(len(losses), dtype=torch.float64, device=self.device)
        self.params.steps, self.params.state = steps.data_ptr(), weights.data_ptr()
        self.params.losses = sums.data_ptr()
        call = _native.CudaTrainCall(
            params=self.params, device=self.device.index, graph_steps=self.graph_steps,
            scratch=self._scratch.data_ptr(), losses=losses.ctypes.data,
            stream=cuda_device.stream_of(self.device),
        )  # fmt: skip
        cuda_device.checked(_native.cuda_train, call, first, len(losses), course.REPORT_EVERY, report)
        state[:] = weights.cpu().numpy()


def refuses(config: DiffusionConfig, device: str, latent: int) -> str | None:
    """Return why the trainer cannot train a configuration on a CUDA device, or None if it can.

    Parameters
    ----------
    config
        Network and training.
    device
        ``cuda`` or ``cuda:N``.
    latent
        Numbers of a row K.
    """
    place = torch.device(device)
    if reason := cuda_device.unavailable(place):
        return reason
    params = _native.TrainParams(
        latent=latent, hidden=config.hidden, layers=config.layers, share=_native.cuda_train_rows
    )
    if _native.cuda_train_shared_bytes(params) > cuda_device.shared_limit(place):
        return (
            f"{counted(latent, 'number')} of a row, width {config.hidden} and "
            f"{counted(config.layers, 'layer')} do not fit the shared memory of {device}"
        )
    return None
