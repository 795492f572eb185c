"""Measure heads on a split: one pass over the rows for all heads, with and without label shift."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ldmlr.device import resolve_device
from ldmlr.errors import InputError, opt
from ldmlr.groups import GROUPS, ClassGroups
from ldmlr.heads.headfile import FinetunedHead, check_head
from ldmlr.heads.logits import block_rows, head_logits
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import from_stored
from ldmlr.heads.training_rows import check_counts
from ldmlr.metrics.accuracy import AccuracyCounter
from ldmlr.metrics.answers import pack
from ldmlr.metrics.calibration import CalibrationCounter
from ldmlr.metrics.shift import label_shift
from ldmlr.results import accuracy_rows
from ldmlr.store import FeatureStore, Split

BATCH = 8192


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of an accuracy table before it is measured.

    Parameters
    ----------
    method, adjustment
        As in result documents.
    head
        Module from features to logits.
    tau
        Strength of the label shift the row stands for; 0 without one.
    offset
        Subtracted from the logits, ``[C]``; None where the head contains its shift.
    """

    method: str
    adjustment: str
    head: nn.Module
    tau: float = 0.0
    offset: npt.NDArray[np.float64] | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured for a variant on a split.

    Parameters
    ----------
    figures
        ``all``, ``many``, ``medium``, ``few``, ``balanced`` (per cent, None for an empty group), ``ece``,
        ``nll``, ``brier``.
    per_class
        Per cent, ``[C]``; NaN for a class without rows.
    reliability
        Rows, mean confidence and accuracy per bin of the confidence.
    confusion
        Rows with label i predicted as j, ``[C, C]``, where it was asked for.
    right
        Which rows were right ``[N]``, in the order of the split.
    """

    variant: Variant
    figures: dict[str, float | None]
    per_class: npt.NDArray[np.float64]
    reliability: list[dict[str, float | int | None]] = dataclasses.field(default_factory=list)
    confusion: npt.NDArray[np.int64] | None = None
    right: npt.NDArray[np.bool_] = dataclasses.field(default_factory=lambda: np.zeros(0, np.bool_))

    @property
    def entry(self) -> dict[str, Any]:
        """What `ldmlr.results.accuracy_rows` makes a row of, and `ldmlr.metrics.answers` pairs rows by."""
        of = self.variant
        return {**_entry(of.method, of.adjustment, of.tau, self.figures), "right": pack(self.right)}


def _entry(method: str, adjustment: str, tau: float, figures: Mapping[str, float | None]) -> dict[str, Any]:
    return {"method": method, "adjustment": adjustment, "tau": tau, "figures": figures}


class BaselineScores:
    """Accuracy of a baseline, as it is and with label shift, counted while its logits pass.

    Parameters
    ----------
    counts
        Encoded training rows per class, ``[C]``.
    groups
        Shot groups; many > 100, few < 20 by default.
    """

    def __init__(self, counts: npt.NDArray[np.int64], groups: ClassGroups | None = None) -> None:
        self.counts, self.groups = counts, groups
        self.plain, self.shifted = AccuracyCounter(len(counts)), AccuracyCounter(len(counts))

    def update(self, logits: npt.NDArray[Any], labels: npt.ArrayLike) -> None:
        """Count a batch: logits ``[n, C]`` and labels ``[n]``."""
        self.plain.update(logits, labels)
        self.shifted.update(logits - log_prior(self.counts), labels)

    def counted(self) -> dict[str, list[list[int]]]:
        """Return what was counted as plain data, for another that goes on counting."""
        counters = {"plain": self.plain, "shifted": self.shifted}
        return {
            name: [counter.total.tolist(), counter.correct.tolist()] for name, counter in counters.items()
        }

    def add(self, counted: Mapping[str, list[list[int]]]) -> None:
        """Go on from what another has counted, as `counted` returns it."""
        for name, counter in {"plain": self.plain, "shifted": self.shifted}.items():
            total, correct = counted[name]
            counter.total += np.asarray(total, np.int64)
            counter.correct += np.asarray(correct, np.int64)

    def rows(self) -> list[dict[str, Any]]:
        """Return its two rows of the accuracy table."""
        plain, shifted = (counter.summary(self.counts, self.groups) for counter in (self.plain, self.shifted))
        return accuracy_rows(
            [[_entry("baseline", "none", 0.0, plain), _entry("baseline", "label-shift", 1.0, shifted)]]
        )


def plain_variants(
    method: str, head: nn.Module, counts: npt.NDArray[np.int64], tau: float = 1.0
) -> list[Variant]:
    """Return a head as it is, and with its logits minus ``tau * log prior``."""
    return [
        Variant(method, "none", head),
        Variant(method, "label-shift", head, tau, tau * log_prior(counts)),
    ]


def tuned_variants(tuned: FinetunedHead, method: str | None = None) -> list[Variant]:
    """Return a fine-tuned head as it is, and its label-shift head; `method` is its name if it has another."""
    name = method or tuned.method
    return [
        Variant(name, "none", tuned.head),
        Variant(name, "label-shift", tuned.label_shifted(), tuned.tau_shift),
    ]


def measure(
    variants: Sequence[Variant],
    split: Split,
    counts: npt.NDArray[np.int64],
    groups: ClassGroups | None = None,
    device: torch.device | str = "cpu",
    confusion: bool = False,
) -> list[Measured]:
    """Measure every variant on the encoded rows of a split, in one pass and batch by batch.

    The logits of one head are held at a time, for so many rows that they stay small whatever the number of
    classes.

    Parameters
    ----------
    variants
        What to measure; variants with the same module share its logits, best one after the other.
    split
        Rows with ``source`` 1 (generated) are left out.
    counts
        Encoded training rows per class, ``[C]``: they decide the shot groups.
    groups
        Thresholds or ranges; many > 100, few < 20 by default.
    confusion
        Keep each variant's confusion matrix.

    Raises
    ------
    InputError
        The split has no encoded row, or a head gives values that are not finite.
    """
    tally = Tally(len(counts), confusion)
    tally.add(variants, split, device)
    return tally.measured(counts, groups)


class Tally:
    """Counts of variants on several splits, such as the folds of one seed, measured together.

    Every split has variants of its own (the heads that were not trained on it), which are rows of one table:
    as many for each, in the same order.

    Parameters
    ----------
    num_classes
        Classes C.
    confusion
        Keep each variant's confusion matrix.
    """

    def __init__(self, num_classes: int, confusion: bool = False) -> None:
        self.num_classes, self.confusion = num_classes, confusion
        self.variants: list[Variant] = []
        self.accuracy: list[AccuracyCounter] = []
        self.calibration: list[CalibrationCounter] = []

    def add(self, variants: Sequence[Variant], split: Split, device: torch.device | str = "cpu") -> None:
        """Count the encoded rows of a split; see `measure`."""
        if not self.accuracy:
            self.accuracy = [AccuracyCounter(self.num_classes, self.confusion) for _ in variants]
            self.calibration = [CalibrationCounter(self.num_classes) for _ in variants]
        self.variants = list(variants)
        for variant in variants:
            variant.head.to(device).eval()
        last = {id(variant.head): at for at, variant in enumerate(variants)}
        at = 0
        for features, labels in split.batches(block_rows(self.num_classes, BATCH)):
            stop = at + len(labels)
            if split.source is not None:
                encoded = np.asarray(split.source[at:stop]) == 0
                features, labels = features[encoded], labels[encoded]
            at = stop
            if not len(labels):
                continue
            known: dict[int, npt.NDArray[np.float32]] = {}
            counters = enumerate(zip(variants, self.accuracy, self.calibration, strict=True))
            for number, (variant, counter, sums) in counters:
                key = id(variant.head)
                if key not in known:
                    known[key] = head_logits(variant.head, features)
                logits: npt.NDArray[Any] = known.pop(key) if number == last[key] else known[key]
                if variant.offset is not None:
                    logits = label_shift(logits, variant.offset)
                counter.update(logits, labels)
                sums.update(logits, labels)
                del logits  # before the next head's are computed
        if not at or not self.accuracy[0].total.any():
            raise InputError(f"split {split.name!r}: has no encoded row to measure heads on")

    def measured(
        self,
        counts: npt.NDArray[np.int64],
        groups: ClassGroups | None = None,
        order: npt.NDArray[np.int64] | None = None,
    ) -> list[Measured]:
        """Return what was measured over all splits.

        Parameters
        ----------
        counts, groups
            As for `measure`.
        order
            Places of the rows, as they were added, in the order in which they are to be told right or wrong.
        """
        found = []
        for variant, counter, sums in zip(self.variants, self.accuracy, self.calibration, strict=True):
            right = np.concatenate(counter.right)
            figures = {**counter.summary(counts, groups), **sums.summary()}
            right = right if order is None else right[order]
            per_class, bins = counter.per_class(), sums.reliability()
            found.append(Measured(variant, figures, per_class, bins, counter.confusion, right))
        return found


def group_sizes(counts: npt.NDArray[np.int64], groups: ClassGroups) -> Mapping[str, int]:
    """Return the number of classes in each shot group."""
    masks = groups.masks(counts)
    return {name: int(masks[name].sum()) for name in GROUPS}


def evaluate_store(
    store: FeatureStore,
    heads: Sequence[tuple[str, FinetunedHead]] = (),
    *,
    split: str = "test",
    groups: ClassGroups | None = None,
    tau: float = 1.0,
    device: str = "cpu",
    confusion: bool = False,
) -> tuple[list[tuple[str, Measured]], npt.NDArray[np.int64]]:
    """Measure the store's own head and fine-tuned heads, each without and with label shift.

    Parameters
    ----------
    store
        Where the rows are. Without a training split, the class counts come from the first head file.
    heads
        Name and head, as `FinetunedHead.load` reads it.
    split
        ``train``, ``test`` or ``val``.
    groups
        Shot groups.
    tau
        Label shift of the store's own head; a fine-tuned head brings its own.
    confusion
        Keep the confusion matrices.

    Returns
    -------
    list of tuple
        A name (``stored``, or that of the head) and what was measured.
    ndarray
        Encoded training rows per class, ``[C]``.

    Raises
    ------
    InputError
        There is no head to measure, no such split, or a head that does not fit the store.
    """
    rows = store.split(split)
    for name, tuned in heads:
        check_head(tuned.head, store.dim, store.num_classes, name, str(store.path))
    if store.head is None and not heads:
        raise InputError(
            f"{store.path}: has no head, and none is given; pass {opt('head')}, or run ldmlr finetune"
        )
    if store.train is not None:
        counts = store.train.encoded_counts
        check_counts(counts, str(store.path))
    elif heads:
        counts = heads[0][1].counts
    else:
        raise InputError(
            f"{store.path}: has no training split, so no class counts; pass {opt('head')} of finetune"
        )
    named: list[tuple[str, Variant]] = []
    if store.head is not None:
        own = from_stored(store.head)
        named += [("stored", variant) for variant in plain_variants("baseline", own, counts, tau)]
    for name, tuned in heads:
        named += [(name, variant) for variant in tuned_variants(tuned)]
    measured = measure(
        [variant for _, variant in named], rows, counts, groups, resolve_device(device), confusion
    )
    return [(name, entry) for (name, _), entry in zip(named, measured, strict=True)], counts
