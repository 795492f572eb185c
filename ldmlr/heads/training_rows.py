"""The rows of stage 3: encoded (natural) rows and generated rows, from stores or arrays."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import as_array, beyond_int64, class_count
from ldmlr.errors import InputError, counted, opt
from ldmlr.store import FeatureStore, Split

# A feature store, or features [N, D] and labels [N] as arrays or tensors.
Rows: TypeAlias = "FeatureStore | tuple[Any, Any]"
CHUNK = 65536


@dataclasses.dataclass(frozen=True)
class TrainingRows:
    """Encoded rows first, generated rows after them.

    Parameters
    ----------
    features
        ``[N + M, D]`` float32.
    labels
        ``[N + M]`` int64.
    encoded
        N, the number of encoded rows.
    num_classes
        Classes C.
    name
        The file, for messages.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    encoded: int
    num_classes: int
    name: str

    @property
    def dim(self) -> int:
        """Feature dimensions D."""
        return int(self.features.shape[1])

    @property
    def generated(self) -> int:
        """Number of generated rows M."""
        return len(self.labels) - self.encoded

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Encoded rows per class, ``[C]``: they decide the prior and the shot groups."""
        return np.bincount(self.labels[: self.encoded], minlength=self.num_classes)

    @property
    def all_counts(self) -> npt.NDArray[np.int64]:
        """Encoded and generated rows per class, ``[C]``."""
        return np.bincount(self.labels, minlength=self.num_classes)


def gather_rows(
    store: Rows, pseudo: Rows | None = None, num_classes: int | None = None, *, own_generated: bool = True
) -> TrainingRows:
    """Return the encoded rows of `store` and the generated rows of `store` and `pseudo`.

    Parameters
    ----------
    store
        A feature store (its training split; rows with ``source`` 1 count as generated) or a pair of
        features ``[N, D]`` and labels ``[N]``.
    pseudo
        Generated rows: a store (its rows with ``source`` 1), or a plain file or a pair of arrays (all rows).
    num_classes
        Classes, if `store` is a pair of arrays that may lack the last ones.
    own_generated
        Whether the generated rows of `store` itself count, beside those of `pseudo`.

    Raises
    ------
    InputError
        Dimensions or classes that differ (both files and numbers are named), features that are not
        finite, a class without an encoded row, a store of encoded rows as pseudo-features, or the
        same file as both.
    """
    parts = [_Part(store, "store")]
    if pseudo is not None:
        parts.append(_Part(pseudo, "pseudo", pseudo=True))
        if not isinstance(store, tuple) and not isinstance(pseudo, tuple) and store.same_file(pseudo):
            # Its rows would count twice, encoded ones as generated or generated ones once more.
            raise InputError(
                f"{parts[1].name}: is the store itself; give the output of generate, or leave "
                f"{opt('pseudo')} out"
            )
    first = parts[0]
    # Arrays carry no number of classes: the largest label decides, here and among the generated rows.
    classes = num_classes or first.num_classes or class_count((part.name, part.labels) for part in parts)
    for part in parts:
        part.check(first, classes)
    encoded = [np.flatnonzero(first.source == 0)]
    generated = [np.flatnonzero(part.source == 1) for part in parts]
    if not own_generated:
        generated[0] = generated[0][:0]
    if pseudo is not None and parts[1].without_source:
        generated[1] = np.arange(len(parts[1].labels))
    elif pseudo is not None and not len(generated[1]):
        raise InputError(f"{parts[1].name}: has no generated row (source 1); give the output of generate")

    picked = [*zip(parts[:1], encoded, strict=True), *zip(parts, generated, strict=True)]
    total = sum(len(rows) for _, rows in picked)
    features = np.empty((total, first.dim), dtype=np.float32)
    labels = np.empty(total, dtype=np.int64)
    at = 0
    for part, rows in picked:
        end = at + len(rows)
        part.fill(features[at:end], rows)
        labels[at:end] = part.labels[rows]
        at = end
    merged = TrainingRows(features, labels, len(encoded[0]), classes, first.name)
    check_counts(merged.counts, first.name)
    return merged


def check_counts(counts: npt.NDArray[np.int64], name: str) -> None:
    """Refuse a class without an encoded row: it has no prior and no shot group."""
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise InputError(
            f"{name}: {len(empty)} of {counted(len(counts), 'class')} have no encoded row (class "
            f"{empty[0]} first); "
            "add rows, or leave such classes out (`ldmlr store import` numbers what is left)"
        )


class _Part:
    """One source of rows: a store's training split, or arrays."""

    def __init__(self, rows: Rows, what: str, pseudo: bool = False) -> None:
        self.num_classes: int | None = None
        self.declared = False
        self._split: Split | None = None
        if isinstance(rows, tuple):
            self.name = what
            self._features, self.labels = _arrays(rows, what)
            source = None
            self.dim = int(self._features.shape[1])
        else:
            self.name, self.num_classes, self.dim = str(rows.path), rows.num_classes, rows.dim
            # A plain file says nothing of classes it has no row of.
            self.declared = "num_classes" in rows.attributes
            self._split = rows.split("train")
            self.labels, source = np.asarray(self._split.labels), self._split.source
            if pseudo and source is None and "format" in rows.attributes:
                raise InputError(
                    f"{self.name}: holds encoded rows (no /train/source); give the output of generate"
                )
        self.without_source = source is None
        self.source = np.zeros(len(self.labels), np.uint8) if source is None else np.asarray(source)
        self.highest = int(self.labels.max(initial=-1))

    def check(self, first: _Part, classes: int) -> None:
        """Compare with the first part."""
        if self.dim != first.dim:
            raise InputError(
                f"{self.name}: features have {counted(self.dim, 'dimension')}, but {first.name} has "
                f"{first.dim}; give pseudo-features of the same encoder"
            )
        found = self.num_classes if self.num_classes is not None else self.highest + 1
        if found > classes or (self.declared and found != classes):
            raise InputError(
                f"{self.name}: has {counted(found, 'class')}, but {first.name} has {classes}; "
                "give pseudo-features of the same classes"
            )

    def fill(self, target: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> None:
        """Copy rows into `target` in chunks, refusing values that are not finite."""
        for start in range(0, len(rows), CHUNK):
            index = rows[start : start + CHUNK]
            block = target[start : start + CHUNK]
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told below
                block[...] = self._split.float32(index) if self._split is not None else self._features[index]
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                row = int(index[np.flatnonzero(~finite)[0]])
                raise InputError(f"{self.name}: training row {row} holds NaN or infinity; remove such rows")


def _arrays(rows: tuple[Any, Any], what: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Check a pair of features and labels."""
    if len(rows) != 2:
        raise InputError(f"{what}: expected features and labels, not {len(rows)} arrays")
    features, labels = (as_array(part) for part in rows)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise InputError(
            f"{what}: expected features [N, D] and labels [N], not {list(features.shape)} and "
            f"{list(labels.shape)}"
        )
    if not len(labels):
        raise InputError(f"{what}: there are no rows")
    if features.dtype.kind not in "fiu":
        raise InputError(f"{what}: features are {features.dtype}, expected numbers")
    if labels.dtype.kind not in "iu":
        raise InputError(f"{what}: labels are {labels.dtype}, expected whole numbers")
    if labels.min() < 0 or beyond_int64(labels) is not None:
        found = labels.min() if labels.min() < 0 else labels.max()
        raise InputError(f"{what}: labels must be from 0 and below 2^63, found {found}")
    return features, labels.astype(np.int64)
