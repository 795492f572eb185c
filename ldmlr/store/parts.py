"""What was read of a store file, before it is a store: its splits, head, names, attributes and checksums."""

from __future__ import annotations

import dataclasses
from typing import Any

from ldmlr.store.ids import Ids
from ldmlr.store.joined import Views
from ldmlr.store.layout import Array, Int64, StoredHead, UInt8
from ldmlr.store.rows import DataFile, Rows


@dataclasses.dataclass
class SplitParts:
    """What a file holds about one split."""

    rows: Rows
    labels: Int64
    source: UInt8 | None = None
    ids: Ids | None = None
    views: Views | None = None
    view_kinds: tuple[str, ...] = ()
    raw_labels: Array | None = None  # as they are in the file, for importers that map them
    label_names: dict[str, int] | None = None  # of an enumeration


@dataclasses.dataclass
class FileParts:
    """What a file (or several of them, as shards) holds."""

    file: DataFile
    splits: dict[str, SplitParts]
    head: StoredHead | None
    class_names: tuple[str, ...] | None
    num_classes: int
    dim: int
    attributes: dict[str, Any]
    checksums: dict[str, str | None]  # by the dataset's name in the format, such as /train/labels
    names: dict[str, str]  # from that name to the one in this file
