"""The judges of the quality gate: scores of rows by class prototypes, or by a classifier's head.

They compute on one thread: the last bits of a product depend on the number of threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.config import config_hash
from ldmlr.device import torch_threads
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import from_stored
from ldmlr.store import StoredHead

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
# rows [n, D] and labels [n] -> score [n], larger is better
Score = Callable[[Floats, Labels], npt.NDArray[np.float64]]


def prototypes(model: LatentDiffusion) -> Score:
    """Score: how much nearer a row is to its own class mean than to any other, in the whitened space."""
    inverse = torch.from_numpy(np.linalg.inv(model.transform.scale).T.copy())
    means = torch.from_numpy(model.transform.class_means(model.num_classes)) @ inverse
    squares = means.square().sum(dim=1)

    def score(rows: Floats, labels: Labels) -> npt.NDArray[np.float64]:
        own_class = torch.from_numpy(labels)[:, None]
        with torch_threads(1), torch.inference_mode():
            nearness = 2 * (torch.from_numpy(rows).double() @ inverse) @ means.T - squares
            own = nearness.gather(1, own_class)[:, 0]
            others = nearness.scatter(1, own_class, -torch.inf).amax(dim=1)
            return np.asarray((own - others).numpy())

    return score


def confidence(judge: StoredHead, counts: Labels) -> tuple[Score, str]:
    """Score: log probability of a row's class by a stored head, corrected for class frequencies.

    Returns
    -------
    The score, and a hash of what it depends on.
    """
    stored = from_stored(judge).eval()
    weights = {name: value.numpy() for name, value in stored.state_dict().items()}
    key = config_hash({name: value.tolist() for name, value in weights.items()})
    head = copy.deepcopy(stored)
    offset = torch.from_numpy(log_prior(counts))

    def score(rows: Floats, labels: Labels) -> npt.NDArray[np.float64]:
        with torch_threads(1), torch.inference_mode():
            logits = head(torch.from_numpy(rows)).double() - offset
            own = torch.log_softmax(logits, dim=1).gather(1, torch.from_numpy(labels)[:, None])
            return np.asarray(own[:, 0].numpy())

    return score, key
