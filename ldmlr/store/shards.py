"""Stores in shards: ``NAME-00000-of-00008.h5`` and so on, and a manifest ``NAME.json``.

Every shard is a complete store of its own, so that shards are written by separate processes,
resumed and checked one by one. The manifest lists them with their rows, size and fingerprint;
opening it opens all of them as one store whose rows stream over the shards. Splits are joined here, also
for merging.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.errors import InputError, UsageError, opt
from ldmlr.files import check_output, parse_json, write_text
from ldmlr.remote import as_path
from ldmlr.store.ids import JoinedIds
from ldmlr.store.joined import JoinedRows, Views
from ldmlr.store.layout import SPLITS, contents_sha256
from ldmlr.store.opening import Report
from ldmlr.store.parts import FileParts, SplitParts
from ldmlr.store.reading import read_file
from ldmlr.store.rows import DataFile

MANIFEST_FORMAT = "ldmlr-features-shards"
MANIFEST_VERSION = 1
# The names have five digits.
MAX_SHARDS = 99_999
SHARD_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.h5")


def shard_base(path: str | Path) -> Path:
    """Return the path of a sharded store without ``.h5`` or ``.json``."""
    path = as_path(path)
    return path.with_suffix("") if path.suffix in (".h5", ".hdf5", ".json") else path


def shard_name(base: str | Path, index: int, count: int) -> Path:
    """Return the path of shard `index` of `count`.

    Parameters
    ----------
    base
        ``folder/NAME``, with or without ``.h5`` or ``.json``.

    Examples
    --------
    >>> shard_name("out/pseudo.h5", 3, 8).name
    'pseudo-00003-of-00008.h5'
    """
    if not 0 <= index < count:
        raise UsageError(
            f"{opt('shard')}: shard {index} of {count} does not exist; number them 0 .. {count - 1}"
        )
    base = shard_base(base)
    return base.with_name(f"{base.name}-{index:05d}-of-{count:05d}.h5")


def manifest_name(base: str | Path) -> Path:
    """Return the path of the manifest of a sharded store."""
    base = shard_base(base)
    return base.with_name(f"{base.name}.json")


def find_shards(base: str | Path, count: int | None = None) -> list[Path]:
    """Return the paths of all shards, in order; a missing one is an error that names it.

    Parameters
    ----------
    base
        As for `shard_name`.
    count
        How many there are; by default as the names of those present say.
    """
    base = shard_base(base)
    pattern = re.compile(re.escape(base.name) + r"-(\d{5})-of-(\d{5})\.h5")
    present = [found for path in base.parent.glob("*.h5") if (found := pattern.fullmatch(path.name))]
    counts = sorted({int(found[2]) for found in present})
    if count is None:
        if not counts:
            raise InputError(f"{base}: no shards such as {shard_name(base, 0, 1).name}; check the path")
        if len(counts) > 1:
            raise InputError(
                f"{base}: shards of {' and of '.join(map(str, counts))} lie side by side; remove the old ones"
            )
        count = counts[0]
    paths = [shard_name(base, index, count) for index in range(count)]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{base.parent / missing[0]}: this shard{more} of {count} is missing; write it first"
        )
    return paths


def check_shard_set(paths: Sequence[str | Path]) -> None:
    """Refuse files that are not all shards of their store, in order.

    Raises
    ------
    UsageError
        A file is a shard by its name, and others of its store are missing, or they are named twice or out
        of order.
    """
    sets: dict[tuple[Path, int], list[int]] = {}
    for path in map(as_path, paths):
        found = SHARD_NAME.fullmatch(path.name)
        if found:
            sets.setdefault((path.parent / found[1], int(found[3])), []).append(int(found[2]))
    for (base, count), numbers in sets.items():
        missing = [number for number in range(count) if number not in numbers]
        if missing:
            raise UsageError(
                f"{shard_name(base, missing[0], count)}: this shard is not among those named "
                f"({len(set(numbers))} of {count}); name all of them, in order"
            )
        if numbers != list(range(count)):
            raise UsageError(
                f"{base}: its shards are named twice or out of order; name {count} of them, from 00000 on"
            )


def write_manifest(
    base: str | Path,
    shards: Sequence[str | Path] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write the manifest of complete shards and return its path.

    Parameters
    ----------
    base
        As for `shard_name`.
    shards
        The files in order, all in the folder of the manifest; by default those with names as
        `shard_name` gives them.
    overwrite
        Replace a manifest that exists.
    """
    target = check_output(manifest_name(base), overwrite)
    paths = [as_path(path) for path in shards] if shards is not None else find_shards(base)
    check_shard_set(paths)
    if not paths:
        raise UsageError(f"{target}: no shards to list; name at least one")
    entries: list[dict[str, Any]] = []
    opened: list[FileParts] = []
    for path in paths:
        if path.resolve().parent != target.resolve().parent:
            raise UsageError(f"{path}: must lie in the folder of its manifest {target}; move it there")
        if any(entry["file"] == path.name for entry in entries):
            raise UsageError(f"{path}: is named twice; name every shard once")
        parts = read_file(path, Report(), check_values=False)
        if "format" not in parts.attributes:
            raise InputError(f"{path}: is a plain file; `ldmlr store import` makes a complete store of it")
        opened.append(parts)
        entries.append(
            {
                "file": path.name,
                "bytes": parts.file.size,
                "rows": {name: len(split.rows) for name, split in parts.splits.items()},
                "fingerprint": fingerprint(parts),
            }
        )
    _check_same(target, opened, Report())
    rows = {
        name: sum(entry["rows"].get(name, 0) for entry in entries)
        for name in SPLITS
        if any(name in parts.splits for parts in opened)
    }
    document = {
        "format": MANIFEST_FORMAT, "schema_version": MANIFEST_VERSION, "dim": opened[0].dim,
        "num_classes": opened[0].num_classes, "rows": rows, "shards": entries,
    }  # fmt: skip
    write_text(target, json.dumps(document, indent=2) + "\n")
    return target


def fingerprint(parts: FileParts) -> str:
    """Return the hash of a file's contents, from the checksums stored in it."""
    missing = [name for name, checksum in parts.checksums.items() if checksum is None]
    if missing:
        raise InputError(
            f"{parts.file.path}: {missing[0]}: has no sha256; `ldmlr store import` makes a complete store"
        )
    checksums = {name: str(checksum) for name, checksum in parts.checksums.items()}
    return contents_sha256(checksums, num_classes=parts.num_classes, dim=parts.dim)


def is_manifest(path: Path) -> bool:
    """Tell whether a file is JSON rather than HDF5; a file that cannot be read is neither."""
    path = as_path(path)
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with path.open("rb") as handle:
            return handle.read(16).lstrip()[:1] == b"{"
    except OSError:
        return False


def read_manifest(
    path: Path, report: Report, *, check_values: bool = True, place: Path | None = None
) -> FileParts:
    """Read the description of a store in shards; every shard is opened and compared with its entry.

    `place` is where the manifest lies, if `path` is relative to a working folder of the past.
    """
    path = as_path(path)
    file = DataFile.of(path, place)
    entries = _entries(path, file.place)
    opened = []
    for entry in entries:
        shard, there = path.parent / entry["file"], file.place.parent / entry["file"]
        if not there.exists():
            report.problem(f"{shard}: this shard of {path.name} is missing; copy or write it again")
            continue
        parts = read_file(shard, report, check_values=check_values, place=there)
        if parts.file.size != entry["bytes"] or fingerprint(parts) != entry["fingerprint"]:
            report.problem(
                f"{shard}: is not the shard that {path.name} lists; write it or the manifest again"
            )
        opened.append(parts)
    if not opened:
        raise InputError(f"{path}: none of its shards is there; copy or write them again")
    _check_same(path, opened, report)
    splits: dict[str, SplitParts] = {}
    for name in SPLITS:
        there = [parts.splits[name] for parts in opened if name in parts.splits]
        if there:
            splits[name] = join_splits(name, there)[0]
    first = opened[0]
    heads = [parts.head for parts in opened if parts.head is not None]
    checksums: dict[str, str | None] = {f"shard {i}": entry["fingerprint"] for i, entry in enumerate(entries)}
    return FileParts(
        file, splits, heads[0] if heads else None, first.class_names, first.num_classes, first.dim,
        first.attributes, checksums, {},
    )  # fmt: skip


def manifest_shards(path: Path) -> list[Path]:
    """Return the files a manifest lists."""
    return [as_path(path).parent / entry["file"] for entry in _entries(as_path(path))]


def _entries(path: Path, place: Path | None = None) -> list[dict[str, Any]]:
    try:
        document = parse_json((place or path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); write the manifest again") from None
    if not isinstance(document, dict) or document.get("format") != MANIFEST_FORMAT:
        raise InputError(
            f"{path}: is not a manifest of shards (format {MANIFEST_FORMAT!r}); name a feature store"
        )
    if document.get("schema_version") != MANIFEST_VERSION:
        raise InputError(
            f"{path}: has schema_version {document.get('schema_version')!r}, this version reads "
            f"{MANIFEST_VERSION}; upgrade ldmlr, or write the manifest again"
        )
    entries = document.get("shards")
    if not isinstance(entries, list) or not entries or not all(_is_entry(entry) for entry in entries):
        raise InputError(
            f"{path}: shards: expected a list of file, bytes, rows and fingerprint; write the manifest again"
        )
    return entries


def _is_entry(entry: Any) -> bool:
    """Tell whether an entry is whole and names a file beside the manifest, not somewhere else."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("file"), str)
        and Path(entry["file"]).name == entry["file"]
        and entry["file"] not in ("", ".", "..")
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("fingerprint"), str)
    )


def _check_same(path: Path, opened: Sequence[FileParts], report: Report) -> None:
    first = opened[0]
    for parts in opened[1:]:
        for what in ("dim", "num_classes", "class_names"):
            here, there = getattr(parts, what), getattr(first, what)
            if here != there:
                report.problem(
                    f"{parts.file.path}: {what} is {here}, but {there} in {first.file.path.name}; "
                    f"shards of {path.name} must agree"
                )


def join_splits(name: str, parts: Sequence[SplitParts]) -> tuple[SplitParts, list[str]]:
    """Return splits joined end to end, still on disk, and notes on what had to be left out.

    Rows of a part without ``source`` count as encoded where another part has it. Ids and views are
    kept where every part has them (views: of the same kinds).
    """
    if len(parts) == 1:
        return parts[0], []
    notes = []
    joined = SplitParts(
        JoinedRows([part.rows for part in parts]), np.concatenate([part.labels for part in parts])
    )
    if any(part.source is not None for part in parts):
        joined.source = np.concatenate(
            [np.zeros(len(p.rows), np.uint8) if p.source is None else p.source for p in parts]
        )
    ids = [part.ids for part in parts if part.ids is not None]
    if len(ids) == len(parts):
        joined.ids = JoinedIds(ids)
    elif ids:
        notes.append(f"/{name}/ids is left out: only {len(ids)} of {len(parts)} parts have ids")
    views = [part.views for part in parts if part.views is not None]
    kinds = {(len(part.views or ()), part.view_kinds) for part in parts}
    if len(views) == len(parts) and len(kinds) == 1:
        joined.views = Views([JoinedRows(same) for same in zip(*(v.parts for v in views), strict=True)])
        joined.view_kinds = parts[0].view_kinds
    elif views:
        notes.append(f"/{name}/views is left out: the parts do not all have the same views")
    return joined, notes
