"""A data set that the `datasets` library saved to disk: a folder of Arrow files, or one folder per split.

The files are Arrow streams, listed by ``state.json``; ``dataset_info.json`` names the classes. They are read
with pyarrow, which is installed with ``ldmlr[parquet]``: the library itself is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from ldmlr.errors import InputError
from ldmlr.files import parse_json
from ldmlr.store.convert.parquet import pyarrow

STATE, INFO, SPLITS_FILE = "state.json", "dataset_info.json", "dataset_dict.json"
# What the library's users call the splits.
SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "validation": "val",
    "val": "val",
    "valid": "val",
    "dev": "val",
}


def is_saved_dataset(path: Path) -> bool:
    """Tell whether a folder was written by ``save_to_disk``."""
    return (path / STATE).is_file() or (path / SPLITS_FILE).is_file()


def split_folders(path: Path) -> dict[str, Path]:
    """Return the folders of the splits; that of a single data set holds the training rows."""
    if not (path / SPLITS_FILE).is_file():
        return {"train": path}
    names = _json(path / SPLITS_FILE).get("splits", [])
    found = {SPLIT_NAMES[name]: path / name for name in names if name in SPLIT_NAMES}
    if "train" not in found:
        raise InputError(
            f"{path}: has the splits {', '.join(map(str, names)) or 'none'}, expected train (and test, "
            "validation); rename one"
        )
    return found


class SavedDataset:
    """One split, with what is used of the interface of ``pyarrow.parquet.ParquetFile``.

    Parameters
    ----------
    folder
        Where ``state.json`` lies.
    """

    def __init__(self, folder: Path) -> None:
        arrow = pyarrow()
        self._stack = ExitStack()
        files = [entry.get("filename") for entry in _json(folder / STATE).get("_data_files", [])]
        if not files or not all(isinstance(name, str) and Path(name).name == name for name in files):
            raise InputError(f"{folder / STATE}: names no data files; save the data set again")
        tables = []
        for name in files:
            try:
                mapped = self._stack.enter_context(arrow.memory_map(str(folder / name)))
                tables.append(arrow.ipc.open_stream(mapped).read_all())
            except FileNotFoundError:
                raise InputError(f"{folder / name}: is missing; copy the whole folder") from None
        self.table = arrow.concat_tables(tables)
        self.schema_arrow = self.table.schema

    def read(self, columns: Sequence[str]) -> Any:
        """Return a table of some columns."""
        return self.table.select(list(columns))

    def iter_batches(self, batch_size: int, columns: Sequence[str]) -> Iterator[Any]:
        """Yield some columns, so many rows at a time."""
        yield from self.table.select(list(columns)).to_batches(max_chunksize=batch_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def class_names(folder: Path, label: str) -> tuple[str, ...] | None:
    """Return the names of the classes of a split where a column is a ``ClassLabel``."""
    try:
        names = _json(folder / INFO)["features"][label]["names"]
    except (InputError, KeyError, TypeError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); save the data set again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is no description of a data set; save the data set again")
    return found
