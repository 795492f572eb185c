"""A Gaussian per class with shrunken covariance: the plain generator that diffusion has to beat.

A class of n rows, views counted, has their mean and the covariance ``w S_c + (1 - w) S`` with
``w = n / (n + 64)``: S_c its own, S the one shared by all classes (that of the whitened transform), or what
it borrows from large classes (`ldmlr.generation.generators.borrowed`).
Row i is a function of the model, its label and (seed, i) alone: noise is counter-based and products run
over tiles of fixed size, aligned to the global row number. Memory: C D^2 numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ldmlr.config import config_hash
from ldmlr.device import torch_threads
from ldmlr.diffusion.statistics import CHUNK, Block
from ldmlr.diffusion.transform import fit_transform
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.generators.borrowed import borrow
from ldmlr.generation.generators.pool import Pool
from ldmlr.generation.train_rows import TrainRows
from ldmlr.sampler.config import SampleConfig
from ldmlr.sampler.noise import standard_normal
from ldmlr.sampler.tiles import aligned_tiles
from ldmlr.sampler.widen import class_scales

SHRINKAGE_ROWS = 64
BORROWED = "gaussian-borrowed"
TILE = 512
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class ClassGaussians:
    """A fitted Gaussian per class.

    Attributes
    ----------
    mean
        ``[C, D]``.
    factor
        Lower triangular ``[C, D, D]``: the root of each covariance.
    floor
        Smallest value of a feature: 0 if no training feature is negative, else -inf.
    """

    mean: Floats
    factor: Floats
    floor: float

    @classmethod
    def fit(
        cls,
        blocks: Sequence[Block],
        counts: Labels,
        class_names: Sequence[str] | None = None,
        borrowed: bool = False,
    ) -> ClassGaussians:
        """Fit to training rows: the clean rows first, then each view, as (features, labels) pairs.

        Parameters
        ----------
        blocks
            Features ``[N, D]`` and labels ``[N]``.
        counts
            Clean rows per class ``[C]``, for the weights behind S.
        class_names
            For error messages.
        borrowed
            Rare classes borrow mean and covariance from the nearest large ones.
        """
        shared = fit_transform("whitened", blocks, counts, class_names)
        classes, dim = shared.mean.shape
        scatter, rows = np.zeros((classes, dim, dim)), np.zeros(classes)
        for features, labels in blocks:
            for start in range(0, len(labels), CHUNK):
                part = slice(start, start + CHUNK)
                residual = np.asarray(features[part], np.float64) - shared.mean[labels[part]]
                for label in np.unique(labels[part]):
                    own = residual[labels[part] == label]
                    scatter[label] += own.T @ own
                    rows[label] += len(own)
        mean, common = shared.mean, shared.scale @ shared.scale.T
        weight = (rows / (rows + SHRINKAGE_ROWS))[:, None, None]
        covariance = weight * scatter / rows[:, None, None] + (1 - weight) * common
        if borrowed:
            mean, common = borrow(mean, covariance, shared.scale, counts)
            covariance = weight * scatter / rows[:, None, None] + (1 - weight) * common
        factor = np.asarray(np.linalg.cholesky(covariance), np.float64)
        assert isinstance(shared.floor, float)
        return cls(mean, factor, shared.floor)

    def sample(
        self, labels: Labels, *, scale: float | Floats = 1.0, seed: int = 0, first_row: int = 0
    ) -> npt.NDArray[np.float32]:
        """Draw one row per label.

        Parameters
        ----------
        labels
            Class of each row ``[N]``.
        scale
            Widening around the class mean, one number or one per class ``[C]``.
        seed, first_row
            Row i is a pure function of (model, label, scale, seed, first_row + i).

        Returns
        -------
        Features ``[N, D]`` float32.
        """
        factors = np.broadcast_to(np.asarray(scale, np.float64), len(self.mean))
        out = np.empty((len(labels), self.mean.shape[1]), np.float32)
        for start, inside, part in aligned_tiles(first_row, len(labels), TILE):
            noise = standard_normal(seed, start, TILE, self.mean.shape[1]).astype(np.float64)
            wanted = labels[part]
            for label in np.unique(wanted):
                at = np.flatnonzero(wanted == label)
                rows = self.mean[label] + factors[label] * _product(noise, self.factor[label].T)
                out[part.start + at] = np.maximum(rows[inside.start + at], self.floor)
        return out


class Gaussian(Generator):
    """Class Gaussians of training rows and their views, widened by a factor around each class mean.

    Parameters
    ----------
    rows
        Training rows; their views count for mean and covariance.
    name
        ``gaussian``, ``gaussian-wide``, which differs in the widening that is the default, or
        ``gaussian-borrowed``.
    config
        Its ``scale``, set, and ``class_scale``.
    fitted
        The Gaussians of the same rows, if they were fitted before.

    Raises
    ------
    UsageError
        A class is widened that is not there.
    """

    backend = "gaussian"

    def __init__(
        self, rows: TrainRows, name: str, config: SampleConfig, fitted: ClassGaussians | None = None
    ) -> None:
        assert config.scale is not None
        self.name, self._rows = name, rows
        self.dim, self.num_classes = rows.features.shape[1], rows.num_classes
        factors = class_scales(config.class_scale, config.scale, rows.num_classes, rows.class_names)
        self.scale = np.full(rows.num_classes, config.scale) if factors is None else factors
        if fitted is None:
            fitted = ClassGaussians.fit(rows.blocks, rows.counts, rows.class_names, borrowed=name == BORROWED)
        self.fitted = fitted

    def drawing_as(self, config: SampleConfig) -> Gaussian:
        return Gaussian(self._rows, self.name, config, self.fitted)

    def kernels(self, seed: int = 0) -> str:
        return "PyTorch cpu float64"

    def fingerprint(self) -> str:
        rows = Pool.of(self._rows, clean=True, views=True)
        return config_hash(self.name, SHRINKAGE_ROWS, rows.digest, self.scale.tolist())

    def _draw(self, labels: Labels, seed: int, first_row: int) -> npt.NDArray[np.float32]:
        return self.fitted.sample(labels, scale=self.scale, seed=seed, first_row=first_row)


def _product(one: Floats, other: Floats) -> Floats:
    """Return a matrix product computed on one thread: the last bits depend on the number of threads."""
    import torch

    with torch_threads(1):
        found: Floats = (torch.from_numpy(one) @ torch.from_numpy(np.ascontiguousarray(other))).numpy()
    return found
