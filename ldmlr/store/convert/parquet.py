"""Features in Parquet files and other Arrow tables: one list column, or one numeric column per dimension.

Needs pyarrow, which is installed with ``ldmlr[parquet]``.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.boundary import boundary
from ldmlr.errors import InputError, LdmlrError, alike, counted, listed, opt
from ldmlr.files import parse_json
from ldmlr.store.convert.streams import StreamRows
from ldmlr.store.layout import Array, block_rows
from ldmlr.store.split import Split

# Columns that are never features when all numeric columns are taken.
NOT_FEATURES = ("id", "ids", "index", "source", "split", "__index_level_0__")

# Opens a table: its value is a context with `schema_arrow`, `read` and `iter_batches`.
Opened = Callable[[], Any]


def pyarrow() -> Any:
    """Return pyarrow with its Parquet module, or raise an error that says how to install it."""
    try:
        import pyarrow as module
        import pyarrow.parquet
    except ImportError:
        raise LdmlrError(
            "Parquet files need pyarrow, which is not installed; run pip install 'ldmlr[parquet]'"
        ) from None
    return module


class ParquetRows(StreamRows):
    """Rows of an Arrow table, read a batch at a time; `opened` opens it, as a Parquet file is opened."""

    def __init__(self, path: Path, columns: Sequence[str], is_list: bool, count: int, opened: Opened):
        self.path, self.columns, self.is_list, self.opened = path, list(columns), is_list, opened
        super().__init__(path, (count, 1), "float32")
        self._width: int | None = None  # of a list column, known after the first row
        first = next((len(block[0]) for block in self.all_blocks() if len(block)), 0)
        dim = first if is_list else len(columns)
        if not dim:
            raise InputError(f"{path}: {columns[0]}: holds no rows; expected at least one")
        self.shape = (count, dim)
        self._width = dim

    def all_blocks(self) -> Iterator[Array]:
        """Yield all rows from the first."""
        done = 0
        size = block_rows(4 * max(self.shape[1], len(self.columns)))
        with _reading(self.path), self.opened() as file:
            yield np.empty((0, self.shape[1]), np.float32)
            for batch in file.iter_batches(batch_size=min(size, 1 << 14), columns=self.columns):
                block = self._lists(batch.column(0), done) if self.is_list else self._columns(batch, done)
                done += len(block)
                yield block

    def _lists(self, column: Any, done: int) -> Array:
        arrow = pyarrow()
        where = f"{self.path}: {self.columns[0]}"
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        if column.null_count:
            row = done + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise InputError(f"{where}: row {row} is null; remove it")
        expected = int(lengths[0]) if self._width is None else self._width
        if (lengths != expected).any():
            row = int(np.flatnonzero(lengths != expected)[0])
            raise InputError(
                f"{where}: row {done + row} has {counted(int(lengths[row]), 'number')}, expected {expected}; "
                "give every row the same number"
            )
        flat = column.flatten()
        if flat.null_count:
            flat = flat.cast(arrow.float32()).fill_null(float("nan"))
        values = np.asarray(flat.to_numpy(zero_copy_only=False))
        return values.astype(np.float32, copy=False).reshape(len(column), expected)

    def _columns(self, batch: Any, done: int) -> Array:
        block = np.empty((batch.num_rows, len(self.columns)), np.float32)
        for place, name in enumerate(self.columns):
            column = batch.column(batch.schema.get_field_index(name))
            if column.null_count:
                row = done + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                raise InputError(f"{self.path}: {name}: row {row} is null; remove it, or fill the column")
            block[:, place] = column.to_numpy(zero_copy_only=False)
        return block


@dataclasses.dataclass
class ParquetTable:
    """Rows, labels as they are, and what an export keeps beside them, where it is there."""

    rows: ParquetRows
    labels: Array
    source: Array | None
    ids: Array | None
    class_names: tuple[str, ...] | None
    label: str  # the column of labels


def read_parquet(
    path: Path,
    features_key: str | None,
    label_names: Sequence[str],
    opened: Opened | None = None,
    *,
    labelled: bool = True,
) -> ParquetTable:
    """Open a table: features and labels, and the columns ``source`` and ``id`` as an export writes them.

    Parameters
    ----------
    path
        The file.
    features_key
        A list column, or a pattern such as ``f*`` of numeric columns; by default the only list
        column, or else every numeric column but the labels and ids.
    label_names
        Names of the label column, tried in turn.
    opened
        Opens another kind of table with the interface of a Parquet file, such as `SavedDataset`.
    labelled
        Whether there has to be a label column; without one the labels are empty.
    """
    arrow = pyarrow()
    opened = opened or (lambda: arrow.parquet.ParquetFile(path))
    with _reading(path), opened() as file:
        schema = file.schema_arrow
        label = next((name for name in label_names if name in schema.names), None)
        if label is None and labelled:
            raise InputError(
                f"{path}: has no label column {' or '.join(label_names[:3])}"
                f"{alike(label_names[0], schema.names)}; its columns are {listed(schema.names)}: "
                f"name it with {opt('labels_key')}"
            )
        # Whatever column it is, it has as many entries as there are rows.
        column = file.read(columns=[label or schema.names[0]]).column(0)
        source, ids = _export_columns(file, label or "")
    if label is not None and labelled and column.null_count:
        raise InputError(
            f"{path}: {label}: without a value: {counted(column.null_count, 'label')}; remove these rows"
        )
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    names, is_list = _feature_columns(path, schema, features_key, label or "")
    kept = (schema.metadata or {}).get(b"class_names")
    labels = np.asarray(column.to_numpy()) if labelled else np.empty(0)
    rows = ParquetRows(path, names, is_list, len(column), opened)
    return ParquetTable(rows, labels, source, ids, _class_names(kept), label or "")


def _class_names(text: bytes | None) -> tuple[str, ...] | None:
    """Return the class names that `write_parquet` keeps; None where another program's entry has their key."""
    try:
        names = parse_json(text or b"null")
    except ValueError:
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else None


def _export_columns(file: Any, label: str) -> tuple[Array | None, Array | None]:
    """Return the columns ``source`` and ``id``, each None unless it looks as `write_parquet` writes it."""
    types, schema = pyarrow().types, file.schema_arrow
    found: list[Array | None] = []
    for name in ("source", "id"):
        place = schema.get_field_index(name)
        kind = None if place < 0 or name == label else schema.field(place).type
        fits = kind is not None and (
            types.is_uint8(kind) if name == "source" else types.is_int64(kind) or types.is_string(kind)
        )
        column = file.read(columns=[name]).column(0) if fits else None
        found.append(None if column is None or column.null_count else np.asarray(column.to_numpy()))
    source, ids = found
    return (None if source is None or (source > 1).any() else source), ids


def _feature_columns(path: Path, schema: Any, key: str | None, label: str) -> tuple[list[str], bool]:
    types = pyarrow().types

    def is_number(kind: Any) -> bool:
        return bool(types.is_floating(kind) or types.is_integer(kind))

    def is_list(kind: Any) -> bool:
        found = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return bool(found and is_number(kind.value_type))

    lists = [field.name for field in schema if is_list(field.type)]
    others = (label, *NOT_FEATURES)
    numbers = [field.name for field in schema if is_number(field.type) and field.name not in others]
    if key is not None:
        if key in lists:
            return [key], True
        chosen = [name for name in numbers if fnmatch.fnmatchcase(name, key)]
        if chosen:
            return chosen, False
        raise InputError(
            f"{path}: has no list column and no numeric columns {key!r}; its columns are "
            f"{listed(schema.names)}: name them with {opt('features_key')}"
        )
    if len(lists) == 1:
        return lists, True
    if len(lists) > 1:
        raise InputError(
            f"{path}: has list columns {', '.join(lists)}; choose one with {opt('features_key')}"
        )
    if numbers:
        return numbers, False
    raise InputError(f"{path}: has no column of numbers; expected features in a list column or many columns")


def write_parquet(path: Path, split: Split, class_names: Sequence[str] | None) -> None:
    """Write a split: ``features`` (lists of a fixed size), ``label``, and ``source`` and ``id`` if there."""
    arrow = pyarrow()
    count, dim = split.shape
    fields = [("features", arrow.list_(arrow.float32(), dim)), ("label", arrow.int64())]
    ids = split.ids_on_disk
    if split.source is not None:
        fields.append(("source", arrow.uint8()))
    if ids is not None:
        fields.append(("id", arrow.string() if ids.is_text else arrow.int64()))
    metadata = {"class_names": json.dumps(list(class_names))} if class_names else None
    schema = arrow.schema(fields, metadata=metadata)
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        step = block_rows(4 * dim)
        for start in range(0, count, step):
            stop = min(start + step, count)
            flat = arrow.array(split.float32(slice(start, stop)).reshape(-1))
            columns = [
                arrow.FixedSizeListArray.from_arrays(flat, dim),
                arrow.array(split.labels[start:stop]),
            ]
            if split.source is not None:
                columns.append(arrow.array(split.source[start:stop]))
            if ids is not None:
                columns.append(arrow.array(ids.read(start, stop), type=schema.field("id").type))
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def _reading(path: Path) -> AbstractContextManager[None]:
    """Return the boundary to what pyarrow raises."""
    return boundary(path, "data set" if path.is_dir() else "Parquet file", "write it again")
