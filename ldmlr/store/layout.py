"""The format of a feature store: names, element types, numbers of classes and checksums.

A store is one HDF5 file; ``docs/store.md`` describes it for its readers. What is fixed here:

- ``/train``, ``/test``, ``/val`` hold ``features [N, D]``, ``labels [N]`` and optionally
  ``source [N]``, ``ids [N]`` and ``views [K, N, D]``; ``/head`` and ``/class_names`` are optional.
- Features are float32, float16, or bfloat16 kept as uint16 with the attribute ``dtype="bfloat16"``.
- Every dataset has the attribute ``sha256``: of its elements in C order, little endian. Text is
  hashed as UTF-8, each entry after its length in bytes (8 bytes, little endian), so that the
  checksum does not depend on how HDF5 stores the text.
- The root attribute ``sha256`` covers the checksums of the datasets, the other root attributes, the
  kind of the head and the kinds of the views.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError, UsageError, nearest, opt

FORMAT = "ldmlr-features"
SCHEMA_VERSION = 1
SPLITS = ("train", "test", "val")
DTYPES = ("float32", "float16", "bfloat16")

# The root attributes that describe a store, beside `complete` and `sha256`.
ATTRIBUTES = ("format", "schema_version", "num_classes", "dim", "encoder", "created_with", "config")

# Reading and writing go through blocks of this size, so memory does not grow with the rows.
BLOCK_BYTES = 1 << 20

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


@dataclasses.dataclass
class StoredHead:
    """A classifier as it is stored.

    Parameters
    ----------
    kind
        ``linear``, ``cosine`` or ``wcdas``.
    weight
        ``[C, D]`` float32.
    bias
        ``[C]`` float32, or None for a head without one.
    extra
        Further parameters of other kinds by name, such as a scale.
    """

    kind: str
    weight: Float32
    bias: Float32 | None = None
    extra: dict[str, Array] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class SplitData:
    """The rows of one split, to be written.

    Parameters
    ----------
    features
        ``[N, D]``: an array, a memory map or another store's ``features``; read block by block.
    labels
        ``[N]`` integers in ``0 .. C-1``.
    source
        ``[N]``: 0 encoded, 1 generated.
    ids
        ``[N]`` whole numbers or texts, one per row.
    views
        ``[K, N, D]``: the same rows under K augmentations.
    view_kinds
        K words saying which augmentation made each view.
    """

    features: Any
    labels: Any
    source: Any = None
    ids: Any = None
    views: Any = None
    view_kinds: Sequence[str] = ()


def check_dtype(name: str) -> str:
    """Return the element type, or raise an error that names the nearest one."""
    if name not in DTYPES:
        raise UsageError(f"{opt('dtype')}: unknown value {name!r}; {nearest(str(name), DTYPES)}")
    return name


def two_dimensions(shape: tuple[int, ...], where: str) -> tuple[int, int]:
    """Return a shape ``(N, D)`` of features, or raise."""
    if len(shape) == 1:  # labels, or an axis was lost
        raise InputError(
            f"{where}: has shape {shape}, one number per row, expected features [N, D]; if features and "
            "labels are swapped, name them the other way round, else give the features the shape [N, 1]"
        )
    if len(shape) != 2 or shape[1] == 0:
        raise InputError(
            f"{where}: has shape {shape}, expected [N, D]; flatten the features to one row per sample"
        )
    return int(shape[0]), int(shape[1])


def block_rows(row_bytes: int) -> int:
    """Return how many rows make a block."""
    return max(1, BLOCK_BYTES // max(1, row_bytes))


def text_bytes(entries: Iterable[Any]) -> bytes:
    """Return texts in the form that is hashed: length, then UTF-8."""
    parts = []
    for entry in entries:
        data = entry if isinstance(entry, bytes) else str(entry).encode()
        parts.append(len(data).to_bytes(8, "little") + data)
    return b"".join(parts)


def array_sha256(values: Array) -> str:
    """Return the checksum of an array as it is written: C order, little endian."""
    if values.dtype.kind in "OSU":
        return hashlib.sha256(text_bytes(values.ravel())).hexdigest()
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()


def contents_sha256(checksums: Mapping[str, str], **facts: Any) -> str:
    """Return one checksum of datasets (by name) and plain facts about them."""
    text = json.dumps({"datasets": dict(checksums), **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def root_sha256(
    checksums: Mapping[str, str],
    attributes: Mapping[str, Any],
    head: StoredHead | None,
    view_kinds: Mapping[str, Sequence[str]],
) -> str:
    """Return the checksum of what the checksums of the datasets leave out."""
    facts = {key: attributes.get(key) for key in ATTRIBUTES}
    kinds = {name: list(kinds) for name, kinds in view_kinds.items() if kinds}
    return contents_sha256(checksums, **facts, head=head.kind if head else None, views=kinds)


def gigabytes(count: float) -> str:
    """Return a number of bytes in words."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def known_count(
    attributes: Mapping[str, Any], head: StoredHead | None, names: Sequence[str] | None
) -> int | None:
    """Return the number of classes that a file states, or None where only its labels tell."""
    if is_count(attributes.get("num_classes")):
        return int(attributes["num_classes"])
    if head is not None:
        return int(head.weight.shape[0])
    return None if names is None else len(names)


def is_count(value: Any) -> bool:
    """Tell whether a value of an attribute is a number of classes."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def outside_remedy(labels: Iterable[Array], classes: int, known: bool) -> str:
    """Return what to do about labels that are not in ``0 .. classes - 1``."""
    if not known:
        return "correct them, or let `ldmlr store import` map them"
    filled = [values for values in labels if len(values)]
    if min(int(values.min()) for values in filled) == 1 and max(int(v.max()) for v in filled) == classes:
        return "they start from 1: subtract 1"
    return "correct them or num_classes"


def repeated_name(names: Sequence[str] | None) -> str | None:
    """Return a message about the first name that two classes share, or None."""
    seen: dict[str, int] = {}
    for number, name in enumerate(names or ()):
        if name in seen:
            return f"classes {seen[name]} and {number} are both named {name!r}"
        seen[name] = number
    return None
