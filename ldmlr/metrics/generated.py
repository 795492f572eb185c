"""Quality of generated rows: Fréchet distance, scatter, precision and coverage, memorisation.

All figures compare rows in feature space, in float64. None of them says that a head gets better
from the rows; they show what is wrong when it does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError
from ldmlr.metrics.neighbours import Floats, as_rows, distance_blocks, nearest


def frechet_gaussians(mean_a: Floats, cov_a: Floats, mean_b: Floats, cov_b: Floats) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance of two Gaussians.

    ``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)`` (Dowson and Landau, 1982). The root is
    taken of a symmetric matrix, so singular covariances do no harm.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    middle = root @ cov_b @ root
    cross = np.sqrt(np.clip(np.linalg.eigvalsh((middle + middle.T) / 2), 0, None)).sum()
    gap = float(np.square(np.asarray(mean_a) - mean_b).sum())
    return max(0.0, gap + float(np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def frechet_distance(real: npt.ArrayLike, generated: npt.ArrayLike) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to two sets of rows, both covariances used.

    Parameters
    ----------
    real, generated
        Features ``[n, D]`` and ``[m, D]``, at least two rows each.
    """
    a = as_rows(real, "real rows")
    b = as_rows(generated, "generated rows", a.shape[1])
    if min(len(a), len(b)) < 2:
        raise InputError(f"Fréchet distance: needs two rows of each kind, not {len(a)} and {len(b)}")
    moments = [(rows.mean(axis=0), np.cov(rows, rowvar=False).reshape(2 * rows.shape[1:])) for rows in (a, b)]
    return frechet_gaussians(*moments[0], *moments[1])


def class_means(features: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int) -> Floats:
    """Return the mean row of each class, ``[C, D]``; zeros for a class without rows."""
    rows, target = as_rows(features, "features"), np.asarray(labels)
    sums = np.zeros((num_classes, rows.shape[1]))
    np.add.at(sums, target, rows)
    means: Floats = sums / np.maximum(np.bincount(target, minlength=num_classes), 1)[:, None]
    return means


def scatter(
    features: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int, means: Floats | None = None
) -> Floats:
    """Return the mean squared distance of each class's rows to a mean, ``[C]``.

    Parameters
    ----------
    features, labels
        Rows ``[N, D]`` and ``[N]``.
    num_classes
        Classes C.
    means
        The means to measure from, ``[C, D]``. By default the rows' own: the sum is then divided by n - 1, so
        that classes of few rows are not taken for narrow, and is NaN below two rows.
    """
    rows, target = as_rows(features, "features"), np.asarray(labels)
    centres = class_means(rows, target, num_classes) if means is None else means
    squared = np.bincount(target, np.square(rows - centres[target]).sum(axis=1), minlength=num_classes)
    free = np.bincount(target, minlength=num_classes) - int(means is None)
    spread: Floats = np.divide(squared, free, out=np.full(num_classes, np.nan), where=free > 0)
    return spread


def scatter_ratio(
    real: npt.ArrayLike,
    real_labels: npt.ArrayLike,
    generated: npt.ArrayLike,
    generated_labels: npt.ArrayLike,
    num_classes: int,
    around_real: bool = False,
) -> Floats:
    """Return per class how much wider the generated rows are than the real ones, ``[C]``.

    The ratio of `scatter`; 1 is as wide, NaN where either has too few rows or no width.

    Parameters
    ----------
    around_real
        Measure both from the real class means, so that a mean that moved counts as width. This is the way
        to compare test rows with training rows, whose means differ in rare classes.
    """
    means = class_means(real, real_labels, num_classes) if around_real else None
    wide = scatter(generated, generated_labels, num_classes, means)
    base = scatter(real, real_labels, num_classes, means)
    ratio: Floats = np.divide(wide, base, out=np.full(num_classes, np.nan), where=base > 0)
    return ratio


def prdc(
    real: npt.ArrayLike, generated: npt.ArrayLike, k: int = 5, limit: int | None = 10_000, seed: int = 0
) -> dict[str, float]:
    """Return precision, recall, density and coverage (Naeem et al., ICML 2020).

    With balls around each row that reach to its k-th neighbour: *precision* is the share of generated
    rows inside a ball of a real row, *recall* the share of real rows inside a ball of a generated row,
    *density* the mean number of real balls a generated row lies in, over k, and *coverage* the share of real
    rows with a generated row in their ball.

    Parameters
    ----------
    real, generated
        Features ``[n, D]`` and ``[m, D]``, more than k rows each.
    k
        Neighbours that set the radius.
    limit
        Rows of each kind, at most; larger sets are drawn from at random, as cost grows with n times m.
    seed
        Seed of that draw.
    """
    a = as_rows(real, "real rows")
    b = as_rows(generated, "generated rows", a.shape[1])
    a, b = _sample(a, limit, seed), _sample(b, limit, seed + 1)
    radius_a = np.square(nearest(a, a, k, same=True)[0][:, -1])
    radius_b = np.square(nearest(b, b, k, same=True)[0][:, -1])
    # Distances come from a product of matrices: a copy on the rim of a ball must not fall out by rounding.
    slack = 1e-12 * float(np.square(a - a.mean(axis=0)).sum(axis=1).max())
    inside = np.zeros(len(b))
    covered = np.zeros(len(a), dtype=bool)
    recalled = np.zeros(len(a), dtype=bool)
    for chosen, squared in distance_blocks(b, a):
        within = squared <= radius_a + slack
        inside[chosen] = within.sum(axis=1)
        covered |= within.any(axis=0)
        recalled |= (squared <= radius_b[chosen, None] + slack).any(axis=0)
    return {
        "precision": float((inside > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(inside.mean() / k),
        "coverage": float(covered.mean()),
    }


def memorisation(
    train: npt.ArrayLike,
    generated: npt.ArrayLike,
    holdout: npt.ArrayLike | None = None,
    limit: int | None = 20_000,
    seed: int = 0,
) -> dict[str, float]:
    """Check whether generated rows are copies of training rows.

    Parameters
    ----------
    train
        Rows the generator was trained on, ``[n, D]``, at least two. All of them are searched.
    generated
        Rows to judge, ``[m, D]``.
    holdout
        Rows that no generator saw, as a yardstick.
    limit, seed
        Of the judged rows, at most so many are drawn at random.

    Returns
    -------
    dict
        ``distance``: median distance of a generated row to its nearest training row, and
        ``train_distance``: of a training row to its nearest other one. ``closer``: share of
        generated rows nearer to a training row than that row's own nearest neighbour is (Alaa et al., ICML
        2022: the rows that are not authentic). ``duplicates``: share with distance zero. With `holdout`, also
        ``holdout_distance`` and ``holdout_closer``: generated rows well below them are too near.
    """
    base = as_rows(train, "training rows")
    own = nearest(base, base, 1, same=True)[0][:, 0]
    found = {"train_distance": float(np.median(own))}
    for prefix, rows in (("", generated), ("holdout_", holdout)):
        if rows is None:
            continue
        judged = _sample(as_rows(rows, f"{prefix or 'generated '}rows", base.shape[1]), limit, seed)
        distance, index = (column[:, 0] for column in nearest(judged, base, 1))
        found[f"{prefix}distance"] = float(np.median(distance))
        found[f"{prefix}closer"] = float((distance < own[index]).mean())
        if not prefix:
            found["duplicates"] = float((distance == 0).mean())
    return found


def quality(
    real: npt.ArrayLike,
    real_labels: npt.ArrayLike,
    generated: npt.ArrayLike,
    generated_labels: npt.ArrayLike,
    num_classes: int,
    holdout: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Return all figures of this module for generated rows beside the encoded rows they stand for.

    The sets differ in their class frequencies, so Fréchet distance and scatter are per class: ``[C]``, None
    for a class with fewer than two rows of either kind.
    """
    a, b = as_rows(real, "real rows"), as_rows(generated, "generated rows")
    y_a, y_b = np.asarray(real_labels), np.asarray(generated_labels)
    ratio = scatter_ratio(a, y_a, b, y_b, num_classes)
    distances: list[float | None] = []
    for label in range(num_classes):
        pair = a[y_a == label], b[y_b == label]
        distances.append(frechet_distance(*pair) if min(map(len, pair)) > 1 else None)
    return {
        "frechet": distances,
        "scatter_ratio": [None if value != value else float(value) for value in ratio],
        "prdc": prdc(a, b),
        "memorisation": memorisation(a, b, holdout),
    }


def _sample(rows: Floats, limit: int | None, seed: int) -> Floats:
    if limit is None or len(rows) <= limit:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), limit, replace=False)
    return rows[np.sort(chosen)]
