"""Features in tables of text: CSV and TSV with a line of column names, also compressed with gzip.

The labels and the shape are read in a first pass with the `csv` module, the numbers by `numpy.loadtxt`, a
block of rows at a time. Nothing beside NumPy is needed.
"""

from __future__ import annotations

import csv
import fnmatch
import gzip
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from ldmlr.boundary import boundary
from ldmlr.errors import InputError, alike, listed, opt
from ldmlr.store.convert.parquet import NOT_FEATURES
from ldmlr.store.convert.streams import StreamRows
from ldmlr.store.layout import Array, block_rows

DELIMITERS = (",", ";", "\t", "|")
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
# Rows looked at to tell which columns hold numbers; what comes after them is checked when it is read.
LOOKED_AT = 64


def is_delimited(path: Path) -> bool:
    """Tell whether a file calls itself CSV or TSV; no bytes at its start would."""
    return path.name.lower().endswith(SUFFIXES)


class DelimitedRows(StreamRows):
    """Numeric columns of a table of text, read a block of rows at a time.

    Parameters
    ----------
    path, delimiter
        The file.
    columns
        Names of the columns by their place in a line.
    count
        Rows.
    """

    def __init__(self, path: Path, delimiter: str, columns: dict[int, str], count: int) -> None:
        super().__init__(path, (count, len(columns)), "float32")
        self.path, self.delimiter, self.columns = path, delimiter, columns

    def all_blocks(self) -> Iterator[Array]:
        """Yield all rows from the first."""
        count, dim = self.shape
        yield np.empty((0, dim), np.float32)
        step = block_rows(4 * dim)
        with opened(self.path) as handle:
            # loadtxt reads ahead in a file, but line by line from anything else.
            lines = (line for line in handle)
            next(lines)
            for start in range(0, count, step):
                try:
                    yield np.loadtxt(
                        lines, np.float32, comments=None, delimiter=self.delimiter, quotechar='"',
                        usecols=list(self.columns), max_rows=min(step, count - start), ndmin=2,
                    )  # fmt: skip
                except ValueError as error:
                    raise self._no_number() or InputError(f"{self.path}: {error}; correct it") from None

    def _no_number(self) -> InputError | None:
        """Return an error that names the first entry that is no number."""
        with opened(self.path) as handle:
            reader = csv.reader(handle, delimiter=self.delimiter)
            next(reader)
            for row in reader:
                for place, name in self.columns.items() if row else ():
                    if not _is_number(row[place]):
                        return InputError(
                            f"{self.path}: line {reader.line_num}: {name} is {row[place]!r}, expected a "
                            f"number; fill it, or name the columns of features with {opt('features_key')}"
                        )
        return None


def read_delimited(
    path: Path, features_key: str | None, label_names: Sequence[str], *, labelled: bool = True
) -> tuple[DelimitedRows, Array]:
    """Open a table of text: its features as rows on disk, and its labels.

    Parameters
    ----------
    path
        The file; its first line names the columns.
    features_key
        A pattern such as ``f*`` of numeric columns; by default every numeric column but the label and ids.
    label_names
        Names of the label column, tried in turn.
    labelled
        Whether there has to be one; without one the labels are empty.

    Returns
    -------
    DelimitedRows, ndarray
        The features ``[N, D]`` and the labels ``[N]``: whole numbers where all are, else texts.

    Raises
    ------
    InputError
        There is no such column, a line is short, or a label is missing.
    """
    with opened(path) as handle:
        first = handle.readline()
        delimiter = max(DELIMITERS, key=first.count)
        names = next(csv.reader([first], delimiter=delimiter), [])
        _check_names(path, names)
        label = next((name for name in label_names if name in names), None)
        if label is None and labelled:
            raise InputError(
                f"{path}: has no label column {' or '.join(label_names[:3])}{alike(label_names[0], names)}; "
                f"its columns are {listed(names)}: "
                f"name it with {opt('labels_key')}"
            )
        at = None if label is None else names.index(label)
        reader = csv.reader(handle, delimiter=delimiter)
        labels: list[str] = []
        start: list[list[str]] = []
        for row in reader:
            if not row:
                continue
            line = reader.line_num + 1
            if len(row) != len(names):
                raise InputError(
                    f"{path}: line {line}: has {len(row)} fields, expected {len(names)}; write the file again"
                )
            if at is not None and labelled and not row[at].strip():
                raise InputError(f"{path}: line {line}: {label} is empty; remove the line, or label it")
            labels.append("" if at is None else row[at].strip())
            if len(start) < LOOKED_AT:
                start.append(row)
    if not labels:
        raise InputError(f"{path}: has column names only; expected at least one row")
    columns = _columns(path, names, at, start, features_key)
    return DelimitedRows(path, delimiter, columns, len(labels)), _typed(labels) if labelled else np.empty(0)


@contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """Open a table of text, compressed or not, and name what is no text or cannot be read."""
    with boundary(path, "table", "write it again", "cannot be read as a table"):
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        opener = gzip.open if packed else open
        try:
            with opener(path, "rt", encoding="utf-8-sig", newline="") as handle:
                yield handle
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is no UTF-8 text ({error.reason}); save the table as UTF-8") from None


def _check_names(path: Path, names: list[str]) -> None:
    if not names:
        raise InputError(f"{path}: is empty; expected a line of column names, then one line per row")
    if all(_is_number(name) for name in names):
        raise InputError(f"{path}: its first line holds numbers, expected the names of the columns; add them")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two columns are named {twice!r}; rename one")


def _columns(
    path: Path, names: list[str], label: int | None, start: list[list[str]], key: str | None
) -> dict[int, str]:
    """Return the columns of features: those that a pattern names, else all that start with numbers."""
    if key is not None:
        found = {i: name for i, name in enumerate(names) if fnmatch.fnmatchcase(name, key) and i != label}
        if not found:
            raise InputError(
                f"{path}: has no column {key!r}; its columns are {listed(names)}: name them with "
                f"{opt('features_key')}"
            )
        return found
    # The column without a name is what pandas writes of the index.
    others = ("", "Unnamed: 0", *NOT_FEATURES)
    found = {
        i: name for i, name in enumerate(names)
        if i != label and name not in others and _holds_numbers(row[i] for row in start)
    }  # fmt: skip
    if not found:
        raise InputError(
            f"{path}: has no column of numbers; its columns are {listed(names)}: name those of the "
            f"features with {opt('features_key')}"
        )
    return found


def _holds_numbers(entries: Iterator[str]) -> bool:
    """Tell whether all entries that are not empty are numbers; a gap is told when it is read."""
    filled = [entry for entry in itertools.chain(entries) if entry.strip()]
    return bool(filled) and all(map(_is_number, filled))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _typed(labels: list[str]) -> Array:
    """Return labels as whole numbers where all of them are, else as texts."""
    try:
        return np.array([int(label) for label in labels], np.int64)
    except (ValueError, OverflowError):
        return np.array(labels, dtype=str)
