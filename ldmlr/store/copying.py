"""Writing a split that exists elsewhere: arrays, or rows of another store."""

from __future__ import annotations

from typing import Any

import numpy as np

from ldmlr import progress
from ldmlr.arguments import as_array
from ldmlr.errors import InputError
from ldmlr.store.layout import Array, SplitData, block_rows
from ldmlr.store.rows import Rows
from ldmlr.store.split import Split
from ldmlr.store.split_writer import IdKind, SplitWriter
from ldmlr.store.writer import StoreWriter


def write_split(writer: StoreWriter, name: str, data: SplitData | Split) -> None:
    """Lay out and write one split, a few megabytes at a time."""
    where = f"{writer.path}: /{name}"
    count = len(data.labels)
    features = data.rows if isinstance(data, Split) else data.features
    ids = data.ids_on_disk if isinstance(data, Split) else data.ids
    for key, values in (("features", features), ("source", data.source), ("ids", ids)):
        if values is not None and len(values) != count:
            raise InputError(f"{where}: {len(values)} rows of {key} but {count} labels; give one per row")
    views: Any = data.views_on_disk if isinstance(data, Split) else data.views
    view_count = 0 if views is None else len(views)
    split = writer.split(
        name, count, source=data.source is not None, ids=_id_kind(ids), views=view_count,
        view_kinds=data.view_kinds,
    )  # fmt: skip
    labels = as_array(data.labels)
    step = block_rows(4 * writer.dim)
    with progress.bar(count * (1 + view_count), f"write {name}", unit="rows") as bar:
        for start in range(0, count, step):
            stop = min(start + step, count)
            split.write(
                start,
                _block(features, start, stop),
                labels[start:stop],
                None if data.source is None else np.asarray(data.source[start:stop]),
                _some_ids(ids, start, stop),
            )
            bar.update(stop - start)
        for view in range(view_count):
            _write_view(split, view, views[view], step, bar)


def _write_view(split: SplitWriter, view: int, rows: Any, step: int, bar: Any) -> None:
    if len(rows) != split.rows:
        raise InputError(
            f"{split.writer.path}: /{split.name}/views: view {view} has {len(rows)} rows, "
            f"expected {split.rows}; give every view one row per sample"
        )
    for start in range(0, split.rows, step):
        stop = min(start + step, split.rows)
        split.write_view(view, start, _block(rows, start, stop))
        bar.update(stop - start)


def _block(features: Any, start: int, stop: int) -> Array:
    if isinstance(features, Rows) and features.storage == "float64":
        return features.stored(start, stop)  # the writer tells what float32 cannot hold from infinity
    return as_array(features[start:stop])


def _id_kind(ids: Any) -> IdKind:
    if ids is None:
        return False
    if hasattr(ids, "is_text"):
        return "text" if ids.is_text else "int"
    return "int" if np.asarray(ids).dtype.kind in "iu" else "text"


def _some_ids(ids: Any, start: int, stop: int) -> Any:
    if ids is None:
        return None
    return ids.read(start, stop) if hasattr(ids, "is_text") else ids[start:stop]
