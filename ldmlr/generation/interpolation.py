"""SMOTE and ADASYN of imbalanced-learn, made to work for classes of any size.

Both interpolate between a row and one of its five nearest neighbours of the same class. imbalanced-learn
refuses a class with fewer rows than that: such a class gets as many neighbours as it has, and a class with a
single row, which has none, is repeated. The result says where that happened.

Sources: Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 2002; He et al., "ADASYN:
Adaptive Synthetic Sampling Approach for Imbalanced Learning", IJCNN 2008.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ldmlr.generation.copies import joined, totals
from ldmlr.generation.plan import Counts
from ldmlr.generation.train_rows import Floats, Generated, Labels, TrainRows

NEIGHBOURS = 5


def smote(rows: TrainRows, plan: Counts, seed: int, *, views: bool = False) -> Generated:
    """Interpolate between neighbours of the same class.

    Parameters
    ----------
    rows
        Training rows.
    plan
        Rows to generate per class ``[C]``.
    seed
        Seed of the draws.
    views
        Interpolate between clean rows and augmented views, not between clean rows only.
    """
    features, labels = rows.with_views() if views else (rows.features, rows.labels)
    counts = np.bincount(labels, minlength=rows.num_classes)
    parts = [_repeated(features, labels, plan, counts)]
    neighbours = np.minimum(NEIGHBOURS, counts - 1)
    for k in np.unique(neighbours[(plan > 0) & (counts > 1)]):
        part = np.where(neighbours == k, plan, 0)
        parts.append(_interpolated(features, labels, part, counts, int(k), seed))
    return joined(parts, features.shape[1], _notes(plan, counts))


def adasyn(rows: TrainRows, plan: Counts, seed: int, *, views: bool = False) -> Generated:
    """Interpolate most where the nearest neighbours belong to other classes.

    A class none of whose rows has a neighbour of another class gives ADASYN nothing to weigh: there SMOTE
    takes its place, and the remarks say so. ADASYN rounds per row, so it may give a few rows more or fewer
    than the plan asks for.

    Parameters
    ----------
    rows, plan, seed, views
        As for `smote`.
    """
    from imblearn.over_sampling import ADASYN

    features, labels = rows.with_views() if views else (rows.features, rows.labels)
    counts = np.bincount(labels, minlength=rows.num_classes)
    parts = [_repeated(features, labels, plan, counts)]
    apart = 0
    for number in np.flatnonzero((plan > 0) & (counts > 1)):
        own = np.where(np.arange(len(plan)) == number, plan, 0)
        k = int(min(NEIGHBOURS, counts[number] - 1))
        try:
            sampler = ADASYN(sampling_strategy=totals(own, counts), n_neighbors=k, random_state=seed)
            parts.append(_resampled(sampler, features, labels))
        except (RuntimeError, ValueError):
            # Its two ways to say that the class has no border, or that every row's share rounds to none.
            apart += 1
            parts.append(_interpolated(features, labels, own, counts, k, seed))
    notes = _notes(plan, counts)
    if apart:
        notes += (f"{apart} of {len(plan)} classes have no border for ADASYN to weigh; SMOTE took its place",)
    return joined(parts, features.shape[1], notes)


def _interpolated(
    features: Floats, labels: Labels, plan: Counts, counts: Counts, k: int, seed: int
) -> tuple[Floats, Labels]:
    from imblearn.over_sampling import SMOTE

    sampler = SMOTE(sampling_strategy=totals(plan, counts), k_neighbors=k, random_state=seed)
    return _resampled(sampler, features, labels)


def _resampled(sampler: Any, features: Floats, labels: Labels) -> tuple[Floats, Labels]:
    """Return the rows a sampler of imbalanced-learn adds; the others come first in its result."""
    with warnings.catch_warnings():
        # A plan may fill beyond the largest class, which imbalanced-learn warns of.
        warnings.simplefilter("ignore", UserWarning)
        more, more_labels = sampler.fit_resample(features, labels)
    return more[len(labels) :], more_labels[len(labels) :]


def _repeated(features: Floats, labels: Labels, plan: Counts, counts: Counts) -> tuple[Floats, Labels]:
    """Return the only row of each class with one row, as often as the plan asks for."""
    single = np.flatnonzero((counts == 1) & (plan > 0))
    chosen = np.concatenate(
        [np.zeros(0, np.int64), *(np.repeat(np.flatnonzero(labels == c), plan[c]) for c in single)]
    )
    return features[chosen], labels[chosen]


def _notes(plan: Counts, counts: Counts) -> tuple[str, ...]:
    filled = plan > 0
    single = int((filled & (counts == 1)).sum())
    small = int((filled & (counts > 1) & (counts <= NEIGHBOURS)).sum())
    notes: tuple[str, ...] = ()
    if single:
        notes += (f"{single} of {len(plan)} classes have one row, which is repeated: it has no neighbour",)
    if small:
        notes += (f"{small} of {len(plan)} classes have fewer than {NEIGHBOURS} neighbours; all are used",)
    return notes
