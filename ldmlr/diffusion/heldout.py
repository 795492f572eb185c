"""Does the trained denoiser know more than the Gaussian it started from? Asked on rows it has not seen.

With v-prediction in whitened space the shared-covariance Gaussian is the denoiser that answers zero, so its
loss is known in closed form. On held-out rows the trained one is compared with it, per band of times and per
shot group. Where its answer f is worse, the gain of least squares, ``<v, f> / <f, f>``, which is half or less
there, holds it back: the sampler multiplies f by the gain of its step and class, and with a gain of zero
draws the class Gaussian. So a model is never worse than the Gaussian on these rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.device import one_blas_thread
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.learned import NOTHING, in_words
from ldmlr.diffusion.schedule import make_schedule
from ldmlr.groups import GROUPS, ShotGroups

# Bands of time, equally wide, the least number of noisy rows that each is measured with, and its times.
BANDS, MEASURED, TIMES = 8, 4096, 64
# Noisy rows that are worked on together: they stay in the cache.
CHUNK = 1024
# Classes with fewer rows keep all of them for training; of large ones no more than so many are held out.
SMALLEST, LARGEST = 20, 64
# A loss this close to the Gaussian's is no better than it.
LEVEL = 0.995
SEED = 0x4E1D

Labels = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
# Noisy rows [N, K], their times [N] and classes [N] -> the network's answer [N, K].
Predict = Callable[[Floats, Array, Labels], Floats]


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
    predict: Predict,
    z: Floats,
    labels: Labels,
    counts: npt.NDArray[np.int64],
    importance: Array,
    config: DiffusionConfig,
) -> HeldOut:
    """Compare a trained denoiser with the class Gaussian.

    Parameters
    ----------
    predict
        The denoiser (`ldmlr.diffusion.weights.Weights.predict`).
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
    sums = _sums(predict, z, labels, group, importance, config)
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
    predict: Predict,
    z: Floats,
    labels: Labels,
    group: npt.NDArray[np.int64],
    importance: Array,
    config: DiffusionConfig,
) -> dict[str, Array]:
    """Return the weighted sums of v v, v f and f f per band and shot group ``[B, G]``."""
    schedule, random = make_schedule(config.noise_schedule), np.random.default_rng(SEED)
    # Few rows are noised many times over, always with a noise and its opposite: what is odd in it drops out,
    # which is most of the chance in a sum of v f.
    rows = np.tile(np.arange(len(labels)), -(-MEASURED // (2 * len(labels))))
    groups = group[labels]
    sums = {name: np.zeros((BANDS, len(GROUPS))) for name in ("vv", "vf", "ff")}
    with one_blas_thread():
        for band in range(BANDS):
            times = (band + (np.arange(TIMES) + random.random(TIMES)) / TIMES) / BANDS
            which = random.permutation(len(rows)) % TIMES
            for at in range(0, len(rows), CHUNK):
                own, t = rows[at : at + CHUNK], times[which[at : at + CHUNK]]
                clean = z[own]
                noise = random.standard_normal(clean.shape, np.float32)
                alpha = schedule.alpha(t).astype(np.float32)[:, None]
                sigma = schedule.sigma(t).astype(np.float32)[:, None]
                for eps in (noise, -noise):
                    v = alpha * eps - sigma * clean
                    f = predict(alpha * clean + sigma * eps, t, labels[own])
                    for name, product in (("vv", v * v), ("vf", v * f), ("ff", f * f)):
                        value = product.astype(np.float64) @ importance
                        sums[name][band] += np.bincount(groups[own], value, minlength=len(GROUPS))
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
