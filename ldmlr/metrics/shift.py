"""Label shift: from the class frequencies of training to those of testing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def label_shift(logits: npt.ArrayLike, log_prior: npt.ArrayLike, tau: float = 1.0) -> npt.NDArray[np.float64]:
    """Return ``logits - tau * log_prior``: predictions for equally frequent classes.

    Parameters
    ----------
    logits
        Scores of a classifier trained on the long-tailed rows, ``[N, C]``.
    log_prior
        Logarithm of the training class frequencies, ``[C]``.
    tau
        Strength; 1 is the exact correction of a calibrated classifier (Saerens et al., Neural Computation
        2002; Menon et al., ICLR 2021).
    """
    shifted = np.asarray(logits, dtype=np.float64) - tau * np.asarray(log_prior, dtype=np.float64)
    return shifted
