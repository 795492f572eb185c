"""Generators that repeat rows: random over-sampling, and augmented views."""

from __future__ import annotations

import warnings

import numpy as np

from ldmlr.generation.plan import Counts, labels_of
from ldmlr.generation.train_rows import Floats, Generated, Labels, TrainRows


def random_oversampling(rows: TrainRows, plan: Counts, seed: int) -> Generated:
    """Repeat clean rows, drawn with replacement (``RandomOverSampler`` of imbalanced-learn).

    Parameters
    ----------
    rows
        Training rows.
    plan
        Rows to generate per class ``[C]``.
    seed
        Seed of the draws.
    """
    from imblearn.over_sampling import RandomOverSampler

    wanted = totals(plan, rows.counts)
    with warnings.catch_warnings():
        # A plan may fill beyond the largest class, which imbalanced-learn warns of.
        warnings.simplefilter("ignore", UserWarning)
        sampler = RandomOverSampler(sampling_strategy=wanted, random_state=seed)
        features, labels = sampler.fit_resample(rows.features, rows.labels)
    return Generated(features[len(rows.labels) :], labels[len(rows.labels) :])


def duplicated_views(rows: TrainRows, plan: Counts, seed: int) -> Generated:
    """Repeat augmented views: of a class, every view of every row equally often, as far as it goes.

    Parameters
    ----------
    rows
        Training rows with at least one view.
    plan
        Rows to generate per class ``[C]``.
    seed
        Seed of the draws that are left over.
    """
    views, labels = np.concatenate(rows.views), np.tile(rows.labels, len(rows.views))
    chosen = deck(labels, plan, seed)
    return Generated(views[chosen], labels_of(plan, 0, int(plan.sum())))


def deck(labels: Labels, plan: Counts, seed: int) -> Labels:
    """Return numbers of rows, ``plan[c]`` of each class c, class by class.

    Every row of a class comes equally often; what is left over is drawn without replacement.

    Parameters
    ----------
    labels
        Classes ``[N]``.
    plan
        Rows to take per class ``[C]``.
    seed
        Seed of the draws that are left over.
    """
    random = np.random.default_rng(seed)
    parts = []
    for number, wanted in enumerate(plan):
        own = np.flatnonzero(labels == number)
        whole, rest = divmod(int(wanted), len(own))
        parts += [np.tile(own, whole), random.permutation(own)[:rest]]
    return np.concatenate(parts)


def totals(plan: Counts, counts: Counts) -> dict[int, int]:
    """Return imbalanced-learn's dictionary of a plan: rows per class after resampling."""
    return {int(c): int(plan[c] + counts[c]) for c in np.flatnonzero(plan)}


def joined(parts: list[tuple[Floats, Labels]], dim: int, notes: tuple[str, ...] = ()) -> Generated:
    """Return the parts of several calls as one, class by class."""
    features = np.concatenate([np.zeros((0, dim), np.float32), *(part for part, _ in parts)])
    labels = np.concatenate([np.zeros(0, np.int64), *(part for _, part in parts)])
    order = np.argsort(labels, kind="stable")
    return Generated(features[order], labels[order], notes)
