"""Heads that are written down: discriminant, nearest class mean, tau-normalisation, nearest neighbours.

**Shared-covariance discriminant** with a uniform prior: ``w_c = S^-1 mu_c``, ``b_c = -mu_c . w_c / 2``, on
standardised features; S is the mean over classes of their covariances, shrunk:
``(1 - a) S + a mean(diag S) I``.
With every row alike in place of every class it was 2.6 points worse on CIFAR-10-LT under an ImageNet
encoder. **Nearest class mean** is the same with a = 1, on features as they are. **Tau-normalisation** (Kang
et al., ICLR 2020): class weights of a plain linear head over ``norm^tau``, on standardised features, without
biases. **Nearest neighbours**: votes of the k nearest rows, each ``1 / n_c``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.heads.linear import LinearPath, weighted_counts
from ldmlr.heads.modules import Head, KNNHead, LinearHead, linear_head
from ldmlr.heads.spec import HeadSpec
from ldmlr.heads.standard import Standard
from ldmlr.heads.training_rows import TrainingRows

BLOCK = 8192


class DiscriminantPath:
    """Discriminants of some rows, for one shrinkage after the other; the statistics are counted once.

    Parameters
    ----------
    rows, weights
        What they are fitted to, and what each row weighs.
    """

    def __init__(self, rows: TrainingRows, weights: npt.NDArray[np.float64]) -> None:
        self.standard = Standard.of(rows.features)
        count = np.bincount(rows.labels, weights, rows.num_classes)
        self.mean = _class_means(rows, weights, self.standard)
        share = weights / np.maximum(count, 1e-12)[rows.labels]
        covariance = np.zeros((rows.dim, rows.dim))
        for at in range(0, len(rows.labels), BLOCK):
            part = slice(at, at + BLOCK)
            mean = self.mean[rows.labels[part]].astype(np.float32)
            residual = self.standard.apply(rows.features[part]) - mean
            residual *= np.sqrt(share[part])[:, None].astype(np.float32)
            covariance += residual.T @ residual
        # Once diagonal, a shrinkage costs two products.
        self.variances, self.axes = np.linalg.eigh(covariance / max(share.sum(), 1e-12))

    def fit(self, spec: HeadSpec, *, fine: bool = True) -> LinearHead:
        """Return the discriminant with the shrinkage of a specification."""
        assert spec.shrinkage is not None
        # A hair of the identity keeps it invertible without shrinkage, where dimensions outnumber rows.
        share = max(spec.shrinkage, 1e-9)
        size = float(self.variances.mean()) or 1.0
        shrunk = (1 - share) * np.maximum(self.variances, 0) + share * size
        weight = (self.mean @ self.axes / shrunk) @ self.axes.T
        bias = -0.5 * np.einsum("cd,cd->c", weight, self.mean)
        return linear_head(*self.standard.fold(torch.from_numpy(weight), torch.from_numpy(bias)))


class ClassMeanPath:
    """The nearest class mean of some rows: there is nothing to choose.

    ``-|x - mu|^2 / 2 = mu . x - |mu|^2 / 2`` up to a term that all classes share: a linear head.
    """

    def __init__(self, rows: TrainingRows, weights: npt.NDArray[np.float64]) -> None:
        self.mean = _class_means(rows, weights, None)

    def fit(self, spec: HeadSpec, *, fine: bool = True) -> LinearHead:
        """Return the head."""
        bias = -0.5 * np.square(self.mean).sum(axis=1)
        return linear_head(torch.from_numpy(self.mean), torch.from_numpy(bias))


class NormalisedPath:
    """Tau-normalised heads of some rows: of one plain linear head for each weight decay."""

    def __init__(self, rows: TrainingRows, weights: npt.NDArray[np.float64]) -> None:
        self.path = LinearPath(rows, weights)
        self._plain: tuple[HeadSpec, bool] | None = None

    def fit(self, spec: HeadSpec, *, fine: bool = True) -> LinearHead:
        """Return the head with the weight decay and tau of a specification."""
        plain = HeadSpec("linear", "cross-entropy", spec.weight_decay)
        if self._plain != (plain, fine):
            self.path.fit(plain, fine=fine)
            self._plain = (plain, fine)
        weight = self.path.theta[:, :-1]
        scaled = over_norms(weight, 1.0 if spec.tau is None else spec.tau)
        return linear_head(*self.path.standard.fold(scaled, torch.zeros(len(scaled))))


def over_norms(weight: torch.Tensor, tau: float) -> torch.Tensor:
    """Return class weights ``[C, D]`` over their norm to the power `tau`."""
    norm = weight.norm(dim=1, keepdim=True)
    # A class weight of zeros has no direction: it stays as it is.
    return weight / torch.where(norm > 0, norm, 1.0) ** tau


class NeighbourPath:
    """Nearest neighbours among some rows; a head holds them all."""

    def __init__(self, rows: TrainingRows, weights: npt.NDArray[np.float64]) -> None:
        self.standard = Standard.of(rows.features)
        kept = weights > 0
        vote = weights / weighted_counts(rows, weights)[rows.labels]
        mean, scale = self.standard.tensors()
        self.parts = (
            torch.from_numpy(self.standard.apply(rows.features[kept])),
            torch.from_numpy(rows.labels[kept]), torch.from_numpy(vote[kept]).float(), mean, scale,
        )  # fmt: skip
        self.num_classes = rows.num_classes
        self.known: dict[bytes, torch.Tensor] = {}

    def fit(self, spec: HeadSpec, *, fine: bool = True) -> Head:
        """Return the head with the number of neighbours of a specification.

        Heads that are compared (not `fine`) look up the neighbours of rows that one of them has met.
        """
        assert spec.neighbours is not None
        known = None if fine else self.known
        return KNNHead(*self.parts, self.num_classes, spec.neighbours, known).eval()


def _class_means(
    rows: TrainingRows, weights: npt.NDArray[np.float64], standard: Standard | None
) -> npt.NDArray[np.float64]:
    """Return weighted class means ``[C, D]``, of standardised features if asked; zeros without rows."""
    total = np.zeros((rows.num_classes, rows.dim))
    for at in range(0, len(rows.labels), BLOCK):
        block = rows.features[at : at + BLOCK]
        labels, share = rows.labels[at : at + BLOCK], weights[at : at + BLOCK]
        for label in np.unique(labels):
            own = labels == label
            total[label] += share[own] @ block[own]
    mean: npt.NDArray[np.float64] = (
        total / np.maximum(np.bincount(rows.labels, weights, rows.num_classes), 1e-12)[:, None]
    )
    return mean if standard is None else (mean - standard.mean) / standard.spread
