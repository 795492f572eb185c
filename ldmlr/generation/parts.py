"""Rows drawn part by part into files, so that a killed generation goes on where it stopped.

A part is a range of global row numbers, written whole or not at all. Its bounds depend on the
dimension alone and its rows on their numbers alone, so the parts of an interrupted and
of an uninterrupted run are the same files. Each carries in its name the key it was drawn under: rows of other
settings, which another process may write beside them where the file system has no locks, are never joined
with these.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr import progress
from ldmlr.errors import LdmlrError, UsageError, opt
from ldmlr.files import atomic_path, beside, check_unfinished, os_error, write_text
from ldmlr.generation.drawing import OnDevice
from ldmlr.generation.plan import labels_of
from ldmlr.generation.prepare import Generation
from ldmlr.generation.side_by_side import Range
from ldmlr.remote import is_remote
from ldmlr.spool import kept

# A part is about this large; its rows are a multiple of the generators' tiles.
PART_BYTES = 16 << 20
ROW_MULTIPLE = 4096
KEY_FILE = "key.txt"
PART_FILES = "rows-*.npy"

Part = tuple[int, npt.NDArray[np.float32], npt.NDArray[np.int64]]


class Parts:
    """The parts of the rows ``start .. stop - 1`` of a generation, in a folder of their own.

    Parameters
    ----------
    folder
        Where the parts lie until the store is written.
    generation
        What is to be generated.
    start, stop
        Range of global row numbers.
    key
        What the rows depend on, as given to `parts_folder`.

    Attributes
    ----------
    device_wait
        Share of the time of `draw` in which a CUDA device had nothing to compute; None where that is
        not known: on the CPU, and with a gate.
    """

    def __init__(self, folder: Path, generation: Generation, start: int, stop: int, key: str) -> None:
        self.folder, self.generation, self.start, self.rows = folder, generation, start, stop - start
        self._key = hashlib.sha256(key.encode()).hexdigest()[:16]
        self.judged = self.refused = self.failed = 0
        self.device_wait: float | None = None
        rows = max(1, PART_BYTES // (4 * generation.generator.dim * ROW_MULTIPLE)) * ROW_MULTIPLE
        edges = [start, *range((start // rows + 1) * rows, stop, rows), stop]
        self.ranges = [(low, high) for low, high in itertools.pairwise(edges) if low < high]

    def draw(self) -> int:
        """Draw the parts that are missing; return the number of rows drawn now."""
        missing = [(low, high) for low, high in self.ranges if not self._path(low).exists()]
        drawn: int = sum(high - low for low, high in missing)
        with progress.bar(self.rows, "generate", "rows") as bar:
            bar.update(self.rows - drawn)
            for (low, high), rows in self._drawn(missing):
                with atomic_path(self._path(low)) as temporary, open(temporary, "wb") as file:
                    np.save(file, rows, allow_pickle=False)
                bar.update(high - low)
        return drawn

    def _drawn(self, ranges: list[Range]) -> Iterator[tuple[Range, npt.NDArray[np.float32]]]:
        """Yield the rows of each range; they are valid until the next range is asked for."""
        generation = self.generation
        overlapped = OnDevice.of(generation)
        if overlapped is not None and ranges:
            yield from overlapped(ranges)
            self.device_wait = overlapped.device_wait
            return
        for low, high in ranges:
            done = generation.draw(labels_of(generation.plan, low, high), low)
            self.judged += high - low
            self.refused += done.refused
            self.failed += done.failed
            yield (low, high), done.rows

    def gate_figures(self) -> dict[str, Any] | None:
        """Return what the gate did to the rows drawn now; None without a gate."""
        gate = self.generation.gate
        if gate is None:
            return None
        return {
            "kind": gate.kind, "rows": self.judged, "refused": self.refused, "failed": self.failed,
        }  # fmt: skip

    def __iter__(self) -> Iterator[Part]:
        """Yield (global number of the first row, features, labels) of each part."""
        for low, high in self.ranges:
            try:
                rows = np.load(self._path(low), allow_pickle=False)
                if rows.shape != (high - low, self.generation.generator.dim) or rows.dtype != np.float32:
                    raise ValueError(f"has shape {list(rows.shape)}")
            except (OSError, ValueError) as error:
                self._path(low).unlink(missing_ok=True)
                raise LdmlrError(
                    f"{self._path(low)}: this part was damaged ({error}); go on with {opt('resume', True)}"
                ) from None
            yield low, rows, labels_of(self.generation.plan, low, high)

    def _path(self, low: int) -> Path:
        return self.folder / f"rows-{self._key}-{low:015d}.npy"


def check_parts(output: Path, overwrite: bool) -> None:
    """Refuse to start afresh where an interrupted run left parts of `output`, unless that is asked for."""
    folder = _folder(output)
    if any(folder.glob(PART_FILES)):
        check_unfinished(folder, overwrite)


def parts_size(output: Path) -> int:
    """Return the bytes of the parts that an interrupted run left of `output`."""
    return sum(part.stat().st_size for part in _folder(output).glob(PART_FILES))


def remove_parts(output: Path) -> None:
    """Remove the parts of `output`, which is finished."""
    _remove(_folder(output))


@contextmanager
def parts_folder(output: Path, key: str, resume: bool, overwrite: bool = False) -> Iterator[Path]:
    """Yield the folder for the parts of `output`; it is kept only if the work is interrupted.

    Parts are reused with `resume` if they were drawn for the same key (settings, model and kernels); an
    error leaves these for another `resume`.

    Raises
    ------
    UsageError
        There are parts, they are not to be reused, and `overwrite` is not set.
    """
    folder = _folder(output)
    mark = folder / KEY_FILE
    same = mark.exists() and mark.read_text() == key
    if not resume:
        check_parts(output, overwrite)
    elif not same and not overwrite and any(folder.glob(PART_FILES)):
        raise UsageError(
            f"{folder}: holds rows of another model, other settings or another processor's kernels; go on "
            f"with those, or start afresh with {opt('overwrite', True)}"
        )
    if not (resume and same):
        _remove(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(error, folder) from error
    write_text(mark, key)
    try:
        yield folder
    except Exception:
        if not (resume and same):
            _remove(folder)
        raise
    # An interrupt is no Exception: it leaves the parts for --resume.
    _remove(folder)


def _folder(output: Path) -> Path:
    folder = beside(output, ".parts")
    # Of an output elsewhere this machine keeps them: they are read again as often as written.
    return kept(folder) if is_remote(folder) else folder


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
