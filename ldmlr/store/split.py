"""One split of an open store, and seeded samples of it, class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import whole_number
from ldmlr.errors import UsageError
from ldmlr.store.datasets import LoadedRows
from ldmlr.store.ids import Ids
from ldmlr.store.joined import Views
from ldmlr.store.layout import Array, Float32, Int64, UInt8
from ldmlr.store.parts import SplitParts
from ldmlr.store.rows import MappedRows, Rows

# Labels looked at together in a sample, which does not depend on it.
BLOCK = 1 << 18


class Split:
    """Rows with labels, on disk until they are asked for.

    Obtained from `FeatureStore.open`; safe to use after a fork and to pickle (the file is
    opened again by its path), so it serves as the data set of loader workers: ``DataLoader(store.train)``.

    Attributes
    ----------
    name
        ``train``, ``test`` or ``val``.
    rows
        The features ``[N, D]`` as rows on disk.
    labels
        ``[N]`` int64, in memory.
    source
        ``[N]`` uint8 (0 encoded, 1 generated), or None.
    views_on_disk
        `Views` ``[K, N, D]``, or None.
    view_kinds
        K words saying which augmentation made each view.
    ids_on_disk
        `Ids`, or None.
    """

    def __init__(
        self,
        name: str,
        rows: Rows,
        labels: Int64,
        num_classes: int,
        *,
        source: UInt8 | None = None,
        ids: Ids | None = None,
        views: Views | None = None,
        view_kinds: tuple[str, ...] = (),
        reopen: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
    ):
        self.name = name
        self.rows = rows
        self.labels = labels
        self.source = source
        self.views_on_disk = views
        self.view_kinds = view_kinds
        self.num_classes = num_classes
        self.counts: Int64 = np.bincount(labels, minlength=num_classes).astype(np.int64)
        self.ids_on_disk = ids
        self._ids: Array | None = None
        self._reopen = reopen

    @classmethod
    def of(
        cls,
        name: str,
        parts: SplitParts,
        num_classes: int,
        reopen: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
    ) -> Split:
        """Return the split that a file (or several joined) holds."""
        return cls(
            name, parts.rows, parts.labels, num_classes, source=parts.source, ids=parts.ids,
            views=parts.views, view_kinds=parts.view_kinds, reopen=reopen,
        )  # fmt: skip

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows.shape[0]

    def __getitem__(self, rows: Any) -> tuple[Float32, Any]:
        """Return features in float32 and labels: ``([D], label)`` of one row, ``([n, D], [n])`` of several.

        With this and `__getitems__`, a split is a data set of ``torch.utils.data.DataLoader``.

        Parameters
        ----------
        rows
            A whole number, a slice, an index array or a boolean mask.

        Raises
        ------
        IndexError
            A row is out of range.
        """
        if whole_number(rows) is None:
            return self.float32(rows), self.labels[rows]
        return self.float32([rows])[0], self.labels[rows]

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[Float32, Any]]:
        """Return one ``([D], label)`` per row, read together: what a ``DataLoader`` asks for."""
        return list(zip(self.float32(rows), self.labels[list(rows)], strict=True))

    def __repr__(self) -> str:
        """Show name, shape and type."""
        count, dim = self.rows.shape
        return f"Split({self.name!r}, {count} x {dim} {self.rows.storage})"

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, D)``."""
        return self.rows.shape

    @property
    def encoded_counts(self) -> Int64:
        """Encoded rows per class ``[C]``: generated rows do not count."""
        if self.source is None:
            return self.counts
        return np.bincount(self.labels[self.source == 0], minlength=self.num_classes).astype(np.int64)

    @property
    def generated_rows(self) -> int:
        """Number of generated rows (``source`` 1) among the rows."""
        return 0 if self.source is None else int(np.count_nonzero(self.source))

    @property
    def features(self) -> Any:
        """The features ``[N, D]``.

        A read-only memory map for a contiguous float file (a tensor that shares its memory and is written
        to changes a private copy, seen nowhere else); an array where a compressed file was
        read into memory; otherwise (bfloat16, shards, very large compressed files, URLs) a view
        that reads, decodes and returns the rows it is indexed with.
        """
        return _whole(self.rows)

    @property
    def views(self) -> Any:
        """The views ``[K, N, D]`` in the same forms as `features`, or None."""
        views = self.views_on_disk
        if views is None:
            return None
        parts = views.parts
        first = parts[0]
        if _is_mappable(first):
            return first.file.private_map(first.offset, views.shape, first.element)
        return views if views.array is None else views.array()

    @property
    def ids(self) -> Array | None:
        """One id per row, ``[N]``: int64, or text as an object array; None where there are none."""
        if self._ids is None and self.ids_on_disk is not None:
            self._ids = self.ids_on_disk.read(0, len(self))
        return self._ids

    def float32(self, rows: Any = None, *, view: int | None = None) -> Float32:
        """Return features as float32 in fresh memory.

        Parameters
        ----------
        rows
            A slice, an index array or a boolean mask; None for all rows.
        view
            Take the rows of this view instead of the features.

        Returns
        -------
        ndarray
            ``[n, D]`` float32, C order, writable.
        """
        if view is None:
            return self.rows.float32(rows)
        if self.views_on_disk is None:
            raise IndexError(f"split {self.name!r} has no views")
        return self.views_on_disk.parts[view].float32(rows)

    def batches(self, size: int) -> Iterator[tuple[Float32, Int64]]:
        """Yield ``(features [n, D] float32, labels [n] int64)`` in order, `size` rows at a time."""
        if size < 1:
            raise UsageError(f"batches: must have at least 1 row, not {size}")
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield self.rows.float32(slice(start, stop)), self.labels[start:stop]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by path; a split that has no file is pickled by value."""
        return super().__reduce_ex__(protocol) if self._reopen is None else self._reopen


def _whole(rows: Rows) -> Any:
    if _is_mappable(rows):
        return rows.handed_out()
    if isinstance(rows, LoadedRows) and rows.storage != "bfloat16":
        return rows.values()
    return rows


def _is_mappable(rows: Rows) -> TypeGuard[MappedRows]:
    """Whether a memory map holds the numbers as they are read."""
    return (
        isinstance(rows, MappedRows)
        and rows.file.is_mappable
        and rows.storage in ("float32", "float16")
        and rows.element.isnative
    )


def sample_index(
    split: Split, per_class: npt.ArrayLike, *, seed: int = 0, source: int | None = None
) -> Int64:
    """Return row numbers of a random sample with at most so many rows of each class, in rising order.

    Every row draws a number from one seeded stream, and the rows with the smallest numbers of each class
    are kept, so memory grows with the sample and not with the split.

    Parameters
    ----------
    split
        The rows.
    per_class
        Most rows of each class: a number, or ``[C]``.
    seed
        Seed of the draw.
    source
        Take only encoded (0) or generated (1) rows; a split without ``source`` counts as either.
    """
    limit = np.broadcast_to(np.asarray(per_class, np.int64), (split.num_classes,))
    rng = np.random.default_rng(seed)
    labels: Int64 = np.empty(0, np.int64)
    keys: npt.NDArray[np.float64] = np.empty(0)
    index: Int64 = np.empty(0, np.int64)
    for start in range(0, len(split), BLOCK):
        found = np.asarray(split.labels[start : start + BLOCK])
        drawn, rows = rng.random(len(found)), np.arange(start, start + len(found))
        if source is not None and split.source is not None:
            kept = np.asarray(split.source[start : start + BLOCK]) == source
            found, drawn, rows = found[kept], drawn[kept], rows[kept]
        labels = np.concatenate([labels, found])
        keys, index = np.concatenate([keys, drawn]), np.concatenate([index, rows])
        order = np.lexsort((keys, labels))
        labels, keys, index = labels[order], keys[order], index[order]
        first = np.searchsorted(labels, labels, side="left")
        kept = np.arange(len(labels)) - first < limit[labels]
        labels, keys, index = labels[kept], keys[kept], index[kept]
    return np.sort(index)


def sample_rows(
    split: Split, per_class: npt.ArrayLike, *, seed: int = 0, source: int | None = None
) -> tuple[Float32, Int64]:
    """Return features ``[n, D]`` and labels ``[n]`` of the sample that `sample_index` draws."""
    index = sample_index(split, per_class, seed=seed, source=source)
    return split.float32(index), np.asarray(split.labels)[index]
