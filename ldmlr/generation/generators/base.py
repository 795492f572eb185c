"""What every generator is: rows that are a function of their class, a seed and their number alone."""

from __future__ import annotations

import abc

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import check_first_row, check_labels, check_seed
from ldmlr.sampler.config import SampleConfig

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Generator(abc.ABC):
    """A fitted generator of rows.

    Attributes
    ----------
    name
        Its key in `ldmlr.generation.generators.catalogue.GENERATORS`.
    dim, num_classes
        Feature dimensions D and classes C.
    backend
        What computes: ``numpy``, or the backend of a diffusion model.
    """

    name: str
    dim: int
    num_classes: int
    backend: str = "numpy"

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user on the classes that were drawn so far."""
        return ()

    def kernels(self, seed: int = 0) -> str:
        """Return what computes the rows of a seed: they are the same to the bit where this is."""
        return self.backend

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of all that the rows depend on beside labels, seed and row numbers."""

    def drawing_as(self, config: SampleConfig) -> Generator:
        """Return what was fitted with other settings for drawing: itself, where there are none.

        Parameters
        ----------
        config
            Settings with no value left open, see `ldmlr.generation.generators.catalogue.resolved`.
        """
        return self

    def draw(self, labels: npt.ArrayLike, seed: int = 0, first_row: int = 0) -> Floats:
        """Draw one row per label.

        Parameters
        ----------
        labels
            Class of each row ``[N]``, 0 .. C - 1.
        seed
            0 .. 2^64 - 1.
        first_row
            Global number of the first row: row i is a pure function of (generator, label, seed,
            first_row + i), so the same rows come out whatever the batch split.

        Returns
        -------
        Features ``[N, D]`` float32.

        Raises
        ------
        UsageError
            A label, a seed or a row number that there is not.
        """
        classes = check_labels(labels, self.num_classes)
        return self._draw(classes, check_seed(seed), check_first_row(first_row, len(classes)))

    @abc.abstractmethod
    def _draw(self, labels: Labels, seed: int, first_row: int) -> Floats:
        """Draw rows of labels, a seed and row numbers that were checked."""
