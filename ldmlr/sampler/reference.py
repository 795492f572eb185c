"""The reference sampler: network and transform in plain PyTorch, the twin of every faster one.

Rows are evaluated in aligned tiles (ldmlr/sampler/tiles.py), each on one thread; threads take whole tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, silu

from ldmlr.device import torch_threads
from ldmlr.diffusion.tables import AdaLNTables, DenoiserTables
from ldmlr.sampler.noise import Stream, standard_normal
from ldmlr.sampler.solve import solve
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.sampler.tiles import aligned_tiles

# Rows of a tile, per device type. Smaller wastes less on short calls, larger runs faster.
TILE = {"cpu": 512, "cuda": 4096}

# What `aligned_tiles` yields.
Place = tuple[int, slice, slice]
# first layer's output [N, H], step, labels [N] -> prediction [N, D]
Network = Callable[[Tensor, int, Tensor], Tensor]


def sample(
    spec: SamplerSpec,
    labels: npt.NDArray[np.int64],
    first_row: int = 0,
    *,
    threads: int = 1,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Draw one row per label.

    Parameters
    ----------
    spec
        Denoiser, solver table, transform, guidance and seed.
    labels
        Class of each row ``[N]``.
    first_row
        Global number of the first row.
    threads
        Tiles evaluated at once on the CPU.
    device
        Where to compute.
    precision
        float32, or float64 for the exact twin that faster samplers are measured against.

    Returns
    -------
    Features ``[N, D]`` on the CPU, in `precision`.
    """
    device = torch.device(device)
    tile = TILE[device.type]
    draw = _Tile(spec, device, precision)
    out = torch.empty((len(labels), spec.dim), dtype=precision)

    def run(place: Place) -> None:
        """Fill in the part of the output that lies in a tile."""
        start, inside, part = place
        padded = np.zeros(tile, np.int64)
        padded[inside] = labels[part]
        out[part] = draw(torch.from_numpy(padded).to(device), start)[inside].cpu()

    places = list(aligned_tiles(first_row, len(labels), tile))
    with torch_threads(1), torch.inference_mode():
        if threads == 1 or len(places) == 1 or device.type == "cuda":
            for place in places:
                run(place)
        else:
            _in_threads(run, places, threads)
    return out


def _in_threads(run: Callable[[Place], None], places: list[Place], threads: int) -> None:
    def one(place: Place) -> None:
        with torch.inference_mode():
            run(place)

    # Asking for the thread count makes torch apply it to the new thread.
    with ThreadPoolExecutor(threads, initializer=torch.get_num_threads) as pool:
        try:
            for _ in pool.map(one, places):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class _Tile:
    """Draws one tile of rows."""

    def __init__(self, spec: SamplerSpec, device: torch.device, precision: torch.dtype) -> None:
        self.spec = spec
        self.device, self.precision = device, precision
        self.w_in, self.b_in = self._tensor(spec.tables.w_in), self._tensor(spec.tables.b_in)
        self.network = self._network()
        self.mean, self.scale = self._tensor(spec.mean), self._tensor(spec.scale)
        self.floor = self._tensor(spec.floor) if isinstance(spec.floor, np.ndarray) else spec.floor
        self.psi = None if spec.psi is None else self._tensor(spec.psi)
        self.gain = None if spec.gain is None else self._tensor(spec.gain)
        self.bend = None if spec.bend is None else self._tensor(spec.bend)

    def _tensor(self, array: npt.NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.precision)

    def _network(self) -> Network:
        tables = self.spec.tables
        weights = {name: self._tensor(getattr(tables, name)) for name in tables.__dataclass_fields__}
        if isinstance(tables, DenoiserTables):
            return lambda h, step, labels: additive(weights, h, step, labels)
        assert isinstance(tables, AdaLNTables)
        return lambda h, step, labels: adaln(weights, h, step, labels)

    def _noise(self, start: int, rows: int, stream: Stream, step: int = 0) -> Tensor:
        dim = self.spec.dim if stream == Stream.REMAINDER else self.spec.latent
        return self._tensor(standard_normal(self.spec.seed, start, rows, dim, stream, step))

    def __call__(self, labels: Tensor, start: int) -> Tensor:
        """Return the features of the rows ``start .. start + len(labels) - 1``."""
        spec, rows = self.spec, len(labels)
        null = torch.full_like(labels, spec.num_classes)

        def guided(x: Tensor, step: int) -> Tensor:
            h = torch.addmm(self.b_in, x, self.w_in.T)
            f = self.network(h, step, labels)
            if spec.guidance != 1:
                f_null = self.network(h, step, null)
                f = f_null + spec.guidance * (f - f_null)
            return f if self.gain is None else f * self.gain[step, labels, None]

        noise = self._noise(start, rows, Stream.START)
        x = solve(spec.rows, noise, guided, lambda step: self._noise(start, rows, Stream.SOLVER, step))
        spread = x @ self.scale.T if self.scale.ndim == 2 else x * self.scale
        if self.psi is not None:
            spread = spread + self.psi * self._noise(start, rows, Stream.REMAINDER)
        v = (self.mean[labels] + spec.k * spread).clamp_min(self.floor)
        return v if self.bend is None else v * (self.bend[0, labels] + self.bend[1, labels] * v)


def additive(w: dict[str, Tensor], h: Tensor, step: int, labels: Tensor) -> Tensor:
    """Evaluate the additive denoiser behind its first layer."""
    for layer in range(len(w["w1"])):
        bias = w["bias_step"][step, layer] + w["bias_class"][labels, layer]
        u = torch.addmm(bias, h, w["w1"][layer].T)
        h = h + torch.addmm(w["b2"][layer], silu(u), w["w2"][layer].T)
    return torch.addmm(w["b_out"], silu(h), w["w_out"].T)


def adaln(w: dict[str, Tensor], h: Tensor, step: int, labels: Tensor) -> Tensor:
    """Evaluate the AdaLN denoiser behind its first layer."""
    condition = silu(w["step"][step] + w["class_"][labels])
    for layer in range(len(w["w1"])):
        modulation = torch.addmm(w["b_mod"][layer], condition, w["w_mod"][layer].T)
        scale, shift, gate = modulation.chunk(3, dim=1)
        u = layer_norm(h, (h.shape[1],)) * (1 + scale) + shift
        u = torch.addmm(w["b1"][layer], u, w["w1"][layer].T)
        h = h + gate * torch.addmm(w["b2"][layer], silu(u), w["w2"][layer].T)
    return torch.addmm(w["b_out"], silu(h), w["w_out"].T)
