"""Does the trained denoiser know more than the Gaussian it started from? Asked on rows it has not seen.

With v-prediction in whitened space the shared-covariance Gaussian is the denoiser that answers zero, so its
loss is known in closed form. On held-out rows the trained one is compared with it, per band of times and per
shot group. Where its answer f is worse, the gain of least squares, ``<v, f> / <f, f>``, which is half or less
there, holds it back: the sampler multiplies f by the gain of its step and class, and with a gain of zero
draws the class Gaussian. So a model is never worse than the Gaussian on these rows.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.learned import NOTHING, in_words
from ldmlr.diffusion.schedule import make_schedule
from ldmlr.groups import GROUPS, ShotGroups

if TYPE_CHECKING:
    from ldmlr.diffusion.denoiser import Denoiser

# Bands of time, equally wide, and the least number of noisy rows that each is measured with.
BANDS, MEASURED = 8, 4096
# Classes with fewer rows keep all of them for training; of large ones no more than so many are held out.
SMALLEST, LARGEST = 20, 64
# A loss this close to the Gaussian's is no better than it.
LEVEL = 0.995
SEED = 0x4E1D

Labels = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]


def hold_out(labels: Labels, counts: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which rows ``[N]`` are kept from training: a share of each class that is large enough."""
    held = np.zeros(len(labels), bool)
    if not share:
        return held
    random = np.random.default_rng([SEED, seed])
    for label in range(len(counts)):
        own = np.flatnonzero(labels == label)
        if len(own) >= SMALLEST:
            held[random.permutation(own)[: min(max(1, round(share * len(own))), LARGEST)]] = True
    return held


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """What was found on held-out rows.

    Attributes
    ----------
    document
        ``loss_over_gaussian``, ``bands``, ``groups`` and ``rows`` as plain data: ratios of the loss of what
        is drawn to that of the class Gaussian, None where there is nothing to measure.
    gain
        Per band and class ``[B, C]``, None where all are one.
    """

    document: dict[str, Any]
    gain: Array | None

    def at(self, t: Array) -> Array | None:
        """Return the gain at the times of a solver's steps ``[S, C]``."""
        if self.gain is None:
            return None
        found: Array = self.gain[np.clip((t * BANDS).astype(int), 0, BANDS - 1)]
        return found

    def words(self) -> str:
        """Return the finding in words."""
        return in_words(self.document)


def examine(
    network: Denoiser,
    z: npt.NDArray[np.float32],
    labels: Labels,
    counts: npt.NDArray[np.int64],
    importance: Array,
    config: DiffusionConfig,
) -> HeldOut:
    """Compare a trained denoiser with the class Gaussian.

    Parameters
    ----------
    network
        On the CPU.
    z, labels
        Held-out rows in the space of the diffusion ``[M, K]`` and their classes.
    counts
        Training rows per class ``[C]``.
    importance
        How much the error on each axis counts ``[K]``.
    config
        Of the training.
    """
    if not len(labels) or config.prediction != "v" or config.transform != "whitened":
        return HeldOut({**NOTHING, "rows": len(labels)}, None)
    group = _groups(counts)
    sums = _sums(network, z, labels, group, importance, config)
    gain = _gains(sums, np.bincount(group[labels], minlength=len(GROUPS)))
    error = sums["vv"] - 2 * gain * sums["vf"] + gain**2 * sums["ff"]
    total = float(error.sum() / sums["vv"].sum())
    if total > LEVEL:
        gain, error, total = np.zeros_like(gain), sums["vv"], 1.0
    document = {
        "loss_over_gaussian": total,
        "bands": [_ratio(error[band], sums["vv"][band]) for band in range(BANDS)],
        "groups": {
            name: _ratio(error[:, at], sums["vv"][:, at]) for at, name in enumerate(GROUPS)
        },
        "rows": len(labels),
    }  # fmt: skip
    return HeldOut(document, None if (gain == 1).all() else gain[:, group])


def _groups(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the shot group of each class ``[C]`` as a number."""
    masks = ShotGroups().masks(counts)
    return np.select([masks[name] for name in GROUPS], list(range(len(GROUPS)))).astype(np.int64)


def _sums(
    network: Denoiser,
    z: npt.NDArray[np.float32],
    labels: Labels,
    group: npt.NDArray[np.int64],
    importance: Array,
    config: DiffusionConfig,
) -> dict[str, Array]:
    """Return the weighted sums of v v, v f and f f per band and shot group ``[B, G]``."""
    import torch

    schedule = make_schedule(config.noise_schedule)
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.from_numpy(importance)
    # Few rows are noised many times over: all at once, as a pass of the network over three rows costs as
    # much as over hundreds.
    passes = -(-MEASURED // len(labels))
    rows, classes = torch.from_numpy(z).repeat(passes, 1), torch.from_numpy(labels).repeat(passes)
    groups = np.tile(group[labels], passes)
    sums = {name: np.zeros((BANDS, len(GROUPS))) for name in ("vv", "vf", "ff")}
    for band in range(BANDS):
        drawn = [
            (
                torch.rand(len(labels), generator=generator, dtype=torch.float64),
                torch.randn(z.shape, generator=generator),
            )
            for _ in range(passes)
        ]
        t = (band + torch.cat([time for time, _ in drawn])) / BANDS
        eps = torch.cat([noise for _, noise in drawn])
        alpha = torch.from_numpy(schedule.alpha(t.numpy())).float()[:, None]
        sigma = torch.from_numpy(schedule.sigma(t.numpy())).float()[:, None]
        v = alpha * eps - sigma * rows
        with torch.no_grad():
            f = network(alpha * rows + sigma * eps, t.float(), classes)
        for name, product in (("vv", v * v), ("vf", v * f), ("ff", f * f)):
            value = (product.double() @ weight).numpy()
            sums[name][band] += np.bincount(groups, value, minlength=len(GROUPS))
    return sums


def _gains(sums: dict[str, Array], rows: npt.NDArray[np.int64]) -> Array:
    """Return the gain per band and group ``[B, G]``.

    A group without rows has that of the next larger classes.
    """
    vf, ff = sums["vf"], sums["ff"]
    gain = np.clip(np.divide(vf, ff, out=np.ones_like(vf), where=ff > 0), 0.0, 1.0)
    # Above a half, f as it is has the smaller error of the two: ``|v - f|^2 < |v|^2``.
    gain = np.where(gain > 0.5, 1.0, gain)
    for at in range(1, len(GROUPS)):
        if not rows[at]:
            gain[:, at] = gain[:, at - 1]
    return gain


def _ratio(error: Array, gaussian: Array) -> float | None:
    return float(error.sum() / gaussian.sum()) if gaussian.sum() > 0 else None
