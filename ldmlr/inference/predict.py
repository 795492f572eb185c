"""Predictions for new rows or images, streamed into a table: memory does not grow with the rows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError, UsageError, counted, opt
from ldmlr.files import atomic_path, check_output
from ldmlr.inference.chosen import Chosen
from ldmlr.inference.images import image_features
from ldmlr.progress import bar
from ldmlr.remote import as_path
from ldmlr.store.convert.parquet import pyarrow
from ldmlr.store.convert.unlabelled import open_features
from ldmlr.store.rows import Rows

# Rows whose features and probabilities are in memory at once.
BATCH = 4096
# The columns before those of the probabilities, which are called by the classes.
COLUMNS = ("row", "prediction", "probability")

Floats = npt.NDArray[np.float32]
# Number of the first row, names of the rows (or None) and features.
Block = tuple[int, Sequence[str] | None, Floats]
Write = Callable[[int, Sequence[str] | None, list[str], Floats], None]


def predict(
    chosen: Chosen,
    source: str | Path,
    out: Path,
    *,
    features_key: str | None = None,
    labels_key: str | None = None,
    split: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the predicted class and the probabilities of every row of a source.

    The table has the columns ``row`` (for images ``image``, their path), ``prediction`` (the name of the most
    likely class), ``probability`` (its own) and one per class, called by its name.

    Parameters
    ----------
    chosen
        The head.
    source
        Features in any form, or images where the run trained an encoder: a folder, or one file.
    out
        The table: ``.csv`` or ``.parquet``; written whole or not at all.
    features_key, labels_key, split
        Where the features are; see `ldmlr.store.convert.unlabelled.open_features`.
    device
        Where to compute.
    overwrite
        Replace a table that exists.

    Returns
    -------
    dict
        ``rows``, and ``counts``: predictions per class, by name.

    Raises
    ------
    InputError, UsageError
        The source cannot be read, has other dimensions than the head, or rows that are not finite.
    """
    out, source = as_path(out), as_path(source)
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"{opt('out')} {out}: name a file that ends in .csv or .parquet")
    if out.suffix.lower() == ".parquet":
        pyarrow()
    check_output(out, overwrite)
    chosen.to(device)
    images = image_features(chosen, source, device)
    if images is None:
        rows = open_features(source, features_key=features_key, labels_key=labels_key, split=split)
        if rows.shape[1] != chosen.dim:
            raise InputError(
                f"{source}: has rows of {counted(rows.shape[1], 'number')}, but the head takes "
                f"{chosen.dim}; give "
                f"features of the same encoder, or name their columns with {opt('features_key')}"
            )
        count, blocks = len(rows), _blocks(rows)
    else:
        count, blocks = images
    names = chosen.class_names
    counts = np.zeros(len(names), np.int64)
    with atomic_path(out, overwrite) as temporary, bar(count, "predict", unit="rows") as progress:
        with _table(temporary, out.suffix.lower(), names, "row" if images is None else "image") as write:
            for first, ids, features in blocks:
                bad = ~np.isfinite(features).all(axis=1)
                if bad.any():
                    raise InputError(
                        f"{source}: row {first + int(bad.argmax())} holds NaN or infinity; remove such rows"
                    )
                probabilities = chosen.probabilities(features)
                best = probabilities.argmax(axis=1)
                counts += np.bincount(best, minlength=len(names))
                write(first, ids, [names[label] for label in best.tolist()], probabilities)
                progress.update(len(features))
    found = {name: int(number) for name, number in zip(names, counts, strict=True) if number}
    return {"rows": count, "counts": found}


def _blocks(rows: Rows) -> Iterator[Block]:
    for start in range(0, len(rows), BATCH):
        yield start, None, rows.float32(slice(start, start + BATCH))


@contextmanager
def _table(path: Path, suffix: str, names: Sequence[str], first: str) -> Iterator[Write]:
    """Yield what writes a block of rows to the table."""
    leading = (first, *COLUMNS[1:])
    twice = len(set(names)) < len(names) or bool(set(names) & set(leading))
    # Columns are told apart by their names; classes that cannot be are numbered as well.
    columns = [f"{number}: {name}" for number, name in enumerate(names)] if twice else list(names)
    with _csv(path, [*leading, *columns]) if suffix == ".csv" else _parquet(path, leading, columns) as write:
        yield write


@contextmanager
def _csv(path: Path, header: Sequence[str]) -> Iterator[Write]:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)

        def write(start: int, ids: Sequence[str] | None, best: list[str], probabilities: Floats) -> None:
            first: Sequence[Any] = ids if ids is not None else range(start, start + len(best))
            for name, label, row in zip(first, best, probabilities, strict=True):
                writer.writerow(
                    [name, label, f"{row.max():.6g}", *(f"{value:.6g}" for value in row.tolist())]
                )

        yield write


@contextmanager
def _parquet(path: Path, leading: Sequence[str], columns: Sequence[str]) -> Iterator[Write]:
    arrow = pyarrow()
    kind = arrow.int64() if leading[0] == "row" else arrow.string()
    fields = [(leading[0], kind), (leading[1], arrow.string()), (leading[2], arrow.float32())]
    schema = arrow.schema([*fields, *((name, arrow.float32()) for name in columns)])
    with arrow.parquet.ParquetWriter(path, schema) as writer:

        def write(start: int, ids: Sequence[str] | None, best: list[str], probabilities: Floats) -> None:
            first: Sequence[Any] = ids if ids is not None else range(start, start + len(best))
            parts = [
                arrow.array(list(first), kind),
                arrow.array(best),
                arrow.array(probabilities.max(axis=1)),
            ]
            parts += [arrow.array(np.ascontiguousarray(column)) for column in probabilities.T]
            writer.write_table(arrow.Table.from_arrays(parts, schema=schema))

        yield write
